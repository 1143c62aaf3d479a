//! Two gateways on one database: whatever a caller does through one of them, it might have done through the other.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use interlock_client::{
    EventKind, EventStream, Gateway, JobState, Outcome, OwnerSession, PostTo, Reason, SetAgent, StreamFrom,
    StreamItem, Task, Worker,
};
use interlock_tests::{Pair, Service, Setup, eventually, within};
use tokio::sync::oneshot;

use super::cluster::Cluster;

/// Jobs that are timed on their way from one gateway to the other.
const JOBS: usize = 100;

/// A pair with a second gateway, and somebody who uses it.
struct Stage {
    // Services before the folder, the database last.
    second: Service,
    pair: Pair,
    alice: OwnerSession,
    cluster: Cluster,
}

impl Stage {
    async fn set(lease: &str) -> Self {
        let cluster = Cluster::start_with(&["max_connections=40"]);
        let setup = Setup::default()
            .auth("lease", "1s")
            .gateway_in(&cluster.database("gateway"))
            .gateway("lease_ttl", lease);
        let pair = Pair::start_with(setup).await;
        let mut second = Service::another("gateway", "gateway-2", &pair.world.path(""));
        pair.start_another_gateway(&mut second, "gateway-2").await;
        let alice = pair.login("alice").await;
        Self { second, pair, alice, cluster }
    }

    fn first(&self) -> Gateway {
        self.pair.sdk_gateways(&[&self.pair.gateway], &self.alice.access_token)
    }

    fn second(&self) -> Gateway {
        self.pair.sdk_gateways(&[&self.second], &self.alice.access_token)
    }

    /// Whichever of them answers.
    fn any(&self) -> Gateway {
        self.pair.sdk_gateways(&[&self.pair.gateway, &self.second], &self.alice.access_token)
    }

    /// A session that is bound to an agent in a project of that name.
    async fn bound(&self, agent: &str, project: &str) -> (String, String) {
        let gateway = self.first();
        gateway.agents().set(agent, SetAgent::default()).await.expect("an agent");
        let project = self.pair.project(&self.alice, project).await;
        let session = gateway.sessions().create("").await.expect("a session").session.session_id;
        gateway.sessions().attach(&session, agent, &project).await.expect("idle");
        (session, project)
    }

    fn sql(&self, sql: &str) -> String {
        self.cluster.sql("gateway", sql)
    }

    /// A session that is bound to nothing.
    async fn unbound(&self) -> String {
        self.second().sessions().create("").await.expect("a session").session.session_id
    }

    async fn in_line(&self, count: usize) {
        let waiting = async || (self.sql("SELECT COUNT(*) FROM waiter") == count.to_string()).then_some(());
        eventually("that many in line", waiting).await;
    }
}

/// A worker that runs until it is told to stop.
struct Working {
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<Result<(), interlock_client::Error>>,
}

impl Working {
    fn start<F>(gateway: Gateway, handler: impl Fn(Task) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel::<()>();
        let worker = Worker::new(gateway, vec!["builder".to_owned()], 8, "worker");
        let ended = tokio::spawn(worker.run(handler, async {
            stopped.await.ok();
        }));
        Self { stop, ended }
    }

    async fn end(self) {
        self.stop.send(()).ok();
        within("the worker's end", self.ended).await.expect("no panic").expect("not refused");
    }
}

fn done(data: &'static str) -> Outcome {
    Outcome::Succeeded { result: data.into() }
}

// Issue 7 line 5, DESIGN 11: what gateways tell each other is a wake-up, and never the truth. A worker that is at work says
// something all the time, and is looked after all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_nobody_was_told_of_is_found_for_a_worker_at_work() {
    // Heartbeats come three times in a lease's life: more often than the gateway looks by itself.
    let stage = Stage::set("3s").await;
    let (session, _) = stage.bound("builder", "here").await;
    let jobs = stage.first().jobs();
    let untold = jobs.submit(&session, "short").await.expect("queued").job_id;
    let of = |agent: &str| format!("UPDATE job SET agent = '{agent}' WHERE id = '{untold}'");
    // It comes to the queue without a word, as where a gateway dies between its commit and what it says of that.
    stage.sql(&of("nobody"));
    let working = Working::start(stage.second(), |task| async move {
        if task.payload().as_ref() == b"long" {
            task.cancelled().await;
        }
        done("done")
    });
    let long = jobs.submit(&session, "long").await.expect("queued").job_id;
    let running = async || jobs.get(&long).await.ok().filter(|job| job.state == JobState::Running);
    eventually("a running job", running).await;
    stage.sql(&of("builder"));
    let found = within("its end", jobs.wait(&untold)).await.expect("waited");
    assert_eq!((found.state, found.attempt), (JobState::Succeeded, 1));
    let still = jobs.get(&long).await.expect("the job");
    assert_eq!((still.state, still.attempt), (JobState::Running, 1), "the worker was at work all the time");
    jobs.cancel(&long).await.expect("asked");
    within("its end", jobs.wait(&long)).await.expect("waited");
    working.end().await;
}

