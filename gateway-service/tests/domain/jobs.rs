//! Jobs: submitted once, ended once.

use std::time::Duration;

use interlock_gateway::{
    agent::SetAgent,
    ids::ClientId,
    job::{Cancel, EndedBy, GetJob, ListJobs, Outcome, Phase, Submit},
    lease::{Finish, Progress},
    limits::Limits,
    session::{CloseSession, CreateSession},
    store::Signal,
};
use interlock_kit::error::Reason;

use crate::{
    on_every_engine,
    world::{CallerExt as _, Engine, World, agent, claim, finish, hash, owner, request, session_id},
};

on_every_engine!(
    a_job_lives_and_ends_once,
    a_submit_is_done_once,
    a_submit_needs_a_bound_open_session,
    cancelling,
    the_oldest_goes_first,
    a_queued_job_gets_too_old,
    a_job_runs_too_long,
    a_job_given_back_without_run_time_left_fails,
    lists_have_pages,
    payloads_lines_and_results_are_bounded,
);

async fn a_job_lives_and_ends_once(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let job = world.submit(&ann, &session).await;
    assert_eq!(job.phase, Phase::Queued);
    assert_eq!(world.see(&ann, &session).await.jobs_in_flight, 1);
    let assigned = world.claim(&ann, "a").await.unwrap();
    assert_eq!(
        (assigned.held.job.clone(), assigned.attempt, assigned.payload),
        (job.id.clone(), 1, b"in".to_vec())
    );
    assert!(world.claim(&ann, "a").await.is_none(), "nothing is handed out twice");
    world.ok(&ann, finish(&assigned.held, Outcome::Succeeded)).await;
    let whole = world.ask(&ann, GetJob { job: job.id.clone() }).await.unwrap();
    assert_eq!((whole.payload, whole.result), (b"in".to_vec(), b"out".to_vec()));
    let Phase::Ended(end) = whole.job.phase else { panic!("it has ended") };
    assert_eq!((end.outcome, end.by), (Outcome::Succeeded, EndedBy::Worker));
    // The same finish again answers the same; another one comes too late (I5).
    world.ok(&ann, finish(&assigned.held, Outcome::Succeeded)).await;
    world.denied(&ann, finish(&assigned.held, Outcome::Failed), Reason::LeaseLost).await;
    let another = Finish { result: b"another".to_vec(), ..finish(&assigned.held, Outcome::Succeeded) };
    world.denied(&ann, another, Reason::LeaseLost).await;
    assert_eq!(world.ask(&ann, GetJob { job: job.id.clone() }).await.unwrap().result, b"out");
    if let Some(audit) = world.audit() {
        let row = audit.last().expect("the refusal's row");
        assert!(row.subject == job.id.as_str() && row.detail.contains(session.as_str()), "{row:?}");
    }
    assert_eq!(world.see(&ann, &session).await.jobs_in_flight, 0);
    let ended = Signal::JobChanged { job: job.id, ended: true };
    assert_eq!(world.heard.signals.lock().iter().filter(|signal| **signal == ended).count(), 1);
}

// I7
async fn a_submit_is_done_once(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let submission = world.submission(&session);
    let first = world.ok(&ann, submission.clone()).await;
    let again = Submit { id: world.submission(&session).id, ..submission.clone() };
    assert_eq!(world.ok(&ann, again.clone()).await, first);
    let other = Submit { payload: b"other".to_vec(), ..again.clone() };
    world.denied(&ann, other, Reason::RequestIdReused).await;
    let held = world.claim(&ann, "a").await.unwrap().held;
    world.ok(&ann, finish(&held, Outcome::Succeeded)).await;
    assert_eq!(world.ok(&ann, again.clone()).await.id, first.id, "after its end, too");
    assert!(world.claim(&ann, "a").await.is_none());
    // The answer is kept for a day; then the id is free again.
    world.advance(Duration::from_secs(24 * 3600));
    assert_ne!(world.ok(&ann, again).await.id, first.id);
}

