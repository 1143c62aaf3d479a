//! The time that verbs are run at: the database's, asked for behind the locks.
//!
//! Leases and expiries are judged by no other clock, so programs on machines whose clocks differ agree. An instant is
//! never before any that was stored: whoever has waited for another writer's lock sees what that one has stored.
//! Where the database's clock is set back, time goes on from where it was, as the machine's monotonic clock says.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::{Clock, Timestamp};

/// What the database says of time, in a transaction, after all that was loaded before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    /// Its clock.
    pub(super) now: Timestamp,
    /// The last instant that any writer has committed.
    pub(super) floor: Timestamp,
}

/// How far behind its own course time may be set to what the database says. More is a clock that was set back.
const COURSE_MAX: Duration = Duration::from_secs(1);
/// For how long what was heard is carried on without asking again.
const CARRIED_MAX: Duration = Duration::from_secs(1);

/// The database's time, as this program has heard it. Shared by the writing and the reading side.
pub(super) struct Moment {
    clock: Clock,
    heard: Mutex<Heard>,
}

struct Heard {
    at: Timestamp,
    seen: Instant,
    wall: Timestamp,
    /// The latest instant that a verb was run at.
    given: Timestamp,
}

impl Moment {
    pub(super) fn new(clock: Clock) -> Self {
        let heard = Heard {
            at: Timestamp::default(),
            seen: Clock::instant(),
            wall: Timestamp::default(),
            given: Timestamp::default(),
        };
        Self { clock, heard: Mutex::new(heard) }
    }

    /// The instant of a transaction in which this was said last.
    pub(super) fn heard(&self, stamp: Stamp) -> Timestamp {
        let seen = Clock::instant();
        let mut heard = self.heard.lock();
        let at = if self.clock.is_manual() {
            self.clock.now()
        } else {
            let course = heard.at.after(seen.duration_since(heard.seen));
            if course.since(stamp.now) > COURSE_MAX { course } else { stamp.now }
        };
        let at = at.max(stamp.floor).max(heard.given);
        *heard = Heard { at, seen, wall: self.clock.wall(), given: at };
        self.clock.not_before(at);
        at
    }

    /// The same, carried on from what was heard last; none where that was too long ago, by the monotonic clock or by
    /// the machine's.
    pub(super) fn carried(&self) -> Option<Timestamp> {
        let mut heard = self.heard.lock();
        if self.clock.is_manual() {
            heard.given = heard.given.max(self.clock.now());
            return Some(heard.given);
        }
        let since = Clock::instant().duration_since(heard.seen);
        let wall = self.clock.wall();
        let is_fresh =
            since < CARRIED_MAX && wall.since(heard.wall).max(heard.wall.since(wall)) < CARRIED_MAX;
        is_fresh.then(|| {
            heard.given = heard.given.max(heard.at.after(since));
            heard.given
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn said(now: i64, floor: i64) -> Stamp {
        Stamp { now: at(now), floor: at(floor) }
    }

    #[test]
    fn the_database_is_followed_and_what_others_have_stored_is_never_ahead() {
        let moment = Moment::new(Clock::system());
        assert!(moment.carried().is_none(), "nothing was heard yet");
        assert_eq!(moment.heard(said(100 * DAY, 0)), at(100 * DAY), "not this machine's clock");
        assert_eq!(moment.heard(said(100 * DAY + 5_000_000, 0)), at(100 * DAY + 5_000_000));
        assert_eq!(moment.heard(said(101 * DAY, 102 * DAY)), at(102 * DAY));
        assert!(moment.carried().is_some_and(|now| now >= at(102 * DAY) && now < at(103 * DAY)));
    }

    #[test]
    fn a_database_whose_clock_is_set_back_neither_sets_time_back_nor_stops_it() {
        let moment = Moment::new(Clock::system());
        let before = moment.heard(said(100 * DAY, 0));
        let (first, began) = (moment.heard(said(DAY, 0)), Clock::instant());
        while began.elapsed() < Duration::from_millis(2) {}
        let second = moment.heard(said(DAY, 0));
        assert!(first >= before && second >= first.after(Duration::from_millis(2)), "{first:?} {second:?}");
        // A little behind is how far the two clocks run unequally: nothing is handed out twice, or earlier.
        let third = moment.heard(Stamp { now: second.before(Duration::from_millis(1)), floor: at(0) });
        assert_eq!(third, second);
    }

    #[test]
    fn a_manual_clock_listens_to_what_was_stored_only() {
        let moment = Moment::new(Clock::manual(at(5)));
        assert_eq!(moment.heard(said(DAY, 3)), at(5));
        assert_eq!(moment.heard(said(DAY, 9)), at(9));
        assert_eq!(moment.carried(), Some(at(9)));
    }
}
