//! Garbage credentials at speed: one constant answer, no look-up for what cannot be one of ours, and a bound by
//! source on what might be.

use std::{net::SocketAddr, time::Instant};

use interlock_proto::credential::{Credential, Kind, cookie_name};
use interlock_tests::{PATIENCE, Pair, Setup, wire::Outcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    honest::Honest,
    raw::{self, Ask, Raw},
    tls::Shows,
};

const VALIDATE: &str = "/interlock.auth.v1.TrustService/Validate";
/// Calls on their way at once: what every connection has room for.
const AT_ONCE: usize = 32;
/// Of each kind of garbage that cannot be ours.
const EACH: usize = 30;
/// More than any budget is worth, however fast they are answered.
const GUESSES_MAX: usize = 50_000;

/// A service's method that asks for a caller.
struct Target {
    service: &'static str,
    path: &'static str,
}

const TARGETS: [Target; 2] = [
    Target { service: "auth", path: "/interlock.auth.v1.IdentityService/WhoAmI" },
    Target { service: "gateway", path: "/interlock.gateway.v1.SessionService/ListSessions" },
];

// HARDENING, "garbage tokens at speed": UNAUTHENTICATED, constant text, store untouched; then RATE_LIMITED.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_costs_nothing_and_what_looks_valid_is_limited_by_source() {
    let pair = Pair::start_with(small_budgets()).await;
    let mut honest = Honest::at_both(&pair).await;
    let before = looked_up(&pair).await;
    for target in &TARGETS {
        let mut raw = guesser(&pair, target).await;
        let mut said = garbage(&mut raw, target).await;
        said.dedup();
        let constant = Outcome {
            code: "UNAUTHENTICATED".to_owned(),
            reason: "PROVIDER_AUTH_FAILED".to_owned(),
            message: "login required".to_owned(),
        };
        assert_eq!(said, [constant], "{}: one answer, whatever was shown", target.service);
    }
    // Nothing was looked up: neither in auth's store nor by a call of the gateway's.
    assert_eq!(looked_up(&pair).await, before, "look-ups for what cannot be a credential");
    for target in &TARGETS {
        let mut raw = guesser(&pair, target).await;
        let (guesses, limited) = until_limited(&mut raw, target).await;
        println!("{}: limited after {guesses} unknown credentials", target.service);
        assert_eq!((&*limited.code, &*limited.reason), ("RESOURCE_EXHAUSTED", "RATE_LIMITED"));
        honest.are_unharmed("garbage credentials").await;
        // Who is known is not kept out by who guesses beside them, on the same address.
        let known = Ask::of(target.path).bearer(&pair.user()).message(&[]);
        let mut beside = guesser(&pair, target).await;
        let first = beside.call(&known).await.outcome();
        let again = raw.call(&known).await.outcome();
        assert_eq!([first, again], [Some(Outcome::ok()), Some(Outcome::ok())], "{}", target.service);
    }
}

// The same of cookies: the store is asked for none that cannot be, and for few that are unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_cookies_are_limited_by_source() {
    let pair = Pair::start_with(small_budgets()).await;
    let mut honest = Honest::at_both(&pair).await;
    let target = &TARGETS[1];
    let mut raw = guesser(&pair, target).await;
    let get = Ask::of("/interlock.gateway.v1.SessionService/GetSession");
    let session = pair.sdk_gateway(&pair.user()).sessions().create("").await.expect("a session").session;
    let name = cookie_name(&session.session_id);
    let field =
        [&[0x0a, u8::try_from(session.session_id.len()).expect("short")], session.session_id.as_bytes()];
    let message = field.concat();
    let cookie = |secret: &Credential| {
        get.clone().with("cookie", &format!("{name}={}", secret.expose())).message(&message)
    };
    let mut refusals = Vec::new();
    let began = Instant::now();
    while refusals.last().is_none_or(|last: &Outcome| last.reason != "RATE_LIMITED") {
        assert!(
            refusals.len() < GUESSES_MAX && began.elapsed() < PATIENCE,
            "never limited: {:?}",
            refusals.last()
        );
        let asks: Vec<_> = (0..AT_ONCE).map(|_| cookie(&unknown(Kind::Client))).collect();
        refusals.extend(all(&mut raw, &asks).await);
    }
    println!("limited after {} unknown cookies", refusals.len());
    refusals.retain(|refusal| refusal.reason != "RATE_LIMITED");
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "one answer: {refusals:?}");
    assert_eq!(refusals[0].code, "UNAUTHENTICATED");
    honest.are_unharmed("unknown cookies").await;
}

