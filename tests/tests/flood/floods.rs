//! Too much of every kind on one connection, and of connections.
//!
//! Each flood goes over a listener once to warm it up, and then again while memory is looked at and an honest
//! client calls on a connection of its own. HARDENING.md says under 1 MiB of growth; the bound here is what no
//! allocator's whims reach.

use std::{future::Future, pin::Pin};

use interlock_tests::{
    Pair, eventually,
    frames::{self, Raw, Seen, code, flag, frame, kind},
};

use crate::{
    honest::{Honest, until_served},
    process,
    target::{FLOODER, Target, auth_public, gateway_internal, gateway_public, patient},
};

/// What a flood may leave behind, KiB.
const GROWTH_MAX_KIB: i64 = 8 * 1024;

/// Pings, and settings, that are each answered.
const ROUND_TRIPS: u32 = 5_000;

/// How often each goes over a listener after the first time.
fn rounds() -> usize {
    if std::env::var_os("INTERLOCK_LONG").is_some() { 20 } else { 1 }
}

type Flood = for<'t> fn(&'t Target<'_>) -> Pin<Box<dyn Future<Output = String> + 't>>;

const FLOODS: [(&str, Flood); 16] = [
    ("rapid reset", |t| Box::pin(rapid_reset(t))),
    ("CONTINUATION", |t| Box::pin(continuation(t))),
    ("empty CONTINUATION", |t| Box::pin(empty_continuation(t))),
    ("empty DATA", |t| Box::pin(empty_data(t))),
    ("DATA of one byte", |t| Box::pin(crumbs(t))),
    ("PING", |t| Box::pin(pings(t))),
    ("SETTINGS", |t| Box::pin(settings(t))),
    ("PRIORITY, unknown kinds", |t| Box::pin(ignored(t))),
    ("WINDOW_UPDATE of 0", |t| Box::pin(empty_window(t))),
    ("WINDOW_UPDATE beyond", |t| Box::pin(endless_window(t))),
    ("forbidden headers", |t| Box::pin(forbidden_headers(t))),
    ("headers by reference", |t| Box::pin(referenced_headers(t))),
    ("no gRPC", |t| Box::pin(no_grpc(t))),
    ("idle streams", |t| Box::pin(idle_streams(t))),
    ("handshakes", |t| Box::pin(handshakes(t))),
    ("resets of the unknown", |t| Box::pin(strange_resets(t))),
];

// I17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_are_stopped_and_harm_nobody_else() {
    let pair = Pair::start_with(patient()).await;
    for target in [gateway_public(&pair), gateway_internal(&pair), auth_public(&pair)] {
        for (name, flood) in FLOODS {
            flood(&target).await;
            let before = process::memory_kib(target.service);
            let honest = Honest::on_one_connection(&target).await;
            let mut answer = String::new();
            for _ in 0..rounds() {
                answer = flood(&target).await;
            }
            let figures = honest.unharmed().await;
            let growth = process::memory_kib(target.service) - before;
            println!("{:<17} {name:<23} {growth:>+6} KiB  {figures}  {answer}", target.name);
            assert!(growth < GROWTH_MAX_KIB, "{name} at {}: {growth} KiB stay", target.name);
        }
        until_served(&target).await;
    }
}

async fn open(target: &Target<'_>) -> Raw {
    // On a starved machine a handshake may outlast its bound: then it is made once more.
    eventually("a connection", async || Raw::open(&target.plug.from(FLOODER)).await.ok()).await
}

/// The `n`th stream of a client.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

fn whole_call(target: &Target<'_>, n: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream(n), &target.headers(more))
}

/// A call whose message never ends.
fn endless_call(target: &Target<'_>, n: u32) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream(n), &target.headers(&[]))
}

async fn until(raw: &Raw, what: &str, condition: impl Fn(&Seen) -> bool) -> Seen {
    let seen = eventually(what, async || {
        let seen = raw.seen();
        (condition(&seen) || seen.closed).then(|| seen.clone())
    })
    .await;
    assert!(condition(&seen), "no {what}: {seen:?}");
    seen
}

/// The connection ends with this code.
async fn ends_with(raw: &Raw, expected: u32, written: u32) -> String {
    let seen = until(raw, "GOAWAY that closes", |seen| {
        seen.closed && seen.goaway.as_ref().is_some_and(|(code, _)| *code != 0)
    })
    .await;
    let (code, says) = seen.goaway.expect("one came");
    assert_eq!(code, expected, "GOAWAY says `{says}`");
    format!("GOAWAY {code} `{says}` within {written}")
}

