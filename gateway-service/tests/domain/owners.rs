//! Whose is what: the matrix of session-taking verbs by callers.

use interlock_gateway::{
    adopt::AdoptSession,
    agent::{GetAgent, ListAgents, RemoveAgent, SetAgent},
    binding::Attach,
    caller::Caller,
    client::Ack,
    event::{From, ReadEvents},
    ids::{ClientId, JobId, OwnerId, SessionId, SessionName},
    job::{Cancel, GetJob, JobState, ListJobs, Outcome},
    session::{CloseSession, CreateSession, GetSession, ListSessions},
};
use interlock_kit::error::Reason;

use crate::{
    on_every_engine,
    world::{CallerExt as _, World, admin, agent, cookie, hash, owner, project, request, root, token, user},
};

on_every_engine!(
    a_stranger_and_the_unknown_get_one_answer,
    administrators_reach_others_by_token_or_elevation,
    a_cookie_acts_in_its_session_only,
    a_cookie_beside_a_bearer_leads_to_the_same_owner,
    a_session_is_made_for_oneself,
    agents_are_their_owners,
    lists_are_ones_own,
    a_session_of_an_unknown_owner_is_adopted_by_administrators,
    an_agent_is_removed_by_its_owner_and_not_while_it_is_busy,
);

/// Every verb and query that takes a session or a job, refused with this reason.
async fn all_denied(
    world: &World,
    caller: &Caller,
    session: &SessionId,
    job: &JobId,
    reason: Reason,
) -> Vec<String> {
    let id = || session.clone();
    let attach = Attach { session: id(), agent: agent("a"), project: project("p"), keep_clients: false };
    let list = ListJobs { session: id(), in_flight: false, page_size: 0, page_token: String::new() };
    let stream = ReadEvents { session: id(), from: From::After(0), limit: 1 };
    let mut said = vec![
        world.denied(caller, attach, reason).await,
        world.denied(caller, CloseSession { session: id(), force: true }, reason).await,
        world.denied(caller, world.submission(session), reason).await,
        world.denied(caller, Ack { session: id(), sequence: 1 }, reason).await,
        world.denied(caller, Cancel { job: job.clone() }, reason).await,
    ];
    said.push(world.denied_read(caller, GetSession { session: id() }, reason).await);
    said.push(world.denied_read(caller, stream, reason).await);
    said.push(world.denied_read(caller, list, reason).await);
    said.push(world.denied_read(caller, GetJob { job: job.clone() }, reason).await);
    said.push(world.denied_read(caller, JobState { job: job.clone() }, reason).await);
    said.iter().map(ToString::to_string).collect()
}

// UA-03, UA-10, UA-19, I11, I12
async fn a_stranger_and_the_unknown_get_one_answer(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let job = world.submit(&ann, &session).await.id;
    let nowhere = crate::world::session_id(999_999);
    let nothing = JobId::parse("job_999999").unwrap();
    for caller in [owner("bob"), user(), root("rosa", false), token("bob", "p")] {
        let foreign =
            all_denied(&world, &caller.clone().naming("p"), &session, &job, Reason::OwnerMismatch).await;
        let unknown =
            all_denied(&world, &caller.naming("p"), &nowhere, &nothing, Reason::OwnerMismatch).await;
        assert_eq!(foreign, unknown, "no oracle");
    }
    // Owner is decided before project (DESIGN 14.5).
    world.denied_read(&token("bob", "q"), GetSession { session }, Reason::OwnerMismatch).await;
}

// DESIGN 14.1
async fn administrators_reach_others_by_token_or_elevation(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let nowhere = crate::world::session_id(999_999);
    for caller in [admin(), root("rosa", true)] {
        let seen = world.see(&caller.clone().naming("p"), &session).await;
        assert_eq!(seen.session.owner.as_str(), "ann");
        world.denied_read(&caller, GetSession { session: nowhere.clone() }, Reason::NotFound).await;
    }
}

