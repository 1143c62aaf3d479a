//! The lease: until when this verifier may admit.
//!
//! Counted from before the message that it answers was sent, and by two clocks: it is over as soon as
//! either has moved a lease's length. A wall clock that is set back shortens nothing and stretches
//! nothing; one that is set forward ends the lease until the next grant.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use crate::clock::{Clock, nanos};

/// No auth grants longer; a larger answer is cut to this.
const LEASE_MAX: Duration = Duration::from_secs(60);

/// Whether a verifier may admit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// It may.
    Held,
    /// It may not: auth has not been heard of for a lease's length.
    Lapsed,
}

/// When a message was sent, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    monotonic_ns: u64,
    wall_us: u64,
}

impl Stamp {
    pub(super) fn of(clock: &Clock) -> Self {
        let (monotonic_ns, wall_us) = clock.both();
        Self { monotonic_ns, wall_us }
    }

    /// Microseconds of the wall clock since 1970.
    pub(super) fn wall_us(self) -> u64 {
        self.wall_us
    }
}

pub(super) struct Lease {
    monotonic_until_ns: AtomicU64,
    wall_until_us: AtomicU64,
    state: watch::Sender<LeaseState>,
    granted: Notify,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            monotonic_until_ns: AtomicU64::new(0),
            wall_until_us: AtomicU64::new(0),
            state: watch::Sender::new(LeaseState::Lapsed),
            granted: Notify::new(),
        }
    }
}

impl Lease {
    /// Whether it lives, now.
    pub(super) fn holds(&self, clock: &Clock) -> bool {
        self.holds_at(Stamp::of(clock))
    }

    /// Whether it lives at `now`. The two ends are read apart: a mix of an old and a new one can only say
    /// no too early.
    pub(super) fn holds_at(&self, now: Stamp) -> bool {
        now.monotonic_ns < self.monotonic_until_ns.load(Ordering::Acquire)
            && now.wall_us < self.wall_until_us.load(Ordering::Acquire)
    }

    /// Extends it to `lease` after `sent`.
    pub(super) fn grant(&self, sent: Stamp, lease: Duration, clock: &Clock) {
        let lease = lease.min(LEASE_MAX);
        let monotonic = sent.monotonic_ns.saturating_add(nanos(lease));
        let wall = sent.wall_us.saturating_add(nanos(lease) / 1_000);
        self.monotonic_until_ns.store(monotonic, Ordering::Release);
        self.wall_until_us.store(wall, Ordering::Release);
        self.settle(clock);
        self.granted.notify_waiters();
    }

    /// Lets watchers know what [`Lease::holds`] knows.
    pub(super) fn settle(&self, clock: &Clock) {
        let now = if self.holds(clock) { LeaseState::Held } else { LeaseState::Lapsed };
        let changed = self.state.send_if_modified(|state| std::mem::replace(state, now) != now);
        if changed {
            tracing::info!(state = ?now, "lease");
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<LeaseState> {
        self.state.subscribe()
    }

    /// Waits until it lives.
    pub(super) async fn held(&self, clock: &Clock) {
        loop {
            let granted = self.granted.notified();
            tokio::pin!(granted);
            granted.as_mut().enable();
            if self.holds(clock) {
                return;
            }
            granted.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    const LEASE: Duration = Duration::from_secs(3);

    fn leased() -> (Clock, Lease) {
        let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let lease = Lease::default();
        assert!(!lease.holds(&clock));
        lease.grant(Stamp::of(&clock), LEASE, &clock);
        assert!(lease.holds(&clock));
        (clock, lease)
    }

    #[test]
    fn either_clock_ends_it() {
        let (clock, lease) = leased();
        clock.advance_monotonic(LEASE);
        assert!(!lease.holds(&clock));

        let (clock, lease) = leased();
        clock.advance_wall(LEASE);
        assert!(!lease.holds(&clock), "a machine that slept, or a clock that was set");

        let (clock, lease) = leased();
        clock.advance(LEASE - Duration::from_millis(1));
        assert!(lease.holds(&clock));
    }

    #[test]
    fn it_counts_from_before_the_question() {
        let (clock, lease) = leased();
        let sent = Stamp::of(&clock);
        clock.advance(Duration::from_secs(2));
        lease.grant(sent, LEASE, &clock);
        clock.advance(Duration::from_secs(1));
        assert!(!lease.holds(&clock), "a slow answer gives no more than was asked for");
    }
}
