//! A worker on the bare wire: whatever its program could say, at whatever time, and what it hears.

use interlock_proto::gateway::v1::{
    Held, JobState, WorkRequest, WorkResponse,
    work_request::{Finish, Hello, Message as Ask},
    work_response::{Assignment, Message as Say, Welcome},
    worker_service_client::WorkerServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::{patience::within, wire::Metadata};

/// A worker's stream. Dropped: cut off, without a goodbye.
#[derive(Debug)]
pub struct Line {
    asks: mpsc::UnboundedSender<WorkRequest>,
    says: Streaming<WorkResponse>,
    /// What it was welcomed with.
    pub welcome: Welcome,
}

impl Line {
    /// Opens one for an agent, with room for one job, that says it holds these.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn open(channel: Channel, metadata: &Metadata, agent: &str, held: Vec<Held>) -> Self {
        let (asks, out) = mpsc::unbounded_channel();
        let agent_ids = vec![agent.to_owned()];
        let hello = Hello { worker: "bare".to_owned(), agent_ids, capacity: 1, held };
        asks.send(WorkRequest { message: Some(Ask::Hello(hello)) }).expect("open");
        let request = metadata.on(UnboundedReceiverStream::new(out));
        let opened = WorkerServiceClient::new(channel).work(request).await;
        let mut says = opened.expect("they serve this agent").into_inner();
        let first = within("a welcome", says.message()).await.expect("living").expect("a message").message;
        let Some(Say::Welcome(welcome)) = first else { panic!("no welcome: {first:?}") };
        Self { asks, says, welcome }
    }

    /// Says something.
    ///
    /// # Panics
    /// Where the stream is over.
    pub fn ask(&self, message: Ask) {
        self.asks.send(WorkRequest { message: Some(message) }).expect("open");
    }

    /// Says how a job ended.
    pub fn finish(&self, held: &Held, state: JobState, result: &str) {
        let (held, result) = (Some(held.clone()), result.to_owned().into_bytes().into());
        self.ask(Ask::Finish(Finish { held, state: state.into(), result, cause: String::new() }));
    }

    /// The next word.
    ///
    /// # Panics
    /// Where none comes.
    pub async fn said(&mut self) -> Say {
        let said = within("a word from the gateway", self.says.message()).await;
        said.expect("living").expect("a message").message.expect("one of them")
    }

    /// The first word of a kind; others are passed over.
    ///
    /// # Panics
    /// Where none comes.
    pub async fn hears<T>(&mut self, fits: impl Fn(Say) -> Option<T>) -> T {
        loop {
            if let Some(found) = fits(self.said().await) {
                return found;
            }
        }
    }

    /// The next job.
    ///
    /// # Panics
    /// Where none comes.
    pub async fn assignment(&mut self) -> Assignment {
        self.hears(|said| match said {
            Say::Assignment(assignment) => Some(assignment),
            _ => None,
        })
        .await
    }
}
