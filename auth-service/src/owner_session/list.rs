//! Which owner sessions live: one's own, or for administrators an owner's and everybody's.

use super::{OwnerSession, SessionPlace};
use crate::{
    ids::OwnerId,
    limits,
    policy::{self, Act},
    store::{Query, Stop, View},
};

/// Whose owner sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The caller's own.
    Own,
    /// An owner's.
    Owner(OwnerId),
    /// Everybody's.
    Everybody,
}

/// Lists living owner sessions: by owner, the oldest first.
#[derive(Clone, Debug)]
pub struct ListSessions {
    /// Whose.
    pub whose: Whose,
    /// Those after this place.
    pub after: SessionPlace,
    /// At most so many; 0: [`limits::PAGE_DEFAULT`].
    pub limit: u32,
}

/// A page of owner sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPage {
    /// By owner, the oldest first. Each with its elevation, where that holds.
    pub sessions: Vec<OwnerSession>,
    /// The place of the last one, where there are more.
    pub next: Option<SessionPlace>,
}

impl Query for ListSessions {
    type Out = SessionPage;

    fn run(&self, view: &mut View<'_>) -> Result<SessionPage, Stop> {
        let owner = match &self.whose {
            Whose::Own => {
                let principal = view.call().caller.principal().ok_or_else(policy::login_required)?;
                Some(principal.owner_id.clone())
            }
            Whose::Owner(owner) => Some(owner.clone()),
            Whose::Everybody => None,
        };
        if let Some(owner) = &owner {
            view.about_owner(owner);
        }
        let own = owner.as_ref().is_some_and(|owner| view.is_caller(owner));
        view.authorize(Act::ListSessions { own })?;
        let limit = if self.limit == 0 { limits::PAGE_DEFAULT } else { self.limit.min(limits::PAGE_MAX) };
        let mut sessions = view.owner_sessions(owner.as_ref(), &self.after, limit + 1)?;
        let more = sessions.len() > limit as usize;
        sessions.truncate(limit as usize);
        for session in &mut sessions {
            session.elevation =
                session.elevation.filter(|elevation| elevation.holds(view.root(), view.now()));
        }
        let next = sessions.last().filter(|_| more).map(OwnerSession::place);
        Ok(SessionPage { sessions, next })
    }
}
