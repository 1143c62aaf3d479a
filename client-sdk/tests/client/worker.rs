//! The worker loop against a gateway that a test plays.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use interlock_client::{Credential, Credentials, Error, Gateway, Kind, Outcome, Reason, Task, Worker};
use interlock_proto::gateway::v1::{
    Binding, Held, JobState, WorkRequest, WorkResponse,
    work_request::{Finish, Hello, Message as Ask},
    work_response::{self as say, Message as Say},
    worker_service_server::{WorkerService, WorkerServiceServer},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};

use crate::{connection, refusal, serve, soon, stream::Fake, until};

type Answers = mpsc::Sender<Result<WorkResponse, Status>>;

/// One stream, from the gateway's end.
struct Link {
    asks: Streaming<WorkRequest>,
    says: Answers,
}

struct Service(mpsc::Sender<Call>);
type Out = ReceiverStream<Result<WorkResponse, Status>>;
/// A call of Work: what the worker says, and where the test puts the answer.
type Call = (Streaming<WorkRequest>, oneshot::Sender<Result<Out, Status>>);

#[tonic::async_trait]
impl WorkerService for Service {
    type WorkStream = ReceiverStream<Result<WorkResponse, Status>>;

    async fn work(
        &self,
        request: Request<Streaming<WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let (answer, answered) = oneshot::channel();
        assert!(self.0.send((request.into_inner(), answer)).await.is_ok());
        answered.await.unwrap().map(Response::new)
    }
}

struct Stage {
    calls: mpsc::Receiver<Call>,
    streams: Arc<Fake>,
    stop: Option<oneshot::Sender<()>>,
    working: JoinHandle<Result<(), Error>>,
}

async fn stage<H, F>(lease: Duration, drain: Duration, handler: H) -> (Stage, Link)
where
    H: Fn(Task) -> F + Send + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    let (call, calls) = mpsc::channel(8);
    let (streams, renewals) = Fake::of_renewals();
    let server = Server::builder().add_service(WorkerServiceServer::new(Service(call)));
    let address = serve(server.add_service(renewals)).await;
    let bearer = Credentials::bearer(Credential::new(Kind::User, &[1; 32]));
    let gateway = Gateway::new(connection(address), bearer);
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = Worker::new(gateway, vec!["builder".to_owned()], 2, "w").drain(drain);
    let working = tokio::spawn(worker.run(handler, async {
        let _ = stopped.await;
    }));
    let mut stage = Stage { calls, streams, stop: Some(stop), working };
    let (hello, link) = stage.accept(lease, vec![]).await;
    assert_eq!((hello.worker.as_str(), hello.capacity, hello.held.len()), ("w", 2, 0));
    (stage, link)
}

impl Stage {
    /// Takes the next stream: reads its hello, and welcomes it.
    async fn accept(&mut self, lease: Duration, kept: Vec<Held>) -> (Hello, Link) {
        self.accept_until(None, lease, kept).await
    }

    /// The same, of a worker whose credential ends then.
    async fn accept_until(
        &mut self,
        expires_at: Option<SystemTime>,
        lease: Duration,
        kept: Vec<Held>,
    ) -> (Hello, Link) {
        let (asks, answer) = soon("a stream", self.calls.recv()).await.unwrap();
        let (says, stream) = mpsc::channel(64);
        assert!(answer.send(Ok(ReceiverStream::new(stream))).is_ok());
        let mut link = Link { asks, says };
        let Ask::Hello(hello) = link.ask().await else { panic!("no hello first") };
        let welcome = say::Welcome {
            stream_id: "str_1".to_owned(),
            lease: Some(lease.try_into().unwrap()),
            expires_at: expires_at.map(Into::into),
            kept,
        };
        link.say(Say::Welcome(welcome)).await;
        (hello, link)
    }

    async fn shut_down(mut self) -> Result<(), Error> {
        drop(self.stop.take());
        soon("the end", self.working).await.unwrap()
    }
}

impl Link {
    async fn ask(&mut self) -> Ask {
        soon("a message", self.asks.next()).await.unwrap().unwrap().message.unwrap()
    }

    /// The next message that is no heartbeat; heartbeats are answered.
    async fn next(&mut self) -> Ask {
        loop {
            match self.ask().await {
                Ask::Heartbeat(beat) => self.renew(beat.held).await,
                other => return other,
            }
        }
    }

    async fn finish(&mut self) -> Finish {
        match self.next().await {
            Ask::Finish(finish) => finish,
            other => panic!("{other:?}"),
        }
    }

    async fn renew(&self, held: Vec<Held>) {
        let lease = Some(LONG.try_into().unwrap());
        self.say(Say::Renewed(say::Renewed { held, lease })).await;
    }

    async fn say(&self, message: Say) {
        self.says.send(Ok(WorkResponse { message: Some(message) })).await.unwrap();
    }

