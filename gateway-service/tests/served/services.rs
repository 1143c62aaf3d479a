//! The internal listener: two factors, and an end principal.

use interlock_proto::gateway::v1::ListSessionsRequest;
use tonic::{Code, Status};

use crate::support::{Calls, Served, internal_token, reason, worker::Worker};

async fn list(calls: &Calls) -> Result<(), Status> {
    calls.sessions().list_sessions(ListSessionsRequest::default()).await.map(drop)
}

// UA-11, UA-12, UA-17, UA-21, UA-22, UA-23
#[tokio::test(flavor = "multi_thread")]
async fn a_service_needs_certificate_and_token_and_someone_to_act_for() {
    let served = Served::start().await;
    let (alice, _) = served.owner("alice").await;
    let bearer = format!("Bearer {}", alice.credential.expose());
    let api = served.service("api").await.with("x-interlock-project", "demo");

    let refused = list(&api.clone().with("authorization", &bearer)).await.expect_err("no token");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unauthenticated, "INTERNAL_TOKEN_REQUIRED")
    );
    let wrong = api.clone().with("authorization", &bearer).with("x-internal-token", "x");
    assert_eq!(reason(&list(&wrong).await.expect_err("a wrong token")), "INTERNAL_TOKEN_REQUIRED");
    let refused = Worker::open(&wrong, Vec::new()).await.err().expect("a stream, too");
    assert_eq!(reason(&refused), "INTERNAL_TOKEN_REQUIRED");

    let api = api.with("x-internal-token", &internal_token());
    let refused = list(&api).await.expect_err("for nobody");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "IDENTITY_REQUIRED"));
    list(&api.clone().with("authorization", &bearer)).await.expect("for its caller");
    let by_name = api.clone().with("x-on-behalf-of", "alice");
    assert_eq!(reason(&list(&by_name).await.expect_err("no list")), "FORBIDDEN");

    let stranger = served.service("stranger").await.with("x-internal-token", &internal_token());
    let refused = list(&stranger.with("authorization", &bearer)).await.expect_err("not on the allow list");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "FORBIDDEN"));
}
