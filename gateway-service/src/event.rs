//! Events: the entries of a session's log, and reading them.
//!
//! A verb appends without looking; the store numbers an event when it applies it, so numbers are free
//! of gaps. What retention has taken, and what the reader may not see, is told as a gap.

use std::sync::Arc;

use interlock_kit::clock::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    binding::Binding,
    ids::{ClientId, JobId, ProjectId, SessionId, WorkerName},
    job::Outcome,
};

/// One stored entry of a session's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the session's log, from 1.
    pub sequence: u64,
    /// When its transaction ran.
    pub at: Timestamp,
    /// The project it was made under; none before the first attach.
    pub project: Option<ProjectId>,
    /// The epoch it was made under; 0 before the first attach.
    pub epoch: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The session was made.
    Created {
        /// Its first client.
        client: ClientId,
    },
    /// The binding was set or replaced.
    Attached {
        /// The binding now.
        binding: Binding,
    },
    /// The session takes no more work.
    Closing,
    /// A job was submitted.
    JobQueued {
        /// Which.
        job: JobId,
    },
    /// A worker leased a job.
    JobStarted {
        /// Which.
        job: JobId,
        /// From 1.
        attempt: u32,
        /// As it names itself.
        worker: WorkerName,
    },
    /// A line from a job.
    JobProgress {
        /// Which.
        job: JobId,
        /// Which attempt wrote it.
        attempt: u32,
        /// As the worker sent it. Stored beside the other facts, as bytes.
        #[serde(skip)]
        data: Vec<u8>,
    },
    /// An attempt ended without an outcome; the job is queued again.
    JobReleased {
        /// Which.
        job: JobId,
        /// Which attempt ended.
        attempt: u32,
        /// Why.
        cause: ReleaseCause,
    },
    /// Someone asked to cancel a running job.
    JobCancelRequested {
        /// Which.
        job: JobId,
    },
    /// A job ended.
    JobEnded {
        /// Which.
        job: JobId,
        /// How.
        outcome: Outcome,
        /// Why it failed or was cancelled.
        cause: String,
    },
}

/// Why an attempt ended without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseCause {
    /// The lease ran out.
    LeaseExpired,
    /// The worker gave it back.
    Goodbye,
}

/// The next part of a session's log, for one reader. A query: it authorizes again each time.
#[derive(Clone, Debug)]
pub struct ReadEvents {
    /// The session.
    pub session: SessionId,
    /// From where.
    pub from: From,
    /// At most so many entries; bounded by the limits.
    pub limit: u32,
}

/// From where to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// After this sequence number.
    After(u64),
    /// After the stored cursor of the client whose cookie came along.
    Cursor,
}

/// A part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// In order.
    pub entries: Vec<Entry>,
    /// Read on after this one.
    pub next: u64,
    /// The newest sequence number that is stored.
    pub last: u64,
}

impl Part {
    /// Whether everything that was stored has been read.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        self.next >= self.last
    }
}

/// One entry of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An event.
    Event(Arc<Event>),
    /// Events that are gone, or not for this reader.
    Gap {
        /// The first one.
        from: u64,
        /// The last one.
        to: u64,
    },
}
