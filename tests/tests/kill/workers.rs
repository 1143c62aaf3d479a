//! Workers killed with jobs in their hands, the gateway killed under working workers, and both at once.

use interlock_tests::{Pair, Setup, eventually};
use rand::RngExt as _;

use crate::{
    cluster::Cluster,
    gateway_rows, kills,
    load::works::{Ends, Works},
    patient, seeded, spans,
};

const KILLS: usize = 10;
const GATEWAY_KILLS: usize = 3;
const KILLS_OF_ALL: usize = 3;
const KILLS_ON_POSTGRESQL: usize = 2;
/// Ended jobs between two kills.
const ENDS: std::ops::Range<usize> = 2..14;
/// As often as a worker may die in a long run: the bound on attempts has tests of its own.
const ATTEMPTS: &str = "100";

fn setup() -> Setup {
    let setup = patient().gateway("lease_ttl", "1s").gateway("max_attempts", ATTEMPTS);
    // What dies again and again pauses for longer each time: of this there is enough here.
    setup.gateway("retry_backoff", "50ms")
}

async fn pair() -> Pair {
    Pair::start_with(setup()).await
}

// SW-35+, I3 to I7, I11, I15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_loses_no_job_and_ends_none_twice() {
    let (mut rng, kills) = (seeded(), kills(KILLS));
    let mut pair = pair().await;
    let alice = pair.login("alice").await;
    let project = pair.project(&alice, "kill").await;
    let mut works = Works::begin(&pair, &alice, &project, Ends::Killed).await;
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

// I3 to I7, I11, I15: workers live on when the gateway dies, and bring what they hold to the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_leaves_each_job_one_end() {
    let (mut rng, kills) = (seeded(), kills(GATEWAY_KILLS));
    let mut pair = pair().await;
    let alice = pair.login("alice").await;
    let project = pair.project(&alice, "kill").await;
    let mut works = Works::begin(&pair, &alice, &project, Ends::Killed).await;
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

/// Kills all workers and the gateway at once, so often; both begin anew, in any order. What held, for people.
async fn kill_all_at_once(pair: &mut Pair, kills: usize) -> String {
    let mut rng = seeded();
    let alice = pair.login("alice").await;
    let project = pair.project(&alice, "kill").await;
    let mut works = Works::begin(pair, &alice, &project, Ends::Killed).await;
    let mut to_serving = Vec::new();
    for _ in 0..kills {
        let target = works.ended() + rng.random_range(ENDS);
        eventually("ended jobs", async || (works.ended() >= target).then_some(())).await;
        if rng.random() {
            works.kill_all();
            pair.gateway.kill();
        } else {
            pair.gateway.kill();
            works.kill_all();
        }
        // Who comes first finds nobody.
        if rng.random() {
            works.start_all();
            to_serving.push(pair.start_gateway().await);
        } else {
            to_serving.push(pair.start_gateway().await);
            works.start_all();
        }
    }
    works.end().await;
    let checked = works.check(pair).await;
    let attachable = works.attachable_after_the_death_of_all(pair).await;
    assert!(pair.gateway.drain().await.success(), "it drains");
    format!(
        "{kills} kills of all; {checked}; lost 0, ended twice 0; to serving {}; from the workers' death to attachable {} ms",
        spans(&to_serving),
        attachable.as_millis()
    )
}

// Issue 7 line 8, SW-35+, I3 to I7, I11, I15: nobody is left who knows what was going on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_and_gateway_killed_at_once_leave_each_job_one_end() {
    let mut pair = pair().await;
    let held = kill_all_at_once(&mut pair, kills(KILLS_OF_ALL)).await;
    let (rows, changes) = gateway_rows(&pair);
    println!(
        "workers and gateway at once: {held}; {changes} changes with one row each; {rows} audit rows in whole chains"
    );
}

// The same where the store is elsewhere, and lives on: what the dead gateway had under way there ends by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_on_postgresql() {
    let cluster = Cluster::start();
    let setup = setup().gateway_in(&cluster.database("gateway"));
    let mut pair = Pair::start_with(setup).await;
    let held = kill_all_at_once(&mut pair, kills(KILLS_ON_POSTGRESQL)).await;
    println!("workers and gateway at once, on PostgreSQL: {held}");
}
