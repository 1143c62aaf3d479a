//! Loads that keep a record of every answer they got, and read it back.

pub(crate) mod auth;
pub(crate) mod gateway;

use interlock_client::{Code, Error};

/// Whether the answer was lost or refused because the service was away: the same call is made again. Every
/// other error is a fault.
pub(crate) fn was_away(error: &Error) -> bool {
    error.is_transport()
        || matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}