async fn rapid_reset(target: &Target<'_>) -> String {
    let raw = open(target).await;
    let cancel = code::CANCEL.to_be_bytes();
    let written = raw.flood(20_000, |n| {
        [whole_call(target, n, &[]), frame(kind::RST_STREAM, flag::NONE, stream(n), &cancel)].concat()
    });
    let written = written.await;
    ends_with(&raw, code::ENHANCE_YOUR_CALM, written).await
}

async fn continuation(target: &Target<'_>) -> String {
    let raw = open(target).await;
    raw.send(&frame(kind::HEADERS, flag::NONE, 1, &target.headers(&[]))).await.expect("open");
    let padding = frames::fields(&[("x-padding", &"x".repeat(1_000))]);
    let written = raw.flood(20_000, |_| frame(kind::CONTINUATION, flag::NONE, 1, &padding)).await;
    ends_with(&raw, code::ENHANCE_YOUR_CALM, written).await
}

async fn empty_continuation(target: &Target<'_>) -> String {
    let raw = open(target).await;
    raw.send(&frame(kind::HEADERS, flag::NONE, 1, &target.headers(&[]))).await.expect("open");
    let written = raw.flood(50_000, |_| frame(kind::CONTINUATION, flag::NONE, 1, &[])).await;
    ends_with(&raw, code::ENHANCE_YOUR_CALM, written).await
}

async fn empty_data(target: &Target<'_>) -> String {
    let raw = open(target).await;
    raw.send(&endless_call(target, 0)).await.expect("open");
    let written = raw.flood(100_000, |_| frame(kind::DATA, flag::NONE, 1, &[])).await;
    ends_with(&raw, code::ENHANCE_YOUR_CALM, written).await
}

/// Slow to read, and no more than its window: that is a call like another, and ends as one.
async fn crumbs(target: &Target<'_>) -> String {
    let raw = open(target).await;
    raw.send(&endless_call(target, 0)).await.expect("open");
    raw.send(&frame(kind::DATA, flag::NONE, 1, &[0, 0, 0, 0x4e, 0x20])).await.expect("open");
    raw.flood(20_000, |n| {
        frame(kind::DATA, if n == 19_999 { flag::END_STREAM } else { flag::NONE }, 1, &[0])
    })
    .await;
    let ended = |seen: &Seen| seen.of(kind::HEADERS) > 0 || seen.goaway.is_some();
    let seen = until(&raw, "an answer", ended).await;
    format!("{} answers, {:?}", seen.of(kind::HEADERS), seen.goaway)
}

async fn pings(target: &Target<'_>) -> String {
    let raw = open(target).await;
    let written =
        raw.flood(ROUND_TRIPS, |n| frame(kind::PING, flag::NONE, 0, &u64::from(n).to_be_bytes())).await;
    let done =
        |seen: &Seen| seen.goaway.is_some() || seen.acks.get(&kind::PING) == Some(&u64::from(ROUND_TRIPS));
    let seen = until(&raw, "an answer to each, or an end", done).await;
    format!("{:?} of {written} answered, {:?}", seen.acks.get(&kind::PING), seen.goaway)
}

async fn settings(target: &Target<'_>) -> String {
    let raw = open(target).await;
    // SETTINGS_INITIAL_WINDOW_SIZE, up and down.
    let setting = |n: u32| [[0, 4].as_slice(), &(1_000 + n % 7).to_be_bytes()].concat();
    let written = raw.flood(ROUND_TRIPS, |n| frame(kind::SETTINGS, flag::NONE, 0, &setting(n))).await;
    // One acknowledgement more is for those of the beginning.
    let done = |seen: &Seen| {
        seen.goaway.is_some() || seen.acks.get(&kind::SETTINGS) == Some(&u64::from(ROUND_TRIPS + 1))
    };
    let seen = until(&raw, "an answer to each, or an end", done).await;
    format!("{:?} of {written} answered, {:?}", seen.acks.get(&kind::SETTINGS), seen.goaway)
}

async fn ignored(target: &Target<'_>) -> String {
    let raw = open(target).await;
    let written = raw.flood(15_000, |n| match n % 3 {
        0 => frame(kind::PRIORITY, flag::NONE, stream(n), &[0, 0, 0, 0, 16]),
        1 => frame(0x7f, 0xff, n, b"what is this?"),
        _ => frame(kind::WINDOW_UPDATE, flag::NONE, 0, &1_u32.to_be_bytes()),
    });
    let written = written.await;
    raw.send(&frame(kind::PING, flag::NONE, 0, &[1; 8])).await.expect("open");
    let done = |seen: &Seen| seen.acks.contains_key(&kind::PING);
    until(&raw, "an answer to what came after", done).await;
    format!("{written} ignored")
}

