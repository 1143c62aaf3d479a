//! Workers: leases, reconnects, goodbyes, cancels, drains.

use interlock_proto::gateway::v1::{
    CancelJobRequest, GetJobRequest, Job, JobState, RenewStreamRequest, stream_events_response,
    work_response::Message as Told,
};
use tonic::Code;

use crate::support::{Calls, Served, next, reason, worker::Worker};

async fn job(calls: &Calls, job_id: &str) -> Job {
    let read = calls.jobs().get_job(GetJobRequest { job_id: job_id.to_owned() }).await.expect("read");
    read.into_inner().job.expect("the job")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_woken_answered_and_kept_within_its_capacity() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let mut worker = Worker::open(&alice, Vec::new()).await.expect("welcome");
    let first = alice.submit(&session, "one").await.expect("queued").job_id;
    let assigned = worker.assignment().await;
    let held = assigned.held.expect("held");
    assert_eq!(
        (held.job_id.as_str(), assigned.attempt, &assigned.payload[..]),
        (&*first, 1, &b"payload of one"[..])
    );
    let second = alice.submit(&session, "two").await.expect("queued").job_id;
    worker.progress(&held, 1, "half").await;
    assert!(matches!(worker.next().await, Ok(Some(Told::ProgressStored(stored))) if stored.number == 1));
    worker.progress(&held, 1, "half").await;
    assert!(matches!(worker.next().await, Ok(Some(Told::ProgressStored(stored))) if stored.number == 1));
    worker.heartbeat(&held).await;
    assert!(
        matches!(worker.next().await, Ok(Some(Told::Renewed(renewed))) if renewed.held == [held.clone()])
    );
    worker.finish(&held, JobState::Succeeded).await;
    assert!(matches!(worker.next().await, Ok(Some(Told::Finished(_)))));
    assert_eq!(worker.assignment().await.held.expect("held").job_id, second, "room again");
    assert_eq!(job(&alice, &first).await.state(), JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_comes_back_keeps_its_job_and_a_goodbye_gives_it_back() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let submitted = alice.submit(&session, "one").await.expect("queued").job_id;
    let mut worker = Worker::open(&alice, Vec::new()).await.expect("welcome");
    let held = worker.assignment().await.held.expect("held");
    drop(worker);
    let mut back = Worker::open(&alice, vec![held.clone()]).await.expect("welcome");
    assert_eq!(back.welcome.kept, std::slice::from_ref(&held));
    back.progress(&held, 1, "still here").await;
    assert!(matches!(back.next().await, Ok(Some(Told::ProgressStored(_)))));
    back.goodbye().await;
    assert!(matches!(back.next().await, Ok(None)), "ended by the gateway");
    let given_back = job(&alice, &submitted).await;
    assert_eq!(given_back.state(), JobState::Queued);
    let mut other = Worker::open(&alice, vec![held.clone()]).await.expect("welcome");
    assert!(other.welcome.kept.is_empty(), "it was given back");
    assert_eq!(other.assignment().await.attempt, 2);
    other.finish(&held, JobState::Succeeded).await;
    let lost = other.next().await;
    assert!(matches!(&lost, Ok(Some(Told::LeaseLost(lost))) if lost.held == Some(held)), "{lost:?}");
}

// SW-35, I4, I5
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_worker_loses_its_job_when_its_lease_ends() {
    let served = Served::start_with(&[("lease_ttl", "1s")]).await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    alice.submit(&session, "one").await.expect("queued");
    let mut silent = Worker::open(&alice, Vec::new()).await.expect("welcome");
    let held = silent.assignment().await.held.expect("held");
    let leased = std::time::Instant::now();
    let mut other = Worker::open(&alice, Vec::new()).await.expect("welcome");
    let taken = silent.next().await;
    assert!(
        matches!(&taken, Ok(Some(Told::LeaseLost(lost))) if lost.held.as_ref() == Some(&held)),
        "{taken:?}"
    );
    // Whichever of the two looked first has it now; the silent one is given no more.
    drop(silent);
    let mut again = None;
    while again.is_none() {
        assert!(leased.elapsed().as_secs() < 5, "within lease time and a second");
        match tokio::time::timeout(std::time::Duration::from_millis(2_500), other.next()).await {
            Ok(Ok(Some(Told::Assignment(assignment)))) => again = Some(assignment),
            other => assert!(other.is_err(), "{other:?}"),
        }
    }
    let again = again.expect("assigned");
    let fresh = again.held.expect("held");
    assert!(again.attempt >= 2 && fresh.fencing_token > held.fencing_token);
    other.finish(&held, JobState::Succeeded).await;
    assert!(matches!(other.next().await, Ok(Some(Told::LeaseLost(_)))), "the fence holds");
    other.finish(&fresh, JobState::Succeeded).await;
    assert!(matches!(other.next().await, Ok(Some(Told::Finished(_)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_the_worker() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let submitted = alice.submit(&session, "one").await.expect("queued").job_id;
    let mut worker = Worker::open(&alice, Vec::new()).await.expect("welcome");
    let held = worker.assignment().await.held.expect("held");
    let cancel = CancelJobRequest { job_id: submitted.clone() };
    let asked = alice.jobs().cancel_job(cancel).await.expect("noted").into_inner().job.expect("the job");
    assert!(asked.cancel_requested);
    assert!(
        matches!(worker.next().await, Ok(Some(Told::CancelRequested(asked))) if asked.held == Some(held.clone()))
    );
    worker.finish(&held, JobState::Cancelled).await;
    assert!(matches!(worker.next().await, Ok(Some(Told::Finished(_)))));
    assert_eq!(job(&alice, &submitted).await.state(), JobState::Cancelled);
}

// DESIGN 14.11
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_auth_costs_no_attempt_and_hands_out_no_job() {
    let served = Served::start_with(&[("lease_ttl", "60s")]).await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, cookie) = alice.bound_session().await;
    let client = served.nobody().await.with("cookie", &cookie).with("x-interlock-project", "demo");
    alice.submit(&session, "one").await.expect("queued");
    let mut worker = Worker::open(&alice, Vec::new()).await.expect("welcome");
    let held = worker.assignment().await.held.expect("held");
    served.trust.set_silent(true);
    let lapsed = async {
        while alice.stream(&session, 0).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, lapsed).await.expect("in time");
    let second = client.submit(&session, "two").await.expect("by cookie").job_id;
    worker.heartbeat(&held).await;
    assert!(
        matches!(worker.next().await, Ok(Some(Told::Renewed(renewed))) if renewed.held == [held.clone()])
    );
    worker.progress(&held, 1, "goes on").await;
    assert!(matches!(worker.next().await, Ok(Some(Told::ProgressStored(_)))));
    worker.finish(&held, JobState::Succeeded).await;
    assert!(matches!(worker.next().await, Ok(Some(Told::Finished(_)))));
    assert_eq!(job(&client, &second).await.state(), JobState::Queued, "not handed out");
    served.trust.set_silent(false);
    assert_eq!(worker.assignment().await.held.expect("held").job_id, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_worker_is_told_and_a_stranger_serves_no_agent_of_others() {
    let served = Served::start().await;
    let (known, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let mut worker = Worker::open(&alice, Vec::new()).await.expect("welcome");
    let (_, bob) = served.owner("bob").await;
    let refused = Worker::open(&bob, Vec::new()).await.err().expect("not his agent");
    assert!(["FORBIDDEN", "NOT_FOUND"].contains(&reason(&refused).as_str()), "{refused:?}");
    served.trust.revoke(&known).await;
    let ended = worker.next().await.expect_err("revoked");
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unauthenticated, "REVOKED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_asks_workers_and_takes_their_goodbye() {
    let mut served = Served::start().await;
    let (known, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let submitted = alice.submit(&session, "one").await.expect("queued").job_id;
    let mut worker = Worker::open(&alice, Vec::new()).await.expect("welcome");
    worker.assignment().await;
    let leaving = async {
        assert!(matches!(worker.next().await, Ok(Some(Told::Draining(_)))));
        worker.goodbye().await;
        while let Ok(Some(_)) = worker.next().await {}
    };
    let ((), ()) = tokio::join!(leaving, served.restart());
    let alice = served.calls(&known).await;
    assert_eq!(job(&alice, &submitted).await.state(), JobState::Queued, "given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_token_works_the_jobs_of_its_project_and_needs_the_scope() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let submitted = alice.submit(&session, "one").await.expect("queued").job_id;

    let reader = served.calls(&served.trust.project_token("alice", "demo", &["jobs:read"])).await;
    let refused = Worker::open(&reader, Vec::new()).await.err().expect("no scope");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "SCOPE_REQUIRED"));

    let elsewhere = served.trust.project_token("alice", "other", &["jobs:work"]);
    let elsewhere = served.calls(&elsewhere).await.without("x-interlock-project");
    let mut idle = Worker::open(&elsewhere, Vec::new()).await.expect("welcome");

    let bot = served.trust.project_token("alice", "demo", &["jobs:work"]);
    let calls = served.calls(&bot).await;
    let mut worker = Worker::open(&calls, Vec::new()).await.expect("welcome");
    let held = worker.assignment().await.held.expect("held");
    assert_eq!(held.job_id, submitted, "not handed to the other project's worker");
    worker.finish(&held, JobState::Succeeded).await;
    assert!(matches!(worker.next().await, Ok(Some(Told::Finished(_)))));
    assert_eq!(served.trust.revoke(&bot).await, 1);
    assert_eq!(reason(&worker.next().await.expect_err("revoked")), "REVOKED");
    idle.goodbye().await;
    assert!(matches!(idle.next().await, Ok(None)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_stream_is_renewed_like_any_other() {
    let served = Served::start().await;
    let (_, fresh) = served.owner("alice").await;
    fresh.set_agent().await;
    let (session, _) = fresh.bound_session().await;
    let ends = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
    let short = served.trust.owner_until("alice", prost_types::Timestamp::from(ends));
    let calls = served.calls(&short).await;
    let mut left = Worker::open(&calls, Vec::new()).await.expect("welcome");
    let mut kept = Worker::open(&calls, Vec::new()).await.expect("welcome");
    assert!(kept.welcome.expires_at.is_some());
    let renew =
        interlock_proto::gateway::v1::RenewStreamRequest { stream_id: kept.welcome.stream_id.clone() };
    let renewed = fresh.sessions().renew_stream(renew).await.expect("renewed").into_inner();
    assert_eq!(renewed.expires_at, None);
    let ended = left.next().await.expect_err("expired");
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unauthenticated, "TOKEN_EXPIRED"));
    let submitted = fresh.submit(&session, "one").await.expect("queued").job_id;
    assert_eq!(kept.assignment().await.held.expect("held").job_id, submitted);
}

// Streams of every kind are renewed by one method; each takes the scope that opening it takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_project_token_renews_only_what_its_scopes_could_have_opened() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let ends = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
    let ends = prost_types::Timestamp::from(ends);
    let short = served.trust.project_token_until("alice", "demo", &["jobs:work"], ends);
    let mut worker = Worker::open(&served.calls(&short).await, Vec::new()).await.expect("welcome");
    let short = served.trust.project_token_until("alice", "demo", &["sessions:read"], ends);
    let mut events = served.calls(&short).await.stream(&session, 0).await.expect("opened");
    let opened = next(&mut events).await.expect("open").expect("opened").message;
    let Some(stream_events_response::Message::Opened(opened)) = opened else { panic!("{opened:?}") };

    let works = served.calls(&served.trust.project_token("alice", "demo", &["jobs:work"])).await;
    let reads = served.calls(&served.trust.project_token("alice", "demo", &["sessions:read"])).await;
    let renew = |id: &str| RenewStreamRequest { stream_id: id.to_owned() };
    let (work_id, events_id) = (worker.welcome.stream_id.clone(), opened.stream_id);
    for (calls, id) in [(&reads, &work_id), (&works, &events_id)] {
        let refused = calls.sessions().renew_stream(renew(id)).await.expect_err("the other scope");
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "SCOPE_REQUIRED"));
    }
    let elsewhere = served.calls(&served.trust.project_token("alice", "other", &["jobs:read"])).await;
    let elsewhere = elsewhere.without("x-interlock-project");
    let refused = elsewhere.sessions().renew_stream(renew(&work_id)).await.expect_err("gate 1");
    assert_eq!(reason(&refused), "SCOPE_REQUIRED");
    let elsewhere = served.calls(&served.trust.project_token("alice", "other", &["sessions:read"])).await;
    let elsewhere = elsewhere.without("x-interlock-project");
    let refused = elsewhere.sessions().renew_stream(renew(&work_id)).await.expect_err("another project");
    assert_eq!(reason(&refused), "OWNER_MISMATCH", "and nothing of what the stream needs");

    let renewed = works.sessions().renew_stream(renew(&work_id)).await.expect("renewed").into_inner();
    assert_eq!(renewed.expires_at, None);
    let ended = loop {
        match next(&mut events).await {
            Ok(message) => assert!(message.is_some(), "it says why it ends"),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&ended), "TOKEN_EXPIRED");
    let submitted = alice.submit(&session, "one").await.expect("queued").job_id;
    let held = worker.assignment().await.held.expect("held");
    assert_eq!(held.job_id, submitted);
    worker.finish(&held, JobState::Succeeded).await;
    assert!(matches!(worker.next().await, Ok(Some(Told::Finished(_)))));
}
