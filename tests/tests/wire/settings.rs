//! The table of settings: what a server says of itself, and that it keeps to it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use futures_util::future::join_all;
use interlock_tests::{Pair, Service, Setup, eventually};
use tokio::io::AsyncReadExt as _;

use crate::{
    honest::{Honest, at, public},
    raw::{self, Ask, Raw, prefixed},
    tls::Shows,
};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
/// Open to anyone, and never parked: it waits for its body.
const STATUS: &str = "/interlock.auth.v1.OwnerSessionService/GetStatus";
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

/// Settings of RFC 9113 section 6.5.2 by their numbers.
const MAX_CONCURRENT_STREAMS: u16 = 3;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// From another of this machine's addresses.
async fn from(pair: &Pair, address: SocketAddr, last: u8) -> Raw {
    let from: IpAddr = [127, 0, 2, last].into();
    let leaf = Some(pair.world.leaf("pki/tester"));
    let shows = Shows { from, leaf, ..Shows::nothing(pair.world.ca()) };
    Raw::open(address, &shows).await.expect("a server that takes connections")
}

fn both(pair: &Pair) -> [(&'static str, &Service); 2] {
    [("auth", &pair.auth), ("gateway", &pair.gateway)]
}

fn streams_of(service: &str) -> u32 {
    if service == "auth" { 64 } else { 128 }
}

// HARDENING: streams, windows, header list, frames. The excess of streams is refused, and may be tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_listener_says_its_bounds_and_refuses_the_stream_beyond() {
    // Room for more watches than one connection has streams: its streams are what is at stake here.
    let pair = Pair::start_with(Setup::default().auth("limits.parked_calls", "4096")).await;
    let mut honest = Honest::at_both(&pair).await;
    for door in doors(&pair) {
        let mut raw = door.open(&pair).await;
        raw.until("a window", |raw| raw.window() > 65_535).await;
        let said = [MAX_CONCURRENT_STREAMS, raw::INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE];
        let said = said.map(|setting| raw.settings.get(&setting).copied());
        let case = format!("{} {}", door.service, door.listener);
        assert_eq!(said, [streams_of(door.service), 64 << 10, 16 << 10, 8 << 10].map(Some), "{case}");
        assert_eq!(raw.window(), 8 << 20, "{case}: the window of the connection");
    }
    for (service, running) in both(&pair) {
        let streams = streams_of(service);
        let mut raw = from(&pair, running.address("public"), 2).await;
        let watch = Ask::of(WATCH).message(&[]);
        let mut open = Vec::new();
        for _ in 0..streams {
            open.push(raw.ask(&watch).await);
        }
        let beyond = raw.ask(&watch).await;
        assert_eq!(raw.answer(beyond).await.reset, Some(REFUSED_STREAM), "{service}");
        raw.until("each of the others", |raw| open.iter().all(|n| !raw.seen(*n).data.is_empty())).await;
        assert!(open.iter().all(|stream| !raw.has_ended(*stream)), "{service}: the others go on");
        raw.reset(open[0], CANCEL).await;
        eventually("a stream in the place of that one", async || {
            let next = raw.ask(&watch).await;
            raw.until("a word", |raw| raw.has_ended(next) || !raw.seen(next).data.is_empty()).await;
            (!raw.has_ended(next)).then_some(())
        })
        .await;
        assert_eq!(raw.goaway, None, "{service}");
        honest.are_unharmed("streams above the limit").await;
    }
}

