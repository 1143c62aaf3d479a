//! Reads, each with its decision: what is found here is what this caller may see.

use std::sync::Arc;

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::audit::{Entry, Origin},
};

use crate::{
    adopt::OwnerFacts,
    agent::{Agent, AgentSeen},
    caller::{Caller, Principal, Reach},
    client::Client,
    ending::Place,
    event::{Event, SharedEvent},
    ids::{AgentId, JobId, OwnerId, ProjectId, SessionId, SessionName},
    job::Job,
    limits::Limits,
    password::{SessionPassword, Target},
    policy::{Act, Ask, Permit, ProjectReach, ProjectScope},
    request::{Request, RequestKey},
    session::{Phase, Session, SessionSeen},
    store::{
        Stop,
        rows::{EventSize, JobsOf, Load, Log, Rows},
    },
    sweep::{Duty, LogsFound},
};

mod audit;
mod expected;
mod locks;
mod shelf;

use audit::Concerns;
use locks::Naming;
pub use shelf::Shelf;

/// The reads of one transaction, for one caller.
pub struct View<'t> {
    rows: &'t (dyn Rows + 't),
    now: Timestamp,
    caller: &'t Caller,
    reach: &'t Reach,
    /// For audit rows: with the client's id once a cookie is known to be good.
    origin: Arc<Origin>,
    limits: &'t Limits,
    action: &'static str,
    audit: Vec<Entry>,
    concerns: Concerns,
    unscoped: bool,
}

/// A session, found and permitted.
#[derive(Clone, Debug)]
pub struct Found {
    /// The session.
    pub session: Session,
    /// For writes to it.
    pub permit: Permit,
    /// The locks of its present project agree; none where it is unbound.
    pub scope: Option<ProjectScope>,
    /// The calling client, where it is one of this session.
    pub client: Option<Client>,
    /// As whom the caller acts.
    pub acting: OwnerId,
}

/// The number of an event, and the event where the caller may see it.
type Shown = (u64, Option<SharedEvent>);

