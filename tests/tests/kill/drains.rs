//! Workers and gateways that are asked to end under load, as where a new version is rolled out: what was begun is done
//! once, and what was done is not done again.

use interlock_tests::{Pair, eventually};
use rand::RngExt as _;

use crate::{
    gateway_rows, kills,
    load::works::{Ends, Works},
    patient, seeded, spans,
};

const DRAINS: usize = 6;
/// Ended jobs between two drains.
const ENDS: std::ops::Range<usize> = 4..16;

// Issue 7 line 5, DESIGN 8, I3 to I7, I11, I15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drains_lose_no_job_and_repeat_nothing_that_was_done() {
    let (mut rng, drains) = (seeded(), kills(DRAINS));
    let mut pair = Pair::start_with(patient()).await;
    let alice = pair.login("alice").await;
    let project = pair.project(&alice, "drain").await;
    let mut works = Works::begin(&pair, &alice, &project, Ends::Drained).await;
    let mut to_serving = Vec::new();
    for round in 0..drains {
        let target = works.ended() + rng.random_range(ENDS);
        eventually("ended jobs", async || (works.ended() >= target).then_some(())).await;
        if round % 2 == 0 {
            works.drain(rng.random_range(0..2)).await;
        } else {
            let status = pair.gateway.drain().await;
            assert!(status.success(), "{status}");
            to_serving.push(pair.start_gateway().await);
        }
    }
    works.end().await;
    let checked = works.check(&pair).await;
    assert!(pair.gateway.drain().await.success(), "it drains");
    let (rows, changes) = gateway_rows(&pair);
    println!(
        "drains: {drains} of workers and gateways under load; {checked}; lost 0, done twice 0; {changes} changes with one row \
         each; {rows} audit rows in whole chains; to serving {}",
        spans(&to_serving)
    );
}
