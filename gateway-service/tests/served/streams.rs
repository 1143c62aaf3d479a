//! Event streams: order, resumption, what ends them, what pauses them.

use std::time::{Duration, SystemTime};

use interlock_proto::gateway::v1::{
    AttachSessionRequest, CloseSessionRequest, JobState, RenewStreamRequest, StreamEventsResponse,
    StreamOpened, event::Kind, stream_events_response::Message,
};
use tonic::{Code, Status, Streaming};

use crate::support::{Calls, Served, next, reason, worker::Worker};

type Events = Streaming<StreamEventsResponse>;

async fn opened(calls: &Calls, session: &str, after: u64) -> (Events, StreamOpened) {
    let mut stream = calls.stream(session, after).await.expect("opened");
    match message(&mut stream).await {
        Ok(Some(Message::Opened(opened))) => (stream, opened),
        other => panic!("not opened first: {other:?}"),
    }
}

async fn message(stream: &mut Events) -> Result<Option<Message>, Status> {
    Ok(next(stream).await?.map(|answer| answer.message.expect("one")))
}

/// Reads until caught up; the sequence numbers of the events before.
async fn catch_up(stream: &mut Events) -> Vec<u64> {
    let mut seen = Vec::new();
    loop {
        match message(stream).await {
            Ok(Some(Message::Event(event))) => seen.push(event.sequence),
            Ok(Some(Message::CaughtUp(caught_up))) => {
                assert_eq!(seen.last().copied().unwrap_or(caught_up.sequence), caught_up.sequence);
                return seen;
            }
            other => panic!("not an event: {other:?}"),
        }
    }
}

/// The status that ends a stream, after whatever comes before it.
async fn end(stream: &mut Events) -> Status {
    loop {
        match message(stream).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without saying why"),
            Err(status) => return status,
        }
    }
}

fn in_a_moment(seconds: f64) -> prost_types::Timestamp {
    prost_types::Timestamp::from(SystemTime::now() + Duration::from_secs_f64(seconds))
}

// NC-12, I15
#[tokio::test(flavor = "multi_thread")]
async fn every_event_once_in_order_whenever_a_stream_opens() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, cookie) = alice.bound_session().await;
    let (mut live, _) = opened(&alice, &session, 0).await;
    assert_eq!(catch_up(&mut live).await, [1, 2]);
    alice.submit(&session, "one").await.expect("queued");
    let mut worker = Worker::open(&alice, Vec::new()).await.expect("welcome");
    let held = worker.assignment().await.held.expect("held");
    for number in 1..=50 {
        worker.progress(&held, number, &format!("line {number}")).await;
    }
    worker.finish(&held, JobState::Succeeded).await;
    let mut kinds = Vec::new();
    for sequence in 3..=55 {
        match message(&mut live).await {
            Ok(Some(Message::Event(event))) => {
                assert_eq!(event.sequence, sequence);
                kinds.push(event.kind.expect("one"));
            }
            other => panic!("not event {sequence}: {other:?}"),
        }
    }
    assert!(matches!(kinds[0], Kind::JobQueued(_)) && matches!(kinds[1], Kind::JobStarted(_)));
    let Kind::JobProgress(line) = &kinds[51] else { panic!("the last line: {:?}", kinds[51]) };
    assert_eq!(&line.data[..], b"line 50");
    assert!(matches!(&kinds[52], Kind::JobEnded(ended) if ended.state() == JobState::Succeeded));

    let client = served.nobody().await.with("cookie", &cookie).with("x-interlock-project", "demo");
    let (mut late, _) = opened(&client, &session, 40).await;
    assert_eq!(catch_up(&mut late).await, (41..=55).collect::<Vec<_>>());
}

