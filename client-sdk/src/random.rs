//! Where randomness comes from: ids of calls and the jitter of pauses.

use std::time::Duration;

use rand::RngExt as _;

/// An id for one call. RFC 9562 version 4.
pub(crate) fn id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Between half of `span` and all of it.
pub(crate) fn jittered(span: Duration) -> Duration {
    span.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// A number below `bound`, which is at least 1.
pub(crate) fn below(bound: usize) -> usize {
    rand::rng().random_range(0..bound)
}