// DESIGN 14.4
async fn a_cookie_acts_in_its_session_only(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    let number = world.number() - 1;
    let host = cookie(&session, number).naming("p");
    world.ok(&host, crate::world::attach(&session, ("a", "p"))).await;
    let job = world.submit(&host, &session).await.id;
    world.see(&host, &session).await;
    world.ok(&host, Cancel { job: job.clone() }).await;
    let other = world.session(&ann).await;
    world.denied_read(&host, GetSession { session: other.clone() }, Reason::OwnerMismatch).await;
    // A wrong cookie, or one under another session's name, proves nothing: no row for nobody.
    for caller in [cookie(&session, 12345), cookie(&other, number)] {
        let rows = world.audit().map(|rows| rows.len());
        let error = world.ask(&caller, GetSession { session: session.clone() }).await.err().unwrap();
        assert_eq!(error.reason(), Reason::ProviderAuthFailed);
        assert_eq!(world.audit().map(|rows| rows.len()), rows);
    }
    let list = ListSessions { page_size: 0, page_token: String::new(), owner: None };
    assert_eq!(world.ask(&host, list).await.err().unwrap().reason(), Reason::Forbidden);
    // It is gone with its session.
    world.ok(&host, CloseSession { session: session.clone(), force: false }).await;
    let error = world.ask(&host, GetSession { session }).await.err().unwrap();
    assert_eq!(error.reason(), Reason::ProviderAuthFailed);
}

async fn a_cookie_beside_a_bearer_leads_to_the_same_owner(world: World) {
    let (ann, bob) = (owner("ann"), owner("bob"));
    let session = world.session(&ann).await;
    let both = |caller: &Caller| Caller { cookie: cookie(&session, 1).cookie, ..caller.clone() };
    world.see(&both(&ann), &session).await;
    assert_eq!(world.ok(&both(&ann), Ack { session: session.clone(), sequence: 1 }).await, 1);
    for caller in [&bob, &admin()] {
        world
            .denied_read(&both(caller), GetSession { session: session.clone() }, Reason::ProviderAuthFailed)
            .await;
    }
}

fn creation(world: &World, name: &str, key: &str) -> CreateSession {
    let number = world.number();
    CreateSession {
        id: crate::world::session_id(number),
        client: interlock_gateway::ids::ClientId::parse(format!("clt_{number:06}")).unwrap(),
        cookie: hash(number),
        sealed: number.to_be_bytes().to_vec(),
        name: (!name.is_empty()).then(|| interlock_gateway::ids::SessionName::parse(name).unwrap()),
        request: request(key),
        owner: None,
    }
}

// UA-18, NC-02, I7
async fn a_session_is_made_for_oneself(world: World) {
    let ann = owner("ann");
    let bob = Some(OwnerId::parse("bob").unwrap());
    world.denied(&ann, CreateSession { owner: bob, ..creation(&world, "", "k") }, Reason::Forbidden).await;
    let first = world.ok(&ann, creation(&world, "desk", "k")).await;
    assert_eq!(first.seen.last_sequence, 1);
    let again = world.ok(&ann, creation(&world, "desk", "k")).await;
    assert!(!again.first);
    assert_eq!((again.seen, again.client, again.sealed), (first.seen.clone(), first.client, first.sealed));
    world.denied(&ann, creation(&world, "other", "k"), Reason::RequestIdReused).await;
    world.denied(&ann, creation(&world, "desk", "k2"), Reason::NameTaken).await;
    // Another owner's names and request ids are its own.
    assert!(world.ok(&owner("bob"), creation(&world, "desk", "k")).await.first);
    let made = world.ok(&token("ann", "p"), creation(&world, "", "k3")).await;
    assert_eq!(made.seen.session.owner.as_str(), "ann");
    // After ten minutes the answer is forgotten, and the id is free.
    world.advance(std::time::Duration::from_secs(600));
    world.denied(&ann, creation(&world, "desk", "k"), Reason::NameTaken).await;
}

