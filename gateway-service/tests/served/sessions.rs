//! Who gets in, sessions and their cookies, jobs, waits.

use interlock_proto::credential::{Credential, Kind, cookie_name};
use interlock_proto::gateway::v1::{
    CloseSessionRequest, CreateSessionRequest, GetJobRequest, GetSessionRequest, JobState,
    ListSessionsRequest, RenewStreamRequest, WaitJobRequest,
};
use tonic::Code;

use crate::support::{Served, cookie_of, eventually, next, reason, worker::Worker};

fn get(session: &str) -> GetSessionRequest {
    GetSessionRequest { session_id: session.to_owned() }
}

// UA-07, UA-08, SW-11, SW-12
#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_unary_or_streaming_and_learns_nothing() {
    let served = Served::start().await;
    let nobody = served.nobody().await;
    let unknown =
        interlock_proto::credential::Credential::new(interlock_proto::credential::Kind::Owner, &[9; 32]);
    let unknown = nobody.clone().with("authorization", &format!("Bearer {}", unknown.expose()));
    let garbage = nobody.clone().with("authorization", "Bearer sesame");
    for calls in [nobody, unknown, garbage] {
        let refused = calls.sessions().get_session(get("ses_1")).await.expect_err("nobody");
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::Unauthenticated, "PROVIDER_AUTH_FAILED")
        );
        assert_eq!(refused.message(), "login required");
        let refused = calls.stream("ses_1", 0).await.expect_err("nobody");
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "login required"));
        let refused = Worker::open(&calls, Vec::new()).await.err().expect("nobody");
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "login required"));
    }
}

// UA-10
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_session_is_as_an_unknown_one() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    let (_, bob) = served.owner("bob").await;
    let session = alice.create("first").await.into_inner().session.expect("made").session_id;
    let foreign = bob.sessions().get_session(get(&session)).await.expect_err("foreign");
    let unknown = bob.sessions().get_session(get("ses_1")).await.expect_err("unknown");
    assert_eq!((foreign.code(), reason(&foreign).as_str()), (Code::PermissionDenied, "OWNER_MISMATCH"));
    assert_eq!((unknown.code(), unknown.message()), (foreign.code(), foreign.message()));
    let refused = bob.stream(&session, 0).await.expect_err("foreign");
    assert_eq!(reason(&refused), "OWNER_MISMATCH");
}

// NC-02, NC-08
#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_acts_in_its_session_and_a_retry_gets_the_same_one() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let first = alice.create("once").await;
    let cookie = cookie_of(&first);
    let again = alice.create("once").await;
    assert_eq!(cookie_of(&again), cookie);
    assert_eq!(again.get_ref(), first.get_ref());
    let other =
        CreateSessionRequest { request_id: "once".to_owned(), name: "x".to_owned(), owner_id: String::new() };
    let refused = alice.sessions().create_session(other).await.expect_err("another payload");
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED");

    let session = first.into_inner().session.expect("made").session_id;
    alice.attach(&session).await.expect("attached");
    let client = served.nobody().await.with("cookie", &cookie).with("x-interlock-project", "demo");
    client.sessions().get_session(get(&session)).await.expect("its own session");
    client.submit(&session, "job").await.expect("a host may submit");
    let refused =
        client.sessions().list_sessions(ListSessionsRequest::default()).await.expect_err("no client's call");
    assert_eq!(reason(&refused), "FORBIDDEN");

    let (name, _) = cookie.split_once('=').expect("a pair");
    let wrong =
        interlock_proto::credential::Credential::new(interlock_proto::credential::Kind::Client, &[3; 32]);
    let wrong = served.nobody().await.with("cookie", &format!("{name}={}", wrong.expose()));
    let refused = wrong.sessions().get_session(get(&session)).await.expect_err("not the cookie");
    assert_eq!((reason(&refused).as_str(), refused.message()), ("PROVIDER_AUTH_FAILED", "login required"));
}

