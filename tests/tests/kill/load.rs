//! Loads that keep a record of every answer they got, and read it back.

pub(crate) mod auth;
pub(crate) mod gateway;
pub(crate) mod works;

use std::time::Duration;

use interlock_client::{Code, Error};

/// Whether the answer was lost or refused because the service was away: the same call is made again. Every
/// other error is a fault.
pub(crate) fn was_away(error: &Error) -> bool {
    error.is_transport()
        || matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}

/// Before such a call is made again: as long as the server asks for, within reason. A refused connection is
/// refused at once, and others want the processor meanwhile.
pub(crate) async fn again_after(error: &Error) {
    let pause = error.retry_after().unwrap_or(SHORTEST_PAUSE);
    tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