// SW-26, SW-32, I1, I15: jobs, their cancellation and their events cross from one gateway to the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_cancels_and_events_cross_between_gateways() {
    let stage = Stage::set("10s").await;
    let (session, project) = stage.bound("builder", "here").await;
    let (first, second) = (stage.first(), stage.second());
    let mut events = second.sessions().stream(&session, StreamFrom::Start);
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
    let working = Working::start(stage.second(), move |task| {
        if task.payload().as_ref() == b"short" {
            started.send(Instant::now()).expect("the test looks");
        }
        async move {
            if task.payload().as_ref() == b"long" {
                task.cancelled().await;
                return Outcome::Cancelled { cause: "as asked".to_owned() };
            }
            task.progress("half way").await.expect("the lease lives");
            done("done")
        }
    });

    let (mut handed, mut took) = (Vec::new(), Vec::new());
    for _ in 0..JOBS {
        let began = Instant::now();
        let job = first.jobs().submit(&session, "short").await.expect("queued").job_id;
        let queued = Instant::now();
        let job = within("a job's end", first.jobs().wait(&job)).await.expect("waited");
        took.push(began.elapsed());
        assert_eq!((job.state, job.attempt), (JobState::Succeeded, 1));
        // It may have been there before the answer was here.
        let start = starts.recv().await.expect("it ran");
        handed.push(start.saturating_duration_since(queued));
    }
    for (what, all) in [
        ("from the answer to a submit through one to the worker of the other", &mut handed),
        ("submitted through one, run through the other, awaited", &mut took),
    ] {
        all.sort();
        println!("{what}: p50 {:?}, p99 {:?}", all[JOBS / 2], all[JOBS * 99 / 100]);
    }
    let usual = took[JOBS / 2];
    assert!(usual < Duration::from_secs(2), "they waited for looks, not for what they were told: {took:?}");

    let long = first.jobs().submit(&session, "long").await.expect("queued").job_id;
    let running = async || first.jobs().get(&long).await.ok().filter(|job| job.state == JobState::Running);
    eventually("a running job", running).await;
    let there = stage.pair.project(&stage.alice, "there").await;
    let refused = first.sessions().attach(&session, "builder", &there).await.expect_err("busy elsewhere");
    assert_eq!(refused.reason(), Some(Reason::SessionBusy), "SW-26: {refused}");
    assert!(first.sessions().attach(&session, "builder", &project).await.is_ok(), "the same binding");
    first.jobs().cancel(&long).await.expect("asked");
    let job = within("the cancelled job's end", first.jobs().wait(&long)).await.expect("waited");
    assert_eq!(job.state, JobState::Cancelled, "its worker heard of it");
    // Issue 5 line 3: and the other way around, through the second gateway to a worker of the first.
    working.end().await;
    let working = Working::start(first.clone(), |task| async move {
        task.cancelled().await;
        Outcome::Cancelled { cause: "as asked".to_owned() }
    });
    let long = second.jobs().submit(&session, "long").await.expect("queued").job_id;
    let running = async || second.jobs().get(&long).await.ok().filter(|job| job.state == JobState::Running);
    eventually("a running job", running).await;
    second.jobs().cancel(&long).await.expect("asked");
    let job = within("the cancelled job's end", second.jobs().wait(&long)).await.expect("waited");
    assert_eq!(job.state, JobState::Cancelled, "its worker heard of it, whichever gateway has it");
    first.sessions().attach(&session, "builder", &there).await.expect("nothing is in flight");
    first.sessions().close(&session, false).await.expect("closed");

    let (mut ended, mut next) = (0_usize, 1);
    loop {
        match within("an event", events.next()).await {
            Some(Ok(StreamItem::Event(event))) => {
                assert_eq!(event.sequence, next, "I15: each once, in order");
                next += 1;
                ended += usize::from(matches!(event.kind, EventKind::JobEnded { .. }));
            }
            Some(Ok(StreamItem::CaughtUp { .. })) => {}
            Some(Ok(StreamItem::Gap { from, to })) => {
                assert_eq!(from, next, "I15: an explicit gap");
                next = to + 1;
            }
            Some(Err(error)) => {
                assert_eq!(error.reason(), Some(Reason::SessionEnded), "{error}");
                break;
            }
            None => panic!("an end without a reason"),
        }
    }
    assert_eq!(ended, JOBS + 2, "all that was made through the other one");
    working.end().await;
}

