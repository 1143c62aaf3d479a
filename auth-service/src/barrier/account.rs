//! The account of leases and acknowledgements. Pure: time is passed in, and what is to be sent comes out.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use interlock_kit::error::{Error, Reason};

/// What a revocation reached before it was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Verifiers that acknowledged it.
    pub acknowledged: u32,
    /// Verifiers whose lease was waited out.
    pub fenced: u32,
    /// Streams and parked calls that the acknowledging verifiers closed.
    pub streams_closed: u64,
}

/// The times and bounds of a barrier.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long a lease is, as granted.
    pub lease: Duration,
    /// How many verifiers may have a stream or a living lease.
    pub verifiers_max: usize,
    /// How many messages may wait for one verifier.
    pub outgoing_max: usize,
}

/// How long after it was asked for a lease of `lease` may be in use: rule 1.
#[must_use]
pub fn fence(lease: Duration) -> Duration {
    lease + lease / 100
}

/// Answers this many publications back are counted exactly; older ones are still waited for.
const PUBLICATIONS_MAX: usize = 4096;

/// Leases of earlier streams that one verifier may leave behind.
const EARLIER_MAX: usize = 8;

/// A verifier: the service's identity and the id of its start. Nobody else can speak for it.
pub type Who = Arc<str>;

pub(super) type Slot = u64;

/// A lease that is to be told to its verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Of the ask that this answers.
    pub nonce: u64,
    /// The newest revocation at the grant.
    pub sequence: u64,
    /// The verifier must forget everything first.
    pub reset: bool,
}

/// What a verifier said that no verifier may say: its stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// It acknowledged what was never published.
    Unpublished,
    /// Its nonces do not grow.
    Nonce,
    /// Its stream was closed here: it was too slow, or came back on another one.
    Closed,
}

/// Whether a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Look again at the next change, and not later than this.
    Until(Instant),
    /// It has reached everyone.
    Over(Reached),
}

/// The account of leases and acknowledgements.
#[derive(Debug)]
pub struct Core {
    terms: Terms,
    sequence: u64,
    no_wait_ends_before: Instant,
    /// No lease may end later; none where this program is alone on its store.
    promised: Option<Instant>,
    next_slot: Slot,
    verifiers: BTreeMap<Slot, Verifier>,
    publications: BTreeMap<u64, Publication>,
}

#[derive(Debug)]
struct Verifier {
    who: Who,
    applied: u64,
    nonce: u64,
    lease_end: Option<Instant>,
    ask: Option<Ask>,
    /// What was missed has been sent, or given up.
    caught_up: bool,
    /// Its stream lives; otherwise it is kept only until its lease has ended.
    open: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ask {
    nonce: u64,
    at: Instant,
    sequence: u64,
    reset: bool,
}

#[derive(Debug, Default)]
struct Publication {
    /// Who had a lease when it was published, and whether each has acknowledged it.
    holders: BTreeMap<Who, bool>,
    streams_closed: u64,
}

/// What a verifier says of itself when it comes.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Who it is.
    pub who: Who,
    /// The last revocation that it has applied.
    pub applied: u64,
    /// It has nothing to remember, or must forget it.
    pub anew: bool,
    /// Of its first ask.
    pub nonce: u64,
}

/// What a verifier that came has missed: the revocations after `after`, up to and with `upto`. All later
/// ones are in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The last one that it has.
    pub after: u64,
    /// The newest one when it came.
    pub upto: u64,
}

/// How a verifier that came goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It has missed nothing, or is told to forget everything.
    Granted(Granted),
    /// It gets its lease when this was sent and acknowledged.
    Behind(Missed),
}

impl Reached {
    /// What two programs' verifiers have reached together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            acknowledged: self.acknowledged.saturating_add(other.acknowledged),
            fenced: self.fenced.saturating_add(other.fenced),
            streams_closed: self.streams_closed.saturating_add(other.streams_closed),
        }
    }
}