    async fn assign(&self, n: u64, lease: Duration) -> Held {
        let held = Held { job_id: format!("job_{n}"), fencing_token: n };
        let assignment = say::Assignment {
            held: Some(held.clone()),
            session_id: "ses_1".to_owned(),
            binding: Some(Binding {
                agent_id: "builder".to_owned(),
                project_id: "prj_1".to_owned(),
                epoch: 1,
            }),
            attempt: 1,
            payload: format!("payload {n}").into(),
            lease: Some(lease.try_into().unwrap()),
            run_time_left: None,
        };
        self.say(Say::Assignment(assignment)).await;
        held
    }

    async fn finished(&self, held: Held) {
        self.say(Say::Finished(say::Finished { held: Some(held), state: JobState::Succeeded.into() })).await;
    }
}

const LONG: Duration = Duration::from_secs(10);

async fn until_lost(task: Task) -> Outcome {
    task.lost().await;
    Outcome::Cancelled { cause: String::new() }
}

#[tokio::test]
async fn a_job_is_run_and_its_outcome_comes_after_its_progress() {
    let (stage, mut link) = stage(LONG, Duration::ZERO, |task: Task| async move {
        for n in 0..40 {
            task.progress(format!("line {n}")).await.unwrap();
        }
        assert_eq!((task.agent_id(), task.project_id(), task.epoch()), ("builder", "prj_1", 1));
        Outcome::Succeeded { result: task.payload().clone() }
    })
    .await;
    let held = link.assign(1, LONG).await;
    for number in 1..=40 {
        let Ask::Progress(progress) = link.next().await else { panic!("progress first") };
        assert_eq!(
            (progress.number, progress.data.as_ref()),
            (number, format!("line {}", number - 1).as_bytes())
        );
        link.say(Say::ProgressStored(say::ProgressStored { held: Some(held.clone()), number })).await;
    }
    let finish = link.finish().await;
    assert_eq!((finish.state(), finish.result.as_ref()), (JobState::Succeeded, b"payload 1".as_slice()));
    link.finished(held).await;
    let stopping = tokio::spawn(stage.shut_down());
    assert!(matches!(link.next().await, Ask::Goodbye(_)));
    drop(link);
    soon("the end", stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_after_a_break() {
    let (mut stage, mut link) = stage(LONG, Duration::ZERO, |task: Task| async move {
        task.progress("one").await.unwrap();
        task.progress("two").await.unwrap();
        Outcome::Succeeded { result: "done".into() }
    })
    .await;
    let held = link.assign(1, LONG).await;
    for _ in 0..3 {
        link.next().await;
    }
    link.say(Say::ProgressStored(say::ProgressStored { held: Some(held.clone()), number: 1 })).await;
    link.says.send(Err(Status::unavailable("gone"))).await.unwrap();

    let (hello, mut link) = stage.accept(LONG, vec![held.clone()]).await;
    assert_eq!(hello.held, std::slice::from_ref(&held));
    let Ask::Progress(again) = link.next().await else { panic!("the line that was not stored") };
    assert_eq!((again.number, again.data.as_ref()), (2, b"two".as_slice()));
    assert_eq!(link.finish().await.result.as_ref(), b"done");
    link.finished(held).await;
}

// I11: a worker whose lease is over stops.
#[tokio::test]
async fn a_lost_lease_stops_the_job_and_frees_its_place() {
    let lost = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lost);
    let (mut stage, mut link) = stage(LONG, Duration::ZERO, move |task: Task| {
        let seen = Arc::clone(&seen);
        async move {
            task.lost().await;
            assert!(task.progress("late").await.is_err());
            seen.lock().unwrap().push(task.job_id().to_owned());
            Outcome::Succeeded { result: "too late".into() }
        }
    })
    .await;
    let first = link.assign(1, LONG).await;
    assert!(matches!(link.ask().await, Ask::Heartbeat(beat) if beat.held == [first.clone()]));
    link.say(Say::LeaseLost(say::LeaseLost { held: Some(first) })).await;
    crate::until("the stop", || *lost.lock().unwrap() == ["job_1"]).await;
    // Not kept after a reconnect: the same.
    let second = link.assign(2, LONG).await;
    loop {
        match link.ask().await {
            Ask::Heartbeat(beat) if beat.held == [second.clone()] => break,
            Ask::Heartbeat(_) => {}
            other => panic!("an outcome of a lost job: {other:?}"),
        }
    }
    link.says.send(Err(Status::unavailable("gone"))).await.unwrap();
    let (hello, _link) = stage.accept(LONG, vec![]).await;
    assert_eq!(hello.held, [second]);
    crate::until("the stop", || *lost.lock().unwrap() == ["job_1", "job_2"]).await;
}

#[tokio::test]
async fn a_silent_gateway_ends_the_lease_by_the_workers_own_count() {
    let (lost, stopped) = mpsc::channel(1);
    let short = Duration::from_millis(600);
    let (_stage, mut link) = stage(short, Duration::ZERO, move |task: Task| {
        let lost = lost.clone();
        async move {
            let outcome = until_lost(task).await;
            let _ = lost.send(()).await;
            outcome
        }
    })
    .await;
    link.assign(1, short).await;
    let mut stopped = stopped;
    soon("the stop", stopped.recv()).await.unwrap();
    assert!(matches!(link.ask().await, Ask::Heartbeat(_)), "it had asked");
}

#[tokio::test]
async fn a_cancel_request_reaches_the_handler_and_a_panic_fails_the_job() {
    let (_stage, mut link) = stage(LONG, Duration::ZERO, |task: Task| async move {
        assert_ne!(task.job_id(), "job_2", "a handler with a fault");
        task.cancelled().await;
        Outcome::Cancelled { cause: "é".repeat(200) }
    })
    .await;
    let held = link.assign(1, LONG).await;
    link.say(Say::CancelRequested(say::CancelRequested { held: Some(held.clone()) })).await;
    let finish = link.finish().await;
    assert_eq!((finish.state(), finish.cause.len()), (JobState::Cancelled, 256));
    link.finished(held).await;
    link.assign(2, LONG).await;
    let finish = link.finish().await;
    assert_eq!((finish.state(), finish.cause.as_str()), (JobState::Failed, "the handler panicked"));
}

#[tokio::test]
async fn a_drain_lets_running_jobs_finish() {
    let (go, gone) = oneshot::channel::<()>();
    let gate = Arc::new(Mutex::new(Some(gone)));
    let (stage, mut link) = stage(LONG, LONG, move |_| {
        let gate = gate.lock().unwrap().take();
        async move {
            let _ = gate.unwrap().await;
            Outcome::Succeeded { result: "ok".into() }
        }
    })
    .await;
    let held = link.assign(1, LONG).await;
    assert!(matches!(link.ask().await, Ask::Heartbeat(_)));
    let stopping = tokio::spawn(stage.shut_down());
    go.send(()).unwrap();
    assert_eq!(link.finish().await.state(), JobState::Succeeded);
    link.finished(held).await;
    assert!(matches!(link.next().await, Ask::Goodbye(_)));
    drop(link);
    soon("the end", stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_assigned_during_a_drain_is_given_back_once_nothing_runs() {
    let (go, gone) = oneshot::channel::<()>();
    let gate = Arc::new(Mutex::new(Some(gone)));
    let (stage, mut link) = stage(LONG, 60 * LONG, move |_| {
        let gate = gate.lock().unwrap().take();
        async move {
            let _ = gate.expect("nothing new is started").await;
            Outcome::Succeeded { result: "ok".into() }
        }
    })
    .await;
    let held = link.assign(1, LONG).await;
    assert!(matches!(link.ask().await, Ask::Heartbeat(_)));
    let stopping = tokio::spawn(stage.shut_down());
    // One thread runs all: after these the worker has heard of it.
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
    link.assign(2, LONG).await;
    assert!(matches!(link.ask().await, Ask::Heartbeat(beat) if beat.held.len() == 2));
    go.send(()).unwrap();
    assert_eq!(link.finish().await.held, Some(held.clone()));
    link.finished(held).await;
    assert!(matches!(link.next().await, Ask::Goodbye(_)));
    drop(link);
    soon("the end", stopping).await.unwrap().unwrap();
}

// Issue 6 line 1: its stream and its job outlive the access token that it came with.
#[tokio::test]
async fn a_worker_is_renewed_before_its_credential_ends() {
    let (mut stage, link) = stage(LONG, Duration::ZERO, until_lost).await;
    link.says.send(Err(Status::unavailable("gone"))).await.unwrap();
    let soon_over = SystemTime::now() + Duration::from_millis(250);
    let (_, mut link) = stage.accept_until(Some(soon_over), LONG, vec![]).await;
    let held = link.assign(1, LONG).await;
    until("the renewal", || stage.streams.renewed() == ["str_1"]).await;
    loop {
        match link.ask().await {
            Ask::Heartbeat(beat) if beat.held == [held.clone()] => break,
            Ask::Heartbeat(beat) => link.renew(beat.held).await,
            other => panic!("{other:?}"),
        }
    }
    assert!(!stage.working.is_finished(), "it works on");
}

#[tokio::test]
async fn a_refused_worker_says_why() {
    let (stage, link) = stage(LONG, Duration::ZERO, until_lost).await;
    let refused = refusal(Code::PermissionDenied, Reason::Forbidden);
    link.says.send(Err(refused)).await.unwrap();
    let error = soon("the end", stage.working).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Forbidden));
}
