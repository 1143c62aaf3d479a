//! I16: no secret in logs, whatever is logged, and none in a store. The secrets are random texts that stand
//! nowhere else: where one is found, it leaked.

use std::{fs, path::Path};

use interlock_client::{SetAgent, Worker};
use interlock_proto::credential::{Credential, Kind};
use interlock_tests::{
    Pair, Setup,
    wire::{self, Metadata},
};

const LIST_SESSIONS: &str = "/interlock.gateway.v1.SessionService/ListSessions";

// SW-18, FN-02, UA-06, UA-39, NC-24
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_in_any_log_or_store() {
    let setup = Setup::default().auth("log.filter", "debug").gateway("log.filter", "debug");
    let mut pair = Pair::start_with(setup).await;
    let mut secrets = pair.world.secrets();
    let alice = pair.login("alice").await;
    let refreshed = pair.sdk_auth().refresh(&alice).await.expect("a successor");
    for session in [&alice, &refreshed] {
        secrets.extend([&session.access_token, &session.refresh_token].map(|t| t.expose().to_owned()));
    }
    let gateway = pair.sdk_gateway(&refreshed.access_token);
    let created = gateway.sessions().create("").await.expect("a session");
    let cookie = created.cookie.expect("a cookie");
    secrets.push(cookie.expose().split_once('=').expect("name and value").1.to_owned());
    gateway.clone().with_cookie(cookie).sessions().get(&created.session.session_id).await.expect("hers");

    // What is refused is not repeated either.
    let wrong = "a-wrong-password-of-this-test";
    pair.sdk_auth().login("alice", wrong).await.expect_err("wrong");
    pair.sdk_auth().login(wrong, wrong).await.expect_err("unknown: a password in the wrong field");
    let unknown = Credential::new(Kind::Owner, &[5; 32]);
    for value in [format!("Bearer {}", unknown.expose()), format!("Bearer {wrong}"), format!("Basic {wrong}")]
    {
        let metadata = Metadata::none().with("authorization", &value).with("x-internal-token", wrong);
        let outcome = wire::call(&pair.gateway_public(), LIST_SESSIONS, Vec::new(), &metadata).await.outcome;
        assert_eq!(outcome.code, "UNAUTHENTICATED");
    }
    secrets.extend([wrong.to_owned(), unknown.expose().to_owned()]);
    let rotated = pair.sdk_auth_as(&pair.admin()).rotate_role_token("user", std::time::Duration::ZERO).await;
    secrets.push(rotated.expect("rotated").token.expose().to_owned());
    pair.sdk_auth_as(&pair.admin()).role_tokens(true).await.expect("shown to admin");

    // Payloads are not for logs; in the store they belong.
    let payload = "a-payload-of-this-test";
    let project = pair.project(&refreshed, "p").await;
    gateway.agents().set("a", SetAgent::default()).await.expect("an agent");
    let session = &created.session.session_id;
    gateway.sessions().attach(session, "a", &project).await.expect("idle");
    let job = gateway.jobs().submit(session, payload).await.expect("a job");
    let worker = Worker::new(gateway.clone(), vec!["a".to_owned()], 1, "w");
    let echo = |task: interlock_client::Task| async move {
        interlock_client::Outcome::Succeeded { result: task.payload().clone() }
    };
    let jobs = gateway.jobs();
    tokio::select! {
        ended = worker.run(echo, std::future::pending()) => panic!("a worker runs on: {ended:?}"),
        job = jobs.wait(&job.job_id) => assert_eq!(&job.expect("done").result[..], payload.as_bytes()),
    }

    assert!(pair.gateway.drain().await.success());
    assert!(pair.auth.drain().await.success());
    for (log, name) in [(pair.auth.log(), "auth"), (pair.gateway.log(), "gateway")] {
        assert!(log.len() > 1_000, "{name} has logged");
        for secret in secrets.iter().map(String::as_str).chain([payload]) {
            let line = log.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "a secret in the log of {name}: {}", line.unwrap_or_default());
        }
    }
    let mut searched = 0;
    for folder in ["auth", "gateway"] {
        searched += search(&pair.world.path(folder), &secrets);
    }
    println!(
        "{} secrets, none in the logs at level debug, none in {searched} bytes of stores",
        secrets.len()
    );
}

/// Looks through every file but the recoverable copy of the role tokens, which is there to hold them.
fn search(folder: &Path, secrets: &[String]) -> usize {
    let mut searched = 0;
    for entry in fs::read_dir(folder).expect("a data folder") {
        let path = entry.expect("an entry").path();
        if path.ends_with("auth_tokens.json") {
            continue;
        }
        let bytes = fs::read(&path).expect("a file");
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a secret in {}", path.display());
        }
        searched += bytes.len();
    }
    searched
}
