//! The real programs on PostgreSQL: the main job, and what both have acknowledged after a kill of both and of the
//! database.

#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../../../service-kit/tests/store/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../../../service-kit/tests/store/proxy.rs"]
mod proxy;

mod audit_logs;
mod auths;
mod gateways;
mod moved;
mod papers;
mod ways;

use cluster::Cluster;
use interlock_client::{Reason, SetAgent};
use interlock_tests::{Pair, Setup, eventually};

// SW-26, I1, I6, I8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pair_works_on_postgresql_and_loses_nothing_in_kills() {
    let mut cluster = Cluster::start();
    let setup = Setup::default()
        .auth("store", &cluster.database("auth"))
        .auth("lease", "1s")
        .gateway("store", &cluster.database("gateway"));
    let mut pair = Pair::start_with(setup).await;
    for file in ["auth/auth.db", "gateway/gateway.db"] {
        assert!(!pair.world.path(file).exists(), "{file}: nothing is kept beside the database");
    }
    let alice = pair.login("alice").await;
    let gateway = pair.sdk_gateway(&alice.access_token);
    gateway.agents().set("builder", SetAgent::default()).await.expect("an agent");
    let (here, there) = (pair.project(&alice, "here").await, pair.project(&alice, "there").await);
    let session = gateway.sessions().create("").await.expect("a session").session.session_id;
    gateway.sessions().attach(&session, "builder", &here).await.expect("idle");
    let mut jobs = Vec::new();
    for n in 0..8 {
        jobs.push(gateway.jobs().submit(&session, format!("{n}")).await.expect("queued").job_id);
    }

    pair.gateway.kill();
    pair.auth.kill();
    cluster.kill();
    cluster.serve();
    pair.start_auth().await;
    pair.start_gateway().await;
    pair.serving().await;

    let refused = gateway.sessions().attach(&session, "builder", &there).await.expect_err("jobs are queued");
    assert_eq!(refused.reason(), Some(Reason::SessionBusy), "{refused}");
    for job in &jobs {
        gateway.jobs().get(job).await.expect("it was acknowledged");
        gateway.jobs().cancel(job).await.expect("it is queued");
    }
    gateway.sessions().attach(&session, "builder", &there).await.expect("nothing is in flight");

    // The database alone goes and comes back: nobody is signed out, and writes go on.
    cluster.kill();
    cluster.serve();
    eventually("a write", async || gateway.sessions().create("").await.ok()).await;
    pair.sdk_auth_as(&alice.access_token).logout(&alice.access_token).await.expect("signed out");
    let refused = gateway.sessions().get(&session).await.expect_err("revoked everywhere");
    assert_eq!(refused.code(), interlock_client::Code::Unauthenticated, "{refused}");
    assert!(pair.gateway.drain().await.success() && pair.auth.drain().await.success(), "they drain");
}
