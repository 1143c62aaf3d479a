//! The newest revocations that this verifier has applied.
//!
//! Whatever was verified carries the sequence up to which it has been held against the log. While
//! that is the newest one, nothing is to be done; else the rows in between are looked at, once. So a
//! revocation costs the same however much is cached, and nothing it matches is used after it was
//! pushed.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

use interlock_proto::auth::v1::Revoked;
use parking_lot::RwLock;

/// How something verified stands to the revocations since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No applied revocation matches it.
    Good,
    /// One does.
    Matched,
    /// It is older than the rows that are remembered: nobody knows.
    Forgotten,
}

pub(super) struct Log {
    /// The sequence of the newest applied row.
    applied: AtomicU64,
    rows: RwLock<Rows>,
    capacity: usize,
}

#[derive(Default)]
struct Rows {
    /// Rows up to and with this sequence are not remembered.
    floor: u64,
    /// In the order of their sequence, each with what it closed here.
    ring: VecDeque<(Revoked, u64)>,
}

impl Log {
    pub(super) fn new(capacity: usize) -> Self {
        Self { applied: AtomicU64::new(0), rows: RwLock::default(), capacity: capacity.max(1) }
    }

    pub(super) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Takes a row in. From here on nothing it matches has good standing. `false`: seen before.
    pub(super) fn push(&self, row: &Revoked) -> bool {
        let mut rows = self.rows.write();
        if row.sequence <= self.applied() {
            return false;
        }
        if rows.ring.len() == self.capacity
            && let Some((oldest, _)) = rows.ring.pop_front()
        {
            rows.floor = oldest.sequence;
        }
        rows.ring.push_back((row.clone(), 0));
        self.applied.store(row.sequence, Ordering::Release);
        true
    }

    /// Notes how many streams a row has closed, for an acknowledgement that may be sent twice.
    pub(super) fn note_closed(&self, sequence: u64, closed: u64) {
        let mut rows = self.rows.write();
        if let Some((_, noted)) = rows.ring.iter_mut().rev().find(|(row, _)| row.sequence == sequence) {
            *noted = closed;
        }
    }

    /// How many streams a row has closed here; 0 where it is not remembered.
    pub(super) fn closed_by(&self, sequence: u64) -> u64 {
        let rows = self.rows.read();
        rows.ring.iter().rev().find(|(row, _)| row.sequence == sequence).map_or(0, |(_, closed)| *closed)
    }

    /// Starts over at `sequence`, which may be an earlier one: what was verified before is forgotten.
    pub(super) fn reset(&self, sequence: u64) {
        let mut rows = self.rows.write();
        rows.ring.clear();
        rows.floor = sequence;
        self.applied.store(sequence, Ordering::Release);
    }

    /// Whether this very row was applied, and is remembered.
    pub(super) fn remembers(&self, row: &Revoked) -> bool {
        self.rows.read().ring.iter().rev().any(|(known, _)| known == row)
    }

    /// Holds what was last checked at `checked` against the rows since.
    pub(super) fn standing(&self, checked: &AtomicU64, matches: impl Fn(&Revoked) -> bool) -> Standing {
        if checked.load(Ordering::Acquire) >= self.applied() {
            return Standing::Good;
        }
        let rows = self.rows.read();
        let at = checked.load(Ordering::Acquire);
        if at < rows.floor {
            return Standing::Forgotten;
        }
        let mut since = rows.ring.iter().rev().map(|(row, _)| row).take_while(|row| row.sequence > at);
        if since.any(matches) {
            return Standing::Matched;
        }
        checked.fetch_max(self.applied(), Ordering::AcqRel);
        Standing::Good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sequence: u64) -> Revoked {
        Revoked { sequence, ..Revoked::default() }
    }

    #[test]
    fn only_rows_after_the_check_count() {
        let log = Log::new(8);
        let checked = AtomicU64::new(1);
        assert!(log.push(&row(1)) && log.push(&row(2)));
        assert_eq!(log.standing(&checked, |r| r.sequence == 1), Standing::Good);
        assert_eq!(checked.load(Ordering::SeqCst), 2, "checked once, not at each use");
        assert!(log.push(&row(5)));
        assert_eq!(log.standing(&checked, |r| r.sequence == 5), Standing::Matched);
        assert_eq!(log.standing(&checked, |r| r.sequence == 5), Standing::Matched, "and stays so");
    }

    #[test]
    fn what_is_older_than_the_log_is_unknown() {
        let log = Log::new(2);
        for sequence in 1..=4 {
            assert!(log.push(&row(sequence)));
        }
        assert_eq!(log.standing(&AtomicU64::new(1), |_| false), Standing::Forgotten);
        assert_eq!(log.standing(&AtomicU64::new(2), |_| false), Standing::Good);
        log.reset(9);
        assert_eq!(log.standing(&AtomicU64::new(8), |_| false), Standing::Forgotten);
        assert_eq!(log.standing(&AtomicU64::new(9), |_| false), Standing::Good);
    }

    #[test]
    fn a_row_seen_twice_is_applied_once_and_keeps_its_count() {
        let log = Log::new(2);
        assert!(log.push(&row(3)));
        log.note_closed(3, 7);
        assert!(!log.push(&row(3)) && !log.push(&row(2)));
        assert_eq!((log.closed_by(3), log.closed_by(2)), (7, 0));
    }
}
