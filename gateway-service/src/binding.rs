//! Bindings and the guard: a binding never changes under a job in flight.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use std::sync::Arc;

use interlock_kit::error::{Error, Reason};

use crate::{
    caller::Principal,
    client::{ClientRole, LeaveCause, leave},
    event::EventKind,
    ids::{AgentId, JobId, ProjectId, SessionId},
    job::{Job, Phase, cancelled},
    policy::Act,
    session::{Session, SessionSeen},
    store::{Entrance, Found, Load, Question, Stop, Tx, Verb},
};

/// What a session is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The agent.
    pub agent: AgentId,
    /// The project.
    pub project: ProjectId,
    /// Grows by one with each change.
    pub epoch: u64,
}

/// Attaches a session to an agent and a project.
#[derive(Clone, Debug)]
pub struct Attach {
    /// The session.
    pub session: SessionId,
    /// The agent to bind to.
    pub agent: AgentId,
    /// The project to bind to.
    pub project: ProjectId,
    /// A move to another project leaves those who have joined where they are.
    pub keep_clients: bool,
}

/// The session as it is bound now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The session.
    pub seen: SessionSeen,
    /// Whether the binding changed.
    pub changed: bool,
}

/// What keeps a session or an agent busy: the evidence of `SESSION_BUSY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    /// Which rule refused.
    pub kind: BusyKind,
    /// The agent that has jobs in flight.
    pub agent: AgentId,
    /// How many of its jobs are queued, of all owners.
    pub queued: u32,
    /// How many of its jobs are running, of all owners.
    pub running: u32,
    /// Those that this caller may see, oldest first, at most 32.
    pub jobs: Vec<BusyJob>,
    /// How many attaches wait in line for the agent, of all owners.
    pub waiting: u32,
}

/// Which rule of the guard refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusyKind {
    /// The session's present agent has jobs in flight (or, closing, the session itself).
    Rebind,
    /// The agent asked for has jobs in flight in another project.
    Project,
    /// The agent to be removed has jobs in flight.
    Agent,
}

/// One job in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusyJob {
    /// Which.
    pub job: JobId,
    /// How long its lease still lives; none while it is queued.
    pub lease_left: Option<Duration>,
    /// Its place in the agent's queue, from 1; 0 while it is running.
    pub queue_position: u32,
}

/// When to look again at something busy.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Verb for Attach {
    type Out = Attached;
    const ACTION: &'static str = "session.attach";

    fn run(&self, tx: &mut Tx<'_>) -> Result<Attached, Stop> {
        let (found, entrance) = self.enter(tx)?;
        if self.is_present(&found.session) {
            return Ok(Attached { seen: tx.seen(found.session, 0)?, changed: false });
        }
        match self.hindrance(tx, &found)? {
            Some((agent, kind)) => Err(busy_agent(tx, &found, &agent, kind)?),
            None => self.bind(tx, &found, &entrance),
        }
    }
}

impl Attach {
    /// The session and the way to where it shall be bound: all that is decided before anything tells of jobs.
    pub(crate) fn enter(&self, tx: &mut Tx<'_>) -> Result<(Found, Entrance), Stop> {
        let found = tx.session(Act::Attach, &self.session)?;
        tx.expect_binding(&found, &self.agent)?;
        let entrance = tx.entrance(&found, &self.agent, &self.project)?;
        found.session.must_be_open()?;
        Ok((found, entrance))
    }

    /// Whether the session is bound there by now.
    pub(crate) fn is_present(&self, session: &Session) -> bool {
        let binding = session.binding.as_ref();
        binding.is_some_and(|present| present.agent == self.agent && present.project == self.project)
    }

    /// Which agent is busy, and by which rule. Rule 2: a session leaves its present agent only while nothing of that
    /// agent is in flight. Rule 3: an agent works in one project at a time.
    pub(crate) fn hindrance(
        &self,
        tx: &mut Tx<'_>,
        found: &Found,
    ) -> Result<Option<(AgentId, BusyKind)>, Stop> {
        if let Some(present) = &found.session.binding
            && tx.busy_in(&present.agent)?.is_some()
        {
            return Ok(Some((present.agent.clone(), BusyKind::Rebind)));
        }
        let elsewhere = tx.busy_in(&self.agent)?.is_some_and(|project| project != self.project);
        Ok(elsewhere.then(|| (self.agent.clone(), BusyKind::Project)))
    }

