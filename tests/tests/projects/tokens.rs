//! Project tokens on real servers: the three locks, scopes, and the barrier.

use std::time::Duration;

use interlock_client::{AuditFilter, IssuedToken, OwnerSession, Reason, SetAgent, TokenGrant};
use interlock_proto::{
    credential::Credential,
    gateway::v1 as gateway,
    options::v1::{Caller, Listener},
    policy::Policies,
};
use interlock_tests::{
    Pair, audit, eventually,
    wire::{self, Metadata},
};
use prost::Message as _;
use serde_json::Value;

const SUBMIT: &str = "/interlock.gateway.v1.JobService/SubmitJob";
const ALL: [&str; 5] = ["sessions:read", "sessions:write", "jobs:submit", "jobs:read", "jobs:work"];

async fn issue(
    pair: &Pair,
    by: &OwnerSession,
    project: &str,
    scopes: &[&str],
    ttl: Option<Duration>,
) -> IssuedToken {
    let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    let grant = TokenGrant { scopes, ttl, ..TokenGrant::default() };
    pair.sdk_auth_as(&by.access_token).issue_token(project, grant).await.expect("a member may")
}

/// A session of alice's with an agent of hers in `project`.
async fn bound(pair: &Pair, alice: &OwnerSession, project: &str) -> String {
    let sdk = pair.sdk_gateway(&alice.access_token).with_project(project);
    sdk.agents().set("a", SetAgent::default()).await.expect("an agent");
    let session = sdk.sessions().create("").await.expect("a session").session.session_id;
    sdk.sessions().attach(&session, "a", project).await.expect("idle");
    session
}

// SQ-02, SQ-05, SQ-18, SQ-19, SQ-20, SQ-22, I13: each lock alone, the others open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_lock_stops_a_call_with_the_others_open() {
    let pair = Pair::start().await;
    let alice = pair.login("alice").await;
    let (p, q) = (pair.project(&alice, "p").await, pair.project(&alice, "q").await);
    let session = bound(&pair, &alice, &p).await;
    let of_p = issue(&pair, &alice, &p, &ALL, None).await;
    let of_q = issue(&pair, &alice, &q, &ALL, None).await;
    let owner = alice.access_token.clone();
    let store = pair.world.path("gateway/gateway.db");
    let channel = pair.gateway_public();
    let sdk = pair.sdk_gateway(&owner).with_project(p.as_str());
    let before = sdk.sessions().get(&session).await.expect("hers");

    // Who, the project it names, the lock that stays shut, the project of the token.
    let cases: [(&str, &Credential, &str, &str, Option<&str>); 4] = [
        (
            "lock 1: the call names the resource's project, the token is for another",
            &of_q.secret,
            &p,
            "reach",
            Some(&q),
        ),
        (
            "lock 2: the token is for the resource's project, the call names another",
            &of_p.secret,
            &q,
            "named",
            Some(&p),
        ),
        ("lock 5: token and call agree, the resource is of another", &of_q.secret, &q, "reach", Some(&q)),
        ("lock 2 without a token: the owner may enter both", &owner, &q, "named", None),
    ];
    for (number, (what, who, named, lock, token)) in cases.into_iter().enumerate() {
        let id = format!("lock-{number}");
        let submit = gateway::SubmitJobRequest {
            session_id: session.clone(),
            request_id: id.clone(),
            payload: "crossed".into(),
        };
        let metadata = Metadata::bearer(who).with("x-interlock-project", named).with("x-request-id", &id);
        let outcome = wire::call(&channel, SUBMIT, submit.encode_to_vec(), &metadata).await.outcome;
        assert_eq!(
            (outcome.code.as_str(), outcome.short()),
            ("PERMISSION_DENIED", "PROJECT_MISMATCH"),
            "{what}"
        );
        let rows = audit::of_call(&store, &id);
        assert_eq!(rows.len(), 1, "{what}: {rows:?}");
        let row = &rows[0];
        assert_eq!(row.origin.principal, "alice", "{what}");
        assert!(row.origin.credential_id.starts_with("crd_"), "{what}: {row:?}");
        assert_eq!(row.origin.rpc, SUBMIT);
        assert!(row.origin.peer.starts_with("127.0.0.1:"), "{row:?}");
        assert_eq!((row.outcome.as_str(), row.reason.as_str()), ("refused", "PROJECT_MISMATCH"), "{what}");
        assert_eq!((row.subject.as_str(), row.scope.as_str()), (session.as_str(), p.as_str()), "{what}");
        let detail: Value = serde_json::from_str(&row.detail).expect("JSON");
        let told = (detail["lock"].as_str(), detail["token"].as_str(), detail["named"].as_str());
        assert_eq!(told, (Some(lock), token, Some(named)), "{what}");
        assert_eq!(detail["resource"].as_str(), Some(p.as_str()), "{what}");
    }
    // Readable by AuditService.
    let filter = AuditFilter { reason: "PROJECT_MISMATCH".to_owned(), ..AuditFilter::default() };
    let log = pair.sdk_gateway(&pair.admin()).audit();
    let page = log.list(&filter, 0, 100).await.expect("administrators may");
    let listed: Vec<_> = page.rows.iter().map(|row| row.request_id.as_str()).collect();
    assert_eq!(listed, ["lock-0", "lock-1", "lock-2", "lock-3"]);
    assert_eq!(sdk.sessions().get(&session).await.expect("hers"), before, "nothing was written");
    // All three open.
    let right = pair.sdk_gateway(&of_p.secret).with_project(p.as_str());
    right.jobs().submit(&session, "mine").await.expect("all locks are open");
    assert_eq!(sdk.jobs().list(&session, false).await.expect("a list").len(), 1);
}

