//! Keeps refusals from filling the audit: the first few of a kind have rows, the rest are counted.
//!
//! A kind is a principal or source, and a reason. What is counted in a window is handed out once the
//! window has ended, for one row each. Memory is bounded: kinds beyond the bound share one bucket, and
//! their refusals are still counted.

use std::{
    collections::{
        HashMap,
        hash_map::{Entry, RandomState},
    },
    hash::BuildHasher as _,
    num::NonZeroU32,
    time::Duration,
};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;

use crate::{
    clock::Timestamp,
    error::{Error, Reason},
    serve::Source,
};

/// Who refusals beyond the bound are counted under.
pub const OTHERS: &str = "others";

/// Bounds of [`Denials`].
#[derive(Clone, Copy, Debug)]
pub struct DenialLimits {
    /// Rows of a kind in a window.
    pub rows: u32,
    /// How long a window is.
    pub window: Duration,
    /// Kinds that are told apart.
    pub kinds: usize,
}

impl Default for DenialLimits {
    fn default() -> Self {
        Self { rows: 8, window: Duration::from_secs(10), kinds: 4_096 }
    }
}

/// What becomes of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It gets a row of its own.
    Row,
    /// It is counted.
    Counted,
}

/// Refusals of one kind that got no rows of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The principal or source; [`OTHERS`] for those beyond the bound.
    pub key: String,
    /// Why.
    pub reason: Reason,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Timestamp,
    /// The last of them.
    pub last: Timestamp,
}

/// Counts refusals.
#[derive(Debug, Default)]
pub struct Denials {
    limits: DenialLimits,
    windows: Mutex<HashMap<(String, Reason), Window>>,
}

#[derive(Debug)]
struct Window {
    began: Timestamp,
    rows: u32,
    counted: Option<Tally>,
}

