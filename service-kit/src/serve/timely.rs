//! A request body that must be whole in time.
//!
//! A parked call has no deadline of the server's: its answer waits by design. Its question does not, and a
//! body that never ends would hold a parked call's place for as long as its connection lives.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, body::Body};

use super::answer::DEADLINE;

/// The body, until `late`.
pub(super) struct Timely {
    body: Body,
    late: Pin<Box<Sleep>>,
}

impl Timely {
    pub(super) fn new(body: Body, late: Instant) -> Self {
        Self { body, late: Box::pin(sleep_until(late)) }
    }
}

impl http_body::Body for Timely {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => {
                this.late.as_mut().poll(cx).map(|()| Some(Err(Status::deadline_exceeded(DEADLINE))))
            }
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
