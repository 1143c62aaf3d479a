//! Attaches that wait: in line, bounded, and never after they were given up. And jobs that are ended by force.

use std::{sync::Arc, time::Duration};

use interlock_gateway::{
    caller::Caller,
    ids::{SessionId, WaiterId},
    job::{Cancel, ForceFail, Outcome, Phase},
    lease::Progress,
    standing::Standing,
    waiter::{AttachWaiting, Attempt, GiveUp, Ground, LastAttach},
};
use interlock_kit::{clock::Timestamp, error::Reason};

use crate::{
    on_every_engine,
    world::{CallerExt as _, World, admin, agent, attach, cookie, finish, owner, root, token},
};

on_every_engine!(
    a_waiter_attaches_right_after_the_last_job,
    who_came_first_is_served_first,
    meanwhile_the_owner_submits_nothing_and_others_do,
    a_dead_waiter_holds_nobody_up,
    who_waits_behind_a_dead_one_attaches,
    the_last_word_of_a_waiter_passes_nobody_in_line,
    a_waiter_that_was_given_up_never_attaches,
    a_waiter_waits_no_longer_than_it_said,
    own_jobs_are_cancelled_where_that_is_asked,
    own_jobs_of_many_sessions_are_cancelled_part_by_part,
    the_jobs_of_others_are_waited_for,
    waiters_are_bounded,
    administrators_with_root_end_a_job_by_force,
);

struct Parked {
    caller: Caller,
    verb: AttachWaiting,
}

/// Waiters are numbered as they come.
fn parked(world: &World, caller: &Caller, session: &SessionId, to: (&str, &str)) -> Parked {
    let verb = AttachWaiting {
        attach: attach(session, to),
        waiter: WaiterId::parse(format!("wai_{:06}", world.number())).unwrap(),
        wait: Duration::from_secs(60),
        deadline: None,
        cancel: false,
        ground: Arc::new(Ground::new(Standing::on_rows())),
    };
    Parked { caller: caller.clone().naming(to.1), verb }
}

impl Parked {
    async fn look(&mut self, world: &World) -> Attempt {
        let attempt = world.ok(&self.caller, self.verb.clone()).await;
        if let Attempt::Waiting { deadline, .. } = &attempt {
            self.verb.deadline = Some(*deadline);
        }
        attempt
    }

    async fn waits(&mut self, world: &World) -> Timestamp {
        match self.look(world).await {
            Attempt::Waiting { deadline, .. } => deadline,
            other => panic!("it should wait: {other:?}"),
        }
    }

    async fn attaches(&mut self, world: &World) {
        match self.look(world).await {
            Attempt::Attached(attached) => assert!(attached.changed),
            other => panic!("it should attach: {other:?}"),
        }
    }
}

// SW-34
async fn a_waiter_attaches_right_after_the_last_job(world: World) {
    let (ann, session, held) = world.running().await;
    let mut waiter = parked(&world, &ann, &session, ("a", "q"));
    let deadline = waiter.waits(&world).await;
    assert_eq!(deadline, world.clock.now().after(Duration::from_secs(60)));
    assert_eq!(waiter.waits(&world).await, deadline, "looking again changes nothing");
    world.denied(&ann.clone().naming("q"), attach(&session, ("a", "q")), Reason::SessionBusy).await;
    world.ok(&ann, finish(&held, Outcome::Succeeded)).await;
    let moved = |signal: &interlock_gateway::store::Signal| matches!(signal, interlock_gateway::store::Signal::LineMoved { agent: of } if *of == agent("a"));
    assert!(world.heard.signals.lock().iter().any(moved), "waiters are woken");
    waiter.attaches(&world).await;
    let binding = world.see(&ann, &session).await.session.binding.unwrap();
    assert_eq!((binding.project.as_str(), binding.epoch), ("q", 2));
    // Nothing waits any more.
    world.submit(&ann.clone().naming("q"), &session).await;
    // The same binding again is no wait.
    let mut again = parked(&world, &ann, &session, ("a", "q"));
    assert!(matches!(again.look(&world).await, Attempt::Attached(attached) if !attached.changed));
}