impl<'t> View<'t> {
    pub(super) fn new(
        rows: &'t (dyn Rows + 't),
        now: Timestamp,
        (caller, reach): (&'t Caller, &'t Reach),
        limits: &'t Limits,
        action: &'static str,
    ) -> Self {
        let (audit, concerns) = (Vec::new(), Concerns::default());
        let origin = Arc::clone(&caller.origin);
        Self { rows, now, caller, reach, origin, limits, action, audit, concerns, unscoped: false }
    }

    /// The instant of this transaction: nothing is judged by another clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Who is calling.
    #[must_use]
    pub fn caller(&self) -> &'t Caller {
        self.caller
    }

    /// Whether an owner may enter a project, where that was asked.
    pub(crate) fn knows(&self, owner: &OwnerId, project: &ProjectId) -> Option<bool> {
        self.reach.knows(self.caller, owner, project)
    }

    /// What auth knows of an owner, where that was asked.
    pub(crate) fn knows_owner(&self, owner: &OwnerId) -> Option<OwnerFacts> {
        self.reach.knows_owner(owner)
    }

    /// What bounds the verbs.
    #[must_use]
    pub fn limits(&self) -> &'t Limits {
        self.limits
    }

    /// Finds a session and decides on it: owner, then project.
    ///
    /// # Errors
    /// `OWNER_MISMATCH`, `NOT_FOUND`, `FORBIDDEN`, `SCOPE_REQUIRED`, `PROJECT_MISMATCH`,
    /// `PROJECT_REQUIRED`, `UNSCOPED_SUNSET`; `PROVIDER_AUTH_FAILED` for a cookie that is not good.
    pub fn session(&mut self, act: Act, id: &SessionId) -> Result<Found, Stop> {
        self.concern(id.as_str());
        let client = self.calling_client()?;
        let session = self.rows.session(id)?;
        let ask = Ask::Session { act, id, session: session.as_ref(), client: client.as_ref() };
        let permit = self.decide(&ask)?;
        let session = session.ok_or_else(|| broken("a permit for a session that does not exist"))?;
        let acting = self.caller.owner().unwrap_or_else(|| session.owner.clone());
        let naming = if act == Act::Attach { Naming::OfTarget } else { Naming::Checked };
        let bound = session.binding.as_ref().map(|binding| binding.project.clone());
        let scope = match bound {
            Some(project) => Some(self.enter(&session, &acting, &project, naming)?),
            None => None,
        };
        let client = client.filter(|client| client.session == session.id);
        Ok(Found { session, permit, scope, client, acting })
    }

    /// Finds a job through its session and decides on it: owner, then the job's project.
    ///
    /// # Errors
    /// As [`View::session`].
    pub fn job(&mut self, act: Act, id: &JobId) -> Result<(Job, Found), Stop> {
        self.concern(id.as_str());
        let client = self.calling_client()?;
        let of = self.rows.session_of(id)?;
        self.concern_job(id, of.as_ref());
        let session = match &of {
            Some(session) => self.rows.session(session)?,
            None => None,
        };
        let nowhere = SessionId::stored(String::new());
        let at = of.as_ref().unwrap_or(&nowhere);
        let ask = Ask::Session { act, id: at, session: session.as_ref(), client: client.as_ref() };
        let permit = self.decide(&ask)?;
        let session = session.ok_or_else(|| broken("a permit for a session that does not exist"))?;
        let job = self.rows.job(id)?.ok_or_else(|| broken("a job went away under its session"))?;
        let acting = self.caller.owner().unwrap_or_else(|| session.owner.clone());
        let scope = Some(self.enter(&session, &acting, &job.binding.project, Naming::Checked)?);
        let client = client.filter(|client| client.session == session.id);
        if act == Act::Cancel {
            self.decide(&Ask::CancelJob { session: &session, client: client.as_ref(), job: &job })?;
        }
        Ok((job, Found { session, permit, scope, client, acting }))
    }

    /// A found session as its caller sees it. `appended` events are planned and not stored yet.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn seen(&mut self, session: Session, appended: u64) -> Result<SessionSeen, Stop> {
        let jobs_in_flight = self.rows.session_load(&session)?;
        let last_sequence = self.rows.log(&session.id)?.last + appended;
        Ok(SessionSeen { session, last_sequence, jobs_in_flight })
    }

    /// A found session's clients, oldest first.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn clients(&mut self, found: &Found) -> Result<Vec<Client>, Stop> {
        self.rows.clients_of(&found.session.id)
    }

    /// The password of a session that someone wants to join. For the hasher; that it is right decides nothing yet.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn for_join(&mut self, target: &Target) -> Result<Option<SessionPassword>, Stop> {
        let id = match target {
            Target::Id(id) => Some(id.clone()),
            Target::Named(owner, name) => self.rows.session_named(owner, name)?,
        };
        let Some(id) = id else { return Ok(None) };
        let living = self.rows.session(&id)?.is_some_and(|session| session.phase != Phase::Gone);
        let password = self.rows.password(&id)?;
        Ok(password.filter(|password| living && !password.is_closed()))
    }

    /// The calling client's cursor, and everything of the log that this session's reader asks for.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn log(&mut self, found: &Found) -> Result<Log, Stop> {
        self.rows.log(&found.session.id)
    }

    /// Stored events after a number: those that are `known` from there on, else what the store has. Those of
    /// projects that the caller may not enter, and messages to others, are left out.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups; a question where it is not known what the caller may enter.
    pub fn events(
        &mut self,
        found: &Found,
        known: Vec<SharedEvent>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Shown>, Stop> {
        let events = if known.is_empty() {
            self.rows.events(&found.session.id, after, limit)?.into_iter().map(SharedEvent::from).collect()
        } else {
            known
        };
        let mut shown = Vec::with_capacity(events.len());
        for event in events {
            let open = match &event.project {
                Some(project) => self.may_enter(found, project)?,
                None => true,
            };
            let open = open && event.is_for(found.client.as_ref().map(|client| &client.id));
            shown.push((event.sequence, open.then_some(event)));
        }
        Ok(shown)
    }

    /// A page of the session's jobs in its present project, newest first.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn jobs(&mut self, found: &Found, of: JobsOf<'_>) -> Result<Vec<Job>, Stop> {
        assert!(*of.session == found.session.id, "a page of another session's jobs");
        match &found.scope {
            Some(scope) => self.rows.page_jobs(scope, of),
            None => Ok(Vec::new()),
        }
    }

    /// What went into a found job and what came out.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn contents(&mut self, found: &Found, job: &Job) -> Result<(Vec<u8>, Vec<u8>), Stop> {
        assert!(found.permit.covers_job(job), "contents without a permit");
        Ok((self.rows.payload(&job.id)?, self.rows.result(&job.id)?))
    }

    /// What came out of a job that the caller holds, or held.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn result(&self, permit: &Permit, job: &Job) -> Result<Vec<u8>, Stop> {
        assert!(permit.covers_job(job), "a result without a permit");
        self.rows.result(&job.id)
    }

    /// An owner's living sessions before one, newest first: those that are unbound, or bound to a project
    /// that the call names and the caller may enter (all such, where the call names none).
    ///
    /// # Errors
    /// `OWNER_MISMATCH`, `PROJECT_REQUIRED`, `UNSCOPED_SUNSET`.
    pub fn sessions(
        &mut self,
        owner: Option<&OwnerId>,
        before: Option<&SessionId>,
        limit: usize,
    ) -> Result<(Vec<Session>, Vec<bool>), Stop> {
        let owner = match (owner, self.caller.owner()) {
            (Some(owner), _) => owner.clone(),
            (None, Some(own)) => own,
            (None, None) => return Err(Error::new(Reason::Forbidden, "a client lists no sessions").into()),
        };
        self.concern(owner.as_str());
        let permit = self.decide(&Ask::List { owner: &owner })?;
        assert!(permit.covers_owner(&owner), "a list without a permit");
        self.must_name()?;
        let sessions = self.rows.page_sessions(&owner, before, limit)?;
        let acting = self.caller.owner().unwrap_or(owner);
        let mut shown = Vec::with_capacity(sessions.len());
        for session in &sessions {
            shown.push(match &session.binding {
                Some(binding) => {
                    let named = self.caller.named.as_ref();
                    if named.is_some_and(|named| *named != binding.project) {
                        false
                    } else {
                        let reach = self.reach(session, &acting, &binding.project)?;
                        ProjectScope::agree(&reach, named, &binding.project).is_ok()
                    }
                }
                None => true,
            });
        }
        Ok((sessions, shown))
    }

    /// An agent that the caller may see, with how much it has to do.
    ///
    /// # Errors
    /// `FORBIDDEN`, `NOT_FOUND`.
    pub fn agent_seen(&mut self, id: &AgentId) -> Result<AgentSeen, Stop> {
        self.concern(id.as_str());
        let agent = self.rows.agent(id)?;
        self.decide(&Ask::SeeAgent { id, agent: agent.as_ref() })?;
        let agent = agent.ok_or_else(|| broken("a permit for an agent that does not exist"))?;
        self.with_load(agent)
    }

    /// Agents that the caller may attach to, by id, after one.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn agents(&mut self, after: Option<&AgentId>, limit: usize) -> Result<Vec<AgentSeen>, Stop> {
        let all = self.caller.reaches_all(self.now);
        let acting = self.caller.owner();
        let Some(acting) = acting else {
            return Err(Error::new(Reason::Forbidden, "a client lists no agents").into());
        };
        let agents = self.rows.page_agents((!all).then_some(&acting), after, limit)?;
        agents.into_iter().map(|agent| self.with_load(agent)).collect()
    }

    pub(crate) fn with_load(&mut self, agent: Agent) -> Result<AgentSeen, Stop> {
        let Load { queued, running } = self.rows.load(&agent.id)?;
        Ok(AgentSeen { agent, queued, running })
    }

    /// Permission to run an agent's jobs; for a project token, in its project.
    ///
    /// # Errors
    /// `FORBIDDEN`, `NOT_FOUND`, `SCOPE_REQUIRED`; `PROJECT_MISMATCH` where the call names another project
    /// than its token's.
    pub fn serve(&mut self, id: &AgentId) -> Result<Permit, Stop> {
        self.concern(id.as_str());
        let agent = self.rows.agent(id)?;
        let permit = self.decide(&Ask::Serve { id, agent: agent.as_ref() })?;
        if let (Principal::Project(token), Some(named)) = (&self.caller.principal, &self.caller.named) {
            let reach = ProjectReach::Token(token.project.clone());
            let agreed = ProjectScope::agree(&reach, Some(named), &token.project);
            agreed.map_err(|lock| self.shut(lock, &token.project))?;
        }
        Ok(permit)
    }

    /// Permission to sweep.
    ///
    /// # Errors
    /// `FORBIDDEN` for everyone but the gateway.
    pub fn upkeep(&mut self) -> Result<Permit, Stop> {
        self.decide(&Ask::Sweep)
    }

    /// What is due.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn due(&mut self, permit: &Permit) -> Result<Vec<Duty>, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        self.rows.due(self.now, self.limits)
    }

    /// Which logs are due, from there on.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn due_logs(&mut self, permit: &Permit, after: Option<&SessionId>) -> Result<LogsFound, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        self.rows.due_logs(self.now, self.limits, after)
    }

    /// When the first lease is over.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn next_deadline(&mut self, permit: &Permit) -> Result<Option<Timestamp>, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        self.rows.next_deadline()
    }

    /// Living sessions of an owner, newest first, from before one; and where to go on.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn living_of(
        &mut self,
        permit: &Permit,
        owner: &OwnerId,
        before: Option<&SessionId>,
    ) -> Result<(Vec<Session>, Option<SessionId>), Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        let part = self.limits.sweep_rows_max;
        let sessions = self.rows.page_sessions(owner, before, part)?;
        let next = sessions.last().filter(|_| sessions.len() == part).map(|last| last.id.clone());
        Ok((sessions, next))
    }

    /// The next owner who has a living session.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn next_owner(&mut self, permit: &Permit, after: Option<&OwnerId>) -> Result<Option<OwnerId>, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        self.rows.next_owner(after)
    }

    /// Up to where auth's log was seen to.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn followed(&mut self, permit: &Permit) -> Result<Place, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        self.rows.followed()
    }

    /// What is left of the log of a session that is gone, after a number: its last number, and some events. None where
    /// the session lives; for a stream that has followed it.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn last_events(
        &mut self,
        permit: &Permit,
        session: &SessionId,
        after: u64,
        limit: usize,
    ) -> Result<Option<(u64, Vec<Event>)>, Stop> {
        assert!(permit.covers_upkeep(), "a log without a permit");
        match self.rows.session(session)? {
            None => Ok(Some((after, Vec::new()))),
            Some(found) if found.phase != Phase::Gone => Ok(None),
            Some(_) => {
                let last = self.rows.log(session)?.last;
                Ok(Some((last.max(after), self.rows.events(session, after, limit)?)))
            }
        }
    }

    pub(super) fn rows(&self) -> &'t (dyn Rows + 't) {
        self.rows
    }

    pub(crate) fn request(&mut self, key: &RequestKey) -> Result<Option<Request>, Stop> {
        let now = self.now;
        Ok(self.rows.request(key)?.filter(|request| !request.kept_until.is_over(now)))
    }

    pub(crate) fn is_name_taken(&mut self, owner: &OwnerId, name: &SessionName) -> Result<bool, Stop> {
        self.rows.is_name_taken(owner, name)
    }

    pub(crate) fn oldest_events(
        &mut self,
        session: &SessionId,
        limit: usize,
    ) -> Result<Vec<EventSize>, Stop> {
        self.rows.oldest_events(session, limit)
    }
}

pub(crate) fn broken(what: &str) -> Stop {
    Stop::Fault(interlock_kit::store::Fault::Broken(what.to_owned()))
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("now", &self.now).field("action", &self.action).finish_non_exhaustive()
    }
}
