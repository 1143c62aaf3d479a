//! The walk along stored chains that finds what was edited, and what may be asked of stored rows. The same
//! for every engine.

use std::collections::{HashMap, HashSet};

use super::{
    ChainKey, Checkpoint, Head, Row,
    accepted::{ACCEPTED_MAX, accepted_by},
};
use crate::clock::Timestamp;

/// Which rows to read. Empty texts match all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Rows after this id.
    pub after: i64,
    /// And up to this one.
    pub through: Option<i64>,
    /// Of this principal.
    pub principal: String,
    /// Of this action.
    pub action: String,
    /// With this reason.
    pub reason: String,
    /// Of this method.
    pub rpc: String,
    /// About this resource.
    pub subject: String,
    /// About this resource, or with it among the facts of [`super::Entry::detail`].
    pub mentions: String,
    /// In this project.
    pub scope: String,
    /// Of this instant and later ones.
    pub since: Option<Timestamp>,
    /// Before this instant.
    pub until: Option<Timestamp>,
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
    /// What stands for the removed beginning of a chain was not made with the chain's key.
    Checkpoint {
        /// The writer.
        writer: String,
        /// The batch that it says was removed last.
        number: u64,
    },
    /// A head that somebody knew of is not there: the chain was cut, or the store is an older copy.
    Cut {
        /// The writer.
        writer: String,
        /// The batch that it was the link of.
        number: u64,
        /// Who knew of it, as [`Known::by`].
        by: String,
        /// The last batch of the chain that is there; 0 where there is none.
        last: u64,
    },
}

/// A head that must still be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Who knows of it: a service that remembers it; empty for the caller.
    pub by: String,
    /// Which.
    pub head: Head,
}

/// What a walk along all chains found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Links that were compared.
    pub batches: u64,
    /// Rows that they are over.
    pub rows: u64,
    /// What is wrong, at most [`DAMAGES_MAX`], the first ones.
    pub damages: Vec<Damage>,
    /// The ends of chains, newest first, at most [`HEADS_MAX`]. Kept elsewhere, they show a cut later.
    pub heads: Vec<Head>,
    /// Each head that is told of as [`Damage::Cut`].
    pub missing: Vec<Head>,
    /// Heads that somebody knew of and that are not there: they were lost with a backup that was put back, and a row of
    /// the log says that this was accepted.
    pub accepted: Vec<Head>,
}

/// How many damages are told of.
pub const DAMAGES_MAX: usize = 1_000;
/// How many chains' ends are told of, and how many may be compared with.
pub const HEADS_MAX: usize = 1_024;

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
    /// Links that have to be met, and who knows of each.
    known: HashMap<(String, u64, [u8; 32]), String>,
    /// The last batches of chains of which something is known.
    lasts: HashMap<String, u64>,
    /// What stands for the removed beginnings of chains that were not met yet.
    checkpoints: HashMap<String, Checkpoint>,
    /// What rows say was accepted.
    accepted: HashSet<(String, u64, [u8; 32])>,
    previous: Option<End>,
    /// The ends of the chains that are behind.
    ends: Vec<End>,
    report: Report,
}

/// How far a chain has been followed.
#[derive(Debug)]
struct End {
    head: Head,
    at: Timestamp,
    sealed: bool,
}

impl<'k> Walk<'k> {
    /// Each of `known` must still be a link of its chain.
    pub(in crate::store) fn new(key: &'k ChainKey, known: &[Known], checkpoints: Vec<Checkpoint>) -> Self {
        let lasts = known.iter().map(|known| (known.head.writer.clone(), 0)).collect();
        let place = |head: &Head| (head.writer.clone(), head.number, head.link);
        let known = known.iter().map(|known| (place(&known.head), known.by.clone())).collect();
        let mut walk = Self {
            key,
            known,
            lasts,
            checkpoints: HashMap::new(),
            accepted: HashSet::new(),
            previous: None,
            ends: Vec::new(),
            report: Report::default(),
        };
        for checkpoint in checkpoints {
            walk.begin_behind(checkpoint);
        }
        walk
    }