async fn a_submit_needs_a_bound_open_session(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.denied(&ann, world.submission(&session), Reason::SessionUnbound).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let big = Submit { payload: vec![0; 256 * 1024 + 1], ..world.submission(&session) };
    world.denied(&ann, big, Reason::InvalidField).await;
    world.submit(&ann, &session).await;
    world.claim(&ann, "a").await.unwrap();
    let closed = world.ok(&ann, CloseSession { session: session.clone(), force: true }).await;
    assert!(!closed.gone);
    world.denied(&ann, world.submission(&session), Reason::SessionClosing).await;
}

async fn cancelling(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let queued = world.submit(&ann, &session).await.id;
    for _ in 0..2 {
        let job = world.ok(&ann, Cancel { job: queued.clone() }).await;
        assert!(matches!(&job.phase, Phase::Ended(end) if end.outcome == Outcome::Cancelled));
    }
    let running = world.submit(&ann, &session).await.id;
    let held = world.claim(&ann, "a").await.unwrap().held;
    for _ in 0..2 {
        let job = world.ok(&ann, Cancel { job: running.clone() }).await;
        assert!(matches!(job.phase, Phase::Running(_)) && job.cancel_requested_at.is_some());
    }
    let told = Signal::CancelRequested { job: running.clone(), fencing: held.fencing };
    assert_eq!(world.heard.signals.lock().iter().filter(|signal| **signal == told).count(), 1);
    world.ok(&ann, finish(&held, Outcome::Cancelled)).await;
    let done = world.submit(&ann, &session).await.id;
    let held = world.claim(&ann, "a").await.unwrap().held;
    world.ok(&ann, finish(&held, Outcome::Succeeded)).await;
    world.denied(&ann, Cancel { job: done }, Reason::JobTerminal).await;
    // A worker that does not agree: the job is cancelled when its lease ends.
    let stubborn = world.submit(&ann, &session).await.id;
    world.claim(&ann, "a").await.unwrap();
    world.ok(&ann, Cancel { job: stubborn.clone() }).await;
    world.advance(Duration::from_secs(10));
    world.sweep().await;
    let job = world.job(&ann, &stubborn).await;
    assert!(matches!(&job.phase, Phase::Ended(end) if end.outcome == Outcome::Cancelled), "{job:?}");
}

async fn the_oldest_goes_first(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    world.agent(&ann, "b", false).await;
    let (one, two) = (world.session(&ann).await, world.session(&ann).await);
    world.attach(&ann, &one, ("a", "p")).await;
    world.attach(&ann, &two, ("b", "q")).await;
    let mut submitted = Vec::new();
    for turn in 0..6 {
        let (session, project) = if turn % 3 == 0 { (&two, "q") } else { (&one, "p") };
        submitted.push(world.submit(&ann.clone().naming(project), session).await.id);
    }
    let mut both = claim("a", 4);
    both.agents.push(agent("b"));
    let claimed = world.ok(&ann, both).await;
    let claimed: Vec<_> = claimed.jobs.into_iter().map(|assigned| assigned.held.job).collect();
    assert_eq!(claimed, submitted[..4]);
}

async fn a_queued_job_gets_too_old(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let job = world.submit(&ann, &session).await.id;
    world.advance(Duration::from_secs(24 * 3600 - 1));
    world.sweep().await;
    assert_eq!(world.job(&ann, &job).await.phase, Phase::Queued);
    world.advance(Duration::from_secs(1));
    assert!(world.claim(&ann, "a").await.is_none());
    world.sweep().await;
    let Phase::Ended(end) = world.job(&ann, &job).await.phase else { panic!("it has ended") };
    assert_eq!(end.outcome, Outcome::Failed);
    assert!(end.cause.contains("max_queue_age"));
}

async fn a_job_runs_too_long(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let job = world.submit(&ann, &session).await.id;
    let held = world.claim(&ann, "a").await.unwrap().held;
    for _ in 0..(6 * 3600 / 8) {
        let renew = interlock_gateway::lease::Renew { held: vec![held.clone()] };
        assert_eq!(world.ok(&ann, renew).await.kept.len(), 1);
        world.advance(Duration::from_secs(8));
    }
    world.sweep().await;
    let Phase::Ended(end) = world.job(&ann, &job).await.phase else { panic!("it has ended") };
    assert!(end.cause.contains("max_run_time"), "{}", end.cause);
    world.denied(&ann, finish(&held, Outcome::Succeeded), Reason::LeaseLost).await;
}

