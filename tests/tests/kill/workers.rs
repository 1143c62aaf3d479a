//! Workers killed with jobs in their hands, and the gateway killed under working workers.

use interlock_tests::{Pair, eventually};
use rand::RngExt as _;

use crate::{gateway_rows, kills, load::works::Works, patient, seeded, spans};

const KILLS: usize = 10;
const GATEWAY_KILLS: usize = 3;
/// Ended jobs between two kills.
const ENDS: std::ops::Range<usize> = 2..14;
/// As often as a worker may die in a long run: the bound on attempts has tests of its own.
const ATTEMPTS: &str = "100";

async fn pair() -> Pair {
    let setup = patient().gateway("lease_ttl", "1s").gateway("max_attempts", ATTEMPTS);
    Pair::start_with(setup).await
}

// SW-35+, I4, I5, I6, I7, I11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_loses_no_job_and_ends_none_twice() {
    let (mut rng, kills) = (seeded(), kills(KILLS));
    let mut pair = pair().await;
    let alice = pair.login("alice").await;
    let project = pair.project(&alice, "kill").await;
    let mut works = Works::begin(&pair, &alice, &project).await;
    for _ in 0..kills {
        let target = works.ended() + rng.random_range(ENDS);
        eventually("ended jobs", async || (works.ended() >= target).then_some(())).await;
        works.kill(rng.random_range(0..2));
    }
    works.end().await;
    let checked = works.check(&pair).await;
    let attachable = works.attachable_after_the_death_of_all(&pair).await;
    assert!(pair.gateway.drain().await.success(), "it drains");
    let (rows, changes) = gateway_rows(&pair);
    println!(
        "worker: {kills} kills; {checked}; lost 0, ended twice 0; {changes} changes with one row each; {rows} audit rows in whole \
         chains; from a worker's death to attachable {} ms, on leases of 1 s",
        attachable.as_millis()
    );
}

// I4, I5, I6, I7, I11: workers live on when the gateway dies, and bring what they hold to the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_leaves_each_job_one_end() {
    let (mut rng, kills) = (seeded(), kills(GATEWAY_KILLS));
    let mut pair = pair().await;
    let alice = pair.login("alice").await;
    let project = pair.project(&alice, "kill").await;
    let mut works = Works::begin(&pair, &alice, &project).await;
    let mut to_serving = Vec::new();
    for _ in 0..kills {
        let target = works.ended() + rng.random_range(ENDS);
        eventually("ended jobs", async || (works.ended() >= target).then_some(())).await;
        pair.gateway.kill();
        to_serving.push(pair.start_gateway().await);
    }
    works.end().await;
    let checked = works.check(&pair).await;
    let attachable = works.attachable_after_the_death_of_all(&pair).await;
    assert!(pair.gateway.drain().await.success(), "it drains");
    let (rows, changes) = gateway_rows(&pair);
    println!(
        "gateway under workers: {kills} kills; {checked}; lost 0, ended twice 0; {changes} changes with one row each; {rows} \
         audit rows in whole chains; to serving {}; from the workers' death to attachable {} ms",
        spans(&to_serving),
        attachable.as_millis()
    );
}