// SW-34
async fn the_last_word_of_a_waiter_passes_nobody_in_line(world: World) {
    let (ann, session, held) = world.running().await;
    let (first, second) = (world.session(&ann).await, world.session(&ann).await);
    let mut first = parked(&world, &ann, &first, ("a", "q"));
    let second = parked(&world, &ann, &second, ("a", "q"));
    first.waits(&world).await;
    let last = LastAttach { attach: second.verb.attach.clone(), waiter: second.verb.waiter.clone() };
    world.denied(&second.caller, last.clone(), Reason::SessionBusy).await;
    world.ok(&ann, finish(&held, Outcome::Succeeded)).await;
    world.denied(&second.caller, last.clone(), Reason::AttachPending).await;
    first.attaches(&world).await;
    assert!(world.ok(&second.caller, last.clone()).await.changed, "nobody waits before it any more");
    assert!(!world.ok(&second.caller, last).await.changed);
    assert!(world.see(&ann, &session).await.session.binding.is_some());
}

async fn who_came_first_is_served_first(world: World) {
    let (ann, _, held) = world.running().await;
    let (first, second) = (world.session(&ann).await, world.session(&ann).await);
    let mut first = parked(&world, &ann, &first, ("a", "q"));
    let mut second = parked(&world, &ann, &second, ("a", "q"));
    // Whoever looks first: the ids say who came first.
    second.waits(&world).await;
    first.waits(&world).await;
    world.ok(&ann, finish(&held, Outcome::Succeeded)).await;
    second.waits(&world).await;
    first.attaches(&world).await;
    second.attaches(&world).await;
}

async fn meanwhile_the_owner_submits_nothing_and_others_do(world: World) {
    let (ann, bob) = (owner("ann"), owner("bob"));
    world.agent(&admin(), "s", true).await;
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let elsewhere = world.session(&ann).await;
    world.attach(&ann, &elsewhere, ("s", "p")).await;
    let bobs = world.session(&bob).await;
    world.attach(&bob, &bobs, ("s", "p")).await;
    let job = world.submit(&ann, &session).await;
    let mut waiter = parked(&world, &ann, &session, ("s", "p"));
    waiter.waits(&world).await;
    world.denied(&ann, world.submission(&session), Reason::AttachPending).await;
    world.denied(&ann, world.submission(&elsewhere), Reason::AttachPending).await;
    let other = world.submit(&bob, &bobs).await;
    world.ok(&bob, Cancel { job: other.id }).await;
    world.ok(&ann, Cancel { job: job.id }).await;
    waiter.attaches(&world).await;
    world.submit(&ann, &elsewhere).await;
    world.submit(&ann, &session).await;
}

async fn a_dead_waiter_holds_nobody_up(world: World) {
    let (ann, session, held) = world.running().await;
    let mut dead = parked(&world, &ann, &session, ("a", "q"));
    dead.waits(&world).await;
    let second = world.session(&ann).await;
    let mut second = parked(&world, &ann, &second, ("a", "q"));
    second.waits(&world).await;
    let lease = world.shell.limits().waiter_lease;
    world.advance(lease / 2 + Duration::from_millis(1));
    second.waits(&world).await;
    world.advance(lease / 2);
    // Its gateway has gone; the other one has kept its place alive.
    world.denied(&ann, world.submission(&session), Reason::AttachPending).await;
    let _ = world.ok(&ann, interlock_gateway::lease::Renew { held: vec![held.clone()] }).await;
    world.sweep().await;
    let job = world.job(&ann, &held.job).await;
    world.ok(&ann, Cancel { job: job.id.clone() }).await;
    world.advance(Duration::from_secs(40));
    world.sweep().await;
    // All leases are over by now: nothing waits, and nothing is refused for it.
    world.submit(&ann, &session).await;
}

