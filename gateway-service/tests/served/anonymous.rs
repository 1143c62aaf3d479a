//! Callers with no credential: refused, but where the gateway lets them make sessions.

use std::time::Duration;

use interlock_proto::{
    credential::{Credential, Kind},
    gateway::v1::{
        CreateSessionRequest, GetSessionRequest, JobState, JoinSessionRequest, ListAgentsRequest,
        ListSessionsRequest, SetAgentRequest, SetSessionPasswordRequest, stream_events_response::Message,
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    AGENT, Calls, PATIENCE, PROJECT, Served, cookie_of, internal_token, next, reason, worker::Worker,
};

const ON: (&str, &str) = ("allow_anonymous", "true");

/// As the SDK makes them: nobody guesses it.
fn request_id(number: u8) -> String {
    format!("{number:032}")
}

async fn create(calls: &Calls, number: u8) -> Result<(String, String), Status> {
    let request = CreateSessionRequest { request_id: request_id(number), ..CreateSessionRequest::default() };
    let created = calls.sessions().create_session(request).await?;
    let cookie = cookie_of(&created);
    Ok((created.into_inner().session.expect("made").session_id, cookie))
}

async fn get(calls: &Calls, session: &str) -> Result<String, Status> {
    let get = GetSessionRequest { session_id: session.to_owned() };
    Ok(calls.sessions().get_session(get).await?.into_inner().session.expect("found").owner_id)
}

fn told(status: &Status) -> (Code, String, String) {
    (status.code(), reason(status), status.message().to_owned())
}

fn login_required() -> (Code, String, String) {
    (Code::Unauthenticated, "PROVIDER_AUTH_FAILED".to_owned(), "login required".to_owned())
}

// NC-01, NC-02, NC-08, DESIGN 4: `local`
#[tokio::test(flavor = "multi_thread")]
async fn with_no_credential_one_gets_a_session_and_its_cookie_and_nothing_else() {
    let cheap = [("argon2.m_kib", "8"), ("argon2.t", "1")];
    let mut served = Served::start_with(&[ON, ("sessions_per_owner", "3"), cheap[0], cheap[1]]).await;
    let nobody = served.nobody().await;
    let (session, cookie) = create(&nobody, 1).await.expect("let in");
    let client = nobody.clone().with("cookie", &cookie).with("x-interlock-project", PROJECT);
    assert_eq!(get(&client, &session).await.expect("by its cookie"), "local");

    // A retry is known by its request id, and gets the first answer, the cookie included.
    assert_eq!(create(&nobody, 1).await.expect("again"), (session.clone(), cookie.clone()));
    let named = CreateSessionRequest {
        request_id: request_id(1),
        name: "other".to_owned(),
        ..CreateSessionRequest::default()
    };
    let refused = nobody.sessions().create_session(named).await.expect_err("asked for another");
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED");
    let guessable = CreateSessionRequest { request_id: "1".to_owned(), ..CreateSessionRequest::default() };
    let refused = nobody.sessions().create_session(guessable).await.expect_err("guessable");
    assert_eq!(reason(&refused), "INVALID_FIELD");
    // Nobody's session is `local`'s and no other's.
    let hers = CreateSessionRequest {
        request_id: request_id(9),
        owner_id: "alice".to_owned(),
        ..CreateSessionRequest::default()
    };
    let refused = nobody.sessions().create_session(hers).await.expect_err("another's");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "FORBIDDEN"));

    // Nothing else goes without a credential, and one that is not good is not none.
    assert_eq!(told(&get(&nobody, &session).await.expect_err("no cookie")), login_required());
    let list = nobody.sessions().list_sessions(ListSessionsRequest::default()).await;
    assert_eq!(told(&list.expect_err("no credential")), login_required());
    let agents = nobody.agents().list_agents(ListAgentsRequest::default()).await;
    assert_eq!(told(&agents.expect_err("no credential")), login_required());
    let unknown = Credential::new(Kind::Owner, &[9; 32]);
    let no_client = Credential::new(Kind::Client, &[9; 32]);
    let made_up = format!("__Host-interlock_{session}={}", no_client.expose());
    for bad in [
        nobody.clone().with("authorization", &format!("Bearer {}", unknown.expose())),
        nobody.clone().with("authorization", "Bearer let-me-in"),
        nobody.clone().with("authorization", "Basic dTpw"),
    ] {
        assert_eq!(told(&create(&bad, 2).await.expect_err("not good")), login_required());
    }
    let refused = create(&nobody.clone().with("cookie", &made_up), 2).await.expect_err("a cookie makes none");
    assert_eq!(reason(&refused), "FORBIDDEN");
    // Services say whom they act for.
    let service = served.service("api").await.with("x-internal-token", &internal_token());
    assert_eq!(reason(&create(&service, 2).await.expect_err("nobody named")), "IDENTITY_REQUIRED");

    // The cookie is a host's: it lets others in.
    let set = SetSessionPasswordRequest {
        session_id: session.clone(),
        password: "correct horse".to_owned(),
        ..SetSessionPasswordRequest::default()
    };
    client.sessions().set_session_password(set).await.expect("a host may");
    let join = JoinSessionRequest {
        session_id: session.clone(),
        password: "correct horse".to_owned(),
        request_id: "join".to_owned(),
        ..JoinSessionRequest::default()
    };
    let joined = nobody.sessions().join_session(join).await.expect("by the password");
    assert_ne!(cookie_of(&joined), cookie);
    // Foreign to whoever signs in, alone and beside the cookie.
    let (_, alice) = served.owner("alice").await;
    assert_eq!(reason(&get(&alice, &session).await.expect_err("not hers")), "OWNER_MISMATCH");
    let both = get(&alice.clone().with("cookie", &cookie), &session).await.expect_err("two owners");
    assert_eq!(both.code(), Code::Unauthenticated);

    // As many as an owner may have, and no more; nobody else's are counted with them.
    create(&nobody, 2).await.expect("a second one");
    create(&nobody, 3).await.expect("a third one");
    let refused = create(&nobody, 4).await.expect_err("one too many");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "LIMIT_REACHED"));
    alice.create("first").await;

    served.stop().await;
    let rows = served.audit();
    let made: Vec<_> = rows.iter().filter(|row| row.action == "session.create").collect();
    let by_nobody = made.iter().filter(|row| row.origin.principal == "local").collect::<Vec<_>>();
    assert!(by_nobody.iter().all(|row| row.origin.role == "anonymous" && !row.origin.peer.is_empty()));
    let done = by_nobody.iter().filter(|row| row.outcome == "done").count();
    assert_eq!(
        (done, by_nobody.last().expect("rows").reason.as_str()),
        (3, "LIMIT_REACHED"),
        "{by_nobody:?}"
    );
    // Neither the cookie nor what opens its first answer again is in the store.
    let store = std::fs::read(served.folder().join("data/gateway.db")).expect("the store");
    let holds = |text: &str| store.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    assert!(holds(&session), "the session is in it");
    let secret = cookie.split_once('=').expect("a pair").1;
    for hidden in [secret, &request_id(1), &request_id(2)] {
        assert!(!holds(hidden), "{hidden} is stored");
    }
}

