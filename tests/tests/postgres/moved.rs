//! A pair that has run on files goes on in databases, with all it had.

use std::process::{Command, Output};

use interlock_client::{Reason, SetAgent};
use interlock_tests::{Pair, service::program};

use super::cluster::Cluster;

fn copy(pair: &Pair, service: &str, to: &str) -> Output {
    let mut command = Command::new(program(&format!("interlock-{service}")));
    command.env_clear().current_dir(pair.world.path(""));
    command.args(["store", "copy", "--config", &format!("{service}.toml"), "--to", to]);
    command.args(["--from", &format!("sqlite:{service}/{service}.db")]);
    command.output().expect("it runs")
}

// I6, SW-26
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_moves_from_files_into_databases_and_loses_nothing() {
    let cluster = Cluster::start();
    let mut pair = Pair::start().await;
    let alice = pair.login("alice").await;
    let gateway = pair.sdk_gateway(&alice.access_token);
    gateway.agents().set("builder", SetAgent::default()).await.expect("an agent");
    let (here, there) = (pair.project(&alice, "here").await, pair.project(&alice, "there").await);
    let session = gateway.sessions().create("named").await.expect("a session").session.session_id;
    gateway.sessions().attach(&session, "builder", &here).await.expect("idle");
    let job = gateway.jobs().submit(&session, "work").await.expect("queued").job_id;
    let urls = [("auth", cluster.database("auth")), ("gateway", cluster.database("gateway"))];
    for (service, url) in &urls {
        let refused = copy(&pair, service, url);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("another program uses this folder"), "{service}: {said}");
    }

    assert!(pair.gateway.drain().await.success() && pair.auth.drain().await.success(), "they drain");
    for (service, url) in &urls {
        let copied = copy(&pair, service, url);
        let said = String::from_utf8_lossy(&copied.stderr).into_owned();
        assert!(copied.status.success(), "{service}: {said}");
        let lines = String::from_utf8_lossy(&copied.stdout).into_owned();
        assert!(lines.lines().any(|line| line.starts_with("audit ")), "{service}: {lines}");
        assert!(lines.lines().all(|line| line.split(' ').count() == 3), "{service}: {lines}");
        assert_eq!(copy(&pair, service, url).status.code(), Some(1), "{service}: it is not empty now");
    }
    pair.auth.env("INTERLOCK_AUTH_STORE", &urls[0].1);
    pair.gateway.env("INTERLOCK_GATEWAY_STORE", &urls[1].1);
    pair.start_auth().await;
    pair.start_gateway().await;
    pair.serving().await;

    assert_eq!(gateway.jobs().get(&job).await.expect("her token and her job are there").job_id, job);
    let refused = gateway.sessions().attach(&session, "builder", &there).await.expect_err("a job is queued");
    assert_eq!(refused.reason(), Some(Reason::SessionBusy), "{refused}");
    let taken = gateway.sessions().create("named").await.expect_err("the name is taken");
    assert_eq!(taken.reason(), Some(Reason::NameTaken), "{taken}");
    gateway.jobs().cancel(&job).await.expect("it is queued");
    gateway.sessions().attach(&session, "builder", &there).await.expect("nothing is in flight");
}
