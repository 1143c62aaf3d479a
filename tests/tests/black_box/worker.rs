//! Leases over the bare wire: who loses one changes nothing any more, who comes back in time keeps it, and
//! nothing stays busy for ever.

use interlock_client::{JobState, OwnerSession, Reason, SetAgent};
use interlock_proto::gateway::v1::{
    self as wire, Held, WorkRequest, WorkResponse,
    work_request::{Finish, Goodbye, Heartbeat, Hello, Message as Ask},
    work_response::{Assignment, Message as Say, Welcome},
    worker_service_client::WorkerServiceClient,
};
use interlock_tests::{Pair, Setup, wire::Metadata, within};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

/// A worker's stream, as its program would hold it.
struct Line {
    asks: mpsc::UnboundedSender<WorkRequest>,
    says: Streaming<WorkResponse>,
    welcome: Welcome,
}

impl Line {
    async fn open(pair: &Pair, who: &OwnerSession, held: Vec<Held>) -> Self {
        let (asks, out) = mpsc::unbounded_channel();
        let hello = Hello { worker: "bare".to_owned(), agent_ids: vec!["a".to_owned()], capacity: 1, held };
        asks.send(WorkRequest { message: Some(Ask::Hello(hello)) }).expect("open");
        let request = Metadata::bearer(&who.access_token).on(UnboundedReceiverStream::new(out));
        let opened = WorkerServiceClient::new(pair.gateway_public()).work(request).await;
        let mut says = opened.expect("she serves her agent").into_inner();
        let first = within("a welcome", says.message()).await.expect("living").expect("a message").message;
        let Some(Say::Welcome(welcome)) = first else { panic!("no welcome: {first:?}") };
        Self { asks, says, welcome }
    }

    fn ask(&self, message: Ask) {
        self.asks.send(WorkRequest { message: Some(message) }).expect("open");
    }

    async fn said(&mut self) -> Say {
        let said = within("a word from the gateway", self.says.message()).await;
        said.expect("living").expect("a message").message.expect("one of them")
    }

    async fn assignment(&mut self) -> Assignment {
        loop {
            if let Say::Assignment(assignment) = self.said().await {
                return assignment;
            }
        }
    }

    fn finish(&self, held: &Held) {
        let (held, state) = (Some(held.clone()), wire::JobState::Succeeded.into());
        self.ask(Ask::Finish(Finish { held, state, result: "done".into(), cause: String::new() }));
    }
}

struct Scene {
    pair: Pair,
    alice: OwnerSession,
    session: String,
    job: String,
    project: String,
}

impl Scene {
    async fn set() -> Self {
        let pair = Pair::start_with(Setup::default().gateway("lease_ttl", "2s")).await;
        let alice = pair.login("alice").await;
        let project = pair.project(&alice, "p").await;
        let gateway = pair.sdk_gateway(&alice.access_token);
        for agent in ["a", "b"] {
            gateway.agents().set(agent, SetAgent::default()).await.expect("an agent");
        }
        let session = gateway.sessions().create("").await.expect("a session").session.session_id;
        gateway.sessions().attach(&session, "a", &project).await.expect("idle");
        let job = gateway.jobs().submit(&session, "work").await.expect("a job").job_id;
        Self { pair, alice, session, job, project }
    }
}

// SW-28, SW-35, I4, I5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_a_lease_changes_nothing_any_more() {
    let scene = Scene::set().await;
    let gateway = scene.pair.sdk_gateway(&scene.alice.access_token);
    let mut lost = Line::open(&scene.pair, &scene.alice, Vec::new()).await;
    let first = lost.assignment().await;
    assert_eq!((first.attempt, &first.session_id), (1, &scene.session));
    let refused =
        gateway.sessions().attach(&scene.session, "b", &scene.project).await.expect_err("running is busy");
    let busy = refused.busy().expect("it explains itself");
    assert_eq!((busy.queued, busy.running), (0, 1), "SW-28: {busy:?}");
    assert!(busy.jobs[0].lease_left.is_some(), "{busy:?}");

    // It is cut off; another worker gets the job when the lease is over, under a larger token.
    drop(lost);
    let mut other = Line::open(&scene.pair, &scene.alice, Vec::new()).await;
    let second = other.assignment().await;
    assert_eq!(second.attempt, 2);
    let (old, new) = (first.held.expect("held"), second.held.expect("held"));
    assert!(new.fencing_token > old.fencing_token && new.job_id == old.job_id, "{old:?} {new:?}");

    // Too late it comes back, and says that it is done.
    let mut lost = Line::open(&scene.pair, &scene.alice, vec![old.clone()]).await;
    assert_eq!(lost.welcome.kept, []);
    lost.finish(&old);
    loop {
        match lost.said().await {
            Say::LeaseLost(over) => {
                assert_eq!(over.held.expect("which").job_id, old.job_id);
                break;
            }
            Say::Finished(finished) => panic!("I5: a fenced attempt finished {finished:?}"),
            _ => {}
        }
    }
    let job = gateway.jobs().get(&scene.job).await.expect("the job");
    assert_eq!((job.state, job.attempt), (JobState::Running, 2), "I5: nothing has changed");
    other.ask(Ask::Heartbeat(Heartbeat { held: vec![new.clone()] }));
    other.finish(&new);
    let ended = within("its end", gateway.jobs().wait(&scene.job)).await.expect("the job");
    assert_eq!((ended.state, &ended.result[..]), (JobState::Succeeded, &b"done"[..]));
    gateway.sessions().attach(&scene.session, "b", &scene.project).await.expect("I4: nothing is in flight");
    let refused = gateway.jobs().cancel(&scene.job).await.expect_err("it has ended");
    assert_eq!(refused.reason(), Some(Reason::JobTerminal), "{refused}");
}

