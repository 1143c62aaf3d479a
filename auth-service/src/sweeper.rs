//! The rounds that clear away what has ended, and record refusals that were only counted.

use std::{sync::Arc, time::Duration};

use interlock_kit::{error::Error, health_state::Health};
use tokio_util::sync::CancellationToken;

use crate::{
    admit::Gate,
    opening::{STORE_CONDITION, UNAVAILABLE},
    parts::host_call,
    store::Shell,
    sweep::{Clear, FindDue},
};

/// Between two rounds. A round is bounded.
const PAUSE: Duration = Duration::from_secs(10);
const ACTION: &str = "sweep.clear";

/// Goes round until `shutdown`.
pub async fn run(shell: Shell, gate: Arc<Gate>, health: Health, shutdown: CancellationToken) {
    let rounds = async {
        loop {
            tokio::time::sleep(PAUSE).await;
            if let Err(error) = gate.record_counted(false).await {
                tracing::error!(%error, "counted refusals could not be recorded");
            }
            if unavailable(&health) && gate.probe_store().await.is_ok() {
                health.set(STORE_CONDITION, Ok(()));
            }
            if let Err(error) = round(&shell).await {
                tracing::error!(%error, "a sweep failed; the next one tries again");
            }
        }
    };
    shutdown.run_until_cancelled(rounds).await;
}

/// Whether the store failed in a way that may be over.
fn unavailable(health: &Health) -> bool {
    matches!(health.conditions().get(STORE_CONDITION), Some(Err(why)) if why == UNAVAILABLE)
}

/// One round: a bounded list, then one verb for each thing.
async fn round(shell: &Shell) -> Result<(), Error> {
    let due = shell.ask(&host_call(ACTION), FindDue).await?;
    for due in due {
        shell.run(&host_call(ACTION), Clear { due }).await?;
    }
    Ok(())
}
