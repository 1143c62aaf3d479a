//! Which clients were seen lately: so that a call by cookie costs a write of its own only now and then.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::caller::CookieHash;

/// Clients that are remembered; beyond it all are noted again.
const REMEMBERED_MAX: usize = 65_536;

/// When each client was last noted as seen.
#[derive(Debug)]
pub(crate) struct Presence {
    noted: Mutex<HashMap<CookieHash, Instant>>,
    step: Duration,
}

impl Presence {
    /// Nobody yet. Each client is noted once in `step`.
    pub(crate) fn new(step: Duration) -> Self {
        Self { noted: Mutex::default(), step }
    }

    /// Whether this client is to be noted as seen now. It is not asked for again within a step.
    pub(crate) fn is_due(&self, client: &CookieHash, now: Instant) -> bool {
        let mut noted = self.noted.lock();
        if noted.get(client).is_some_and(|at| now.saturating_duration_since(*at) < self.step) {
            return false;
        }
        if noted.len() >= REMEMBERED_MAX {
            noted.clear();
        }
        noted.insert(*client, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_noted_once_in_a_step() {
        let presence = Presence::new(Duration::from_secs(60));
        let start = interlock_kit::clock::Clock::instant();
        assert!(presence.is_due(&[1; 32], start));
        assert!(!presence.is_due(&[1; 32], start + Duration::from_secs(59)));
        assert!(presence.is_due(&[2; 32], start + Duration::from_secs(59)), "another one");
        assert!(presence.is_due(&[1; 32], start + Duration::from_secs(60)));
    }
}
