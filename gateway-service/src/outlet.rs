//! The way out of a stream: a short buffer between the task that makes messages and the connection.
//!
//! What is buffered is delivered only while the ground that the stream stands on holds: the ground is asked
//! again for each message as it leaves, so that nothing leaves after a revocation was acknowledged, whatever
//! was buffered before. A reader that takes nothing for [`STALL`] is let go; it resumes where it was.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use interlock_kit::error::{Error, Reason};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::Status;

use crate::standing::Standing;

/// How long a reader may take nothing.
pub(crate) const STALL: Duration = Duration::from_secs(60);

/// What a streaming method answers with.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a lapsed lease does to the messages of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenLapsed {
    /// They wait.
    Hold,
    /// They leave: their makers have judged them.
    Deliver,
}

/// The end that messages are put into. Dropped: the stream ends, with the reason it was closed for.
#[derive(Debug)]
pub(crate) struct Outlet<T> {
    messages: mpsc::Sender<T>,
    end: Arc<Mutex<Option<Error>>>,
    standing: Arc<Standing>,
}

/// The reader has gone, or takes nothing: there is nobody to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// An outlet for `room` messages, and the stream behind it.
pub(crate) fn open<T: Send + 'static>(
    room: usize,
    standing: Arc<Standing>,
    when_lapsed: WhenLapsed,
    request_id: &str,
) -> (Outlet<T>, Answers<T>) {
    let (messages, received) = mpsc::channel(room);
    let end = Arc::new(Mutex::new(None));
    let outlet = Outlet { messages, end: Arc::clone(&end), standing: Arc::clone(&standing) };
    let tail = Tail { received, end, standing, when_lapsed, request_id: request_id.to_owned(), over: false };
    let answers = stream::unfold(tail, |mut tail| async {
        let next = tail.next().await?;
        Some((next, tail))
    });
    (outlet, Box::pin(answers))
}

impl<T> Outlet<T> {
    /// Puts a message in, and waits while there is no room.
    ///
    /// # Errors
    /// [`Gone`]: the reader left, or took nothing for [`STALL`].
    pub(crate) async fn send(&self, message: T) -> Result<(), Gone> {
        loop {
            match tokio::time::timeout(STALL, self.messages.reserve()).await {
                Ok(Ok(place)) => {
                    place.send(message);
                    return Ok(());
                }
                Ok(Err(_)) => return Err(Gone),
                // A paused stream is not the reader's doing.
                Err(_) if !self.standing.delivers() => {}
                Err(_) => {
                    self.close(Error::new(Reason::TooSlow, "the stream was not read; resume where you were"));
                    return Err(Gone);
                }
            }
        }
    }

    /// Says why the stream ends, once all that is buffered has left. The first reason stands.
    pub(crate) fn close(&self, error: Error) {
        self.end.lock().get_or_insert(error);
    }

    /// Waits until the reader has gone.
    pub(crate) async fn gone(&self) {
        self.messages.closed().await;
    }
}

struct Tail<T> {
    received: mpsc::Receiver<T>,
    end: Arc<Mutex<Option<Error>>>,
    standing: Arc<Standing>,
    when_lapsed: WhenLapsed,
    request_id: String,
    over: bool,
}

impl<T> Tail<T> {
    async fn next(&mut self) -> Option<Result<T, Status>> {
        if self.over {
            return None;
        }
        let standing = Arc::clone(&self.standing);
        let outcome = tokio::select! {
            biased;
            reason = standing.ended() => Err(ground_gone(reason)),
            next = self.deliverable() => next,
        };
        match outcome {
            Ok(Some(message)) => Some(Ok(message)),
            Ok(None) => {
                self.over = true;
                let error = self.end.lock().take()?;
                Some(Err(error.to_status(&self.request_id)))
            }
            Err(error) => {
                self.over = true;
                // Whoever makes messages for this stream sees that it is closed.
                self.received.close();
                Some(Err(error.to_status(&self.request_id)))
            }
        }
    }

    async fn deliverable(&mut self) -> Result<Option<T>, Error> {
        let message = self.received.recv().await;
        if message.is_some() && self.when_lapsed == WhenLapsed::Hold {
            self.standing.open().await.map_err(ground_gone)?;
        }
        Ok(message)
    }
}

/// Why something long-lived ends when its ground has gone.
pub(crate) fn ground_gone(reason: Reason) -> Error {
    let message = match reason {
        Reason::Revoked => "the credential was revoked",
        Reason::TokenExpired => "the credential has expired; renew the stream or resume with a fresh one",
        _ => "the credential holds no longer",
    };
    Error::new(reason, message)
}
