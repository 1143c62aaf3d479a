//! The loop that ends what is over: leases at their deadlines, and the rest now and then.
//!
//! A lease that ends frees its agent, so it is ended at its instant: the loop sleeps until the earliest deadline,
//! never longer than a lease lives. A lease granted meanwhile ends later than that sleep does, so none is missed
//! and nothing has to wake the loop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use interlock_kit::{clock::Clock, error::Error};
use parking_lot::Mutex;

use crate::{
    caller::Caller,
    file::UnknownFiles,
    grpc::Front,
    ids::{FileId, SessionId},
    sweep::{Due, DueLogs, Duty, NextDeadline, Sweep, Swept},
    transfer,
};

/// How often what has no deadline of its own is looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(2);
/// The shortest sleep: a clock that stands still must not spin this loop.
const SLEEP_MIN: Duration = Duration::from_millis(5);
/// The pause after a turn that found nothing to do.
const IDLE_PAUSE: Duration = Duration::from_millis(50);
/// The pause after the store failed.
const FAILED_PAUSE: Duration = Duration::from_millis(500);
/// Parts of one duty in one turn; what is left waits for the next one.
const PARTS_MAX: usize = 4;
/// Duties that keep agents busy, at once.
const AT_ONCE: usize = 64;
/// For how long a turn does what nobody waits for, before leases are looked at again: about one duty more.
const UPKEEP_MAX: Duration = Duration::from_millis(200);
/// Files that are taken away at once.
const FILES_AT_ONCE: usize = 16;
/// How often contents without a row are looked for.
const STRAYS: Duration = Duration::from_secs(600);
/// How often counted refusals are written.
const FLUSH: Duration = Duration::from_secs(10);

/// Sweeps until the gateway drains.
pub(crate) async fn run(front: Arc<Front>) {
    let sweeper = Sweeper {
        caller: Arc::new(Caller::gateway()),
        front: &front,
        looks: AtomicU32::new(0),
        logs_after: Mutex::default(),
    };
    front.draining.run_until_cancelled(sweeper.turns()).await;
}

/// Writes the rows of counted refusals until the gateway drains; what is left is written when it closes.
pub(crate) async fn flush_denials(front: Arc<Front>) {
    let flushing = async {
        loop {
            tokio::time::sleep(FLUSH).await;
            front.gate.flush(false).await;
        }
    };
    front.draining.run_until_cancelled(flushing).await;
}

/// Looks for contents of files that no row tells of, now and then, until the gateway drains: those of programs that died
/// between storing them and saying so, or between forgetting a file and taking it away.
pub(crate) async fn clear_files(front: Arc<Front>) {
    let looking = async {
        loop {
            match look_for_strays(&front).await {
                Ok(0) => {}
                Ok(found) => tracing::info!(found, "contents of files that no row tells of were taken away"),
                Err(error) => {
                    let source =
                        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(reason = %error.reason(), source, "a look for contents without a row failed");
                }
            }
            tokio::time::sleep(STRAYS).await;
        }
    };
    front.draining.run_until_cancelled(looking).await;
}

/// One look at all contents that are older than a file may take to come: a file that is coming has its row by then.
/// How many were taken away.
async fn look_for_strays(front: &Arc<Front>) -> Result<usize, Error> {
    let age = front.shell.limits().upload_time_max + STRAYS;
    let wall = u64::try_from(front.clock.wall().before(age).as_micros()).unwrap_or_default();
    let before = SystemTime::UNIX_EPOCH + Duration::from_micros(wall);
    let own = Arc::clone(front);
    let cleared = tokio::task::spawn_blocking(move || own.vault.clear_parts(before)).await;
    let mut taken = cleared.map_err(Error::internal)?.map_err(Error::internal)?;
    let caller = Arc::new(Caller::gateway());
    let most = front.shell.limits().sweep_rows_max;
    let mut parts = std::pin::pin!(front.vault.written_before(before).try_chunks(most));
    while let Some(part) = parts.next().await {
        let ids: Vec<FileId> = part.map_err(|error| error.1)?;
        let unknown = front.shell.ask(&caller, UnknownFiles { ids }, &**front).await?.out;
        for id in unknown {
            front.vault.remove(&id).await?;
            taken += 1;
        }
    }
    Ok(taken)
}

struct Sweeper<'a> {
    front: &'a Front,
    caller: Arc<Caller>,
    /// How many looks there have been.
    looks: AtomicU32,
    /// Where the last look at logs ended.
    logs_after: Mutex<Option<SessionId>>,
}

/// The kinds of duties that nobody waits for.
const UPKEEP_KINDS: u32 = 6;