    /// Binds the session, where nothing hinders it.
    pub(crate) fn bind(&self, tx: &mut Tx<'_>, found: &Found, entrance: &Entrance) -> Result<Attached, Stop> {
        let session = tx.rebind(&found.permit, entrance, &found.session)?;
        let binding = session.binding.clone().expect("it was just bound");
        let evicted = self.evict_joined(tx, found)?;
        let detail =
            serde_json::json!({ "agent": self.agent.as_str(), "epoch": binding.epoch, "evicted": evicted });
        tx.append(&found.permit, &session, EventKind::Attached { binding });
        tx.done(self.session.as_str(), Some(&self.project), &detail.to_string());
        Ok(Attached { seen: tx.seen(session, evicted + 1)?, changed: true })
    }

    /// Who has joined was let into the project before, and goes with it. Before the session moves: so their leaving
    /// is told there.
    fn evict_joined(&self, tx: &mut Tx<'_>, found: &Found) -> Result<u64, Stop> {
        let moves = found.session.binding.as_ref().is_some_and(|present| present.project != self.project);
        let mut evicted = 0;
        if moves && !self.keep_clients {
            for client in tx.clients(found)?.iter().filter(|client| client.role < ClientRole::Host) {
                leave(tx, &found.permit, &found.session, client, LeaveCause::Evicted);
                evicted += 1;
            }
        }
        Ok(evicted)
    }
}

/// Cancels the caller's own jobs that keep an agent busy, and asks for those that run: as many as it may see and
/// cancel, in one part.
pub(crate) fn cancel_own(tx: &mut Tx<'_>, found: &Found, agent: &AgentId) -> Result<(), Stop> {
    let jobs = tx.own_jobs(found, agent)?;
    if let Some(question) = jobs.iter().find_map(|(job, _)| unasked(tx, found, job)) {
        return Err(Stop::Unresolved(question));
    }
    for (job, permit) in jobs {
        let asked = matches!(job.phase, Phase::Running(_)) && job.cancel_requested_at.is_some();
        if !asked && may_see(tx, found, &job) {
            cancelled(tx, &permit, &job, "cancelled for an attach");
            tx.done(job.id.as_str(), Some(&job.binding.project), &job.facts("for an attach"));
        }
    }
    Ok(())
}

/// The rule of submits: an agent works in one project at a time.
pub(crate) fn refuse_other_project(
    tx: &mut Tx<'_>,
    found: &Found,
    agent: &AgentId,
    project: &ProjectId,
) -> Result<(), Stop> {
    match tx.busy_in(agent)? {
        Some(other) if other != *project => Err(busy_agent(tx, found, agent, BusyKind::Project)?),
        Some(_) | None => Ok(()),
    }
}

/// `SESSION_BUSY` with its evidence: counts of all, ids of the acting owner's own.
fn busy_agent(tx: &mut Tx<'_>, found: &Found, agent: &AgentId, kind: BusyKind) -> Result<Stop, Stop> {
    let (load, jobs) = tx.evidence(agent, &found.acting)?;
    if let Some(question) = jobs.iter().find_map(|(job, _)| unasked(tx, found, job)) {
        return Err(Stop::Unresolved(question));
    }
    let visible = jobs.iter().filter(|(job, _)| may_see(tx, found, job));
    let jobs = visible.map(|(job, position)| busy_job(tx, job, *position)).collect();
    let now = tx.now();
    let line = tx.line(found, agent)?;
    let waiting = line.iter().filter(|waiter| waiter.agent == *agent && waiter.is_waiting(now)).count();
    let Load { queued, running } = load;
    let busy = Busy { kind, agent: agent.clone(), queued, running, jobs, waiting: count(waiting) };
    Ok(refusal(tx, busy))
}

