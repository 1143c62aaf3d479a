//! The revocation log: one row for each "forget what you know of these".
//!
//! A row is durable, has a gap-free sequence number, and matches the credentials of its subject that were
//! issued before a number ("before" compares issuance numbers, never times: DESIGN 14.10). To a verifier
//! a row means: *ask again*. Whether the answer is then a refusal is decided by the store's own rows, in
//! the same commit: so the same log carries ends (logout, rotation) and mere changes (a role token that
//! goes on for its grace, an owner's changed roles, a new member).
//!
//! Old rows are dropped by age and by number. A verifier that has not seen a dropped row is told to forget
//! everything (`reset`), so no bound on the log can let a revoked credential in.

use interlock_kit::clock::Timestamp;

use crate::{
    ids::{CredentialId, OwnerId, OwnerSessionId, ProjectId},
    limits,
    policy::Act,
    role_token::Role,
    store::{Query, Stop, View},
};

/// One row of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Its place in the log; no gaps.
    pub sequence: u64,
    /// Whom it concerns.
    pub subject: Subject,
    /// Credentials with a smaller issuance number. Membership rows match every one.
    pub issued_before: u64,
    /// When.
    pub at: Timestamp,
    /// What it means to those who keep more than verdicts.
    pub effect: Effect,
}

/// What a row says beside "ask again", to services that have made something on its subject: the gateway has clients of
/// an owner's sessions, which need nothing of auth from call to call (DESIGN 14.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing: it may be good still.
    Asks,
    /// It has ended, with what was made on it.
    Ends,
    /// The same, and work that was begun for it is to stop.
    EndsWork,
}

impl Effect {
    /// Of an end that `cancel_jobs` was said with, or not.
    #[must_use]
    pub fn of_end(cancel_jobs: bool) -> Self {
        if cancel_jobs { Self::EndsWork } else { Self::Ends }
    }

    /// As it is stored.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Asks => 0,
            Self::Ends => 1,
            Self::EndsWork => 2,
        }
    }

    /// The one that is stored so.
    pub(crate) fn of_code(code: i64) -> Option<Self> {
        [Self::Asks, Self::Ends, Self::EndsWork].into_iter().find(|effect| i64::from(effect.code()) == code)
    }
}

/// Whom a revocation concerns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One credential.
    Credential(CredentialId),
    /// All credentials of one owner session.
    OwnerSession(OwnerSessionId),
    /// All credentials of one owner, and what is known of its memberships.
    Owner(OwnerId),
    /// All tokens of one role.
    Role(Role),
    /// One owner's membership in one project.
    Membership(OwnerId, ProjectId),
    /// All owner sessions of everybody.
    EveryOwnerSession,
}

/// Reads the log in order: what a verifier that has applied `after` must still hear.
#[derive(Clone, Copy, Debug)]
pub struct RevocationsAfter {
    /// The last row that was applied.
    pub after: u64,
    /// At most so many; never more than [`limits::REVOCATION_PAGE_MAX`].
    pub limit: u32,
}

/// A part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// In order, without gaps.
    pub rows: Vec<Revocation>,
    /// The newest sequence of the log at this snapshot: there is more where the last row is smaller.
    pub newest: u64,
    /// Rows after `after` are gone, or `after` is of another store: forget everything.
    pub reset: bool,
}

impl Query for RevocationsAfter {
    type Out = LogPage;

    fn run(&self, view: &mut View<'_>) -> Result<LogPage, Stop> {
        view.authorize(Act::Verify)?;
        let counters = view.counters()?;
        let reset = self.after < counters.pruned || self.after > counters.revocation;
        let after = if reset { counters.revocation } else { self.after };
        let rows = view.revocations(after, self.limit.min(limits::REVOCATION_PAGE_MAX))?;
        Ok(LogPage { rows, newest: counters.revocation, reset })
    }
}