/// The next events of a stream, by number; nothing is passed over.
async fn numbers(stream: &mut EventStream, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        match within("an event", stream.next()).await.expect("no end").expect("resumed") {
            StreamItem::Event(event) => numbers.push(event.sequence),
            StreamItem::Gap { from, to } => panic!("I15: nothing was trimmed: {from}..{to}"),
            StreamItem::CaughtUp { .. } => {}
        }
    }
    numbers
}

// Issue 5 line 3, SW-32, I15: a client is the session's, and so is how far it has read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_comes_back_through_any_gateway_to_where_its_cursor_stands() {
    let mut stage = Stage::set("10s").await;
    let created = stage.first().sessions().create("").await.expect("a session");
    let (session, cookie) = (created.session.session_id, created.cookie.expect("its host's"));
    let client =
        |gateway: &Service| stage.pair.sdk_gateways_of_nobody(&[gateway]).with_cookie(cookie.clone());
    let (first, second) = (client(&stage.pair.gateway), client(&stage.second));
    // Something to read, made through both.
    for n in 0..12 {
        let through = if n % 2 == 0 { &first } else { &second };
        through.sessions().post(&session, PostTo::All, format!("{n}")).await.expect("posted");
    }
    let mut stream = first.sessions().stream(&session, StreamFrom::Start);
    let read = numbers(&mut stream, 4).await;
    assert_eq!(first.sessions().ack(&session, read[3]).await.expect("its own"), read[3]);
    stage.pair.gateway.kill();
    let mut stream = second.sessions().stream(&session, StreamFrom::Cursor);
    assert_eq!(numbers(&mut stream, 4).await, (read[3] + 1..=read[3] + 4).collect::<Vec<_>>(), "I15");
    second.sessions().ack(&session, read[3] + 2).await.expect("its own");
    // And back: the other one is new, and has never seen this client.
    stage.pair.start_gateway().await;
    stage.pair.serving().await;
    let first = stage.pair.sdk_gateways_of_nobody(&[&stage.pair.gateway]).with_cookie(cookie.clone());
    let mut stream = first.sessions().stream(&session, StreamFrom::Cursor);
    assert_eq!(numbers(&mut stream, 4).await, (read[3] + 3..=read[3] + 6).collect::<Vec<_>>(), "I15");
    assert_eq!(first.sessions().ack(&session, 1).await.expect("its own"), read[3] + 2, "it never goes back");
}

// SW-29, I1..I3: the guard holds between gateways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submits_and_attaches_through_two_gateways_never_let_two_projects_in() {
    let stage = Stage::set("10s").await;
    let (here, _) = stage.bound("builder", "here").await;
    let there = stage.pair.project(&stage.alice, "there").await;
    let other = stage.first().sessions().create("").await.expect("a session").session.session_id;
    let (mut attached, mut busy, mut queued) = (0_u32, 0_u32, 0_u32);
    for round in 0..60 {
        let (one, two) =
            if round % 2 == 0 { (stage.first(), stage.second()) } else { (stage.second(), stage.first()) };
        // A job of one project, and an attach of the same agent to another one, at once.
        let (submits, attaches, sessions) = (one.jobs(), two.sessions(), two.jobs());
        let (job, bound) =
            tokio::join!(submits.submit(&here, "x"), attaches.attach(&other, "builder", &there));
        let later = sessions.submit(&other, "y").await;
        let mixed = "SELECT COUNT(*) FROM (SELECT agent FROM job WHERE state < 2 GROUP BY agent
                     HAVING COUNT(DISTINCT project) > 1) AS mixed";
        assert_eq!(stage.sql(mixed), "0", "I1 in round {round}");
        let astray = "SELECT COUNT(*) FROM job j JOIN session s ON s.id = j.session WHERE j.state < 2
                      AND (j.agent, j.project, j.epoch) IS DISTINCT FROM (s.agent, s.project, s.epoch)";
        assert_eq!(stage.sql(astray), "0", "I3 in round {round}");
        for refused in [job.as_ref().err(), bound.as_ref().err(), later.as_ref().err()].into_iter().flatten()
        {
            let expected = [Some(Reason::SessionBusy), Some(Reason::SessionUnbound)];
            assert!(expected.contains(&refused.reason()), "{refused}");
            busy += 1;
        }
        attached += u32::from(bound.is_ok());
        queued += u32::from(job.is_ok()) + u32::from(later.is_ok());
        for job in [job, later].into_iter().flatten() {
            one.jobs().cancel(&job.job_id).await.expect("it is queued");
        }
    }
    println!("{attached} attached, {queued} queued, {busy} refused");
    assert!(busy >= 12 && queued >= 12, "an unbalanced race shows nothing: {busy}, {queued}");
}

