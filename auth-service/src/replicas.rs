//! The barrier among programs that share a store: revoke on one, and the verifiers of all have it (DESIGN 6).
//!
//! Each program answers for the verifiers that hold a lease of it: [`Barrier`] has their account. Each keeps a row in the
//! store (`replica.rs`), which it renews with beats, four in a lease. With row *r* it says: up to `reached` everything has
//! reached my verifiers; and none of my leases, nor any verdict that I keep, is used for longer than `promise` after my
//! last beat was sent.
//!
//! 1. **What is published is in order.** A row of the log is published here (kept verdicts, then verifiers) behind all
//!    earlier ones: where another program's come before an own one, they are read first ([`Replicas::follow`]).
//! 2. **A beat counts from before it was sent,** by the larger of two clocks, and only when everything is published that
//!    was in the log when it was committed. Where the promise before it was over by then, no verifier holds a lease any
//!    more, and each has to acknowledge all before it gets one.
//! 3. **A revocation is over** when it is so here, and each other row in a look *made after its commit* either says that
//!    it was reached, or stood at one beat from a look until another one that began a whole promise later.
//!
//! Why no verifier admits what revocation *n* matches, once it is over. Take a verifier with a lease of program *p*.
//! Where *p*'s row said that *n* was reached, its barrier has seen the verifier acknowledge, or its lease end, and grants
//! none since without *n*. Else the row stood at beat *b* for a promise, counted here from after *b* was committed, so
//! all leases under *b* have ended. A later beat of *p* is not in the look, so it was committed after the look; it holds
//! the row of the counters, which *n* had held before: so it was told of *n*, and by rule 2 it counts only when *n* is
//! published there, and by then each lease has lapsed and needs the acknowledgement of *n*. No clock of two machines is
//! compared, and a clock that runs a hundredth unequally is allowed for. A look is a beat of one's own: it is committed
//! where *n* was, or not at all, so a database that was left behind tells nobody anything.
//!
//! A program that is frozen, cut off from the database, or has ended keeps others waiting until its promise is over, and
//! vouches for nothing from then on: verifiers get no lease, its own gate admits nobody ([`crate::verdicts`]). What others
//! tell it (NOTIFY) is a wake-up; where that is lost the next beat finds it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use interlock_kit::{
    clock::Clock,
    error::{Error, Reason},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    barrier::{Barrier, Reached, fence},
    census::Census,
    ids::ReplicaId,
    limits,
    opening::Announcer,
    parts::host_call,
    replica::{Beat, Beaten, Replica, Told},
    revocation::{LogPage, RevocationsAfter, Subject},
    rotation,
    store::Shell,
    token_file::TokenFile,
    vouch::Vouch,
};

const BEAT: &str = "replica.beat";
const FOLLOW: &str = "replica.follow";
/// Beats in the life of a lease.
const BEATS_A_LEASE: u32 = 4;
/// The pause after a beat that failed.
const AGAIN: Duration = Duration::from_millis(100);

/// For how long a program whose leases are of this length may vouch after a beat: long enough for a whole lease at each
/// grant, and for some beats that are late.
#[must_use]
pub fn promise(lease: Duration) -> Duration {
    fence(lease) * 2
}

/// What wakes a program to look: told on any thread.
#[derive(Debug, Default)]
pub struct Wake {
    asked: Mutex<Asked>,
    told: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// There may be rows of the log that have not been published here.
    log: bool,
    /// A look at the others' rows is waited for.
    look: bool,
}

impl Wake {
    /// There may be more of the log.
    pub fn log(&self) {
        self.asked.lock().log = true;
        self.told.notify_one();
    }

    /// Another program may have reached its verifiers.
    pub fn look(&self) {
        self.asked.lock().look = true;
        self.told.notify_one();
    }

    async fn next(&self) -> Asked {
        loop {
            self.told.notified().await;
            let asked = std::mem::take(&mut *self.asked.lock());
            if asked.log || asked.look {
                return asked;
            }
        }
    }
}

/// This program among those that share its store. Cheap to clone.
#[derive(Clone)]
pub struct Replicas(Arc<Shared>);

struct Shared {
    own: ReplicaId,
    promise: Duration,
    shell: Shell,
    barrier: Barrier,
    vouch: Vouch,
    announcer: Arc<Announcer>,
    wake: Arc<Wake>,
    copy: Arc<tokio::sync::Mutex<TokenFile>>,
    census: Arc<Census>,
    looks: Mutex<Looks>,
    looked: Notify,
}

