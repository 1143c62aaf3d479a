//! Sign-in to job done, as a program that uses the SDK would; and who is refused on the way.

use bytes::Bytes;
use interlock_client::{
    Code, Credentials, EventKind, JobState, Outcome as JobOutcome, Reason, SetAgent, StreamFrom, StreamItem,
    Worker,
};
use interlock_proto::gateway::v1 as gateway;
use interlock_tests::{
    Pair,
    wire::{self, Metadata},
    within,
};
use tokio::sync::oneshot;

const CREATE_SESSION: &str = "/interlock.gateway.v1.SessionService/CreateSession";
const GET_SESSION: &str = "/interlock.gateway.v1.SessionService/GetSession";
const STREAM_EVENTS: &str = "/interlock.gateway.v1.SessionService/StreamEvents";

// FN-03, FN-06, FN-12, FN-19, NC-01, NC-02, SW-32, SW-33, SW-34
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_sign_in_to_a_job_that_is_done() {
    let pair = Pair::start().await;
    let status = pair.sdk_auth().sign_in_status().await.expect("public");
    assert!(status.enabled && status.owner.is_none(), "{status:?}");
    let alice = pair.login("alice").await;
    assert_eq!((alice.username.as_str(), alice.role.as_str()), ("alice", "user"));
    let root = pair.login("root").await;
    assert_eq!(root.role, "admin");

    let project = pair.project(&alice, "demo").await;
    let sdk = pair.sdk_gateway(&alice.access_token).with_project(project.clone());
    sdk.agents().set("builder", SetAgent::default()).await.expect("an agent");
    let created = sdk.sessions().create("first").await.expect("a session");
    let id = created.session.session_id.clone();
    sdk.sessions().attach(&id, "builder", &project).await.expect("idle");
    let job = sdk.jobs().submit(&id, "hello").await.expect("a job");

    // SW-33: while busy the same attach works, and everything can be read.
    let refused = sdk.sessions().attach(&id, "builder", "system").await.expect_err("not for users");
    assert_eq!(refused.reason(), Some(Reason::Forbidden), "{refused}");
    assert!(!sdk.sessions().attach(&id, "builder", &project).await.expect("reconnect").changed);
    assert_eq!(sdk.jobs().list(&id, true).await.expect("jobs").len(), 1);

    let (done, until) = oneshot::channel::<()>();
    let worker = Worker::new(sdk.clone(), vec!["builder".to_owned()], 1, "tester");
    let worker = tokio::spawn(worker.run(
        |task| async move {
            task.progress(Bytes::from_static(b"half")).await.expect("its lease lives");
            JobOutcome::Succeeded { result: Bytes::from([b"did ", &task.payload()[..]].concat()) }
        },
        async move {
            let _ = until.await;
        },
    ));
    let ended = within("the job's end", sdk.jobs().wait(&job.job_id)).await.expect("a job");
    assert_eq!((ended.state, &ended.result[..]), (JobState::Succeeded, &b"did hello"[..]));
    done.send(()).expect("the worker runs");
    within("the worker's end", worker).await.expect("no panic").expect("no error");

    let mut stream = sdk.sessions().stream(&id, StreamFrom::Start);
    let mut kinds = Vec::new();
    loop {
        match within("the log", stream.next()).await.expect("it goes on").expect("no error") {
            StreamItem::Event(event) => kinds.push(name(&event.kind)),
            StreamItem::Gap { .. } => panic!("nothing was taken by retention"),
            StreamItem::CaughtUp { sequence } => {
                assert_eq!(sequence, kinds.len() as u64);
                break;
            }
        }
    }
    assert_eq!(kinds, ["created", "attached", "queued", "started", "progress", "ended"]);
    // FN-04: signed out is signed out.
    pair.sdk_auth().logout(&alice.access_token).await.expect("signed out");
    let refused = sdk.sessions().get(&id).await.expect_err("signed out");
    assert_eq!((refused.code(), refused.reason()), (Code::Unauthenticated, Some(Reason::ProviderAuthFailed)));
}

fn name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::SessionCreated { .. } => "created",
        EventKind::SessionAttached(_) => "attached",
        EventKind::SessionClosing => "closing",
        EventKind::JobQueued { .. } => "queued",
        EventKind::JobStarted { .. } => "started",
        EventKind::JobProgress { .. } => "progress",
        EventKind::JobReleased { .. } => "released",
        EventKind::JobCancelRequested { .. } => "cancel requested",
        EventKind::JobEnded { .. } => "ended",
        _ => "unknown",
    }
}