// SW-35, I4, I5: what a dead gateway's workers held comes back at the lease's end; who finds the other gateway keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_costs_one_lease_at_most() {
    let mut stage = Stage::set("4s").await;
    let (session, _) = stage.bound("builder", "here").await;
    let any = stage.any();
    let mut events = any.sessions().stream(&session, StreamFrom::Start);
    let attempts = Arc::new(AtomicU32::new(0));
    let (go, going) = tokio::sync::watch::channel(false);
    let handler = {
        let attempts = Arc::clone(&attempts);
        move |task: Task| {
            attempts.fetch_add(1, Ordering::SeqCst);
            let mut going = going.clone();
            async move {
                tokio::select! {
                    _ = going.wait_for(|go| *go) => done("done"),
                    () = task.lost() => done("too late"),
                }
            }
        }
    };
    // One worker knows both gateways.
    let working = Working::start(stage.any(), handler);
    let kept = any.jobs().submit(&session, "kept").await.expect("queued").job_id;
    let running =
        async |job: &str| any.jobs().get(job).await.ok().filter(|job| job.state == JobState::Running);
    eventually("a running job", async || running(&kept).await).await;

    stage.pair.gateway.kill();
    // Through the other one: the job runs on, in its first attempt, as soon as its worker has come over.
    let later = eventually("a submit", async || any.jobs().submit(&session, "later").await.ok()).await.job_id;
    eventually("the later job", async || running(&later).await).await;
    go.send(true).expect("the handler waits");
    for job in [&kept, &later] {
        let job = within("a job's end", any.jobs().wait(job)).await.expect("waited");
        assert_eq!((job.state, job.attempt), (JobState::Succeeded, 1), "the worker kept its lease");
    }
    assert_eq!(attempts.load(Ordering::SeqCst), 2, "each ran once");
    working.end().await;

    // A worker that knows only a gateway that dies: its job is another one's when the lease is over, not earlier.
    stage.pair.start_gateway().await;
    stage.pair.serving().await;
    let stuck = Working::start(stage.first(), |task: Task| async move {
        task.lost().await;
        done("too late")
    });
    let lost = stage.second().jobs().submit(&session, "lost").await.expect("queued").job_id;
    eventually("a running job", async || running(&lost).await).await;
    let until: i64 =
        stage.sql(&format!("SELECT lease_until FROM job WHERE id = '{lost}'")).parse().expect("a lease");
    stage.pair.gateway.kill();
    let other = Working::start(stage.second(), |_| async { done("done") });
    let job = within("the job's end", stage.second().jobs().wait(&lost)).await.expect("waited");
    assert_eq!((job.state, job.attempt), (JobState::Succeeded, 2), "another attempt");
    let second: i64 =
        stage.sql(&format!("SELECT started_at FROM job WHERE id = '{lost}'")).parse().expect("a start");
    assert!(second >= until, "SW-35: handed out before its lease was over");
    other.end().await;
    drop(stuck);

    let mut seen = BTreeSet::new();
    while seen.len()
        < usize::try_from(stage.sql("SELECT last FROM log_head").parse::<u64>().expect("a number"))
            .expect("small")
    {
        match within("an event", events.next()).await.expect("no end").expect("resumed") {
            StreamItem::Event(event) => assert!(seen.insert(event.sequence), "I15: once"),
            StreamItem::Gap { from, to } => panic!("I15: nothing was trimmed: {from}..{to}"),
            StreamItem::CaughtUp { .. } => {}
        }
    }
    assert_eq!(seen.last().copied(), Some(seen.len() as u64), "I15: none is missing");
}

