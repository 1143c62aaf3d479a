//! A crowd with credentials that the gateway does not know, while auth cannot be reached: each costs a question,
//! and none may cost a connection of its own.

use std::time::Instant;

use interlock_client::{Credential, Kind};
use interlock_tests::{
    Pair, eventually,
    link::Mode,
    wire::{self, Metadata},
};
use tokio::task::JoinSet;

use crate::{seed, short};

const LIST_SESSIONS: &str = "/interlock.gateway.v1.SessionService/ListSessions";
const CROWD: u8 = 64;
/// Calls of each.
const CALLS: usize = 4;
/// New connections in a second, at most: pauses grow to between half a tenth of a second and one.
const CONNECTIONS_PER_S: usize = 20;
/// ... and before they have grown.
const FIRST_CONNECTIONS: usize = 24;
/// What the gateway may grow by, in KiB.
const GROWTH_MAX: u64 = 64 * 1024;

// I17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_a_refused_link_makes_no_storm() {
    let (pair, link) = Pair::start_linked(short().auth("lease", "30s"), seed()).await;
    let (before, resident) = (link.connections(), resident_kib(&pair));
    link.turn(Mode::Refuse);
    let began = Instant::now();
    let mut crowd = JoinSet::new();
    for n in 0..CROWD {
        let channel = pair.gateway_public();
        let metadata = Metadata::bearer(&Credential::new(Kind::Owner, &[n; 32]));
        crowd.spawn(async move {
            for _ in 0..CALLS {
                let answer = wire::call(&channel, LIST_SESSIONS, Vec::new(), &metadata).await;
                assert_eq!(
                    answer.outcome.reason, "AUTH_UNAVAILABLE",
                    "nobody is signed out: {}",
                    answer.outcome
                );
            }
        });
    }
    crowd.join_all().await;
    let (connections, took) = (link.connections() - before, began.elapsed());
    let bound = FIRST_CONNECTIONS + CONNECTIONS_PER_S * (took.as_secs() as usize + 1);
    assert!(connections <= bound, "a storm of {connections} connections in {took:?}");
    let grown = resident_kib(&pair).saturating_sub(resident);
    assert!(grown <= GROWTH_MAX, "I17: grown by {grown} KiB");
    link.turn(Mode::Pass);
    let healed = Instant::now();
    pair.serving().await;
    eventually("readiness", async || (Pair::readyz(&pair.gateway).await.0 == 200).then_some(())).await;
    println!(
        "refused link: {} calls on unknown credentials, all AUTH_UNAVAILABLE; {connections} connections in {:.1} s; grown by \
         {grown} KiB; healthy {} ms after healing",
        usize::from(CROWD) * CALLS,
        took.as_secs_f64(),
        healed.elapsed().as_millis()
    );
}

fn resident_kib(pair: &Pair) -> u64 {
    let pid = pair.gateway.pid().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}