#[derive(Clone, Copy, Debug)]
struct Tally {
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Denials {
    /// None yet.
    #[must_use]
    pub fn new(limits: DenialLimits) -> Self {
        Self { limits, windows: Mutex::default() }
    }

    /// Notes a refusal, and says what becomes of it.
    pub fn note(&self, key: &str, reason: Reason, now: Timestamp) -> Noted {
        let mut windows = self.windows.lock();
        let mut kind = (key.to_owned(), reason);
        if windows.len() >= self.limits.kinds && !windows.contains_key(&kind) {
            kind.0 = OTHERS.to_owned();
        }
        let window = match windows.entry(kind) {
            Entry::Vacant(vacant) => vacant.insert(Window { began: now, rows: 0, counted: None }),
            Entry::Occupied(occupied) => {
                let window = occupied.into_mut();
                // What an ended window counted waits for `due` and is not lost: only its rows start anew.
                if self.over(window, now) {
                    window.began = now;
                    window.rows = 0;
                }
                window
            }
        };
        if window.rows < self.limits.rows {
            window.rows += 1;
            return Noted::Row;
        }
        let tally = window.counted.get_or_insert(Tally { count: 0, first: now, last: now });
        tally.count += 1;
        tally.last = now;
        Noted::Counted
    }

    /// What the ended windows counted, and forgets them. Call it about once in a window.
    pub fn due(&self, now: Timestamp) -> Vec<Counted> {
        self.drain(|window| self.over(window, now) || self.counted_long_ago(window, now))
    }

    /// What has been counted so far, ended or not: for a shutdown.
    pub fn rest(&self) -> Vec<Counted> {
        self.drain(|_| true)
    }

    fn over(&self, window: &Window, now: Timestamp) -> bool {
        window.began.after(self.limits.window).is_over(now)
    }

    /// A kind that never pauses always has an open window: what it counted is due all the same.
    fn counted_long_ago(&self, window: &Window, now: Timestamp) -> bool {
        window.counted.is_some_and(|tally| tally.first.after(self.limits.window).is_over(now))
    }

    fn drain(&self, due: impl Fn(&Window) -> bool) -> Vec<Counted> {
        let mut windows = self.windows.lock();
        let mut counted = Vec::new();
        windows.retain(|(key, reason), window| {
            if !due(window) {
                return true;
            }
            if let Some(Tally { count, first, last }) = window.counted {
                counted.push(Counted { key: key.clone(), reason: *reason, count, first, last });
            }
            false
        });
        counted
    }
}

/// Limits credentials that look valid, by source, before they cost a look-up.
///
/// Sources are hashed, under a key of this process, to a fixed number of budgets: memory is bounded
/// whoever calls, and two sources rarely share.
#[derive(Debug)]
pub struct GarbageLimit {
    budgets: DefaultKeyedRateLimiter<u64>,
    hasher: RandomState,
    count: u64,
}

impl GarbageLimit {
    /// So many look-ups a second from one source after a burst, with so many budgets in all (at least one of each).
    #[must_use]
    pub fn new(per_second: u32, burst: u32, budgets: usize) -> Self {
        let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst));
        let count = u64::try_from(budgets).unwrap_or(u64::MAX).max(1);
        Self { budgets: RateLimiter::keyed(quota), hasher: RandomState::new(), count }
    }

    /// Spends one look-up of a source.
    ///
    /// # Errors
    /// `RATE_LIMITED` when the source has none left.
    pub fn check(&self, source: Source) -> Result<(), Error> {
        let budget = self.hasher.hash_one(source) % self.count;
        let spent = self.budgets.check_key(&budget);
        let result = if spent.is_ok() { "looked_up" } else { "limited" };
        metrics::counter!("unknown_credentials_total", "result" => result).increment(1);
        spent.map_err(|_| {
            let slow_down = Error::new(Reason::RateLimited, "too many unknown credentials");
            slow_down.retry_after(Duration::from_secs(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn at(seconds: u64) -> Timestamp {
        START.after(Duration::from_secs(seconds))
    }

    #[test]
    fn the_first_have_rows_and_the_rest_are_counted_once() {
        let denials = Denials::default();
        let noted: Vec<_> = (0..20).map(|_| denials.note("usr_1", Reason::Forbidden, at(1))).collect();
        assert_eq!(noted.iter().filter(|n| **n == Noted::Row).count(), 8);
        assert_eq!(denials.note("usr_1", Reason::OwnerMismatch, at(1)), Noted::Row, "another reason");
        assert_eq!(denials.note("usr_2", Reason::Forbidden, at(1)), Noted::Row, "another principal");
        assert_eq!(denials.note("usr_1", Reason::Forbidden, at(3)), Noted::Counted);
        assert_eq!(denials.due(at(5)), [], "the window is open");
        let due = denials.due(at(11));
        let expected = Counted {
            key: "usr_1".to_owned(),
            reason: Reason::Forbidden,
            count: 13,
            first: at(1),
            last: at(3),
        };
        assert_eq!(due, [expected]);
        assert_eq!(denials.due(at(60)), [], "once");
        assert_eq!(denials.note("usr_1", Reason::Forbidden, at(12)), Noted::Row, "a new window");
    }

    #[test]
    fn a_flood_over_many_windows_loses_nothing() {
        let denials = Denials::default();
        let mut rows = 0;
        let mut counted = 0;
        for second in 0..300 {
            for _ in 0..5 {
                rows += u64::from(denials.note("s", Reason::Forbidden, at(second)) == Noted::Row);
            }
            if second % 7 == 0 {
                counted += denials.due(at(second)).iter().map(|c| c.count).sum::<u64>();
            }
        }
        counted += denials.rest().iter().map(|c| c.count).sum::<u64>();
        assert_eq!(rows + counted, 1_500);
        assert!(rows <= 8 * 60, "{rows}");
    }

    #[test]
    fn kinds_beyond_the_bound_share_a_bucket() {
        let denials = Denials::new(DenialLimits { kinds: 3, ..DenialLimits::default() });
        let rows = (0..100)
            .filter(|n| denials.note(&format!("src_{n}"), Reason::Forbidden, at(0)) == Noted::Row)
            .count();
        assert_eq!(rows, 3 + 8);
        let due = denials.due(at(10));
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].key.as_str(), due[0].count), (OTHERS, 100 - 11));
    }

    #[test]
    fn garbage_is_limited_by_source() {
        let limit = GarbageLimit::new(1, 3, usize::MAX);
        let source = |last: u8| Source::of([192, 0, 2, last].into());
        let admitted = |last| (0..3).filter(|_| limit.check(source(last)).is_ok()).count();
        assert_eq!(admitted(1), 3);
        assert_eq!(limit.check(source(1)).expect_err("spent").reason(), Reason::RateLimited);
        assert_eq!(admitted(2), 3, "others are unharmed");
        let shared = GarbageLimit::new(1, 3, 3);
        (0..=255).for_each(|last| drop(shared.check(source(last))));
        assert!(shared.budgets.len() <= 3, "bounded");
    }
}