/// What the looks have shown.
#[derive(Debug, Default)]
struct Looks {
    begun: u64,
    /// The last one that has been made: it began before all later ones.
    made: u64,
    others: BTreeMap<ReplicaId, Seen>,
    /// Who waits for others.
    waiting: usize,
}

/// Another program's row.
#[derive(Clone, Debug)]
struct Seen {
    replica: Replica,
    /// When it was first seen at this beat: after that was committed.
    since: Instant,
    /// It stood at this beat until a look that began a whole promise later.
    over: bool,
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicas").field("own", &self.0.own).finish_non_exhaustive()
    }
}

/// What a program that joins brings.
#[derive(Debug)]
pub struct Joining {
    /// Its epoch.
    pub own: ReplicaId,
    /// See [`promise`].
    pub promise: Duration,
    /// Runs its beats.
    pub shell: Shell,
    /// Its verifiers' account.
    pub barrier: Barrier,
    /// What its beats extend.
    pub vouch: Vouch,
    /// Who publishes.
    pub announcer: Arc<Announcer>,
    /// Its copy of the role tokens.
    pub copy: Arc<tokio::sync::Mutex<TokenFile>>,
    /// What it knows of uses of the role tokens.
    pub census: Arc<Census>,
}

/// Adds this program's row, before it grants anything. What it finds.
///
/// # Errors
/// What the store says; `LIMIT_REACHED` where too many share it.
pub async fn join(shell: &Shell, own: &ReplicaId, promise: Duration) -> Result<Beaten, Error> {
    let (id, told, over) = (own.clone(), Vec::new(), Vec::new());
    let beat = Beat { id, promise, reached: 0, holders: 0, told, over, uses_told: Duration::ZERO };
    shell.run(&host_call(BEAT), beat).await
}

impl Replicas {
    /// After [`join`].
    #[must_use]
    pub fn new(joining: Joining) -> Self {
        let Joining { own, promise, shell, barrier, vouch, announcer, copy, census } = joining;
        let wake = announcer.wake();
        let (looks, looked) = (Mutex::default(), Notify::new());
        Self(Arc::new(Shared {
            own,
            promise,
            shell,
            barrier,
            vouch,
            announcer,
            wake,
            copy,
            census,
            looks,
            looked,
        }))
    }

    /// Its name among those that share the store.
    #[must_use]
    pub fn own(&self) -> &ReplicaId {
        &self.0.own
    }

    /// Returns when no verifier of another program admits what the revocation `sequence` matches. It must have been
    /// committed by now.
    pub async fn wait_for(&self, sequence: u64) -> Reached {
        let _waiting = Waiting::begin(self);
        let needed = self.0.looks.lock().begun + 1;
        self.0.wake.look();
        let mut living: Option<BTreeSet<ReplicaId>> = None;
        loop {
            // Enabled before the look, so that none between the two is lost.
            let mut looked = std::pin::pin!(self.0.looked.notified());
            looked.as_mut().enable();
            {
                let looks = self.0.looks.lock();
                if looks.made >= needed {
                    let living = living.get_or_insert_with(|| looks.living());
                    if let Some(reached) = looks.reached(sequence, living) {
                        return reached;
                    }
                }
            }
            looked.await;
        }
    }

    /// Publishes what others have added to the log.
    ///
    /// # Errors
    /// What the store says; `STORE_UNAVAILABLE` where it shows an older log than was seen.
    pub async fn follow(&self) -> Result<(), Error> {
        let mut rotated = false;
        loop {
            let after = self.0.barrier.newest();
            let query = RevocationsAfter { after, limit: limits::REVOCATION_PAGE_MAX };
            let LogPage { rows, newest, reset } = self.0.shell.ask(&host_call(FOLLOW), query).await?;
            if newest < after {
                return Err(Error::new(Reason::StoreUnavailable, "the store shows an older log"));
            }
            if reset {
                tracing::warn!(after, newest, "what was revoked in the meantime is not kept: all begin anew");
                self.0.announcer.start_over(newest);
                rotated = true;
            }
            // A next token that was given up is revoked like any credential.
            rotated |=
                rows.iter().any(|row| matches!(row.subject, Subject::Role(_) | Subject::Credential(_)));
            self.0.announcer.publish(rows);
            let reached = self.0.barrier.newest();
            if reached >= newest {
                break;
            }
            if reached == after {
                return Err(Error::internal("the revocation log has a hole"));
            }
        }
        if rotated {
            let (shell, copy) = (self.0.shell.clone(), Arc::clone(&self.0.copy));
            // Whoever changes a role token here holds the copy, and may wait for this.
            tokio::spawn(async move { rotation::forget_replaced(&shell, &copy).await });
        }
        Ok(())
    }

