//! A reader that stops while small events are made for it: it costs nobody else anything, and loses nothing.
//!
//! h2 ends a whole connection when small DATA frames lie unread on it: with tonic's windows one unread stream
//! of 20-byte events did so at 12,200 of them (HARDENING.md). So this is done with more, on one connection of
//! the SDK, beside a stream that is read, a parked wait and ordinary calls.

use std::time::{Duration, Instant};

use bytes::Bytes;
use interlock_client::{EventStream, Gateway, OwnerSession, SetAgent, StreamFrom, StreamItem};
use interlock_proto::gateway::v1::{
    JobState, WorkRequest, WorkResponse,
    work_request::{Finish, Heartbeat, Hello, Message as Ask, Progress},
    work_response::Message as Say,
    worker_service_client::WorkerServiceClient,
};
use interlock_tests::{Pair, wire::Metadata, within};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use crate::{process, target::patient};

/// Streams of workers that make events at once: more go into one commit.
const WORKERS: usize = 40;

/// By default more than were too many.
fn events() -> usize {
    if std::env::var_os("INTERLOCK_LONG").is_some() { 40_000 } else { 13_000 }
}

/// Streams that nobody reads: by default more than the SDK puts on one connection.
fn stopped_readers() -> usize {
    if std::env::var_os("INTERLOCK_LONG").is_some() { 200 } else { 40 }
}

struct Scene {
    pair: Pair,
    alice: OwnerSession,
    session: String,
    jobs: Vec<String>,
}

impl Scene {
    /// A session with so many jobs queued.
    async fn set(jobs: usize) -> Self {
        let setup = patient().gateway("retention.events", "100000").gateway("lease_ttl", "300s");
        let pair = Pair::start_with(setup).await;
        let alice = pair.login("alice").await;
        let project = pair.project(&alice, "p").await;
        let gateway = pair.sdk_gateway(&alice.access_token);
        gateway.agents().set("a", SetAgent::default()).await.expect("an agent");
        let session = gateway.sessions().create("").await.expect("a session").session.session_id;
        gateway.sessions().attach(&session, "a", &project).await.expect("idle");
        let mut queued = Vec::new();
        for _ in 0..jobs {
            queued.push(gateway.jobs().submit(&session, Bytes::new()).await.expect("a job").job_id);
        }
        Self { pair, alice, session, jobs: queued }
    }

    /// Starts workers that make `count` events in all, and then end the jobs.
    fn work(&self, count: usize, ahead: u64) -> JoinSet<()> {
        let mut workers = JoinSet::new();
        for _ in 0..self.jobs.len() {
            let client = WorkerServiceClient::new(self.pair.gateway_public());
            let metadata = Metadata::bearer(&self.alice.access_token);
            workers.spawn(work(client, metadata, (count / self.jobs.len()) as u64, ahead));
        }
        workers
    }
}

/// One worker: takes a job, says so many lines with no more than `ahead` of them unanswered, and ends it.
async fn work(
    mut client: WorkerServiceClient<tonic::transport::Channel>,
    metadata: Metadata,
    lines: u64,
    ahead: u64,
) {
    let (asks, out) = mpsc::channel::<WorkRequest>(64);
    let hello =
        Hello { worker: "loud".to_owned(), agent_ids: vec!["a".to_owned()], capacity: 1, held: Vec::new() };
    say(&asks, Ask::Hello(hello)).await;
    let mut says = client.work(metadata.on(ReceiverStream::new(out))).await.expect("hers").into_inner();
    let held = loop {
        if let Say::Assignment(assignment) = heard(says.message().await) {
            break assignment.held.expect("a right to it");
        }
    };
    let (mut said, mut stored) = (0, 0);
    while stored < lines {
        while said < lines && said - stored < ahead {
            said += 1;
            if said % 200 == 0 {
                say(&asks, Ask::Heartbeat(Heartbeat { held: vec![held.clone()] })).await;
            }
            let line = Progress { held: Some(held.clone()), number: said, data: Bytes::from_static(b".") };
            say(&asks, Ask::Progress(line)).await;
        }
        match heard(says.message().await) {
            Say::ProgressStored(line) => stored = line.number,
            Say::LeaseLost(lost) => panic!("{lost:?}"),
            _ => {}
        }
    }
    let state = JobState::Succeeded.into();
    say(&asks, Ask::Finish(Finish { held: Some(held), state, ..Default::default() })).await;
    while !matches!(heard(says.message().await), Say::Finished(_)) {}
}

async fn say(asks: &mpsc::Sender<WorkRequest>, ask: Ask) {
    asks.send(WorkRequest { message: Some(ask) }).await.expect("open");
}

fn heard(said: Result<Option<WorkResponse>, tonic::Status>) -> Say {
    said.expect("living").expect("no end").message.expect("one of them")
}

