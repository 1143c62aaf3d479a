//! The loop that ends what is over: leases at their deadlines, and the rest now and then.
//!
//! A lease that ends frees its agent, so it is ended at its instant: the loop sleeps until the earliest deadline,
//! never longer than a lease lives. A lease granted meanwhile ends later than that sleep does, so none is missed
//! and nothing has to wake the loop.

use std::{sync::Arc, time::Duration};

use interlock_kit::{clock::Clock, error::Error};

use crate::{
    caller::Caller,
    grpc::Front,
    sweep::{Due, Duty, NextDeadline, Sweep, Swept},
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
const PARTS_MAX: usize = 16;
/// How often counted refusals are written.
const FLUSH: Duration = Duration::from_secs(10);

/// Sweeps until the gateway drains.
pub(crate) async fn run(front: Arc<Front>) {
    let sweeper = Sweeper { caller: Caller::gateway(), front: &front };
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

struct Sweeper<'a> {
    front: &'a Front,
    caller: Caller,
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
        let deadline = self.front.shell.ask(&self.caller, NextDeadline, self.front).await?.out;
        let left = deadline.map(|at| at.since(self.front.clock.now()));
        let due = left.is_some_and(|left| left.is_zero());
        let now = Clock::instant();
        if !due && now < *next_look {
            let sleep = left.unwrap_or(lease_ttl).min(lease_ttl).min(*next_look - now);
            return Ok(sleep.max(SLEEP_MIN));
        }
        *next_look = now + HOUSEKEEPING;
        let mut swept = false;
        for duty in self.front.shell.ask(&self.caller, Due, self.front).await?.out {
            swept |= self.sweep(duty).await;
        }
        Ok(if swept { SLEEP_MIN } else { IDLE_PAUSE })
    }

    /// One duty, in bounded parts; whether it changed anything. One that fails does not keep the others
    /// waiting.
    async fn sweep(&self, duty: Duty) -> bool {
        let mut swept = false;
        for _ in 0..PARTS_MAX {
            match self.front.shell.run(&self.caller, Sweep(duty.clone()), self.front).await {
                Ok(told) => {
                    swept |= told.out != Swept::Nothing;
                    if told.out != Swept::More {
                        return swept;
                    }
                }
                Err(error) => {
                    tracing::error!(?duty, reason = %error.reason(), "a duty could not be done");
                    return false;
                }
            }
        }
        swept
    }
}
