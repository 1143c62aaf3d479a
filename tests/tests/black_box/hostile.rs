//! Guessing is slowed, and nobody else is harmed. Malformed requests have a binary of their own: `wire`.

use interlock_tests::Pair;

// NC-23 for sign-ins, UA-47: guessing is slowed by (owner, source); another owner is unharmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_is_limited_and_harms_nobody_else() {
    let pair = Pair::start().await;
    let auth = pair.sdk_auth();
    let mut limited = None;
    for _ in 0..40 {
        let refused = auth.login("alice", "not-her-password").await.expect_err("wrong");
        match refused.reason() {
            Some(interlock_client::Reason::InvalidCredentials) => {}
            Some(interlock_client::Reason::RateLimited) => {
                limited = Some(refused);
                break;
            }
            _ => panic!("{refused}"),
        }
    }
    let limited = limited.expect("forty tries are too many");
    assert!(limited.retry_after().is_some(), "{limited}");
    pair.login("bob").await;
    // No lock on the account: alice is let in when the time that was said has passed.
    pair.login("alice").await;
}
