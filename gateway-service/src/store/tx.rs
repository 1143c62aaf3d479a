//! Planned writes, each with its permit. A permit that does not cover the row is a broken invariant of
//! ours, in release too.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::audit::Outcome,
};

use crate::{
    agent::{Agent, AgentSeen},
    binding::Binding,
    client::Client,
    event::EventKind,
    ids::{AgentId, JobId, OwnerId, ProjectId, SessionId},
    job::{Job, Phase},
    lease::Held,
    policy::{Ask, Permit, ProjectScope},
    request::{Request, RequestKey},
    session::{self, Session},
    store::{
        Stop,
        rows::{Change, EventSize, Load, Log, Rows},
        view::{Found, View, broken},
    },
};

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

    /// A session that a first answer named, with its permit of that call.
    ///
    /// # Errors
    /// `NOT_FOUND` where it is gone.
    pub fn made_session(&mut self, owner: &OwnerId, id: &SessionId) -> Result<Session, Stop> {
        let session = self.rows().session(id)?.filter(|session| session.phase != session::Phase::Gone);
        let session = session.ok_or_else(|| Error::new(Reason::NotFound, "that session has ended"))?;
        assert!(session.owner == *owner, "a first answer names a session of another owner");
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

/// Jobs.
impl Tx<'_> {
    /// Refuses where the session's owner may no longer use the agent that it is bound to.
    ///
    /// # Errors
    /// `FORBIDDEN`.
    pub fn may_use(&mut self, found: &Found, agent: &AgentId) -> Result<(), Stop> {
        let row = self.rows().agent(agent)?;
        let owner = &found.session.owner;
        self.view.decide(&Ask::Use { id: agent, agent: row.as_ref(), owner })?;
        Ok(())
    }

    /// Refuses where the owner has as many jobs in flight as it may have.
    ///
    /// # Errors
    /// `LIMIT_REACHED`.
    pub fn need_room_for_job(&mut self, owner: &OwnerId) -> Result<(), Stop> {
        if self.rows().owner_load(owner)? >= self.limits().jobs_in_flight_max {
            let refusal = Error::new(Reason::LimitReached, "this owner has too many jobs in flight");
            return Err(refusal.retry_after(std::time::Duration::from_secs(1)).into());
        }
        Ok(())
    }

    /// Adds a job with what was submitted, and the first answer to this call.
    pub fn add_job(&mut self, found: &Found, job: Job, payload: Vec<u8>, request: Request) {
        assert!(found.permit.covers_job(&job), "a job without a permit");
        assert!(found.session.binding.as_ref() == Some(&job.binding), "a job under another binding (I3)");
        let now = self.now();
        self.change(Change::AddJob(job, payload));
        self.change(Change::PutRequest(request, now));
    }

    /// A job changes.
    pub fn set_job(&mut self, permit: &Permit, before: &Job, after: &Job, result: Option<Vec<u8>>) {
        assert_step(permit, before, after);
        self.change(Change::SetJob(Box::new((before.clone(), after.clone())), result));
    }

    /// A job's lease changes, and nothing that an audit row must tell of.
    pub fn touch_job(&mut self, permit: &Permit, before: &Job, after: &Job) {
        assert_step(permit, before, after);
        self.changes.push(Change::SetJob(Box::new((before.clone(), after.clone())), None));
    }

    /// A session's jobs in flight, oldest first: as many as its owner may have.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn session_jobs(&mut self, session: &Session) -> Result<Vec<Job>, Stop> {
        self.rows()
            .session_jobs(session, usize::try_from(self.limits().jobs_in_flight_max).unwrap_or(usize::MAX))
    }

    /// Appends to the log that a job belongs to.
    pub fn append_of(&mut self, permit: &Permit, job: &Job, kind: EventKind) {
        assert!(permit.covers_job(job), "an event without a permit");
        let (session, binding) = (job.session.clone(), Some(job.binding.clone()));
        self.changes.push(Change::Append { session, binding, kind });
    }

    /// Appends to a session's log.
    pub fn append(&mut self, permit: &Permit, session: &Session, kind: EventKind) {
        assert!(permit.covers_session(&session.id), "an event without a permit");
        let (session, binding) = (session.id.clone(), session.binding.clone());
        self.changes.push(Change::Append { session, binding, kind });
    }

    /// The job of a first answer.
    ///
    /// # Errors
    /// `NOT_FOUND` where it is kept no longer.
    pub fn made_job(&mut self, found: &Found, id: &JobId) -> Result<Job, Stop> {
        let job = self.rows().job(id)?;
        let job = job.ok_or_else(|| Error::new(Reason::NotFound, "that job is kept no longer"))?;
        assert!(found.permit.covers_job(&job), "a first answer names a job of another session");
        Ok(job)
    }
}

