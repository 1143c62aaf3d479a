//! Sessions end, and leave nothing.

use std::{collections::BTreeMap, time::Duration};

use interlock_gateway::{
    caller::Caller,
    client::Ack,
    ids::{ClientId, SessionName},
    job::Outcome,
    limits::Limits,
    session::{CloseSession, CreateSession, GetSession, Phase},
    store::Signal,
    sweep::{Sweep, Swept},
};
use interlock_kit::error::Reason;

use crate::{
    on_every_engine,
    world::{Engine, World, attach, finish, hash, owner, request, session_id},
};

on_every_engine!(
    closing_an_idle_session,
    closing_a_busy_session,
    a_name_is_free_when_its_session_is_gone_and_not_before,
    a_gone_session_leaves_no_rows,
);

async fn closing_an_idle_session(world: World) {
    let ann = owner("ann");
    let session = world.session(&ann).await;
    let close = CloseSession { session: session.clone(), force: false };
    assert!(world.ok(&ann, close.clone()).await.gone);
    assert!(world.ok(&ann, close.clone()).await.gone, "again is no error, for its owner");
    world.denied(&owner("bob"), close, Reason::OwnerMismatch).await;
    world.denied_read(&ann, GetSession { session: session.clone() }, Reason::OwnerMismatch).await;
    world.denied(&ann, attach(&session, ("a", "p")), Reason::OwnerMismatch).await;
    world.denied(&ann, Ack { session: session.clone(), sequence: 1 }, Reason::OwnerMismatch).await;
    assert!(world.heard.signals.lock().contains(&Signal::SessionGone { session }));
}

async fn closing_a_busy_session(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    world.submit(&ann, &session).await;
    let running = world.claim(&ann, "a").await.unwrap().held;
    world.submit(&ann, &session).await;
    let close = |force| CloseSession { session: session.clone(), force };
    world.denied(&ann, close(false), Reason::SessionBusy).await;
    let closed = world.ok(&ann, close(true)).await;
    assert_eq!((closed.gone, closed.jobs_in_flight), (false, 1), "the queued one is cancelled");
    assert_eq!(world.see(&ann, &session).await.session.phase, Phase::Closing);
    world.denied(&ann, attach(&session, ("a", "p")), Reason::SessionClosing).await;
    assert_eq!(world.ok(&ann, close(true)).await, closed, "again is no error");
    world.ok(&ann, finish(&running, Outcome::Cancelled)).await;
    world.sweep().await;
    world.denied_read(&ann, GetSession { session: session.clone() }, Reason::OwnerMismatch).await;
    assert!(world.ok(&ann, close(false)).await.gone);
}

// NC-18, DESIGN 9
async fn a_name_is_free_when_its_session_is_gone_and_not_before(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let create = |number: u64| CreateSession {
        id: session_id(number),
        client: ClientId::parse(format!("clt_{number:06}")).unwrap(),
        cookie: hash(number),
        sealed: vec![1],
        name: Some(SessionName::parse("desk").unwrap()),
        request: request(&format!("r{number}")),
        owner: None,
    };
    world.ok(&ann, create(601)).await;
    let session = session_id(601);
    world.attach(&ann, &session, ("a", "p")).await;
    world.submit(&ann, &session).await;
    let running = world.claim(&ann, "a").await.unwrap().held;
    assert!(!world.ok(&ann, CloseSession { session, force: true }).await.gone);
    world.denied(&ann, create(602), Reason::NameTaken).await;
    world.ok(&owner("bob"), create(603)).await;
    world.ok(&ann, finish(&running, Outcome::Cancelled)).await;
    world.sweep().await;
    world.ok(&ann, create(604)).await;
}

async fn a_gone_session_leaves_no_rows(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let before = world.rows();
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    for _ in 0..3 {
        world.submit(&ann, &session).await;
        let held = world.claim(&ann, "a").await.unwrap().held;
        world.ok(&ann, finish(&held, Outcome::Succeeded)).await;
    }
    world.ok(&ann, CloseSession { session, force: false }).await;
    world.sweep().await;
    // First answers are kept for a day.
    world.advance(Duration::from_secs(24 * 3600));
    world.sweep().await;
    assert_eq!(world.rows(), before);
}

/// How many rows each table has.
fn sizes(world: &World) -> BTreeMap<String, usize> {
    let mut sizes = BTreeMap::new();
    for row in world.rows().expect("shown").lines() {
        let table = row.split([' ', '|']).next().expect("a table").to_owned();
        *sizes.entry(table).or_default() += 1;
    }
    sizes
}

// Issue 7 line 3, DESIGN 9, I17: no transaction takes more than its part, however much there is, and whoever comes
// after a program that ended among the parts goes on with them.
#[tokio::test]
async fn what_is_left_of_a_session_goes_in_bounded_parts_by_whichever_program_is_there() {
    const PART: usize = 8;
    for engine in [Engine::File, Engine::Postgres] {
        let limits = Limits { sweep_rows_max: PART, ..Limits::default() };
        let mut world = World::with(engine, limits.clone());
        let ann = owner("ann");
        world.agent(&ann, "a", false).await;
        let before = world.rows();
        let session = world.session(&ann).await;
        world.attach(&ann, &session, ("a", "p")).await;
        for _ in 0..3 * PART {
            world.submit(&ann, &session).await;
            let held = world.claim(&ann, "a").await.unwrap().held;
            world.ok(&ann, finish(&held, Outcome::Succeeded)).await;
        }
        world.ok(&ann, CloseSession { session: session.clone(), force: false }).await;
        world.denied_read(&ann, GetSession { session: session.clone() }, Reason::OwnerMismatch).await;
        // First answers are kept for a day.
        world.advance(Duration::from_secs(24 * 3600));
        let (mut parts, mut programs) = (0, 1);
        loop {
            let mut left = false;
            for duty in world.due().await {
                let was = sizes(&world);
                left |= world.ok(&Caller::gateway(), Sweep(duty)).await != Swept::Nothing;
                let is = sizes(&world);
                for (table, rows) in &was {
                    let gone = rows - is.get(table).copied().unwrap_or_default();
                    assert!(gone <= PART, "{engine:?}: {gone} of {table} at once");
                }
                parts += 1;
                assert!(parts < 200, "{engine:?}: it does not end");
                if parts % 5 == 0 && programs < 4 {
                    world = world.reopened(limits.clone()).await;
                    programs += 1;
                    left = true;
                    break;
                }
            }
            if !left {
                break;
            }
        }
        assert_eq!((world.rows(), programs), (before, 4), "{engine:?}: nothing is left after {parts} parts");
    }
}
