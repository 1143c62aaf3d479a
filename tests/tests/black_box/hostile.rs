//! Inputs of HARDENING.md at the real programs: refused with the answer that is written there, and nobody
//! else is harmed.

use interlock_tests::{
    Pair,
    wire::{self, Metadata, Outcome},
};

const GET_SESSION: &str = "/interlock.gateway.v1.SessionService/GetSession";
const LIST_SESSIONS: &str = "/interlock.gateway.v1.SessionService/ListSessions";
const WHO_AM_I: &str = "/interlock.auth.v1.IdentityService/WhoAmI";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_good_request_gets_the_written_answer() {
    let pair = Pair::start().await;
    let admin = Metadata::bearer(&pair.admin());
    let (auth, gateway) = (pair.auth_public(), pair.gateway_public());
    let long = vec![0x0a; 2 << 20];
    let cases: [(&str, &str, &[u8], &str); 10] = [
        ("an unknown method", "/interlock.gateway.v1.SessionService/Nope", &[], "UNIMPLEMENTED"),
        ("an unknown service", "/nope.v1.Nope/Nope", &[], "UNIMPLEMENTED"),
        ("another case of letters", "/interlock.gateway.v1.SessionService/getsession", &[], "UNIMPLEMENTED"),
        (
            "a path with a slash more",
            "/interlock.gateway.v1.SessionService//GetSession",
            &[],
            "UNIMPLEMENTED",
        ),
        ("a method of the other service", WHO_AM_I, &[], "UNIMPLEMENTED"),
        ("a truncated field", GET_SESSION, &[0x0a, 0x7f], "INTERNAL"),
        ("invalid UTF-8", GET_SESSION, &[0x0a, 0x01, 0xff], "INTERNAL"),
        ("tag 0", GET_SESSION, &[0x00, 0x00], "INTERNAL"),
        ("an oversize message", GET_SESSION, &long, "RESOURCE_EXHAUSTED"),
        ("an id of the wrong shape", GET_SESSION, b"\x0a\x03../", "INVALID_ARGUMENT"),
    ];
    for (what, path, message, code) in cases {
        let outcome = wire::call(&gateway, path, message.to_vec(), &admin).await.outcome;
        assert_eq!(outcome.code, code, "{what}: {outcome}");
        if code == "INTERNAL" {
            assert_eq!(outcome.message, "malformed request", "{what} says nothing of our fields");
        }
    }
    for timeout in ["soon", "1", "-1S", "999999999S"] {
        let metadata = admin.clone().with("grpc-timeout", timeout);
        let outcome = wire::call(&gateway, LIST_SESSIONS, Vec::new(), &metadata).await.outcome;
        assert_eq!(outcome.code, "INVALID_ARGUMENT", "grpc-timeout {timeout}: {outcome}");
    }
    let outcome = wire::call(&auth, WHO_AM_I, long, &admin).await.outcome;
    assert_eq!(outcome.code, "RESOURCE_EXHAUSTED", "{outcome}");
    for (channel, path) in [(&gateway, LIST_SESSIONS), (&auth, WHO_AM_I)] {
        assert_eq!(wire::call(channel, path, Vec::new(), &admin).await.outcome, Outcome::ok(), "unharmed");
    }
}

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