// I5: a gateway that is frozen past a lease and wakes changes nothing that is another one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_frozen_wakes_to_leases_that_are_others() {
    let stage = Stage::set("2s").await;
    let (session, _) = stage.bound("builder", "here").await;
    let (go, going) = tokio::sync::watch::channel(false);
    let slow = Working::start(stage.first(), move |_| {
        let mut going = going.clone();
        async move {
            going.wait_for(|go| *go).await.ok();
            done("stale")
        }
    });
    let second = stage.second();
    let job = second.jobs().submit(&session, "x").await.expect("queued").job_id;
    let running = async || second.jobs().get(&job).await.ok().filter(|job| job.state == JobState::Running);
    eventually("a running job", running).await;
    stage.pair.gateway.freeze();
    let other = Working::start(stage.second(), |_| async { done("fresh") });
    let ended = within("the job's end", second.jobs().wait(&job)).await.expect("waited");
    go.send(true).expect("the handler waits");
    stage.pair.gateway.wake();
    stage.pair.serving().await;
    assert_eq!((ended.state, ended.attempt), (JobState::Succeeded, 2));
    let first = stage.first();
    let job = first.jobs().get(&job).await.expect("through the one that woke");
    assert_eq!(job.attempt, 2);
    let results =
        stage.sql(&format!("SELECT convert_from(data, 'UTF8') FROM result WHERE job = '{}'", job.job_id));
    assert_eq!(results, "fresh", "I5");
    assert_eq!(stage.sql("SELECT COUNT(*) FROM event WHERE facts LIKE '%ended%'"), "1", "I5: one end");
    other.end().await;
    drop(slow);
}

/// An attach that waits through this gateway.
fn waits(gateway: Gateway, session: &str, project: &str) -> tokio::task::JoinHandle<bool> {
    let (session, project) = (session.to_owned(), project.to_owned());
    tokio::spawn(async move {
        let at_most = Duration::from_secs(120);
        let attached =
            gateway.sessions().attach_when_free(&session, "builder", &project, at_most, false).await;
        attached.is_ok_and(|attached| attached.changed)
    })
}

// Issue 7 line 1, SW-34: one line for all gateways, first come, first served; who waited through one that died holds
// nobody up, and never attaches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_through_two_gateways_stand_in_one_line() {
    let mut stage = Stage::set("10s").await;
    let (here, _) = stage.bound("builder", "here").await;
    let there = stage.pair.project(&stage.alice, "there").await;
    for round in 0..6 {
        let (one, two) =
            if round % 2 == 0 { (stage.first(), stage.second()) } else { (stage.second(), stage.first()) };
        let job = one.jobs().submit(&here, "x").await.expect("queued").job_id;
        let (early, late) = (stage.unbound().await, stage.unbound().await);
        let came_early = waits(one.clone(), &early, &there);
        stage.in_line(1).await;
        let came_late = waits(two.clone(), &late, &there);
        stage.in_line(2).await;
        two.jobs().cancel(&job).await.expect("cancelled");
        for waiter in [came_early, came_late] {
            assert!(within("an answer", waiter).await.expect("no panic"), "round {round}");
        }
        let order = format!(
            "SELECT string_agg(session, ' ' ORDER BY at) FROM event
             WHERE session IN ('{early}', '{late}') AND facts LIKE '{{\"attached\"%'"
        );
        assert_eq!(
            stage.sql(&order),
            format!("{early} {late}"),
            "first come, first served, in round {round}"
        );
        stage.in_line(0).await;
    }

    let job = stage.second().jobs().submit(&here, "x").await.expect("queued").job_id;
    let (early, late) = (stage.unbound().await, stage.unbound().await);
    let dies = waits(stage.first(), &early, &there);
    stage.in_line(1).await;
    let lives = waits(stage.second(), &late, &there);
    stage.in_line(2).await;
    stage.pair.gateway.kill();
    stage.second().jobs().cancel(&job).await.expect("cancelled");
    assert!(within("an answer", lives).await.expect("no panic"), "held up by a dead one");
    stage.in_line(0).await;
    dies.abort();
    let bound = format!(
        "SELECT string_agg(COALESCE(agent, '-'), ' ' ORDER BY id = '{late}') FROM session
         WHERE id IN ('{early}', '{late}')"
    );
    assert_eq!(stage.sql(&bound), "- builder", "whose gateway died never attached");
}