    /// Beats, looks and follows until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.rounds()).await;
    }

    async fn rounds(&self) {
        let period = self.0.barrier.lease() / BEATS_A_LEASE;
        let mut told = 0;
        loop {
            let beat = match self.beat(&mut told).await {
                Ok(()) => period,
                Err(error) => {
                    tracing::warn!(%error, "a beat failed: leases are not granted for longer than the last one promised");
                    AGAIN
                }
            };
            let due = sleep(beat);
            tokio::pin!(due);
            loop {
                let asked = tokio::select! {
                    () = &mut due => break,
                    () = self.0.barrier.moved(told), if told < self.0.barrier.newest() && beat == period => break,
                    asked = self.0.wake.next() => asked,
                };
                if asked.log
                    && let Err(error) = self.follow().await
                {
                    // The next beat tries again, and does not count before it has.
                    tracing::warn!(%error, "the revocation log cannot be followed");
                    break;
                }
                if asked.look && self.0.looks.lock().is_waited_for() {
                    break;
                }
            }
        }
    }

    async fn beat(&self, told: &mut u64) -> Result<(), Error> {
        let (reached, latest) = self.0.barrier.reached(*told, limits::TOLD_MAX);
        let latest = latest.into_iter().map(|(sequence, reached)| Told { sequence, reached }).collect();
        let (look, over) = self.0.looks.lock().begin();
        let sent = self.0.vouch.stamp();
        let beat = Beat {
            id: self.0.own.clone(),
            promise: self.0.promise,
            reached,
            holders: u32::try_from(self.0.barrier.holders()).unwrap_or(u32::MAX),
            told: latest,
            over,
            uses_told: self.0.census.behind(),
        };
        let Beaten { newest, others } = self.0.shell.run(&host_call(BEAT), beat).await?;
        *told = reached.max(*told);
        self.0.looks.lock().end(look, sent.at(), others, Clock::instant());
        self.0.looked.notify_waiters();
        if self.0.barrier.newest() < newest {
            self.follow().await?;
        }
        self.0.barrier.vouch(sent, self.0.promise);
        Ok(())
    }

    /// Vouches for nothing any more, and tells others how long leases may still be in use: a program that has ended
    /// keeps nobody waiting for longer than it must.
    pub async fn leave(&self) {
        self.0.vouch.end();
        let beat = Beat {
            id: self.0.own.clone(),
            promise: fence(self.0.barrier.lease()),
            reached: 0,
            holders: u32::try_from(self.0.barrier.holders()).unwrap_or(u32::MAX),
            told: Vec::new(),
            over: Vec::new(),
            uses_told: self.0.census.behind(),
        };
        if let Err(error) = self.0.shell.run(&host_call(BEAT), beat).await {
            tracing::warn!(%error, "others wait for a whole promise of this program");
        }
    }
}

impl Looks {
    fn living(&self) -> BTreeSet<ReplicaId> {
        self.others.values().filter(|seen| !seen.over).map(|seen| seen.replica.id.clone()).collect()
    }

    /// What a revocation has reached among others, where it has reached all of them. `living` are those whose leases
    /// were not over when it was first asked.
    fn reached(&self, sequence: u64, living: &BTreeSet<ReplicaId>) -> Option<Reached> {
        let mut all = Reached::default();
        for seen in self.others.values() {
            let reached = if seen.replica.reached >= sequence {
                seen.replica.told_of(sequence)
            } else if !seen.over {
                return None;
            } else if living.contains(&seen.replica.id) {
                Reached { fenced: seen.replica.holders, ..Reached::default() }
            } else {
                Reached::default()
            };
            all = all.and(reached);
        }
        Some(all)
    }

    fn is_waited_for(&self) -> bool {
        self.waiting > 0
    }

