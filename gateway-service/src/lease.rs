//! Leases: a worker's right to one job until a deadline, fenced by a token that grows.

use interlock_kit::clock::Timestamp;

use crate::{
    ids::{JobId, WorkerName},
    job::{Job, Outcome},
};

/// A worker's right to one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// As the worker names itself.
    pub worker: WorkerName,
    /// It is over at this instant.
    pub until: Timestamp,
    /// The number of the newest stored line of progress.
    pub progress: u64,
}

/// A job in a worker's hands, as the worker says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The job.
    pub job: JobId,
    /// From its assignment.
    pub fencing: u64,
}

/// Asks for more time for held jobs: a heartbeat.
#[derive(Clone, Debug)]
pub struct Renew {
    /// The jobs it holds, at most `capacity_max`.
    pub held: Vec<Held>,
}

/// The jobs that a hello named: which leases live on. They are renewed by this too.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The jobs it says it holds, at most `capacity_max`.
    pub held: Vec<Held>,
}

/// What became of the jobs that a worker named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Renewed.
    pub kept: Vec<Renewed>,
    /// Lost: stop them.
    pub lost: Vec<Held>,
}

/// A lease that lives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The job.
    pub held: Held,
    /// It is over at this instant.
    pub until: Timestamp,
    /// Whether someone asked to cancel the job.
    pub cancel_requested: bool,
}

/// A line from a job. Answers with the number up to which lines are stored.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The job.
    pub held: Held,
    /// From 1 within the attempt; a number that is stored has no further effect.
    pub number: u64,
    /// As the worker sent it.
    pub data: Vec<u8>,
}

/// A job's outcome. The same again answers the same. Answers with the job.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The job.
    pub held: Held,
    /// How it ended.
    pub outcome: Outcome,
    /// What the worker answers.
    pub result: Vec<u8>,
    /// Why it failed or was cancelled.
    pub cause: String,
}

/// Gives held jobs back: a goodbye, or a drain. Does not count as an attempt. Answers with the jobs
/// that were given back; those it no longer held are passed over.
#[derive(Clone, Debug)]
pub struct Release {
    /// The jobs it holds.
    pub held: Vec<Held>,
}

/// The jobs that a goodbye gave back.
pub type Released = Vec<Job>;
