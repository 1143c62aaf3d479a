//! The event stream: whatever breaks, nothing is lost and nothing comes twice.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use interlock_client::{
    Credential, Credentials, Error, EventStream, Gateway, Kind, Reason, StreamFrom, StreamItem,
};
use interlock_proto::gateway::v1::{
    self as wire, StreamEventsRequest, StreamEventsResponse as Said,
    session_service_server::{SessionService, SessionServiceServer},
    stream_events_response::Message,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, transport::Server};

use crate::{connection, refusal, serve, soon};

type Answer = Result<ReceiverStream<Result<Said, Status>>, Status>;
/// A call of StreamEvents: what was asked, and where the test puts the answer.
type Asked = (StreamEventsRequest, oneshot::Sender<Answer>);

pub(crate) struct Fake {
    asked: mpsc::Sender<Asked>,
    renewed: Mutex<Vec<String>>,
    /// When the streams end that are renewed next; none for ever.
    ends: Mutex<Vec<SystemTime>>,
}

impl Fake {
    fn new() -> (Arc<Self>, mpsc::Receiver<Asked>) {
        let (asked, calls) = mpsc::channel(8);
        (Arc::new(Self { asked, renewed: Mutex::default(), ends: Mutex::default() }), calls)
    }

    /// Takes renewals, and is called for nothing else.
    pub(crate) fn of_renewals() -> (Arc<Self>, SessionServiceServer<Service>) {
        let (fake, _) = Self::new();
        (Arc::clone(&fake), SessionServiceServer::new(Service(fake)))
    }

    /// Which streams it was told to renew.
    pub(crate) fn renewed(&self) -> Vec<String> {
        self.renewed.lock().unwrap().clone()
    }
}

/// Methods that this fake does not have, as `async_trait` would write them.
macro_rules! refused {
    ($($method:ident($request:ident) -> $response:ident;)*) => {
        $(fn $method<'a, 't>(&'a self, _: Request<wire::$request>) -> Reply<'t, wire::$response>
        where
            'a: 't,
            Self: 't,
        {
            Box::pin(async { Err(Status::unimplemented("not here")) })
        })*
    };
}

type Reply<'t, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 't>>;

pub(crate) struct Service(Arc<Fake>);

#[tonic::async_trait]
impl SessionService for Service {
    type StreamEventsStream = ReceiverStream<Result<Said, Status>>;

    refused! {
        create_session(CreateSessionRequest) -> CreateSessionResponse;
        get_session(GetSessionRequest) -> GetSessionResponse;
        list_sessions(ListSessionsRequest) -> ListSessionsResponse;
        attach_session(AttachSessionRequest) -> AttachSessionResponse;
        close_session(CloseSessionRequest) -> CloseSessionResponse;
        adopt_session(AdoptSessionRequest) -> AdoptSessionResponse;
        set_session_password(SetSessionPasswordRequest) -> SetSessionPasswordResponse;
        join_session(JoinSessionRequest) -> JoinSessionResponse;
        list_clients(ListClientsRequest) -> ListClientsResponse;
        evict_client(EvictClientRequest) -> EvictClientResponse;
        quit(QuitRequest) -> QuitResponse;
        post_message(PostMessageRequest) -> PostMessageResponse;
    }

    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let (answer, answered) = oneshot::channel();
        self.0.asked.send((request.into_inner(), answer)).await.unwrap();
        answered.await.unwrap().map(Response::new)
    }

    async fn renew_stream(
        &self,
        request: Request<wire::RenewStreamRequest>,
    ) -> Result<Response<wire::RenewStreamResponse>, Status> {
        self.0.renewed.lock().unwrap().push(request.into_inner().stream_id);
        let expires_at = self.0.ends.lock().unwrap().pop().map(Into::into);
        Ok(Response::new(wire::RenewStreamResponse { expires_at }))
    }

    async fn ack(&self, request: Request<wire::AckRequest>) -> Result<Response<wire::AckResponse>, Status> {
        let sequence = request.into_inner().sequence;
        Ok(Response::new(wire::AckResponse { sequence: sequence.max(5) }))
    }
}

