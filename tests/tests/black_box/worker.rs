//! Leases over the bare wire: who loses one changes nothing any more, who comes back in time keeps it, and
//! nothing stays busy for ever.

use interlock_client::{JobState, OwnerSession, Reason, SetAgent};
use interlock_proto::gateway::v1::{
    self as wire, Held,
    work_request::{Goodbye, Heartbeat, Message as Ask},
    work_response::Message as Say,
};
use interlock_tests::{Pair, Setup, line::Line, wire::Metadata, within};

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

    async fn line(&self, held: Vec<Held>) -> Line {
        Line::open(self.pair.gateway_public(), &Metadata::bearer(&self.alice.access_token), "a", held).await
    }
}

// SW-28, SW-35, I4, I5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_a_lease_changes_nothing_any_more() {
    let scene = Scene::set().await;
    let gateway = scene.pair.sdk_gateway(&scene.alice.access_token);
    let mut lost = scene.line(Vec::new()).await;
    let first = lost.assignment().await;
    assert_eq!((first.attempt, &first.session_id), (1, &scene.session));
    let refused =
        gateway.sessions().attach(&scene.session, "b", &scene.project).await.expect_err("running is busy");
    let busy = refused.busy().expect("it explains itself");
    assert_eq!((busy.queued, busy.running), (0, 1), "SW-28: {busy:?}");
    assert!(busy.jobs[0].lease_left.is_some(), "{busy:?}");

    // It is cut off; another worker gets the job when the lease is over, under a larger token.
    drop(lost);
    let mut other = scene.line(Vec::new()).await;
    let second = other.assignment().await;
    assert_eq!(second.attempt, 2);
    let (old, new) = (first.held.expect("held"), second.held.expect("held"));
    assert!(new.fencing_token > old.fencing_token && new.job_id == old.job_id, "{old:?} {new:?}");

    // Too late it comes back, and says that it is done.
    let mut lost = scene.line(vec![old.clone()]).await;
    assert_eq!(lost.welcome.kept, []);
    lost.finish(&old, wire::JobState::Succeeded, "done");
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
    other.finish(&new, wire::JobState::Succeeded, "done");
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
    let mut line = scene.line(Vec::new()).await;
    let held = line.assignment().await.held.expect("held");
    scene.pair.gateway.kill();
    scene.pair.start_gateway().await;
    scene.pair.serving().await;
    let line = scene.line(vec![held.clone()]).await;
    let gateway = scene.pair.sdk_gateway(&scene.alice.access_token);
    if line.welcome.kept.is_empty() {
        // Where the restart took longer than the lease lives, it is over: nobody was told otherwise.
        let job = gateway.jobs().get(&scene.job).await.expect("the job");
        assert_ne!((job.state, job.attempt), (JobState::Succeeded, 1), "{job:?}");
        println!("the restart took longer than the lease");
        return;
    }
    assert_eq!(line.welcome.kept, std::slice::from_ref(&held));
    line.finish(&held, wire::JobState::Succeeded, "done");
    let ended = within("its end", gateway.jobs().wait(&scene.job)).await.expect("the job");
    assert_eq!((ended.state, ended.attempt), (JobState::Succeeded, 1));
}

// DESIGN 8: a goodbye gives back at once, and costs no attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_gives_jobs_back_at_once() {
    let scene = Scene::set().await;
    let mut line = scene.line(Vec::new()).await;
    let first = line.assignment().await.held.expect("held");
    line.ask(Ask::Goodbye(Goodbye {}));
    let mut other = scene.line(Vec::new()).await;
    let began = std::time::Instant::now();
    let second = other.assignment().await.held.expect("held");
    assert!(began.elapsed() < std::time::Duration::from_millis(1_500), "sooner than the lease's end");
    assert!(second.fencing_token > first.fencing_token);
    other.finish(&second, wire::JobState::Succeeded, "done");
    let gateway = scene.pair.sdk_gateway(&scene.alice.access_token);
    let ended = within("its end", gateway.jobs().wait(&scene.job)).await.expect("the job");
    assert_eq!(ended.state, JobState::Succeeded);
}

// DESIGN 8: a gateway that shuts down says so; what is given back then costs no attempt and waits for nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_gateway_asks_for_its_jobs_back() {
    let mut scene = Scene::set().await;
    let mut line = scene.line(Vec::new()).await;
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
    let mut line = scene.line(Vec::new()).await;
    let again = line.assignment().await.held.expect("held");
    assert!(again.fencing_token > held.fencing_token);
    line.finish(&again, wire::JobState::Succeeded, "done");
    let ended = within("its end", gateway.jobs().wait(&scene.job)).await.expect("the job");
    assert_eq!(ended.state, JobState::Succeeded);
}
