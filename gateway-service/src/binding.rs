//! Bindings and the guard: a binding never changes under a job in flight.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use std::sync::Arc;

use interlock_kit::error::{Error, Reason};

use crate::{
    caller::Principal,
    event::EventKind,
    ids::{AgentId, JobId, ProjectId, SessionId},
    job::{Job, Phase},
    policy::Act,
    session::{Session, SessionSeen},
    store::{Found, Load, Question, Stop, Tx, Verb},
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
}

/// Which rule of the guard refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusyKind {
    /// The session's present agent has jobs in flight (or, closing, the session itself).
    Rebind,
    /// The agent asked for has jobs in flight in another project.
    Project,
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
        let found = tx.session(Act::Attach, &self.session)?;
        let entrance = tx.entrance(&found, &self.agent, &self.project)?;
        found.session.must_be_open()?;
        if let Some(present) = &found.session.binding {
            if present.agent == self.agent && present.project == self.project {
                return Ok(Attached { seen: tx.seen(found.session, 0)?, changed: false });
            }
            refuse_while_busy(tx, &found, &present.agent)?;
        }
        refuse_other_project(tx, &found, &self.agent, &self.project)?;
        let session = tx.rebind(&found.permit, &entrance, &found.session)?;
        let binding = session.binding.clone().expect("it was just bound");
        let detail = serde_json::json!({ "agent": self.agent.as_str(), "epoch": binding.epoch }).to_string();
        tx.append(&found.permit, &session, EventKind::Attached { binding });
        tx.done(self.session.as_str(), Some(&self.project), &detail);
        Ok(Attached { seen: tx.seen(session, 1)?, changed: true })
    }
}

/// Rule 2 of the guard: a session leaves its present agent only while nothing of that agent is in flight.
fn refuse_while_busy(tx: &mut Tx<'_>, found: &Found, agent: &AgentId) -> Result<(), Stop> {
    match tx.busy_in(agent)? {
        Some(_) => Err(busy_agent(tx, found, agent, BusyKind::Rebind)?),
        None => Ok(()),
    }
}

/// Rule 3, and that of submits: an agent works in one project at a time.
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
    Ok(refusal(tx, Busy { kind, agent: agent.clone(), queued: load.queued, running: load.running, jobs }))
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
    refusal(tx, Busy { kind: BusyKind::Rebind, agent: binding.agent.clone(), queued, running, jobs: named })
}

/// Whether this caller may enter the project of a job of its own, where that is not known yet. A client's
/// cookie needs no answer of auth: it is shown what is of its session's project.
fn unasked(tx: &Tx<'_>, found: &Found, job: &Job) -> Option<Question> {
    let asks = match &tx.caller().principal {
        Principal::Admin | Principal::User | Principal::Owner(_) => true,
        Principal::Project(_) | Principal::Client | Principal::Gateway => false,
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
    };
    tx.explain(&serde_json::json!({
        "kind": kind, "agent": busy.agent.as_str(), "queued": busy.queued, "running": busy.running,
    }));
    let message = match busy.kind {
        BusyKind::Rebind => "the session's agent has jobs in flight: wait for them, then attach again",
        BusyKind::Project => "the agent has jobs in flight in another project: wait for them, then try again",
    };
    Error::new(Reason::SessionBusy, message).with_detail(Arc::new(busy)).retry_after(RETRY_AFTER).into()
}

fn count(jobs: usize) -> u32 {
    u32::try_from(jobs).unwrap_or(u32::MAX)
}