/// Reads on, up to this number; each event comes once, in order.
async fn read_to(stream: &mut EventStream, last: u64) {
    let mut next = stream.last_sequence().unwrap_or_default() + 1;
    while next <= last {
        let item = within("an event", stream.next()).await.expect("no end");
        match item.expect("no refusal") {
            StreamItem::Event(event) => {
                assert_eq!(event.sequence, next, "lost or doubled");
                next += 1;
            }
            StreamItem::Gap { from, to } => panic!("lost: {from} to {to}"),
            StreamItem::CaughtUp { .. } => {}
        }
    }
}

/// Reads to the end of what is said of these jobs: each was queued, started and ended.
async fn last_sequence(gateway: &Gateway, session: &str) -> u64 {
    gateway.sessions().get(session).await.expect("hers").last_sequence
}

// I17, HARDENING.md: "a reader that stops".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_hurts_nobody_and_loses_nothing() {
    let scene = Scene::set(WORKERS).await;
    // One connection for all of it.
    let gateway = scene.pair.sdk_gateway(&scene.alice.access_token);
    let mut stopped = gateway.sessions().stream(&scene.session, StreamFrom::Start);
    let first = within("a first event", stopped.next()).await;
    assert!(matches!(first, Some(Ok(StreamItem::Event(_)))), "{first:?}");
    let mut reading = gateway.sessions().stream(&scene.session, StreamFrom::Start);
    let waiting = {
        let (gateway, job) = (gateway.clone(), scene.jobs[0].clone());
        tokio::spawn(async move { gateway.jobs().wait(&job).await })
    };
    let connections = opened(&scene.pair).await;
    let (memory, began) = (process::memory_kib(&scene.pair.gateway), Instant::now());
    let workers = scene.work(events(), 32);
    let reader = tokio::spawn(async move {
        let mut ended = 0;
        while ended < WORKERS {
            let item = within("an event", reading.next()).await.expect("no end");
            if let StreamItem::Event(event) = item.expect("no refusal") {
                ended += usize::from(matches!(event.kind, interlock_client::EventKind::JobEnded { .. }));
            }
        }
        reading
    });
    let mut calls = Vec::new();
    while !reader.is_finished() {
        let call = Instant::now();
        gateway.sessions().get(&scene.session).await.expect("a call beside the stopped stream");
        calls.push(call.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    within("the workers", workers.join_all()).await;
    let reading = reader.await.expect("its numbers have no gap");
    within("the parked wait", waiting).await.expect("no panic").expect("it was not hurt");
    let growth = process::memory_kib(&scene.pair.gateway) - memory;
    let last = last_sequence(&gateway, &scene.session).await;
    assert_eq!(reading.last_sequence(), Some(last));
    calls.sort_unstable();
    println!(
        "{last} events in {:.1?}; {} calls beside them, p99 {:.1?}; gateway {growth:+} KiB",
        began.elapsed(),
        calls.len(),
        calls[calls.len() * 99 / 100]
    );
    read_to(&mut stopped, last).await;
    assert!(growth < 32 * 1024, "{growth} KiB stay");
    assert_eq!(opened(&scene.pair).await, connections + WORKERS as f64, "no connection was lost on the way");
}

// Each event comes by itself, in a DATA frame of its own: the dearest way for whoever does not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_that_stop_hurt_nobody() {
    let scene = Scene::set(1).await;
    let gateway = scene.pair.sdk_gateway(&scene.alice.access_token);
    let mut stopped = Vec::new();
    for _ in 0..stopped_readers() {
        let mut stream = gateway.sessions().stream(&scene.session, StreamFrom::Start);
        let first = within("a first event", stream.next()).await;
        assert!(matches!(first, Some(Ok(StreamItem::Event(_)))), "{first:?}");
        stopped.push(stream);
    }
    let connections = opened(&scene.pair).await;
    let memory = process::memory_kib(&scene.pair.gateway);
    let mut workers = scene.work(700, 1);
    let mut calls = 0;
    while !workers.is_empty() {
        gateway.sessions().get(&scene.session).await.expect("a call beside the stopped streams");
        calls += 1;
        while let Some(ended) = workers.try_join_next() {
            ended.expect("no worker is hurt");
        }
    }
    let growth = process::memory_kib(&scene.pair.gateway) - memory;
    let last = last_sequence(&gateway, &scene.session).await;
    println!("{} stopped, {last} events, {calls} calls beside them; gateway {growth:+} KiB", stopped.len());
    assert_eq!(opened(&scene.pair).await, connections + 1.0, "no connection was lost on the way");
    // A few stand for all: nothing was lost.
    for stream in stopped.iter_mut().step_by(10) {
        read_to(stream, last).await;
    }
}

/// How many connections the gateway's public listener has served so far.
async fn opened(pair: &Pair) -> f64 {
    process::metric(&pair.gateway, "connections_served_total", &["LISTENER_PUBLIC"]).await
}
