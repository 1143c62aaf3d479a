//! The SDK against the gateway: what each counts on in the other.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use interlock_client::{Credentials, EventKind, Gateway, JobState, Outcome, StreamFrom, StreamItem, Worker};
use tokio::sync::oneshot;

use crate::support::{AGENT, PATIENCE, PROJECT, Served};

const JOBS: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_the_sdk_runs_jobs_and_a_stream_of_the_sdk_sees_them() {
    let served = Served::start_with(&[("lease_ttl", "1s")]).await;
    let (known, calls) = served.owner("alice").await;
    calls.set_agent().await;
    let credentials = Credentials::bearer(known.credential.clone());
    let gateway = Gateway::new(served.connection(), credentials).with_project(PROJECT);
    let created = gateway.sessions().create("first").await.expect("created");
    let session = created.session.session_id;
    gateway.sessions().attach(&session, AGENT, PROJECT).await.expect("attached");

    let ran = Arc::new(AtomicU32::new(0));
    let (stop, stopped) = oneshot::channel::<()>();
    let counted = Arc::clone(&ran);
    let worker = Worker::new(gateway.clone(), vec![AGENT.to_owned()], 4, "sdk").run(
        move |task| {
            let counted = Arc::clone(&counted);
            async move {
                task.progress(task.payload().clone()).await.expect("stored");
                // Longer than a lease lives: only heartbeats keep it.
                if counted.fetch_add(1, Ordering::Relaxed) == 0 {
                    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
                }
                Outcome::Succeeded { result: task.payload().clone() }
            }
        },
        async move {
            let _ = stopped.await;
        },
    );
    let worker = tokio::spawn(worker);
    let mut jobs = Vec::new();
    for n in 0..JOBS {
        jobs.push(gateway.jobs().submit(&session, format!("input {n}")).await.expect("queued").job_id);
    }
    for (n, job) in jobs.iter().enumerate() {
        let ended =
            tokio::time::timeout(PATIENCE, gateway.jobs().wait(job)).await.expect("in time").expect("ended");
        assert_eq!((ended.state, &ended.result[..]), (JobState::Succeeded, format!("input {n}").as_bytes()));
        assert_eq!(ended.attempt, 1, "a heartbeat in time costs no attempt");
    }
    stop.send(()).expect("running");
    worker.await.expect("no panic").expect("a clean end");

    let cookie = created.cookie.expect("once");
    let client =
        Gateway::new(served.connection(), Credentials::none()).with_project(PROJECT).with_cookie(cookie);
    let mut events = client.sessions().stream(&session, StreamFrom::Cursor);
    let (mut last, mut ended) = (0, 0);
    while ended < JOBS {
        let item = tokio::time::timeout(PATIENCE, events.next()).await.expect("in time").expect("more");
        if let StreamItem::Event(event) = item.expect("an item") {
            assert_eq!(event.sequence, last + 1);
            last = event.sequence;
            ended += u32::from(matches!(event.kind, EventKind::JobEnded { .. }));
        }
    }
    assert_eq!(events.ack(last).await.expect("stored"), last);
    let mut resumed = client.sessions().stream(&session, StreamFrom::Cursor);
    let item = tokio::time::timeout(PATIENCE, resumed.next()).await.expect("in time").expect("more");
    assert!(matches!(item, Ok(StreamItem::CaughtUp { sequence }) if sequence == last), "{item:?}");
}
