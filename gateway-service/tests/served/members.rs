//! Joining a session by its password, over real sockets: cookies, throttling, what streams are told.

use interlock_kit::store::sqlite::{self, Place};
use interlock_proto::{
    credential::{Credential, Kind},
    gateway::v1::{
        AckRequest, EvictClientRequest, GetSessionRequest, JoinSessionRequest, JoinSessionResponse,
        ListClientsRequest, PostMessageRequest, QuitRequest, SetSessionPasswordRequest, StreamEventsRequest,
        StreamEventsResponse, event::Kind as EventKind, stream_events_response::Message,
    },
};
use sha2::{Digest as _, Sha256};
use tonic::{Code, Response, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::support::{Calls, PROJECT, Served, cookie_of, next, reason};

const PASSWORD: &str = "correct horse";
/// A hash is not what these tests are about.
const CHEAP: [(&str, &str); 2] = [("argon2.m_kib", "8"), ("argon2.t", "1")];

async fn set_password(calls: &Calls, session: &str, password: &str) -> Result<u32, Status> {
    let request = SetSessionPasswordRequest {
        session_id: session.to_owned(),
        password: password.to_owned(),
        ..SetSessionPasswordRequest::default()
    };
    Ok(calls.sessions().set_session_password(request).await?.into_inner().evicted)
}

async fn join(
    calls: &Calls,
    session: &str,
    password: &str,
    request_id: &str,
) -> Result<Response<JoinSessionResponse>, Status> {
    let request = JoinSessionRequest {
        session_id: session.to_owned(),
        password: password.to_owned(),
        request_id: request_id.to_owned(),
        ..JoinSessionRequest::default()
    };
    calls.sessions().join_session(request).await
}

async fn as_client(served: &Served, cookie: &str) -> Calls {
    served.nobody().await.with("cookie", cookie).with("x-interlock-project", PROJECT)
}

async fn from_cursor(calls: &Calls, session: &str) -> Streaming<StreamEventsResponse> {
    let from =
        StreamEventsRequest { session_id: session.to_owned(), from_cursor: true, ..Default::default() };
    calls.sessions().stream_events(from).await.expect("opened").into_inner()
}

/// The numbers of the next events, up to and with this one.
async fn numbers(stream: &mut Streaming<StreamEventsResponse>, to: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| *last < to) {
        match next(stream).await.expect("living").expect("a message").message.expect("one") {
            Message::Event(event) => seen.push(event.sequence),
            Message::Opened(_) | Message::CaughtUp(_) => {}
            Message::Gap(gap) => panic!("a gap: {gap:?}"),
        }
    }
    seen
}

async fn end(stream: &mut Streaming<StreamEventsResponse>) -> Status {
    loop {
        match next(stream).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without saying why"),
            Err(status) => return status,
        }
    }
}

// NC-02, NC-05, NC-08, NC-09, NC-10, NC-11, NC-12, NC-16, NC-25, NC-27, NC-28
#[tokio::test(flavor = "multi_thread")]
async fn a_second_client_joins_by_password_and_both_get_everything_once() {
    let served = Served::start_with(&CHEAP).await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, host_cookie) = alice.bound_session().await;
    let host = as_client(&served, &host_cookie).await;
    set_password(&host, &session, PASSWORD).await.expect("by the host");

    // Nobody: no certificate, no bearer, no cookie, no project.
    let joined = join(&served.nobody().await, &session, PASSWORD, "a laptop").await.expect("joined");
    let cookie = cookie_of(&joined);
    assert_ne!(cookie, host_cookie, "a credential of its own");
    let joined = joined.into_inner();
    let snapshot = joined.session.expect("the state");
    assert_eq!((snapshot.session_id.as_str(), snapshot.owner_id.as_str()), (session.as_str(), "alice"));
    assert_eq!(snapshot.binding.expect("bound").project_id, PROJECT);
    assert_eq!(joined.clients.len(), 2);
    assert!(joined.clients.iter().any(|client| client.calling && client.client_id == joined.client_id));
    let second = as_client(&served, &cookie).await;

    let (mut a, mut b) = (from_cursor(&host, &session).await, from_cursor(&second, &session).await);
    let last = snapshot.last_sequence;
    assert_eq!(numbers(&mut a, last).await, (1..=last).collect::<Vec<_>>(), "the history, too");
    assert_eq!(numbers(&mut b, last).await, (1..=last).collect::<Vec<_>>());
    second.submit(&session, "by the second").await.expect("an operator submits");
    assert_eq!(numbers(&mut a, last + 1).await, [last + 1]);
    assert_eq!(numbers(&mut b, last + 1).await, [last + 1]);

    // A network drop is no quit: the place in the log is kept, and nothing was missed.
    let ack = AckRequest { session_id: session.clone(), sequence: last + 1 };
    second.sessions().ack(ack).await.expect("acknowledged");
    drop((b, second));
    let text = PostMessageRequest {
        session_id: session.clone(),
        request_id: "m1".to_owned(),
        data: "are you there?".into(),
        ..PostMessageRequest::default()
    };
    host.sessions().post_message(text).await.expect("said");
    let second = as_client(&served, &cookie).await;
    let mut b = from_cursor(&second, &session).await;
    assert_eq!(numbers(&mut b, last + 2).await, [last + 2]);

    let quit = QuitRequest { session_id: session.clone() };
    assert!(!host.sessions().quit(quit.clone()).await.expect("left").into_inner().session_ends);
    assert_eq!(numbers(&mut b, last + 3).await, [last + 3], "the other one streams on");
    assert_eq!(reason(&end(&mut a).await), "EVICTED");
    let get = GetSessionRequest { session_id: session.clone() };
    let refused = host.sessions().get_session(get).await.expect_err("it's gone");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "PROVIDER_AUTH_FAILED"));
    assert!(second.sessions().quit(quit).await.expect("left").into_inner().session_ends);
    assert_eq!(reason(&end(&mut b).await), "SESSION_ENDED");
}

