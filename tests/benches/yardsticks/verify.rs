//! `verify`: a cached credential in a verifier, with its lease held from the real auth, beside SHA-256 and a
//! `HashMap`. No call is made; so this is one process, and nanoseconds a call.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::Barrier,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use interlock_client::{
    Connection, Credential, Tls,
    verifier::{Verifier, VerifierOptions},
};
use interlock_tests::Pair;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{owners::Owner, plan::Plan};

/// Known credentials of each thread.
const EACH: usize = 8;
const THREADS_MAX: usize = 2;
/// Calls between two looks at the clock.
const ROUND: usize = 512;
const SLICE_MAX: Duration = Duration::from_millis(400);

/// Both sides under one load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    /// Which load.
    pub(crate) name: &'static str,
    /// At once.
    pub(crate) threads: usize,
    /// Nanoseconds of one thread for one call, for each pair.
    pub(crate) ours_ns: Vec<f64>,
    /// The same.
    pub(crate) bare_ns: Vec<f64>,
    /// With one thread, for each pair.
    pub(crate) ours_alone_ns: Vec<f64>,
    /// The same.
    pub(crate) bare_alone_ns: Vec<f64>,
}

/// One thread; two with credentials of their own; two with the same one.
pub(crate) async fn compare(plan: &Plan, pair: &Pair, owners: &[Owner]) -> Vec<Comparison> {
    let verifier = verifier(pair);
    verifier.ready().await;
    let credentials: Vec<_> =
        owners.iter().take(EACH * THREADS_MAX).map(|owner| owner.token.clone()).collect();
    for credential in &credentials {
        verifier.verify(credential).await.expect("a known credential");
    }
    let slice = plan.slice().min(SLICE_MAX);
    let pairs = plan.pairs;
    let measured = tokio::task::spawn_blocking(move || measure(&verifier, &credentials, pairs, slice));
    measured.await.expect("measured")
}

fn verifier(pair: &Pair) -> Verifier {
    let (certificate, key) = pair.world.leaf("pki/tester");
    let tls = Tls::ca_file(pair.world.ca()).identity_files(certificate, key).server_name("localhost");
    let connection = Connection::to(format!("https://{}", pair.auth.address("internal")))
        .tls(tls)
        .internal_token_file(pair.world.path("internal.token"))
        .open()
        .expect("a connection");
    Verifier::start(connection, VerifierOptions::named("yardstick"))
}

fn measure(
    verifier: &Verifier,
    credentials: &[Credential],
    pairs: usize,
    slice: Duration,
) -> Vec<Comparison> {
    let known: HashMap<[u8; 32], usize> =
        credentials.iter().enumerate().map(|(at, credential)| (credential.hash(), at)).collect();
    let ours = |credential: &Credential| {
        let verdict = verifier.verify(credential).now_or_never().expect("a cached credential needs no call");
        black_box(verdict.expect("a known credential under a lease"));
    };
    let bare = |credential: &Credential| {
        let hash: [u8; 32] = Sha256::digest(credential.expose().as_bytes()).into();
        black_box(known.get(&hash).expect("a known credential"));
    };
    let (first, second) = credentials.split_at(EACH);
    let loads: [(&str, Vec<&[Credential]>); 3] = [
        ("1 thread", vec![first]),
        ("2 threads, credentials of their own", vec![first, second]),
        ("2 threads, one credential", vec![&first[..1], &first[..1]]),
    ];
    let mut all: Vec<Comparison> = Vec::new();
    for (name, load) in loads {
        let mut ns = Comparison {
            name,
            threads: load.len(),
            ours_ns: Vec::new(),
            bare_ns: Vec::new(),
            ours_alone_ns: Vec::new(),
            bare_alone_ns: Vec::new(),
        };
        for _ in 0..pairs {
            ns.ours_ns.push(ns_per_call(&load, slice, ours));
            ns.bare_ns.push(ns_per_call(&load, slice, bare));
        }
        let alone = all.first().unwrap_or(&ns);
        (ns.ours_alone_ns, ns.bare_alone_ns) = (alone.ours_ns.clone(), alone.bare_ns.clone());
        all.push(ns);
    }
    all
}

/// Each list of credentials on a thread of its own, over and over.
fn ns_per_call(
    load: &[&[Credential]],
    slice: Duration,
    call: impl Fn(&Credential) + Copy + Sync + Send,
) -> f64 {
    let start = Barrier::new(load.len());
    let each: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = load
            .iter()
            .map(|credentials| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    let (began, mut calls) = (Instant::now(), 0_usize);
                    while began.elapsed() < slice {
                        credentials.iter().cycle().take(ROUND).for_each(call);
                        calls += ROUND;
                    }
                    began.elapsed().as_nanos() as f64 / calls as f64
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread ends")).collect()
    });
    each.iter().sum::<f64>() / each.len() as f64
}