async fn agents_are_their_owners(world: World) {
    let (ann, bob) = (owner("ann"), owner("bob"));
    let set = |name: &str, shared| SetAgent { agent: agent(name), shared, description: Some("d".to_owned()) };
    assert!(world.ok(&ann, set("a", None)).await.created);
    assert!(!world.ok(&ann, set("a", None)).await.created);
    world.denied(&ann, set("a", Some(true)), Reason::Forbidden).await;
    world.denied(&bob, set("a", None), Reason::Forbidden).await;
    world.denied(&bob, set("primary", None), Reason::RootRequired).await;
    world.denied(&token("ann", "p"), set("b", None), Reason::Forbidden).await;
    assert!(world.ok(&admin(), set("a", Some(true))).await.seen.agent.shared);
    let listed = |page: interlock_gateway::agent::AgentPage| -> Vec<String> {
        page.agents.into_iter().map(|seen| seen.agent.id.to_string()).collect()
    };
    world.ok(&bob, set("b", None)).await;
    let list = || ListAgents { page_size: 0, page_token: String::new() };
    assert_eq!(listed(world.ask(&ann, list()).await.unwrap()), ["a"]);
    assert_eq!(listed(world.ask(&bob, list()).await.unwrap()), ["a", "b"]);
    assert_eq!(listed(world.ask(&admin(), list()).await.unwrap()), ["a", "b", "primary"]);
    world.ask(&bob, GetAgent { agent: agent("a") }).await.unwrap();
    for name in ["b", "unknown", "primary"] {
        world.denied_read(&ann, GetAgent { agent: agent(name) }, Reason::Forbidden).await;
    }
}

async fn lists_are_ones_own(world: World) {
    let (ann, bob) = (owner("ann"), owner("bob"));
    world.agent(&ann, "a", false).await;
    let unbound = world.session(&ann).await;
    let in_p = world.session(&ann).await;
    let in_q = world.session(&ann).await;
    world.attach(&ann, &in_p, ("a", "p")).await;
    world.attach(&ann, &in_q, ("a", "q")).await;
    world.session(&bob).await;
    let list = |owner: Option<&str>| ListSessions {
        page_size: 2,
        page_token: String::new(),
        owner: owner.map(|owner| OwnerId::parse(owner).unwrap()),
    };
    let all = async |caller: &Caller, owner: Option<&str>| {
        let (mut ids, mut verb) = (Vec::new(), list(owner));
        loop {
            let page = world.ask(caller, verb.clone()).await.unwrap();
            ids.extend(page.sessions.into_iter().map(|seen| seen.session.id));
            if page.next_page_token.is_empty() {
                return ids;
            }
            verb.page_token = page.next_page_token;
        }
    };
    assert_eq!(all(&ann, None).await, [in_q.clone(), in_p.clone(), unbound.clone()]);
    assert_eq!(all(&ann.clone().naming("p"), None).await, [in_p.clone(), unbound.clone()]);
    assert_eq!(all(&token("ann", "q"), None).await, [in_q, unbound.clone()]);
    assert_eq!(all(&admin().naming("p"), Some("ann")).await, [in_p, unbound]);
    world.denied_read(&bob, list(Some("ann")), Reason::OwnerMismatch).await;
}

