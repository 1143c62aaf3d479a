//! The walk along stored chains that finds what was edited, and what may be asked of stored rows. The same
//! for every engine.

use super::{ChainKey, Head, Row};
use crate::clock::Timestamp;

/// Which rows to read. Empty texts match all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Rows after this id.
    pub after: i64,
    /// Of this principal.
    pub principal: String,
    /// Of this action.
    pub action: String,
    /// With this reason.
    pub reason: String,
    /// At most so many.
    pub limit: u32,
}

/// What is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A link does not follow from its rows and the link before: something was edited.
    Edited {
        /// The writer.
        writer: String,
        /// The batch.
        number: u64,
    },
    /// A batch is missing.
    Hole {
        /// The writer.
        writer: String,
        /// The batch that should be there.
        number: u64,
    },
    /// A chain has a link after its seal.
    AfterSeal {
        /// The writer.
        writer: String,
        /// The batch after the seal.
        number: u64,
    },
    /// Audit rows that belong to no batch.
    Strays {
        /// How many.
        rows: u64,
    },
}

/// One stored batch: its link, and the rows that it is over.
#[derive(Debug)]
pub(in crate::store) struct Link {
    /// As stored.
    pub(in crate::store) head: Head,
    /// Its instant.
    pub(in crate::store) at: Timestamp,
    /// Whether it is its chain's last one.
    pub(in crate::store) sealed: bool,
    /// In the order they were stored.
    pub(in crate::store) rows: Vec<Row>,
}

/// Goes along all chains, batch by batch in the order of writers and numbers.
#[derive(Debug)]
pub(in crate::store) struct Walk<'k> {
    key: &'k ChainKey,
    previous: Option<(Head, bool)>,
}

impl<'k> Walk<'k> {
    pub(in crate::store) fn new(key: &'k ChainKey) -> Self {
        Self { key, previous: None }
    }

    /// What is wrong with this batch, seen from the one before.
    pub(in crate::store) fn next(&mut self, stored: Link) -> Option<Damage> {
        let (before, was_sealed) = match self.previous.take() {
            Some((head, was_sealed)) if head.writer == stored.head.writer => (head, was_sealed),
            _ => (Head::start(stored.head.writer.clone()), false),
        };
        let damage = self.damage(&before, was_sealed, &stored);
        self.previous = Some((stored.head, stored.sealed));
        damage
    }

    fn damage(&self, before: &Head, was_sealed: bool, stored: &Link) -> Option<Damage> {
        let (writer, number) = (stored.head.writer.clone(), stored.head.number);
        if was_sealed {
            return Some(Damage::AfterSeal { writer, number });
        }
        if number != before.number + 1 {
            return Some(Damage::Hole { writer, number: before.number + 1 });
        }
        let expected = before.linked(self.key, stored.at, &stored.rows, stored.sealed);
        let same = expected.link == stored.head.link && stored.rows.iter().all(|row| row.at == stored.at);
        (!same).then_some(Damage::Edited { writer, number })
    }
}