// I8, SW-36
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_the_streams_on_it_and_no_others() {
    let served = Served::start().await;
    let (known, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, cookie) = alice.bound_session().await;
    let (mut stream, _) = opened(&alice, &session, 0).await;
    catch_up(&mut stream).await;
    let client = served.nobody().await.with("cookie", &cookie).with("x-interlock-project", "demo");
    let (mut other, _) = opened(&client, &session, 0).await;
    catch_up(&mut other).await;
    assert_eq!(served.trust.revoke(&known).await, 1, "closed before it was acknowledged");
    let ended = end(&mut stream).await;
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unauthenticated, "REVOKED"));
    let refused = alice.stream(&session, 0).await.expect_err("revoked");
    assert_eq!(reason(&refused), "PROVIDER_AUTH_FAILED");
    client.submit(&session, "one").await.expect("the cookie holds");
    assert!(matches!(message(&mut other).await, Ok(Some(Message::Event(event))) if event.sequence == 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_credential_unless_it_is_renewed() {
    let served = Served::start().await;
    served.trust.enter("alice", "demo");
    let short = served.trust.owner_until("alice", in_a_moment(2.0));
    let alice = served.calls(&short).await;
    let session = alice.create("first").await.into_inner().session.expect("made").session_id;
    let (mut left, told) = opened(&alice, &session, 0).await;
    let ends = short.principal.expires_at.expect("it ends").seconds;
    assert_eq!(told.expires_at.expect("told").seconds, ends);
    let (mut kept, told) = opened(&alice, &session, 0).await;
    catch_up(&mut kept).await;
    let renew = RenewStreamRequest { stream_id: told.stream_id };

    let (_, bob) = served.owner("bob").await;
    let refused = bob.sessions().renew_stream(renew.clone()).await.expect_err("another principal");
    assert_eq!(reason(&refused), "OWNER_MISMATCH");
    let unknown = RenewStreamRequest { stream_id: "str_1".to_owned() };
    let refused = bob.sessions().renew_stream(unknown).await.expect_err("no such stream");
    assert_eq!(reason(&refused), "OWNER_MISMATCH");

    let (_, fresh) = served.owner("alice").await;
    let renewed = fresh.sessions().renew_stream(renew).await.expect("renewed").into_inner();
    assert_eq!(renewed.expires_at, None);
    let ended = end(&mut left).await;
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unauthenticated, "TOKEN_EXPIRED"));
    fresh.set_agent().await;
    fresh.attach(&session).await.expect("attached");
    assert!(matches!(message(&mut kept).await, Ok(Some(Message::Event(event))) if event.sequence == 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_delivered_while_the_lease_is_lapsed_and_all_of_it_after() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, cookie) = alice.bound_session().await;
    let (mut stream, _) = opened(&alice, &session, 0).await;
    catch_up(&mut stream).await;
    served.trust.set_silent(true);
    let lapsed = async {
        while alice.clone().stream(&session, 0).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, lapsed).await.expect("in time");
    let client = served.nobody().await.with("cookie", &cookie).with("x-interlock-project", "demo");
    let (mut by_cookie, _) = opened(&client, &session, 2).await;
    client.submit(&session, "one").await.expect("by cookie");
    catch_up(&mut by_cookie).await;
    // A cookie's stream has it by now; the bearer's has not.
    let early = tokio::time::timeout(Duration::from_millis(300), stream.message()).await;
    assert!(early.is_err(), "{early:?}");
    served.trust.set_silent(false);
    assert!(matches!(message(&mut stream).await, Ok(Some(Message::Event(event))) if event.sequence == 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_is_told_after_its_last_event() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let (mut stream, _) = opened(&alice, &session, 0).await;
    catch_up(&mut stream).await;
    alice.submit(&session, "one").await.expect("queued");
    let close = CloseSessionRequest { session_id: session.clone(), force: true };
    assert!(alice.sessions().close_session(close).await.expect("closed").into_inner().gone);
    let mut kinds = Vec::new();
    let ended = loop {
        match message(&mut stream).await {
            Ok(Some(Message::Event(event))) => {
                assert_eq!(event.sequence, kinds.len() as u64 + 3);
                kinds.push(event.kind.expect("one"));
            }
            Ok(other) => panic!("not an event: {other:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::FailedPrecondition, "SESSION_ENDED"));
    assert!(kinds.iter().any(|kind| matches!(kind, Kind::SessionClosing(_))), "{kinds:?}");
    assert!(kinds.iter().any(|kind| matches!(kind, Kind::JobEnded(_))), "{kinds:?}");
    let refused = alice.stream(&session, 0).await.expect_err("gone");
    assert_eq!(reason(&refused), "OWNER_MISMATCH");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_tells_streams_and_ends() {
    let mut served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    let session = alice.create("first").await.into_inner().session.expect("made").session_id;
    let (mut stream, _) = opened(&alice, &session, 0).await;
    catch_up(&mut stream).await;
    let (ended, ()) = tokio::join!(end(&mut stream), served.stop());
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unavailable, "DRAINING"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_owners_streams_are_bounded_and_cost_others_nothing() {
    let served = Served::start_with(&[("parked_per_owner", "2")]).await;
    let (_, alice) = served.owner("alice").await;
    let (_, bob) = served.owner("bob").await;
    let session = alice.create("first").await.into_inner().session.expect("made").session_id;
    let held = [opened(&alice, &session, 0).await, opened(&alice, &session, 0).await];
    let refused = alice.stream(&session, 0).await.expect_err("a third");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "LIMIT_REACHED"));
    let his = bob.create("first").await.into_inner().session.expect("made").session_id;
    opened(&bob, &his, 0).await;
    drop(held);
    let again = async {
        while alice.stream(&session, 0).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, again).await.expect("the places are given back");
}

// NC-26, I15
#[tokio::test(flavor = "multi_thread")]
async fn what_retention_has_taken_is_a_gap_before_anything_else() {
    let served = Served::start_with(&[("retention.events", "256")]).await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    alice.submit(&session, "one").await.expect("queued");
    let mut worker = Worker::open(&alice, Vec::new()).await.expect("welcome");
    let held = worker.assignment().await.held.expect("held");
    for number in 1..=300 {
        worker.progress(&held, number, "line").await;
        worker.next().await.expect("stored");
    }
    let trimmed = async {
        loop {
            let (mut stream, _) = opened(&alice, &session, 0).await;
            match message(&mut stream).await {
                Ok(Some(Message::Gap(gap))) if gap.to >= 48 => return (stream, gap),
                // A sweep that came before the last lines took fewer.
                other => assert!(matches!(other, Ok(Some(Message::Event(_) | Message::Gap(_)))), "{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (mut stream, gap) =
        tokio::time::timeout(crate::support::PATIENCE, trimmed).await.expect("swept in time");
    assert_eq!(gap.from, 1);
    let rest = catch_up(&mut stream).await;
    assert_eq!(rest, (gap.to + 1..=304).collect::<Vec<_>>());
    assert!(rest.len() <= 256, "{gap:?}");
}

// I8, DESIGN 14: a stream stands on the membership in the project whose events it delivers.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_follows_its_session_into_another_project() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    served.trust.enter("alice", "other");
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    // What names a project ends where its session leaves that project: these name none.
    let anywhere = alice.clone().without("x-interlock-project");
    let (mut live, _) = opened(&anywhere, &session, 0).await;
    assert_eq!(catch_up(&mut live).await, [1, 2]);
    let (mut named, _) = opened(&alice, &session, 2).await;
    let moved = AttachSessionRequest {
        session_id: session.clone(),
        agent_id: crate::support::AGENT.to_owned(),
        project_id: "other".to_owned(),
        ..AttachSessionRequest::default()
    };
    let alice = alice.with("x-interlock-project", "other");
    alice.sessions().attach_session(moved).await.expect("moved");
    alice.submit(&session, "one").await.expect("queued");
    for sequence in 3..=4 {
        let told = message(&mut live).await;
        assert!(matches!(&told, Ok(Some(Message::Event(event))) if event.sequence == sequence), "{told:?}");
    }
    assert_eq!(reason(&end(&mut named).await), "PROJECT_MISMATCH");
    let (mut late, _) = opened(&anywhere, &session, 0).await;
    assert_eq!(catch_up(&mut late).await, [1, 2, 3, 4], "across the move, each once");
    assert_eq!(served.trust.leave("alice", "demo").await, 0, "they have moved on");
    assert_eq!(served.trust.leave("alice", "other").await, 2, "closed before it was acknowledged");
    for stream in [&mut live, &mut late] {
        assert_eq!(reason(&end(stream).await), "REVOKED");
    }
    let refused = alice.stream(&session, 0).await.expect_err("no member");
    assert_eq!(reason(&refused), "PROJECT_MISMATCH");
}

// I17
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_does_not_outlive_its_credential() {
    let served = Served::start_with(&[("parked_per_owner", "1")]).await;
    let (known, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    alice.submit(&session, "one").await.expect("queued");
    let admin = served.calls(&served.trust.admin()).await;
    let mut worker = Worker::open(&admin, Vec::new()).await.expect("welcome");
    let held = worker.assignment().await.held.expect("held");
    let line = "x".repeat(16 * 1024);
    for number in 1..=200 {
        worker.progress(&held, number, &line).await;
        worker.next().await.expect("stored");
    }
    let unread = alice.stream(&session, 0).await.expect("opened");
    let (_, fresh) = served.owner("alice").await;
    let refused = fresh.stream(&session, 0).await.expect_err("a second");
    assert_eq!(reason(&refused), "LIMIT_REACHED");
    assert_eq!(served.trust.revoke(&known).await, 1);
    let again = async {
        while fresh.stream(&session, 0).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, again).await.expect("its place is given back");
    drop(unread);
}