async fn empty_window(target: &Target<'_>) -> String {
    let raw = open(target).await;
    let written = raw.flood(1_000, |_| frame(kind::WINDOW_UPDATE, flag::NONE, 0, &[0; 4])).await;
    ends_with(&raw, code::PROTOCOL_ERROR, written).await
}

async fn endless_window(target: &Target<'_>) -> String {
    let raw = open(target).await;
    let most = (u32::MAX >> 1).to_be_bytes();
    let written = raw.flood(1_000, |_| frame(kind::WINDOW_UPDATE, flag::NONE, 0, &most)).await;
    ends_with(&raw, code::FLOW_CONTROL_ERROR, written).await
}

async fn forbidden_headers(target: &Target<'_>) -> String {
    let raw = open(target).await;
    let written = raw.flood(20_000, |n| whole_call(target, n, &[("connection", "close")])).await;
    ends_with(&raw, code::ENHANCE_YOUR_CALM, written).await
}

/// A field of 4,000 bytes, put into the table once and named 15,000 times: 60 MB of headers in one frame.
async fn referenced_headers(target: &Target<'_>) -> String {
    let raw = open(target).await;
    let mut block = target.headers(&[]);
    let mut field = frames::fields(&[("x-padding", &"x".repeat(3_000))]);
    // "With incremental indexing" (RFC 7541 section 6.2.1); it is the first of the table then: index 62.
    field[0] = 0x40;
    block.extend(field);
    block.extend([0x80 | 62; 12_000]);
    let written =
        raw.flood(50, |n| frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream(n), &block));
    let written = written.await;
    let done = |seen: &Seen| {
        let told = seen.of(kind::HEADERS) + seen.of(kind::RST_STREAM);
        seen.goaway.is_some() || told >= 50
    };
    let seen = until(&raw, "an answer to each, or an end", done).await;
    format!(
        "{} answers, resets {:?}, {:?} within {written}",
        seen.of(kind::HEADERS),
        seen.resets,
        seen.goaway
    )
}

/// No more at once than there is room for: each has its answer.
async fn no_grpc(target: &Target<'_>) -> String {
    const AT_ONCE: u32 = 50;
    const ALL: u32 = 500;
    let raw = open(target).await;
    let get = frames::fields(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", "localhost"),
    ]);
    for first in (0..ALL).step_by(AT_ONCE as usize) {
        let all = (first..first + AT_ONCE)
            .flat_map(|n| frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream(n), &get));
        raw.send(&all.collect::<Vec<_>>()).await.expect("open");
        let answered = |seen: &Seen| seen.of(kind::HEADERS) == u64::from(first + AT_ONCE);
        until(&raw, "an answer to each", answered).await;
    }
    let seen = raw.seen();
    assert!(seen.goaway.is_none() && seen.resets.is_empty(), "{seen:?}");
    format!("{ALL} answers")
}

/// Streams that do nothing: the server holds as many as it said, refuses the others, and has enough of those
/// who do not heed it.
async fn idle_streams(target: &Target<'_>) -> String {
    let raw = open(target).await;
    let written = raw.flood(20_000, |n| endless_call(target, n)).await;
    let end = ends_with(&raw, code::ENHANCE_YOUR_CALM, written).await;
    let refused = raw.seen().reset_with(code::REFUSED_STREAM);
    assert!(refused > 0, "{:?}", raw.seen());
    format!("{refused} refused, {end}")
}

/// Resets and data for streams that never were: RFC 9113 section 5.1 calls it a connection error.
async fn strange_resets(target: &Target<'_>) -> String {
    let raw = open(target).await;
    let cancel = code::CANCEL.to_be_bytes();
    let written = raw.flood(20_000, |n| frame(kind::RST_STREAM, flag::NONE, stream(n), &cancel)).await;
    ends_with(&raw, code::PROTOCOL_ERROR, written).await
}

/// Connections that come and go, beside a client that needs new ones.
async fn handshakes(target: &Target<'_>) -> String {
    let plug = target.plug.from(FLOODER);
    let honest = Honest::on_new_connections(target);
    for n in 0..100 {
        if n % 4 == 0 {
            drop(plug.tls().await.expect("shaken"));
        } else {
            drop(plug.tcp().await.expect("accepted"));
        }
    }
    let figures = honest.unharmed().await;
    format!("25 shaken, 75 let go; on new connections: {figures}")
}
