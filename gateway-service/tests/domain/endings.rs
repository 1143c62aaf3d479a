//! The end of an owner, or of a membership, at the clients of the owner's sessions.

use interlock_gateway::{
    caller::Caller,
    client::{ClientRole, LeaveCause, ListClients},
    ending::{Concerned, EndClients, Ended, NextOwner, NoteFollowed, Place, ProjectsOf, ReadFollowed},
    event::EventKind,
    ids::{ClientId, OwnerId, SessionId},
    job::{JobState, Outcome, Phase},
    join::Join,
    password::{ReadForJoin, SetSessionPassword, Target},
    session::GetSession,
};
use interlock_kit::error::Reason;

use crate::{
    events::log,
    on_every_engine,
    world::{World, admin, cookie, hash, nobody, owner, project, request},
};

on_every_engine!(
    an_owners_end_takes_clients_and_passwords_and_leaves_sessions_and_jobs,
    a_memberships_end_is_about_the_sessions_in_its_project,
    where_it_says_so_jobs_are_cancelled,
    the_place_in_auths_log_moves_forward_only,
);

fn of(name: &str) -> Ended {
    Ended { owner: OwnerId::parse(name).unwrap(), project: None, cancel_jobs: false }
}

/// A session with its host's cookie, and a password.
async fn made(world: &World, name: &str) -> (SessionId, Caller) {
    let session = world.session(&owner(name)).await;
    let host = cookie(&session, world.number() - 1);
    world.ok(&host, password(&session)).await;
    (session, host)
}

fn password(session: &SessionId) -> SetSessionPassword {
    let (session, hash) = (session.clone(), "$argon2id$one".to_owned());
    SetSessionPassword { session, hash, joiners: ClientRole::Operator, evict_others: false }
}

fn join(world: &World, session: &SessionId, version: u64) -> Join {
    let number = world.number();
    Join {
        session: session.clone(),
        version,
        client: ClientId::parse(format!("clt_{number:06}")).unwrap(),
        cookie: hash(number),
        sealed: vec![7],
        request: request(&format!("join {number}")),
    }
}

async fn concerned(world: &World, ended: &Ended) -> Vec<SessionId> {
    let list = Concerned { ended: ended.clone(), before: None };
    let part = world.ask(&Caller::gateway(), list).await.unwrap();
    assert_eq!(part.next, None);
    part.sessions
}

async fn end(world: &World, session: &SessionId, ended: &Ended) -> bool {
    let verb = EndClients { session: session.clone(), ended: ended.clone() };
    world.ok(&Caller::gateway(), verb).await
}

fn get(session: &SessionId) -> GetSession {
    GetSession { session: session.clone() }
}

// DESIGN 14.3, UA-56
async fn an_owners_end_takes_clients_and_passwords_and_leaves_sessions_and_jobs(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let (session, host) = made(&world, "ann").await;
    world.attach(&ann, &session, ("a", "p")).await;
    let job = world.submit(&host, &session).await.id;
    world.ok(&nobody(), join(&world, &session, 1)).await;
    let (other, _) = made(&world, "ann").await;
    let (bobs, bob) = made(&world, "bob").await;

    assert_eq!(concerned(&world, &of("ann")).await, [other.clone(), session.clone()], "newest first");
    // It is the gateway's own to do.
    let stranger = EndClients { session: session.clone(), ended: of("ann") };
    world.denied(&ann, stranger, Reason::Forbidden).await;
    assert!(end(&world, &session, &of("ann")).await && end(&world, &other, &of("ann")).await);
    assert!(!end(&world, &session, &of("ann")).await, "once");
    assert!(!end(&world, &bobs, &of("ann")).await, "none of hers");

    assert_eq!(world.ask(&host, get(&session)).await.unwrap_err().reason(), Reason::ProviderAuthFailed);
    let target = Target::Id(session.clone());
    assert_eq!(world.ask(&nobody(), ReadForJoin { target: target.clone() }).await.unwrap(), None);
    // Who has verified the password before it was closed comes too late.
    world.refused(&nobody(), join(&world, &session, 1), Reason::InvalidCredentials).await;
    // For an administrator all of it is there still.
    let seen = world.see(&admin(), &session).await;
    assert_eq!((seen.jobs_in_flight, seen.session.owner.as_str()), (1, "ann"));
    assert_eq!(world.job(&admin(), &job).await.phase, Phase::Queued);
    let clients = ListClients { session: session.clone() };
    assert!(world.ask(&admin(), clients).await.unwrap().clients.is_empty());
    let left = log(&world, &admin(), &session)
        .await
        .into_iter()
        .filter(|event| matches!(event.kind, EventKind::ClientLeft { cause: LeaveCause::OwnerEnded, .. }));
    assert_eq!(left.count(), 2);
    world.ask(&bob, get(&bobs)).await.unwrap();

    // An owner who is back, or has signed in anew, sets another password; the one before stays closed.
    world.ok(&ann, password(&session)).await;
    let stored = world.ask(&nobody(), ReadForJoin { target }).await.unwrap().unwrap();
    assert_eq!(stored.version, 3);
    world.ok(&nobody(), join(&world, &session, 3)).await;
}

