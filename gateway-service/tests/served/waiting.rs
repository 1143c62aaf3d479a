//! Attaches that wait, over real sockets: SW-34.

use interlock_proto::gateway::v1::{
    AttachSessionRequest, AttachSessionResponse, CancelJobRequest, OnBusy, WaitJobRequest,
};
use tonic::{Code, Response, Status};

use crate::support::{AGENT, Calls, PATIENCE, PROJECT, Served, reason};

/// Where the session is to go. The tests' second project.
const ELSEWHERE: &str = "elsewhere";

async fn attach_waiting(
    calls: &Calls,
    session: &str,
    seconds: i64,
    how: OnBusy,
) -> Result<Response<AttachSessionResponse>, Status> {
    let calls = calls.clone().with("x-interlock-project", ELSEWHERE);
    let attach = AttachSessionRequest {
        session_id: session.to_owned(),
        agent_id: AGENT.to_owned(),
        project_id: ELSEWHERE.to_owned(),
        on_busy: how.into(),
        wait: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..AttachSessionRequest::default()
    };
    calls.sessions().attach_session(attach).await
}

/// Until the owner's submits are refused: then it waits.
async fn waits(calls: &Calls, session: &str) {
    let pending = async {
        for number in 0.. {
            match calls.submit(session, &format!("probe {number}")).await {
                Err(refused) if reason(&refused) == "ATTACH_PENDING" => return,
                Ok(job) => {
                    let cancel = CancelJobRequest { job_id: job.job_id };
                    calls.jobs().cancel_job(cancel).await.expect("cancelled");
                }
                Err(other) => panic!("not pending: {other:?}"),
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, pending).await.expect("it waits in time");
}

// SW-34
#[tokio::test(flavor = "multi_thread")]
async fn a_parked_attach_is_answered_when_the_last_job_ends() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    served.trust.enter("alice", ELSEWHERE);
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let job_id = alice.submit(&session, "one").await.expect("queued").job_id;
    let (waiter, to) = (alice.clone(), session.clone());
    let waiting = tokio::spawn(async move { attach_waiting(&waiter, &to, 300, OnBusy::Wait).await });
    waits(&alice, &session).await;
    alice.jobs().cancel_job(CancelJobRequest { job_id }).await.expect("cancelled");
    let attached = tokio::time::timeout(PATIENCE, waiting).await.expect("in time");
    let attached = attached.expect("no panic").expect("attached").into_inner();
    assert!(attached.changed);
    assert_eq!(attached.session.expect("the session").binding.expect("bound").project_id, ELSEWHERE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_busy_when_the_time_is_up_is_refused_and_cancel_cancels() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    served.trust.enter("alice", ELSEWHERE);
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let job_id = alice.submit(&session, "one").await.expect("queued").job_id;
    let refused = attach_waiting(&alice, &session, 0, OnBusy::Wait).await.expect_err("busy");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "SESSION_BUSY"));
    let attached = attach_waiting(&alice, &session, 60, OnBusy::Cancel).await.expect("free by then");
    assert!(attached.into_inner().changed);
    let wait = WaitJobRequest { job_id, wait: None };
    let elsewhere = alice.clone();
    let ended = elsewhere.jobs().wait_job(wait).await.expect("read").into_inner().job.expect("the job");
    assert_eq!(ended.cause, "cancelled for an attach");
}

// DESIGN 14.8
#[tokio::test(flavor = "multi_thread")]
async fn a_parked_attach_ends_with_its_credential_or_its_caller_and_never_attaches_later() {
    let served = Served::start().await;
    let (known, alice) = served.owner("alice").await;
    served.trust.enter("alice", ELSEWHERE);
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let job_id = alice.submit(&session, "one").await.expect("queued").job_id;

    let (waiter, to) = (alice.clone(), session.clone());
    let waiting = tokio::spawn(async move { attach_waiting(&waiter, &to, 300, OnBusy::Wait).await });
    waits(&alice, &session).await;
    waiting.abort();
    // The call was cancelled: its place is given up, and the owner may submit again.
    let again = async {
        loop {
            match alice.submit(&session, "again").await {
                Ok(job) => return job,
                Err(refused) => assert_eq!(reason(&refused), "ATTACH_PENDING"),
            }
            tokio::task::yield_now().await;
        }
    };
    let again = tokio::time::timeout(PATIENCE, again).await.expect("given up in time").job_id;

    let (waiter, to) = (alice.clone(), session.clone());
    let waiting = tokio::spawn(async move { attach_waiting(&waiter, &to, 300, OnBusy::Wait).await });
    waits(&alice, &session).await;
    served.trust.revoke(&known).await;
    let refused = waiting.await.expect("no panic").expect_err("revoked");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "REVOKED"));

    // Free by now, and it stays where it is.
    let (_, alice) = served.owner("alice").await;
    for job_id in [job_id, again] {
        alice.jobs().cancel_job(CancelJobRequest { job_id }).await.expect("cancelled");
    }
    let read = interlock_proto::gateway::v1::GetSessionRequest { session_id: session };
    let read = alice.sessions().get_session(read).await.expect("read").into_inner();
    assert_eq!(read.session.expect("it").binding.expect("bound").project_id, PROJECT);
}
