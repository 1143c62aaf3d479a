//! Root unlock through both services: what it opens at the gateway, and every way it ends.

use std::fs;

use interlock_client::{Gateway, OwnerSession, Reason, SetAgent};
use interlock_tests::{Pair, Setup, audit, eventually};

const BUILT_IN: &str = "primary";

fn described(text: &str) -> SetAgent {
    SetAgent { description: Some(text.to_owned()), ..SetAgent::default() }
}

/// Whether the built-in agent can be written, which takes the root condition.
async fn writes_built_in(gateway: &Gateway, text: &str) -> bool {
    match gateway.agents().set(BUILT_IN, described(text)).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.reason(), Some(Reason::RootRequired), "{error}");
            false
        }
    }
}

async fn unlock(pair: &Pair, session: &OwnerSession) {
    let auth = pair.sdk_auth_as(&session.access_token);
    let unlocked = auth.unlock_root(pair.world.root_password(), None).await.expect("unlocked");
    assert_eq!(unlocked.reached.expect("told").fenced, 0, "the gateway has acknowledged it");
}

// FN-08, FN-11, FN-13, FN-15, FN-16, FN-31, DESIGN 14.1; FN-30 for a forced close and a forced end of a job: by the RPC itself, at once, for this owner session only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unlock_opens_what_is_guarded_and_a_lock_shuts_it() {
    let pair = Pair::start_with(Setup::default().root()).await;
    let (alice, root) = (pair.login("alice").await, pair.login("root").await);
    let same_owner = pair.login("alice").await;
    let (hers, his) = (pair.sdk_gateway(&alice.access_token), pair.sdk_gateway(&root.access_token));
    assert!(!writes_built_in(&hers, "1").await);
    assert!(writes_built_in(&his, "2").await, "session-root meets the condition without unlocking");
    unlock(&pair, &alice).await;
    assert!(writes_built_in(&hers, "3").await);
    assert!(!writes_built_in(&pair.sdk_gateway(&same_owner.access_token), "4").await);
    // By role alone nobody reaches another owner's sessions; a `user` who has unlocked root does not either.
    let theirs = hers.sessions().create("").await.expect("a session").session.session_id;
    let reaches = async |gateway: &Gateway| gateway.sessions().get(&theirs).await.is_ok();
    assert!(!reaches(&his).await);
    let shut = his.sessions().close(&theirs, true).await.expect_err("by role alone");
    assert_eq!(shut.reason(), Some(Reason::OwnerMismatch));
    let project = pair.project(&alice, "guarded").await;
    hers.agents().set("a", SetAgent::default()).await.expect("an agent");
    hers.sessions().attach(&theirs, "a", &project).await.expect("idle");
    let job = hers.jobs().submit(&theirs, "work").await.expect("queued").job_id;
    let shut = his.jobs().force_fail(&job, "stuck").await.expect_err("by role alone");
    assert_eq!(shut.reason(), Some(Reason::RootRequired));
    unlock(&pair, &root).await;
    his.jobs().force_fail(&job, "stuck").await.expect("with root unlocked");
    assert!(reaches(&his).await, "a session-root owner who has unlocked root, too");
    let bob = pair.login("bob").await;
    unlock(&pair, &bob).await;
    assert!(!reaches(&pair.sdk_gateway(&bob.access_token)).await);

    let reached = pair.sdk_auth_as(&alice.access_token).lock_root().await.expect("locked").expect("was not");
    assert_eq!((reached.acknowledged, reached.fenced), (1, 0));
    assert!(!writes_built_in(&hers, "5").await, "no verifier takes it for unlocked");
    his.sessions().close(&theirs, true).await.expect("another owner's, with root unlocked");
    pair.sdk_auth_as(&root.access_token).lock_root().await.expect("locked");
    assert!(!reaches(&his).await && writes_built_in(&his, "6").await);
}

// FN-08, UA-47: wrong ones are limited by owner and source, and each refusal leaves its row or is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_at_the_root_password_are_limited_and_audited() {
    let mut pair = Pair::start_with(Setup::default().root()).await;
    let alice = pair.login("alice").await;
    let auth = pair.sdk_auth_as(&alice.access_token);
    let mut reasons = Vec::new();
    for _ in 0..30 {
        reasons.push(auth.unlock_root("not the root password", None).await.expect_err("refused").reason());
    }
    let of = |reason| reasons.iter().filter(|found| **found == Some(reason)).count();
    assert!(of(Reason::InvalidCredentials) >= 10 && of(Reason::RateLimited) >= 1, "{reasons:?}");
    assert_eq!(of(Reason::InvalidCredentials) + of(Reason::RateLimited), 30);
    let root = pair.login("root").await;
    unlock(&pair, &root).await;
    assert!(pair.auth.drain().await.success());
    let rows = audit::all(&pair.world.path("auth/auth.db"));
    for reason in ["INVALID_CREDENTIALS", "RATE_LIMITED"] {
        let found = rows.iter().any(|row| row.origin.principal == "alice" && row.reason == reason);
        assert!(found, "{reason}");
    }
}

// FN-26, FN-27: a start ends every elevation, and so does another root password, as soon as it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_and_another_password_end_it_at_the_gateway_too() {
    let mut pair = Pair::start_with(Setup::default().root()).await;
    let alice = pair.login("alice").await;
    let hers = pair.sdk_gateway(&alice.access_token);
    unlock(&pair, &alice).await;
    assert!(writes_built_in(&hers, "1").await);
    assert!(pair.auth.drain().await.success());
    pair.start_auth().await;
    pair.serving().await;
    // No later than the lease that the gateway holds of the earlier start: the row is the first that it hears of.
    eventually("the owner session going on, locked", async || {
        (!writes_built_in(&hers, "2").await).then_some(())
    })
    .await;
    let status = pair.sdk_auth_as(&alice.access_token).root_status().await.expect("public");
    assert!(status.enabled && status.unlocked_until.is_none());
    unlock(&pair, &alice).await;
    let next = pair.world.path("root.next");
    fs::copy(pair.world.path("root.password"), &next).expect("copied, with its mode");
    fs::write(&next, "another root password\n").expect("written");
    fs::rename(&next, pair.world.path("root.password")).expect("in its place");
    eventually("the end of what the old one opened", async || {
        (!writes_built_in(&hers, "3").await).then_some(())
    })
    .await;
    let auth = pair.sdk_auth_as(&alice.access_token);
    let refused = auth.unlock_root(pair.world.root_password(), None).await.expect_err("the old one");
    assert_eq!(refused.reason(), Some(Reason::InvalidCredentials));
    auth.unlock_root("another root password", None).await.expect("the new one");
    assert!(writes_built_in(&hers, "4").await);
    assert!(pair.auth.drain().await.success());
    let rows = audit::all(&pair.world.path("auth/auth.db"));
    let ends = rows.iter().filter(|row| row.action == "elevation.end" && row.origin.principal == "alice");
    let ends = ends.count();
    assert_eq!(ends, 2, "one for each");
}
