//! A client that follows a session's log over whatever breaks its streams, on the bare wire: nothing on this side of it
//! hides what comes twice, or does not come.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use interlock_proto::gateway::v1::{
    AckRequest, StreamEventsRequest, StreamEventsResponse, stream_events_response::Message,
};
use prost::Message as _;
use tokio::{task::JoinHandle, time::sleep};
use tonic::{Status, transport::Channel};

use crate::{
    patience::eventually,
    wire::{self, Metadata, Outcome},
};

const STREAM_EVENTS: &str = "/interlock.gateway.v1.SessionService/StreamEvents";
const ACK: &str = "/interlock.gateway.v1.SessionService/Ack";
/// Before a stream is opened again.
const PAUSE: Duration = Duration::from_millis(20);
/// The reasons that a stream may end with, and be opened again. A broken connection gives none.
const PASSES: [&str; 3] = ["", "DRAINING", "STORE_UNAVAILABLE"];

/// The client. It reads on where it stopped: one time by what it has seen itself, the next time by its cursor at the
/// gateway, where that took its word.
#[derive(Debug)]
pub struct Follower {
    progress: Arc<Progress>,
    reader: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Progress {
    /// The newest event that it has seen.
    last: AtomicU64,
    /// How many of its streams have ended.
    ended: AtomicUsize,
    /// ... and how many were opened at the cursor.
    by_cursor: AtomicUsize,
}

/// How often a follower had to begin again.
#[derive(Clone, Copy, Debug)]
pub struct Breaks {
    /// Streams that ended.
    pub ended: usize,
    /// Streams that went on from the cursor at the gateway.
    pub by_cursor: usize,
}

impl Follower {
    /// Follows from the beginning, as the client of this cookie.
    #[must_use]
    pub fn begin(channel: Channel, cookie: &str, session: &str) -> Self {
        let progress = Arc::<Progress>::default();
        let reader = Reader {
            channel,
            metadata: Metadata::none().with("cookie", cookie),
            session: session.to_owned(),
            progress: Arc::clone(&progress),
        };
        Self { progress, reader: tokio::spawn(reader.run()) }
    }

    /// I15: waits until it has seen each event up to this one, each once and in order.
    ///
    /// # Panics
    /// Where one was missing or came twice, or does not come.
    pub async fn reaches(&mut self, last: u64) -> Breaks {
        eventually("the whole log at a client that follows it", async || {
            if self.reader.is_finished() {
                (&mut self.reader).await.expect("I15: the log that was followed");
            }
            (self.progress.last.load(Ordering::SeqCst) >= last).then_some(())
        })
        .await;
        assert_eq!(self.progress.last.load(Ordering::SeqCst), last, "I15: events that are not in the log");
        let count = |n: &AtomicUsize| n.load(Ordering::Relaxed);
        Breaks { ended: count(&self.progress.ended), by_cursor: count(&self.progress.by_cursor) }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct Reader {
    channel: Channel,
    metadata: Metadata,
    session: String,
    progress: Arc<Progress>,
}

impl Reader {
    async fn run(self) {
        let mut by_cursor = false;
        loop {
            let last = self.progress.last.load(Ordering::SeqCst);
            let from_cursor = by_cursor && self.ack(last).await;
            by_cursor = !by_cursor;
            let after = if from_cursor { 0 } else { last };
            let request = StreamEventsRequest { session_id: self.session.clone(), after, from_cursor };
            let Err(ended) = self.read(request).await;
            let reason = Outcome::of(&ended).reason;
            assert!(PASSES.contains(&reason.as_str()), "a stream that ends for no reason: {ended:?}");
            self.progress.ended.fetch_add(1, Ordering::Relaxed);
            self.progress.by_cursor.fetch_add(usize::from(from_cursor), Ordering::Relaxed);
            sleep(PAUSE).await;
        }
    }

    /// Whether the gateway knows by now how far it has read.
    async fn ack(&self, sequence: u64) -> bool {
        let ack = AckRequest { session_id: self.session.clone(), sequence };
        wire::ask(&self.channel, ACK, &ack, &self.metadata).await.outcome == Outcome::ok()
    }

    async fn read(&self, request: StreamEventsRequest) -> Result<std::convert::Infallible, Status> {
        let (_, mut messages) =
            wire::open(&self.channel, STREAM_EVENTS, request.encode_to_vec(), &self.metadata).await?;
        loop {
            let message = messages.message().await?.expect("no end without a reason");
            match StreamEventsResponse::decode(message).expect("a message").message.expect("one of them") {
                Message::Event(event) => {
                    let before = self.progress.last.swap(event.sequence, Ordering::SeqCst);
                    assert_eq!(event.sequence, before + 1, "I15: {event:?}");
                }
                Message::Gap(gap) => panic!("retention took {gap:?}"),
                Message::Opened(_) | Message::CaughtUp(_) => {}
            }
        }
    }
}
