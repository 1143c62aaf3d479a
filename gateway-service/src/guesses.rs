//! Limits guessing at the passwords of sessions: by source, and by session for sources that are not known there.
//!
//! One try a second after a burst of five (`join_tries`) for each source. A session has a budget that all unknown sources share, so
//! that many of them guess no faster together; who has joined it before does not depend on that. Beyond the bound on
//! entries all others share one budget, so that memory is bounded whatever is tried; sources that have joined anything
//! are counted apart from those, so that no crowd of new ones spends what they need.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock, QuantaInstant},
};
use interlock_kit::{
    authn::Source,
    error::{Error, Reason},
    hasher::Priority,
};
use parking_lot::Mutex;

use crate::password::Target;

const PER_SECOND: NonZeroU32 = NonZeroU32::MIN;
/// How many times the tries of one source are there at one session, for all that have not joined it before.
const SOURCES_AT_ONCE: NonZeroU32 = NonZeroU32::new(4).expect("not zero");
/// What those beyond the bound share.
const OTHERS_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
const KEYS_MAX: usize = 16_384;
const KNOWN_MAX: usize = 4_096;

/// Counts tries.
#[derive(Debug)]
pub(crate) struct GuessLimit {
    by_source: DefaultKeyedRateLimiter<Source>,
    by_target: DefaultKeyedRateLimiter<Target>,
    others: DefaultDirectRateLimiter,
    /// Of sources that are known somewhere: bounded by those.
    by_known: DefaultKeyedRateLimiter<Source>,
    known: Mutex<Known>,
}

/// Who has joined what, those that came first in front.
#[derive(Debug, Default)]
struct Known {
    targets: HashMap<Source, HashSet<Target>>,
    order: VecDeque<(Source, Target)>,
}

impl GuessLimit {
    /// So many tries of one source at once.
    pub(crate) fn new(tries: u32) -> Self {
        let tries = NonZeroU32::new(tries).unwrap_or(NonZeroU32::MIN);
        let of_session = tries.saturating_mul(SOURCES_AT_ONCE);
        Self {
            by_source: RateLimiter::keyed(Quota::per_second(PER_SECOND).allow_burst(tries)),
            by_target: RateLimiter::keyed(Quota::per_second(PER_SECOND).allow_burst(of_session)),
            others: RateLimiter::direct(Quota::per_second(OTHERS_PER_SECOND)),
            by_known: RateLimiter::keyed(Quota::per_second(PER_SECOND).allow_burst(tries)),
            known: Mutex::default(),
        }
    }

    /// Spends one try of a source, before anything is looked up.
    ///
    /// # Errors
    /// `RATE_LIMITED` with the time to wait.
    pub(crate) fn of_source(&self, source: Source) -> Result<(), Error> {
        let is_known = self.known.lock().targets.contains_key(&source);
        let limit = if is_known { &self.by_known } else { &self.by_source };
        spend(limit, &source, &self.others)
    }

    /// Spends one try at a session, whether there is one or not. Sources that have joined it before spend nothing.
    ///
    /// # Errors
    /// `RATE_LIMITED` with the time to wait.
    pub(crate) fn at_target(&self, source: Source, target: &Target) -> Result<(), Error> {
        match self.priority(source, target) {
            Priority::Known => Ok(()),
            Priority::Unknown => spend(&self.by_target, target, &self.others),
        }
    }

    /// Someone has joined from there.
    pub(crate) fn succeeded(&self, source: Source, target: Target) {
        self.known.lock().add(source, target);
    }

    /// How much of the hasher's queue a source may use.
    pub(crate) fn priority(&self, source: Source, target: &Target) -> Priority {
        let known = self.known.lock().targets.get(&source).is_some_and(|known| known.contains(target));
        if known { Priority::Known } else { Priority::Unknown }
    }
}

