//! Streams, workers and jobs that outlive the access token that they began with. Issue 6 line 1
//!
//! An access token lives for a minute at least, so this is for `INTERLOCK_LONG`: two lives of one, and a bit. The
//! usual run has each of its parts: `a_stream_is_renewed_before_its_credential_ends` and
//! `a_worker_is_renewed_before_its_credential_ends` of the SDK, `a_stream_ends_with_its_credential_unless_it_is_renewed`
//! and `a_workers_stream_is_renewed_like_any_other` of the gateway.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use interlock_client::{
    Credentials, EventKind, JobState, MemoryStore, Outcome, SetAgent, StreamFrom, StreamItem, Worker,
};
use interlock_tests::{Pair, Service, Setup, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
};

const LIVES: u32 = 2;
const ACCESS_TTL: Duration = Duration::from_secs(60);

/// How often a method was called with this code.
async fn calls(service: &Service, method: &str, code: &str) -> u64 {
    let asked = async {
        let mut stream = tokio::net::TcpStream::connect(service.address("metrics")).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = within("metrics", asked).await.expect("an answer");
    let is_of = |line: &&str| {
        line.starts_with("calls_total{")
            && line.contains(&format!("{method}\""))
            && line.contains(&format!("code=\"{code}\""))
    };
    let counts = answer.lines().filter(is_of).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_a_worker_and_a_job_outlive_their_access_token_without_a_gap() {
    if std::env::var_os("INTERLOCK_LONG").is_none() {
        println!("with INTERLOCK_LONG");
        return;
    }
    let pair = Pair::start_with(Setup::default().auth("owner_session.access_ttl", "1m")).await;
    let alice = pair.login("alice").await;
    let project = pair.project(&alice, "lasting").await;
    let signed_in =
        |session| Credentials::owner_session(pair.sdk_auth(), Arc::new(MemoryStore::new(session)));
    let gateway = pair.sdk_gateway_as(signed_in(alice.clone())).with_project(project.as_str());
    gateway.agents().set("builder", SetAgent::default()).await.expect("an agent");
    let session = gateway.sessions().create("").await.expect("a session").session.session_id;
    gateway.sessions().attach(&session, "builder", &project).await.expect("attached");

    // A worker with a sign-in of its own, as another program has.
    let workers = pair.sdk_gateway_as(signed_in(pair.login("alice").await)).with_project(project.as_str());
    let (stop, stopped) = oneshot::channel::<()>();
    let ticks = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&ticks);
    let worker = Worker::new(workers, vec!["builder".to_owned()], 1, "lasting").run(
        move |task| {
            let counted = Arc::clone(&counted);
            async move {
                let began = Instant::now();
                while began.elapsed() < ACCESS_TTL * LIVES + ACCESS_TTL / 2 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    task.progress("tick").await.expect("its lease is kept");
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                Outcome::Succeeded { result: "done".into() }
            }
        },
        async move {
            let _ = stopped.await;
        },
    );
    let worker = tokio::spawn(worker);
    let mut events = gateway.sessions().stream(&session, StreamFrom::Start);
    let job = gateway.jobs().submit(&session, "last").await.expect("queued").job_id;
    let (mut last, mut told) = (0, 0);
    loop {
        let item = within("an item", events.next()).await.expect("it goes on").expect("no error");
        let StreamItem::Event(event) = item else { continue };
        assert_eq!(event.sequence, last + 1, "no gap, and nothing twice");
        last = event.sequence;
        match event.kind {
            EventKind::JobProgress { .. } => told += 1,
            EventKind::JobEnded { .. } => break,
            _ => {}
        }
    }
    let job = gateway.jobs().get(&job).await.expect("hers");
    assert_eq!((job.state, job.attempt), (JobState::Succeeded, 1), "one attempt, on one lease");
    assert_eq!(told, ticks.load(Ordering::SeqCst), "each tick was seen");
    // Neither was opened a second time: each was renewed, once for each life at least.
    for stream in ["/StreamEvents", "/Work"] {
        assert_eq!(calls(&pair.gateway, stream, "OK").await, 1, "{stream} was torn and opened again");
    }
    assert!(calls(&pair.gateway, "/RenewStream", "OK").await >= u64::from(2 * LIVES));
    stop.send(()).expect("it works");
    within("the end", worker).await.expect("no panic").expect("a clean end");
}
