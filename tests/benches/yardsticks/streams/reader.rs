//! Reads streams of events as cheaply as can be: what is measured is the server.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use interlock_proto::gateway::v1::StreamEventsRequest;
use interlock_tests::wire;
use prost::{Message as _, encoding::decode_varint};
use tokio::{task::JoinSet, time::timeout};
use tonic::{Code, Streaming, transport::Channel};

use super::stage::Venue;

const STREAM_EVENTS: &str = "/interlock.gateway.v1.SessionService/StreamEvents";
/// Fields of `StreamEventsResponse`, each a message: `opened`, `event`, `gap`, `caught_up`.
const OPENED: u8 = 0x0a;
const EVENT: u8 = 0x12;
const CAUGHT_UP: u8 = 0x22;
/// Field `sequence` of `Event`: its first.
const SEQUENCE: u8 = 0x08;
/// How many are opened at once.
const AT_ONCE: usize = 32;
/// Nothing that is read here takes longer, or it does not come at all.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// One open stream.
pub(super) struct Reader {
    stream: Streaming<Bytes>,
    /// The newest event that it has read, or that was there when it opened.
    pub(super) last: u64,
}

impl Reader {
    /// Opens one that begins at the end of the log, and waits until it is there.
    pub(super) async fn open(channel: &Channel, venue: &Venue) -> Self {
        let request =
            StreamEventsRequest { session_id: venue.session.clone(), after: u64::MAX, from_cursor: false };
        let opened = wire::open(channel, STREAM_EVENTS, request.encode_to_vec(), &venue.metadata).await;
        let (_, stream) = opened.expect("a stream");
        let mut reader = Self { stream, last: 0 };
        let first = reader.message().await;
        assert_eq!(first.first(), Some(&OPENED), "what a stream begins with");
        let caught_up = reader.message().await;
        assert_eq!(caught_up.first(), Some(&CAUGHT_UP), "nothing after the end of a log");
        reader.last = number(&caught_up).unwrap_or(0);
        reader
    }

    /// Opens so many, on these connections in turn.
    pub(super) async fn open_all(channels: &[Channel], venue: &Venue, count: usize) -> Vec<Self> {
        let opening = (0..count).map(|n| Self::open(&channels[n % channels.len()], venue));
        let all = stream::iter(opening).buffer_unordered(AT_ONCE).collect();
        timeout(PATIENCE, all).await.expect("all open in time")
    }

    async fn after(last: u64, channel: &Channel, venue: &Venue) -> Self {
        let request =
            StreamEventsRequest { session_id: venue.session.clone(), after: last, from_cursor: false };
        let opened = wire::open(channel, STREAM_EVENTS, request.encode_to_vec(), &venue.metadata).await;
        let (_, stream) = opened.expect("a stream");
        let mut reader = Self { stream, last };
        let first = reader.message().await;
        assert_eq!(first.first(), Some(&OPENED), "what a stream begins with");
        reader
    }

    /// The next event: the one after the last.
    pub(super) async fn event(&mut self) -> Bytes {
        let message = self.message().await;
        self.step(&message);
        message
    }

    /// Reads so many on.
    pub(super) async fn read(&mut self, count: u64) {
        for _ in 0..count {
            self.event().await;
        }
    }

    /// Reads on after a long stop, up to this event. A reader that took nothing for a minute was let go, and goes
    /// on where it was: whether it had to.
    pub(super) async fn catch_up(&mut self, last: u64, channel: &Channel, venue: &Venue) -> bool {
        let mut resumed = false;
        while self.last < last {
            match self.stream.message().await {
                Ok(Some(message)) if message.first() == Some(&CAUGHT_UP) => {}
                Ok(Some(message)) => self.step(&message),
                Err(status) if status.code() == Code::ResourceExhausted && !resumed => {
                    *self = Self::after(self.last, channel, venue).await;
                    resumed = true;
                }
                ended => panic!("a stream ended after event {}: {ended:?}", self.last),
            }
        }
        resumed
    }

    fn step(&mut self, message: &Bytes) {
        assert_eq!(message.first(), Some(&EVENT), "a gap, or the end: {message:?}");
        self.last += 1;
        assert_eq!(number(message), Some(self.last), "lost, doubled, or out of order");
    }

    async fn message(&mut self) -> Bytes {
        match self.stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => panic!("a stream ended after event {}", self.last),
            Err(status) => panic!("a stream failed after event {}: {status}", self.last),
        }
    }
}

/// The number within the message in a message: `Event.sequence`, `CaughtUp.sequence`.
fn number(mut message: &[u8]) -> Option<u64> {
    message = message.get(1..)?;
    decode_varint(&mut message).ok()?;
    let mut inner = message.strip_prefix(&[SEQUENCE])?;
    decode_varint(&mut inner).ok()
}

/// Has each of them read so many on, all at once.
pub(super) fn read_all(readers: &mut Vec<Reader>, count: u64) -> JoinSet<Reader> {
    let mut reading = JoinSet::new();
    for mut reader in readers.drain(..) {
        reading.spawn(async move {
            reader.read(count).await;
            reader
        });
    }
    reading
}

/// What they give, once all have ended.
pub(super) async fn joined<T: 'static>(tasks: JoinSet<T>) -> Vec<T> {
    timeout(PATIENCE, tasks.join_all()).await.expect("all was delivered in time")
}