/// Agents, workers and leases.
impl Tx<'_> {
    /// Permission to register or change an agent, and the agent as it is.
    ///
    /// # Errors
    /// `FORBIDDEN`, `ROOT_REQUIRED`; `LIMIT_REACHED` where the owner has too many.
    pub fn may_set_agent(&mut self, id: &AgentId, share: bool) -> Result<(Option<Agent>, Permit), Stop> {
        self.view.concern(id.as_str());
        let agent = self.rows().agent(id)?;
        let permit = self.view.decide(&Ask::SetAgent { id, agent: agent.as_ref(), share })?;
        if let (None, Some(owner)) = (&agent, self.caller().owner())
            && self.rows().agents_of(&owner)? >= self.limits().agents_max
        {
            return Err(Error::new(Reason::LimitReached, "this owner has too many agents").into());
        }
        Ok((agent, permit))
    }

    /// Registers or changes an agent.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn set_agent(
        &mut self,
        permit: &Permit,
        before: Option<Agent>,
        after: Agent,
    ) -> Result<AgentSeen, Stop> {
        assert!(permit.covers_agent(&after.id), "an agent without a permit");
        match before {
            None => self.change(Change::AddAgent(after.clone())),
            Some(before) if before == after => {}
            Some(before) => self.change(Change::SetAgent(before, after.clone())),
        }
        self.view.with_load(after)
    }

    /// The oldest queued jobs of an agent that the permit lets one run.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn queue(&mut self, permit: &Permit, agent: &AgentId, limit: usize) -> Result<Vec<Job>, Stop> {
        let queue = self.rows().queue(agent, limit)?;
        assert!(queue.iter().all(|job| permit.covers_job(job)), "a queue without a permit");
        Ok(queue)
    }

    /// What was submitted with a job that the permit covers.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn payload(&mut self, permit: &Permit, job: &Job) -> Result<Vec<u8>, Stop> {
        assert!(permit.covers_job(job), "a payload without a permit");
        self.rows().payload(&job.id)
    }

    /// A job that the caller's worker holds or has held with this fencing token. Whether the lease lives
    /// is for the verb to ask.
    ///
    /// # Errors
    /// `LEASE_LOST`.
    pub fn held(&mut self, held: &Held) -> Result<(Job, Permit), Stop> {
        self.view.concern(held.job.as_str());
        let job = self.rows().job(&held.job)?;
        let ask = Ask::Lease { id: &held.job, job: job.as_ref(), fencing: held.fencing };
        let permit = self.view.decide(&ask)?;
        let job = job.ok_or_else(|| broken("a permit for a job that does not exist"))?;
        Ok((job, permit))
    }

    /// Records one refused part of a verb that answers on the whole.
    pub fn lost(&mut self, held: &Held) {
        let row = self.view.entry(Outcome::Refused(Reason::LeaseLost)).on(held.job.as_str());
        self.view.record(row);
    }
}

/// Upkeep: what sweeps do.
impl Tx<'_> {
    /// One job, for a sweep.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn any_job(&mut self, permit: &Permit, id: &JobId) -> Result<Option<Job>, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        self.rows().job(id)
    }

    /// One session, gone ones too, with how many of its jobs are in flight and its log, for a sweep.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn any_session(
        &mut self,
        permit: &Permit,
        id: &SessionId,
    ) -> Result<Option<(Session, u32, Log)>, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        let Some(session) = self.rows().session(id)? else { return Ok(None) };
        let (load, log) = (self.rows().session_load(&session)?, self.rows().log(id)?);
        Ok(Some((session, load, log)))
    }

    /// The oldest events of a log go.
    pub fn trim_log(&mut self, permit: &Permit, session: &SessionId, events: &[EventSize]) {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        if let (Some(first), Some(last)) = (events.first(), events.last()) {
            let (from, to) = (first.sequence, last.sequence);
            let bytes = events.iter().map(|event| event.bytes).sum();
            self.changes.push(Change::TrimLog { session: session.clone(), from, to, bytes });
        }
    }

    /// Ended jobs of a session go, a bounded part of them. Answers how many.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn drop_jobs(&mut self, permit: &Permit, session: &SessionId, by: Timestamp) -> Result<usize, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        let jobs = self.rows().ended_jobs(session, by, self.limits().sweep_rows_max)?;
        let count = jobs.len();
        if count > 0 {
            self.changes.push(Change::DropJobs(jobs));
        }
        Ok(count)
    }

    /// First answers that are kept no longer go, a bounded part of them. Answers how many.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn drop_requests(&mut self, permit: &Permit) -> Result<usize, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        let keys: Vec<RequestKey> = self.rows().stale_requests(self.now(), self.limits().sweep_rows_max)?;
        let count = keys.len();
        if count > 0 {
            self.changes.push(Change::DropRequests(keys));
        }
        Ok(count)
    }

    /// What is left of a gone session goes.
    pub fn drop_session(&mut self, permit: &Permit, session: &Session) {
        assert!(
            permit.covers_upkeep() && session.phase == session::Phase::Gone,
            "only what is gone is dropped"
        );
        self.changes.push(Change::DropSession(session.id.clone()));
    }

    fn change(&mut self, change: Change) {
        self.owes_row = true;
        self.changes.push(change);
    }
}

/// One terminal transition (I5); the binding and whose it is never change (I3); fencing only grows.
fn assert_step(permit: &Permit, before: &Job, after: &Job) {
    assert!(permit.covers_job(before), "a job without a permit");
    assert!(!matches!(before.phase, Phase::Ended(_)), "a job that has ended changes no more (I5)");
    assert!(
        before.id == after.id && before.session == after.session && before.binding == after.binding,
        "a job's binding never changes (I3)"
    );
    assert!(after.fencing >= before.fencing, "a fencing token never goes back (I5)");
}