// I6: the gateway is killed under a running job; its worker comes back and keeps the lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_keeps_its_lease_over_a_killed_gateway() {
    let mut scene = Scene::set().await;
    let mut line = Line::open(&scene.pair, &scene.alice, Vec::new()).await;
    let held = line.assignment().await.held.expect("held");
    scene.pair.gateway.kill();
    scene.pair.start_gateway().await;
    scene.pair.serving().await;
    let line = Line::open(&scene.pair, &scene.alice, vec![held.clone()]).await;
    let gateway = scene.pair.sdk_gateway(&scene.alice.access_token);
    if line.welcome.kept.is_empty() {
        // Where the restart took longer than the lease lives, it is over: nobody was told otherwise.
        let job = gateway.jobs().get(&scene.job).await.expect("the job");
        assert_ne!((job.state, job.attempt), (JobState::Succeeded, 1), "{job:?}");
        println!("the restart took longer than the lease");
        return;
    }
    assert_eq!(line.welcome.kept, std::slice::from_ref(&held));
    line.finish(&held);
    let ended = within("its end", gateway.jobs().wait(&scene.job)).await.expect("the job");
    assert_eq!((ended.state, ended.attempt), (JobState::Succeeded, 1));
}

// DESIGN 8: a goodbye gives back at once, and costs no attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_gives_jobs_back_at_once() {
    let scene = Scene::set().await;
    let mut line = Line::open(&scene.pair, &scene.alice, Vec::new()).await;
    let first = line.assignment().await.held.expect("held");
    line.ask(Ask::Goodbye(Goodbye {}));
    let mut other = Line::open(&scene.pair, &scene.alice, Vec::new()).await;
    let began = std::time::Instant::now();
    let second = other.assignment().await.held.expect("held");
    assert!(began.elapsed() < std::time::Duration::from_millis(1_500), "sooner than the lease's end");
    assert!(second.fencing_token > first.fencing_token);
    other.finish(&second);
    let gateway = scene.pair.sdk_gateway(&scene.alice.access_token);
    let ended = within("its end", gateway.jobs().wait(&scene.job)).await.expect("the job");
    assert_eq!(ended.state, JobState::Succeeded);
}

// DESIGN 8: a gateway that shuts down says so; what is given back then costs no attempt and waits for nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_gateway_asks_for_its_jobs_back() {
    let mut scene = Scene::set().await;
    let mut line = Line::open(&scene.pair, &scene.alice, Vec::new()).await;
    let held = line.assignment().await.held.expect("held");
    scene.pair.gateway.terminate();
    while !matches!(line.said().await, Say::Draining(_)) {}
    line.ask(Ask::Goodbye(Goodbye {}));
    let status = scene.pair.gateway.ended().await;
    assert_eq!(status.code(), Some(0), "{status}");

    scene.pair.start_gateway().await;
    scene.pair.serving().await;
    let gateway = scene.pair.sdk_gateway(&scene.alice.access_token);
    let job = gateway.jobs().get(&scene.job).await.expect("the job");
    assert_eq!(job.state, JobState::Queued, "it was given back, not left to its lease");
    let mut line = Line::open(&scene.pair, &scene.alice, Vec::new()).await;
    let again = line.assignment().await.held.expect("held");
    assert!(again.fencing_token > held.fencing_token);
    line.finish(&again);
    let ended = within("its end", gateway.jobs().wait(&scene.job)).await.expect("the job");
    assert_eq!(ended.state, JobState::Succeeded);
}