    /// Its chain begins there: what was known of before can be found no more.
    fn begin_behind(&mut self, checkpoint: Checkpoint) {
        let (writer, number) = (checkpoint.head.writer.clone(), checkpoint.head.number);
        if !checkpoint.is_genuine(self.key) {
            self.found(Damage::Checkpoint { writer, number });
            return;
        }
        if checkpoint.damaged > 0 {
            self.found(Damage::Edited { writer: writer.clone(), number: checkpoint.damaged });
        }
        if let Some(last) = self.lasts.get_mut(&writer) {
            *last = number;
            let link = checkpoint.head.link;
            self.known.retain(|(of, n, l), _| *of != writer || *n > number || (*n == number && *l != link));
        }
        self.checkpoints.insert(writer, checkpoint);
    }

    /// Compares this batch with the one before.
    pub(in crate::store) fn next(&mut self, stored: Link) {
        self.report.batches += 1;
        self.report.rows += stored.rows.len() as u64;
        if let Some(last) = self.lasts.get_mut(&stored.head.writer) {
            *last = stored.head.number;
            self.known.remove(&(stored.head.writer.clone(), stored.head.number, stored.head.link));
        }
        let (before, was_sealed) = match self.previous.take() {
            Some(end) if end.head.writer == stored.head.writer => (end.head, end.sealed),
            ended => {
                self.end(ended);
                match self.checkpoints.remove(&stored.head.writer) {
                    Some(removed) => (removed.head, removed.sealed),
                    None => (Head::start(stored.head.writer.clone()), false),
                }
            }
        };
        match damage(self.key, &before, was_sealed, &stored) {
            Some(damage) => self.found(damage),
            None => self.accept(&stored.rows),
        }
        self.previous = Some(End { head: stored.head, at: stored.at, sealed: stored.sealed });
    }

    /// What was found; `strays` rows belong to no batch.
    pub(in crate::store) fn finish(mut self, strays: u64) -> Report {
        let last = self.previous.take();
        self.end(last);
        // The last batch of a chain that goes on is never removed.
        let mut cut: Vec<_> = self.checkpoints.drain().filter(|(_, removed)| !removed.sealed).collect();
        cut.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (writer, removed) in cut {
            self.found(Damage::Hole { writer, number: removed.head.number + 1 });
        }
        if strays > 0 {
            self.found(Damage::Strays { rows: strays });
        }
        let mut cut: Vec<_> = std::mem::take(&mut self.known).into_iter().collect();
        cut.sort_unstable();
        for (place, by) in cut {
            let is_accepted = self.accepted.contains(&place);
            let (writer, number, link) = place;
            let head = Head { writer: writer.clone(), number, link };
            if is_accepted {
                self.report.accepted.push(head);
                continue;
            }
            if self.report.missing.len() < DAMAGES_MAX {
                self.report.missing.push(head);
            }
            let last = self.lasts.get(&writer).copied().unwrap_or_default();
            self.found(Damage::Cut { writer, number, by, last });
        }
        self.keep_newest();
        self.report.heads = self.ends.into_iter().map(|end| end.head).collect();
        self.report
    }

    /// Rows of a batch that nobody has changed.
    fn accept(&mut self, rows: &[Row]) {
        for head in rows.iter().flat_map(accepted_by) {
            if self.accepted.len() < ACCEPTED_MAX {
                self.accepted.insert((head.writer, head.number, head.link));
            }
        }
    }

    fn found(&mut self, damage: Damage) {
        if self.report.damages.len() < DAMAGES_MAX {
            self.report.damages.push(damage);
        }
    }

    fn end(&mut self, chain: Option<End>) {
        self.ends.extend(chain);
        if self.ends.len() >= 2 * HEADS_MAX {
            self.keep_newest();
        }
    }

    fn keep_newest(&mut self) {
        self.ends.sort_by_key(|end| std::cmp::Reverse((!end.sealed, end.at)));
        self.ends.truncate(HEADS_MAX);
    }
}

/// What is wrong with a batch behind that one.
pub(super) fn damage(key: &ChainKey, before: &Head, was_sealed: bool, stored: &Link) -> Option<Damage> {
    let (writer, number) = (stored.head.writer.clone(), stored.head.number);
    if was_sealed {
        return Some(Damage::AfterSeal { writer, number });
    }
    if number != before.number + 1 {
        return Some(Damage::Hole { writer, number: before.number + 1 });
    }
    let expected = before.linked(key, stored.at, &stored.rows, stored.sealed);
    let same = expected.link == stored.head.link && stored.rows.iter().all(|row| row.at == stored.at);
    (!same).then_some(Damage::Edited { writer, number })
}
