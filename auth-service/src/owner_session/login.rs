//! Sign in, and the record of who was refused.

use std::time::Duration;

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::audit::Outcome,
};

use super::{OwnerSession, store_access, store_refresh};
use crate::{
    ids::{OwnerId, OwnerSessionId},
    limits,
    owner::Owner,
    password::PasswordHash,
    policy,
    role_token::Role,
    store::{Stop, Tx, Verb},
    trust::NewCredential,
};

/// Begins an owner session. The password was checked against [`crate::owner::ReadForLogin`]'s answer,
/// outside; that the owner has not changed since is checked here.
#[derive(Clone, Debug)]
pub struct Login {
    /// Who.
    pub owner: OwnerId,
    /// The version whose password was verified.
    pub version: u64,
    /// The new session.
    pub session: OwnerSessionId,
    /// Its access token.
    pub access: NewCredential,
    /// Its refresh token.
    pub refresh: NewCredential,
    /// How long the access token lives.
    pub access_ttl: Duration,
    /// How long the session lives.
    pub session_ttl: Duration,
    /// The same password hashed as we do it, where the stored hash was an imported one.
    pub rehashed: Option<PasswordHash>,
}

/// A new owner session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// The session.
    pub session: OwnerSessionId,
    /// Who.
    pub owner: OwnerId,
    /// The name to show.
    pub display_name: String,
    /// As on the wire.
    pub role: Role,
    /// When the access token ends.
    pub access_expires_at: Timestamp,
    /// When the session ends.
    pub expires_at: Timestamp,
}

impl Verb for Login {
    type Out = SignedIn;

    fn run(&self, tx: &mut Tx<'_>) -> Result<SignedIn, Stop> {
        tx.attribute(self.owner.as_str(), "");
        let owner = tx.owner(&self.owner)?;
        let (owner, permit) = policy::sign_in(owner, self.version, &self.session)?;
        tx.attribute(owner.id.as_str(), owner.role().text());
        if tx.living_sessions(&owner)? >= limits::OWNER_SESSIONS_MAX {
            return Err(Error::new(Reason::LimitReached, "too many owner sessions; sign some out").into());
        }
        let expires_at = tx.now().after(self.session_ttl);
        let access_expires_at = tx.now().after(self.access_ttl).min(expires_at);
        let issuance = store_access(tx, &permit, &self.session, &self.access, access_expires_at)?;
        store_refresh(tx, &permit, &self.session, &self.refresh, None)?;
        let session = OwnerSession {
            id: self.session.clone(),
            owner: owner.id.clone(),
            issuance,
            created_at: tx.now(),
            expires_at,
            ended_at: None,
            refreshes: 0,
            elevation: None,
        };
        tx.insert_owner_session(&permit, session);
        if let Some(hash) = &self.rehashed {
            tx.rehash(&permit, &owner, hash.clone());
        }
        tx.concerning(self.session.as_str());
        tx.audit(Outcome::Done, "");
        let role = owner.role();
        let Owner { id, display_name, .. } = owner;
        Ok(SignedIn {
            session: self.session.clone(),
            owner: id,
            display_name,
            role,
            access_expires_at,
            expires_at,
        })
    }
}

/// Records that a sign-in was refused: wrong password and inactive owner alike. Always
/// answers `INVALID_CREDENTIALS`.
#[derive(Clone, Debug)]
pub struct RefuseLogin {
    /// Whom the caller claimed to be: an owner that there is. A name that is nobody's may be a password typed
    /// into the wrong field, and is kept nowhere.
    pub claimed: OwnerId,
}

impl Verb for RefuseLogin {
    type Out = ();

    fn run(&self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        tx.attribute(self.claimed.as_str(), "");
        tx.concerning(self.claimed.as_str());
        Err(policy::wrong_credentials().into())
    }
}
