//! No file descriptors left.

use std::time::{Duration, Instant};

use interlock_tests::{
    Pair, eventually,
    frames::Raw,
    wire::{self, Outcome},
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::{
    honest::{Honest, healthy, until_served},
    process::{self, cpu, metric},
    target::{FLOODER, Target, gateway_internal, gateway_public, patient},
};

/// More connections of one source than its share of so few descriptors.
const TRIES: usize = 50;

/// Opens as many as there is room for.
async fn fill(target: &Target<'_>, source: u8) -> Vec<Raw> {
    let mut open = Vec::new();
    for _ in 0..TRIES {
        open.extend(Raw::open(&target.plug.from(source)).await.ok());
    }
    assert!(open.len() < TRIES, "no bound on connections");
    open
}

// I17: a program that may open few files never gives all of them to peers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_low_limit_peers_never_get_all_descriptors() {
    const LIMIT: u32 = 256;
    let mut pair = Pair::stopped(patient());
    pair.gateway.limit_descriptors(LIMIT);
    pair.start_auth().await;
    pair.start_gateway().await;
    pair.serving().await;
    let idle = process::descriptors(&pair.gateway);
    let (target, internal) = (gateway_public(&pair), gateway_internal(&pair));
    let honest = Honest::on_one_connection(&target).await;
    let mut held = Vec::new();
    for source in [2, 3, 4] {
        held.extend(fill(&target, source).await);
    }
    held.extend(fill(&internal, 2).await);
    let open = process::descriptors(&pair.gateway);
    println!("{idle} descriptors open when idle, {open} of {LIMIT} with {} connections held", held.len());
    assert!(open < LIMIT as usize, "some are left");
    healthy(&pair.gateway).await;
    let refused = metric(&pair.gateway, "connections_refused_total", &["LISTENER_PUBLIC", "full"]).await;
    assert!(refused > 0.0, "told");
    assert_eq!(
        metric(&pair.gateway, "connections_refused_total", &["\"accept\""]).await,
        0.0,
        "never so far"
    );
    println!("{}", honest.unharmed().await);
    drop(held);
    until_served(&target).await;
    until_served(&internal).await;
}

// HARDENING.md, the accept loop: EMFILE pauses it, and spins nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_what_is_open_goes_on_and_nothing_spins() {
    const BUSY: Duration = Duration::from_secs(3);
    const QUIET: Duration = Duration::from_secs(1);
    let pair = Pair::start_with(patient()).await;
    let target = gateway_public(&pair);
    let alice = pair.login("alice").await;
    let sdk = pair.sdk_gateway(&alice.access_token);
    sdk.sessions().create("before").await.expect("a session");
    let honest = Honest::on_one_connection(&target).await;

    let limit = process::descriptors(&pair.gateway) as u64 + 8;
    let before = bound(&pair, Some(limit));
    let mut held = tokio::task::JoinSet::new();
    for n in 0..40_u8 {
        let plug = target.plug.from(FLOODER + n % 4);
        // Those that are served stay; those that wait to be accepted wait.
        held.spawn(async move {
            let _raw = Raw::open(&plug).await;
            std::future::pending::<()>().await;
        });
    }
    eventually("an accept that fails", async || pair.gateway.log().contains("accept failed").then_some(()))
        .await;

    let began = Instant::now();
    let mut writes = 0;
    while began.elapsed() < BUSY {
        sdk.sessions().create("").await.expect("what is open goes on, writes too");
        writes += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("without descriptors: {writes} writes, {}", honest.unharmed().await);
    let (quiet, spent) = (Instant::now(), cpu(&pair.gateway));
    tokio::time::sleep(QUIET).await;
    let (quiet, spent) = (quiet.elapsed(), cpu(&pair.gateway) - spent);
    println!("{spent:.1?} of processors in {quiet:.1?} with nothing to do");
    assert!(spent < quiet / 2, "something spins");
    sdk.sessions().create("").await.expect("and so after a while");

    bound_to(&pair, before);
    drop(held);
    until_served(&target).await;
    healthy(&pair.gateway).await;
    let failed = metric(&pair.gateway, "connections_refused_total", &["LISTENER_PUBLIC", "\"accept\""]).await;
    // One each 50 ms at most.
    println!("{failed} accepts failed in {:.1?}", began.elapsed());
    assert!((1.0..began.elapsed().as_secs_f64() * 20.0 + 40.0).contains(&failed), "{failed}");
    let said = pair.gateway.log().matches("accept failed").count();
    // One each time that it began to fail: no more often than a socket was accepted in between.
    assert!(said <= 45, "the log is no flood: {said}");
    let answer = wire::call(&target.channel(1), target.path, Vec::new(), &target.metadata).await;
    assert_eq!(answer.outcome, Outcome::ok());
}

/// Bounds the gateway's descriptors from now on; gives the bound before.
fn bound(pair: &Pair, most: Option<u64>) -> Rlimit {
    let pid = pair.gateway.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current: most, maximum }).expect("ours")
}

fn bound_to(pair: &Pair, limit: Rlimit) {
    bound(pair, limit.current);
}
