//! Delivers events to cursors: one ring in memory that all of them read, and a wake-up of all of them when it has
//! grown. No store, no decision, no task of a cursor's own. Events have the shape and size of the real ones, and
//! each is encoded for each cursor, as any server of generated code does.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use interlock_kit::clock::Clock;
use interlock_proto::gateway::v1::{
    self as wire, AckRequest, AckResponse, AttachSessionRequest, AttachSessionResponse, Binding, CaughtUp,
    CloseSessionRequest, CloseSessionResponse, CreateSessionRequest, CreateSessionResponse, Event,
    GetSessionRequest, GetSessionResponse, Held, JobProgress, ListSessionsRequest, ListSessionsResponse,
    RenewStreamRequest, RenewStreamResponse, StreamEventsRequest, StreamEventsResponse, StreamOpened,
    WorkRequest, WorkResponse, event, session_service_server::SessionService, stream_events_response,
    work_request, work_response, worker_service_server::WorkerService,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Events that the ring keeps: a cursor that is further behind is cut off.
const RING_MAX: usize = 16_384;
/// What a cursor takes out of the ring at once.
const TAKEN_MAX: usize = 64;
/// Answers on their way to one worker.
const ROOM: usize = 64;
const JOB: &str = "job_0190a3b0f5d27c5e8a1b2c3d4e5f6071";
const STREAM: &str = "str_0190a3b0f5d27c5e8a1b2c3d4e5f6071";
const PROJECT: &str = "prj_0190a3b0f5d27c5e8a1b2c3d4e5f6071";

/// What is told to cursors.
type Told = Result<StreamEventsResponse, Status>;

pub(crate) struct Ring {
    kept: RwLock<Kept>,
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    /// The number of the newest one.
    last: u64,
    messages: VecDeque<StreamEventsResponse>,
}

/// The cursors' service.
pub(crate) struct Cursors(pub(crate) Arc<Ring>);

/// The service of who makes events: the messages of a worker that writes progress.
pub(crate) struct Voices(pub(crate) Arc<Ring>);

impl Ring {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { kept: RwLock::default(), newest: watch::Sender::new(0) })
    }

    fn append(&self, data: Bytes) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.last += 1;
        let sequence = kept.last;
        let progress = JobProgress { job_id: JOB.to_owned(), attempt: 1, data };
        let event = Event {
            sequence,
            occurred_at: Some(Clock::system().now().to_wire()),
            project_id: PROJECT.to_owned(),
            epoch: 1,
            kind: Some(event::Kind::JobProgress(progress)),
        };
        kept.messages.push_back(told(stream_events_response::Message::Event(event)));
        if kept.messages.len() > RING_MAX {
            kept.messages.pop_front();
        }
        drop(kept);
        self.newest.send_replace(sequence);
    }

    /// The next messages after this number.
    fn take(&self, after: u64, into: &mut VecDeque<StreamEventsResponse>) -> Result<(), Status> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let behind = usize::try_from(kept.last.saturating_sub(after)).unwrap_or(usize::MAX);
        let from = kept.messages.len().checked_sub(behind);
        let from = from.ok_or_else(|| Status::data_loss("further behind than the ring is long"))?;
        into.extend(kept.messages.range(from..).take(TAKEN_MAX).cloned());
        Ok(())
    }
}

/// One cursor.
struct Cursor {
    ring: Arc<Ring>,
    newest: watch::Receiver<u64>,
    after: u64,
    taken: VecDeque<StreamEventsResponse>,
}

impl Cursor {
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(next) = self.taken.pop_front() {
                return Some(Ok(next));
            }
            if let Err(status) = self.ring.take(self.after, &mut self.taken) {
                return Some(Err(status));
            }
            self.after += self.taken.len() as u64;
            if self.taken.is_empty() {
                self.newest.changed().await.ok()?;
            }
        }
    }
}

fn told(message: stream_events_response::Message) -> StreamEventsResponse {
    StreamEventsResponse { message: Some(message) }
}

