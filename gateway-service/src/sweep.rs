//! Sweeps: what ends by time. Each listing is bounded, and each entry is one verb.
//!
//! The loop that runs them is the shell's: it asks [`Due`], then runs [`Sweep`] for each entry, as
//! [`crate::caller::Caller::gateway`].

use interlock_kit::clock::Timestamp;

use crate::ids::{JobId, SessionId};

/// What is due now, at most `sweep_rows_max` of each kind. A listing, no truth: each verb looks again.
#[derive(Clone, Debug)]
pub struct Due;

/// One thing to sweep.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// A running job whose lease or run time is over.
    Lease(JobId),
    /// A queued job that is too old.
    Overdue(JobId),
    /// A closing session with no job in flight, or a gone one with rows left.
    Session(SessionId),
    /// A log beyond its retention.
    Log(SessionId),
    /// First answers that are kept no longer.
    Requests,
    /// Ended jobs of this session that are kept no longer.
    Jobs(SessionId),
}

/// Does one duty. Answers whether it changed anything; repeat while it says [`Swept::More`].
#[derive(Clone, Debug)]
pub struct Sweep(pub Duty);

/// What a sweep found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// Nothing was due.
    Nothing,
    /// Done.
    Done,
    /// A bounded part is done; more is left.
    More,
}

/// When the next lease is over: how long a sweep may sleep at most.
#[derive(Clone, Debug)]
pub struct NextDeadline;

/// The next instant at which something of the leases is over; none where nothing runs.
pub type Deadline = Option<Timestamp>;
