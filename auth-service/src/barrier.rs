//! The revocation barrier: when a revocation has been answered, no verifier admits what it matches.
//!
//! A verifier admits calls only while it holds a lease, and gives up what a revocation matches before it
//! acknowledges that revocation (`trust.proto` has the protocol). So a revocation has reached everyone as
//! soon as each verifier either has acknowledged it or has no lease any more. That account is kept in three
//! parts:
//!
//! - [`Core`]: the account itself, in `account`. Pure: time is passed in, and what is to be sent comes out.
//! - [`Barrier`]: the account behind a lock, with the queue to each verifier; [`Barrier::published`] is
//!   called on the store's writer thread before a revoking verb is answered, [`Barrier::wait_for`] after.
//! - [`Seat`]: one verifier's place, from its Hello to the end of its stream.
//!
//! What makes it hold:
//!
//! 1. A lease counts here from when its ask **arrived**, there from before it was **sent**, and here a
//!    hundredth longer, for clocks that run unequally. So it never ends later there than here.
//! 2. A renewal asked after a revocation is not granted before that is acknowledged, and one asked before
//!    it only while the lease has never lapsed. So each wait ends within one lease, and nobody who was
//!    counted as fenced comes back without the revocation.
//! 3. A verifier that comes back gets what it missed first. Where that cannot be sent it is told to forget
//!    everything, and its earlier lease is waited out: nothing it says later speaks for that one.
//! 4. Leases of an earlier process are unknown to this one: no wait ends before those must have run out.
//! 5. A queue that is full is closed. Its verifier is fenced by the end of its lease like any that went.
//! 6. Where others use the store, too, no lease ends after what this program's row there promises; `replicas.rs` has
//!    that part.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use interlock_kit::{clock::Clock, error::Error};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};

use crate::{
    revocation::Revocation,
    vouch::{Stamp, Vouch},
};

mod account;
#[cfg(test)]
mod tests;

use account::Slot;
pub use account::{Came, Core, Granted, Hello, Missed, Reached, Terms, Violation, Wait, Who, fence};

/// What goes to a verifier.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// A lease.
    Granted(Granted),
    /// A revocation.
    Revoked(Arc<Revocation>),
}

/// The barrier of one process. Cheap to clone.
#[derive(Clone)]
pub struct Barrier(Arc<Shared>);

struct Shared {
    terms: Terms,
    vouch: Vouch,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    core: Core,
    queues: BTreeMap<Slot, mpsc::Sender<Outgoing>>,
    /// Which revocations are waited for, and by how many.
    waited: BTreeMap<u64, usize>,
}

/// A wait for a revocation, counted for as long as it lasts.
struct Waiting<'b> {
    barrier: &'b Barrier,
    sequence: u64,
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("terms", &self.0.terms).finish_non_exhaustive()
    }
}

impl Barrier {
    /// A barrier that starts now. See [`Core::new`].
    #[must_use]
    pub fn new(terms: Terms, sequence: u64, unknown_leases: Duration) -> Self {
        Self::under(Vouch::always(), terms, sequence, unknown_leases)
    }

    /// The same, where leases may be granted only as far as this program may vouch.
    #[must_use]
    pub fn under(vouch: Vouch, terms: Terms, sequence: u64, unknown_leases: Duration) -> Self {
        let now = Clock::instant();
        let mut core = Core::new(terms, sequence, now, unknown_leases);
        if vouch.is_leased() {
            core.promise(now);
        }
        let state = Mutex::new(State { core, queues: BTreeMap::new(), waited: BTreeMap::new() });
        Self(Arc::new(Shared { terms, vouch, state, changed: Notify::new() }))
    }

