//! Events: the entries of a session's log, as plain types.

use std::{fmt, time::SystemTime};

use bytes::Bytes;
use interlock_proto::gateway::v1::{self as wire, event::Kind as WireKind};

use crate::clock::from_wire;

/// What a session is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The agent.
    pub agent_id: String,
    /// The project.
    pub project_id: String,
    /// Grows by one with each change.
    pub epoch: u64,
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Waits for a worker.
    Queued,
    /// Leased by a worker.
    Running,
    /// Its worker finished it.
    Succeeded,
    /// Its worker, or a bound, failed it.
    Failed,
    /// Cancelled.
    Cancelled,
    /// A state that this version does not know.
    Unknown,
}

/// One entry of a session's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Gap-free within the session, from 1.
    pub sequence: u64,
    /// When the transaction ran.
    pub occurred_at: Option<SystemTime>,
    /// The project it was made under; empty before the first attach.
    pub project_id: String,
    /// The epoch it was made under; 0 before the first attach.
    pub epoch: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What happened. `Debug` does not show what a job wrote.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The session was made, with this first client.
    SessionCreated {
        /// The host.
        client_id: String,
    },
    /// The binding was set or replaced.
    SessionAttached(Binding),
    /// The session takes no more work.
    SessionClosing,
    /// A job was submitted.
    JobQueued {
        /// The job.
        job_id: String,
    },
    /// A worker leased a job.
    JobStarted {
        /// The job.
        job_id: String,
        /// From 1.
        attempt: u32,
        /// The worker's name, as it gave it.
        worker: String,
    },
    /// A line from the job.
    JobProgress {
        /// The job.
        job_id: String,
        /// Which attempt wrote it.
        attempt: u32,
        /// As the worker sent it.
        data: Bytes,
    },
    /// An attempt ended without an outcome; the job is queued again.
    JobReleased {
        /// The job.
        job_id: String,
        /// Which attempt ended.
        attempt: u32,
        /// Why.
        cause: ReleaseCause,
    },
    /// Someone asked to cancel a running job.
    JobCancelRequested {
        /// The job.
        job_id: String,
    },
    /// A job ended.
    JobEnded {
        /// The job.
        job_id: String,
        /// How.
        state: JobState,
        /// Why, where it failed or was cancelled.
        cause: String,
    },
    /// A client joined.
    ClientJoined {
        /// The client.
        client_id: String,
    },
    /// A client is no longer of the session.
    ClientLeft {
        /// The client.
        client_id: String,
        /// Why.
        cause: LeaveCause,
    },
    /// The password that clients join with was set.
    PasswordSet,
    /// Someone said something.
    Message {
        /// The client that did; empty where the session's owner did without one.
        from_client_id: String,
        /// The only client it is for; empty where it is for more.
        to_client_id: String,
        /// Whether it is for all but the sender.
        to_others: bool,
        /// As it was sent.
        data: Bytes,
    },
    /// Something that this version does not know.
    Unknown,
}

/// Why a client is no longer of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveCause {
    /// It quit.
    Quit,
    /// It was taken out.
    Evicted,
    /// It was not seen for too long.
    Idle,
    /// The owner of the session, or the owner's membership in its project, has ended.
    OwnerEnded,
    /// A cause that this version does not know.
    Unknown,
}

/// Why an attempt ended without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseCause {
    /// The lease ran out.
    LeaseExpired,
    /// The worker gave it back.
    Goodbye,
    /// A cause that this version does not know.
    Unknown,
}

impl JobState {
    /// Whether it still keeps its agent busy.
    #[must_use]
    pub fn is_in_flight(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }

