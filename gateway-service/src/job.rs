//! Jobs: work submitted to the agent that a session is bound to.

use interlock_kit::clock::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    binding::Binding,
    ids::{ClientId, JobId, OwnerId, RequestId, SessionId},
    lease::Lease,
};

/// A job. Payload and result are kept apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Which.
    pub id: JobId,
    /// The session it was submitted to.
    pub session: SessionId,
    /// The session's owner.
    pub owner: OwnerId,
    /// The client that submitted it; none where a bearer credential did.
    pub client: Option<ClientId>,
    /// The binding it runs under, for its whole life.
    pub binding: Binding,
    /// Where it is in its life.
    pub phase: Phase,
    /// How many attempts have started.
    pub attempt: u32,
    /// How many attempts ended because their lease ran out.
    pub lost: u32,
    /// The fencing token of the newest lease; 0 before the first.
    pub fencing: u64,
    /// The owner that the worker of the newest lease acts as: nobody else can use that lease.
    pub holder: Option<OwnerId>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When its first attempt started.
    pub first_started_at: Option<Timestamp>,
    /// When the present or last attempt started.
    pub started_at: Option<Timestamp>,
    /// When someone asked to cancel it while it ran.
    pub cancel_requested_at: Option<Timestamp>,
}

/// Where a job is in its life. Queued and running are in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waits for a worker.
    Queued,
    /// Leased by a worker.
    Running(Lease),
    /// Ended, once.
    Ended(End),
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// How.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// Why it failed or was cancelled.
    pub cause: String,
    /// Who ended it.
    pub by: EndedBy,
}

/// The three ways to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its worker finished it.
    Succeeded,
    /// Its worker, or a bound, failed it.
    Failed,
    /// Cancelled.
    Cancelled,
}

/// Who ended a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The worker that held its newest lease.
    Worker,
    /// A caller or a bound.
    Gateway,
}

/// A job with what went in and what came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobWhole {
    /// The job.
    pub job: Job,
    /// What was submitted.
    pub payload: Vec<u8>,
    /// What its worker answered.
    pub result: Vec<u8>,
}

/// Queues a job under the session's binding. Answers with the job as it was queued, or as it is now
/// where the request id was seen before.
#[derive(Clone, Debug)]
pub struct Submit {
    /// The new job's id: [`JobId::new`].
    pub id: JobId,
    /// The session.
    pub session: SessionId,
    /// The same id and payload get the first job again.
    pub request: RequestId,
    /// Handed to the worker as it is.
    pub payload: Vec<u8>,
}

/// Cancels a queued job at once; asks the worker of a running one. Answers with the job as it is then.
#[derive(Clone, Debug)]
pub struct Cancel {
    /// Which.
    pub job: JobId,
}

/// Reads one job with its payload and result.
#[derive(Clone, Debug)]
pub struct GetJob {
    /// Which.
    pub job: JobId,
}

/// Reads where a job is in its life: what a wait asks again on each wake-up.
#[derive(Clone, Debug)]
pub struct JobState {
    /// Which.
    pub job: JobId,
}

/// Lists a session's jobs under its present project, newest first.
#[derive(Clone, Debug)]
pub struct ListJobs {
    /// The session.
    pub session: SessionId,
    /// Only jobs in flight.
    pub in_flight: bool,
    /// 1 to 500; 0 means 100.
    pub page_size: u32,
    /// From the page before; empty for the first.
    pub page_token: String,
}

/// A page of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPage {
    /// Newest first.
    pub jobs: Vec<Job>,
    /// Empty on the last page.
    pub next_page_token: String,
}
