//! Limits password guessing by (source, owner): no lock that an attacker could pull on an owner's account.
//!
//! The first ten tries of a source at an owner are free; then each one has to wait for the last, twice as long each
//! time, up to five minutes. A good sign-in begins anew, and so does an hour without a try. Where the owner has signed in
//! before, a wait is a second at most: who guesses from the same address does not keep the owner out. Pairs beyond the
//! bound share one budget, so that memory is bounded whatever names are tried.
//!
//! A source is known at the owners that have signed in from there, and at no other: there it may use the whole hasher
//! queue, and its tries are counted apart from the crowd's. So neither a flood of made-up names nor whoever has an
//! account of their own takes the room that is kept for it. What is known is bounded too, for each owner first: nobody
//! pushes out another owner's sources by signing in from many.
//!
//! An owner session that is refreshed makes its source known, too: so whoever is signed in is known again within the
//! life of an access token after a start, and nothing of it has to be stored. Where an owner signs in from is kept in
//! memory alone on purpose. Stored, it would be a write for each sign-in and a list of people's addresses, to gain what
//! a flood takes only from who is signed in nowhere, between a start and the next sign-in; and no flood can cause a
//! start. A refresh forgives no tries: who has a refresh token in hand knows no password by that.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use interlock_kit::{
    clock::Clock,
    error::{Error, Reason},
    hasher::Priority,
    serve::Source,
};
use parking_lot::Mutex;

use crate::ids::OwnerId;

/// Tries that need not wait.
const FREE: u32 = 10;
/// The wait after those; each further one is twice as long.
const STEP: Duration = Duration::from_secs(1);
const STEP_MAX: Duration = Duration::from_secs(300);
/// Without a try for so long, a pair begins anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);
/// One that does not wait yet is forgotten sooner, where there are too many.
const FREE_FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// What those beyond the bound share.
const OTHERS_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
const PAIRS_MAX: usize = 16_384;
/// Owners whose sources are known, and sources of each; the ones not seen for longest make room.
const KNOWN_OWNERS_MAX: usize = 4_096;
const KNOWN_SOURCES_MAX: usize = 16;

/// Counts tries.
#[derive(Debug)]
pub struct GuessLimit {
    pairs: Mutex<HashMap<(Source, OwnerId), Tries>>,
    others: DefaultDirectRateLimiter,
    known: Mutex<Known>,
}

/// Tries of one source at one owner since the last good one.
#[derive(Clone, Copy, Debug)]
struct Tries {
    count: u32,
    last: Instant,
    /// The next one is taken from then on.
    free_at: Instant,
}

/// Good sign-ins and refreshes: where each owner was let in.
#[derive(Debug, Default)]
struct Known {
    owners: HashMap<OwnerId, Sources>,
}

/// Where one owner was let in, the latest place at the end.
#[derive(Debug, Default)]
struct Sources {
    latest: Option<Instant>,
    places: Vec<(Source, Tries)>,
}

impl Default for GuessLimit {
    fn default() -> Self {
        Self {
            pairs: Mutex::default(),
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
        self.check_at(source, owner, Clock::instant())
    }

    fn check_at(&self, source: Source, owner: &OwnerId, now: Instant) -> Result<(), Error> {
        if let Some(tries) = self.known.lock().tries(source, owner) {
            return tries.spend(STEP, now);
        }
        let pair = (source, owner.clone());
        let mut pairs = self.pairs.lock();
        if pairs.len() >= PAIRS_MAX && !pairs.contains_key(&pair) {
            pairs.retain(|_, tries| !tries.is_forgotten(now, true));
            if pairs.len() >= PAIRS_MAX {
                drop(pairs);
                let spent = self.others.check();
                return spent.map_err(|until| limited(until.wait_time_from(DefaultClock::default().now())));
            }
        }
        pairs.entry(pair).or_insert_with(|| Tries::none(now)).spend(STEP_MAX, now)
    }

    /// A try of this source at this owner was good.
    pub fn succeeded(&self, source: Source, owner: &OwnerId) {
        self.succeeded_at(source, owner, Clock::instant());
    }

    fn succeeded_at(&self, source: Source, owner: &OwnerId, now: Instant) {
        self.pairs.lock().remove(&(source, owner.clone()));
        self.known.lock().add(source, owner, Tries::none(now), now);
    }

    /// An owner session of this owner was refreshed from this source: it is known. Its tries count on.
    pub fn seen(&self, source: Source, owner: &OwnerId) {
        self.seen_at(source, owner, Clock::instant());
    }

    fn seen_at(&self, source: Source, owner: &OwnerId, now: Instant) {
        let counted = self.pairs.lock().remove(&(source, owner.clone()));
        let mut known = self.known.lock();
        let counted = known.tries(source, owner).map(|tries| *tries).or(counted);
        let tries = counted.map_or_else(
            || Tries::none(now),
            |tries| Tries { free_at: tries.free_at.min(now + STEP), ..tries },
        );
        known.add(source, owner, tries, now);
    }

    /// How much of the hasher queue a source may use for a try at this owner.
    #[must_use]
    pub fn priority(&self, source: Source, owner: &OwnerId) -> Priority {
        if self.known.lock().tries(source, owner).is_some() { Priority::Known } else { Priority::Unknown }
    }
}

impl Known {
    fn tries(&mut self, source: Source, owner: &OwnerId) -> Option<&mut Tries> {
        let places = &mut self.owners.get_mut(owner)?.places;
        places.iter_mut().find(|(place, _)| *place == source).map(|(_, tries)| tries)
    }