// DESIGN 14.4: cookie calls need no lease from auth.
#[tokio::test(flavor = "multi_thread")]
async fn without_auth_bearers_wait_and_cookies_go_on() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, cookie) = alice.bound_session().await;
    served.trust.set_silent(true);
    let lapsed = async {
        loop {
            match alice.sessions().get_session(get(&session)).await {
                Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                Err(refused) => return refused,
            }
        }
    };
    let refused = tokio::time::timeout(crate::support::PATIENCE, lapsed).await.expect("in time");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "AUTH_UNAVAILABLE"));
    let client = served.nobody().await.with("cookie", &cookie).with("x-interlock-project", "demo");
    client.sessions().get_session(get(&session)).await.expect("by cookie");
    served.trust.set_silent(false);
}

// SQ-17, SQ-30
#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_project_is_marked_and_in_the_end_refused() {
    let served = Served::start_with(&[("sunset", "2099-01-01T00:00:00Z")]).await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let unscoped = alice.clone().without("x-interlock-project");
    let answer = unscoped.sessions().get_session(get(&session)).await.expect("warned");
    assert_eq!(answer.metadata().get("deprecation").expect("marked"), "true");
    assert_eq!(answer.metadata().get("sunset").expect("dated"), "Thu, 01 Jan 2099 00:00:00 GMT");
    let named = alice.sessions().get_session(get(&session)).await.expect("named");
    assert!(named.metadata().get("deprecation").is_none());

    let served = Served::start_with(&[("unscoped", "deny")]).await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let unscoped = alice.without("x-interlock-project");
    let refused = unscoped.sessions().get_session(get(&session)).await.expect_err("denied");
    assert_eq!(reason(&refused), "PROJECT_REQUIRED");
}

// SW-26, SW-32, SW-34
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_the_job_and_the_session_is_free_again() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let job = alice.submit(&session, "one").await.expect("queued").job_id;
    let busy = alice
        .sessions()
        .close_session(CloseSessionRequest { session_id: session.clone(), force: false })
        .await
        .expect_err("busy");
    assert_eq!((busy.code(), reason(&busy).as_str()), (Code::FailedPrecondition, "SESSION_BUSY"));

    let mut worker = Worker::open(&alice, Vec::new()).await.expect("welcome");
    let held = worker.assignment().await.held.expect("held");
    let waiting = WaitJobRequest { job_id: job.clone(), wait: None };
    let (waiter, asked) = (alice.clone(), waiting.clone());
    let waiting = tokio::spawn(async move { waiter.jobs().wait_job(asked).await });
    worker.finish(&held, JobState::Succeeded).await;
    let waited = tokio::time::timeout(crate::support::PATIENCE, waiting).await.expect("in time");
    let waited = waited.expect("no panic").expect("answered").into_inner().job.expect("the job");
    assert_eq!((waited.state(), &waited.result[..]), (JobState::Succeeded, &b"result"[..]));

    let zero = WaitJobRequest { job_id: job, wait: Some(prost_types::Duration::default()) };
    alice.jobs().wait_job(zero).await.expect("at once");
    assert!(!alice.attach(&session).await.expect("free"), "the same binding");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_wait_is_told_that_its_session_has_ended() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let job_id = alice.submit(&session, "one").await.expect("queued").job_id;
    let waiter = alice.clone();
    let waiting =
        tokio::spawn(async move { waiter.jobs().wait_job(WaitJobRequest { job_id, wait: None }).await });
    alice.sessions().get_session(get(&session)).await.expect("read");
    let close = CloseSessionRequest { session_id: session, force: true };
    assert!(alice.sessions().close_session(close).await.expect("closed").into_inner().gone);
    let refused = waiting.await.expect("no panic").expect_err("gone");
    // Whether it was parked by then is not ours to say.
    assert!(["SESSION_ENDED", "OWNER_MISMATCH"].contains(&reason(&refused).as_str()), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_wait_ends_with_its_credential_and_with_the_gateway() {
    let mut served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let job = alice.submit(&session, "one").await.expect("queued").job_id;
    let parked = |calls: crate::support::Calls, job_id: String| {
        tokio::spawn(async move { calls.jobs().wait_job(WaitJobRequest { job_id, wait: None }).await })
    };
    // A wait that was not parked yet when its credential was revoked closes nothing: then once more.
    let mut closed = 0;
    while closed == 0 {
        let (known, calls) = served.owner("alice").await;
        let waiting = parked(calls.clone(), job.clone());
        calls.jobs().get_job(GetJobRequest { job_id: job.clone() }).await.expect("read");
        closed = served.trust.revoke(&known).await;
        let refused = waiting.await.expect("no panic").expect_err("revoked");
        let expected = if closed == 0 { "PROVIDER_AUTH_FAILED" } else { "REVOKED" };
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, expected));
    }
    let waiting = parked(alice.clone(), job.clone());
    alice.jobs().get_job(GetJobRequest { job_id: job }).await.expect("read");
    served.stop().await;
    let refused = waiting.await.expect("no panic").expect_err("drained");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
}

