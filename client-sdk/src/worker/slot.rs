//! A job in this worker's hands: its lease, and what the gateway has yet to acknowledge.

use std::collections::VecDeque;

use bytes::Bytes;
use interlock_proto::gateway::v1 as wire;
use tokio::{task::AbortHandle, time::Instant};

use super::task::{Outcome, Signals};

const RESULT_MAX: usize = 256 * 1024;
const CAUSE_MAX: usize = 256;

/// A job, and the right to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) job_id: String,
    pub(super) fencing_token: u64,
}

impl Held {
    pub(super) fn from_wire(held: Option<wire::Held>) -> Option<Self> {
        held.map(|h| Self { job_id: h.job_id, fencing_token: h.fencing_token })
    }

    pub(super) fn to_wire(&self) -> wire::Held {
        wire::Held { job_id: self.job_id.clone(), fencing_token: self.fencing_token }
    }
}

/// One job in hand.
pub(super) struct Slot {
    pub(super) lease_ends: Instant,
    pub(super) signals: Signals,
    /// The running handler; `None` before it starts and after it has returned.
    pub(super) handler: Option<AbortHandle>,
    /// An assignment whose handler has not started: there was no room, or it is being given back.
    pub(super) waiting: Option<wire::work_response::Assignment>,
    next_number: u64,
    /// Lines that are not stored yet, by number.
    unstored: VecDeque<(u64, Bytes)>,
    /// How many of them have been sent on this stream.
    sent: usize,
    finish: Option<Finish>,
}

struct Finish {
    state: wire::JobState,
    result: Bytes,
    cause: String,
    sent: bool,
}

impl Slot {
    pub(super) fn new(signals: Signals, lease_ends: Instant) -> Self {
        Self {
            lease_ends,
            signals,
            handler: None,
            waiting: None,
            next_number: 1,
            unstored: VecDeque::new(),
            sent: 0,
            finish: None,
        }
    }

    /// Takes a line in. Their number is bounded by the permits that handlers take.
    pub(super) fn line(&mut self, data: Bytes) {
        self.unstored.push_back((self.next_number, data));
        self.next_number += 1;
    }

    /// Lines up to `number` are stored.
    pub(super) fn stored(&mut self, number: u64) {
        while self.unstored.front().is_some_and(|(n, _)| *n <= number) {
            self.unstored.pop_front();
            self.sent = self.sent.saturating_sub(1);
            self.signals.room.add_permits(1);
        }
    }

    pub(super) fn finish(&mut self, outcome: Outcome) {
        let (state, mut result, mut cause) = match outcome {
            Outcome::Succeeded { result } => (wire::JobState::Succeeded, result, String::new()),
            Outcome::Failed { cause, result } => (wire::JobState::Failed, result, cause),
            Outcome::Cancelled { cause } => (wire::JobState::Cancelled, Bytes::new(), cause),
        };
        let mut state = state;
        if result.len() > RESULT_MAX {
            (state, result) = (wire::JobState::Failed, Bytes::new());
            cause = "the result is larger than 256 KiB".to_owned();
        }
        cause.truncate(cause.floor_char_boundary(CAUSE_MAX));
        self.handler = None;
        self.finish = Some(Finish { state, result, cause, sent: false });
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.finish.is_some()
    }

    /// A new stream: whatever was not acknowledged goes out again.
    pub(super) fn resend(&mut self) {
        self.sent = 0;
        if let Some(finish) = &mut self.finish {
            finish.sent = false;
        }
    }

    /// Whether there is something to send.
    pub(super) fn has_next(&self) -> bool {
        self.sent < self.unstored.len() || self.finish.as_ref().is_some_and(|f| !f.sent)
    }

    /// What to send next: lines in their order, the outcome after them.
    pub(super) fn next(&mut self, held: &Held) -> Option<wire::work_request::Message> {
        if let Some((number, data)) = self.unstored.get(self.sent) {
            self.sent += 1;
            return Some(wire::work_request::Message::Progress(wire::work_request::Progress {
                held: Some(held.to_wire()),
                number: *number,
                data: data.clone(),
            }));
        }
        let finish = self.finish.as_mut().filter(|f| !f.sent)?;
        finish.sent = true;
        Some(wire::work_request::Message::Finish(wire::work_request::Finish {
            held: Some(held.to_wire()),
            state: finish.state.into(),
            result: finish.result.clone(),
            cause: finish.cause.clone(),
        }))
    }
}
