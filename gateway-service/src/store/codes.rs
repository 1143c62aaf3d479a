//! What small numbers and columns say, the same on each engine that stores rows.

use crate::{
    client::ClientRole,
    file,
    job::{self, EndedBy, Outcome},
    request::RequestKey,
    session,
};

/// The columns of a job, in the order that engines read them.
pub(in crate::store) const JOB: &str = "id, session, owner, client, agent, project, epoch, state, attempt, lost, fencing, \
     holder, worker, lease_until, progress, submitted_at, first_started_at, started_at, cancel_requested_at, \
     ended_at, cause, ended_by";

/// The columns of a waiter, in the order that engines read them.
pub(in crate::store) const WAITER: &str =
    "id, session, owner, agent, present, project, deadline, alive_until";

/// The columns of a file, in the order that engines read them.
pub(in crate::store) const FILE: &str = "id, session, project, epoch, name, phase, due_at, size, hash, at";

pub(in crate::store) fn file_phase(phase: file::Phase) -> i64 {
    match phase {
        file::Phase::Coming { .. } => 0,
        file::Phase::Kept => 1,
        file::Phase::Going { .. } => 2,
    }
}

pub(in crate::store) fn phase(phase: session::Phase) -> i64 {
    match phase {
        session::Phase::Open => 0,
        session::Phase::Closing => 1,
        session::Phase::Gone => 2,
    }
}

pub(in crate::store) fn role(role: ClientRole) -> i64 {
    match role {
        ClientRole::Observer => 0,
        ClientRole::Operator => 1,
        ClientRole::Host => 2,
    }
}

pub(in crate::store) fn request_key(key: &RequestKey) -> (i64, &str, &str) {
    match key {
        RequestKey::Create(owner, id) => (0, owner.as_str(), id.as_str()),
        RequestKey::Submit(session, id) => (1, session.as_str(), id.as_str()),
        RequestKey::Join(session, id) => (2, session.as_str(), id.as_str()),
        RequestKey::Post(session, id) => (3, session.as_str(), id.as_str()),
    }
}

/// A job's phase in columns.
#[derive(Default)]
pub(in crate::store) struct JobPhase<'j> {
    pub(in crate::store) state: i64,
    pub(in crate::store) worker: Option<&'j str>,
    pub(in crate::store) lease_until: Option<i64>,
    pub(in crate::store) progress: u64,
    pub(in crate::store) ended_at: Option<i64>,
    pub(in crate::store) cause: &'j str,
    pub(in crate::store) ended_by_worker: bool,
}

impl<'j> JobPhase<'j> {
    pub(in crate::store) fn of(phase: &'j job::Phase) -> Self {
        match phase {
            job::Phase::Queued => Self::default(),
            job::Phase::Running(lease) => Self {
                state: 1,
                worker: Some(lease.worker.as_str()),
                lease_until: Some(lease.until.as_micros()),
                progress: lease.progress,
                ..Self::default()
            },
            job::Phase::Ended(end) => Self {
                state: match end.outcome {
                    Outcome::Succeeded => 2,
                    Outcome::Failed => 3,
                    Outcome::Cancelled => 4,
                },
                ended_at: Some(end.at.as_micros()),
                cause: &end.cause,
                ended_by_worker: end.by == EndedBy::Worker,
                ..Self::default()
            },
        }
    }
}
