//! Leases: fenced, renewed, lost, given back.

use std::time::Duration;

use interlock_gateway::{
    event::EventKind,
    job::{Cancel, Outcome, Phase},
    lease::{Held, Progress, Release, Renew, Resume},
    store::Signal,
    worker::{Claimed, Serve},
};
use interlock_kit::error::Reason;

use crate::{
    events::log,
    on_every_engine,
    world::{CallerExt as _, World, admin, agent, attach, claim, cookie, finish, owner, root, token},
};

on_every_engine!(
    a_stale_attempt_changes_nothing,
    attempts_are_bounded,
    a_job_that_loses_leases_pauses_longer_each_time_and_holds_up_nobody,
    what_had_run_for_long_goes_on_at_once,
    a_goodbye_costs_no_attempt,
    progress_is_stored_once,
    a_hello_keeps_what_lives,
    renewal_ends_after_a_cancel_request,
    who_may_serve_an_agent,
    a_lease_is_its_holders,
);

const TTL: Duration = Duration::from_secs(10);
/// How long a job pauses that has lost one lease (`retry_backoff`).
const PAUSE: Duration = Duration::from_secs(1);

fn progress(held: &Held, number: u64) -> Progress {
    Progress { held: held.clone(), number, data: format!("line {number}").into_bytes() }
}

// I5
async fn a_stale_attempt_changes_nothing(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let job = world.submit(&ann, &session).await.id;
    let old = world.claim(&ann, "a").await.unwrap().held;
    world.ok(&ann, progress(&old, 1)).await;
    world.advance(TTL);
    // Over at its instant, swept or not.
    world.denied(&ann, progress(&old, 2), Reason::LeaseLost).await;
    assert!(world.sweep().await > 0);
    assert!(
        world.heard.signals.lock().contains(&Signal::LeaseTaken { job: job.clone(), fencing: old.fencing })
    );
    world.denied(&ann, progress(&old, 2), Reason::LeaseLost).await;
    world.advance(PAUSE);
    let new = world.claim(&ann, "a").await.unwrap();
    assert_eq!((new.held.job.clone(), new.attempt), (job.clone(), 2));
    assert!(new.held.fencing > old.fencing);
    world.denied(&ann, progress(&old, 2), Reason::LeaseLost).await;
    world.denied(&ann, finish(&old, Outcome::Succeeded), Reason::LeaseLost).await;
    let kept = world.ok(&ann, Renew { held: vec![old.clone(), new.held.clone()] }).await;
    assert_eq!((kept.kept.len(), kept.lost), (1, vec![old.clone()]));
    world.ok(&ann, progress(&new.held, 1)).await;
    world.ok(&ann, finish(&new.held, Outcome::Failed)).await;
    world.denied(&ann, finish(&old, Outcome::Failed), Reason::LeaseLost).await;
    let events = log(&world, &ann, &session).await;
    let lines: Vec<u32> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::JobProgress { attempt, .. } => Some(*attempt),
            _ => None,
        })
        .collect();
    assert_eq!(lines, [1, 2]);
    let ends = events.iter().filter(|event| matches!(event.kind, EventKind::JobEnded { .. })).count();
    assert_eq!(ends, 1);
}