pub(crate) struct Stage {
    fake: Arc<Fake>,
    calls: mpsc::Receiver<Asked>,
    pub(crate) events: EventStream,
}

async fn stage(from: StreamFrom) -> Stage {
    stage_behind(from, async |server| ((), server)).await.0
}

/// The same with something between client and server: what it is, and where it listens.
pub(crate) async fn stage_behind<T>(
    from: StreamFrom,
    between: impl AsyncFnOnce(SocketAddr) -> (T, SocketAddr),
) -> (Stage, T) {
    stage_as(Credentials::bearer(Credential::new(Kind::User, &[1; 32])), from, between).await
}

/// The same with credentials of the test's own.
async fn stage_as<T>(
    credentials: Credentials,
    from: StreamFrom,
    between: impl AsyncFnOnce(SocketAddr) -> (T, SocketAddr),
) -> (Stage, T) {
    let (fake, calls) = Fake::new();
    let service = SessionServiceServer::new(Service(Arc::clone(&fake)));
    let server = serve(Server::builder().add_service(service)).await;
    let (between, address) = between(server).await;
    let events = Gateway::new(connection(address), credentials).sessions().stream("ses_1", from);
    (Stage { fake, calls, events }, between)
}

impl Stage {
    /// Answers the next call with a stream; returns what was asked and the way into it.
    pub(crate) async fn accept(&mut self) -> (StreamEventsRequest, mpsc::Sender<Result<Said, Status>>) {
        let (request, answer) = soon("a call", self.calls.recv()).await.unwrap();
        let (said, stream) = mpsc::channel(64);
        assert!(answer.send(Ok(ReceiverStream::new(stream))).is_ok());
        (request, said)
    }

    async fn refuse(&mut self, status: Status) {
        let (_, answer) = soon("a call", self.calls.recv()).await.unwrap();
        assert!(answer.send(Err(status)).is_ok());
    }

    pub(crate) async fn sequence(&mut self) -> u64 {
        match soon("an item", self.events.next()).await.unwrap().unwrap() {
            StreamItem::Event(event) => event.sequence,
            other => panic!("{other:?}"),
        }
    }

    async fn end(&mut self) -> Error {
        let error = soon("the end", self.events.next()).await.unwrap().unwrap_err();
        assert!(soon("nothing", self.events.next()).await.is_none());
        error
    }
}

fn say(message: Message) -> Result<Said, Status> {
    Ok(Said { message: Some(message) })
}

pub(crate) fn event(sequence: u64) -> Result<Said, Status> {
    say(Message::Event(wire::Event { sequence, ..Default::default() }))
}

#[tokio::test]
async fn a_broken_stream_resumes_after_the_last_event() {
    let mut s = stage(StreamFrom::Start).await;
    let (asked, said) = s.accept().await;
    assert_eq!((asked.after, asked.from_cursor), (0, false));
    for n in 1..=3 {
        said.send(event(n)).await.unwrap();
    }
    said.send(Err(refusal(Code::Unavailable, Reason::Draining))).await.unwrap();
    for n in 1..=3 {
        assert_eq!(s.sequence().await, n);
    }

    s.refuse(refusal(Code::Unavailable, Reason::AuthUnavailable)).await;
    let (asked, said) = s.accept().await;
    assert_eq!(asked.after, 3);
    // A server that says more than it was asked for, and one that skips: neither gets through.
    for n in [2, 3, 4, 6] {
        said.send(event(n)).await.unwrap();
    }
    assert_eq!(s.sequence().await, 4);
    let (asked, said) = s.accept().await;
    assert_eq!(asked.after, 4);
    said.send(event(5)).await.unwrap();
    assert_eq!(s.sequence().await, 5);
    drop(said);
    let (asked, _said) = s.accept().await;
    assert_eq!(asked.after, 5, "an end without a word is a break");
}