// UA-07, UA-08, UA-10, UA-18, UA-42, UA-43
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_and_how() {
    let pair = Pair::start().await;
    let (alice, bob) = (pair.login("alice").await, pair.login("bob").await);
    let channel = pair.gateway_public();
    let create = gateway::CreateSessionRequest { request_id: "r1".to_owned(), ..Default::default() };
    let refused = wire::ask(&channel, CREATE_SESSION, &create, &Metadata::none()).await.outcome;
    assert_eq!((refused.code.as_str(), refused.reason.as_str()), ("UNAUTHENTICATED", "PROVIDER_AUTH_FAILED"));
    assert_eq!(refused.message, "login required");
    let stream = wire::call(&channel, STREAM_EVENTS, Vec::new(), &Metadata::none()).await.outcome;
    assert_eq!(stream, refused, "the same, before the first message");

    // UA-10: what is another's and what is not there cannot be told apart.
    let hers =
        pair.sdk_gateway(&alice.access_token).sessions().create("hers").await.expect("a session").session;
    let as_bob = Metadata::bearer(&bob.access_token);
    let unknown = format!("{}0", &hers.session_id[..hers.session_id.len() - 1]);
    let get = async |id: &str| {
        let request = gateway::GetSessionRequest { session_id: id.to_owned() };
        wire::ask(&channel, GET_SESSION, &request, &as_bob).await.outcome
    };
    let foreign = get(&hers.session_id).await;
    assert_eq!((foreign.code.as_str(), foreign.reason.as_str()), ("PERMISSION_DENIED", "OWNER_MISMATCH"));
    if unknown != hers.session_id {
        assert_eq!(get(&unknown).await, foreign);
    }

    // UA-18: nobody makes sessions for others.
    let owner_id = "alice".to_owned();
    let for_alice =
        gateway::CreateSessionRequest { request_id: "r2".to_owned(), owner_id, ..Default::default() };
    let refused = wire::ask(&channel, CREATE_SESSION, &for_alice, &as_bob).await.outcome;
    assert_eq!((refused.code.as_str(), refused.reason.as_str()), ("PERMISSION_DENIED", "FORBIDDEN"));

    // SW-10: no scheme but Bearer, in any case of letters; and exactly one.
    let list = "/interlock.gateway.v1.SessionService/ListSessions";
    let token = alice.access_token.expose();
    for (value, code) in [
        (format!("bearer {token}"), "OK"),
        (format!("BEARER {token}"), "OK"),
        (format!("Basic {token}"), "UNAUTHENTICATED"),
        (token.to_owned(), "UNAUTHENTICATED"),
    ] {
        let metadata = Metadata::none().with("authorization", &value);
        let outcome = wire::call(&channel, list, Vec::new(), &metadata).await.outcome;
        assert_eq!(outcome.code, code, "{}: {outcome}", &value[..6]);
    }
    let twice = Metadata::bearer(&alice.access_token).with("authorization", &format!("Bearer {token}"));
    let outcome = wire::call(&channel, list, Vec::new(), &twice).await.outcome;
    assert_eq!(outcome.reason, "PROVIDER_AUTH_FAILED");
}

// NC-08, NC-25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sessions_cookie_is_kept_to_itself() {
    let pair = Pair::start().await;
    let alice = pair.login("alice").await;
    let channel = pair.gateway_public();
    let create = gateway::CreateSessionRequest { request_id: "r1".to_owned(), ..Default::default() };
    let bearer = Metadata::bearer(&alice.access_token);
    let answer = wire::ask(&channel, CREATE_SESSION, &create, &bearer).await;
    let session = answer.read::<gateway::CreateSessionResponse>().session.expect("a session").session_id;
    let cookie = answer.metadata.get("set-cookie").expect("a cookie").to_str().expect("text");
    let mut parts = cookie.split("; ");
    let pair_of = parts.next().expect("name and value");
    let (name, value) = pair_of.split_once('=').expect("name and value");
    assert_eq!(name, format!("__Host-interlock_{session}"));
    let mut attributes: Vec<_> = parts.collect();
    attributes.sort_unstable();
    assert_eq!(attributes, ["HttpOnly", "Path=/", "SameSite=Strict", "Secure"]);
    let body = String::from_utf8_lossy(&answer.message).into_owned();
    assert!(!body.contains(value), "the credential is in no message");
    assert!(value.starts_with("ilk_cli_"));

    // The same request again: the same session, the same cookie, for ten minutes.
    let again = wire::ask(&channel, CREATE_SESSION, &create, &bearer).await;
    assert_eq!(again.message, answer.message);
    assert_eq!(again.metadata.get("set-cookie"), answer.metadata.get("set-cookie"));

    // It acts in its session only, by itself or beside its owner's bearer; beside another's it is refused.
    let with_cookie = Metadata::none().with("cookie", pair_of);
    let get = gateway::GetSessionRequest { session_id: session.clone() };
    assert_eq!(wire::ask(&channel, GET_SESSION, &get, &with_cookie).await.outcome.code, "OK");
    let other = pair.sdk_gateway(&alice.access_token).sessions().create("").await.expect("a session").session;
    let get_other = gateway::GetSessionRequest { session_id: other.session_id };
    let outcome = wire::ask(&channel, GET_SESSION, &get_other, &with_cookie).await.outcome;
    assert_eq!(outcome.code, "PERMISSION_DENIED", "{outcome}");
    let bob = pair.login("bob").await;
    let both = Metadata::bearer(&bob.access_token).with("cookie", pair_of);
    let outcome = wire::ask(&channel, GET_SESSION, &get, &both).await.outcome;
    assert_eq!(outcome.code, "UNAUTHENTICATED", "{outcome}");
    let twice = Metadata::none().with("cookie", &format!("{pair_of}; {pair_of}"));
    assert_eq!(wire::ask(&channel, GET_SESSION, &get, &twice).await.outcome.code, "UNAUTHENTICATED");
}