// UA-03, SQ-02: what no policy lists is refused, and scopes are those of the policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_asks_for_its_scope() {
    let pair = Pair::start().await;
    let alice = pair.login("alice").await;
    let project = pair.project(&alice, "p").await;
    let narrow = issue(&pair, &alice, &project, &["jobs:read"], None).await;
    let metadata = Metadata::bearer(&narrow.secret).with("x-interlock-project", &project);
    let channels = [("auth", pair.auth_public()), ("gateway", pair.gateway_public())];
    let mut wrong = Vec::new();
    let mut asked = 0;
    for policy in
        Policies::all().iter().filter(|policy| policy.served_on(Listener::Public) && !policy.public())
    {
        for (service, channel) in &channels {
            // Health, reflection and the audit log are served by both.
            let others = if *service == "auth" { ".gateway.v1." } else { ".auth.v1." };
            if policy.path.contains(others) {
                continue;
            }
            asked += 1;
            let outcome = wire::call(channel, &policy.path, Vec::new(), &metadata).await.outcome;
            let fits = if !policy.who.contains(&Caller::ProjectToken) {
                matches!(outcome.short(), "FORBIDDEN" | "LOGIN_REQUIRED")
            } else if policy.scopes.iter().any(|scope| scope == "jobs:read") {
                !matches!(outcome.short(), "FORBIDDEN" | "SCOPE_REQUIRED" | "PROVIDER_AUTH_FAILED")
            } else {
                (outcome.code.as_str(), outcome.short()) == ("PERMISSION_DENIED", "SCOPE_REQUIRED")
            };
            if !fits {
                wrong.push(format!("{service} {}: {outcome}", policy.path));
            }
        }
    }
    assert!(asked > 20 && wrong.is_empty(), "{asked} asked:\n{}", wrong.join("\n"));
}

// SQ-33, DESIGN 6, 14.2, I8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_token_was_ended_no_verifier_admits_it() {
    let pair = Pair::start().await;
    let (alice, bob) = (pair.login("alice").await, pair.login("bob").await);
    let project = pair.project(&alice, "p").await;
    let auth = pair.sdk_auth_as(&alice.access_token);
    let refused = async |token: &Credential| {
        let gateway = pair.sdk_gateway(token).with_project(project.as_str());
        gateway.sessions().list().await.err().and_then(|error| error.reason())
    };
    // Revoked.
    let token = issue(&pair, &alice, &project, &ALL, None).await;
    assert_eq!(refused(&token.secret).await, None);
    let reached = auth.revoke_token(&project, &token.token.token_id).await.expect("a member may");
    assert_eq!((reached.acknowledged, reached.fenced), (1, 0), "{reached:?}");
    assert_eq!(refused(&token.secret).await, Some(Reason::ProviderAuthFailed));
    auth.revoke_token(&project, &token.token.token_id).await.expect("repeating it is no error");
    // Expired: another reason.
    let short = issue(&pair, &alice, &project, &ALL, Some(Duration::from_secs(1))).await;
    eventually("an expired token", async || {
        let reason = refused(&short.secret).await;
        assert!(matches!(reason, None | Some(Reason::TokenExpired)), "{reason:?}");
        reason
    })
    .await;
    // Rotated.
    let old = issue(&pair, &alice, &project, &ALL, None).await;
    assert_eq!(refused(&old.secret).await, None);
    let new =
        auth.rotate_token(&project, &old.token.token_id, Duration::ZERO, None).await.expect("the issuer may");
    assert_eq!(new.reached.expect("no grace").acknowledged, 1);
    assert_eq!(refused(&old.secret).await, Some(Reason::ProviderAuthFailed));
    assert_eq!(refused(&new.secret).await, None);
    // No longer a member, and a member again.
    auth.add_member(&project, "bob").await.expect("a member may");
    let bobs = issue(&pair, &bob, &project, &ALL, None).await;
    assert_eq!(refused(&bobs.secret).await, None);
    let reached = auth.remove_member(&project, "bob", false).await.expect("a member may").expect("was one");
    assert_eq!(reached.acknowledged, 1);
    assert_eq!(refused(&bobs.secret).await, Some(Reason::ProviderAuthFailed));
    auth.add_member(&project, "bob").await.expect("a member may");
    assert_eq!(refused(&bobs.secret).await, Some(Reason::ProviderAuthFailed), "it stays ended");
    let listed = auth.list_tokens(&project).await.expect("a member may");
    assert_eq!(listed.len(), 5);
    assert!(listed.iter().all(|token| !token.masked.contains(new.secret.expose())));
}
