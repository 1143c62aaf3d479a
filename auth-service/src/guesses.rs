//! Limits password guessing by (source, owner): no lock that an attacker could pull on an owner's account.
//!
//! One try a second after a burst of ten. Pairs beyond the bound share one budget, so that memory is bounded
//! whatever names are tried. Sources that signed in before may use the whole hasher queue.

use std::{collections::HashSet, num::NonZeroU32, time::Duration};

use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use interlock_kit::{
    error::{Error, Reason},
    hasher::Priority,
    serve::Source,
};
use parking_lot::Mutex;

use crate::ids::OwnerId;

const PER_SECOND: NonZeroU32 = NonZeroU32::MIN;
const BURST: NonZeroU32 = NonZeroU32::new(10).expect("not zero");
/// What those beyond the bound share.
const OTHERS_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
const PAIRS_MAX: usize = 16_384;
const KNOWN_MAX: usize = 4_096;

/// Counts tries.
#[derive(Debug)]
pub struct GuessLimit {
    by_pair: DefaultKeyedRateLimiter<(Source, OwnerId)>,
    others: DefaultDirectRateLimiter,
    known: Mutex<HashSet<Source>>,
}

impl Default for GuessLimit {
    fn default() -> Self {
        Self {
            by_pair: RateLimiter::keyed(Quota::per_second(PER_SECOND).allow_burst(BURST)),
            others: RateLimiter::direct(Quota::per_second(OTHERS_PER_SECOND)),
            known: Mutex::default(),
        }
    }
}

impl GuessLimit {
    /// Spends one try of a source at an owner, whether that owner exists or not.
    ///
    /// # Errors
    /// `RATE_LIMITED` with the time to wait.
    pub fn check(&self, source: Source, owner: &OwnerId) -> Result<(), Error> {
        if self.by_pair.len() >= PAIRS_MAX {
            self.by_pair.retain_recent();
        }
        let spent = if self.by_pair.len() >= PAIRS_MAX {
            self.others.check()
        } else {
            self.by_pair.check_key(&(source, owner.clone()))
        };
        spent.map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            let refused = Error::new(Reason::RateLimited, "too many tries; wait before the next one");
            refused.retry_after(wait.max(Duration::from_millis(1)))
        })
    }

    /// A sign-in from here was good.
    pub fn succeeded(&self, source: Source) {
        let mut known = self.known.lock();
        if known.len() < KNOWN_MAX {
            known.insert(source);
        }
    }

    /// How much of the hasher queue a source may use.
    #[must_use]
    pub fn priority(&self, source: Source) -> Priority {
        if self.known.lock().contains(&source) { Priority::Known } else { Priority::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_guesses_locks_out_neither_others_nor_itself_elsewhere() {
        let limit = GuessLimit::default();
        let (here, there) = (Source::of([192, 0, 2, 1].into()), Source::of([192, 0, 2, 2].into()));
        let (alice, bob) = (OwnerId::made("alice"), OwnerId::made("bob"));
        let tries = (0..20).map(|_| limit.check(here, &alice)).filter(Result::is_ok).count();
        assert!((10..=11).contains(&tries), "{tries}");
        let refused = limit.check(here, &alice).expect_err("spent");
        assert_eq!(refused.reason(), Reason::RateLimited);
        assert!(refused.retry_delay().is_some_and(|wait| wait <= Duration::from_secs(1)));
        limit.check(there, &alice).expect("another source");
        limit.check(here, &bob).expect("another owner");
    }

    #[test]
    fn sources_that_signed_in_are_known() {
        let limit = GuessLimit::default();
        let here = Source::of([192, 0, 2, 1].into());
        assert_eq!(limit.priority(here), Priority::Unknown);
        limit.succeeded(here);
        assert_eq!(limit.priority(here), Priority::Known);
    }
}