#[tonic::async_trait]
impl SessionService for Cursors {
    type StreamEventsStream = Pin<Box<dyn Stream<Item = Told> + Send>>;

    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let ring = Arc::clone(&self.0);
        let newest = ring.newest.subscribe();
        let last = *newest.borrow();
        let opened = StreamOpened { stream_id: STREAM.to_owned(), expires_at: None };
        let taken = [
            told(stream_events_response::Message::Opened(opened)),
            told(stream_events_response::Message::CaughtUp(CaughtUp { sequence: last })),
        ];
        let after = request.into_inner().after.min(last);
        let cursor = Cursor { ring, newest, after, taken: taken.into() };
        let events = stream::unfold(cursor, |mut cursor| async {
            let next = cursor.next().await?;
            Some((next, cursor))
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn create_session(
        &self,
        _: Request<CreateSessionRequest>,
    ) -> Result<Response<CreateSessionResponse>, Status> {
        Err(delivers_only())
    }

    async fn get_session(
        &self,
        _: Request<GetSessionRequest>,
    ) -> Result<Response<GetSessionResponse>, Status> {
        Err(delivers_only())
    }

    async fn list_sessions(
        &self,
        _: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        Err(delivers_only())
    }

    async fn attach_session(
        &self,
        _: Request<AttachSessionRequest>,
    ) -> Result<Response<AttachSessionResponse>, Status> {
        Err(delivers_only())
    }

    async fn close_session(
        &self,
        _: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        Err(delivers_only())
    }

    async fn renew_stream(
        &self,
        _: Request<RenewStreamRequest>,
    ) -> Result<Response<RenewStreamResponse>, Status> {
        Err(delivers_only())
    }

    async fn ack(&self, _: Request<AckRequest>) -> Result<Response<AckResponse>, Status> {
        Err(delivers_only())
    }

    async fn set_session_password(
        &self,
        _: Request<wire::SetSessionPasswordRequest>,
    ) -> Result<Response<wire::SetSessionPasswordResponse>, Status> {
        Err(delivers_only())
    }

    async fn join_session(
        &self,
        _: Request<wire::JoinSessionRequest>,
    ) -> Result<Response<wire::JoinSessionResponse>, Status> {
        Err(delivers_only())
    }

    async fn list_clients(
        &self,
        _: Request<wire::ListClientsRequest>,
    ) -> Result<Response<wire::ListClientsResponse>, Status> {
        Err(delivers_only())
    }

    async fn adopt_session(
        &self,
        _: Request<wire::AdoptSessionRequest>,
    ) -> Result<Response<wire::AdoptSessionResponse>, Status> {
        Err(delivers_only())
    }

    async fn evict_client(
        &self,
        _: Request<wire::EvictClientRequest>,
    ) -> Result<Response<wire::EvictClientResponse>, Status> {
        Err(delivers_only())
    }

    async fn quit(&self, _: Request<wire::QuitRequest>) -> Result<Response<wire::QuitResponse>, Status> {
        Err(delivers_only())
    }

    async fn post_message(
        &self,
        _: Request<wire::PostMessageRequest>,
    ) -> Result<Response<wire::PostMessageResponse>, Status> {
        Err(delivers_only())
    }
}

#[tonic::async_trait]
impl WorkerService for Voices {
    type WorkStream = ReceiverStream<Result<WorkResponse, Status>>;

    async fn work(
        &self,
        request: Request<Streaming<WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let (answers, stream) = mpsc::channel(ROOM);
        let (ring, mut requests) = (Arc::clone(&self.0), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(WorkRequest { message: Some(asked) })) = requests.message().await {
                for answer in ring.answer(asked) {
                    // Who has gone is told nothing.
                    let _ = answers.send(Ok(WorkResponse { message: Some(answer) })).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Ring {
    fn answer(&self, asked: work_request::Message) -> Vec<work_response::Message> {
        use work_response::Message as Told;
        match asked {
            work_request::Message::Hello(_) => {
                let binding = Binding { agent_id: "a".to_owned(), project_id: PROJECT.to_owned(), epoch: 1 };
                let held = Some(Held { job_id: JOB.to_owned(), fencing_token: 1 });
                let assignment =
                    work_response::Assignment { held, binding: Some(binding), ..Default::default() };
                vec![Told::Welcome(work_response::Welcome::default()), Told::Assignment(assignment)]
            }
            work_request::Message::Progress(progress) => {
                self.append(progress.data);
                let stored = work_response::ProgressStored { held: progress.held, number: progress.number };
                vec![Told::ProgressStored(stored)]
            }
            _ => Vec::new(),
        }
    }
}

fn delivers_only() -> Status {
    Status::unimplemented("delivers events only")
}