impl Known {
    fn add(&mut self, source: Source, target: Target) {
        if !self.targets.entry(source).or_default().insert(target.clone()) {
            return;
        }
        self.order.push_back((source, target));
        if self.order.len() > KNOWN_MAX
            && let Some((source, target)) = self.order.pop_front()
            && let Some(targets) = self.targets.get_mut(&source)
        {
            targets.remove(&target);
            if targets.is_empty() {
                self.targets.remove(&source);
            }
        }
    }
}

/// Spends one of what `key` has left; what all `others` share, where there are too many keys.
///
/// # Errors
/// `RATE_LIMITED` with the time to wait.
pub(crate) fn spend<K: std::hash::Hash + Eq + Clone>(
    limit: &DefaultKeyedRateLimiter<K>,
    key: &K,
    others: &DefaultDirectRateLimiter,
) -> Result<(), Error> {
    if limit.len() >= KEYS_MAX {
        limit.retain_recent();
    }
    let spent = if limit.len() >= KEYS_MAX { others.check() } else { limit.check_key(key) };
    spent.map_err(limited)
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err hands over")]
fn limited(until: NotUntil<QuantaInstant>) -> Error {
    let wait = until.wait_time_from(DefaultClock::default().now());
    Error::new(Reason::RateLimited, "too many tries; wait before the next one")
        .retry_after(wait.max(Duration::from_millis(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    fn target(id: &str) -> Target {
        Target::Id(SessionId::stored(id.to_owned()))
    }

    // NC-23
    #[test]
    fn a_source_has_five_tries_and_then_one_a_second() {
        let limit = GuessLimit::new(5);
        let tries = (0..20).map(|_| limit.of_source(source(1))).filter(Result::is_ok).count();
        assert!((5..=6).contains(&tries), "{tries}");
        let refused = limit.of_source(source(1)).expect_err("spent");
        assert_eq!(refused.reason(), Reason::RateLimited);
        assert!(refused.retry_delay().is_some_and(|wait| wait <= Duration::from_secs(1)));
        limit.of_source(source(2)).expect("another source");
    }

    // NC-23, DESIGN 14.15
    #[test]
    fn many_sources_guess_no_faster_and_keep_nobody_out_who_was_in() {
        let limit = GuessLimit::new(5);
        let (mine, other) = (target("ses_1"), target("ses_2"));
        limit.succeeded(source(200), mine.clone());
        let tries = (0..100).map(|from| limit.at_target(source(from), &mine)).filter(Result::is_ok).count();
        assert!((20..=21).contains(&tries), "{tries}");
        assert_eq!(limit.at_target(source(101), &mine).expect_err("spent").reason(), Reason::RateLimited);
        limit.at_target(source(101), &other).expect("another session");
        limit.at_target(source(200), &mine).expect("it was in before");
        assert_eq!(limit.priority(source(200), &mine), Priority::Known);
        assert_eq!(limit.priority(source(200), &other), Priority::Unknown);
    }

    // Issue 6 line 6, DESIGN 14.15
    #[test]
    fn a_crowd_of_sources_leaves_known_ones_their_tries_and_their_place() {
        let limit = GuessLimit::new(5);
        let mine = target("ses_1");
        limit.succeeded(source(200), mine.clone());
        for n in 0..u32::try_from(KEYS_MAX).expect("small") {
            let [_, b, c, d] = n.to_be_bytes();
            limit.of_source(Source::of([10, b, c, d].into())).expect("there is room");
        }
        while limit.of_source(source(1)).is_ok() {}
        let tries = (0..20).map(|_| limit.of_source(source(200))).filter(Result::is_ok).count();
        assert!((5..=6).contains(&tries), "{tries}");
        for n in 0..KNOWN_MAX - 1 {
            limit.succeeded(source(1), target(&format!("ses_x{n}")));
        }
        assert_eq!(limit.priority(source(200), &mine), Priority::Known);
        limit.succeeded(source(1), target("ses_last"));
        assert_eq!(limit.priority(source(200), &mine), Priority::Unknown, "the first one makes room");
        assert_eq!(limit.known.lock().order.len(), KNOWN_MAX);
        assert_eq!(limit.known.lock().targets.len(), 1);
    }
}