// I4: else it would keep its agent busy, and stand before what is queued behind it, until it is too old to queue.
async fn a_job_given_back_without_run_time_left_fails(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let job = world.submit(&ann, &session).await.id;
    let held = world.claim(&ann, "a").await.unwrap().held;
    world.ok(&ann, interlock_gateway::lease::Release { held: vec![held] }).await;
    let behind = world.submit(&ann, &session).await.id;
    world.advance(Duration::from_secs(6 * 3600));
    assert!(world.claim(&ann, "a").await.is_none(), "it has no run time left");
    world.sweep().await;
    let Phase::Ended(end) = world.job(&ann, &job).await.phase else { panic!("it has ended") };
    assert_eq!(end.outcome, Outcome::Failed);
    assert!(end.cause.contains("max_run_time"), "{}", end.cause);
    assert_eq!(world.claim(&ann, "a").await.unwrap().held.job, behind);
}

async fn lists_have_pages(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let mut submitted = Vec::new();
    for _ in 0..5 {
        submitted.push(world.submit(&ann, &session).await.id);
    }
    world.ok(&ann, Cancel { job: submitted[4].clone() }).await;
    submitted.reverse();
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let list = ListJobs { session: session.clone(), in_flight: false, page_size: 2, page_token };
        let page = world.ask(&ann, list).await.unwrap();
        listed.extend(page.jobs.into_iter().map(|job| job.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, submitted);
    let list = ListJobs { session, in_flight: true, page_size: 0, page_token };
    assert_eq!(world.ask(&ann, list).await.unwrap().jobs.len(), 4);
}

// Issue 7 line 5, I17: refused whole, and the attempt goes on.
async fn payloads_lines_and_results_are_bounded(world: World) {
    let (ann, session, held) = world.running().await;
    let (most, line) = (Limits::default().payload_bytes_max, Limits::default().progress_bytes_max);
    let submit = |bytes: usize| Submit { payload: vec![1; bytes], ..world.submission(&session) };
    world.denied(&ann, submit(most + 1), Reason::InvalidField).await;
    world.ok(&ann, submit(most)).await;
    let progress = |bytes: usize| Progress { held: held.clone(), number: 1, data: vec![1; bytes] };
    world.denied(&ann, progress(line + 1), Reason::InvalidField).await;
    world.ok(&ann, progress(line)).await;
    let finish = |bytes: usize| Finish {
        held: held.clone(),
        outcome: Outcome::Succeeded,
        result: vec![1; bytes],
        cause: String::new(),
    };
    world.denied(&ann, finish(most + 1), Reason::InvalidField).await;
    let ended = world.ok(&ann, finish(most)).await;
    assert_eq!(world.ask(&ann, GetJob { job: ended.id }).await.unwrap().result.len(), most);
}

// UA-57, I17
#[tokio::test]
async fn an_owner_has_a_quota() {
    for engine in [Engine::File, Engine::Missing, Engine::Model, Engine::Postgres] {
        let limits = Limits { jobs_in_flight_max: 2, sessions_max: 1, agents_max: 1, ..Limits::default() };
        let world = World::with(engine, limits);
        let ann = owner("ann");
        world.agent(&ann, "a", false).await;
        let session = world.session(&ann).await;
        world.attach(&ann, &session, ("a", "p")).await;
        world.submit(&ann, &session).await;
        world.submit(&ann, &session).await;
        let error = world.denied(&ann, world.submission(&session), Reason::LimitReached).await;
        assert!(error.retry_delay().is_some());
        let number = world.number();
        let second = CreateSession {
            id: session_id(number),
            client: ClientId::parse(format!("clt_{number:06}")).unwrap(),
            cookie: hash(number),
            sealed: Vec::new(),
            name: None,
            request: request("a second one"),
            owner: None,
        };
        world.denied(&ann, second.clone(), Reason::LimitReached).await;
        world.ok(&owner("bob"), second).await;
        let agent = |name: &str| SetAgent { agent: agent(name), shared: None, description: None };
        world.denied(&ann, agent("b"), Reason::LimitReached).await;
        world.ok(&ann, agent("a")).await;
        world.ok(&owner("bob"), agent("c")).await;
    }
}