// Issue 7 line 1
async fn who_waits_behind_a_dead_one_attaches(world: World) {
    let (ann, _, held) = world.running().await;
    let (dead, second) = (world.session(&ann).await, world.session(&ann).await);
    let mut dead = parked(&world, &ann, &dead, ("a", "q"));
    let mut second = parked(&world, &ann, &second, ("a", "q"));
    dead.waits(&world).await;
    second.waits(&world).await;
    world.ok(&ann, finish(&held, Outcome::Succeeded)).await;
    second.waits(&world).await;
    // Its gateway is dead: nobody looks for it, nor says that it is given up. Its lease is what there is of it.
    world.advance(world.shell.limits().waiter_lease);
    second.attaches(&world).await;
    world.ok(&ann.clone().naming("q"), world.submission(&second.verb.attach.session)).await;
}

async fn a_waiter_that_was_given_up_never_attaches(world: World) {
    let (ann, session, held) = world.running().await;
    let mut waiter = parked(&world, &ann, &session, ("a", "q"));
    waiter.waits(&world).await;
    waiter.verb.ground.give_up();
    world.ok(&ann, finish(&held, Outcome::Succeeded)).await;
    let refused = world.err(&waiter.caller, waiter.verb.clone()).await;
    assert_eq!(refused.reason(), Reason::DeadlineExceeded);
    assert_eq!(world.see(&ann, &session).await.session.binding.unwrap().project.as_str(), "p");
    world.denied(&ann, world.submission(&session), Reason::AttachPending).await;
    let give_up = GiveUp { agent: agent("a"), waiter: waiter.verb.waiter.clone() };
    world.denied(&ann, give_up.clone(), Reason::Forbidden).await;
    assert!(world.ok(&Caller::gateway(), give_up.clone()).await);
    assert!(!world.ok(&Caller::gateway(), give_up).await, "once");
    world.submit(&ann, &session).await;
    // Nobody waits without the right to.
    let mut stranger = parked(&world, &owner("bob"), &session, ("a", "q"));
    stranger.verb.cancel = true;
    world.denied(&stranger.caller, stranger.verb, Reason::OwnerMismatch).await;
}

async fn a_waiter_waits_no_longer_than_it_said(world: World) {
    let (ann, session, held) = world.running().await;
    let mut waiter = parked(&world, &ann, &session, ("a", "q"));
    waiter.verb.wait = Duration::from_secs(3);
    waiter.waits(&world).await;
    world.advance(Duration::from_secs(3));
    world.ok(&ann, finish(&held, Outcome::Succeeded)).await;
    assert_eq!(waiter.look(&world).await, Attempt::TimeUp);
    world.submit(&ann, &session).await;
    let mut at_once = parked(&world, &ann, &session, ("a", "q"));
    at_once.verb.wait = Duration::ZERO;
    assert_eq!(at_once.look(&world).await, Attempt::TimeUp);
}

async fn own_jobs_are_cancelled_where_that_is_asked(world: World) {
    let (ann, session, held) = world.running().await;
    let queued = world.submit(&ann, &session).await;
    let mut waiter = parked(&world, &ann, &session, ("a", "q"));
    waiter.verb.cancel = true;
    waiter.waits(&world).await;
    assert!(
        matches!(world.job(&ann, &queued.id).await.phase, Phase::Ended(end) if end.outcome == Outcome::Cancelled)
    );
    assert!(world.job(&ann, &held.job).await.cancel_requested_at.is_some(), "its worker is asked");
    waiter.waits(&world).await;
    world.ok(&ann, finish(&held, Outcome::Cancelled)).await;
    waiter.attaches(&world).await;
}

