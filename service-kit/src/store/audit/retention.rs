//! What is removed of an audit log, and what stands for it.
//!
//! The oldest rows go, in whole batches and from the beginning of each chain on. For what has gone a [`Checkpoint`] is
//! left: the last link that was removed, under the chain's key, so that who can write the store and cannot read the key
//! cannot make one. A verification starts from it. Each batch is compared with its link before it goes; damage is told
//! by the checkpoint for good, so that nothing is hidden by waiting until it is old enough.
//!
//! The last batch of a chain that is not sealed stays: its writer goes on from there.

use std::{collections::BTreeMap, time::Duration};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{
    ChainKey, Head, Row,
    accepted::{ACCEPTED_MAX, Lost, accepted_by},
    chain::{Link, damage},
};
use crate::clock::Timestamp;

/// Chains without a batch whose checkpoints are kept: those that were removed last. More than heads are remembered
/// elsewhere, so that each of those still finds what stands for it.
pub const REMOVED_CHAINS_MAX: usize = 1_024;
/// Rows of one part, which is one commit: as many as hold up no caller. More where one batch has more.
pub(in crate::store) const PARTS: [usize; 3] = [1_024, 1 << 16, 1 << 20];

/// What is kept of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Rows that are older go.
    pub age_max: Duration,
    /// Of more rows the oldest go, unless they are younger than `age_min`. Counted by their places.
    pub rows_max: u64,
    /// Rows that are younger stay, however many there are.
    pub age_min: Duration,
}

/// A part is begun only where as much is too old, or too many, as this part of what is kept: each leaves a row of its own.
const SLACK: u32 = 64;

impl Retention {
    /// Whether it is worth while to remove something, if these are the first row and the place of the newest one.
    pub(in crate::store) fn is_due(&self, now: Timestamp, (id, at): (i64, Timestamp), newest: i64) -> bool {
        let rows = u64::try_from(newest - id).map_or(0, |later| later + 1);
        let surplus = rows.saturating_sub(self.rows_max);
        let is_old = at < now.before(self.age_max + self.age_max / SLACK);
        is_old || (surplus > self.rows_max / u64::from(SLACK) + 1 && at < now.before(self.age_min))
    }

    /// Whether a row of this instant, before which and with which there are all rows up to `id`, goes.
    pub(in crate::store) fn removes(&self, now: Timestamp, at: Timestamp, id: i64, newest: i64) -> bool {
        let is_surplus = u64::try_from(newest - id).is_ok_and(|later| later >= self.rows_max);
        at < now.before(self.age_max) || (is_surplus && at < now.before(self.age_min))
    }
}

/// Stands for the removed beginning of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Checkpoint {
    /// The last link that was removed.
    pub(in crate::store) head: Head,
    /// Whether that was the last one of its chain.
    pub(in crate::store) sealed: bool,
    /// No row of this chain with a place up to this one is there any more.
    pub(in crate::store) through: i64,
    /// The first batch among them that did not fit its link; 0 where all did.
    pub(in crate::store) damaged: u64,
    /// Made of all the others with the chain's key.
    pub(in crate::store) mark: [u8; 32],
}

impl Checkpoint {
    fn of(key: &ChainKey, head: Head, sealed: bool, through: i64, damaged: u64) -> Self {
        let mut checkpoint = Self { head, sealed, through, damaged, mark: [0; 32] };
        checkpoint.mark = checkpoint.mac(key).finalize().into_bytes().into();
        checkpoint
    }

    /// Whether it was made with this key.
    pub(in crate::store) fn is_genuine(&self, key: &ChainKey) -> bool {
        self.mac(key).verify_slice(&self.mark).is_ok()
    }

    fn mac(&self, key: &ChainKey) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).expect("HMAC takes keys of any length");
        // No link is over these bytes: a link's first ones are the link before.
        mac.update(b"stands for what was removed of a chain:");
        mac.update(&self.head.link);
        mac.update(&self.head.number.to_be_bytes());
        mac.update(&[u8::from(self.sealed)]);
        mac.update(&self.through.to_be_bytes());
        mac.update(&self.damaged.to_be_bytes());
        mac.update(self.head.writer.as_bytes());
        mac
    }
}

/// A part of a log that is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Of each chain, which begins there.
    pub(in crate::store) chains: Vec<Cleared>,
    rows: u64,
    through: i64,
    /// What was accepted in the rows that go.
    accepted: Vec<Head>,
}

impl Trim {
    /// How many rows go.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The place of the last of them.
    #[must_use]
    pub fn through(&self) -> i64 {
        self.through
    }

    /// What its own row says: how much goes, and which lost ends of chains were accepted in it and still are.
    #[must_use]
    pub fn detail(&self) -> String {
        let (rows, through) = (self.rows, self.through);
        let lost: Vec<_> = self.accepted.iter().map(Lost::from).collect();
        match lost.is_empty() {
            true => serde_json::json!({ "rows": rows, "through": through }).to_string(),
            false => serde_json::json!({ "rows": rows, "through": through, "lost": lost }).to_string(),
        }
    }
}

/// What goes of one chain: all batches up to the checkpoint's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Cleared {
    /// The place of its first row.
    pub(in crate::store) from: i64,
    /// What is left for it.
    pub(in crate::store) checkpoint: Checkpoint,
}

