//! The worker loop: takes jobs of agents, runs a handler for each, and keeps the right to them.
//!
//! - Heartbeats go out three times in a lease's life. The worker counts each lease itself, from before
//!   the heartbeat was sent: when the count runs out it stops the job, whether or not it hears so.
//! - A broken stream is opened again, naming the jobs in hand; progress and outcomes that were not
//!   acknowledged are sent again, and have one effect.
//! - [`Task::lost`] says that the job is somebody else's now: the handler stops what it started. One
//!   that does not is dropped five seconds later.
//! - A service on the gateway's internal listener works as itself where the gateway lists it (`service_workers_file`): a
//!   connection with its certificate and the internal token, and no credential.
//! - At shutdown running jobs may finish within [`Worker::drain`]; what is left is given back.

mod engine;
mod link;
mod slot;
mod task;

use std::time::Duration;

pub use task::{Outcome, ProgressError, Task};

use crate::{error::Error, gateway::Gateway};

/// Runs jobs for agents.
#[derive(Clone, Debug)]
pub struct Worker {
    gateway: Gateway,
    agents: Vec<String>,
    capacity: u32,
    name: String,
    drain: Duration,
}

impl Worker {
    /// A worker called `name` (1 to 64 characters, for people) that runs at most `capacity` (1 to 64)
    /// jobs of `agents` (1 to 32) at once.
    #[must_use]
    pub fn new(gateway: Gateway, agents: Vec<String>, capacity: u32, name: impl Into<String>) -> Self {
        Self { gateway, agents, capacity, name: name.into(), drain: Duration::ZERO }
    }

    /// How long running jobs may go on after shutdown was asked for. Not at all by default: they are
    /// given back, and other workers start them anew.
    #[must_use]
    pub fn drain(mut self, at_most: Duration) -> Self {
        self.drain = at_most;
        self
    }

    /// Works until `shutdown` is ready, or until the gateway refuses this worker for good. `handler`
    /// is called for each job, and its future runs as a task of its own.
    ///
    /// # Errors
    /// The refusal: `UNAUTHENTICATED`, `PERMISSION_DENIED`, `INVALID_ARGUMENT`. All else is survived.
    pub async fn run<H, F>(self, handler: H, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error>
    where
        H: Fn(Task) -> F + Send,
        F: Future<Output = Outcome> + Send + 'static,
    {
        if !(1..=64).contains(&self.capacity) {
            return Err(Error::invalid("capacity", "1 to 64"));
        }
        engine::Engine::new(self, handler).run(shutdown).await
    }
}
