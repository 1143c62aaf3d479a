//! Owner sessions: sign in, refresh, sign out; lists of them, and their end by others.
//!
//! An owner session is a chain of refresh tokens, each with at most one successor (I9), and the access
//! tokens that were issued beside them. An access token that was issued stays valid until its own end,
//! also after a refresh: calls in flight do not fail because their program has just refreshed. No
//! credential outlives the session's absolute end.
//!
//! # Refresh
//!
//! A refresh token is *fresh* until it is first presented; the answer to that presentation is sealed by
//! the shell under the presented token and stored. For [`limits::REFRESH_WINDOW`] the token is *used*:
//! whoever presents it gets that same answer. When the window is over, or as soon as the successor is
//! presented, the sealed answer is of no use any more and the token is *spent*: presenting it again is a
//! replay, which ends the whole session and is audited (DESIGN 5 and 14.13).

use interlock_kit::clock::Timestamp;
use interlock_proto::credential::{Hash, Kind};

use crate::{
    elevation::Elevation,
    ids::{CredentialId, OwnerId, OwnerSessionId},
    limits,
    owner::Owner,
    policy::OwnerSessionPermit,
    revocation::Subject,
    store::{Stop, Tx},
    trust::NewCredential,
};

mod list;
mod login;
mod logout;
mod refresh;
mod revoke;
mod status;

pub use self::{
    list::{ListSessions, SessionPage, Whose},
    login::{Login, RefuseLogin, SignedIn},
    logout::{LoggedOut, Logout},
    refresh::{Refresh, Refreshed, Successors},
    revoke::{RevokeAll, RevokeSession},
    status::{KnownAs, SessionStatus, SignedInAs, StatusOfSession, WhoAmI},
};

/// An owner's signed-in period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerSession {
    /// Its name.
    pub id: OwnerSessionId,
    /// Whose.
    pub owner: OwnerId,
    /// The issuance number of its first credential.
    pub issuance: u64,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ends, whatever is refreshed.
    pub expires_at: Timestamp,
    /// When it was ended before that.
    pub ended_at: Option<Timestamp>,
    /// How often it was refreshed.
    pub refreshes: u32,
    /// That root is unlocked, if it is: or was, until the sweep says that it lapsed.
    pub elevation: Option<Elevation>,
}

/// Where a list of owner sessions goes on: by owner, the oldest first. Before all is the default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionPlace {
    /// Whose.
    pub owner: OwnerId,
    /// The session's issuance number.
    pub issuance: u64,
}

impl Default for SessionPlace {
    fn default() -> Self {
        Self { owner: OwnerId::made(""), issuance: 0 }
    }
}

impl OwnerSession {
    /// Its place in lists.
    #[must_use]
    pub fn place(&self) -> SessionPlace {
        SessionPlace { owner: self.owner.clone(), issuance: self.issuance }
    }

    /// Whether it was ended: by itself, or with all of its owner's.
    #[must_use]
    pub fn is_ended(&self, owner: &Owner) -> bool {
        self.ended_at.is_some() || self.issuance < owner.sessions_from || !owner.active
    }

    /// Whether it may be forgotten: it was ended, or has been over for so long that nobody is told so.
    pub(crate) fn is_clearable(&self, owner: &Owner, now: Timestamp) -> bool {
        self.is_ended(owner) || self.expires_at.after(limits::ENDED_KEPT).is_over(now)
    }
}

/// One access token, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// SHA-256 of the token.
    pub hash: Hash,
    /// Its public handle.
    pub id: CredentialId,
    /// Of which owner session.
    pub session: OwnerSessionId,
    /// Grows with each credential of this service.
    pub issuance: u64,
    /// When it ends; never after its session.
    pub expires_at: Timestamp,
}

impl Access {
    /// Whether it has been over for so long that nobody is told so any more.
    pub(crate) fn is_clearable(&self, now: Timestamp) -> bool {
        self.expires_at.after(limits::ENDED_KEPT).is_over(now)
    }
}

/// One refresh token, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshToken {
    /// SHA-256 of the token.
    pub hash: Hash,
    /// Its public handle.
    pub id: CredentialId,
    /// Of which owner session.
    pub session: OwnerSessionId,
    /// Grows with each credential of this service.
    pub issuance: u64,
    /// Whose successor it is; `None` for the first.
    pub predecessor: Option<Hash>,
    /// How far it is used up.
    pub state: RefreshState,
}

/// How far a refresh token is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefreshState {
    /// Not presented yet.
    Fresh,
    /// Presented; the same answer is given again until the window is over.
    Used(Successor),
    /// The window is over, or the successor was presented.
    Spent,
}

/// The stored answer to a refresh. The secrets in it are sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// When the token was first presented.
    pub at: Timestamp,
    /// Both new credentials, sealed under the presented one.
    pub sealed: Vec<u8>,
    /// When the new access token ends.
    pub access_expires_at: Timestamp,
}

impl Successor {
    /// When the answer is no longer given.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        self.at.after(limits::REFRESH_WINDOW)
    }
}

fn end(tx: &mut Tx<'_>, permit: &OwnerSessionPermit, session: &OwnerSession) -> Result<u64, Stop> {
    let revocation = tx.revoke(Subject::OwnerSession(session.id.clone()))?;
    tx.end_owner_session(permit, session);
    Ok(revocation.sequence)
}

fn store_access(
    tx: &mut Tx<'_>,
    permit: &OwnerSessionPermit,
    session: &OwnerSessionId,
    new: &NewCredential,
    expires_at: Timestamp,
) -> Result<u64, Stop> {
    assert!(new.kind == Kind::Owner, "an access token of another kind");
    let issuance = tx.issue()?;
    let access =
        Access { hash: new.hash, id: new.id.clone(), session: session.clone(), issuance, expires_at };
    tx.insert_access(permit, access);
    Ok(issuance)
}

fn store_refresh(
    tx: &mut Tx<'_>,
    permit: &OwnerSessionPermit,
    session: &OwnerSessionId,
    new: &NewCredential,
    predecessor: Option<Hash>,
) -> Result<(), Stop> {
    assert!(new.kind == Kind::Refresh, "a refresh token of another kind");
    let issuance = tx.issue()?;
    let token = RefreshToken {
        hash: new.hash,
        id: new.id.clone(),
        session: session.clone(),
        issuance,
        predecessor,
        state: RefreshState::Fresh,
    };
    tx.insert_refresh(permit, token);
    Ok(())
}
