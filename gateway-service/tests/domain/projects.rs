//! The three locks, and calls that name no project.

use std::{sync::Arc, time::Duration};

use interlock_gateway::{
    binding::Attach,
    caller::{Caller, Principal, Unscoped},
    ids::ClientId,
    job::{Cancel, GetJob, Outcome},
    policy::{Lock, ProjectReach, ProjectScope},
    session::{CreateSession, GetSession},
    worker::Serve,
};
use interlock_kit::error::Reason;

use crate::{
    on_every_engine,
    world::{CallerExt as _, World, agent, attach, finish, hash, owner, project, request, session_id, token},
};

on_every_engine!(
    the_locks_agree_or_nothing_happens,
    a_token_never_carries_a_session_out,
    calls_that_name_no_project,
    a_repeated_creation_passes_the_locks,
    a_worker_gets_jobs_of_its_project_and_its_agents,
);

// SQ-18, SQ-19, SQ-20, SQ-22, I13
async fn the_locks_agree_or_nothing_happens(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let job = world.submit(&ann, &session).await.id;
    let get = || GetSession { session: session.clone() };
    world.members.remove("ann", "q");
    for (caller, lock) in [
        (ann.clone().naming("q"), "named"),
        (token("ann", "q"), "reach"),
        (token("ann", "q").naming("p"), "reach"),
        (token("ann", "p").naming("q"), "named"),
    ] {
        world.denied_read(&caller, get(), Reason::ProjectMismatch).await;
        world.denied_read(&caller, GetJob { job: job.clone() }, Reason::ProjectMismatch).await;
        world.denied(&caller, world.submission(&session), Reason::ProjectMismatch).await;
        world.denied(&caller, Cancel { job: job.clone() }, Reason::ProjectMismatch).await;
        if let Some(audit) = world.audit() {
            let row = audit.last().unwrap();
            assert!(row.detail.contains(&format!("\"lock\":\"{lock}\"")), "{}", row.detail);
            assert_eq!((row.scope.as_str(), row.subject.as_str()), ("p", job.as_str()));
            assert_eq!(row.origin.credential_id, "crd_ann");
        }
    }
    world.members.remove("ann", "p");
    world.denied(&ann.clone().naming("p"), world.submission(&session), Reason::ProjectMismatch).await;
    world.ask(&token("ann", "p").naming("p"), get()).await.unwrap();
}

async fn a_token_never_carries_a_session_out(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let in_p = token("ann", "p");
    let session = world.session(&in_p).await;
    world.denied(&in_p.clone().naming("q"), attach(&session, ("a", "q")), Reason::ProjectMismatch).await;
    world.ok(&in_p.clone().naming("p"), attach(&session, ("a", "p"))).await;
    for caller in [in_p.naming("q"), token("ann", "q").naming("q")] {
        world.denied(&caller, attach(&session, ("a", "q")), Reason::ProjectMismatch).await;
    }
    // An owner needs the right to both.
    world.members.remove("ann", "p");
    world.denied(&ann.clone().naming("q"), attach(&session, ("a", "q")), Reason::ProjectMismatch).await;
    world.members.add("ann", "p");
    world.denied(&ann.clone().naming("p"), attach(&session, ("a", "q")), Reason::ProjectMismatch).await;
    assert!(world.ok(&ann.naming("q"), attach(&session, ("a", "q"))).await.changed);
}

// SQ-17, SQ-28, SQ-30
async fn calls_that_name_no_project(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    let to =
        Attach { session: session.clone(), agent: agent("a"), project: project("p"), keep_clients: false };
    let told = world.shell.run(&Arc::new(ann.clone()), to.clone(), &world.members).await.unwrap();
    assert!(told.unscoped, "it is answered, and marked");
    let told = world.shell.run(&Arc::new(ann.clone().naming("p")), to.clone(), &world.members).await.unwrap();
    assert!(!told.unscoped);
    let deny = Caller { unscoped: Unscoped::Deny, ..ann.clone() };
    world.denied(&deny, to.clone(), Reason::ProjectRequired).await;
    world.denied_read(&deny, GetSession { session: session.clone() }, Reason::ProjectRequired).await;
    let sunset = Some(world.clock.now().after(Duration::from_secs(60)));
    let warn = Caller { unscoped: Unscoped::Warn { sunset }, ..ann };
    world.ok(&warn, to.clone()).await;
    world.advance(Duration::from_secs(60));
    world.denied(&warn, to, Reason::UnscopedSunset).await;
}

