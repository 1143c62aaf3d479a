//! What has ended is cleared away, a bounded number at a time.
//!
//! Nothing depends on a sweep: every rule compares instants when it decides. So clearing is no change of
//! state that anyone can see, and leaves no audit row; but for an elevation that has lapsed, whose end is told.

use interlock_proto::credential::Hash;

use crate::{
    elevation::{self, Why},
    ids::{OwnerId, OwnerSessionId, RequestId},
    limits,
    owner_session::RefreshState,
    policy::Act,
    store::{Query, Stop, Tx, Verb, View},
};

/// Something that may be cleared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// A role token whose grace is over.
    RoleToken(Hash),
    /// An owner session that has ended or was ended, with all its tokens.
    OwnerSession(OwnerSessionId),
    /// The elevation of an owner session whose time is over.
    Elevation(OwnerSessionId),
    /// An access token that has ended.
    Access(Hash),
    /// The sealed answer to a refresh whose window is over. The token stays, to know a replay.
    Successor(Hash),
    /// The sealed answer to a rotation that is no longer given.
    Answer(OwnerId, RequestId),
    /// The sealed answer to a request that made a project token, no longer given.
    TokenAnswer(OwnerId, RequestId),
    /// A project token that has ended, by itself or otherwise.
    ProjectToken(Hash),
    /// Rows of the revocation log up to and with this one.
    Revocations(u64),
}

impl Due {
    /// The audit action under which it is cleared.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Elevation(_) => "elevation.lapse",
            Self::RoleToken(_)
            | Self::OwnerSession(_)
            | Self::Access(_)
            | Self::Successor(_)
            | Self::Answer(..)
            | Self::TokenAnswer(..)
            | Self::ProjectToken(_)
            | Self::Revocations(_) => "sweep.clear",
        }
    }
}

/// Finds what may be cleared, at most [`limits::SWEEP_MAX`] things and then a part of the log; sealed secrets
/// first. There may be more where it finds that many. By the host only.
#[derive(Clone, Copy, Debug)]
pub struct FindDue;

impl Query for FindDue {
    type Out = Vec<Due>;

    fn run(&self, view: &mut View<'_>) -> Result<Vec<Due>, Stop> {
        view.authorize(Act::Sweep)?;
        let mut due = view.due(limits::SWEEP_MAX)?;
        let Prunable { pruned, through } = prunable(view)?;
        let through = through.min(pruned.saturating_add(limits::REVOCATIONS_CLEARED_MAX));
        if through > pruned {
            due.push(Due::Revocations(through));
        }
        Ok(due)
    }
}

/// How far the revocation log has been cut, and how far it may be.
struct Prunable {
    pruned: u64,
    through: u64,
}

fn prunable(view: &View<'_>) -> Result<Prunable, Stop> {
    let counters = view.counters()?;
    let by_number = counters.revocation.saturating_sub(limits::REVOCATIONS_MAX);
    let by_age = view.revocations_before(view.now().before(limits::REVOCATION_AGE))?;
    Ok(Prunable { pruned: counters.pruned, through: by_number.max(by_age) })
}

/// Clears one thing, if it still may be.
#[derive(Clone, Debug)]
pub struct Clear {
    /// What [`FindDue`] found.
    pub due: Due,
}

impl Verb for Clear {
    /// Whether it was cleared.
    type Out = bool;

    fn run(&self, tx: &mut Tx<'_>) -> Result<bool, Stop> {
        let permit = tx.authorize_sweep()?;
        let now = tx.now();
        let still = match &self.due {
            Due::RoleToken(hash) => tx.role_token(hash)?.is_some_and(|token| token.is_clearable(now)),
            Due::OwnerSession(id) => {
                tx.session_and_owner(id)?.is_some_and(|(session, owner)| session.is_clearable(&owner, now))
            }
            Due::Elevation(id) => return elevation::end(tx, &permit, id, Why::Lapsed),
            Due::Access(hash) => tx.access(hash)?.is_some_and(|access| access.is_clearable(now)),
            Due::Successor(hash) => tx.refresh_token(hash)?.is_some_and(
                |t| matches!(t.state, RefreshState::Used(answer) if answer.ends_at().is_over(now)),
            ),
            Due::Answer(owner, request) => tx.answer(owner, request)?.is_some_and(|a| a.ends_at.is_over(now)),
            Due::TokenAnswer(owner, request) => {
                tx.token_answer(owner, request)?.is_some_and(|a| a.ends_at.is_over(now))
            }
            Due::ProjectToken(hash) => tx.project_token(hash)?.is_some_and(|token| token.is_clearable(now)),
            Due::Revocations(through) => {
                let may = prunable(tx)?;
                *through > may.pruned && *through <= may.through
            }
        };
        if still {
            tx.clear(&permit, self.due.clone())?;
        }
        Ok(still)
    }
}