/// The oldest rows of a log, and what there is to know of their chains.
#[derive(Debug)]
pub(in crate::store) struct Oldest {
    /// In the order they were stored, with the chain and the batch of each.
    pub(in crate::store) rows: Vec<(String, u64, Row)>,
    /// Whether these are all there are.
    pub(in crate::store) all: bool,
    /// The place of the newest row.
    pub(in crate::store) newest: i64,
    /// Each chain of these rows.
    pub(in crate::store) chains: Vec<Chain>,
}

/// One chain, as far as its rows are looked at.
#[derive(Debug)]
pub(in crate::store) struct Chain {
    /// Its batches from the first one on, at least up to that of the last of those rows, with the one behind it, in
    /// order and without their rows; how many rows each has, by its own word.
    pub(in crate::store) batches: Vec<(Link, u64)>,
    /// What stands for those before.
    pub(in crate::store) checkpoint: Option<Checkpoint>,
    /// The number of its last batch.
    pub(in crate::store) last: u64,
}

/// What came of a look at the oldest rows.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) enum Plan {
    /// This goes.
    Trim(Trim),
    /// Nothing goes now.
    Nothing,
    /// The first batch is larger than what was looked at.
    LookFurther,
}

/// Which whole batches of these rows go.
pub(in crate::store) fn plan(key: &ChainKey, retention: &Retention, now: Timestamp, oldest: Oldest) -> Plan {
    let Oldest { rows, all, newest, chains } = oldest;
    let mut by_batch: BTreeMap<String, BTreeMap<u64, Vec<Row>>> = BTreeMap::new();
    for (writer, number, row) in rows {
        by_batch.entry(writer).or_default().entry(number).or_default().push(row);
    }
    let (mut trim, mut is_cut_short) =
        (Trim { chains: Vec::new(), rows: 0, through: 0, accepted: Vec::new() }, false);
    for chain in chains {
        let Some((first, _)) = chain.batches.first() else { continue };
        let Some(of_chain) = by_batch.remove(&first.head.writer) else { continue };
        let seen = Seen { rows: of_chain, all };
        let cleared = clear(key, chain, seen, |at, id| retention.removes(now, at, id, newest));
        is_cut_short |= cleared.is_cut_short;
        if let Some(found) = cleared.cleared {
            trim.rows += cleared.rows;
            trim.accepted.extend(cleared.accepted);
            trim.accepted.truncate(ACCEPTED_MAX);
            trim.through = trim.through.max(found.checkpoint.through);
            trim.chains.push(found);
        }
    }
    match trim.chains.is_empty() {
        false => Plan::Trim(trim),
        true if is_cut_short && !all => Plan::LookFurther,
        true => Plan::Nothing,
    }
}

/// The rows of one chain that were looked at, by batch.
struct Seen {
    rows: BTreeMap<u64, Vec<Row>>,
    /// There are no later ones.
    all: bool,
}

impl Seen {
    /// The rows of a batch, if these are all of them: rows of a chain are stored in its order.
    fn whole(&mut self, number: u64, entries: u64) -> Option<Vec<Row>> {
        let rows = self.rows.remove(&number).unwrap_or_default();
        let is_behind = self.rows.keys().next_back().is_some_and(|later| *later > number);
        (self.all || is_behind || rows.len() as u64 == entries).then_some(rows)
    }
}

struct Clearing {
    cleared: Option<Cleared>,
    rows: u64,
    accepted: Vec<Head>,
    is_cut_short: bool,
}

/// What goes of one chain.
fn clear(key: &ChainKey, chain: Chain, mut seen: Seen, goes: impl Fn(Timestamp, i64) -> bool) -> Clearing {
    let mut done = Clearing { cleared: None, rows: 0, accepted: Vec::new(), is_cut_short: false };
    // One that was forged is no beginning: what it hides stays, and shows.
    if chain.checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.is_genuine(key)) {
        return done;
    }
    let (mut before, mut sealed, mut damaged) = match chain.checkpoint {
        Some(c) => (c.head, c.sealed, c.damaged),
        None => match chain.batches.first() {
            Some((first, _)) => (Head::start(first.head.writer.clone()), false, 0),
            None => return done,
        },
    };
    let (mut from, mut through) = (None, 0);
    for (mut link, entries) in chain.batches {
        if !link.sealed && link.head.number == chain.last {
            break;
        }
        let Some(rows) = seen.whole(link.head.number, entries) else {
            done.is_cut_short = true;
            break;
        };
        match rows.last() {
            Some(last) if !goes(link.at, last.id) => break,
            Some(last) => through = last.id,
            // A seal goes with the batch before it.
            None if entries == 0 && from.is_none() => break,
            // One whose rows somebody has taken out goes as damaged.
            None => {}
        }
        from = from.or(rows.first().map(|row| row.id));
        done.rows += rows.len() as u64;
        link.rows = rows;
        let is_damaged = damage(key, &before, sealed, &link).is_some();
        if damaged == 0 && is_damaged {
            damaged = link.head.number;
        }
        if !is_damaged {
            done.accepted.extend(link.rows.iter().flat_map(accepted_by));
        }
        (before, sealed) = (link.head, link.sealed);
    }
    done.cleared =
        from.map(|from| Cleared { from, checkpoint: Checkpoint::of(key, before, sealed, through, damaged) });
    done
}