// HARDENING: `concurrency_limit_per_connection` and the global limit, both with load shedding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_the_limits_are_refused_at_once_and_shut_nobody_else_out() {
    let pair =
        Pair::start_with(Setup::default().auth("limits.timeout", "5m").auth("limits.calls", "96")).await;
    let mut honest = Honest::at_both(&pair).await;
    let (public, internal) = (pair.auth.address("public"), pair.auth.address("internal"));
    let waiting = Ask::of(STATUS).unended();
    let mut held = Vec::new();
    // Of one connection 32 are taken; of one source half of all; and of all as many as were said.
    for (source, calls, taken) in [(1, 33, 32), (1, 33, 16), (2, 33, 32), (2, 33, 16), (3, 1, 0)] {
        let mut raw = from(&pair, public, source).await;
        let mut streams = Vec::new();
        for _ in 0..calls {
            streams.push(raw.ask(&waiting).await);
        }
        let refused = |raw: &Raw| streams.iter().filter(|stream| raw.has_ended(**stream)).count();
        raw.until("refusals", |raw| refused(raw) >= calls - taken).await;
        assert_eq!(refused(&raw), calls - taken, "source {source}");
        for stream in streams.iter().filter(|stream| raw.has_ended(**stream)) {
            let answer = raw.seen(*stream);
            let status = tonic::Status::from_header_map(&answer.headers).expect("gRPC");
            let outcome = answer.outcome().expect("gRPC");
            assert_eq!(outcome.short(), "LIMIT_REACHED", "{outcome}");
            assert_eq!(outcome.code, "RESOURCE_EXHAUSTED", "{outcome}");
            let details = tonic_types::StatusExt::get_error_details(&status);
            assert!(details.retry_info().is_some(), "it is told when to come back");
        }
        held.push((raw, streams));
    }
    // Services and health have room of their own: a full public listener fences nobody.
    let check = Ask::of(CHECK).message(&[]);
    let mut service = from(&pair, internal, 4).await;
    let answer = service.call(&check.clone().with("x-internal-token", pair.world.internal_token())).await;
    assert_eq!(answer.outcome().expect("gRPC").code, "OK", "internal");
    let mut health = Raw::plain(pair.auth.address("health")).await.expect("a connection");
    assert_eq!(health.call(&check).await.outcome().expect("gRPC").code, "OK", "health");
    // What has ended makes room at once.
    let (raw, streams) = &mut held[0];
    let first = *streams.iter().find(|stream| !raw.has_ended(**stream)).expect("32 of them");
    raw.body(first, &prefixed(&[]), true).await;
    assert_eq!(raw.answer(first).await.outcome().expect("gRPC").code, "OK");
    let mut other = from(&pair, public, 5).await;
    eventually("room for another source", async || {
        let outcome = other.call(&Ask::of(STATUS).message(&[])).await.outcome().expect("gRPC");
        (outcome.code == "OK").then_some(())
    })
    .await;
    drop(held);
    eventually("room for all", async || {
        let outcome = other.call(&check).await.outcome().expect("gRPC");
        (outcome.code == "OK").then_some(())
    })
    .await;
    honest.are_unharmed("calls beyond the limits").await;
}

/// A service's method, the largest message that it takes, and what such a message of unknown fields gets.
const SIZES: [(&str, &str, &str, usize, &str); 11] = [
    ("auth", "public", STATUS, 64 << 10, "OK"),
    ("auth", "public", "/interlock.auth.v1.RoleTokenService/GetStatus", 64 << 10, "OK"),
    ("auth", "public", "/interlock.auth.v1.ProjectService/ListProjects", 64 << 10, "OK"),
    ("auth", "public", "/interlock.auth.v1.IdentityService/WhoAmI", 64 << 10, "OK"),
    ("auth", "internal", "/interlock.auth.v1.TrustService/Validate", 64 << 10, "INVALID_ARGUMENT"),
    ("gateway", "public", "/interlock.gateway.v1.SessionService/ListSessions", 1 << 20, "OK"),
    ("gateway", "public", "/interlock.gateway.v1.JobService/GetJob", 1 << 20, "INVALID_ARGUMENT"),
    ("gateway", "public", "/interlock.gateway.v1.AgentService/ListAgents", 1 << 20, "OK"),
    ("gateway", "internal", "/interlock.gateway.v1.SessionService/ListSessions", 1 << 20, "OK"),
    ("auth", "public", CHECK, 1 << 10, "OK"),
    ("gateway", "public", CHECK, 1 << 10, "OK"),
];