    /// The number of a look that begins, and the rows that it may remove.
    fn begin(&mut self) -> (u64, Vec<(ReplicaId, u64)>) {
        self.begun += 1;
        let over = self.others.values().filter(|seen| seen.over);
        (self.begun, over.map(|seen| (seen.replica.id.clone(), seen.replica.beat)).collect())
    }

    /// A look that began at `began` has shown `others` by `now`.
    fn end(&mut self, look: u64, began: Instant, others: Vec<Replica>, now: Instant) {
        self.made = self.made.max(look);
        let mut earlier = std::mem::take(&mut self.others);
        self.others = others
            .into_iter()
            .map(|replica| {
                let same = earlier.remove(&replica.id).filter(|seen| seen.replica.beat == replica.beat);
                let (since, was_over) = same.map_or((now, false), |seen| (seen.since, seen.over));
                let over = was_over || began.saturating_duration_since(since) >= fence(replica.promise);
                (replica.id.clone(), Seen { replica, since, over })
            })
            .collect();
    }
}

/// Somebody waits for others.
struct Waiting<'r>(&'r Replicas);

impl<'r> Waiting<'r> {
    fn begin(replicas: &'r Replicas) -> Self {
        replicas.0.looks.lock().waiting += 1;
        Self(replicas)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.looks.lock().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn row(id: &str, beat: u64, reached: u64) -> Replica {
        let told = Told { sequence: reached, reached: Reached { acknowledged: 1, ..Reached::default() } };
        let (id, promise) = (ReplicaId::made(id), promise(LEASE));
        let uses_told_at = interlock_kit::clock::Timestamp::default();
        Replica { id, beat, promise, reached, holders: 2, told: vec![told], uses_told_at }
    }

    fn look(looks: &mut Looks, at: Instant, others: &[Replica]) {
        let (look, _) = looks.begin();
        looks.end(look, at, others.to_vec(), at);
    }

    // I8
    #[test]
    fn a_row_that_stood_for_a_promise_is_over_and_one_that_beats_never_is() {
        let t0 = Instant::now();
        let whole = fence(promise(LEASE));
        let mut looks = Looks::default();
        look(&mut looks, t0, &[row("epo_a", 1, 0), row("epo_b", 1, 0)]);
        let living = looks.living();
        assert_eq!((living.len(), looks.reached(1, &living)), (2, None));
        look(&mut looks, t0 + whole / 2, &[row("epo_a", 1, 0), row("epo_b", 2, 1)]);
        assert_eq!(looks.reached(1, &living), None, "a may still vouch");
        assert_eq!(looks.reached(2, &living), None);
        look(&mut looks, t0 + whole, &[row("epo_a", 1, 0), row("epo_b", 3, 1)]);
        let expected = Reached { acknowledged: 1, fenced: 2, streams_closed: 0 };
        assert_eq!(looks.reached(1, &living), Some(expected), "a's verifiers are fenced, b's have said so");
        assert_eq!(looks.reached(2, &living), None, "b's have not heard of this");
        assert_eq!(looks.begin().1, [(ReplicaId::made("epo_a"), 1)], "its row goes");
        look(&mut looks, t0 + whole + whole / 2, &[row("epo_a", 2, 0), row("epo_b", 3, 1)]);
        assert_eq!(looks.reached(1, &living), None, "a is back, and must say that it has published it");
        assert!(!looks.others[&ReplicaId::made("epo_b")].over, "seen at this beat half a promise ago");
    }

    // I8: what a look takes does not count as time that a row stood.
    #[test]
    fn a_row_is_over_only_by_looks_that_began_late_enough() {
        let t0 = Instant::now();
        let whole = fence(promise(LEASE));
        let mut looks = Looks::default();
        let (first, _) = looks.begin();
        looks.end(first, t0, vec![row("epo_a", 1, 0)], t0 + LEASE);
        let (second, _) = looks.begin();
        looks.end(second, t0 + whole, vec![row("epo_a", 1, 0)], t0 + whole * 2);
        assert!(
            !looks.others[&ReplicaId::made("epo_a")].over,
            "its beat may have been sent just before t0 + a lease"
        );
        let (third, _) = looks.begin();
        looks.end(third, t0 + LEASE + whole, vec![row("epo_a", 1, 0)], t0 + whole * 2);
        assert!(looks.others[&ReplicaId::made("epo_a")].over);
    }
}
