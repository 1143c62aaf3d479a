//! The way out of a stream: a short buffer between the task that makes messages and the connection.
//!
//! What is buffered is delivered only while the ground that the stream stands on holds: the ground is asked
//! again for each message as it leaves, so that nothing leaves after a revocation was acknowledged, whatever
//! was buffered before. A reader that takes nothing for [`STALL`] is let go; it resumes where it was.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use interlock_kit::error::{Error, Reason};
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, error::TrySendError};
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
    /// Boxed: the places of a channel are kept as long as it lives, on streams where nothing happens, too.
    messages: mpsc::Sender<Box<T>>,
    end: Arc<Mutex<Option<Error>>>,
    standing: Arc<Standing>,
    when_lapsed: WhenLapsed,
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
    let outlet = Outlet { messages, end: Arc::clone(&end), standing: Arc::clone(&standing), when_lapsed };
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
    /// [`Gone`]: the reader left, took nothing for [`STALL`], or may have nothing any more.
    pub(crate) async fn send(&self, message: T) -> Result<(), Gone> {
        // Whether it may leave is asked as it does: here only whether there is room.
        let message = match self.messages.try_send(Box::new(message)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Gone),
            Err(TrySendError::Full(message)) => message,
        };
        if let Some(place) = self.room(1).await?.next() {
            place.send(message);
        }
        Ok(())
    }

    /// Waits until all that was put in has left.
    ///
    /// # Errors
    /// As [`Outlet::send`].
    pub(crate) async fn flushed(&self) -> Result<(), Gone> {
        self.room(self.messages.max_capacity()).await.map(drop)
    }

    async fn room(&self, places: usize) -> Result<mpsc::PermitIterator<'_, Box<T>>, Gone> {
        loop {
            let waited = tokio::select! {
                biased;
                // Whoever does not read would not hear of it: nothing here waits for that.
                _ = self.standing.ended() => return Err(Gone),
                waited = tokio::time::timeout(STALL, self.messages.reserve_many(places)) => waited,
            };
            match waited {
                Ok(Ok(room)) => return Ok(room),
                Ok(Err(_)) => return Err(Gone),
                // A paused stream is not the reader's doing.
                Err(_) if self.when_lapsed == WhenLapsed::Hold && !self.standing.delivers() => {}
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
    received: mpsc::Receiver<Box<T>>,
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
        // What is here and may leave leaves at once.
        if self.standing.delivers()
            && let Ok(message) = self.received.try_recv()
        {
            return Some(Ok(*message));
        }
        let standing = Arc::clone(&self.standing);
        let outcome = tokio::select! {
            biased;
            reason = standing.ended() => Err(ground_gone(reason)),
            next = self.deliverable() => next,
        };
        match outcome {
            Ok(Some(message)) => Some(Ok(*message)),
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

    async fn deliverable(&mut self) -> Result<Option<Box<T>>, Error> {
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

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use interlock_client::{
        Connection,
        verifier::{Verifier, VerifierOptions},
    };

    use super::*;

    fn on_a_cookie() -> Arc<Standing> {
        let nowhere = Connection::to("http://127.0.0.1:1").open().expect("lazy");
        Arc::new(Standing::on(&Verifier::start(nowhere, VerifierOptions::named("test")), None, None))
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_leaves_before_the_reason_of_the_end() {
        let (outlet, mut answers) = open(4, on_a_cookie(), WhenLapsed::Hold, "req-1");
        outlet.send(1).await.expect("room");
        outlet.send(2).await.expect("room");
        outlet.close(Error::new(Reason::SessionEnded, "ended"));
        outlet.close(Error::new(Reason::Internal, "too late"));
        drop(outlet);
        assert_eq!(answers.next().await.expect("one").expect("a message"), 1);
        assert_eq!(answers.next().await.expect("two").expect("a message"), 2);
        let status = answers.next().await.expect("an end").expect_err("a reason");
        assert_eq!((status.code(), status.message()), (tonic::Code::FailedPrecondition, "ended"));
        assert!(answers.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_let_go_and_one_that_left_is_noticed() {
        let (outlet, mut answers) = open(1, on_a_cookie(), WhenLapsed::Hold, "req-1");
        outlet.send(1).await.expect("room");
        assert_eq!(outlet.send(2).await, Err(Gone), "after the stall");
        drop(outlet);
        assert_eq!(answers.next().await.expect("one").expect("a message"), 1);
        let status = answers.next().await.expect("an end").expect_err("a reason");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);

        let (outlet, answers) = open(1, on_a_cookie(), WhenLapsed::Hold, "req-1");
        drop(answers);
        outlet.gone().await;
        assert_eq!(outlet.send(1).await, Err(Gone));
    }
}