// HARDENING: `max_decoding_message_size`, to the byte, in each service. Compression would get around it: none is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_message_is_taken_and_one_byte_more_is_not() {
    let pair = Pair::start().await;
    let mut honest = Honest::at_both(&pair).await;
    for (service, listener, path, most, code) in SIZES {
        let leaf = (listener == "internal").then(|| pair.world.leaf("pki/tester"));
        let mut raw = at(&pair, service, listener, leaf).await;
        let mut call = Ask::of(path);
        if listener == "internal" {
            call = call.with("x-internal-token", pair.world.internal_token());
        }
        if !path.contains("TrustService") && !path.starts_with("/grpc.") {
            call = call.bearer(&pair.admin());
        }
        for (bytes, code) in [(most, code), (most + 1, "RESOURCE_EXHAUSTED")] {
            let answer = raw.call(&call.clone().message(&unknown_field(bytes))).await;
            let outcome = answer.outcome().unwrap_or_else(|| panic!("{path}: {answer:?}"));
            assert_eq!(outcome.code, code, "{service} {listener} {path}, {bytes} bytes: {outcome}");
            let offered = answer.headers.get("grpc-encoding").map(http::HeaderValue::as_bytes);
            assert!(matches!(offered, None | Some(b"identity")), "{path}: answers in {offered:?}");
        }
    }
    honest.are_unharmed("large messages").await;
}

/// A message of exactly so many bytes that nobody reads: field 1000.
fn unknown_field(bytes: usize) -> Vec<u8> {
    let tag = [0xc2, 0x3e];
    let lengths = (1..=4_usize).map(|width| (width, bytes - tag.len() - width));
    let (width, length) =
        lengths.into_iter().find(|(width, length)| *length < 1 << (7 * width)).expect("under 256 MiB");
    let mut message = tag.to_vec();
    for at in 0..width {
        let more = if at + 1 < width { 0x80 } else { 0 };
        message.push(u8::try_from(length >> (7 * at) & 0x7f).expect("seven bits") | more);
    }
    message.resize(bytes, b'x');
    message
}

// HARDENING: `max_connection_age`: GOAWAY is sent, and the socket is cut after the grace. The pair lives on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_connection_is_told_so_and_then_cut() {
    let pair = with_limits(&[
        ("limits.timeout", "500ms"),
        ("limits.connection_age", "1s"),
        ("limits.connection_age_grace", "500ms"),
    ])
    .await;
    join_all(doors(&pair).map(|door| door.grows_old(&pair))).await;
    for (service, _) in both(&pair) {
        let next = public(&pair, service).await.call(&Ask::of(CHECK).message(&[])).await;
        assert_eq!(next.outcome().expect("gRPC").code, "OK", "{service}: the next connection");
    }
    // Its own connection to auth, with the lease on it, was cut over and over.
    pair.serving().await;
}

// HARDENING: keepalive: a quiet connection is pinged, and cut where nobody answers. Of TCP's own, the timer is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_peer_is_pinged_and_cut_where_it_does_not_answer() {
    let pair = with_limits(&[
        ("limits.keepalive_interval", "2s"),
        ("limits.keepalive_timeout", "1900ms"),
        ("limits.frame_timeout", "1900ms"),
    ])
    .await;
    join_all(doors(&pair).map(|door| door.falls_silent(&pair))).await;
}

/// A pair with these bounds at both services.
async fn with_limits(limits: &[(&str, &str)]) -> Pair {
    let setup = limits
        .iter()
        .fold(Setup::default(), |setup, (key, value)| setup.auth(key, value).gateway(key, value));
    Pair::start_with(setup).await
}

/// A listener that speaks HTTP/2.
#[derive(Clone, Copy)]
struct Door {
    service: &'static str,
    listener: &'static str,
    address: SocketAddr,
}

fn doors(pair: &Pair) -> impl Iterator<Item = Door> {
    let of = |(service, running): (_, &Service)| {
        ["public", "internal", "health"].map(|listener| Door {
            service,
            listener,
            address: running.address(listener),
        })
    };
    both(pair).map(of).into_iter().flatten()
}

impl Door {
    async fn open(self, pair: &Pair) -> Raw {
        match self.listener {
            "health" => Raw::plain(self.address).await.expect("a connection"),
            _ => from(pair, self.address, 1).await,
        }
    }

    async fn grows_old(self, pair: &Pair) {
        let began = Instant::now();
        let mut raw = self.open(pair).await;
        let watch = Ask::of(WATCH).with("x-internal-token", pair.world.internal_token()).message(&[]);
        let stream = raw.ask(&watch).await;
        raw.until("a GOAWAY", |raw| raw.goaway.is_some()).await;
        let (told, case) = (began.elapsed(), format!("{} {}", self.service, self.listener));
        assert_eq!(raw.goaway, Some(0), "{case}: told, and for no fault");
        assert!(!raw.has_ended(stream), "{case}: what is open may go on for a while");
        raw.until("the end", |_| false).await;
        assert!(raw.closed && !raw.seen(stream).ended, "{case}: cut");
        println!("{case}: GOAWAY after {told:?}, cut after {:?}", began.elapsed());
    }

