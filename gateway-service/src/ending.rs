//! The end of an owner, or of a membership, at what needs nothing of auth from call to call: the clients of the owner's
//! sessions, and the passwords that further ones would join with (DESIGN 14.3).
//!
//! The sessions stay, for an administrator, and so do their jobs, unless the end said otherwise. One verb a session: each
//! is short, and all of an owner are done before the end is acknowledged to auth (`following` has that part, and
//! what was missed).

use crate::{
    client::{LeaveCause, leave},
    ids::{OwnerId, ProjectId, SessionId},
    job,
    password::SessionPassword,
    session::Phase,
    store::{Query, Stop, Tx, Verb, View},
};

/// A place in auth's log of revocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The last row that was seen to; 0: none ever.
    pub sequence: u64,
    /// What was issued before it has smaller numbers; 0: not known.
    pub issued_before: u64,
}

/// What has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whose sessions it is about.
    pub owner: OwnerId,
    /// Only those that are bound to this project; all where `None`.
    pub project: Option<ProjectId>,
    /// Their jobs in flight are cancelled, too.
    pub cancel_jobs: bool,
}

/// Ends what one session has of an owner, or of a membership, that has ended. Answers whether there was anything.
#[derive(Clone, Debug)]
pub struct EndClients {
    /// The session.
    pub session: SessionId,
    /// What has ended.
    pub ended: Ended,
}

/// Lists an owner's living sessions that an end is about, newest first.
#[derive(Clone, Debug)]
pub struct Concerned {
    /// What has ended.
    pub ended: Ended,
    /// Those before this one.
    pub before: Option<SessionId>,
}

/// A part of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcernedPart {
    /// Newest first.
    pub sessions: Vec<SessionId>,
    /// Where to go on; none: these are all.
    pub next: Option<SessionId>,
}

/// The next owner, by its id, who has a living session.
#[derive(Clone, Debug)]
pub struct NextOwner {
    /// The one before.
    pub after: Option<OwnerId>,
}

/// The projects that an owner's living sessions are bound to, from a part of the list of them.
#[derive(Clone, Debug)]
pub struct ProjectsOf {
    /// Whose.
    pub owner: OwnerId,
    /// Sessions before this one.
    pub before: Option<SessionId>,
}

/// Up to where auth's log was seen to.
#[derive(Clone, Debug)]
pub struct ReadFollowed;

/// Notes up to where auth's log was seen to. Answers whether that was further than before, or `anew`: numbers that were
/// kept are of another log.
#[derive(Clone, Debug)]
pub struct NoteFollowed {
    /// Up to here.
    pub place: Place,
    /// Whatever was noted before.
    pub anew: bool,
}

impl Verb for EndClients {
    type Out = bool;
    const ACTION: &'static str = "session.end_clients";

    fn run(&self, tx: &mut Tx<'_>) -> Result<bool, Stop> {
        let permit = tx.upkeep()?;
        let Some((session, ..)) = tx.any_session(&permit, &self.session)? else { return Ok(false) };
        let bound = session.binding.as_ref().map(|binding| &binding.project);
        let concerned = self.ended.project.as_ref().is_none_or(|project| bound == Some(project));
        if session.phase == Phase::Gone || session.owner != self.ended.owner || !concerned {
            return Ok(false);
        }
        let clients = tx.clients_of(&permit, &self.session)?;
        let password = tx.any_password(&permit, &self.session)?.filter(|password| !password.is_closed());
        let jobs = if self.ended.cancel_jobs { tx.session_jobs(&session)? } else { Vec::new() };
        for client in &clients {
            leave(tx, &permit, &session, client, LeaveCause::OwnerEnded);
        }
        if let Some(password) = &password {
            let closed = SessionPassword::closed(password);
            tx.set_password(&permit, Some(password.clone()), closed);
        }
        let in_flight = jobs.iter().filter(|job| job.cancel_requested_at.is_none()).count();
        job::end_all(tx, &permit, &jobs, "its owner, or the owner's membership, has ended");
        if clients.is_empty() && password.is_none() && in_flight == 0 {
            return Ok(false);
        }
        let detail = serde_json::json!({
            "clients": clients.len(), "password": password.is_some(), "jobs": in_flight,
        });
        tx.done(self.session.as_str(), bound, &detail.to_string());
        Ok(true)
    }
}

impl Query for Concerned {
    type Out = ConcernedPart;
    const ACTION: &'static str = "sweep.due";

    fn run(&self, view: &mut View<'_>) -> Result<ConcernedPart, Stop> {
        let permit = view.upkeep()?;
        let (sessions, next) = view.living_of(&permit, &self.ended.owner, self.before.as_ref())?;
        let wanted = self.ended.project.as_ref();
        let concerned = sessions.into_iter().filter(|session| {
            let bound = session.binding.as_ref().map(|binding| &binding.project);
            wanted.is_none() || bound == wanted
        });
        Ok(ConcernedPart { sessions: concerned.map(|session| session.id).collect(), next })
    }
}

impl Query for ProjectsOf {
    /// Some of the projects, and where to go on.
    type Out = (Vec<ProjectId>, Option<SessionId>);
    const ACTION: &'static str = "sweep.due";

    fn run(&self, view: &mut View<'_>) -> Result<Self::Out, Stop> {
        let permit = view.upkeep()?;
        let (sessions, next) = view.living_of(&permit, &self.owner, self.before.as_ref())?;
        let bound = sessions.into_iter().filter_map(|session| session.binding);
        let mut projects: Vec<ProjectId> = bound.map(|binding| binding.project).collect();
        projects.sort();
        projects.dedup();
        Ok((projects, next))
    }
}

impl Query for NextOwner {
    type Out = Option<OwnerId>;
    const ACTION: &'static str = "sweep.due";

    fn run(&self, view: &mut View<'_>) -> Result<Option<OwnerId>, Stop> {
        let permit = view.upkeep()?;
        view.next_owner(&permit, self.after.as_ref())
    }
}

impl Query for ReadFollowed {
    type Out = Place;
    const ACTION: &'static str = "sweep.due";

    fn run(&self, view: &mut View<'_>) -> Result<Place, Stop> {
        let permit = view.upkeep()?;
        view.followed(&permit)
    }
}

impl Verb for NoteFollowed {
    type Out = bool;
    const ACTION: &'static str = "sweep";

    fn run(&self, tx: &mut Tx<'_>) -> Result<bool, Stop> {
        let permit = tx.upkeep()?;
        let before = tx.followed(&permit)?;
        let further = self.place.sequence > before.sequence;
        if before == self.place || !(further || self.anew) {
            return Ok(false);
        }
        tx.set_followed(&permit, before, self.place);
        Ok(true)
    }
}