/// Few look-ups a second, so that a slow machine comes to their end as well.
fn small_budgets() -> Setup {
    Setup::default().auth("limits.unknown_credentials", "20").gateway("limits.unknown_credentials", "20")
}

/// A client from an address of its own.
async fn guesser(pair: &Pair, target: &Target) -> Raw {
    let service = if target.service == "auth" { &pair.auth } else { &pair.gateway };
    let shows = Shows { from: [127, 0, 3, 1].into(), ..Shows::nothing(pair.world.ca()) };
    Raw::open(service.address("public"), &shows).await.expect("a connection")
}

/// A credential of ours by its form that nobody was given.
fn unknown(kind: Kind) -> Credential {
    Credential::new(kind, &rand::random())
}

/// What cannot be a credential, all of it different: wrong checksums, wrong forms, kinds that admit nobody.
async fn garbage(raw: &mut Raw, target: &Target) -> Vec<Outcome> {
    let mut said = Vec::new();
    for n in 0..EACH {
        let good = unknown(Kind::Owner);
        let good = good.expose();
        // The checksum of another one.
        let swapped =
            format!("{}{}", &good[..good.len() - 6], &unknown(Kind::Owner).expose()[good.len() - 6..]);
        let texts = [
            swapped,
            good[..good.len() - 1].to_owned(),
            format!("{good}0"),
            good.to_uppercase(),
            good.replace("own", "xyz"),
            format!("junk-{n}"),
            unknown(Kind::Client).expose().to_owned(),
            unknown(Kind::Internal).expose().to_owned(),
        ];
        let asks = texts
            .map(|text| Ask::of(target.path).with("authorization", &format!("Bearer {text}")).message(&[]));
        said.extend(all(raw, &asks).await);
    }
    said
}

/// Guesses what looks valid until that is too often; how often it was, and what is said then.
async fn until_limited(raw: &mut Raw, target: &Target) -> (usize, Outcome) {
    let (began, mut guesses) = (Instant::now(), 0);
    loop {
        assert!(guesses < GUESSES_MAX && began.elapsed() < PATIENCE, "{}: never limited", target.service);
        let asks: Vec<_> =
            (0..AT_ONCE).map(|_| Ask::of(target.path).bearer(&unknown(Kind::Owner)).message(&[])).collect();
        let said = all(raw, &asks).await;
        guesses += said.len();
        for outcome in said {
            match outcome.code.as_str() {
                "UNAUTHENTICATED" => assert_eq!(outcome.message, "login required", "{outcome}"),
                _ => return (guesses, outcome),
            }
        }
    }
}

/// Makes calls at once; their answers in their order.
async fn all(raw: &mut Raw, asks: &[Ask]) -> Vec<Outcome> {
    let mut streams = Vec::new();
    for ask in asks {
        streams.push(raw.ask(ask).await);
    }
    let mut said = Vec::new();
    for stream in streams {
        let answer = raw.answer(stream).await;
        said.push(answer.outcome().unwrap_or_else(|| panic!("{answer:?}")));
    }
    said
}

/// How often auth has looked a credential up, for its own callers and for a verifier.
async fn looked_up(pair: &Pair) -> [u64; 2] {
    let metrics = metrics(pair.auth.address("metrics")).await;
    let sum = |wanted: &dyn Fn(&str) -> bool| {
        let counts = metrics.lines().filter(|line| wanted(line)).filter_map(|line| line.rsplit(' ').next());
        counts.map(|count| count.parse::<u64>().expect("a count")).sum()
    };
    [
        sum(&|line| line.starts_with("unknown_credentials_total")),
        sum(&|line| line.starts_with("calls_total") && line.contains(VALIDATE)),
    ]
}

async fn metrics(address: SocketAddr) -> String {
    let mut stream = raw::tcp(address, [127, 0, 0, 1].into()).await.expect("a connection");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("room");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("text");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    text
}