impl Core {
    /// An account that starts at `now`, with `sequence` as the newest revocation of the log.
    /// `unknown_leases` is how long leases of an earlier process may still be in use.
    #[must_use]
    pub fn new(terms: Terms, sequence: u64, now: Instant, unknown_leases: Duration) -> Self {
        Self {
            terms,
            sequence,
            no_wait_ends_before: now + unknown_leases,
            promised: None,
            next_slot: 0,
            verifiers: BTreeMap::new(),
            publications: BTreeMap::new(),
        }
    }

    /// A verifier has come.
    ///
    /// # Errors
    /// `LIMIT_REACHED` where too many verifiers have a stream or a lease.
    pub fn hello(&mut self, hello: &Hello, now: Instant) -> Result<(Slot, Came), Error> {
        // Who claims more than was ever published has a past that is not this log's.
        let anew = hello.anew || hello.applied > self.sequence;
        let kept = self.end_earlier(hello, anew, now);
        let of_this_one = self.verifiers.values().filter(|v| v.who == hello.who).count();
        if self.verifiers.len() >= self.terms.verifiers_max || of_this_one >= EARLIER_MAX {
            let full = Error::new(Reason::LimitReached, "too many verifiers hold a lease");
            return Err(full.retry_after(self.terms.lease));
        }
        let ask =
            Ask { nonce: hello.nonce, at: now, sequence: self.sequence, reset: anew && self.sequence > 0 };
        let verifier = Verifier {
            who: Arc::clone(&hello.who),
            applied: if anew { self.sequence } else { hello.applied },
            nonce: hello.nonce,
            lease_end: kept,
            ask: Some(ask),
            caught_up: anew || hello.applied == self.sequence,
            open: true,
        };
        let slot = self.next_slot;
        self.next_slot += 1;
        self.verifiers.insert(slot, verifier);
        if !anew {
            self.acknowledge(&hello.who, 0, hello.applied, 0);
        }
        let missed = Missed { after: hello.applied, upto: self.sequence };
        Ok((slot, self.answer(slot, now).map_or(Came::Behind(missed), Came::Granted)))
    }

    /// What the verifier missed is on its way to it.
    pub fn caught_up(&mut self, slot: Slot, now: Instant) -> Option<Granted> {
        self.verifiers.get_mut(&slot)?.caught_up = true;
        self.answer(slot, now)
    }

    /// A verifier asks for more time.
    ///
    /// # Errors
    /// [`Violation`]: its stream must end.
    pub fn renew(
        &mut self,
        slot: Slot,
        nonce: u64,
        applied: u64,
        now: Instant,
    ) -> Result<Option<Granted>, Violation> {
        let sequence = self.sequence;
        let verifier = self.verifiers.get_mut(&slot).filter(|v| v.open).ok_or(Violation::Closed)?;
        if nonce <= verifier.nonce {
            return Err(Violation::Nonce);
        }
        verifier.nonce = nonce;
        verifier.ask = Some(Ask { nonce, at: now, sequence, reset: false });
        // Before what it missed is sent, what it has applied is what it said when it came.
        if verifier.caught_up && applied > verifier.applied {
            return self.applied(slot, applied, 0, now);
        }
        Ok(self.answer(slot, now))
    }

    /// A verifier has acknowledged everything up to and with `sequence`.
    ///
    /// # Errors
    /// [`Violation`]: its stream must end.
    pub fn applied(
        &mut self,
        slot: Slot,
        sequence: u64,
        streams_closed: u64,
        now: Instant,
    ) -> Result<Option<Granted>, Violation> {
        if sequence > self.sequence {
            return Err(Violation::Unpublished);
        }
        let verifier = self.verifiers.get_mut(&slot).filter(|v| v.open).ok_or(Violation::Closed)?;
        if sequence <= verifier.applied {
            return Ok(None);
        }
        let (who, before) = (Arc::clone(&verifier.who), verifier.applied);
        verifier.applied = sequence;
        self.acknowledge(&who, before, sequence, streams_closed);
        Ok(self.answer(slot, now))
    }

