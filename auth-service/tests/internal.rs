//! The internal listener: a certificate on the allow list and the internal token; either alone is refused.

#![expect(clippy::unwrap_used, reason = "a test")]

mod served;

use interlock_proto::auth::v1::{
    AddMemberRequest, CheckMembershipRequest, CreateProjectRequest, DescribeOwnerRequest, HoldLeaseRequest,
    ValidateRequest, WhoAmIRequest,
    hold_lease_request::{Hello, Message},
    identity_service_client::IdentityServiceClient,
    trust_service_client::TrustServiceClient,
};
use served::{Host, bearer, plain, reason, service, within};
use tonic::Code;

fn asked() -> ValidateRequest {
    ValidateRequest { credential_sha256: vec![1; 32].into() }
}

fn hello() -> HoldLeaseRequest {
    let hello =
        Hello { verifier_id: "verifier-of-tests".to_owned(), applied: 0, epoch: String::new(), nonce: 1 };
    HoldLeaseRequest { message: Some(Message::Hello(hello)) }
}

// UA-04, UA-11, UA-12: unary and stream.
#[tokio::test]
async fn either_factor_alone_is_refused() {
    let host = Host::new();
    let served = host.start().await;

    // The certificate alone.
    let mut trust = host.trust(&served);
    let unary = trust.validate(plain(asked())).await.unwrap_err();
    let stream = trust.hold_lease(plain(tokio_stream::once(hello()))).await.unwrap_err();
    for refused in [unary, stream] {
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::Unauthenticated, "INTERNAL_TOKEN_REQUIRED")
        );
    }
    // A wrong token beside it.
    let mut wrong = plain(asked());
    wrong
        .metadata_mut()
        .insert("x-internal-token", "wrong-0123456789-0123456789-0123456789".parse().unwrap());
    assert_eq!(reason(&trust.validate(wrong).await.unwrap_err()), "INTERNAL_TOKEN_REQUIRED");

    // The token alone: no certificate, and one that is not on the list.
    let mut bare = TrustServiceClient::new(host.internal(&served, None));
    within(bare.validate(service(asked()))).await.unwrap_err();
    let mut stranger = TrustServiceClient::new(host.internal(&served, Some("stranger")));
    let refused = stranger.validate(service(asked())).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "FORBIDDEN"));
    within(stranger.hold_lease(service(tokio_stream::once(hello())))).await.unwrap_err();

    // Both.
    let refused = trust.validate(service(asked())).await.unwrap_err();
    assert_eq!(reason(&refused), "PROVIDER_AUTH_FAILED", "both factors: the credential itself is unknown");
    served.stop().await;
}

// DESIGN 14.1: services only, and only there.
#[tokio::test]
async fn trust_is_for_services_on_their_own_listener() {
    let host = Host::new();
    let served = host.start().await;
    let admin = host.token("admin");
    let mut public = TrustServiceClient::new(host.public(&served));
    let refused = public.validate(bearer(asked(), &admin)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let mut both = service(asked());
    both.metadata_mut().insert("authorization", format!("Bearer {admin}").parse().unwrap());
    let refused = host.trust(&served).validate(both).await.unwrap_err();
    assert_eq!(reason(&refused), "FORBIDDEN", "a service shows no second credential");
    // And what is for clients is not served to services.
    let mut identity = IdentityServiceClient::new(host.internal(&served, Some("gateway")));
    let mut request = service(WhoAmIRequest {});
    request.metadata_mut().insert("authorization", format!("Bearer {admin}").parse().unwrap());
    assert_eq!(identity.who_am_i(request).await.unwrap_err().code(), Code::Unimplemented);
    served.stop().await;
}

#[tokio::test]
async fn membership_is_asked_and_told() {
    let host = Host::new();
    let served = host.start().await;
    let admin = host.token("admin");
    let mut projects = host.projects(&served);
    let asked = CreateProjectRequest { name: "demo".to_owned(), request_id: "r1".to_owned() };
    let project =
        projects.create_project(bearer(asked.clone(), &admin)).await.unwrap().into_inner().project.unwrap();
    let again = projects.create_project(bearer(asked, &admin)).await.unwrap().into_inner().project.unwrap();
    assert_eq!(again.project_id, project.project_id);

    let question =
        CheckMembershipRequest { owner_id: "alice".to_owned(), project_id: project.project_id.clone() };
    let mut trust = host.trust(&served);
    assert!(!trust.check_membership(service(question.clone())).await.unwrap().into_inner().member);
    // Calls on a project name it.
    let add = |token: &str| {
        let owner_id = "alice".to_owned();
        let mut request =
            bearer(AddMemberRequest { project_id: project.project_id.clone(), owner_id }, token);
        request.metadata_mut().insert("x-interlock-project", project.project_id.parse().unwrap());
        request
    };
    let user = host.token("user");
    let refused = projects.add_member(add(&user)).await.unwrap_err();
    assert_eq!(reason(&refused), "FORBIDDEN");
    projects.add_member(add(&admin)).await.unwrap();
    let answer = trust.check_membership(service(question)).await.unwrap().into_inner();
    assert!(answer.member && answer.sequence == 1);
    // UA-48
    let mut describe = async |owner: &str| {
        let asked = DescribeOwnerRequest { owner_id: owner.to_owned() };
        trust.describe_owner(service(asked)).await.map(tonic::Response::into_inner)
    };
    let alice = describe("alice").await.unwrap();
    assert!(alice.known && alice.active && alice.role == "user" && !alice.session_root);
    assert_eq!((alice.roles, alice.sequence), (vec!["user".to_owned()], 1));
    assert!(!describe("nobody").await.unwrap().known);
    assert_eq!(reason(&describe("").await.unwrap_err()), "MISSING_FIELD");
    assert_eq!(reason(&describe("no one").await.unwrap_err()), "INVALID_FIELD");
    served.stop().await;
}