// I6
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let mut served = Served::start().await;
    let (known, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, cookie) = alice.bound_session().await;
    let job = alice.submit(&session, "one").await.expect("queued").job_id;
    served.restart().await;
    let alice = served.calls(&known).await;
    let read = alice.jobs().get_job(GetJobRequest { job_id: job.clone() }).await.expect("there");
    assert_eq!(&read.into_inner().job.expect("the job").payload[..], b"payload of one");
    let client = served.nobody().await.with("cookie", &cookie).with("x-interlock-project", "demo");
    client.sessions().get_session(get(&session)).await.expect("the cookie holds");
    let mut stream = client.stream(&session, 0).await.expect("opened");
    next(&mut stream).await.expect("opened").expect("a message");
    assert_eq!(client.submit(&session, "one").await.expect("the first answer").job_id, job);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_program_at_a_time_uses_a_store() {
    let mut served = Served::start().await;
    let lock = interlock_kit::store::StoreLock::take(&served.folder().join("data"));
    assert_eq!(lock.expect_err("held").kind(), std::io::ErrorKind::WouldBlock);
    served.stop().await;
    let folder = served.folder().join("data");
    eventually("the lock is free", || interlock_kit::store::StoreLock::take(&folder).is_ok()).await;
}

// SW-44, I11
#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_rows_and_floods_of_them_are_counted() {
    let mut served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    let (_, bob) = served.owner("bob").await;
    let session = alice.create("first").await.into_inner().session.expect("made").session_id;
    bob.sessions().get_session(get(&session)).await.expect_err("foreign");
    let user = served.calls(&served.trust.owner("carol")).await;
    let ack = interlock_proto::gateway::v1::AckRequest { session_id: session.clone(), sequence: 1 };
    let refused = user.sessions().ack(ack).await.expect_err("needs a cookie");
    assert_eq!(reason(&refused), "FORBIDDEN");
    let nobody = served.nobody().await;
    for _ in 0..30 {
        nobody.sessions().get_session(get(&session)).await.expect_err("nobody");
    }
    served.stop().await;
    let rows = served.audit();
    let count = |principal: &str, action: &str, reason: &str| -> u64 {
        let fits = |row: &&interlock_kit::store::audit::Row| {
            row.origin.principal == principal && row.action == action && row.reason == reason
        };
        rows.iter().filter(fits).map(|row| row.count).sum()
    };
    assert_eq!(count("alice", "session.create", ""), 1);
    assert_eq!(count("bob", "session.get", "OWNER_MISMATCH"), 1);
    assert_eq!(count("carol", "session.ack", "FORBIDDEN"), 1);
    assert_eq!(count("", "session.get", "PROVIDER_AUTH_FAILED"), 8, "the first of a window");
    assert_eq!(count("127.0.0.1", "gate.refused", "PROVIDER_AUTH_FAILED"), 22, "one row for the rest");
}