    /// How long a lease is.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.0.terms.lease
    }

    /// How many verifiers hold a lease now.
    #[must_use]
    pub fn holders(&self) -> usize {
        self.0.state.lock().core.holders(Clock::instant())
    }

    /// Revocations have been committed, in this order: they go to every verifier. Does not block.
    pub fn published(&self, revocations: impl IntoIterator<Item = Revocation>) {
        let mut state = self.0.state.lock();
        let now = Clock::instant();
        for revocation in revocations {
            let slots = state.core.publish(revocation.sequence, now);
            let revocation = Arc::new(revocation);
            for slot in slots {
                state.send(slot, Outgoing::Revoked(Arc::clone(&revocation)), now);
            }
        }
        // Where nobody holds a lease it has reached everyone.
        self.tell_waiting(state, now);
    }

    /// This program may vouch for `span` from then on: everything that was revoked before has been published.
    pub fn vouch(&self, from: Stamp, span: Duration) {
        let mut state = self.0.state.lock();
        if !self.0.vouch.holds() {
            state.core.lapse(Clock::instant());
        }
        self.0.vouch.extend(from, span);
        let now = self.hold_to_the_promise(&mut state);
        for (slot, granted) in state.core.answer_all(now) {
            state.send(slot, Outgoing::Granted(granted), now);
        }
        self.tell_waiting(state, now);
    }

    /// Begins anew behind `sequence`: see [`Core::start_over`].
    pub fn start_over(&self, sequence: u64) {
        let mut state = self.0.state.lock();
        let now = Clock::instant();
        state.core.start_over(sequence, now);
        state.queues.clear();
        self.tell_waiting(state, now);
    }

    /// The newest revocation that was published here.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.0.state.lock().core.newest()
    }

    /// The last revocation that has reached every verifier of this program, with all before it; and what those after
    /// `after` reached, `most` of them.
    #[must_use]
    pub fn reached(&self, after: u64, most: usize) -> (u64, Vec<(u64, Reached)>) {
        let state = self.0.state.lock();
        let reached = state.core.reached(Clock::instant());
        (reached, state.core.latest(after, reached, most))
    }

    /// Returns when this program's verifiers are reached by the first revocation after `after`, once there is one.
    pub async fn moved(&self, after: u64) {
        self.wait_for(after + 1).await;
    }

    /// Returns when no verifier admits what the revocation `sequence`, or one before it, matches. At most
    /// one lease after its publication, or after the start of this process.
    pub async fn wait_for(&self, sequence: u64) -> Reached {
        let _waiting = Waiting::begin(self, sequence);
        loop {
            // Enabled before the look, so that no change between the two is lost.
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            let until = match self.0.state.lock().core.wait(sequence, Clock::instant()) {
                Wait::Over(reached) => return reached,
                Wait::Until(until) => until,
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
    }

    /// A verifier has come. Where it is behind, the caller sends it what it missed and then calls
    /// [`Seat::caught_up`]; only then it passes on the queue.
    ///
    /// # Errors
    /// `LIMIT_REACHED` where too many verifiers have a stream or a lease.
    pub fn seat(&self, hello: &Hello) -> Result<Seated, Error> {
        let mut state = self.0.state.lock();
        let now = self.hold_to_the_promise(&mut state);
        let (slot, came) = state.core.hello(hello, now)?;
        let (queue, messages) = mpsc::channel(self.0.terms.outgoing_max);
        state.queues.insert(slot, queue);
        state.close_superseded();
        let missed = match came {
            Came::Behind(missed) => Some(missed),
            Came::Granted(granted) => {
                state.send(slot, Outgoing::Granted(granted), now);
                None
            }
        };
        // An earlier stream of the same verifier may have been closed, or its word taken.
        self.tell_waiting(state, now);
        Ok(Seated { seat: Seat { barrier: self.clone(), slot }, missed, messages })
    }
}

impl Barrier {
    /// Now; from here on nothing is granted beyond what this program may vouch for.
    fn hold_to_the_promise(&self, state: &mut State) -> Instant {
        let now = Clock::instant();
        if let Some(until) = self.0.vouch.end_as_of(now) {
            state.core.promise(until);
        }
        now
    }

    /// Wakes those who wait, where the first of them has waited long enough: whoever waits for a later one waits
    /// no shorter, and looks by itself when a lease ends.
    fn tell_waiting(&self, state: MutexGuard<'_, State>, now: Instant) {
        let is_over = |sequence| matches!(state.core.wait(sequence, now), Wait::Over(_));
        let over = state.waited.keys().next().is_some_and(|&first| is_over(first));
        drop(state);
        if over {
            self.0.changed.notify_waiters();
        }
    }
}

impl<'b> Waiting<'b> {
    fn begin(barrier: &'b Barrier, sequence: u64) -> Self {
        *barrier.0.state.lock().waited.entry(sequence).or_default() += 1;
        Self { barrier, sequence }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.barrier.0.state.lock();
        if let Entry::Occupied(mut waiting) = state.waited.entry(self.sequence) {
            *waiting.get_mut() -= 1;
            if *waiting.get() == 0 {
                waiting.remove();
            }
        }
        // Those behind it are looked at from here on.
        self.barrier.tell_waiting(state, Clock::instant());
    }
}

/// A verifier that has been given its place.
#[derive(Debug)]
pub struct Seated {
    /// The place.
    pub seat: Seat,
    /// What must be sent first.
    pub missed: Option<Missed>,
    /// What must be sent then, in order; its end means that the stream was closed here.
    pub messages: mpsc::Receiver<Outgoing>,
}

impl State {
    fn send(&mut self, slot: Slot, message: Outgoing, now: Instant) {
        let sent = self.queues.get(&slot).is_some_and(|queue| queue.try_send(message).is_ok());
        if !sent {
            self.queues.remove(&slot);
            self.core.leave(slot, now);
        }
    }

    fn close_superseded(&mut self) {
        let core = &self.core;
        self.queues.retain(|slot, _| core.is_open(*slot));
    }
}

/// One verifier's place. Dropping it ends the verifier's stream here; its lease runs on.
#[derive(Debug)]
pub struct Seat {
    barrier: Barrier,
    slot: Slot,
}

impl Seat {
    /// See [`Core::caught_up`].
    ///
    /// # Errors
    /// [`Violation::Closed`]: the stream must end.
    pub fn caught_up(&self) -> Result<(), Violation> {
        self.tell(|core, slot, now| Ok(core.caught_up(slot, now)))
    }

    /// See [`Core::renew`].
    ///
    /// # Errors
    /// [`Violation`]: the stream must end.
    pub fn renew(&self, nonce: u64, applied: u64) -> Result<(), Violation> {
        self.tell(|core, slot, now| core.renew(slot, nonce, applied, now))
    }

    /// See [`Core::applied`].
    ///
    /// # Errors
    /// [`Violation`]: the stream must end.
    pub fn applied(&self, sequence: u64, streams_closed: u64) -> Result<(), Violation> {
        self.tell(|core, slot, now| core.applied(slot, sequence, streams_closed, now))
    }

    fn tell(
        &self,
        say: impl FnOnce(&mut Core, Slot, Instant) -> Result<Option<Granted>, Violation>,
    ) -> Result<(), Violation> {
        let mut state = self.barrier.0.state.lock();
        let now = self.barrier.hold_to_the_promise(&mut state);
        if let Some(granted) = say(&mut state.core, self.slot, now)? {
            state.send(self.slot, Outgoing::Granted(granted), now);
        }
        self.barrier.tell_waiting(state, now);
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let (mut state, now) = (self.barrier.0.state.lock(), Clock::instant());
        state.queues.remove(&self.slot);
        state.core.leave(self.slot, now);
        self.barrier.tell_waiting(state, now);
    }
}