#[tokio::test]
async fn gaps_count_and_caught_up_is_said_once() {
    let mut s = stage(StreamFrom::Cursor).await;
    let (asked, said) = s.accept().await;
    assert!(asked.from_cursor);
    said.send(say(Message::Gap(wire::Gap { from: 1, to: 9 }))).await.unwrap();
    said.send(event(10)).await.unwrap();
    said.send(say(Message::CaughtUp(wire::CaughtUp { sequence: 10 }))).await.unwrap();
    said.send(Err(Status::unavailable("gone"))).await.unwrap();
    let mut items = Vec::new();
    for _ in 0..3 {
        items.push(soon("an item", s.events.next()).await.unwrap().unwrap());
    }
    assert_eq!(items[0], StreamItem::Gap { from: 1, to: 9 });
    assert_eq!(items[2], StreamItem::CaughtUp { sequence: 10 });
    let (asked, said) = s.accept().await;
    assert_eq!((asked.after, asked.from_cursor), (10, false));
    said.send(say(Message::CaughtUp(wire::CaughtUp { sequence: 10 }))).await.unwrap();
    said.send(event(11)).await.unwrap();
    assert_eq!(s.sequence().await, 11);
    assert_eq!(s.events.last_sequence(), Some(11));
    assert_eq!(s.events.ack(4).await.unwrap(), 5);
}

// SW-36
#[tokio::test]
async fn what_cannot_go_on_ends_with_its_reason() {
    for (code, reason) in [
        (Code::Unauthenticated, Reason::Revoked),
        (Code::Unauthenticated, Reason::Evicted),
        (Code::FailedPrecondition, Reason::SessionEnded),
        (Code::PermissionDenied, Reason::OwnerMismatch),
        (Code::Unauthenticated, Reason::TokenExpired),
    ] {
        let mut s = stage(StreamFrom::After(2)).await;
        let (_, said) = s.accept().await;
        said.send(event(3)).await.unwrap();
        said.send(Err(refusal(code, reason))).await.unwrap();
        assert_eq!(s.sequence().await, 3);
        assert_eq!(s.end().await.reason(), Some(reason));
    }
}

#[tokio::test]
async fn a_stream_is_renewed_before_its_credential_ends() {
    let mut s = stage(StreamFrom::Start).await;
    let (_, said) = s.accept().await;
    let soon_over = SystemTime::now() + Duration::from_millis(250);
    let opened = wire::StreamOpened { stream_id: "str_1".to_owned(), expires_at: Some(soon_over.into()) };
    said.send(say(Message::Opened(opened))).await.unwrap();
    crate::until("the renewal", || s.fake.renewed() == ["str_1"]).await;
    said.send(event(1)).await.unwrap();
    assert_eq!(s.sequence().await, 1);
}

// Issue 6 line 1: auth could not be asked for a fresher credential when a renewal was due, and can be before the end.
#[tokio::test]
async fn a_renewal_without_a_fresher_credential_is_made_again_before_the_end() {
    let (_auth, _, _, credentials) = crate::owner_session::stage(Duration::from_secs(600)).await;
    let (mut s, ()) = stage_as(credentials, StreamFrom::Start, async |server| ((), server)).await;
    let (_, said) = s.accept().await;
    let soon_over = SystemTime::now() + Duration::from_secs(5);
    s.fake.ends.lock().unwrap().push(soon_over);
    let opened = wire::StreamOpened { stream_id: "str_1".to_owned(), expires_at: Some(soon_over.into()) };
    said.send(say(Message::Opened(opened))).await.unwrap();
    crate::until("the second one", || s.fake.renewed() == ["str_1", "str_1"]).await;
    said.send(event(1)).await.unwrap();
    assert_eq!(s.sequence().await, 1, "the same stream goes on");
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_call() {
    let mut s = stage(StreamFrom::Start).await;
    let (_, said) = s.accept().await;
    drop(s.events);
    soon("the reset", said.closed()).await;
}
