//! Workers: the programs that run jobs for agents, and how they get jobs.

use std::time::Duration;

use interlock_kit::clock::Timestamp;

use crate::{
    binding::Binding,
    ids::{AgentId, SessionId, WorkerName},
    lease::Held,
};

/// Checks that the caller may serve these agents; answers nothing. For a worker's hello.
#[derive(Clone, Debug)]
pub struct Serve {
    /// 1 to 32.
    pub agents: Vec<AgentId>,
}

/// Leases the oldest queued jobs of these agents.
#[derive(Clone, Debug)]
pub struct Claim {
    /// 1 to 32.
    pub agents: Vec<AgentId>,
    /// As the worker names itself.
    pub worker: WorkerName,
    /// At most so many jobs.
    pub up_to: u32,
}

/// A job to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The job, and the right to it.
    pub held: Held,
    /// The session it was submitted to.
    pub session: SessionId,
    /// The binding it runs under.
    pub binding: Binding,
    /// From 1.
    pub attempt: u32,
    /// What was submitted.
    pub payload: Vec<u8>,
    /// The lease is over at this instant.
    pub until: Timestamp,
    /// How long the lease lives without a heartbeat.
    pub lease: Duration,
    /// How long the job may run in all.
    pub run_time_left: Duration,
}
