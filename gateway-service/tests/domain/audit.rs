//! Audit: one row for each change and each denial, in a chain.

use interlock_gateway::{caller::Caller, job::Outcome, session::CloseSession};
use interlock_kit::{
    error::Reason,
    store::{audit::ChainKey, postgres, sqlite::verify},
};

use crate::world::{Engine, KEY, World, attach, finish, owner};

// I11, SW-44
#[tokio::test]
async fn each_change_has_one_row() {
    let mut seen = Vec::new();
    for engine in [Engine::File, Engine::Missing, Engine::Model, Engine::Postgres] {
        let world = World::new(engine);
        play(&world).await;
        let rows = world.audit().unwrap();
        let told: Vec<String> = rows
            .iter()
            .map(|row| format!("{} {} {} {} {}", row.action, row.outcome, row.reason, row.subject, row.scope))
            .collect();
        seen.push(told);
    }
    assert_eq!(
        seen[0],
        [
            "agent.set done  a ",
            "session.create done  ses_000001 ",
            "session.attach done  ses_000001 p",
            "job.submit done  job_000002 p",
            "session.attach refused SESSION_BUSY ses_000001 q",
            "worker.claim done  job_000002 p",
            "worker.finish done  job_000002 p",
            "session.close refused OWNER_MISMATCH ses_000001 ",
            "session.close done  ses_000001 p",
        ]
    );
    assert!(seen.iter().all(|told| *told == seen[0]), "on every engine: {seen:#?}");
}

async fn play(world: &World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    world.attach(&ann, &session, ("a", "p")).await;
    world.submit(&ann, &session).await;
    world.refused(&ann, attach(&session, ("a", "q")), Reason::SessionBusy).await;
    let held = world.claim(&ann, "a").await.unwrap().held;
    assert!(world.claim(&ann, "a").await.is_none());
    world.ok(&ann, finish(&held, Outcome::Succeeded)).await;
    let close = CloseSession { session, force: false };
    world.refused(&owner("bob"), close.clone(), Reason::OwnerMismatch).await;
    world.ok(&ann, close).await;
}

#[tokio::test]
async fn the_chain_verifies_and_finds_an_edit() {
    for engine in [Engine::File, Engine::Missing] {
        let world = World::new(engine);
        play(&world).await;
        let connection = world.connection().unwrap();
        let key = ChainKey::new(KEY);
        assert_eq!(verify(&connection, &key).unwrap(), []);
        assert_ne!(verify(&connection, &ChainKey::new([8; 32])).unwrap(), []);
        connection.execute("UPDATE audit SET principal = 'bob' WHERE id = 3", []).unwrap();
        assert_eq!(verify(&connection, &key).unwrap().len(), 1);
    }
}

#[tokio::test]
async fn the_chain_verifies_and_finds_an_edit_in_a_database() {
    let world = World::new(Engine::Postgres);
    play(&world).await;
    let (database, key) = (world.database().unwrap(), ChainKey::new(KEY));
    let verify = |key: &ChainKey| postgres::verify(&database.target, key).unwrap();
    assert_eq!(verify(&key), []);
    assert_ne!(verify(&ChainKey::new([8; 32])), []);
    database.sql("UPDATE audit SET principal = 'bob' WHERE action = 'session.attach'");
    assert_ne!(verify(&key), []);
}

#[tokio::test]
async fn nobody_but_the_gateway_sweeps() {
    let world = World::new(Engine::Missing);
    for caller in [owner("ann"), crate::world::admin()] {
        world.denied_read(&caller, interlock_gateway::sweep::Due, Reason::Forbidden).await;
        let sweep = interlock_gateway::sweep::Sweep(interlock_gateway::sweep::Duty::Requests);
        world.denied(&caller, sweep, Reason::Forbidden).await;
    }
    let session = world.session(&owner("ann")).await;
    let get = interlock_gateway::session::GetSession { session };
    world.denied_read(&Caller::gateway(), get, Reason::OwnerMismatch).await;
}