// I13: the first answer may be of a session that has come into a project since.
async fn a_repeated_creation_passes_the_locks(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let number = world.number();
    let create = |again: u64| CreateSession {
        id: session_id(number + again),
        client: ClientId::parse(format!("clt_{:06}", number + again)).unwrap(),
        cookie: hash(number + again),
        sealed: vec![1],
        name: None,
        request: request("once"),
        owner: None,
    };
    let session = world.ok(&ann, create(0)).await.seen.session.id;
    assert!(!world.ok(&token("ann", "q"), create(100)).await.first, "it is in no project yet");
    world.attach(&ann, &session, ("a", "p")).await;
    for caller in [token("ann", "q"), token("ann", "q").naming("p"), ann.clone().naming("q")] {
        world.denied(&caller, create(100), Reason::ProjectMismatch).await;
    }
    for caller in [ann.clone(), ann.naming("p"), token("ann", "p")] {
        assert_eq!(world.ok(&caller, create(100)).await.seen.session.id, session);
    }
}

// SQ-02, SQ-05, DESIGN 8, 14.17
async fn a_worker_gets_jobs_of_its_project_and_its_agents(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    world.agent(&ann, "b", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    world.submit(&ann, &session).await;
    let bound_to = |agents: &[&str], project: &str| {
        let mut caller = token("ann", project);
        if let Principal::Project(token) = &mut caller.principal {
            token.agents = agents.iter().map(|id| agent(id)).collect();
        }
        caller
    };
    let serve = |id: &str| Serve { agents: vec![agent(id)] };
    // Another project's token is let in, and gets nothing; so is an owner who names another project.
    for caller in [token("ann", "q"), ann.clone().naming("q")] {
        assert!(world.claim(&caller, "a").await.is_none());
    }
    world.denied_read(&token("ann", "p").naming("q"), serve("a"), Reason::ProjectMismatch).await;
    // Bound to another agent.
    world.denied_read(&bound_to(&["b"], "p"), serve("a"), Reason::Forbidden).await;
    world.ask(&bound_to(&["b"], "p"), serve("b")).await.unwrap();
    let held = world.claim(&bound_to(&["a"], "p"), "a").await.unwrap().held;
    // The lease is no other token's.
    for caller in [token("ann", "q"), bound_to(&["b"], "p"), token("ann", "p").naming("q")] {
        world.refused(&caller, finish(&held, Outcome::Succeeded), Reason::LeaseLost).await;
    }
    world.ok(&bound_to(&["a"], "p"), finish(&held, Outcome::Succeeded)).await;
}

#[test]
fn agreement() {
    let (p, q) = (project("p"), project("q"));
    let token = ProjectReach::Token(p.clone());
    assert_eq!(ProjectScope::agree(&token, Some(&p), &p).unwrap().project(), &p);
    assert!(ProjectScope::agree(&token, None, &p).is_ok());
    assert_eq!(ProjectScope::agree(&token, Some(&q), &p), Err(Lock::Named));
    assert_eq!(ProjectScope::agree(&token, Some(&q), &q), Err(Lock::Reach));
    assert!(ProjectScope::agree(&ProjectReach::Membership(true), None, &q).is_ok());
    assert_eq!(ProjectScope::agree(&ProjectReach::Membership(false), Some(&q), &q), Err(Lock::Reach));
    assert_eq!(ProjectScope::agree(&ProjectReach::BuiltIn(true), None, &q), Err(Lock::Reach));
    assert_eq!(ProjectScope::agree(&ProjectReach::Own(p), None, &q), Err(Lock::Reach));
}
