//! Removes old rows of an audit log, a bounded part at a time.

use std::{future::Future, time::Duration};

use crate::{
    clock::Clock,
    error::Error,
    store::audit::{Retention, Trail, Trim},
};

/// Between two parts: callers come first.
const PART_PAUSE: Duration = Duration::from_millis(20);

/// Looks each `every` for what retention says goes, until it is dropped. `trim` runs the verb that removes a part.
pub async fn run<F, T>(trail: Trail, clock: Clock, retention: Retention, every: Duration, trim: F)
where
    F: Fn(Trim) -> T,
    T: Future<Output = Result<(), Error>>,
{
    loop {
        match part(&trail, &clock, retention, &trim).await {
            Ok(true) => tokio::time::sleep(PART_PAUSE).await,
            Ok(false) => tokio::time::sleep(every).await,
            Err(error) => {
                tracing::warn!(%error, "old rows of the audit log could not be removed; the next round tries again");
                tokio::time::sleep(every).await;
            }
        }
    }
}

/// Whether a part has gone.
async fn part<F, T>(trail: &Trail, clock: &Clock, retention: Retention, trim: &F) -> Result<bool, Error>
where
    F: Fn(Trim) -> T,
    T: Future<Output = Result<(), Error>>,
{
    let (trail, now) = (trail.clone(), clock.now());
    let due = tokio::task::spawn_blocking(move || trail.due(&retention, now)).await;
    let Some(due) = due.map_err(Error::internal)?? else { return Ok(false) };
    let (rows, through) = (due.rows(), due.through());
    trim(due).await?;
    tracing::info!(rows, through, "old rows of the audit log were removed");
    Ok(true)
}