// FN-05, SW-20, SW-23, SW-24, SW-25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_tokens_are_shown_and_rotated_by_who_may() {
    let pair = Pair::start().await;
    let (admin, user) = (pair.admin(), pair.user());
    let masked = pair.sdk_auth_as(&admin).role_tokens(false).await.expect("admin may");
    assert!(masked.path.is_none() && masked.tokens.iter().all(|token| token.token.is_none()), "masked");
    let shown = pair.sdk_auth_as(&admin).role_tokens(true).await.expect("admin may");
    assert!(shown.path.is_some_and(|path| path.ends_with("auth_tokens.json")) && shown.recoverable);
    assert!(shown.tokens.iter().any(|token| token.token.as_ref() == Some(&admin)));
    for reveal in [false, true] {
        let refused = pair.sdk_auth_as(&user).role_tokens(reveal).await.expect_err("user may not");
        assert_eq!(refused.reason(), Some(Reason::Forbidden), "{refused}");
    }
    let auth = pair.sdk_auth_as(&admin);
    for (role, reason) in [("", Reason::MissingField), ("superuser", Reason::InvalidField)] {
        let refused =
            auth.rotate_role_token(role, std::time::Duration::ZERO).await.expect_err("no such role");
        assert_eq!(refused.reason(), Some(reason), "{refused}");
    }
    let refused = pair.sdk_auth_as(&user).rotate_role_token("user", std::time::Duration::ZERO).await;
    assert_eq!(refused.expect_err("user may not").reason(), Some(Reason::Forbidden));
    let nobody = pair.sdk_gateway_as(Credentials::none()).sessions().list().await.expect_err("nobody");
    assert_eq!(nobody.message(), "login required");
}

// I9, DESIGN 14.13: any number of refreshes at once get one successor; a replay after its use ends them all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_has_one_successor() {
    let pair = Pair::start().await;
    let first = pair.login("alice").await;
    let mut at_once = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (auth, first) = (pair.sdk_auth(), first.clone());
        at_once.spawn(async move { auth.refresh(&first).await });
    }
    let answers = within("the answers", at_once.join_all()).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("a successor")).collect();
    let second = &answers[0];
    for other in &answers {
        assert_eq!(other.refresh_token, second.refresh_token, "I9");
        assert_eq!(other.access_token, second.access_token, "I9");
    }
    assert_eq!(second.owner_session_id, first.owner_session_id);
    let gateway = pair.sdk_gateway(&second.access_token);
    gateway.sessions().list().await.expect("admitted");

    let third = pair.sdk_auth().refresh(second).await.expect("the successor is used");
    let replayed = pair.sdk_auth().refresh(&first).await.expect_err("a replay");
    assert_eq!(replayed.reason(), Some(Reason::InvalidCredentials), "{replayed}");
    // The answer was a barrier: nothing of the owner session is admitted any more.
    for session in [&first, second, &third] {
        let refused = pair.sdk_gateway(&session.access_token).sessions().list().await.expect_err("ended");
        assert_eq!(refused.reason(), Some(Reason::ProviderAuthFailed), "{refused}");
    }
    let refused = pair.sdk_auth().refresh(&third).await.expect_err("ended");
    assert_eq!(refused.reason(), Some(Reason::InvalidCredentials), "{refused}");
}
