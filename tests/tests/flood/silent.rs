//! Sockets that fall silent, and more of them than there is room for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use interlock_tests::{
    Pair, eventually,
    frames::{PREFACE, Plug, Raw, flag, frame, kind},
    wire::{self, Outcome},
    within,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    sync::Semaphore,
    task::JoinSet,
};

use crate::{
    honest::{Honest, healthy, until_served},
    process::{self, metric},
    target::{Target, auth_public, gateway_internal, gateway_public, patient},
};

/// Where a socket falls silent.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Tcp,
    HalfHello,
    Shaken,
    Preface,
    HalfHeaders,
}

const PHASES: [Phase; 5] = [Phase::Tcp, Phase::HalfHello, Phase::Shaken, Phase::Preface, Phase::HalfHeaders];
/// Addresses that the sockets come from: no source may have more than 128 handshakes open.
const SOURCES: u8 = 10;

/// What became of the sockets of one phase.
#[derive(Debug, Default)]
struct Ends {
    /// How long after its last byte each was closed.
    closed: Vec<Duration>,
    /// Closed before it came to its phase: the caps held.
    refused: usize,
}

// I17: HARDENING.md, "1,000 silent sockets in five phases": each closed within 5 s, others unharmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_sockets_are_closed_in_every_phase_and_harm_nobody() {
    raise_own_limit();
    // Room for all at once, so that deadlines are what closes them, not the caps.
    let setup = patient().gateway("limits.handshakes", "1024").auth("limits.handshakes", "1024");
    let pair = Pair::start_with(setup).await;
    let many = 200;
    let few = if std::env::var_os("INTERLOCK_LONG").is_some() { many } else { 20 };
    let targets = [(gateway_public(&pair), many), (gateway_internal(&pair), few), (auth_public(&pair), few)];
    let [one, two, three] = &targets;
    tokio::join!(all_phases(&one.0, one.1), all_phases(&two.0, two.1), all_phases(&three.0, three.1));
}

async fn all_phases(target: &Target<'_>, count: usize) {
    let memory = process::memory_kib(target.service);
    let (calm, coming) = (Honest::on_one_connection(target).await, Honest::on_new_connections(target));
    let mut phases = JoinSet::new();
    for phase in PHASES {
        phases.spawn(fall_silent(target.plug.clone(), phase, count));
    }
    for (phase, ends) in within("all to be closed", phases.join_all()).await {
        assert_eq!(ends.closed.len() + ends.refused, count);
        let longest = ends.closed.iter().max().copied().unwrap_or_default();
        let (name, closed, refused) = (target.name, ends.closed.len(), ends.refused);
        println!("{name:<17} {phase:<12?} {closed} closed, the last after {longest:.1?}; {refused} refused");
        assert!(closed > 0, "{phase:?}: none came to it");
    }
    let growth = process::memory_kib(target.service) - memory;
    println!("{:<17} {growth:+} KiB; {}", target.name, calm.unharmed().await);
    println!("{:<17} on new connections: {}", target.name, coming.unharmed().await);
}

async fn fall_silent(plug: Plug, phase: Phase, count: usize) -> (Phase, Ends) {
    // Handshakes have their deadline, too: not all begin theirs at once.
    let (mut sockets, turn) = (JoinSet::new(), Arc::new(Semaphore::new(4)));
    for n in 0..count {
        let source = 100 + u8::try_from(n % usize::from(SOURCES)).expect("few");
        sockets.spawn(one(plug.from(source), phase, Arc::clone(&turn)));
    }
    let mut ends = Ends::default();
    for end in sockets.join_all().await {
        match end {
            Some(after) => ends.closed.push(after),
            None => ends.refused += 1,
        }
    }
    (phase, ends)
}

/// How long after its last byte the socket was closed; `None`: it did not come so far.
async fn one(plug: Plug, phase: Phase, turn: Arc<Semaphore>) -> Option<Duration> {
    let turn = turn.acquire().await.expect("open");
    let opening = [PREFACE.as_slice(), &frame(kind::SETTINGS, flag::NONE, 0, &[])].concat();
    let half_headers = &frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x82; 64])[..40];
    match phase {
        Phase::Tcp => {
            let stream = plug.tcp().await.ok()?;
            drop(turn);
            until_closed(stream).await
        }
        Phase::HalfHello => {
            let mut stream = plug.tcp().await.ok()?;
            // A handshake record that says 512 bytes and has 11.
            let half = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0];
            stream.write_all(&half).await.ok()?;
            drop(turn);
            until_closed(stream).await
        }
        Phase::Shaken => {
            let stream = plug.tls().await.ok()?;
            drop(turn);
            until_closed(stream).await
        }
        Phase::Preface => {
            let mut stream = plug.tls().await.ok()?;
            stream.write_all(PREFACE).await.ok()?;
            drop(turn);
            until_closed(stream).await
        }
        Phase::HalfHeaders => {
            let mut stream = plug.tls().await.ok()?;
            stream.write_all(&opening).await.ok()?;
            stream.write_all(&frame(kind::SETTINGS, flag::ACK, 0, &[])).await.ok()?;
            stream.write_all(half_headers).await.ok()?;
            drop(turn);
            until_closed(stream).await
        }
    }
}

async fn until_closed(mut stream: impl AsyncRead + Unpin) -> Option<Duration> {
    let began = Instant::now();
    let mut rest = Vec::new();
    // Closed is closed, with or without a word.
    let _ = within("the end of a silent socket", stream.read_to_end(&mut rest)).await;
    Some(began.elapsed())
}

/// This test holds more sockets than many systems give a program at first.
fn raise_own_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("its own");
}

// I17: caps per source and in all; what is refused is counted and said; health has room of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_caps_are_refused_and_told() {
    let caps = [("connections", "12"), ("connections_per_source", "5"), ("handshakes", "12")];
    let setup =
        caps.iter().fold(patient(), |setup, (key, value)| setup.gateway(&format!("limits.{key}"), value));
    let pair = Pair::start_with(setup.gateway("limits.handshakes_per_source", "5")).await;
    let target = gateway_public(&pair);
    let honest = Honest::on_one_connection(&target).await;
    let mut held = Vec::new();
    for source in [2, 3] {
        held.extend(fill(&target, source, 5).await);
        assert!(Raw::open(&target.plug.from(source)).await.is_err(), "a sixth of one source");
    }
    // With that of who is honest these are eleven. (Those of the start may linger.)
    let rest = eventually("room for one more", async || Raw::open(&target.plug.from(4)).await.ok()).await;
    eventually("a full listener", async || {
        let refused = Raw::open(&target.plug.from(5)).await.is_err();
        refused.then_some(())
    })
    .await;
    healthy(&pair.gateway).await;
    let internal = gateway_internal(&pair);
    let answer = wire::call(&internal.channel(1), internal.path, Vec::new(), &internal.metadata).await;
    assert_eq!(answer.outcome, Outcome::ok(), "each listener has its own");
    println!("at the caps: {}", honest.unharmed().await);
    let refused = metric(&pair.gateway, "connections_refused_total", &["LISTENER_PUBLIC", "full"]).await;
    assert!(refused >= 3.0, "{refused}");
    assert!(pair.gateway.log().contains("connection refused: too many are open"), "said once");
    drop((held, rest));
    until_served(&target).await;
}

/// Opens so many.
async fn fill(target: &Target<'_>, source: u8, count: usize) -> Vec<Raw> {
    let mut held = Vec::new();
    for _ in 0..count {
        // Connections of the start may linger.
        held.push(eventually("room", async || Raw::open(&target.plug.from(source)).await.ok()).await);
    }
    held
}
