//! The rounds that clear away what has ended, and record refusals that were only counted.

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use interlock_kit::{error::Error, health_state::Health};
use tokio_util::sync::CancellationToken;

use crate::{
    admit::Gate,
    limits,
    opening::{STORE_CONDITION, UNAVAILABLE},
    parts::host_call,
    store::Shell,
    sweep::{Clear, Due, FindDue},
};

/// Between two rounds. A round is bounded.
const PAUSE: Duration = Duration::from_secs(10);
/// Lists in one round.
const LISTS_MAX: u32 = 64;
const ACTION: &str = "sweep.find";

/// Between two looks at a store that has failed.
const LOOK: Duration = Duration::from_millis(500);

/// Goes round until `shutdown`.
pub async fn run(shell: Shell, gate: Arc<Gate>, health: Health, shutdown: CancellationToken) {
    let looks = async {
        loop {
            tokio::time::sleep(LOOK).await;
            // Nobody else would try, while nobody is sent here.
            if unavailable(&health) && gate.probe_store().await.is_ok() {
                health.set(STORE_CONDITION, Ok(()));
                tracing::info!("the store takes writes again");
            }
        }
    };
    let rounds = async {
        loop {
            tokio::time::sleep(PAUSE).await;
            if let Err(error) = gate.record_counted(false).await {
                tracing::error!(%error, "counted refusals could not be recorded");
            }
            if let Err(error) = round(&shell).await {
                tracing::error!(%error, "a sweep failed; the next one tries again");
            }
        }
    };
    shutdown.run_until_cancelled(async { tokio::join!(looks, rounds) }).await;
}

/// Whether the store failed in a way that may be over.
fn unavailable(health: &Health) -> bool {
    matches!(health.conditions().get(STORE_CONDITION), Some(Err(why)) if why == UNAVAILABLE)
}

/// Bounded lists until one is not full, then a pause: so what ends faster than once in a pause does not pile
/// up. One verb for each thing; those of a list share commits.
async fn round(shell: &Shell) -> Result<(), Error> {
    let call = host_call(ACTION);
    for _ in 0..LISTS_MAX {
        let due = shell.ask(&call, FindDue).await?;
        let full = due.len() >= limits::SWEEP_MAX as usize;
        let more_of_the_log = due.iter().any(|due| matches!(due, Due::Revocations(_)));
        let clear = async |due: Due| shell.run(&host_call(due.action()), Clear { due }).await;
        try_join_all(due.into_iter().map(clear)).await?;
        if !full && !more_of_the_log {
            break;
        }
    }
    Ok(())
}
