//! Until when this program may vouch for what it knows of the revocation log.
//!
//! A program that has its store in a file is alone on it: whatever is revoked is revoked here, and it may always vouch.
//! In a database others may revoke, too. There it may vouch only for as long as its row of `replica` promises, which it
//! renews with each beat (`replicas.rs`): no lease of a verifier and no kept verdict outlives that.
//!
//! Counted from before the beat was sent, and by two clocks, as a verifier counts its lease: it is over as soon as
//! either of them has moved that far. So a machine that slept does not wake to a promise that others have waited out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use interlock_kit::clock::{Clock, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The right to vouch. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Vouch(Option<Arc<Leased>>);

#[derive(Debug)]
struct Leased {
    clock: Clock,
    until: Mutex<Option<Stamp>>,
    extended: Notify,
}

/// An instant by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    at: Instant,
    wall: Timestamp,
}

impl Stamp {
    /// By the monotonic clock.
    #[must_use]
    pub fn at(self) -> Instant {
        self.at
    }

    fn after(self, span: Duration) -> Self {
        Self { at: self.at + span, wall: self.wall.after(span) }
    }
}

impl Vouch {
    /// Without end: nobody else revokes.
    #[must_use]
    pub fn always() -> Self {
        Self(None)
    }

    /// Not before the first [`Vouch::extend`], and only as long as the last one says.
    #[must_use]
    pub fn leased(clock: Clock) -> Self {
        Self(Some(Arc::new(Leased { clock, until: Mutex::new(None), extended: Notify::new() })))
    }

    /// Now, to be taken before what an extension rests on is sent.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        let wall = self.0.as_ref().map_or_else(Timestamp::default, |leased| leased.clock.wall());
        Stamp { at: Clock::instant(), wall }
    }

    /// Whether it has an end at all.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        self.0.is_some()
    }

    /// Whether it may vouch, now.
    #[must_use]
    pub fn holds(&self) -> bool {
        let Some(leased) = &self.0 else { return true };
        let now = Clock::instant();
        now < leased.end_as_of(now)
    }

    /// Its end on the monotonic clock as both clocks have it `now`; none where it has no end.
    #[must_use]
    pub fn end_as_of(&self, now: Instant) -> Option<Instant> {
        self.0.as_ref().map(|leased| leased.end_as_of(now))
    }

    /// It may vouch for `span` from then on, if that is not over yet.
    pub fn extend(&self, from: Stamp, span: Duration) {
        if let Some(leased) = &self.0 {
            *leased.until.lock() = Some(from.after(span));
            leased.extended.notify_waiters();
        }
    }

    /// It may not vouch any more.
    pub fn end(&self) {
        if let Some(leased) = &self.0 {
            *leased.until.lock() = None;
        }
    }

    /// Waits until it may, at most so long. Whether it may.
    pub async fn held(&self, within: Duration) -> bool {
        let Some(leased) = &self.0 else { return true };
        let waited = tokio::time::timeout(within, async {
            loop {
                // Enabled before the look, so that no extension between the two is lost.
                let mut extended = std::pin::pin!(leased.extended.notified());
                extended.as_mut().enable();
                if self.holds() {
                    return;
                }
                extended.await;
            }
        });
        waited.await.is_ok()
    }
}

impl Leased {
    fn end_as_of(&self, now: Instant) -> Instant {
        let Some(until) = *self.until.lock() else { return now };
        until.at.min(now + until.wall.since(self.clock.wall()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn it_begins_with_the_first_extension_and_either_clock_ends_it() {
        assert!(Vouch::always().holds() && Vouch::always().end_as_of(Clock::instant()).is_none());
        let clock = Clock::manual(Timestamp::from_micros(1));
        let vouch = Vouch::leased(clock.clone());
        assert!(!vouch.holds() && !vouch.held(Duration::ZERO).await);
        vouch.extend(vouch.stamp(), SPAN);
        assert!(vouch.holds() && vouch.held(Duration::ZERO).await);
        clock.advance(SPAN);
        assert!(!vouch.holds(), "the machine slept: only its wall clock went on");
        let sent = vouch.stamp();
        vouch.extend(Stamp { at: sent.at.checked_sub(SPAN).unwrap_or(sent.at), ..sent }, Duration::ZERO);
        assert!(!vouch.holds(), "the answer came too late");
        vouch.extend(vouch.stamp(), SPAN);
        vouch.end();
        assert!(!vouch.holds());
    }
}
