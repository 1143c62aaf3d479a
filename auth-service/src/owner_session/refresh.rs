//! Refresh: one successor for each token, and the end of the family for a replay.

use std::time::Duration;

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::audit::Outcome,
};
use interlock_proto::credential::Hash;

use super::{OwnerSession, RefreshState, RefreshToken, Successor, end, store_access, store_refresh};
use crate::{
    ids::{OwnerId, OwnerSessionId},
    limits,
    policy::{self, OwnerSessionPermit},
    store::{Stop, Tx, Verb},
    trust::NewCredential,
};

/// Trades a refresh token for its successor.
#[derive(Clone, Debug)]
pub struct Refresh {
    /// SHA-256 of the presented token.
    pub presented: Hash,
    /// The next access token.
    pub access: NewCredential,
    /// The next refresh token.
    pub refresh: NewCredential,
    /// Both, sealed by the shell under the presented token.
    pub sealed: Vec<u8>,
    /// How long the access token lives.
    pub access_ttl: Duration,
}

/// What a refresh did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// Nobody's token: the caller is refused with `INVALID_CREDENTIALS`, and counted by its source.
    Unknown,
    /// Open the answer with the presented token; it may be that of an earlier call.
    Issued(Successors),
    /// A replay: the session has been ended. Wait for this row of the revocation log, then answer
    /// `INVALID_CREDENTIALS`; the audit row is written.
    Replayed {
        /// Which owner session was ended.
        session: OwnerSessionId,
        /// Its row.
        revocation: u64,
    },
}

/// The answer to a refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successors {
    /// Which owner session.
    pub session: OwnerSessionId,
    /// Whose.
    pub owner: OwnerId,
    /// Both credentials, sealed under the presented token.
    pub sealed: Vec<u8>,
    /// When the access token ends.
    pub access_expires_at: Timestamp,
    /// When the session ends.
    pub expires_at: Timestamp,
}

impl Verb for Refresh {
    type Out = Refreshed;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Refreshed, Stop> {
        let Some(token) = tx.refresh_token(&self.presented)? else { return Ok(Refreshed::Unknown) };
        let Some((session, owner)) = tx.session_and_owner(&token.session)? else {
            return Ok(Refreshed::Unknown);
        };
        tx.attribute(owner.id.as_str(), owner.role().text());
        tx.present(&token.id);
        tx.concerning(session.id.as_str());
        let permit = policy::go_on(&session, &owner, tx.now())?;
        match &token.state {
            RefreshState::Fresh => self.first(tx, &permit, &token, session),
            RefreshState::Used(answer) if !answer.ends_at().is_over(tx.now()) => {
                Ok(Refreshed::Issued(Successors {
                    session: session.id,
                    owner: session.owner,
                    sealed: answer.sealed.clone(),
                    access_expires_at: answer.access_expires_at,
                    expires_at: session.expires_at,
                }))
            }
            RefreshState::Used(_) | RefreshState::Spent => replayed(tx, &permit, session),
        }
    }
}

impl Refresh {
    fn first(
        &self,
        tx: &mut Tx<'_>,
        permit: &OwnerSessionPermit,
        token: &RefreshToken,
        session: OwnerSession,
    ) -> Result<Refreshed, Stop> {
        if session.refreshes >= limits::REFRESHES_MAX {
            return Err(Error::new(Reason::LimitReached, "refreshed too often; sign in again").into());
        }
        let before = match &token.predecessor {
            Some(hash) => tx.refresh_token(hash)?,
            None => None,
        };
        if let Some(before) = before.filter(|t| matches!(t.state, RefreshState::Used(_))) {
            tx.spend_refresh(permit, &before);
        }
        let access_expires_at = tx.now().after(self.access_ttl).min(session.expires_at);
        store_access(tx, permit, &session.id, &self.access, access_expires_at)?;
        store_refresh(tx, permit, &session.id, &self.refresh, Some(token.hash))?;
        let answer = Successor { at: tx.now(), sealed: self.sealed.clone(), access_expires_at };
        tx.use_refresh(permit, token, answer);
        tx.count_refresh(permit, &session);
        tx.audit(Outcome::Done, "");
        Ok(Refreshed::Issued(Successors {
            expires_at: session.expires_at,
            session: session.id,
            owner: session.owner,
            sealed: self.sealed.clone(),
            access_expires_at,
        }))
    }
}

/// Ends the family. The call is refused, and this is its one effect (I9, I12).
fn replayed(tx: &mut Tx<'_>, permit: &OwnerSessionPermit, session: OwnerSession) -> Result<Refreshed, Stop> {
    let revocation = end(tx, permit, &session)?;
    tx.audit(Outcome::Refused(Reason::InvalidCredentials), r#"{"replayed":true,"session":"ended"}"#);
    Ok(Refreshed::Replayed { session: session.id, revocation })
}