// NC-01: work, where a member has let `local` in; and for as long.
#[tokio::test(flavor = "multi_thread")]
async fn what_local_was_let_into_its_sessions_may_be_bound_to() {
    let served = Served::start_with(&[ON]).await;
    let admin = served.calls(&served.trust.admin()).await;
    let share = SetAgentRequest { agent_id: AGENT.to_owned(), shared: Some(true), description: None };
    admin.agents().set_agent(share).await.expect("shared");
    let (session, cookie) = create(&served.nobody().await, 1).await.expect("let in");
    let client = served.nobody().await.with("cookie", &cookie).with("x-interlock-project", PROJECT);
    let refused = client.attach(&session).await.expect_err("let in nowhere");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "PROJECT_MISMATCH"));

    served.trust.enter("local", PROJECT);
    assert!(client.attach(&session).await.expect("let in by now"));
    let mut stream = client.stream(&session, 0).await.expect("a stream");
    let job = client.submit(&session, "one").await.expect("queued").job_id;
    let mut worker = Worker::open(&admin, Vec::new()).await.expect("welcome");
    let held = worker.assignment().await.held.expect("held");
    assert_eq!(held.job_id, job);
    worker.finish(&held, JobState::Succeeded).await;
    worker.next().await.expect("finished");

    // Put out again: the clients there go with the membership, like those of any owner.
    served.trust.leave("local", PROJECT).await;
    let ended = async {
        loop {
            match next(&mut stream).await {
                Ok(Some(answer)) => assert!(!matches!(answer.message, Some(Message::Gap(_)))),
                Ok(None) => panic!("ended without saying why"),
                Err(status) => return status,
            }
        }
    };
    assert_eq!(reason(&ended.await), "EVICTED");
    assert_eq!(told(&get(&client, &session).await.expect_err("gone")), login_required());
}

// NC-01: bounded by source.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_makes_ten_at_once_and_keeps_nobody_else_out() {
    let served = Served::start_with(&[ON]).await;
    let nobody = served.nobody().await;
    let mut made = 0;
    let refused = loop {
        match create(&nobody, made).await {
            Ok(_) => made += 1,
            Err(status) => break status,
        }
        assert!(made < 90, "without a bound");
    };
    assert!(made >= 10, "{made}");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "RATE_LIMITED"));
    let wait = refused.get_details_retry_info().expect("when to come back").retry_delay.expect("a delay");
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    let (_, alice) = served.owner("alice").await;
    alice.create("first").await;
    // It may be asked again after that long.
    let again = async {
        while create(&nobody, made).await.is_err() {
            tokio::time::sleep(wait).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("let in again");
}

// NC-01: off by default, and turned off again.
#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_off_no_session_is_made_and_those_that_there_are_go_on() {
    let mut served = Served::start_with(&[ON]).await;
    let (session, cookie) = create(&served.nobody().await, 1).await.expect("let in");
    served.restart_with(&[]).await;
    let nobody = served.nobody().await;
    // A retry of what was made before makes no difference.
    for number in [1, 2] {
        assert_eq!(told(&create(&nobody, number).await.expect_err("off")), login_required());
    }
    let client = nobody.with("cookie", &cookie).with("x-interlock-project", PROJECT);
    assert_eq!(get(&client, &session).await.expect("its own credential"), "local");
}
