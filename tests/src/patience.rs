//! Waiting for conditions. Nothing here waits for time to pass: it looks again until the condition holds,
//! and gives up after one overall bound.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// Nothing in these tests takes longer, or it does not come at all.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(10);

/// What the condition gives, once it gives something.
///
/// # Panics
/// After [`PATIENCE`], saying what did not come.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come within {} s", PATIENCE.as_secs());
        sleep(LOOK).await;
    }
}

/// What the future gives.
///
/// # Panics
/// After [`PATIENCE`], saying what did not come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    within_times(1, what, future).await
}

/// As [`within`], for what is so many times as much as usual.
///
/// # Panics
/// After as many times [`PATIENCE`], saying what did not come.
pub async fn within_times<T>(times: u32, what: &str, future: impl Future<Output = T>) -> T {
    let patience = times * PATIENCE;
    match timeout(patience, future).await {
        Ok(found) => found,
        Err(_) => panic!("{what} did not come within {} s", patience.as_secs()),
    }
}

/// As [`eventually`], for tests without a runtime: until the condition holds.
///
/// # Panics
/// After [`PATIENCE`], saying what did not come.
pub fn eventually_sync(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what} did not come within {} s", PATIENCE.as_secs());
        std::thread::sleep(LOOK);
    }
}
