//! Events: the entries of a session's log, and reading them.
//!
//! A verb appends without looking; the store numbers an event when it applies it, so numbers are free
//! of gaps. What retention has taken, and what the reader may not see, is told as a gap.

use interlock_kit::clock::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    binding::Binding,
    client::{Client, LeaveCause},
    data::Data,
    ids::{ClientId, JobId, ProjectId, SessionId, WorkerName},
    job::Outcome,
    message::Address,
    policy::Act,
    store::{Found, Query, Stop, View, broken},
};

mod shared;

pub use shared::SharedEvent;

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
        data: Data,
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
    /// A client joined.
    ClientJoined {
        /// Which.
        client: ClientId,
    },
    /// A client is no longer of the session.
    ClientLeft {
        /// Which.
        client: ClientId,
        /// Why.
        cause: LeaveCause,
    },
    /// The password that clients join with was set.
    PasswordSet,
    /// Someone said something.
    Message {
        /// The client that did; none: the owner, without one.
        from: Option<ClientId>,
        /// Whom it is for.
        to: Address,
        /// As it was sent. Stored beside the other facts, as bytes.
        #[serde(skip)]
        data: Data,
    },
}

impl EventKind {
    /// What others wrote, in bytes: stored beside the facts.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        match self {
            Self::JobProgress { data, .. } | Self::Message { data, .. } => data,
            Self::Created { .. }
            | Self::Attached { .. }
            | Self::Closing
            | Self::JobQueued { .. }
            | Self::JobStarted { .. }
            | Self::JobReleased { .. }
            | Self::JobCancelRequested { .. }
            | Self::JobEnded { .. }
            | Self::ClientJoined { .. }
            | Self::ClientLeft { .. }
            | Self::PasswordSet => &[],
        }
    }
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

/// The same for a reader that was told of events as they were committed: decided like any other part, but what is
/// known already is not read and decoded once more for each reader.
#[derive(Clone, Debug)]
pub(crate) struct ReadOn {
    /// What to read.
    pub(crate) read: ReadEvents,
    /// Committed events of that session, without a hole.
    pub(crate) known: Vec<SharedEvent>,
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
    /// The project that the session is bound to, which the reader may enter.
    pub project: Option<ProjectId>,
    /// The client that reads; none: the owner, without one.
    pub reader: Option<ClientId>,
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
    Event(SharedEvent),
    /// Events that are gone, or not for this reader.
    Gap {
        /// The first one.
        from: u64,
        /// The last one.
        to: u64,
    },
}

impl Query for ReadEvents {
    type Out = Part;
    const ACTION: &'static str = "session.stream";

    fn run(&self, view: &mut View<'_>) -> Result<Part, Stop> {
        self.part(view, &[])
    }
}

impl Query for ReadOn {
    type Out = Part;
    const ACTION: &'static str = ReadEvents::ACTION;

    /// Where it has the events it only decides on them.
    fn is_keyed(&self) -> bool {
        !self.known.is_empty()
    }

    fn run(&self, view: &mut View<'_>) -> Result<Part, Stop> {
        self.read.part(view, &self.known)
    }
}

/// What the store still has of the log of a session that is gone. For the gateway itself, which delivers it to those
/// who followed the session: to everyone else it is as if it had never been.
#[derive(Clone, Debug)]
pub struct LastEvents {
    /// Whose log.
    pub session: SessionId,
    /// The last event that is known.
    pub after: u64,
    /// At most so many.
    pub limit: usize,
}

/// The end of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The number of the last event there was.
    pub last: u64,
    /// Of those after the known one, the ones that are left, in order.
    pub events: Vec<Event>,
}

impl Query for LastEvents {
    /// None where the session lives.
    type Out = Option<End>;
    const ACTION: &'static str = "sweep.due";

    fn run(&self, view: &mut View<'_>) -> Result<Option<End>, Stop> {
        let permit = view.upkeep()?;
        let found = view.last_events(&permit, &self.session, self.after, self.limit)?;
        Ok(found.map(|(last, events)| End { last, events }))
    }
}

impl ReadEvents {
    fn part(&self, view: &mut View<'_>, known: &[SharedEvent]) -> Result<Part, Stop> {
        let found = view.session(Act::Stream, &self.session)?;
        let log = view.log(&found)?;
        let after = self.after(&found)?.min(log.last);
        let limit = self.limit.clamp(1, view.limits().event_batch_max);
        // What this transaction shows of the log is what counts, whatever was heard before or after it.
        let stored = known.iter().take_while(|event| event.sequence <= log.last).cloned().collect();
        let follows =
            log.first <= after + 1 && known.first().is_some_and(|event| event.sequence == after + 1);
        let known = if follows { stored } else { Vec::new() };
        let events = view.events(&found, known, after, usize::try_from(limit).unwrap_or(usize::MAX))?;
        let project = found.scope.as_ref().map(|scope| scope.project().clone());
        let reader = found.client.as_ref().map(|client| client.id.clone());
        let mut part = Part { entries: Vec::new(), next: after, last: log.last, project, reader };
        if log.first > after + 1 {
            part.skip(log.first - 1);
        }
        let mut bytes = 0;
        for (sequence, event) in events {
            bytes += event.as_ref().map_or(0, |event| event.weight());
            if bytes > view.limits().event_batch_bytes_max && !part.entries.is_empty() {
                break;
            }
            match event {
                Some(event) => part.push(event)?,
                None => part.skip(sequence),
            }
        }
        Ok(part)
    }

    fn after(&self, found: &Found) -> Result<u64, Stop> {
        match self.from {
            From::After(after) => Ok(after),
            From::Cursor => {
                let cursor = found.client.as_ref().map(|client: &Client| client.cursor);
                cursor.ok_or_else(|| {
                    interlock_kit::error::Error::invalid_field("from_cursor", "only with a client's cookie")
                        .into()
                })
            }
        }
    }
}

impl Part {
    fn push(&mut self, event: SharedEvent) -> Result<(), Stop> {
        if event.sequence != self.next + 1 {
            return Err(broken("a session's log has a hole (I15)"));
        }
        self.next = event.sequence;
        self.entries.push(Entry::Event(event));
        Ok(())
    }

    /// Up to and with this one, nothing is shown.
    fn skip(&mut self, to: u64) {
        let next = self.next + 1;
        match self.entries.last_mut() {
            Some(Entry::Gap { to: end, .. }) => *end = to,
            Some(Entry::Event(_)) | None => self.entries.push(Entry::Gap { from: next, to }),
        }
        self.next = to;
    }
}

impl Event {
    /// About how many bytes it takes on the wire.
    pub(crate) fn weight(&self) -> usize {
        self.kind.data().len() + 512
    }

    /// Whether it is for this reader: a message may be for others.
    pub(crate) fn is_for(&self, reader: Option<&ClientId>) -> bool {
        match &self.kind {
            EventKind::Message { from, to, .. } => to.reaches(from.as_ref(), reader),
            _ => true,
        }
    }
}
