//! Keeps an open stream alive past the end of the credential that it was opened on.

use std::{
    pin::Pin,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep_until};

use crate::{clock::Clock, error::Error, gateway::Gateway, retry::is_passing};

/// A renewal that could not be made is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// One for which there was no fresher credential yet, after a quarter of what is left, within these.
const FRESHER_MIN: Duration = Duration::from_millis(100);
const FRESHER_MAX: Duration = Duration::from_secs(5);

type Answer = Result<Option<SystemTime>, Error>;

/// The renewals of one stream.
pub(crate) struct Renewal {
    gateway: Gateway,
    stream_id: String,
    clock: Clock,
    expires_at: Option<SystemTime>,
    due: Option<Instant>,
    running: Option<Pin<Box<dyn Future<Output = Answer> + Send>>>,
}

impl Renewal {
    /// For the stream `stream_id`, whose credential ends at `expires_at`.
    pub(crate) fn of(gateway: Gateway, stream_id: String, expires_at: Option<SystemTime>) -> Self {
        let clock = Clock::system();
        let due = expires_at.map(|at| Instant::now() + delay(at, clock.wall()));
        Self { gateway, stream_id, clock, expires_at, due, running: None }
    }

    /// Goes on with what is due. Returns after each renewal, never where there is none to make; may be
    /// dropped at any await and called again.
    pub(crate) async fn step(&mut self) {
        if self.running.is_none() {
            let Some(due) = self.due else { return std::future::pending().await };
            sleep_until(due).await;
            let (gateway, stream_id) = (self.gateway.clone(), self.stream_id.clone());
            self.running = Some(Box::pin(async move { gateway.renew_stream(&stream_id).await }));
        }
        let Some(running) = &mut self.running else { return };
        let answer = running.await;
        self.running = None;
        self.due = match answer {
            Ok(Some(at)) if Some(at) <= self.expires_at => self.fresher_at(at),
            Ok(at) => {
                self.expires_at = at;
                at.map(|at| Instant::now() + delay(at, self.clock.wall()))
            }
            Err(error) if is_passing(&error) => Some(Instant::now() + AGAIN),
            Err(error) => {
                tracing::debug!(%error, "a stream is not renewed; it resumes when it ends");
                None
            }
        };
    }
}

impl Renewal {
    /// The same end again: when there may be a fresher credential. Auth could not be asked for one, and the old one lives
    /// until `at`; never for a credential that is not refreshed.
    fn fresher_at(&self, at: SystemTime) -> Option<Instant> {
        let left = at.duration_since(self.clock.wall()).ok()?;
        let refreshable = self.gateway.identity().credentials.is_refreshable();
        refreshable.then(|| Instant::now() + (left / 4).clamp(FRESHER_MIN, FRESHER_MAX))
    }
}

/// A fifth of what is left before the end, at most a minute.
fn delay(at: SystemTime, now: SystemTime) -> Duration {
    let left = at.duration_since(now).unwrap_or_default();
    left.saturating_sub((left / 5).min(Duration::from_secs(60)))
}