/// Which of those kinds; none for what keeps an agent busy.
fn upkeep(duty: &Duty) -> Option<u32> {
    match duty {
        Duty::Lease(_) | Duty::Overdue(_) | Duty::Waiter(..) => None,
        Duty::Session(_) => Some(0),
        Duty::Log(_) => Some(1),
        Duty::Jobs(_) => Some(2),
        Duty::Requests => Some(3),
        Duty::Idle(..) => Some(4),
        Duty::File(..) => Some(5),
    }
}

impl Sweeper<'_> {
    async fn turns(&self) {
        let mut next_look = Clock::instant();
        loop {
            match self.turn(&mut next_look).await {
                Ok(sleep) => tokio::time::sleep(sleep).await,
                Err(error) => {
                    let source =
                        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::error!(reason = %error.reason(), source, "a sweep failed");
                    tokio::time::sleep(FAILED_PAUSE).await;
                }
            }
        }
    }

    /// One turn; how long to sleep after it.
    async fn turn(&self, next_look: &mut std::time::Instant) -> Result<Duration, Error> {
        let lease_ttl = self.front.shell.limits().lease_ttl;
        let left = self.front.shell.ask(&self.caller, NextDeadline, self.front).await?.out;
        let due = left.is_some_and(|left| left.is_zero());
        let now = Clock::instant();
        if !due && now < *next_look {
            let sleep = left.unwrap_or(lease_ttl).min(lease_ttl).min(*next_look - now);
            return Ok(sleep.max(SLEEP_MIN));
        }
        *next_look = now + HOUSEKEEPING;
        let mut due = self.front.shell.ask(&self.caller, Due, self.front).await?.out;
        let after = self.logs_after.lock().clone();
        let logs = self.front.shell.ask(&self.caller, DueLogs { after }, self.front).await?.out;
        due.extend(logs.due.into_iter().map(Duty::Log));
        *self.logs_after.lock() = logs.next;
        // A list that is full may have left something out.
        let full = due.len() >= self.front.shell.limits().sweep_rows_max;
        let (urgent, other): (Vec<_>, Vec<_>) = due.into_iter().partition(|duty| upkeep(duty).is_none());
        // Each of them keeps an agent busy. Together they share commits.
        let urgent = stream::iter(urgent).map(|duty| self.sweep(duty, 1)).buffer_unordered(AT_ONCE);
        let mut swept = urgent.fold(Swept::Nothing, |swept, one| async move { swept.max(one) }).await;
        // The rest gets a bounded time between two looks at leases, and each kind is the first one in turn.
        let first = self.looks.fetch_add(1, Ordering::Relaxed);
        let (files, mut other): (Vec<_>, Vec<_>) =
            other.into_iter().partition(|duty| matches!(duty, Duty::File(..)));
        let files = stream::iter(files).map(|duty| self.sweep_file(duty)).buffer_unordered(FILES_AT_ONCE);
        swept = files.fold(swept, |swept, one| async move { swept.max(one) }).await;
        other.sort_by_key(|duty| upkeep(duty).unwrap_or_default().wrapping_add(first) % UPKEEP_KINDS);
        let began = Clock::instant();
        for duty in other {
            if Clock::instant() - began >= UPKEEP_MAX {
                swept = Swept::More;
                break;
            }
            swept = swept.max(self.sweep(duty, PARTS_MAX).await);
        }
        if swept == Swept::More || (full && swept == Swept::Done) {
            // What comes in while this goes on must not get ahead of it.
            *next_look = now;
        }
        Ok(if swept == Swept::Nothing { IDLE_PAUSE } else { SLEEP_MIN })
    }

    /// A file is marked, then its contents are taken away, then its row. What fails is tried again at the next look.
    async fn sweep_file(&self, duty: Duty) -> Swept {
        let swept = self.sweep(duty.clone(), 1).await;
        if let Duty::File(session, id) = duty {
            transfer::end(self.front, session, id).await;
        }
        swept
    }

    /// One duty, in at most so many parts. One that fails does not keep the others waiting.
    async fn sweep(&self, duty: Duty, parts: usize) -> Swept {
        let mut swept = Swept::Nothing;
        for _ in 0..parts {
            match self.front.shell.run(&self.caller, Sweep(duty.clone()), self.front).await {
                Ok(told) if told.out == Swept::More => swept = Swept::More,
                Ok(told) => return swept.min(Swept::Done).max(told.out),
                Err(error) => {
                    tracing::error!(?duty, reason = %error.reason(), "a duty could not be done");
                    return Swept::Nothing;
                }
            }
        }
        swept
    }
}