    fn add(&mut self, source: Source, owner: &OwnerId, tries: Tries, now: Instant) {
        if self.owners.len() >= KNOWN_OWNERS_MAX && !self.owners.contains_key(owner) {
            let oldest = self.owners.iter().min_by_key(|(_, sources)| sources.latest);
            if let Some(oldest) = oldest.map(|(owner, _)| owner.clone()) {
                self.owners.remove(&oldest);
            }
        }
        let known = self.owners.entry(owner.clone()).or_default();
        known.latest = Some(now);
        known.places.retain(|(place, _)| *place != source);
        if known.places.len() >= KNOWN_SOURCES_MAX {
            known.places.remove(0);
        }
        known.places.push((source, tries));
    }
}

impl Tries {
    fn none(now: Instant) -> Self {
        Self { count: 0, last: now, free_at: now }
    }

    /// Takes one, which the next has to wait for: `step_max` at most.
    fn spend(&mut self, step_max: Duration, now: Instant) -> Result<(), Error> {
        if self.is_forgotten(now, false) {
            *self = Self::none(now);
        }
        if self.count > 0 && now < self.free_at {
            return Err(limited(self.free_at.duration_since(now)));
        }
        self.count = self.count.saturating_add(1);
        self.last = now;
        self.free_at = now + wait_after(self.count).min(step_max);
        Ok(())
    }

