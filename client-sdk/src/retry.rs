//! When a call is made again, and when not.
//!
//! Only where the method's own policy says that repeating it has one effect, only after failures that
//! say "not now" (`UNAVAILABLE`, a broken connection), never past the deadline, and never before the
//! delay that the server asked for.

use std::time::Duration;

use interlock_proto::policy::Policies;

use crate::{
    error::{Code, Error, Reason},
    random,
};

/// Growing pauses with jitter: each between half and all of a span that doubles up to a ceiling.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    first: Duration,
    most: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, first, most }
    }

    /// The next pause, at least as long as the server asked for.
    pub(crate) fn pause(&mut self, asked: Option<Duration>) -> Duration {
        let span = self.next;
        self.next = (span * 2).min(self.most);
        random::jittered(span).max(asked.unwrap_or_default())
    }

    /// Something went well: start small again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Whether the method at `path` may be repeated after a lost answer.
pub(crate) fn is_idempotent(path: &str) -> bool {
    Policies::all().of(path).is_some_and(|policy| policy.idempotent)
}

/// Whether the failure says "not now", rather than "no".
pub(crate) fn is_passing(error: &Error) -> bool {
    error.code() == Code::Unavailable
}

/// How long a stream that broke is worth another try.
///
/// A refusal is final. What passes is tried for ever, in growing pauses; a fault of the server, or an
/// expired credential that was refreshed in vain, only a few times in a row.
#[derive(Debug)]
pub(crate) struct Patience {
    backoff: Backoff,
    strikes: u32,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)), strikes: 0 }
    }

    /// Something was received: what went wrong before is over.
    pub(crate) fn progressed(&mut self) {
        self.backoff.reset();
        self.strikes = 0;
    }

    /// The pause before the next try; `None` where there is none. `refreshable`: whether a fresh
    /// credential can be had.
    pub(crate) fn judge(&mut self, error: &Error, refreshable: bool) -> Option<Duration> {
        let tries = match (error.code(), error.reason()) {
            (_, Some(Reason::Revoked | Reason::Evicted | Reason::SessionEnded)) => 0,
            (_, Some(Reason::TokenExpired)) => 2 * u32::from(refreshable),
            (
                Code::Unavailable
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::Cancelled,
                _,
            ) => u32::MAX,
            (Code::Internal | Code::Unknown | Code::DataLoss, _) => 5,
            _ => 0,
        };
        if tries != u32::MAX {
            self.strikes += 1;
            if self.strikes > tries {
                return None;
            }
        }
        Some(self.backoff.pause(error.retry_after()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path;

    #[test]
    fn only_methods_whose_policy_says_so_are_repeated() {
        assert!(is_idempotent(path::SUBMIT_JOB));
        assert!(!is_idempotent(path::LOGIN));
        assert!(!is_idempotent("/no.such.Service/Method"));
    }

    #[test]
    fn every_path_is_a_method_of_ours() {
        for path in path::ALL {
            assert!(Policies::all().of(path).is_some(), "{path}");
        }
    }

    #[test]
    fn pauses_grow_to_a_ceiling_and_honour_the_server() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(200));
        for most in [50, 100, 200, 200, 200] {
            let pause = backoff.pause(None).as_millis();
            assert!(pause >= most / 2 && pause <= most, "{pause} of {most}");
        }
        assert!(backoff.pause(Some(Duration::from_secs(9))) >= Duration::from_secs(9));
        backoff.reset();
        assert!(backoff.pause(None) <= Duration::from_millis(50));
    }
}
