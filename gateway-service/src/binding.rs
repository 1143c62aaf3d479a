//! Bindings and the guard: a binding never changes under a job in flight.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AgentId, JobId, ProjectId, SessionId},
    session::SessionSeen,
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
