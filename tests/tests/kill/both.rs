//! Both services killed at the same moment, as where a machine's power goes.

use std::{sync::Arc, time::Instant};

use interlock_client::SetAgent;
use interlock_tests::{Pair, eventually};
use rand::RngExt as _;

use crate::{
    auth_rows, gateway_rows, kills,
    load::{auth::SignIns, gateway, gateway::Submits},
    patient, seeded, spans,
};

const KILLS: usize = 3;
/// Acknowledged writes between two kills.
const WRITES: std::ops::Range<usize> = 30..90;

// I6, I7, I8, I11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_lose_nothing_they_have_acknowledged() {
    let (mut rng, kills) = (seeded(), kills(KILLS));
    let setup = patient()
        .auth("lease", "1s")
        .gateway("jobs_in_flight_per_owner", "100000")
        .gateway("lease_ttl", "1s");
    let mut pair = Pair::start_with(setup).await;
    let alice = pair.login("alice").await;
    let sdk = pair.sdk_gateway(&alice.access_token);
    for agent in gateway::AGENTS {
        sdk.agents().set(agent, SetAgent::default()).await.expect("an agent");
    }
    let project = pair.project(&alice, "kill").await;
    let submits = Arc::new(Submits::begin(&pair, &alice, &project).await);
    let sign_ins = Arc::new(SignIns::begin(&pair));
    let mut to_serving = Vec::new();
    for _ in 0..kills {
        let acknowledged = || submits.acknowledged() + sign_ins.acknowledged();
        let target = acknowledged() + rng.random_range(WRITES);
        eventually("acknowledged writes", async || (acknowledged() >= target).then_some(())).await;
        if rng.random() {
            pair.gateway.kill();
            pair.auth.kill();
        } else {
            pair.auth.kill();
            pair.gateway.kill();
        }
        let began = Instant::now();
        pair.start_auth().await;
        pair.start_gateway().await;
        pair.serving().await;
        to_serving.push(began.elapsed());
        submits.check_new().await;
        sign_ins.check_new().await;
    }
    submits.end().await;
    sign_ins.end().await;
    let (jobs, owners) = (submits.check_all(&pair).await, sign_ins.check_all().await);
    let retried = submits.retry_everything(&pair).await;
    sign_ins.check_gateway(&pair).await;
    assert!(pair.gateway.drain().await.success() && pair.auth.drain().await.success(), "they drain");
    let (gateway, auth) = (gateway_rows(&pair), auth_rows(&pair));
    println!(
        "both: {kills} kills of both at once; {jobs}; {owners}; lost 0; {retried} request ids retried, each with its first \
         answer; {} changes with one row each; {} audit rows in whole chains; to serving {}",
        gateway.1 + auth.1,
        gateway.0 + auth.0,
        spans(&to_serving)
    );
}
