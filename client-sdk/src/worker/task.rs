//! One attempt at one job, as a handler sees it.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use interlock_proto::gateway::v1 as wire;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::slot::Held;

/// The most that one line of progress holds.
pub(super) const PROGRESS_MAX: usize = 16 * 1024;
/// Lines that are on their way to the gateway's disk. Beyond it [`Task::progress`] waits.
pub(super) const UNSTORED_MAX: usize = 32;

/// One attempt at one job. `Debug` does not show the payload.
pub struct Task {
    pub(super) held: Held,
    pub(super) session_id: String,
    pub(super) binding: wire::Binding,
    pub(super) attempt: u32,
    pub(super) payload: Bytes,
    pub(super) run_time_left: Duration,
    pub(super) signals: Signals,
    pub(super) commands: mpsc::Sender<Command>,
}

/// What the loop tells a handler.
#[derive(Clone, Debug)]
pub(super) struct Signals {
    pub(super) cancelled: CancellationToken,
    pub(super) lost: CancellationToken,
    pub(super) room: Arc<Semaphore>,
}

/// What a handler tells the loop.
pub(super) enum Command {
    Progress(Held, Bytes),
    Done(Held, Outcome),
}

/// How an attempt ended. `Debug` does not show the result.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The job is done.
    Succeeded {
        /// 0 to 256 KiB.
        result: Bytes,
    },
    /// The job cannot be done.
    Failed {
        /// Why; the first 256 bytes are kept.
        cause: String,
        /// 0 to 256 KiB.
        result: Bytes,
    },
    /// The job was stopped because somebody asked.
    Cancelled {
        /// Why; the first 256 bytes are kept.
        cause: String,
    },
}

/// Why a line of progress was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgressError {
    /// The lease is over: stop the job.
    #[error("the lease of this attempt is over")]
    Lost,
    /// More than 16 KiB.
    #[error("a line of progress is at most 16 KiB")]
    TooLong,
}

impl Task {
    /// The job.
    #[must_use]
    pub fn job_id(&self) -> &str {
        &self.held.job_id
    }

    /// The session it was submitted to.
    #[must_use]
    pub fn session_id(&self) -> &str {
        &self.session_id
    }

    /// The agent that it is for.
    #[must_use]
    pub fn agent_id(&self) -> &str {
        &self.binding.agent_id
    }

    /// The project that it runs in.
    #[must_use]
    pub fn project_id(&self) -> &str {
        &self.binding.project_id
    }

    /// The epoch of the binding that it runs under.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.binding.epoch
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Grows with each lease of the job. Whatever the job writes elsewhere should carry it, so that a
    /// late writer can be refused.
    #[must_use]
    pub fn fencing_token(&self) -> u64 {
        self.held.fencing_token
    }

    /// What was submitted.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// How long the job might run in all, when it was assigned.
    #[must_use]
    pub fn run_time_left(&self) -> Duration {
        self.run_time_left
    }

    /// Sends a line of progress (at most 16 KiB): an event of the session's log. Returns when it is
    /// queued; waits while 32 lines are not stored yet.
    ///
    /// # Errors
    /// [`ProgressError`].
    pub async fn progress(&self, data: impl Into<Bytes>) -> Result<(), ProgressError> {
        let data = data.into();
        if data.len() > PROGRESS_MAX {
            return Err(ProgressError::TooLong);
        }
        let queued = async {
            let room = self.signals.room.acquire().await.map_err(|_| ProgressError::Lost)?;
            let place = self.commands.reserve().await.map_err(|_| ProgressError::Lost)?;
            // Nothing is taken before both are had: a caller may give up at either wait.
            room.forget();
            place.send(Command::Progress(self.held.clone(), data));
            Ok(())
        };
        tokio::select! {
            biased;
            () = self.signals.lost.cancelled() => Err(ProgressError::Lost),
            queued = queued => queued,
        }
    }

    /// Waits until somebody has asked to cancel the job. The handler then stops it and returns
    /// [`Outcome::Cancelled`].
    pub async fn cancelled(&self) {
        self.signals.cancelled.cancelled().await;
    }

    /// Waits until the lease of this attempt is over: the job is somebody else's. The handler stops
    /// what it started; what it returns has no effect.
    pub async fn lost(&self) {
        self.signals.lost.cancelled().await;
    }

    /// Whether the lease of this attempt is over.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.signals.lost.is_cancelled()
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("held", &self.held)
            .field("session_id", &self.session_id)
            .field("binding", &self.binding)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded { result } => write!(f, "Succeeded({} bytes)", result.len()),
            Self::Failed { cause, result } => write!(f, "Failed({cause:?}, {} bytes)", result.len()),
            Self::Cancelled { cause } => write!(f, "Cancelled({cause:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_line_that_was_given_up_takes_no_room() {
        let (commands, mut received) = mpsc::channel(1);
        let signals = Signals {
            cancelled: CancellationToken::new(),
            lost: CancellationToken::new(),
            room: Arc::new(Semaphore::new(UNSTORED_MAX)),
        };
        let task = Task {
            held: Held { job_id: "job_1".to_owned(), fencing_token: 1 },
            session_id: String::new(),
            binding: wire::Binding::default(),
            attempt: 1,
            payload: Bytes::new(),
            run_time_left: Duration::ZERO,
            signals,
            commands,
        };
        assert_eq!(task.progress("queued").now_or_never(), Some(Ok(())));
        for _ in 0..2 * UNSTORED_MAX {
            assert_eq!(task.progress("given up").now_or_never(), None, "the loop is behind");
        }
        assert!(received.recv().await.is_some());
        assert_eq!(task.progress("queued").now_or_never(), Some(Ok(())), "room is left");
    }
}