// SW-35
async fn attempts_are_bounded(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    world.agent(&ann, "b", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let job = world.submit(&ann, &session).await.id;
    for attempt in 1..=3 {
        assert_eq!(world.claim(&ann, "a").await.unwrap().attempt, attempt);
        world.advance(TTL);
        world.sweep().await;
        world.advance(attempt * PAUSE);
    }
    let Phase::Ended(end) = world.job(&ann, &job).await.phase else { panic!("it has ended") };
    assert_eq!((end.outcome, end.cause.as_str()), (Outcome::Failed, "3 attempts lost their lease"));
    // I4: nothing stays busy.
    assert!(world.attach(&ann, &session, ("b", "q")).await.changed);
}

// Issue 7 line 5
async fn a_job_that_loses_leases_pauses_longer_each_time_and_holds_up_nobody(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let poison = world.submit(&ann, &session).await.id;
    let looks = async || world.ok(&ann, claim("a", 1)).await;
    for (attempt, pause) in [(1, PAUSE), (2, 2 * PAUSE)] {
        let first = looks().await.jobs.pop().unwrap();
        assert_eq!((&first.held.job, first.attempt), (&poison, attempt));
        world.advance(TTL);
        world.sweep().await;
        // It stands first in the queue, and is handed out to nobody; whoever looks is told when to look again.
        assert_eq!(looks().await, Claimed { jobs: Vec::new(), next_in: Some(pause) });
        let behind: Vec<_> =
            [world.submit(&ann, &session).await.id, world.submit(&ann, &session).await.id].into();
        world.advance(pause - Duration::from_millis(1));
        for younger in behind {
            let claimed = looks().await;
            assert_eq!(claimed.next_in, Some(Duration::from_millis(1)));
            assert_eq!(claimed.jobs.iter().map(|job| &job.held.job).collect::<Vec<_>>(), [&younger]);
            world.ok(&ann, finish(&claimed.jobs[0].held, Outcome::Succeeded)).await;
        }
        // SW-28: queued is busy, pausing or not.
        world.denied(&ann.clone().naming("q"), attach(&session, ("a", "q")), Reason::SessionBusy).await;
        world.advance(Duration::from_millis(1));
    }
    // What its worker hands back is another matter: that costs no attempt, and no pause beyond the one that is over.
    let held = looks().await.jobs.pop().unwrap().held;
    world.advance(TTL / 2);
    world.ok(&ann, Renew { held: vec![held.clone()] }).await;
    world.advance(TTL - Duration::from_secs(1));
    world.ok(&ann, Release { held: vec![held] }).await;
    assert_eq!(looks().await.jobs[0].attempt, 4);
}

async fn what_had_run_for_long_goes_on_at_once(world: World) {
    let (ann, _, held) = world.running().await;
    for _ in 0..4 {
        world.advance(TTL / 2);
        assert_eq!(world.ok(&ann, Renew { held: vec![held.clone()] }).await.kept.len(), 1);
    }
    world.advance(TTL);
    world.sweep().await;
    assert_eq!(world.claim(&ann, "a").await.unwrap().attempt, 2, "its worker was lost, not its cause");
}

async fn a_goodbye_costs_no_attempt(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let job = world.submit(&ann, &session).await.id;
    for attempt in 1..=5 {
        let held = world.claim(&ann, "a").await.unwrap();
        assert_eq!(held.attempt, attempt);
        let released = world.ok(&ann, Release { held: vec![held.held.clone()] }).await;
        assert_eq!(released.len(), 1);
        assert!(world.ok(&ann, Release { held: vec![held.held] }).await.is_empty());
    }
    assert_eq!(world.job(&ann, &job).await.phase, Phase::Queued);
}

async fn progress_is_stored_once(world: World) {
    let (ann, session, held) = world.running().await;
    assert_eq!(world.ok(&ann, progress(&held, 1)).await, 1);
    assert_eq!(world.ok(&ann, progress(&held, 2)).await, 2);
    assert_eq!(world.ok(&ann, progress(&held, 1)).await, 2);
    world.denied(&ann, progress(&held, 4), Reason::InvalidField).await;
    world.denied(&ann, progress(&held, 0), Reason::InvalidField).await;
    let big = Progress { data: vec![0; 16 * 1024 + 1], ..progress(&held, 3) };
    world.denied(&ann, big, Reason::InvalidField).await;
    let lines = log(&world, &ann, &session).await;
    let lines = lines.iter().filter(|event| matches!(event.kind, EventKind::JobProgress { .. }));
    assert_eq!(lines.count(), 2);
}

async fn a_hello_keeps_what_lives(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    for _ in 0..2 {
        world.submit(&ann, &session).await;
    }
    let first = world.claim(&ann, "a").await.unwrap().held;
    world.advance(TTL / 2);
    let second = world.claim(&ann, "a").await.unwrap().held;
    world.advance(TTL / 2);
    let hello = world.ok(&ann, Resume { held: vec![first.clone(), second.clone()] }).await;
    assert_eq!(hello.kept.len(), 1);
    assert_eq!((&hello.kept[0].held, hello.lost), (&second, vec![first]));
    assert_eq!(hello.kept[0].until, world.clock.now().after(TTL), "a hello renews");
}

// DESIGN 14.17
async fn renewal_ends_after_a_cancel_request(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let job = world.submit(&ann, &session).await.id;
    let held = world.claim(&ann, "a").await.unwrap().held;
    world.ok(&ann, Cancel { job: job.clone() }).await;
    for _ in 0..6 {
        let kept = world.ok(&ann, Renew { held: vec![held.clone()] }).await;
        assert!(kept.kept[0].cancel_requested);
        world.advance(TTL / 2);
    }
    assert_eq!(world.ok(&ann, Renew { held: vec![held] }).await.lost.len(), 1);
    world.sweep().await;
    let Phase::Ended(end) = world.job(&ann, &job).await.phase else { panic!("it has ended") };
    assert_eq!(end.outcome, Outcome::Cancelled);
}

async fn who_may_serve_an_agent(world: World) {
    let (ann, bob) = (owner("ann"), owner("bob"));
    world.agent(&ann, "a", false).await;
    world.agent(&admin(), "shared", true).await;
    let serve = |name: &str| Serve { agents: vec![agent(name)] };
    for (caller, name) in [
        (&ann, "a"),
        (&admin(), "a"),
        (&admin(), "shared"),
        (&admin(), "primary"),
        (&root("rosa", false), "primary"),
        (&token("ann", "p"), "a"),
    ] {
        world.ask(caller, serve(name)).await.unwrap();
    }
    for (caller, name) in [
        (&bob, "a"),
        (&ann, "shared"),
        (&ann, "primary"),
        (&bob, "unknown"),
        (&root("rosa", false), "a"),
        (&token("bob", "p"), "a"),
    ] {
        world.denied_read(caller, serve(name), Reason::Forbidden).await;
        world.denied(caller, claim(name, 1), Reason::Forbidden).await;
    }
    world.denied_read(&token("ann", "p").naming("q"), serve("a"), Reason::ProjectMismatch).await;
    let session = world.session(&ann).await;
    let number = world.number() - 1;
    world.refused(&cookie(&session, number), claim("a", 1), Reason::Forbidden).await;
    // A project token gets its own project's jobs only.
    world.attach(&ann, &session, ("a", "q")).await;
    world.submit(&ann, &session).await;
    assert!(world.claim(&token("ann", "p"), "a").await.is_none());
    assert!(world.claim(&token("ann", "q"), "a").await.is_some());
}

async fn a_lease_is_its_holders(world: World) {
    let (ann, bob) = (owner("ann"), owner("bob"));
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    world.submit(&ann, &session).await;
    let held = world.claim(&ann, "a").await.unwrap().held;
    let unknown = Held { job: world.submission(&session).id, fencing: 1 };
    for (caller, held) in [(&bob, &held), (&admin(), &held), (&token("ann", "q"), &held), (&ann, &unknown)] {
        world.denied(caller, finish(held, Outcome::Succeeded), Reason::LeaseLost).await;
        assert!(world.ok(caller, Renew { held: vec![held.clone()] }).await.kept.is_empty());
    }
    world.ok(&token("ann", "p"), finish(&held, Outcome::Succeeded)).await;
}