    async fn falls_silent(self, pair: &Pair) {
        let (mut polite, mut silent) = (self.open(pair).await, self.open(pair).await);
        let case = format!("{} {}", self.service, self.listener);
        let (address, local) = (self.address, polite.local);
        eventually("TCP's keepalive", async || keepalive_timer(address, local).then_some(())).await;
        silent.polite = false;
        let began = Instant::now();
        // Who answers outlives who does not: it is asked again.
        tokio::join!(silent.until("the end", |_| false), polite.until("two pings", |raw| raw.pings >= 2));
        println!("{case}: who is silent was cut, who answers was asked again within {:?}", began.elapsed());
        assert_eq!((silent.pings, silent.closed), (1, true), "{case}: it was asked once");
        assert!(!polite.closed, "{case}: who answers stays");
    }
}

/// Whether the server's end of a connection has its keepalive timer set: `tr` in `/proc/net/tcp` (proc(5)).
fn keepalive_timer(server: SocketAddr, client: SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let (server, client) = (format!(":{:04X}", server.port()), format!(":{:04X}", client.port()));
    let ours = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = ours.filter(|line| line[1].ends_with(&server) && line[2].ends_with(&client));
    found.next().is_some_and(|line| line[5].starts_with("02:"))
}

// HARDENING, "caps": connections in total, of one address, and handshakes in flight; each listener has its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_caps_are_closed_and_others_are_not() {
    let caps = [
        ("limits.connections", "5"),
        ("limits.connections_per_source", "2"),
        ("limits.handshakes", "4"),
        ("limits.handshakes_per_source", "1"),
        ("limits.handshake_timeout", "60s"),
    ];
    let setup = caps.iter().fold(Setup::default(), |setup, (key, value)| setup.auth(key, value));
    let mut pair = Pair::stopped(setup);
    pair.start_auth().await;
    let mut honest = Honest::at_auth(&pair).await;
    let address = pair.auth.address("public");
    // Handshakes: one that is never begun keeps its source from the next, and from nothing else.
    let silent = raw::tcp(address, [127, 0, 2, 9].into()).await.expect("a connection");
    assert!(is_closed(address, 9).await, "a second handshake of one source");
    drop(silent);
    // Connections: two of one source, five in all with that of the honest one.
    let mut open = Vec::new();
    for source in [1, 1, 2, 2] {
        open.push(
            eventually("a place", async || {
                let leaf = Some(pair.world.leaf("pki/tester"));
                let from = [127, 0, 2, source].into();
                Raw::open(address, &Shows { from, leaf, ..Shows::nothing(pair.world.ca()) }).await.ok()
            })
            .await,
        );
    }
    assert!(is_closed(address, 1).await, "a third of one source");
    assert!(is_closed(address, 3).await, "a sixth in all");
    let check = Ask::of(CHECK).with("x-internal-token", pair.world.internal_token()).message(&[]);
    let mut internal = from(&pair, pair.auth.address("internal"), 1).await;
    assert_eq!(internal.call(&check).await.outcome().expect("gRPC").code, "OK", "internal");
    let mut health = Raw::plain(pair.auth.address("health")).await.expect("a connection");
    assert_eq!(health.call(&check).await.outcome().expect("gRPC").code, "OK", "health");
    honest.are_unharmed("full caps").await;
    for raw in &mut open {
        assert_eq!(raw.call(&check).await.outcome().expect("gRPC").code, "OK", "who is in");
    }
    open.clear();
    let shows = Shows { from: [127, 0, 2, 3].into(), ..Shows::nothing(pair.world.ca()) };
    eventually("a place again", async || Raw::open(address, &shows).await.ok()).await;
}

/// Whether a connection is closed before anything was said on it.
async fn is_closed(address: SocketAddr, source: u8) -> bool {
    let Ok(mut stream) = raw::tcp(address, [127, 0, 2, source].into()).await else { return true };
    matches!(interlock_tests::within("an end", stream.read(&mut [0; 1])).await, Ok(0) | Err(_))
}
