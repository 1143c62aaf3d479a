//! What is kept of a session's log while someone listens: its newest events, in their order and within bounds.

use std::{collections::VecDeque, sync::Arc};

use crate::event::SharedEvent;

/// About how many bytes of events are kept for the listeners of one session: the newest one is kept whatever it
/// weighs.
pub(super) const RING_BYTES_MAX: usize = 512 * 1024;
/// ... and for all together. Where many sessions have listeners each ring is shorter, down to the last events.
pub(super) const RINGS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The last events of a session that is gone, for its listeners.
const LAST_MAX: usize = 64;
/// ... and about how many bytes they are together.
pub(super) const LAST_BYTES_MAX: usize = 64 * 1024;
/// The newest events of one session since someone listens, in their order.
#[derive(Default)]
pub(super) struct Ring {
    events: VecDeque<SharedEvent>,
    bytes: usize,
}

impl Ring {
    /// Keeps one more, and as many of those before it as fit.
    pub(super) fn keep(&mut self, event: &SharedEvent, bytes_max: usize) {
        if self.events.back().is_some_and(|newest| newest.sequence >= event.sequence) {
            // Told late, of a commit that was in doubt: what is kept stays in its order.
            *self = Self::default();
        }
        self.events.push_back(event.clone());
        self.bytes += event.held();
        while self.bytes > bytes_max && self.events.len() > 1 {
            self.bytes -= self.events.pop_front().map_or(0, |oldest| oldest.held());
        }
    }

    /// The newest ones.
    pub(super) fn last(&self) -> Arc<[SharedEvent]> {
        let mut bytes = 0;
        let fits = |event: &&SharedEvent| {
            bytes += event.held();
            bytes <= LAST_BYTES_MAX
        };
        let count = self.events.iter().rev().take(LAST_MAX).take_while(fits).count();
        let from = self.events.len() - count.max(1).min(self.events.len());
        self.events.iter().skip(from).cloned().collect()
    }

    /// Those after a number, without a hole and at most so many.
    pub(super) fn after(&self, sequence: u64, most: usize) -> Vec<SharedEvent> {
        let from = self.events.partition_point(|event| event.sequence <= sequence);
        let next = self.events.iter().skip(from).zip(sequence + 1..);
        // Other writers of the same store may have made some in between: those were not heard of here.
        let next = next.take_while(|(event, number)| event.sequence == *number).take(most);
        next.map(|(event, _)| event.clone()).collect()
    }
}
