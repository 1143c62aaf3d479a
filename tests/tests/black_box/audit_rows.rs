//! I11: each denial of a known principal and each state change has exactly one audit row, there when the
//! call is answered. I12: a denied call has no other effect. Rows are found by the call's request id.

use interlock_client::SetAgent;
use interlock_proto::{auth::v1 as auth, credential::Credential, gateway::v1 as gateway};
use interlock_tests::{
    Pair, audit,
    wire::{self, Metadata},
};
use prost::Message as _;

/// A call, and what its one row must say.
struct Case<'a> {
    service: &'static str,
    method: &'static str,
    who: &'a Credential,
    message: Vec<u8>,
    /// Empty: the call succeeds.
    reason: &'static str,
    action: &'static str,
    principal: &'static str,
}

// SW-07, SW-08, SW-24, SW-25, SW-44, SQ-20, SQ-22
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_and_what_is_changed_has_one_row() {
    let pair = Pair::start().await;
    let (alice, bob, root) = (pair.login("alice").await, pair.login("bob").await, pair.login("root").await);
    let (p, q) = (pair.project(&alice, "p").await, pair.project(&alice, "q").await);
    let sdk = pair.sdk_gateway(&alice.access_token);
    sdk.agents().set("a", SetAgent::default()).await.expect("an agent");
    let session = sdk.sessions().create("").await.expect("a session").session.session_id;
    sdk.sessions().attach(&session, "a", &p).await.expect("idle");
    sdk.jobs().submit(&session, "work").await.expect("a job");
    let before = sdk.sessions().get(&session).await.expect("hers");

    let attach = |agent: &str, project: &str| {
        let (agent_id, project_id) = (agent.to_owned(), project.to_owned());
        let session_id = session.clone();
        gateway::AttachSessionRequest { session_id, agent_id, project_id, ..Default::default() }
            .encode_to_vec()
    };
    let rotate = |id: &str| {
        auth::RotateRequest { role: "user".to_owned(), grace: None, request_id: id.to_owned() }
            .encode_to_vec()
    };
    let commit = auth::CommitRotationRequest {
        role: "user".to_owned(),
        credential_id: "crd_none".to_owned(),
        force: false,
        request_id: "c1".to_owned(),
    };
    let get = gateway::GetSessionRequest { session_id: session.clone() }.encode_to_vec();
    let submit = gateway::SubmitJobRequest {
        session_id: session.clone(),
        request_id: "r1".to_owned(),
        payload: "more".into(),
    };
    let (user, admin) = (pair.user(), pair.admin());
    let (alice_token, bob_token) = (&alice.access_token, &bob.access_token);
    let sessions = "interlock.gateway.v1.SessionService";
    let tokens = "interlock.auth.v1.RoleTokenService";
    let reveal = auth::RoleTokenServiceGetStatusRequest { reveal: true }.encode_to_vec();
    let case = |service, method, who, message, reason, action, principal| Case {
        service,
        method,
        who,
        message,
        reason,
        action,
        principal,
    };
    let cases = [
        case(
            sessions,
            "AttachSession",
            alice_token,
            attach("primary", "system"),
            "FORBIDDEN",
            "session.attach",
            "alice",
        ),
        case(
            sessions,
            "AttachSession",
            alice_token,
            attach("a", "system"),
            "FORBIDDEN",
            "session.attach",
            "alice",
        ),
        case(
            sessions,
            "AttachSession",
            alice_token,
            attach("a", &q),
            "SESSION_BUSY",
            "session.attach",
            "alice",
        ),
        case(
            sessions,
            "AttachSession",
            bob_token,
            attach("a", &p),
            "OWNER_MISMATCH",
            "session.attach",
            "bob",
        ),
        case(sessions, "GetSession", bob_token, get, "OWNER_MISMATCH", "session.get", "bob"),
        case(sessions, "Ack", alice_token, Vec::new(), "FORBIDDEN", "session.ack", "alice"),
        case(tokens, "GetStatus", &user, reveal.clone(), "FORBIDDEN", "role_token.status", "user"),
        case(tokens, "Rotate", &user, rotate("r2"), "FORBIDDEN", "role_token.rotate", "user"),
        case(tokens, "Rotate", bob_token, rotate("r3"), "FORBIDDEN", "role_token.rotate", "bob"),
        case(
            tokens,
            "Rotate",
            &root.access_token,
            rotate("r4"),
            "ROOT_REQUIRED",
            "role_token.rotate",
            "root",
        ),
        case(tokens, "GetStatus", &admin, reveal, "", "role_token.status", "admin"),
        case(
            tokens,
            "CommitRotation",
            &admin,
            commit.encode_to_vec(),
            "NOT_FOUND",
            "role_token.commit_rotation",
            "admin",
        ),
        case(
            "interlock.gateway.v1.JobService",
            "SubmitJob",
            alice_token,
            submit.encode_to_vec(),
            "",
            "job.submit",
            "alice",
        ),
        case(tokens, "Rotate", &admin, rotate("r5"), "", "role_token.rotate", "admin"),
    ];
    for (n, case) in cases.iter().enumerate() {
        check(&pair, n, case).await;
    }
    // SQ-20: the row of a shut lock says which projects disagreed.
    let named = Metadata::bearer(alice_token).with("x-interlock-project", &q).with("x-request-id", "lock-1");
    let get = gateway::GetSessionRequest { session_id: session.clone() };
    let path = "/interlock.gateway.v1.SessionService/GetSession";
    let outcome = wire::ask(&pair.gateway_public(), path, &get, &named).await.outcome;
    assert_eq!(outcome.reason, "PROJECT_MISMATCH");
    let rows = audit::of_call(&pair.world.path("gateway/gateway.db"), "lock-1");
    assert_eq!(rows.len(), 1, "{rows:?}");
    let said = format!("{} {} {}", rows[0].subject, rows[0].scope, rows[0].detail);
    for part in [&session, &p, &q] {
        assert!(said.contains(part.as_str()), "the row does not name {part}: {said}");
    }
    // I12: the one submit that was let through, and nothing else, is in the log.
    let after = sdk.sessions().get(&session).await.expect("hers");
    assert_eq!((after.binding, after.last_sequence), (before.binding, before.last_sequence + 1));
}

async fn check(pair: &Pair, n: usize, case: &Case<'_>) {
    let path = format!("/{}/{}", case.service, case.method);
    let (channel, store) = match case.service.contains(".auth.") {
        true => (pair.auth_public(), "auth/auth.db"),
        false => (pair.gateway_public(), "gateway/gateway.db"),
    };
    let request_id = format!("audit-rows-{n}");
    let metadata = Metadata::bearer(case.who).with("x-request-id", &request_id);
    let outcome = wire::call(&channel, &path, case.message.clone(), &metadata).await.outcome;
    assert_eq!(outcome.reason, case.reason, "{path} of {}: {outcome}", case.principal);
    assert_eq!(outcome.code == "OK", case.reason.is_empty(), "{path}: {outcome}");
    let rows = audit::of_call(&pair.world.path(store), &request_id);
    assert_eq!(rows.len(), 1, "{path} of {}, {outcome}: {rows:#?}", case.principal);
    let row = &rows[0];
    let said =
        (row.action.as_str(), row.origin.principal.as_str(), row.reason.as_str(), row.origin.rpc.as_str());
    assert_eq!(said, (case.action, case.principal, case.reason, path.as_str()), "{row:#?}");
    assert!(row.origin.credential_id.starts_with("crd_"), "{row:#?}");
    assert!(row.origin.peer.starts_with("127.0.0.1"), "{row:#?}");
}
