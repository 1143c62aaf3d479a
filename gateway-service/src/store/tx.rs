//! Planned writes, each with its permit. A permit that does not cover the row is a broken invariant of
//! ours, in release too.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

use interlock_kit::{
    error::{Error, Reason},
    store::audit::Outcome,
};

use crate::{
    binding::Binding,
    client::Client,
    ids::{AgentId, OwnerId, ProjectId, SessionId},
    job::{Job, Phase},
    policy::{Ask, Permit, ProjectScope},
    request::Request,
    session::{self, Session},
    store::{
        Stop,
        rows::{Change, Load, Rows},
        view::{Found, View, broken},
    },
};

mod files;
mod line;
mod members;
mod upkeep;
mod work;

/// One transaction of one verb, for one caller. Writes are planned; they happen where the verb answers.
pub struct Tx<'t> {
    view: View<'t>,
    changes: Vec<Change>,
    /// Something changed that an audit row must tell of.
    owes_row: bool,
}

/// Proof that a session may be bound to an agent in a project. Only with it a binding can change.
#[derive(Clone, Debug)]
pub struct Entrance {
    agent: AgentId,
    scope: ProjectScope,
}

impl Entrance {
    /// The agent.
    #[must_use]
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// The project.
    #[must_use]
    pub fn project(&self) -> &ProjectId {
        self.scope.project()
    }
}

impl<'t> Deref for Tx<'t> {
    type Target = View<'t>;

    fn deref(&self) -> &View<'t> {
        &self.view
    }
}

impl DerefMut for Tx<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.view
    }
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx")
            .field("view", &self.view)
            .field("changes", &self.changes.len())
            .finish_non_exhaustive()
    }
}

impl<'t> Tx<'t> {
    pub(super) fn new(view: View<'t>) -> Self {
        Self { view, changes: Vec::new(), owes_row: false }
    }

    pub(super) fn into_parts(self, answered: bool) -> (View<'t>, Vec<Change>) {
        assert!(
            !answered || !self.owes_row || self.view.has_rows(),
            "a change of state without its audit row (I11)"
        );
        (self.view, self.changes)
    }

    fn rows(&self) -> &'t (dyn Rows + 't) {
        self.view.rows()
    }

    fn change(&mut self, change: Change) {
        self.owes_row = true;
        self.changes.push(change);
    }

    /// Records that this was done: one audit row.
    pub fn done(&mut self, subject: impl Into<String>, scope: Option<&ProjectId>, detail: &str) {
        let scope = scope.map(ToString::to_string).unwrap_or_default();
        let row = self.view.entry(Outcome::Done).on(subject).within(scope).detailed(detail);
        self.view.record(row);
    }
}