/// More rows than one look may take, each of another session: an engine that loads them does so together.
async fn own_jobs_of_many_sessions_are_cancelled_part_by_part(world: World) {
    let (ann, session, held) = world.running().await;
    let mut queued = Vec::new();
    for _ in 0..40 {
        let other = world.session(&ann).await;
        world.attach(&ann, &other, ("a", "p")).await;
        queued.push(world.submit(&ann, &other).await.id);
    }
    let mut waiter = parked(&world, &ann, &session, ("a", "q"));
    waiter.verb.cancel = true;
    for _ in 0..2 {
        waiter.waits(&world).await;
    }
    for id in &queued {
        let phase = world.job(&ann, id).await.phase;
        assert!(matches!(&phase, Phase::Ended(end) if end.outcome == Outcome::Cancelled), "{phase:?}");
    }
    world.ok(&ann, finish(&held, Outcome::Cancelled)).await;
    waiter.attaches(&world).await;
}

// Issue 7 line 1: CANCEL is about the caller's own jobs.
async fn the_jobs_of_others_are_waited_for(world: World) {
    let (ann, bob) = (owner("ann"), owner("bob"));
    world.agent(&admin(), "s", true).await;
    let (hers, his) = (world.session(&ann).await, world.session(&bob).await);
    world.attach(&ann, &hers, ("s", "p")).await;
    world.attach(&bob, &his, ("s", "p")).await;
    let (own, other) = (world.submit(&ann, &hers).await, world.submit(&bob, &his).await);
    let running = world.claim(&admin(), "s").await.unwrap().held;
    assert_eq!(running.job, own.id);
    let mut waiter = parked(&world, &ann, &hers, ("s", "q"));
    waiter.verb.cancel = true;
    waiter.waits(&world).await;
    assert!(world.job(&ann, &own.id).await.cancel_requested_at.is_some());
    let untouched = world.job(&bob, &other.id).await;
    assert_eq!((&untouched.phase, untouched.cancel_requested_at), (&Phase::Queued, None));
    world.ok(&admin(), finish(&running, Outcome::Cancelled)).await;
    waiter.waits(&world).await;
    let running = world.claim(&admin(), "s").await.unwrap().held;
    assert_eq!(running.job, other.id);
    waiter.waits(&world).await;
    assert!(world.job(&bob, &other.id).await.cancel_requested_at.is_none());
    world.ok(&admin(), finish(&running, Outcome::Succeeded)).await;
    waiter.attaches(&world).await;
}

async fn waiters_are_bounded(world: World) {
    let (ann, _, _) = world.running().await;
    let most = world.shell.limits().waiters_max;
    for _ in 0..most {
        let session = world.session(&ann).await;
        parked(&world, &ann, &session, ("a", "q")).waits(&world).await;
    }
    let session = world.session(&ann).await;
    let one_more = parked(&world, &ann, &session, ("a", "q"));
    world.denied(&one_more.caller, one_more.verb, Reason::LimitReached).await;
}

async fn administrators_with_root_end_a_job_by_force(world: World) {
    let (ann, session, held) = world.running().await;
    let queued = world.submit(&ann, &session).await;
    let force = |job: &interlock_gateway::ids::JobId| ForceFail { job: job.clone(), cause: String::new() };
    for caller in [ann.clone(), token("ann", "p"), cookie(&session, 1)] {
        let refused = world.err(&caller, force(&held.job)).await;
        assert_ne!(refused.reason(), Reason::Internal);
    }
    world.denied(&ann, force(&held.job), Reason::Forbidden).await;
    world.denied(&root("rosa", false), force(&held.job), Reason::RootRequired).await;
    let failed = world.ok(&admin(), force(&held.job)).await;
    assert!(matches!(&failed.phase, Phase::Ended(end) if end.outcome == Outcome::Failed), "{failed:?}");
    assert_eq!(world.ok(&admin(), force(&held.job)).await, failed, "again is no error");
    // Its worker is fenced off.
    let line = Progress { held: held.clone(), number: 1, data: vec![1] };
    world.denied(&ann, line, Reason::LeaseLost).await;
    world.denied(&ann, finish(&held, Outcome::Succeeded), Reason::LeaseLost).await;
    world.ok(&root("rosa", true), force(&queued.id)).await;
    let long = ForceFail { job: queued.id, cause: "x".repeat(257) };
    world.denied(&admin(), long, Reason::InvalidField).await;
}
