//! Time comes in from outside. The only place that reads a clock.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

const NANOS_A_MICRO: i64 = 1_000;

/// An instant in microseconds since the Unix epoch, UTC. As stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// That much later; stops at the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// That much earlier; stops at the start of time.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long from `earlier` to this; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Whether something that ends at this instant has ended at `now`. The one place where equality
    /// is decided: an end is over at its instant.
    #[must_use]
    pub fn is_over(self, now: Self) -> bool {
        now >= self
    }

    /// Stops in the year 2262.
    const fn as_nanos(self) -> i64 {
        self.0.saturating_mul(NANOS_A_MICRO)
    }

    /// As the wire has it.
    #[must_use]
    pub fn to_wire(self) -> prost_types::Timestamp {
        let nanos = i32::try_from(self.0.rem_euclid(1_000_000) * 1_000).expect("under 10^9");
        prost_types::Timestamp { seconds: self.0.div_euclid(1_000_000), nanos }
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339, UTC, milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// Where instants come from. Clones are one clock.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(Arc<Steady>),
    Manual(Arc<AtomicI64>),
}

/// The monotonic clock, and how far time is ahead of it. No lock: every call reads it.
#[derive(Debug)]
struct Steady {
    /// What the monotonic clock is counted from.
    since: Instant,
    /// Nanoseconds from the Unix epoch to `since`, as far as is known. Only grows: so time never goes back, and nothing
    /// is lost to rounding, however often it is asked.
    ahead: AtomicI64,
}

impl Steady {
    fn begin(at: Timestamp, since: Instant) -> Self {
        Self { since, ahead: AtomicI64::new(at.as_nanos()) }
    }

    /// The later of `at` and the instant that the monotonic clock has come to at `seen`; goes on from there.
    fn forward(&self, at: Timestamp, seen: Instant) -> Timestamp {
        let steady = i64::try_from(seen.duration_since(self.since).as_nanos()).unwrap_or(i64::MAX);
        let asked = at.as_nanos().saturating_sub(steady);
        let mut ahead = self.ahead.load(Ordering::Relaxed);
        if asked > ahead {
            ahead = self.ahead.fetch_max(asked, Ordering::Relaxed).max(asked);
        }
        Timestamp(ahead.saturating_add(steady).div_euclid(NANOS_A_MICRO))
    }
}

impl Clock {
    /// The wall clock, as long as that goes on. It never goes back and never stands still: of the steps that the
    /// wall clock and the monotonic clock have made it takes the larger. So a wall clock that is set forward ends
    /// what a day ends, and one that is set back prolongs nothing: time goes on from where it was.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System(Arc::new(Steady::begin(wall(), Self::instant()))))
    }

    /// A clock that only moves when told to: for tests and simulations.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start.0))))
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System(steady) => steady.forward(wall(), Self::instant()),
            Source::Manual(at) => Timestamp(at.load(Ordering::SeqCst)),
        }
    }

    /// Whether it only moves when told to.
    pub(crate) fn is_manual(&self) -> bool {
        matches!(self.0, Source::Manual(_))
    }

    /// What the machine's clock shows, whatever has been stored: for what others have dated, like certificates.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        match &self.0 {
            Source::System(_) => wall(),
            Source::Manual(_) => self.now(),
        }
    }

    /// From here on no instant is before `at`: the last one that was stored. What is stored ends by the clock that
    /// stored it, though that was ahead; a manual clock does not listen.
    pub fn not_before(&self, at: Timestamp) {
        if let Source::System(steady) = &self.0 {
            steady.forward(at, Self::instant());
        }
    }

    /// Moves a manual clock; the wall clock does not listen.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(at) = &self.0 {
            at.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// A monotonic instant, for measuring spans within one process.
    #[must_use]
    pub fn instant() -> Instant {
        Instant::now()
    }
}

/// What the machine's clock shows: for what others have dated, like certificates.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400_000_000;

    proptest! {
        /// Whatever a wall clock does: time never goes back, never stands still, and never goes faster than the
        /// faster of the two.
        #[test]
        fn the_larger_step_counts(steps in prop::collection::vec((0_u64..5_000_000, -DAY..DAY), 1..60)) {
            let begin = Instant::now();
            let start = Timestamp(1_000 * DAY);
            let clock = Steady::begin(start, begin);
            let (mut steady, mut at_wall, mut before, mut most) = (0, start.0, start, start.0);
            for (elapsed, jump) in steps {
                steady += elapsed;
                at_wall += i64::try_from(elapsed).expect("small") + jump;
                let now = clock.forward(Timestamp(at_wall), begin + Duration::from_micros(steady));
                prop_assert!(now >= before.after(Duration::from_micros(elapsed)), "{before:?} {now:?}");
                prop_assert!(now.0 >= at_wall);
                most = (most + i64::try_from(elapsed).expect("small")).max(at_wall);
                prop_assert_eq!(now.0, most);
                before = now;
            }
        }
    }

    #[test]
    fn a_stored_instant_that_is_ahead_is_where_time_goes_on() {
        let clock = Clock::system();
        let ahead = clock.now().after(Duration::from_secs(86_400));
        clock.clone().not_before(ahead);
        assert!(clock.now() >= ahead && clock.now() < ahead.after(Duration::from_secs(3_600)));
        clock.not_before(Timestamp(0));
        assert!(clock.now() >= ahead, "and it stays there");
    }
}