/// `SESSION_BUSY` of a session that has jobs of its own in flight.
pub(crate) fn busy_session(tx: &mut Tx<'_>, session: &Session, jobs: &[Job]) -> Stop {
    let Some(binding) = &session.binding else {
        return crate::store::broken("an unbound session has jobs in flight (I3)");
    };
    let running = jobs.iter().filter(|job| matches!(job.phase, Phase::Running(_))).count();
    let load = Load { queued: count(jobs.len() - running), running: count(running) };
    let mut queued = 0;
    let mut named = Vec::new();
    for job in jobs.iter().take(tx.limits().evidence_max) {
        let position = if job.phase == Phase::Queued { queued + 1 } else { 0 };
        queued = queued.max(position);
        named.push(busy_job(tx, job, position));
    }
    let Load { queued, running } = load;
    let (kind, agent) = (BusyKind::Rebind, binding.agent.clone());
    refusal(tx, Busy { kind, agent, queued, running, jobs: named, waiting: 0 })
}

/// `SESSION_BUSY` of an agent that is to go and has jobs in flight: how many, and none of them by name.
pub(crate) fn busy_itself(tx: &mut Tx<'_>, agent: &AgentId, load: Load) -> Stop {
    let Load { queued, running } = load;
    let (kind, agent) = (BusyKind::Agent, agent.clone());
    refusal(tx, Busy { kind, agent, queued, running, jobs: Vec::new(), waiting: 0 })
}

/// Whether this caller may enter the project of a job of its own, where that is not known yet. A client's
/// cookie needs no answer of auth: it is shown what is of its session's project.
fn unasked(tx: &Tx<'_>, found: &Found, job: &Job) -> Option<Question> {
    let asks = match &tx.caller().principal {
        Principal::Admin | Principal::User | Principal::Owner(_) => true,
        Principal::Project(_)
        | Principal::Service(_)
        | Principal::Client
        | Principal::Anonymous
        | Principal::Gateway => false,
    };
    let project = &job.binding.project;
    let entered = found.scope.as_ref().is_some_and(|scope| scope.project() == project);
    let known = entered || tx.knows(&found.acting, project).is_some();
    (asks && job.owner == found.acting && !known)
        .then(|| Question::Membership { owner: found.acting.clone(), project: project.clone() })
}

/// Jobs of the acting owner's own sessions, in projects that this call has shown it may enter.
fn may_see(tx: &Tx<'_>, found: &Found, job: &Job) -> bool {
    let project = &job.binding.project;
    let entered = found.scope.as_ref().is_some_and(|scope| scope.project() == project);
    let may = match &tx.caller().principal {
        Principal::Project(token) => token.project == *project,
        Principal::Admin | Principal::User | Principal::Owner(_) | Principal::Client | Principal::Gateway => {
            entered || tx.knows(&found.acting, project) == Some(true)
        }
        Principal::Service(_) | Principal::Anonymous => false,
    };
    may && job.owner == found.acting
}

fn busy_job(tx: &Tx<'_>, job: &Job, queue_position: u32) -> BusyJob {
    let lease_left = match &job.phase {
        Phase::Running(lease) => Some(lease.until.since(tx.now())),
        Phase::Queued | Phase::Ended(_) => None,
    };
    BusyJob { job: job.id.clone(), lease_left, queue_position }
}

fn refusal(tx: &mut Tx<'_>, busy: Busy) -> Stop {
    let kind = match busy.kind {
        BusyKind::Rebind => "REBIND",
        BusyKind::Project => "PROJECT",
        BusyKind::Agent => "AGENT",
    };
    tx.explain([
        ("kind", kind.into()),
        ("agent", busy.agent.as_str().into()),
        ("queued", busy.queued.into()),
        ("running", busy.running.into()),
    ]);
    let message = match busy.kind {
        BusyKind::Rebind => "the session's agent has jobs in flight: wait for them, then attach again",
        BusyKind::Project => "the agent has jobs in flight in another project: wait for them, then try again",
        BusyKind::Agent => "the agent has jobs in flight: wait for them, then remove it",
    };
    Error::new(Reason::SessionBusy, message).with_detail(Arc::new(busy)).retry_after(RETRY_AFTER).into()
}

fn count(jobs: usize) -> u32 {
    u32::try_from(jobs).unwrap_or(u32::MAX)
}