async fn a_memberships_end_is_about_the_sessions_in_its_project(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    world.agent(&ann, "b", false).await;
    let (in_p, host_p) = made(&world, "ann").await;
    let (in_q, host_q) = made(&world, "ann").await;
    let (unbound, host) = made(&world, "ann").await;
    world.attach(&ann, &in_p, ("a", "p")).await;
    world.attach(&ann, &in_q, ("b", "q")).await;
    let left = Ended { project: Some(project("p")), ..of("ann") };
    assert_eq!(concerned(&world, &left).await, [in_p.clone()].as_slice());
    for session in [&in_p, &in_q, &unbound] {
        assert_eq!(end(&world, session, &left).await, *session == in_p, "{session}");
    }
    assert_eq!(world.ask(&host_p, get(&in_p)).await.unwrap_err().reason(), Reason::ProviderAuthFailed);
    world.ask(&host_q, get(&in_q)).await.unwrap();
    world.ask(&host, get(&unbound)).await.unwrap();
    let (mut projects, next) = world
        .ask(&Caller::gateway(), ProjectsOf { owner: OwnerId::parse("ann").unwrap(), before: None })
        .await
        .unwrap();
    projects.sort();
    assert_eq!((projects, next), (vec![project("p"), project("q")], None));
}

async fn where_it_says_so_jobs_are_cancelled(world: World) {
    let (ann, session, held) = world.running().await;
    let queued = world.submit(&ann, &session).await.id;
    let ended = Ended { cancel_jobs: true, ..of("ann") };
    assert!(end(&world, &session, &ended).await);
    let state = async |job| world.ask(&admin(), JobState { job }).await.unwrap();
    let queued = state(queued).await;
    assert!(matches!(&queued.phase, Phase::Ended(end) if end.outcome == Outcome::Cancelled), "{queued:?}");
    let running = state(held.job.clone()).await;
    assert!(matches!(running.phase, Phase::Running(_)) && running.cancel_requested_at.is_some());
    assert!(!end(&world, &session, &ended).await, "nothing is asked twice");
    assert_eq!(world.see(&admin(), &session).await.jobs_in_flight, 1, "until its worker agrees");
}

async fn the_place_in_auths_log_moves_forward_only(world: World) {
    let gateway = Caller::gateway();
    let place = |sequence, issued_before| Place { sequence, issued_before };
    assert_eq!(world.ask(&gateway, ReadFollowed).await.unwrap(), place(0, 0));
    for (to, anew, moved, is) in [
        (place(5, 50), false, true, place(5, 50)),
        (place(3, 40), false, false, place(5, 50)),
        (place(5, 50), true, false, place(5, 50)),
        (place(7, 50), false, true, place(7, 50)),
        // Of another log.
        (place(2, 0), true, true, place(2, 0)),
    ] {
        assert_eq!(world.ok(&gateway, NoteFollowed { place: to, anew }).await, moved, "{to:?}");
        assert_eq!(world.ask(&gateway, ReadFollowed).await.unwrap(), is);
    }
    world.denied(&admin(), NoteFollowed { place: place(9, 9), anew: false }, Reason::Forbidden).await;
    let mut owners = Vec::new();
    for name in ["bob", "ann", "bob"] {
        world.session(&owner(name)).await;
    }
    while let Some(next) = world.ask(&gateway, NextOwner { after: owners.last().cloned() }).await.unwrap() {
        owners.push(next);
    }
    assert_eq!(owners, ["ann", "bob"].map(|name| OwnerId::parse(name).unwrap()));
}