// NC-14
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_no_password_and_no_session_get_one_answer() {
    let served = Served::start_with(&[("join_tries", "100"), CHEAP[0], CHEAP[1]]).await;
    let (_, alice) = served.owner("alice").await;
    let with = alice.create("with").await.into_inner().session.expect("made").session_id;
    let without = alice.create("without").await.into_inner().session.expect("made").session_id;
    set_password(&alice, &with, PASSWORD).await.expect("by the owner");
    let nobody = served.nobody().await;
    let mut answers = Vec::new();
    for (session, password) in [(&*with, "wrong horse"), (&*without, PASSWORD), ("ses_1", PASSWORD)] {
        let refused = join(&nobody, session, password, "r").await.expect_err("refused");
        answers.push((refused.code(), refused.message().to_owned(), reason(&refused)));
    }
    let by_name = JoinSessionRequest {
        owner_id: "alice".to_owned(),
        name: "desk".to_owned(),
        password: PASSWORD.to_owned(),
        request_id: "r".to_owned(),
        ..JoinSessionRequest::default()
    };
    let refused = nobody.sessions().join_session(by_name).await.expect_err("refused");
    answers.push((refused.code(), refused.message().to_owned(), reason(&refused)));
    assert_eq!((answers[0].0, answers[0].2.as_str()), (Code::Unauthenticated, "INVALID_CREDENTIALS"));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

// NC-22, NC-23
#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_throttled_and_weak_passwords_refused() {
    let served = Served::start_with(&CHEAP).await;
    let (_, alice) = served.owner("alice").await;
    let session = alice.create("first").await.into_inner().session.expect("made").session_id;
    for (password, expected) in
        [("", "MISSING_FIELD"), ("1234567", "WEAK_PASSWORD"), (&*"x".repeat(1025), "INVALID_FIELD")]
    {
        let refused = set_password(&alice, &session, password).await.expect_err("refused");
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, expected));
    }
    let nobody = served.nobody().await;
    let mut limited = None;
    // However slow this machine is: tries come back one a second, and all of these are asked at once.
    let tries = (0..40).map(|n| {
        let (nobody, session) = (nobody.clone(), session.clone());
        tokio::spawn(async move { join(&nobody, &session, "wrong horse", &format!("r{n}")).await })
    });
    for asked in tries.collect::<Vec<_>>() {
        let refused = asked.await.expect("no panic").expect_err("refused");
        if refused.code() == Code::ResourceExhausted {
            limited = Some(refused);
        }
    }
    let limited = limited.expect("a burst of five, and one a second");
    assert_eq!(reason(&limited), "RATE_LIMITED");
    let wait = limited.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(wait.is_some_and(|wait| !wait.is_zero()), "it says when to try again");
}

