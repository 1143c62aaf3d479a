//! Makes events: workers that each hold a job and write lines of progress.

use bytes::Bytes;
use interlock_proto::gateway::v1::{
    Held, WorkRequest, WorkResponse,
    work_request::{Hello, Message as Ask, Progress},
    work_response::Message as Say,
    worker_service_client::WorkerServiceClient,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{reader::joined, stage::Venue};

/// Lines of a voice that may be unanswered.
const AHEAD: u64 = 32;
/// Connections that voices share.
const CONNECTIONS: usize = 4;

/// One worker with one job.
pub(super) struct Voice {
    asks: mpsc::Sender<WorkRequest>,
    says: Streaming<WorkResponse>,
    held: Held,
    said: u64,
    stored: u64,
}

/// So many of them.
pub(super) struct Voices(Vec<Voice>);

impl Voice {
    async fn open(channel: Channel, venue: &Venue) -> Self {
        let (asks, out) = mpsc::channel(64);
        let hello = Hello {
            worker: "voice".to_owned(),
            agent_ids: vec![venue.agent.clone()],
            capacity: 1,
            held: Vec::new(),
        };
        let first = WorkRequest { message: Some(Ask::Hello(hello)) };
        asks.send(first).await.expect("room");
        let mut client = WorkerServiceClient::new(channel);
        let opened = client.work(venue.metadata.on(ReceiverStream::new(out))).await;
        let mut says = opened.expect("a worker's stream").into_inner();
        let held = loop {
            if let Say::Assignment(assignment) = heard(&mut says).await {
                break assignment.held.expect("a right to it");
            }
        };
        Self { asks, says, held, said: 0, stored: 0 }
    }

    /// Says one line, and waits for no answer but those of lines long before.
    pub(super) async fn say(&mut self, data: Bytes) {
        while self.said - self.stored >= AHEAD {
            self.answer().await;
        }
        self.said += 1;
        let line = Progress { held: Some(self.held.clone()), number: self.said, data };
        self.asks.send(WorkRequest { message: Some(Ask::Progress(line)) }).await.expect("an open stream");
    }

    /// Waits until all that was said is stored.
    pub(super) async fn quiet(&mut self) {
        while self.stored < self.said {
            self.answer().await;
        }
    }

    async fn answer(&mut self) {
        match heard(&mut self.says).await {
            Say::ProgressStored(line) => self.stored = line.number,
            Say::LeaseLost(lost) => panic!("a worker lost its job: {lost:?}"),
            _ => {}
        }
    }
}

impl Voices {
    /// Opens so many; each gets a job.
    pub(super) async fn open(venue: &Venue, count: usize) -> Self {
        let channels: Vec<_> = (0..CONNECTIONS.min(count)).map(|_| venue.connect()).collect();
        let mut opening = JoinSet::new();
        for n in 0..count {
            let (channel, venue) = (channels[n % channels.len()].clone(), venue.clone());
            opening.spawn(async move { Voice::open(channel, &venue).await });
        }
        Self(joined(opening).await)
    }

    /// Makes so many events, as fast as they are taken, and returns once all are stored.
    pub(super) async fn burst(&mut self, events: u64, data: &Bytes) {
        let (voices, mut speaking) = (self.0.len() as u64, JoinSet::new());
        for (n, mut voice) in self.0.drain(..).enumerate() {
            let (lines, data) = ((events + voices - 1 - n as u64) / voices, data.clone());
            speaking.spawn(async move {
                for _ in 0..lines {
                    voice.say(data.clone()).await;
                }
                voice.quiet().await;
                voice
            });
        }
        self.0 = joined(speaking).await;
    }

    /// The first.
    pub(super) fn one(&mut self) -> &mut Voice {
        &mut self.0[0]
    }
}

async fn heard(says: &mut Streaming<WorkResponse>) -> Say {
    let said = says.message().await.expect("a living stream").expect("no end");
    said.message.expect("one of its messages")
}
