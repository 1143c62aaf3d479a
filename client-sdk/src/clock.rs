//! Where time comes from: the one place of this crate that asks for now.
//!
//! A lease is counted with two clocks, since either can stand still or jump: the monotonic one stops
//! while a machine sleeps, the wall clock can be set.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

/// A monotonic and a wall clock.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Manual>>);

/// A clock for tests: both hands move only when told to.
#[derive(Debug)]
struct Manual {
    monotonic_ns: AtomicU64,
    wall_us: AtomicI64,
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
/// The most that the wall clock has been ahead of the monotonic one, microseconds.
static AHEAD_US: AtomicI64 = AtomicI64::new(i64::MIN);

impl Clock {
    /// The clocks of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock whose hands move only when told to. Starts at `wall`.
    #[must_use]
    pub fn manual(wall: SystemTime) -> Self {
        let wall_us = AtomicI64::new(i64::try_from(micros(wall)).unwrap_or(i64::MAX));
        Self(Some(Arc::new(Manual { monotonic_ns: AtomicU64::new(1_000_000_000), wall_us })))
    }

    /// Moves both hands of a manual clock; machine clocks do not listen.
    pub fn advance(&self, by: Duration) {
        self.advance_monotonic(by);
        self.advance_wall(by);
    }

    /// Moves the monotonic hand of a manual clock alone.
    pub fn advance_monotonic(&self, by: Duration) {
        if let Some(manual) = &self.0 {
            manual.monotonic_ns.fetch_add(nanos(by), Ordering::SeqCst);
        }
    }

    /// Moves the wall hand of a manual clock alone.
    pub fn advance_wall(&self, by: Duration) {
        if let Some(manual) = &self.0 {
            manual.wall_us.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// The wall clock, as long as that goes on: of the steps that it and the monotonic clock have made since the
    /// start it takes the larger. So one that is set back prolongs no credential that ends by it.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(self.both().1)
    }

    /// Both at once: [`Clock::monotonic_ns`], and [`Clock::wall`] in microseconds since 1970.
    #[must_use]
    pub(crate) fn both(&self) -> (u64, u64) {
        match &self.0 {
            None => {
                // In this order: a pause between the two makes the difference smaller, never larger.
                let set_to = i64::try_from(micros(SystemTime::now())).unwrap_or(i64::MAX);
                let monotonic_ns = self.monotonic_ns();
                let steady = i64::try_from(monotonic_ns / 1_000).unwrap_or(i64::MAX);
                (monotonic_ns, largest_step(&AHEAD_US, set_to, steady))
            }
            Some(m) => {
                let wall_us = u64::try_from(m.wall_us.load(Ordering::SeqCst)).unwrap_or(0);
                (m.monotonic_ns.load(Ordering::SeqCst), wall_us)
            }
        }
    }

    /// Nanoseconds of the monotonic clock since some instant before the first question.
    #[must_use]
    pub(crate) fn monotonic_ns(&self) -> u64 {
        match &self.0 {
            // One second ahead, so that 0 is always in the past.
            None => nanos(START.elapsed()).saturating_add(1_000_000_000),
            Some(m) => m.monotonic_ns.load(Ordering::SeqCst),
        }
    }
}

/// What the wall clock would show had it never been set back.
fn largest_step(ahead_us: &AtomicI64, set_to: i64, steady: i64) -> u64 {
    let ahead = set_to.saturating_sub(steady);
    let mut most = ahead_us.load(Ordering::Relaxed);
    if ahead > most {
        most = ahead_us.fetch_max(ahead, Ordering::Relaxed).max(ahead);
    }
    u64::try_from(steady.saturating_add(most)).unwrap_or(0)
}

/// Nanoseconds, at most `u64::MAX`.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Microseconds since 1970; 0 before.
pub(crate) fn micros(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// An instant of the wire; `None` where it is absent or before 1970.
pub(crate) fn from_wire(at: Option<prost_types::Timestamp>) -> Option<SystemTime> {
    at.and_then(|at| SystemTime::try_from(at).ok())
}

/// An instant for the wire.
pub(crate) fn to_wire(at: SystemTime) -> prost_types::Timestamp {
    at.into()
}

/// A span of the wire; zero where it is absent or negative.
pub(crate) fn span(duration: Option<prost_types::Duration>) -> Duration {
    duration.and_then(|d| d.try_into().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_is_set_back_goes_on_all_the_same() {
        const DAY: i64 = 86_400_000_000;
        let ahead = AtomicI64::new(i64::MIN);
        let shown = |set_to, steady| i64::try_from(largest_step(&ahead, set_to, steady)).expect("small");
        assert_eq!(shown(10 * DAY, 5), 10 * DAY);
        assert_eq!(shown(10 * DAY + 100, 105), 10 * DAY + 100);
        assert_eq!(shown(9 * DAY, 205), 10 * DAY + 200, "set back: the other clock's steps count");
        assert_eq!(shown(11 * DAY, 305), 11 * DAY, "set forward: its own count");
        assert_eq!(shown(10 * DAY, 405), 11 * DAY + 100, "and set back again");
    }
}