// NC-13, NC-24
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_gets_the_same_cookie_and_the_store_keeps_no_secret() {
    let mut served = Served::start_with(&[("join_tries", "100"), CHEAP[0], CHEAP[1]]).await;
    let (_, alice) = served.owner("alice").await;
    let session = alice.create("first").await.into_inner().session.expect("made").session_id;
    set_password(&alice, &session, PASSWORD).await.expect("set");
    let nobody = served.nobody().await;
    let first = join(&nobody, &session, PASSWORD, "the same").await.expect("joined");
    let again = join(&nobody, &session, PASSWORD, "the same").await.expect("the first answer");
    assert_eq!(cookie_of(&first), cookie_of(&again));
    assert_eq!(first.get_ref().client_id, again.get_ref().client_id);
    let other = join(&nobody, &session, PASSWORD, "another").await.expect("joined");
    assert_ne!(cookie_of(&first), cookie_of(&other));
    let client = as_client(&served, &cookie_of(&first)).await;
    let list = ListClientsRequest { session_id: session.clone() };
    assert_eq!(client.sessions().list_clients(list).await.expect("listed").into_inner().clients.len(), 3);

    let secret = cookie_of(&first).split_once('=').expect("a pair").1.to_owned();
    let credential = Credential::parse(&secret).expect("a credential");
    assert_eq!((credential.kind(), secret.len()), (Kind::Client, 8 + 49), "256 bits, and a checksum");
    served.stop().await;
    let file = served.folder().join("data/gateway.db");
    let store = sqlite::connect(&Place::File(file.clone())).expect("the store");
    let stored: Vec<u8> = store
        .query_row("SELECT hash FROM client WHERE id = ?1", [&first.get_ref().client_id], |row| row.get(0))
        .expect("a client");
    assert_eq!(stored, Sha256::digest(secret.as_bytes()).to_vec());
    let hash: String =
        store.query_row("SELECT hash FROM password", [], |row| row.get(0)).expect("a password");
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    for path in std::fs::read_dir(served.folder().join("data")).expect("a folder") {
        let path = path.expect("an entry").path();
        if path.is_dir() {
            // For the contents of files, of which there are none here.
            assert_eq!(std::fs::read_dir(&path).expect("a folder").count(), 0, "{path:?}");
            continue;
        }
        let bytes = std::fs::read(path).expect("readable");
        for what in [PASSWORD, &*secret] {
            let found = bytes.windows(what.len()).any(|window| window == what.as_bytes());
            assert!(!found, "a secret is in the store");
        }
    }
}

// NC-16
#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_client_is_told_so_and_messages_go_where_they_should() {
    let served = Served::start_with(&CHEAP).await;
    let (_, alice) = served.owner("alice").await;
    let created = alice.create("first").await;
    let host = as_client(&served, &cookie_of(&created)).await;
    let session = created.into_inner().session.expect("made").session_id;
    set_password(&alice, &session, PASSWORD).await.expect("set");
    let joined = join(&served.nobody().await, &session, PASSWORD, "r").await.expect("joined");
    let second = as_client(&served, &cookie_of(&joined)).await;
    let client_id = joined.into_inner().client_id;
    let mut stream = from_cursor(&second, &session).await;
    let say = PostMessageRequest {
        session_id: session.clone(),
        request_id: "m".to_owned(),
        data: "only you".into(),
        to_client_id: client_id.clone(),
        to_others: false,
    };
    let place = host.sessions().post_message(say).await.expect("said").into_inner().sequence;
    loop {
        let message = next(&mut stream).await.expect("living").expect("a message").message.expect("one");
        let Message::Event(event) = message else { continue };
        if event.sequence == place {
            let Some(EventKind::MessagePosted(posted)) = event.kind else { panic!("not the message") };
            assert_eq!((&posted.data[..], &posted.to_client_id), (&b"only you"[..], &client_id));
            break;
        }
    }
    let evict = EvictClientRequest { session_id: session.clone(), client_id };
    assert!(host.sessions().evict_client(evict.clone()).await.expect("out").into_inner().evicted);
    assert!(!host.sessions().evict_client(evict).await.expect("again").into_inner().evicted);
    let ended = end(&mut stream).await;
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unauthenticated, "EVICTED"));
}

// NC-20: who follows the log is there, although it calls nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_seen_for_as_long_as_its_stream_is_open() {
    // As short as it may be: that a client was seen is noted once in a sixteenth of it.
    let served = Served::start_with(&[("client_idle", "60s")]).await;
    let (_, alice) = served.owner("alice").await;
    let created = alice.create("first").await;
    let host = as_client(&served, &cookie_of(&created)).await;
    let session = created.into_inner().session.expect("made").session_id;
    let mut stream = from_cursor(&host, &session).await;
    assert_eq!(numbers(&mut stream, 1).await, [1]);
    let seen = async || {
        let list = ListClientsRequest { session_id: session.clone() };
        let listed = alice.sessions().list_clients(list).await.expect("by the owner").into_inner();
        let at = listed.clients[0].seen_at.expect("it was");
        (at.seconds, at.nanos)
    };
    let first = seen().await;
    let again = async {
        for number in 2.. {
            let say = PostMessageRequest {
                session_id: session.clone(),
                request_id: format!("m{number}"),
                data: "still there?".into(),
                ..PostMessageRequest::default()
            };
            alice.sessions().post_message(say).await.expect("said");
            assert_eq!(numbers(&mut stream, number).await, [number]);
            if seen().await > first {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, again).await.expect("it is seen again");
}