    /// A revocation has been committed. Answers whose queues it must go to.
    pub fn publish(&mut self, sequence: u64, now: Instant) -> Vec<Slot> {
        self.sequence = self.sequence.max(sequence);
        let holders = self.verifiers.values().filter(|v| v.holds_lease(now) && v.applied < sequence);
        let holders = holders.map(|v| (Arc::clone(&v.who), false)).collect();
        self.publications.insert(sequence, Publication { holders, ..Publication::default() });
        while self.publications.len() > PUBLICATIONS_MAX {
            self.publications.pop_first();
        }
        self.verifiers.iter().filter(|(_, v)| v.open).map(|(&slot, _)| slot).collect()
    }

    /// A verifier's stream has ended. Its lease, if any, runs on.
    pub fn leave(&mut self, slot: Slot, now: Instant) {
        if let Some(verifier) = self.verifiers.get_mut(&slot) {
            verifier.open = false;
        }
        self.forget_lapsed(now);
    }

    /// No lease may be granted that ends later than this, from now on: what this program's row promises (rule 6).
    pub fn promise(&mut self, until: Instant) {
        self.promised = Some(until);
    }

    /// What the row had promised was over: each lease has ended by its verifier's clock, whatever this one says.
    pub fn lapse(&mut self, now: Instant) {
        for verifier in self.verifiers.values_mut() {
            verifier.lease_end = None;
        }
        self.forget_lapsed(now);
    }

    /// Grants what was asked and could not be granted before.
    pub fn answer_all(&mut self, now: Instant) -> Vec<(Slot, Granted)> {
        let slots: Vec<_> = self.verifiers.keys().copied().collect();
        slots.into_iter().filter_map(|slot| Some((slot, self.answer(slot, now)?))).collect()
    }

    /// Begins anew behind `sequence`: what came before it cannot be told to anyone any more. Every stream ends, and no
    /// wait ends before all leases must have.
    pub fn start_over(&mut self, sequence: u64, now: Instant) {
        self.sequence = sequence;
        self.no_wait_ends_before = self.no_wait_ends_before.max(now + fence(self.terms.lease));
        self.publications.clear();
        self.verifiers.clear();
    }

    /// The last revocation that has reached everyone here, with all before it.
    #[must_use]
    pub fn reached(&self, now: Instant) -> u64 {
        if now < self.no_wait_ends_before {
            return 0;
        }
        let holders = self.verifiers.values().filter(|v| v.holds_lease(now)).map(|v| v.applied);
        holders.min().map_or(self.sequence, |applied| applied.min(self.sequence))
    }

    /// What the last revocations after `after` have reached, up to and with `upto`; at most `most` of them, in order.
    #[must_use]
    pub fn latest(&self, after: u64, upto: u64, most: usize) -> Vec<(u64, Reached)> {
        if after >= upto {
            return Vec::new();
        }
        let latest = self.publications.range(after + 1..=upto).rev().take(most);
        let mut latest: Vec<_> = latest.map(|(&sequence, of)| (sequence, of.reached())).collect();
        latest.reverse();
        latest
    }

    /// Whether everyone has been reached by `sequence` and all before it.
    #[must_use]
    pub fn wait(&self, sequence: u64, now: Instant) -> Wait {
        if now < self.no_wait_ends_before {
            return Wait::Until(self.no_wait_ends_before);
        }
        // Committed here behind one of another program that has not been read yet: it is published in its turn.
        if self.promised.is_some() && sequence > self.sequence {
            return Wait::Until(now + self.terms.lease);
        }
        let waited_for = self.verifiers.values().filter(|v| v.holds_lease(now) && v.applied < sequence);
        if let Some(first_end) = waited_for.filter_map(|v| v.lease_end).min() {
            return Wait::Until(first_end);
        }
        Wait::Over(self.publications.get(&sequence).map_or_else(Reached::default, Publication::reached))
    }

