//! Calls beyond their bounds: refused at once, on one connection, from one source, in all; and parked calls
//! apart from the ordinary ones.

use std::time::{Duration, Instant};

use bytes::Bytes;
use interlock_client::{OwnerSession, SetAgent};
use interlock_proto::gateway::v1::StreamEventsRequest;
use interlock_tests::{
    Pair, eventually,
    wire::{self, Metadata, Outcome},
    within,
};
use prost::Message as _;
use tokio::task::JoinHandle;
use tonic::{Streaming, transport::Channel};

use crate::target::{
    LIST_SESSIONS, Target, WHO_AM_I, auth_public, gateway_internal, gateway_public, patient,
};

const LOGOUT: &str = "/interlock.auth.v1.OwnerSessionService/Logout";
const REFRESH: &str = "/interlock.auth.v1.OwnerSessionService/Refresh";
const STREAM_EVENTS: &str = "/interlock.gateway.v1.SessionService/StreamEvents";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
/// Longer than any of these tests: what is held stays until it is let go.
const LONG: &str = "120s";

/// Calls whose message never ends. Let go on drop.
struct Held(Vec<JoinHandle<Outcome>>);

impl Held {
    fn call(channel: &Channel, path: &'static str, metadata: &Metadata, count: usize) -> Self {
        let call = |(channel, metadata): (Channel, Metadata)| async move {
            loop {
                let outcome = endless(&channel, path, &metadata).await;
                // Whoever looks whether it is full may have been there first.
                if outcome.reason != "LIMIT_REACHED" {
                    return outcome;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        Self((0..count).map(|_| tokio::spawn(call((channel.clone(), metadata.clone())))).collect())
    }
}

async fn endless(channel: &Channel, path: &'static str, metadata: &Metadata) -> Outcome {
    let silence = tokio_stream::pending::<Bytes>();
    match wire::open_with(channel, path, silence, metadata).await {
        Err(status) => Outcome::of(&status),
        Ok((_, mut messages)) => match messages.message().await {
            Err(status) => Outcome::of(&status),
            Ok(_) => Outcome::ok(),
        },
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

async fn ask(channel: &Channel, path: &str, metadata: &Metadata) -> Outcome {
    wire::call(channel, path, Vec::new(), metadata).await.outcome
}

/// Waits until such a call is refused for want of room, and says how long that one took.
async fn until_full(what: &str, channel: &Channel, path: &str, metadata: &Metadata) {
    let took = eventually(what, async || {
        let began = Instant::now();
        let outcome = ask(channel, path, metadata).await;
        let full =
            (outcome.code.as_str(), outcome.reason.as_str()) == ("RESOURCE_EXHAUSTED", "LIMIT_REACHED");
        full.then(|| began.elapsed())
    })
    .await;
    println!("{what}: refused after {took:.1?}");
}

async fn until_room(what: &str, channel: &Channel, path: &str, metadata: &Metadata) {
    eventually(what, async || (ask(channel, path, metadata).await == Outcome::ok()).then_some(())).await;
}

// I17: one connection, one source, all of a listener: the excess has its answer at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_their_bounds_are_refused_at_once() {
    let setup = [("calls", "16"), ("calls_per_connection", "4"), ("timeout", LONG)];
    let setup =
        setup.iter().fold(patient(), |setup, (key, value)| setup.gateway(&format!("limits.{key}"), value));
    let pair = Pair::start_with(setup).await;
    let target = gateway_public(&pair);
    let metadata = target.metadata.clone();
    let (first, neighbour) = (target.channel(2), target.channel(2));
    let one = Held::call(&first, LIST_SESSIONS, &metadata, 4);
    until_full("a connection with four calls", &first, LIST_SESSIONS, &metadata).await;
    until_room("the connection beside it", &neighbour, LIST_SESSIONS, &metadata).await;

    let two = Held::call(&neighbour, LIST_SESSIONS, &metadata, 4);
    until_full("a source with half of all calls", &target.channel(2), LIST_SESSIONS, &metadata).await;
    until_room("another source", &target.channel(3), LIST_SESSIONS, &metadata).await;

    let more = [target.channel(3), target.channel(3)]
        .map(|channel| Held::call(&channel, LIST_SESSIONS, &metadata, 4));
    until_full("a full listener", &target.channel(4), LIST_SESSIONS, &metadata).await;
    let internal = gateway_internal(&pair);
    until_room("the other listener", &internal.channel(4), LIST_SESSIONS, &internal.metadata).await;
    let watched = open(&target.channel(4), WATCH, Vec::new(), &metadata).await;
    drop(watched.expect("a parked call is none of these"));

    drop((one, two, more));
    for channel in [first, neighbour, target.channel(4)] {
        until_room("the same afterwards", &channel, LIST_SESSIONS, &metadata).await;
    }
}

async fn open(
    channel: &Channel,
    path: &str,
    message: Vec<u8>,
    metadata: &Metadata,
) -> Result<Streaming<Bytes>, Outcome> {
    let opened = within("an answer", wire::open(channel, path, message, metadata)).await;
    let (_, mut messages) = opened.map_err(|status| Outcome::of(&status))?;
    match within("a first message", messages.message()).await {
        Ok(first) => {
            first.expect("a stream says something at first");
            Ok(messages)
        }
        Err(status) => Err(Outcome::of(&status)),
    }
}

/// Somebody with a session to stream.
struct Watcher {
    metadata: Metadata,
    request: Vec<u8>,
}

impl Watcher {
    async fn of(pair: &Pair, owner: &str) -> Self {
        let signed_in: OwnerSession = pair.login(owner).await;
        let sessions = pair.sdk_gateway(&signed_in.access_token);
        let session_id = sessions.sessions().create("").await.expect("a session").session.session_id;
        let request = StreamEventsRequest { session_id, ..Default::default() }.encode_to_vec();
        Self { metadata: Metadata::bearer(&signed_in.access_token), request }
    }

    async fn stream(&self, channel: &Channel) -> Result<Streaming<Bytes>, Outcome> {
        open(channel, STREAM_EVENTS, self.request.clone(), &self.metadata).await
    }

    async fn streams(&self, channel: &Channel, count: usize) -> Vec<Streaming<Bytes>> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(self.stream(channel).await.expect("room"));
        }
        all
    }

    async fn refused(&self, channel: &Channel, what: &str) {
        let outcome = self.stream(channel).await.expect_err(what);
        let expected = ("RESOURCE_EXHAUSTED", "LIMIT_REACHED");
        assert_eq!((outcome.code.as_str(), outcome.reason.as_str()), expected, "{what}: {outcome}");
    }
}

// I17: parked calls have bounds of their own: of an owner, of a source, of strangers, in all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_calls_have_bounds_of_their_own_and_take_no_room_of_others() {
    let setup = patient().gateway("limits.parked_calls", "16").gateway("parked_per_owner", "5");
    let pair = Pair::start_with(setup).await;
    let target = gateway_public(&pair);
    let mut watchers = Vec::new();
    for owner in ["alice", "bob", "root", "w0"] {
        watchers.push(Watcher::of(&pair, owner).await);
    }
    let [alice, bob, root, w0] = &watchers[..] else { panic!("four") };
    let (here, there, elsewhere) = (target.channel(2), target.channel(3), target.channel(4));
    let mut open_streams = alice.streams(&here, 5).await;
    alice.refused(&here, "a sixth of one owner").await;
    alice.refused(&there, "from wherever").await;
    open_streams.extend(bob.streams(&here, 3).await);
    bob.refused(&here, "a ninth of one source").await;
    open_streams.extend(bob.streams(&there, 2).await);
    open_streams.extend(root.streams(&there, 5).await);
    open_streams.extend(w0.streams(&there, 1).await);
    w0.refused(&elsewhere, "a seventeenth").await;

    let watch = |channel: Channel| async move { open(&channel, WATCH, Vec::new(), &Metadata::none()).await };
    let strangers = watch(here.clone()).await.expect("strangers take no room of owners");
    let refused = watch(here.clone()).await.expect_err("an eighth of the parked calls, half for a source");
    assert_eq!(refused.reason, "LIMIT_REACHED", "{refused}");
    for channel in [&here, &there, &elsewhere] {
        assert_eq!(
            ask(channel, LIST_SESSIONS, &target.metadata).await,
            Outcome::ok(),
            "ordinary calls go on"
        );
    }
    drop((open_streams, strangers));
    eventually("room after they have gone", async || w0.stream(&elsewhere).await.ok().map(drop)).await;
}

// HARDENING.md: "a body that never ends" of a parked call; and who takes all places of the public listener
// does not get between the services.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_park_do_not_get_between_the_services() {
    let setup = [("parked_calls", "8"), ("calls", "8"), ("calls_per_connection", "4"), ("timeout", LONG)];
    let setup =
        setup.iter().fold(patient(), |setup, (key, value)| setup.auth(&format!("limits.{key}"), value));
    let mut pair = Pair::start_with(setup).await;
    let held = {
        let target: Target<'_> = auth_public(&pair);
        let stranger = Metadata::none();
        let mut held = Vec::new();
        for source in [2, 3] {
            let channel = target.channel(source);
            held.push(Held::call(&channel, LOGOUT, &stranger, 4));
            held.push(Held::call(&channel, REFRESH, &stranger, 4));
            held.push(Held::call(&channel, WATCH, &stranger, 1));
        }
        until_full("parked calls of the public listener", &target.channel(4), LOGOUT, &stranger).await;
        until_full("its ordinary calls", &target.channel(4), WHO_AM_I, &target.metadata).await;
        held
    };
    pair.gateway.drain().await;
    let took = pair.start_gateway().await;
    pair.serving().await;
    println!("the gateway got its lease beside them: up after {took:.1?}");
    drop(held);
    let target = auth_public(&pair);
    until_room("the same afterwards", &target.channel(4), WHO_AM_I, &target.metadata).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_message_of_a_parked_call_has_to_come_in_time() {
    let pair = Pair::start_with(patient().auth("limits.timeout", "1s")).await;
    let target = auth_public(&pair);
    for path in [LOGOUT, WATCH] {
        let mut held = Held::call(&target.channel(2), path, &Metadata::none(), 1);
        let outcome = within("its end", held.0.pop().expect("one")).await.expect("no panic");
        assert_eq!(outcome.code, "DEADLINE_EXCEEDED", "{path}: {outcome}");
    }
}

// What waits for long in the SDK leaves streams of its connection for what does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_waits_of_one_sdk_connection_leave_room_for_its_calls() {
    const WAITS: usize = 200;
    let pair = Pair::start_with(patient()).await;
    let alice = pair.login("alice").await;
    let project = pair.project(&alice, "p").await;
    let gateway = pair.sdk_gateway(&alice.access_token);
    gateway.agents().set("a", SetAgent::default()).await.expect("an agent");
    let session = gateway.sessions().create("").await.expect("a session").session.session_id;
    gateway.sessions().attach(&session, "a", &project).await.expect("idle");
    let job = gateway.jobs().submit(&session, Bytes::new()).await.expect("a job").job_id;
    let mut waits = tokio::task::JoinSet::new();
    for _ in 0..WAITS {
        let (gateway, job) = (gateway.clone(), job.clone());
        waits.spawn(async move { gateway.jobs().wait(&job).await });
    }
    for _ in 0..50 {
        gateway.sessions().get(&session).await.expect("an ordinary call beside them");
    }
    gateway.jobs().cancel(&job).await.expect("queued");
    for waited in within("all waits", waits.join_all()).await {
        assert!(!waited.expect("each is answered").state.is_in_flight());
    }
}
