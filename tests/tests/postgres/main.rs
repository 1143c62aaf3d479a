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
mod full;
mod gateways;
mod moved;
mod papers;
mod ways;

use cluster::Cluster;
use interlock_client::{Reason, SetAgent};
use interlock_tests::{Pair, Setup, eventually, service::program};

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
    reset_on_its_host(&mut pair, &cluster).await;
    assert!(pair.gateway.drain().await.success() && pair.auth.drain().await.success(), "they drain");
}

/// SW-38, SW-39, SW-40, FN-27 where the store is a database: while auth has it nothing is changed, and after that both
/// role tokens are replaced, everybody is signed out, and all else is kept.
async fn reset_on_its_host(pair: &mut Pair, cluster: &Cluster) {
    let bob = pair.login("bob").await;
    let (admin, user) = (pair.admin(), pair.user());
    let run = |pair: &Pair, arguments: &[&str]| {
        let mut command = std::process::Command::new(program("interlock-auth"));
        let command = command.args(arguments).arg("--config").arg(pair.world.path("auth.toml"));
        let output = command.output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let commands: [&[&str]; 2] = [&["auth", "reset", "--yes"], &["auth", "revoke-all", "--yes"]];
    for command in commands {
        let (code, said) = run(pair, command);
        assert_eq!(code, Some(1), "while a service runs on it: {said}");
    }
    pair.sdk_auth_as(&admin).role_tokens(false).await.expect("nothing was changed");
    assert!(pair.auth.drain().await.success(), "it drains");
    for command in commands {
        let (code, said) = run(pair, &command[..2]);
        assert!(code == Some(1) && said.contains("repeat with --yes"), "{said}");
    }
    let owners = cluster.sql("auth", "SELECT COUNT(*) FROM owner");
    let (code, said) = run(pair, commands[0]);
    assert_eq!(code, Some(0), "{said}");
    let new = [pair.admin(), pair.user()];
    assert!(new[0] != admin && new[1] != user);
    assert!(new.iter().all(|token| said.contains(token.expose())), "both are printed");
    assert!(said.contains("auth_tokens.json"), "with their path");
    let (code, said) = run(pair, commands[1]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(cluster.sql("auth", "SELECT COUNT(*) FROM owner"), owners, "owners are kept");
    let told = "SELECT COUNT(*) FROM audit WHERE outcome = 'done' AND principal = 'host'
                AND action IN ('role_token.reset', 'owner_session.revoke')";
    assert_eq!(cluster.sql("auth", told), "2", "a row for each");
    pair.start_auth().await;
    pair.serving().await;
    for dead in [&admin, &user, &bob.access_token] {
        pair.sdk_auth_as(dead).whoami().await.expect_err("it was replaced, or ended");
        let gateway = pair.sdk_gateway(dead);
        eventually("an end that the gateway has heard of", async || {
            let refused = gateway.sessions().list().await.err()?;
            (refused.code() == interlock_client::Code::Unauthenticated).then_some(())
        })
        .await;
    }
    pair.sdk_auth_as(&new[0]).role_tokens(false).await.expect("the new one");
}