    /// The newest revocation that was published.
    pub(super) fn newest(&self) -> u64 {
        self.sequence
    }

    /// Whether a verifier's stream lives.
    pub(super) fn is_open(&self, slot: Slot) -> bool {
        self.verifiers.get(&slot).is_some_and(|v| v.open)
    }

    /// How many verifiers hold a lease.
    #[must_use]
    pub fn holders(&self, now: Instant) -> usize {
        self.verifiers.values().filter(|v| v.holds_lease(now)).count()
    }

    /// Grants what was asked, if rule 2 allows.
    fn answer(&mut self, slot: Slot, now: Instant) -> Option<Granted> {
        let (newest, fence) = (self.sequence, fence(self.terms.lease));
        let verifier = self.verifiers.get_mut(&slot).filter(|v| v.open && v.caught_up)?;
        let ask = verifier.ask?;
        let has_all = verifier.applied >= newest;
        let had_all_and_never_lapsed = verifier.applied >= ask.sequence && verifier.holds_lease(now);
        let end = ask.at + fence;
        let worth_it = now < end && self.promised.is_none_or(|until| end <= until);
        if !worth_it || !(has_all || had_all_and_never_lapsed) {
            return None;
        }
        verifier.ask = None;
        verifier.lease_end = verifier.lease_end.max(Some(end));
        Some(Granted { nonce: ask.nonce, sequence: newest, reset: ask.reset })
    }

    /// Closes a verifier's earlier streams, and gives the end of those of their leases that its word holds
    /// for. A lease that it was given to begin anew, and that it has not heard of by what it says, is none
    /// of those: it runs out by itself, and so do all earlier ones of a verifier that begins anew.
    fn end_earlier(&mut self, hello: &Hello, anew: bool, now: Instant) -> Option<Instant> {
        let mut kept = None;
        self.verifiers.retain(|_, v| {
            if v.who != hello.who {
                return v.open || v.holds_lease(now);
            }
            v.open = false;
            v.ask = None;
            let spoken_for = !anew && v.applied <= hello.applied;
            if spoken_for {
                kept = kept.max(v.lease_end);
            }
            !spoken_for && v.holds_lease(now)
        });
        kept
    }

    fn acknowledge(&mut self, who: &Who, after: u64, upto: u64, streams_closed: u64) {
        if after >= upto {
            return;
        }
        for (&sequence, publication) in self.publications.range_mut(after + 1..=upto) {
            let acknowledged = publication.holders.get_mut(who);
            if acknowledged.is_some_and(|acknowledged| !std::mem::replace(acknowledged, true)) {
                // An acknowledgement of several at once tells its streams with the last.
                // The number is the verifier's word: it is only told on, and has no bound.
                let closed = if sequence == upto { streams_closed } else { 0 };
                publication.streams_closed = publication.streams_closed.saturating_add(closed);
            }
        }
    }

    fn forget_lapsed(&mut self, now: Instant) {
        self.verifiers.retain(|_, v| v.open || v.holds_lease(now));
    }
}

impl Verifier {
    fn holds_lease(&self, now: Instant) -> bool {
        self.lease_end.is_some_and(|end| now < end)
    }
}

impl Publication {
    fn reached(&self) -> Reached {
        let count = |how: bool| {
            let all = self.holders.values().filter(|acknowledged| **acknowledged == how).count();
            u32::try_from(all).unwrap_or(u32::MAX)
        };
        Reached { acknowledged: count(true), fenced: count(false), streams_closed: self.streams_closed }
    }
}

impl Violation {
    /// The refusal of a message in which `applied` is the field that says what was applied.
    #[must_use]
    pub fn on(self, applied: &str) -> Error {
        match self {
            Self::Unpublished => {
                Error::invalid_field(applied, "a revocation that was sent on this stream, or before")
            }
            Self::Nonce => Error::invalid_field("renew.nonce", "larger than the one before"),
            Self::Closed => Error::new(Reason::TooSlow, "this stream was closed; open another one"),
        }
    }
}
