//! The rest after a try to connect that failed: however many calls wait for a connection, a service that is away
//! is not stormed.
//!
//! Each failure is followed by a pause with jitter; pauses grow while failures follow each other. A call that comes
//! in a pause fails as the last try did, at once, and its caller decides when to make it again: nobody queues.

use std::{io, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::retry::Backoff;

const FIRST: Duration = Duration::from_millis(50);
/// Less than the shortest deadline that a call would sensibly have.
const LONGEST: Duration = Duration::from_millis(100);

/// When the next try to connect may be made.
#[derive(Debug)]
pub(crate) struct Rest(Mutex<State>);

#[derive(Debug)]
struct State {
    backoff: Backoff,
    /// Until when nobody tries, and what the last try ended in.
    resting: Option<(Instant, io::ErrorKind, String)>,
}

impl Rest {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State { backoff: Backoff::new(FIRST, LONGEST), resting: None }))
    }

    /// How long the present pause goes on.
    pub(crate) fn left(&self) -> Duration {
        let state = self.0.lock();
        let until = state.resting.as_ref().map(|(until, ..)| *until);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Whether a try may be made now.
    ///
    /// # Errors
    /// What the last try ended in, during the pause after it.
    pub(crate) fn is_over(&self) -> io::Result<()> {
        match &self.0.lock().resting {
            Some((until, kind, text)) if Instant::now() < *until => Err(io::Error::new(*kind, text.clone())),
            _ => Ok(()),
        }
    }

    /// A try has failed: the pause begins, or grows.
    pub(crate) fn begin(&self, error: &io::Error) {
        let mut state = self.0.lock();
        let until = Instant::now() + state.backoff.pause(None);
        state.resting = Some((until, error.kind(), error.to_string()));
    }

    /// A try has succeeded.
    pub(crate) fn end(&self) {
        let mut state = self.0.lock();
        state.backoff.reset();
        state.resting = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tries_grow_apart_and_calls_in_between_fail_alike() {
        let rest = Rest::new();
        let mut tries = 0;
        for _ in 0..10_000 {
            match rest.is_over() {
                Ok(()) => {
                    tries += 1;
                    rest.begin(&io::Error::new(io::ErrorKind::ConnectionRefused, "refused"));
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused),
            }
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!((95..=205).contains(&tries), "{tries} tries in 10 s");
        assert!(rest.left() <= LONGEST);
        rest.end();
        assert!(rest.left().is_zero() && rest.is_over().is_ok());
    }
}