/// Sessions and bindings.
impl Tx<'_> {
    /// Permission to make a session for an owner.
    ///
    /// # Errors
    /// `FORBIDDEN`, `SCOPE_REQUIRED`; `LIMIT_REACHED` where the owner has too many.
    pub fn may_create(&mut self, id: &SessionId, owner: &OwnerId) -> Result<Permit, Stop> {
        let permit = self.view.decide(&Ask::Create { id, owner })?;
        Ok(permit)
    }

    /// Refuses where the owner has as many sessions as it may have.
    ///
    /// # Errors
    /// `LIMIT_REACHED`.
    pub fn need_room_for_session(&mut self, owner: &OwnerId) -> Result<(), Stop> {
        if self.rows().sessions_living(owner)? >= self.limits().sessions_max {
            return Err(Error::new(Reason::LimitReached, "this owner has too many sessions").into());
        }
        Ok(())
    }

    /// A session that a first answer named, for a caller that acts as its owner; the locks of the project that
    /// it is bound to by now hold for a repeated creation, too.
    ///
    /// # Errors
    /// `NOT_FOUND` where it is gone; `PROJECT_MISMATCH`.
    pub fn made_session(&mut self, owner: &OwnerId, id: &SessionId) -> Result<Session, Stop> {
        let session = self.rows().session(id)?.filter(|session| session.phase != session::Phase::Gone);
        // One that was adopted meanwhile is another owner's.
        let session = session.filter(|session| session.owner == *owner);
        let session = session.ok_or_else(|| Error::new(Reason::NotFound, "that session has ended"))?;
        if let Some(binding) = &session.binding {
            self.view.concern(id.as_str());
            self.view.enter_again(&session, owner, &binding.project)?;
        }
        Ok(session)
    }

    /// Permission to bind a found session to an agent in a project: built-in rules, then the three locks.
    /// Reads the present agent and the target in id order.
    ///
    /// # Errors
    /// `FORBIDDEN`, `NOT_FOUND`, `PROJECT_MISMATCH`, `PROJECT_REQUIRED`, `UNSCOPED_SUNSET`.
    pub fn entrance(
        &mut self,
        found: &Found,
        agent: &AgentId,
        project: &ProjectId,
    ) -> Result<Entrance, Stop> {
        let present = found.session.binding.as_ref().map(|binding| &binding.agent);
        if let Some(present) = present.filter(|present| *present < agent) {
            self.rows().agent(present)?;
        }
        let target = self.rows().agent(agent)?;
        if let Some(present) = present.filter(|present| *present > agent) {
            self.rows().agent(present)?;
        }
        let ask = Ask::Bind { id: agent, agent: target.as_ref(), project, acting: &found.acting };
        self.view.decide(&ask)?;
        let scope = self.view.enter_target(found, project)?;
        Ok(Entrance { agent: agent.clone(), scope })
    }

    /// Adds a session with its first client, and the first answer to this call.
    pub fn add_session(&mut self, permit: &Permit, session: Session, client: Client, request: Request) {
        assert!(
            permit.covers_session(&session.id) && client.session == session.id,
            "a session without a permit"
        );
        let now = self.now();
        self.change(Change::AddSession(session));
        self.change(Change::AddClient(client));
        self.change(Change::PutRequest(request, now));
    }

    /// Binds a session anew.
    ///
    /// # Errors
    /// A broken invariant, where the present agent has jobs in flight (I2).
    pub fn rebind(
        &mut self,
        permit: &Permit,
        entrance: &Entrance,
        before: &Session,
    ) -> Result<Session, Stop> {
        assert!(permit.covers_session(&before.id), "a binding without a permit");
        if let Some(present) = &before.binding
            && self.rows().projects_in_flight(&present.agent)?.is_some()
        {
            return Err(broken("I2: a binding would change under a job in flight"));
        }
        let epoch = before.binding.as_ref().map_or(0, |binding| binding.epoch) + 1;
        let binding = Binding { agent: entrance.agent.clone(), project: entrance.project().clone(), epoch };
        let after = Session { binding: Some(binding), ..before.clone() };
        self.change(Change::SetSession(before.clone(), after.clone()));
        Ok(after)
    }

    /// A session has another owner; its binding and its phase stay.
    pub fn adopt(&mut self, permit: &Permit, before: &Session, after: Session) {
        assert!(permit.covers_session(&before.id), "a session without a permit");
        assert!(before.binding == after.binding && before.phase == after.phase, "only whose it is changes");
        self.change(Change::AdoptSession(before.clone(), after));
    }

    /// A session goes on in its life; its binding stays.
    pub fn set_phase(&mut self, permit: &Permit, before: &Session, phase: session::Phase) -> Session {
        assert!(permit.covers_session(&before.id), "a session without a permit");
        let ended_at = (phase == session::Phase::Gone).then(|| self.now());
        let after = Session { phase, ended_at, ..before.clone() };
        self.change(Change::SetSession(before.clone(), after.clone()));
        after
    }

    /// A client's cursor moves forward. No row is owed where it stays.
    pub fn set_cursor(&mut self, permit: &Permit, client: &Client, to: u64) {
        assert!(permit.covers_session(&client.session), "a cursor without a permit");
        assert!(to > client.cursor, "a cursor never goes back");
        self.change(Change::SetCursor { client: client.id.clone(), from: client.cursor, to });
    }
}

/// What the guard rests on.
impl Tx<'_> {
    /// The one project that an agent's jobs in flight are in; `None` where nothing is in flight.
    ///
    /// # Errors
    /// A broken invariant, where they are in more than one (I1).
    pub fn busy_in(&mut self, agent: &AgentId) -> Result<Option<ProjectId>, Stop> {
        match self.rows().projects_in_flight(agent)? {
            Some((first, last)) if first == last => Ok(Some(first)),
            Some(_) => Err(broken("I1: an agent's jobs in flight are in more than one project")),
            None => Ok(None),
        }
    }

    /// How many jobs of an agent are in flight, and those of this owner's sessions with their places.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn evidence(&mut self, agent: &AgentId, owner: &OwnerId) -> Result<(Load, Vec<(Job, u32)>), Stop> {
        let load = self.rows().load(agent)?;
        let mut jobs = Vec::new();
        for job in self.rows().in_flight_of(agent, owner, self.limits().evidence_max)? {
            let position = match job.phase {
                Phase::Queued => self.rows().queue_position(agent, &job.id)?,
                Phase::Running(_) | Phase::Ended(_) => 0,
            };
            jobs.push((job, position));
        }
        Ok((load, jobs))
    }
}