// UA-48
async fn a_session_of_an_unknown_owner_is_adopted_by_administrators(world: World) {
    let lost = owner("lost");
    let create = |caller: &str, number: u64| CreateSession {
        id: crate::world::session_id(number),
        client: ClientId::parse(format!("clt_{number:06}")).unwrap(),
        cookie: hash(number),
        sealed: vec![1],
        name: Some(SessionName::parse("desk").unwrap()),
        request: crate::world::request(&format!("r {caller}")),
        owner: None,
    };
    world.ok(&lost, create("lost", 701)).await;
    let (session, host) = (crate::world::session_id(701), cookie(&crate::world::session_id(701), 701));
    world.agent(&lost, "l", false).await;
    world.members.add("lost", "q");
    world.members.add("rosa", "q");
    world.attach(&lost, &session, ("l", "q")).await;
    let job = world.submit(&host, &session).await.id;
    let adopt =
        |to: &str| AdoptSession { session: session.clone(), owner: Some(OwnerId::parse(to).unwrap()) };
    for caller in [owner("bob"), lost.clone(), user(), token("lost", "q"), host.clone()] {
        world.denied(&caller, adopt("bob"), Reason::Forbidden).await;
    }
    world.denied(&root("rosa", false), adopt("bob"), Reason::RootRequired).await;
    let unknown = AdoptSession { session: crate::world::session_id(999_999), owner: None };
    world.denied(&admin(), unknown, Reason::NotFound).await;
    // Reachable for administrators, and it waits for its jobs.
    assert_eq!(world.see(&admin(), &session).await.session.owner.as_str(), "lost");
    world.denied(&admin(), adopt("bob"), Reason::SessionBusy).await;
    world.ok(&lost, Cancel { job: job.clone() }).await;
    for nobody in ["idle", "never"] {
        world.denied(&admin(), adopt(nobody), Reason::InvalidField).await;
    }
    // Of owners who are known, active or not, nothing is taken.
    for known in ["ann", "idle"] {
        let theirs = world.session(&owner(known)).await;
        let take = AdoptSession { session: theirs, owner: Some(OwnerId::parse("bob").unwrap()) };
        world.denied(&admin(), take, Reason::Forbidden).await;
    }

    let adopted = world.ok(&root("rosa", true).naming("q"), adopt("bob")).await;
    assert_eq!((adopted.seen.session.owner.as_str(), adopted.evicted), ("bob", 1));
    assert_eq!(adopted.seen.session.name.as_ref().map(SessionName::as_str), Some("desk"));
    let last = adopted.seen.last_sequence;
    assert_eq!(world.see(&admin(), &session).await.last_sequence, last, "told as it is stored");
    assert_eq!(world.ok(&admin(), adopt("bob")).await.evicted, 0, "repeating it is no error");
    let bob = owner("bob");
    assert_eq!(world.see(&bob, &session).await.session.id, session);
    assert!(world.ask(&host, GetSession { session: session.clone() }).await.is_err(), "no client of before");
    world.denied_read(&lost, GetSession { session: session.clone() }, Reason::OwnerMismatch).await;
    assert_eq!(world.job(&bob.clone().naming("q"), &job).await.id, job, "with what is in it");
    // The name is bob's now, and free for whoever is called like its first owner; the first answer is not theirs.
    world.denied(&bob, create("bob", 702), Reason::NameTaken).await;
    world.denied(&lost, create("lost", 701), Reason::NotFound).await;
    // A name that the new owner has is not carried along.
    let other = CreateSession { request: crate::world::request("another"), ..create("lost", 703) };
    world.ok(&lost, other).await;
    let take =
        AdoptSession { session: crate::world::session_id(703), owner: Some(OwnerId::parse("bob").unwrap()) };
    assert_eq!(world.ok(&admin(), take).await.seen.session.name, None);
}

async fn an_agent_is_removed_by_its_owner_and_not_while_it_is_busy(world: World) {
    let (ann, session, held) = world.running().await;
    let idle = world.session(&ann).await;
    world.attach(&ann, &idle, ("a", "p")).await;
    let remove = |name: &str| RemoveAgent { agent: agent(name) };
    let busy = world.denied(&ann, remove("a"), Reason::SessionBusy).await;
    assert!(busy.to_string().contains("wait for them"), "{busy}");
    for caller in [owner("bob"), user(), root("rosa", false), token("ann", "p")] {
        let foreign = world.denied(&caller, remove("a"), Reason::Forbidden).await;
        let unknown = world.denied(&caller, remove("nothing"), Reason::Forbidden).await;
        assert_eq!(foreign.to_string(), unknown.to_string(), "no oracle");
    }
    world.denied(&admin(), remove("nothing"), Reason::NotFound).await;
    world.denied(&ann, remove("primary"), Reason::RootRequired).await;
    world.denied(&admin(), remove("primary"), Reason::Forbidden).await;

    world.ok(&ann, crate::world::finish(&held, Outcome::Succeeded)).await;
    world.ok(&ann, remove("a")).await;
    world.denied(&ann, remove("a"), Reason::Forbidden).await;
    world.denied_read(&ann, GetAgent { agent: agent("a") }, Reason::Forbidden).await;
    // Who is bound to it stays so, takes no job, and goes elsewhere.
    let submit = world.submission(&session);
    world.denied(&ann, submit, Reason::Forbidden).await;
    world.agent(&ann, "b", false).await;
    assert!(world.attach(&ann, &session, ("b", "p")).await.changed);
    world.submit(&ann, &session).await;
    // Its name is free; what another one makes of it is not hers.
    world.agent(&owner("bob"), "a", false).await;
    world.denied(&ann, remove("a"), Reason::Forbidden).await;
    world.denied(&ann, world.submission(&idle), Reason::Forbidden).await;
    world.ok(&admin(), remove("a")).await;
    // Hers again, and so is the work of who stayed bound to it.
    world.agent(&ann, "a", false).await;
    world.submit(&ann, &idle).await;
}