    /// In lower case, `queued`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionCreated { client_id } => write!(f, "SessionCreated({client_id})"),
            Self::SessionAttached(binding) => write!(f, "SessionAttached({binding:?})"),
            Self::SessionClosing => f.write_str("SessionClosing"),
            Self::JobQueued { job_id } => write!(f, "JobQueued({job_id})"),
            Self::JobStarted { job_id, attempt, worker } => {
                write!(f, "JobStarted({job_id}, attempt {attempt}, {worker:?})")
            }
            Self::JobProgress { job_id, attempt, data } => {
                write!(f, "JobProgress({job_id}, attempt {attempt}, {} bytes)", data.len())
            }
            Self::JobReleased { job_id, attempt, cause } => {
                write!(f, "JobReleased({job_id}, attempt {attempt}, {cause:?})")
            }
            Self::JobCancelRequested { job_id } => write!(f, "JobCancelRequested({job_id})"),
            Self::JobEnded { job_id, state, cause } => write!(f, "JobEnded({job_id}, {state}, {cause:?})"),
            Self::ClientJoined { client_id } => write!(f, "ClientJoined({client_id})"),
            Self::ClientLeft { client_id, cause } => write!(f, "ClientLeft({client_id}, {cause:?})"),
            Self::PasswordSet => f.write_str("PasswordSet"),
            Self::Message { from_client_id, data, .. } => {
                write!(f, "Message({from_client_id}, {} bytes)", data.len())
            }
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

impl From<wire::Binding> for Binding {
    fn from(b: wire::Binding) -> Self {
        Self { agent_id: b.agent_id, project_id: b.project_id, epoch: b.epoch }
    }
}

impl From<wire::JobState> for JobState {
    fn from(state: wire::JobState) -> Self {
        match state {
            wire::JobState::Queued => Self::Queued,
            wire::JobState::Running => Self::Running,
            wire::JobState::Succeeded => Self::Succeeded,
            wire::JobState::Failed => Self::Failed,
            wire::JobState::Cancelled => Self::Cancelled,
            wire::JobState::Unspecified => Self::Unknown,
        }
    }
}

impl From<wire::Event> for Event {
    fn from(e: wire::Event) -> Self {
        Self {
            sequence: e.sequence,
            occurred_at: from_wire(e.occurred_at),
            project_id: e.project_id,
            epoch: e.epoch,
            kind: e.kind.map_or(EventKind::Unknown, Into::into),
        }
    }
}

impl From<WireKind> for EventKind {
    fn from(kind: WireKind) -> Self {
        match kind {
            WireKind::SessionCreated(k) => Self::SessionCreated { client_id: k.client_id },
            WireKind::SessionAttached(k) => Self::SessionAttached(k.binding.unwrap_or_default().into()),
            WireKind::SessionClosing(_) => Self::SessionClosing,
            WireKind::JobQueued(k) => Self::JobQueued { job_id: k.job_id },
            WireKind::JobStarted(k) => {
                Self::JobStarted { job_id: k.job_id, attempt: k.attempt, worker: k.worker }
            }
            WireKind::JobProgress(k) => {
                Self::JobProgress { job_id: k.job_id, attempt: k.attempt, data: k.data }
            }
            WireKind::JobReleased(k) => {
                let cause = match k.cause() {
                    wire::ReleaseCause::LeaseExpired => ReleaseCause::LeaseExpired,
                    wire::ReleaseCause::Goodbye => ReleaseCause::Goodbye,
                    wire::ReleaseCause::Unspecified => ReleaseCause::Unknown,
                };
                Self::JobReleased { job_id: k.job_id, attempt: k.attempt, cause }
            }
            WireKind::JobCancelRequested(k) => Self::JobCancelRequested { job_id: k.job_id },
            WireKind::JobEnded(k) => {
                let state = k.state().into();
                Self::JobEnded { job_id: k.job_id, state, cause: k.cause }
            }
            WireKind::ClientJoined(k) => Self::ClientJoined { client_id: k.client_id },
            WireKind::ClientLeft(k) => {
                let cause = match k.cause() {
                    wire::LeaveCause::Quit => LeaveCause::Quit,
                    wire::LeaveCause::Evicted => LeaveCause::Evicted,
                    wire::LeaveCause::Idle => LeaveCause::Idle,
                    wire::LeaveCause::OwnerEnded => LeaveCause::OwnerEnded,
                    wire::LeaveCause::Unspecified => LeaveCause::Unknown,
                };
                Self::ClientLeft { client_id: k.client_id, cause }
            }
            WireKind::PasswordSet(_) => Self::PasswordSet,
            WireKind::MessagePosted(k) => Self::Message {
                from_client_id: k.from_client_id,
                to_client_id: k.to_client_id,
                to_others: k.to_others,
                data: k.data,
            },
        }
    }
}