// SW-04, SW-05, SW-07, SW-08
#[tokio::test(flavor = "multi_thread")]
async fn the_admin_token_reaches_all_and_binds_the_built_in_agent() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    let session = alice.create("first").await.into_inner().session.expect("made").session_id;
    let admin = served.calls(&served.trust.admin()).await;
    let read = admin.sessions().get_session(get(&session)).await.expect("another owner's").into_inner();
    assert_eq!(read.session.expect("the session").owner_id, "alice");

    let built_in = |session_id: String| interlock_proto::gateway::v1::AttachSessionRequest {
        session_id,
        agent_id: "primary".to_owned(),
        project_id: "system".to_owned(),
        ..Default::default()
    };
    let own = admin.create("first").await.into_inner().session.expect("made").session_id;
    let system = admin.with("x-interlock-project", "system");
    system.sessions().attach_session(built_in(own)).await.expect("the admin token may");
    let alice = alice.with("x-interlock-project", "system");
    let refused = alice.sessions().attach_session(built_in(session)).await.expect_err("nobody else");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "FORBIDDEN"));
}

// DESIGN 14.15
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_only_look_valid_are_limited_before_they_cost_a_question() {
    // A slow machine must not be slower than what comes back of the budget.
    let served = Served::start_with(&[("limits.unknown_credentials", "1")]).await;
    let (_, alice) = served.owner("alice").await;
    let session = alice.create("first").await.into_inner().session.expect("made").session_id;
    let nobody = served.nobody().await;
    let mut limited = None;
    for n in 0..2_000_u64 {
        let mut random = [0; 32];
        random[24..].copy_from_slice(&n.to_be_bytes());
        let unknown =
            interlock_proto::credential::Credential::new(interlock_proto::credential::Kind::Owner, &random);
        let calls = nobody.clone().with("authorization", &format!("Bearer {}", unknown.expose()));
        let refused = calls.sessions().get_session(get(&session)).await.expect_err("unknown");
        if refused.code() == Code::ResourceExhausted {
            limited = Some(refused);
            break;
        }
        assert_eq!(refused.message(), "login required");
    }
    assert_eq!(reason(&limited.expect("within the burst and what comes back of it")), "RATE_LIMITED");
    assert!(served.trust.asked() < 2_000, "auth was not asked about each");
    alice.sessions().get_session(get(&session)).await.expect("a known one from the same source goes on");
}

// I11, I17: whoever makes up cookies writes no row for each.
#[tokio::test(flavor = "multi_thread")]
async fn made_up_cookies_are_counted_by_their_source() {
    let mut served = Served::start().await;
    let nobody = served.nobody().await;
    for number in 0..40_u8 {
        let made_up = Credential::new(Kind::Client, &[number; 32]);
        let pair = format!("{}={}", cookie_name(&format!("ses_{number}")), made_up.expose());
        let calls = nobody.clone().with("cookie", &pair);
        let refused =
            calls.sessions().list_sessions(ListSessionsRequest::default()).await.expect_err("gate 1");
        assert_eq!(reason(&refused), "FORBIDDEN");
        let renew = RenewStreamRequest { stream_id: "str_1".to_owned() };
        let refused = calls.sessions().renew_stream(renew).await.expect_err("no such stream");
        assert_eq!(reason(&refused), "OWNER_MISMATCH");
        let refused = calls.sessions().get_session(get(&format!("ses_{number}"))).await.expect_err("nobody");
        assert_eq!(reason(&refused), "PROVIDER_AUTH_FAILED");
    }
    served.stop().await;
    let audit = served.audit();
    let refused: Vec<_> = audit.iter().filter(|row| row.outcome == "refused").collect();
    for reason in ["FORBIDDEN", "OWNER_MISMATCH", "PROVIDER_AUTH_FAILED"] {
        let of_kind: Vec<_> = refused.iter().filter(|row| row.reason == reason).collect();
        assert!(of_kind.len() < 30, "{reason}: {} rows", of_kind.len());
        assert_eq!(of_kind.iter().map(|row| row.count).sum::<u64>(), 40, "{reason}: all are told of");
    }
}
