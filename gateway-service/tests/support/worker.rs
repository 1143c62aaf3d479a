//! A worker's side of the Work stream, message by message.

use interlock_proto::gateway::v1::{
    Held, JobState, WorkRequest, WorkResponse,
    work_request::{self, Message as Ask},
    work_response::{Assignment, Message as Told, Welcome},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{AGENT, Calls, next};

/// An open Work stream.
pub(crate) struct Worker {
    requests: mpsc::Sender<WorkRequest>,
    answers: Streaming<WorkResponse>,
    pub(crate) welcome: Welcome,
}

impl Worker {
    pub(crate) async fn open(calls: &Calls, held: Vec<Held>) -> Result<Self, Status> {
        Self::open_for(calls, AGENT, held).await
    }

    pub(crate) async fn open_for(calls: &Calls, agent: &str, held: Vec<Held>) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(16);
        let hello = work_request::Hello {
            worker: "test worker".to_owned(),
            agent_ids: vec![agent.to_owned()],
            capacity: 1,
            held,
        };
        requests.send(WorkRequest { message: Some(Ask::Hello(hello)) }).await.expect("open");
        let mut answers = calls.workers().work(ReceiverStream::new(stream)).await?.into_inner();
        let first = next(&mut answers).await?.and_then(|answer| answer.message);
        let Some(Told::Welcome(welcome)) = first else { panic!("no welcome: {first:?}") };
        Ok(Self { requests, answers, welcome })
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Told>, Status> {
        Ok(next(&mut self.answers).await?.and_then(|answer| answer.message))
    }

    pub(crate) async fn assignment(&mut self) -> Assignment {
        match self.next().await {
            Ok(Some(Told::Assignment(assignment))) => assignment,
            other => panic!("no assignment: {other:?}"),
        }
    }

    async fn ask(&self, message: Ask) {
        self.requests.send(WorkRequest { message: Some(message) }).await.expect("open");
    }

    pub(crate) async fn heartbeat(&self, held: &Held) {
        self.ask(Ask::Heartbeat(work_request::Heartbeat { held: vec![held.clone()] })).await;
    }

    pub(crate) async fn progress(&self, held: &Held, number: u64, text: &str) {
        let data = text.to_owned().into();
        self.ask(Ask::Progress(work_request::Progress { held: Some(held.clone()), number, data })).await;
    }

    pub(crate) async fn finish(&self, held: &Held, state: JobState) {
        let finish = work_request::Finish {
            held: Some(held.clone()),
            state: state.into(),
            result: "result".into(),
            cause: String::new(),
        };
        self.ask(Ask::Finish(finish)).await;
    }

    pub(crate) async fn goodbye(&self) {
        self.ask(Ask::Goodbye(work_request::Goodbye {})).await;
    }
}