    fn is_forgotten(&self, now: Instant, too_many: bool) -> bool {
        let after = if too_many && self.count < FREE { FREE_FORGOTTEN_AFTER } else { FORGOTTEN_AFTER };
        now.duration_since(self.last) >= after
    }
}

/// How long the try after the one with this number waits.
fn wait_after(count: u32) -> Duration {
    let Some(beyond) = count.checked_sub(FREE) else { return Duration::ZERO };
    STEP.saturating_mul(1_u32.checked_shl(beyond).unwrap_or(u32::MAX)).min(STEP_MAX)
}

fn limited(wait: Duration) -> Error {
    let refused = Error::new(Reason::RateLimited, "too many tries; wait before the next one");
    refused.retry_after(wait.max(Duration::from_millis(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    /// Tries again as soon as it may, so many times; how long each wait was, in seconds.
    fn waits(limit: &GuessLimit, owner: &OwnerId, now: &mut Instant, times: usize) -> Vec<u64> {
        let mut waits = Vec::new();
        while waits.len() < times {
            let Err(refused) = limit.check_at(source(1), owner, *now) else { continue };
            assert_eq!(refused.reason(), Reason::RateLimited);
            let wait = refused.retry_delay().expect("RetryInfo");
            waits.push(wait.as_secs());
            *now += wait;
        }
        waits
    }

    // UA-47
    #[test]
    fn each_try_beyond_ten_waits_twice_as_long_and_a_good_one_begins_anew() {
        let (limit, alice, mut now) = (GuessLimit::default(), OwnerId::made("alice"), Clock::instant());
        let free = (0..20).map(|_| limit.check_at(source(1), &alice, now)).take_while(Result::is_ok).count();
        assert_eq!(free, 10);
        assert_eq!(waits(&limit, &alice, &mut now, 11), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        // No lock on the owner, and none on the source.
        limit.check_at(source(2), &alice, now).expect("another source");
        limit.check_at(source(1), &OwnerId::made("bob"), now).expect("another owner");
        now += FORGOTTEN_AFTER;
        assert_eq!(waits(&limit, &alice, &mut now, 2), [1, 2], "an hour without a try");
        limit.check_at(source(1), &alice, now).expect("it has waited");
        limit.succeeded_at(source(1), &alice, now);
        let free = (0..20).map(|_| limit.check_at(source(1), &alice, now)).take_while(Result::is_ok).count();
        assert_eq!(free, 10);
    }

    #[test]
    fn who_guesses_where_an_owner_has_signed_in_holds_that_owner_up_for_a_second_at_most() {
        let (limit, alice, mut now) = (GuessLimit::default(), OwnerId::made("alice"), Clock::instant());
        limit.check_at(source(1), &alice, now).expect("the first one");
        limit.succeeded_at(source(1), &alice, now);
        assert_eq!(waits(&limit, &alice, &mut now, 5), [1; 5]);
        limit.check_at(source(1), &alice, now).expect("it has waited");
    }

    #[test]
    fn names_that_are_made_up_fill_no_memory() {
        let (limit, now) = (GuessLimit::default(), Clock::instant());
        let made = |n: usize| OwnerId::made(format!("o{n}"));
        for n in 0..PAIRS_MAX {
            limit.check_at(source(1), &made(n), now).expect("there is room");
        }
        let more = (0..1_000).filter(|n| limit.check_at(source(2), &made(*n), now).is_ok()).count();
        assert!(more < 100 && limit.pairs.lock().len() == PAIRS_MAX, "they share a budget: {more}");
        limit.check_at(source(2), &made(0), now + FREE_FORGOTTEN_AFTER).expect("there is room again");
    }

    // DESIGN 14.15: known is who signed in from there as that owner, and nobody takes their place.
    #[test]
    fn an_owner_is_known_where_it_signed_in_whatever_others_do() {
        let (limit, now) = (GuessLimit::default(), Clock::instant());
        let (alice, mallory) = (OwnerId::made("alice"), OwnerId::made("mallory"));
        assert_eq!(limit.priority(source(1), &alice), Priority::Unknown);
        limit.succeeded_at(source(1), &alice, now);
        assert_eq!(limit.priority(source(1), &alice), Priority::Known);
        assert_eq!(limit.priority(source(1), &mallory), Priority::Unknown, "as another owner");
        assert_eq!(limit.priority(source(2), &alice), Priority::Unknown, "from elsewhere");
        // Whoever has an account signs in from everywhere.
        for last in 0..=255 {
            limit.succeeded_at(source(last), &mallory, now);
        }
        assert_eq!(limit.priority(source(1), &alice), Priority::Known);
        assert_eq!(limit.priority(source(255), &mallory), Priority::Known);
        assert_eq!(limit.priority(source(0), &mallory), Priority::Unknown, "the first make room");
        // Owners beyond the bound push out those that were not seen for longest.
        for n in 0..KNOWN_OWNERS_MAX {
            limit.succeeded_at(source(3), &OwnerId::made(format!("o{n}")), now + Duration::from_secs(1));
            limit.succeeded_at(source(1), &alice, now + Duration::from_secs(2));
        }
        assert_eq!(limit.known.lock().owners.len(), KNOWN_OWNERS_MAX);
        assert_eq!(limit.priority(source(1), &alice), Priority::Known);
        assert_eq!(limit.priority(source(255), &mallory), Priority::Unknown);
    }

    // Issue 6 line 6: after a start, whoever is signed in is known by a refresh, and gets no tries by it.
    #[test]
    fn a_refresh_makes_its_source_known_and_forgives_no_tries() {
        let (limit, alice, mut now) = (GuessLimit::default(), OwnerId::made("alice"), Clock::instant());
        let stranger = source(2);
        while limit.check_at(source(1), &alice, now).is_ok() {}
        assert_eq!(waits(&limit, &alice, &mut now, 5), [1, 2, 4, 8, 16]);
        limit.check_at(source(1), &alice, now).expect("it has waited");
        limit.seen_at(source(1), &alice, now);
        assert_eq!(limit.priority(source(1), &alice), Priority::Known);
        assert_eq!(limit.priority(stranger, &alice), Priority::Unknown);
        // What it had to wait is now a second at most, and no free tries came of it.
        assert_eq!(waits(&limit, &alice, &mut now, 3), [1; 3]);
        for _ in 0..20 {
            limit.seen_at(source(1), &alice, now);
        }
        let free = (0..20).map(|_| limit.check_at(source(1), &alice, now)).take_while(Result::is_ok).count();
        assert_eq!(free, 1, "the one that it has waited for");
        // Whoever had no tries yet has all of them.
        limit.seen_at(stranger, &alice, now);
        let free = (0..20).map(|_| limit.check_at(stranger, &alice, now)).take_while(Result::is_ok).count();
        assert_eq!(free, 10);
    }

    // Issue 6 line 6: no flood of names spends what a known one needs.
    #[test]
    fn a_known_source_has_its_tries_where_the_crowd_has_none_left() {
        let (limit, alice, now) = (GuessLimit::default(), OwnerId::made("alice"), Clock::instant());
        limit.succeeded_at(source(1), &alice, now);
        for n in 0..PAIRS_MAX {
            limit.check_at(source(2), &OwnerId::made(format!("o{n}")), now).expect("there is room");
        }
        while limit.check_at(source(2), &alice, now).is_ok() {}
        let free = (0..20).map(|_| limit.check_at(source(1), &alice, now)).take_while(Result::is_ok).count();
        assert_eq!(free, 10);
    }
}
