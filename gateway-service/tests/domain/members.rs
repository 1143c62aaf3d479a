//! The clients of a session: passwords, joining, leaving, and what they say to each other.

use std::time::Duration;

use interlock_gateway::{
    caller::Caller,
    client::{Ack, Client, ClientRole, CursorOf, Evict, LeaveCause, ListClients, Quit, Seen},
    event::{Entry, EventKind, From},
    file::{BeginPut, DeleteFile, FilesOf, ListFiles, OpenFile},
    ids::{ClientId, FileId, FileName, SessionId, SessionName},
    job::{Cancel, Outcome},
    join::{Join, Joined},
    message::{Address, Post},
    password::{MaySetPassword, ReadForJoin, SetSessionPassword, Target},
    session::{CloseSession, CreateSession, GetSession, Phase},
    store::Signal,
};
use interlock_kit::error::Reason;

use crate::{
    events::read,
    on_every_engine,
    world::{
        CallerExt as _, World, admin, attach, cookie, finish, hash, nobody, owner, request, session_id, token,
    },
};

on_every_engine!(
    a_password_lets_further_clients_in,
    without_the_password_nobody_joins,
    a_retry_of_a_join_is_the_same_client,
    a_changed_password_keeps_clients_or_takes_them_out,
    what_clients_may_do_is_their_role,
    messages_reach_whom_they_are_for,
    a_message_is_said_once,
    one_client_leaves_and_the_last_one_ends_the_session,
    the_last_quit_waits_for_what_runs,
    an_evicted_client_is_out_and_the_session_stays,
    a_client_that_is_not_seen_is_gone_in_the_end,
    a_session_that_moves_leaves_those_who_joined_behind,
    clients_and_password_leave_no_rows,
);

/// The number of the host's cookie is that of its session.
async fn made(world: &World) -> (SessionId, Caller) {
    let session = world.session(&owner("ann")).await;
    let number = world.number() - 1;
    let host = cookie(&session, number);
    (session, host)
}

fn password(session: &SessionId, joiners: ClientRole) -> SetSessionPassword {
    let hash = "$argon2id$one".to_owned();
    SetSessionPassword { session: session.clone(), hash, joiners, evict_others: false }
}

fn joining(world: &World, session: &SessionId, version: u64) -> (Join, Caller) {
    let number = world.number();
    let join = Join {
        session: session.clone(),
        version,
        client: ClientId::parse(format!("clt_{number:06}")).unwrap(),
        cookie: hash(number),
        sealed: vec![7],
        request: request(&format!("join {number}")),
    };
    (join, cookie(session, number))
}

async fn joined(world: &World, session: &SessionId, version: u64) -> (Joined, Caller) {
    let (join, client) = joining(world, session, version);
    (world.ok(&nobody(), join).await, client)
}

async fn clients(world: &World, caller: &Caller, session: &SessionId) -> Vec<Client> {
    world.ask(caller, ListClients { session: session.clone() }).await.unwrap().clients
}

fn quit(session: &SessionId) -> Quit {
    Quit { session: session.clone() }
}

fn get(session: &SessionId) -> GetSession {
    GetSession { session: session.clone() }
}

// NC-01, NC-04, NC-05, NC-09, NC-10, NC-11, NC-28
async fn a_password_lets_further_clients_in(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let (session, host) = made(&world).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let target = Target::Id(session.clone());
    assert_eq!(world.ask(&nobody(), ReadForJoin { target: target.clone() }).await.unwrap(), None);
    world.ask(&host, MaySetPassword { session: session.clone() }).await.unwrap();
    assert_eq!(world.ok(&host, password(&session, ClientRole::Operator)).await, 0, "by the host");
    world.ok(&ann, password(&session, ClientRole::Operator)).await;
    let stored = world.ask(&nobody(), ReadForJoin { target }).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.hash.as_str()), (2, "$argon2id$one"));

    let (joined, second) = joined(&world, &session, stored.version).await;
    assert_eq!(joined.seen.session.id, session);
    assert_eq!(joined.seen.session.binding.as_ref().map(|b| b.agent.as_str()), Some("a"), "the same session");
    assert_eq!((joined.client.role, joined.client.cursor), (ClientRole::Operator, 0));
    assert_eq!(joined.clients, clients(&world, &host, &session).await, "told to the newcomer");
    assert_eq!(joined.clients.len(), 2);
    let history = read(&world, &second, &session, From::Cursor).await;
    assert_eq!(history.last, joined.seen.last_sequence, "all that was before");
    assert!(
        matches!(history.entries.last(), Some(Entry::Event(event)) if event.kind == EventKind::ClientJoined { client: joined.client.id.clone() })
    );
    // Cursors are each client's own.
    world.ok(&second, Ack { session: session.clone(), sequence: 3 }).await;
    assert_eq!(world.ask(&second, CursorOf { session: session.clone() }).await.unwrap(), 3);
    assert_eq!(world.ask(&host, CursorOf { session: session.clone() }).await.unwrap(), 0);
    world.submit(&second, &session).await;
}

// NC-13, NC-14
async fn without_the_password_nobody_joins(world: World) {
    let (session, host) = made(&world).await;
    let (join, _) = joining(&world, &session, 0);
    world.denied(&nobody(), join, Reason::InvalidCredentials).await;
    world.ok(&host, password(&session, ClientRole::Operator)).await;
    let (join, _) = joining(&world, &session, 2);
    world.denied(&nobody(), join, Reason::InvalidCredentials).await;
    let (join, _) = joining(&world, &session_id(999_999), 1);
    world.denied(&nobody(), join, Reason::InvalidCredentials).await;

    let (owner_id, name) = (owner("ann").owner().unwrap(), SessionName::parse("desk").unwrap());
    let named = Target::Named(owner_id, name.clone());
    assert_eq!(world.ask(&nobody(), ReadForJoin { target: named.clone() }).await.unwrap(), None);
    let number = world.number();
    let create = CreateSession {
        id: session_id(number),
        client: ClientId::parse(format!("clt_{number:06}")).unwrap(),
        cookie: hash(number),
        sealed: vec![1],
        name: Some(name),
        request: request("named"),
        owner: None,
    };
    world.ok(&owner("ann"), create).await;
    world.ok(&owner("ann"), password(&session_id(number), ClientRole::Observer)).await;
    let found = world.ask(&nobody(), ReadForJoin { target: named.clone() }).await.unwrap().unwrap();
    assert_eq!(found.session, session_id(number), "by its owner and its name");
    world.ok(&owner("ann"), CloseSession { session: session_id(number), force: false }).await;
    assert_eq!(world.ask(&nobody(), ReadForJoin { target: named }).await.unwrap(), None, "gone");
    let (join, _) = joining(&world, &session_id(number), 1);
    world.denied(&nobody(), join, Reason::InvalidCredentials).await;

    // Hosts are not made by joining, and strangers set no password.
    world.denied(&host, password(&session, ClientRole::Host), Reason::InvalidField).await;
    world.denied(&owner("bob"), password(&session, ClientRole::Operator), Reason::OwnerMismatch).await;
    let may = MaySetPassword { session: session.clone() };
    world.denied_read(&token("bob", "p"), may, Reason::OwnerMismatch).await;
}

async fn a_retry_of_a_join_is_the_same_client(world: World) {
    let (session, host) = made(&world).await;
    world.ok(&host, password(&session, ClientRole::Operator)).await;
    let (join, client) = joining(&world, &session, 1);
    let first = world.ok(&nobody(), join.clone()).await;
    let again = Join { client: ClientId::parse("clt_other").unwrap(), cookie: hash(77), ..join.clone() };
    let second = world.ok(&nobody(), again.clone()).await;
    assert_eq!((&second.client, &second.sealed), (&first.client, &first.sealed));
    assert_eq!(clients(&world, &host, &session).await.len(), 2);
    world.ok(&client, quit(&session)).await;
    world.denied(&nobody(), again, Reason::RequestIdReused).await;
    // There is a bound on clients.
    let limit = world.shell.limits().clients_max;
    for _ in clients(&world, &host, &session).await.len()..limit {
        joined(&world, &session, 1).await;
    }
    let (join, _) = joining(&world, &session, 1);
    world.denied(&nobody(), join, Reason::LimitReached).await;
}

// NC-06, NC-07, NC-29
async fn a_changed_password_keeps_clients_or_takes_them_out(world: World) {
    let (session, host) = made(&world).await;
    world.ok(&host, password(&session, ClientRole::Operator)).await;
    let (_, second) = joined(&world, &session, 1).await;
    world.ok(&host, password(&session, ClientRole::Observer)).await;
    let (join, _) = joining(&world, &session, 1);
    world.denied(&nobody(), join, Reason::InvalidCredentials).await;
    let (third, _) = joined(&world, &session, 2).await;
    assert_eq!(third.client.role, ClientRole::Observer);
    world.ask(&second, get(&session)).await.expect("it stays");
    world.ask(&host, get(&session)).await.expect("a password changes no credential");

    let strict = SetSessionPassword { evict_others: true, ..password(&session, ClientRole::Operator) };
    assert_eq!(world.ok(&host, strict.clone()).await, 2);
    assert_eq!(clients(&world, &host, &session).await.len(), 1);
    assert_eq!(world.ask(&second, get(&session)).await.unwrap_err().reason(), Reason::ProviderAuthFailed);
    // By the owner without a client, all are others; the session stays.
    assert_eq!(world.ok(&owner("ann"), strict).await, 1);
    assert_eq!(world.see(&owner("ann"), &session).await.session.phase, Phase::Open);
}

// DESIGN 14.4
async fn what_clients_may_do_is_their_role(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let (session, host) = made(&world).await;
    world.attach(&ann, &session, ("a", "p")).await;
    world.ok(&host, password(&session, ClientRole::Operator)).await;
    let (_, operator) = joined(&world, &session, 1).await;
    world.ok(&host, password(&session, ClientRole::Observer)).await;
    let (_, observer) = joined(&world, &session, 2).await;

    let own = world.submit(&operator, &session).await;
    let other = world.submit(&host, &session).await;
    world.denied(&operator, Cancel { job: other.id.clone() }, Reason::Forbidden).await;
    world.ok(&operator, Cancel { job: own.id }).await;
    let say = |caller: &Caller| {
        let (request, data) = (request(&format!("{:?}", caller.cookie)[..60]), b"hello".to_vec().into());
        Post { session: session.clone(), request, to: Address::All, data }
    };
    world.ok(&operator, say(&operator)).await;
    world.denied(&observer, say(&observer), Reason::Forbidden).await;
    world.denied(&observer, world.submission(&session), Reason::Forbidden).await;
    world.denied(&observer, Cancel { job: other.id.clone() }, Reason::Forbidden).await;
    world.ask(&observer, get(&session)).await.expect("it reads");
    assert_eq!(clients(&world, &observer, &session).await.len(), 3);
    // Its own cursor and the log; of files, and of what others say in its name, nothing.
    assert_eq!(world.ok(&observer, Ack { session: session.clone(), sequence: 2 }).await, 2);
    assert!(!read(&world, &observer, &session, From::Cursor).await.entries.is_empty());
    let of = FilesOf::Session(session.clone());
    let name = FileName::parse("a").unwrap();
    let list = || ListFiles { of: of.clone(), page_size: 0, page_token: String::new() };
    let begin = || BeginPut { of: of.clone(), id: FileId::new(), name: name.clone(), size: None };
    let delete = || DeleteFile { of: of.clone(), name: name.clone() };
    world.denied_read(&observer, list(), Reason::Forbidden).await;
    world.denied_read(&observer, OpenFile { of: of.clone(), name: name.clone() }, Reason::Forbidden).await;
    world.denied(&observer, begin(), Reason::Forbidden).await;
    world.denied(&observer, delete(), Reason::Forbidden).await;
    for above in [&operator, &host] {
        world.ask(above, list()).await.expect("files are its business");
        world.ok(above, begin()).await;
        world.ok(above, delete()).await;
    }
    for below in [&operator, &observer] {
        world.denied(below, attach(&session, ("a", "q")), Reason::Forbidden).await;
        world.denied(below, password(&session, ClientRole::Operator), Reason::Forbidden).await;
        let host = clients(&world, below, &session).await[0].id.clone();
        world.denied(below, Evict { session: session.clone(), client: host }, Reason::Forbidden).await;
        world.denied(below, CloseSession { session: session.clone(), force: true }, Reason::Forbidden).await;
    }
    world.denied(&ann, quit(&session), Reason::Forbidden).await;
    world.ok(&observer, quit(&session)).await;
    // The host has what its owner has: it cancels anybody's job, attaches, takes out, and ends it.
    let anybodys = world.submit(&operator, &session).await;
    world.ok(&host, Cancel { job: anybodys.id }).await;
    world.ok(&host, Cancel { job: other.id }).await;
    world.agent(&ann, "b", false).await;
    assert!(world.ok(&host, attach(&session, ("b", "p"))).await.changed);
    let joined = clients(&world, &host, &session).await.into_iter().find(|c| c.role == ClientRole::Operator);
    let evict = Evict { session: session.clone(), client: joined.unwrap().id };
    assert!(world.ok(&host, evict).await);
    assert!(world.ok(&host, CloseSession { session, force: false }).await.gone);
}

/// What of the messages a reader gets, and what is a gap to it.
async fn heard(world: &World, reader: &Caller, session: &SessionId) -> Vec<String> {
    let part = read(world, reader, session, From::After(0)).await;
    let heard = part.entries.into_iter().filter_map(|entry| match entry {
        Entry::Event(event) => match &event.kind {
            EventKind::Message { data, .. } => Some(String::from_utf8(data.to_vec()).unwrap()),
            _ => None,
        },
        Entry::Gap { from, to } => Some(format!("gap of {}", to + 1 - from)),
    });
    heard.collect()
}

// NC-12
async fn messages_reach_whom_they_are_for(world: World) {
    let ann = owner("ann");
    let (session, host) = made(&world).await;
    world.ok(&host, password(&session, ClientRole::Operator)).await;
    let (second, by_second) = joined(&world, &session, 1).await;
    let (_, by_third) = joined(&world, &session, 1).await;
    let post = |to: Address, text: &str| {
        let data = text.as_bytes().to_vec().into();
        Post { session: session.clone(), request: request(text), to, data }
    };
    world.ok(&host, post(Address::All, "to all")).await;
    let place = world.ok(&host, post(Address::One(second.client.id.clone()), "to one")).await;
    assert_eq!(place, world.see(&ann, &session).await.last_sequence);
    world.ok(&by_second, post(Address::Others, "to the others")).await;
    world.ok(&ann, post(Address::Others, "by the owner")).await;
    assert_eq!(heard(&world, &host, &session).await, ["to all", "gap of 1", "to the others", "by the owner"]);
    assert_eq!(heard(&world, &by_second, &session).await, ["to all", "to one", "gap of 1", "by the owner"]);
    assert_eq!(
        heard(&world, &by_third, &session).await,
        ["to all", "gap of 1", "to the others", "by the owner"]
    );
    assert_eq!(heard(&world, &ann, &session).await, ["to all", "gap of 1", "to the others", "gap of 1"]);
}

async fn a_message_is_said_once(world: World) {
    let (session, host) = made(&world).await;
    let post = |text: &[u8]| {
        let (request, data) = (request("r"), text.to_vec().into());
        Post { session: session.clone(), request, to: Address::All, data }
    };
    let place = world.ok(&host, post(b"once")).await;
    assert_eq!(world.ok(&host, post(b"once")).await, place);
    world.denied(&host, post(b"another"), Reason::RequestIdReused).await;
    world.denied(&host, post(b""), Reason::MissingField).await;
    world.denied(&host, post(&vec![0; 16 * 1024 + 1]), Reason::InvalidField).await;
    let nobody = Address::One(ClientId::parse("clt_nobody").unwrap());
    world.denied(&host, Post { to: nobody, request: request("s"), ..post(b"x") }, Reason::NotFound).await;
    assert_eq!(heard(&world, &host, &session).await, ["once"]);
}

// NC-15, NC-16, NC-17, NC-18, NC-19
async fn one_client_leaves_and_the_last_one_ends_the_session(world: World) {
    let ann = owner("ann");
    let name = SessionName::parse("desk").unwrap();
    let create = |number: u64| CreateSession {
        id: session_id(number),
        client: ClientId::parse(format!("clt_{number:06}")).unwrap(),
        cookie: hash(number),
        sealed: vec![1],
        name: Some(name.clone()),
        request: request(&format!("r{number}")),
        owner: None,
    };
    world.ok(&ann, create(501)).await;
    let (session, host) = (session_id(501), cookie(&session_id(501), 501));
    world.ok(&host, password(&session, ClientRole::Operator)).await;
    let (_, second) = joined(&world, &session, 1).await;
    let left = world.ok(&host, quit(&session)).await;
    assert!(!left.session_ends);
    assert_eq!(world.ask(&host, get(&session)).await.unwrap_err().reason(), Reason::ProviderAuthFailed);
    let last = read(&world, &second, &session, From::After(0)).await.entries;
    let cause = LeaveCause::Quit;
    assert!(
        matches!(last.last(), Some(Entry::Event(event)) if matches!(&event.kind, EventKind::ClientLeft { cause: of, .. } if *of == cause))
    );
    world.denied(&ann, create(502), Reason::NameTaken).await;

    let left = world.ok(&second, quit(&session)).await;
    assert_eq!((left.session_ends, left.jobs_in_flight), (true, 0), "a password keeps nothing alive");
    world.denied_read(&ann, get(&session), Reason::OwnerMismatch).await;
    assert!(world.heard.signals.lock().contains(&Signal::SessionGone { session }));
    world.ok(&ann, create(503)).await;
}

async fn the_last_quit_waits_for_what_runs(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let (session, host) = made(&world).await;
    world.attach(&ann, &session, ("a", "p")).await;
    world.ok(&host, password(&session, ClientRole::Operator)).await;
    world.submit(&host, &session).await;
    let running = world.claim(&ann, "a").await.unwrap().held;
    let queued = world.submit(&host, &session).await;
    let left = world.ok(&host, quit(&session)).await;
    assert_eq!((left.session_ends, left.jobs_in_flight), (true, 1));
    let of = |phase: interlock_gateway::job::Phase| matches!(phase, interlock_gateway::job::Phase::Ended(end) if end.outcome == Outcome::Cancelled);
    assert!(of(world.job(&ann, &queued.id).await.phase), "the queued one is cancelled");
    assert!(world.job(&ann, &running.job).await.cancel_requested_at.is_some(), "the running one is asked");
    assert_eq!(world.see(&ann, &session).await.session.phase, Phase::Closing);
    let (join, _) = joining(&world, &session, 1);
    world.denied(&nobody(), join, Reason::SessionClosing).await;
    world.denied(&ann, password(&session, ClientRole::Operator), Reason::SessionClosing).await;
    world.ok(&ann, finish(&running, Outcome::Cancelled)).await;
    world.sweep().await;
    world.denied_read(&ann, get(&session), Reason::OwnerMismatch).await;
}

async fn an_evicted_client_is_out_and_the_session_stays(world: World) {
    let (session, host) = made(&world).await;
    world.ok(&host, password(&session, ClientRole::Operator)).await;
    let (second, by_second) = joined(&world, &session, 1).await;
    let evict = Evict { session: session.clone(), client: second.client.id };
    assert!(world.ok(&host, evict.clone()).await);
    assert!(!world.ok(&host, evict).await, "again is no error");
    assert_eq!(world.ask(&by_second, get(&session)).await.unwrap_err().reason(), Reason::ProviderAuthFailed);
    let own = clients(&world, &host, &session).await[0].id.clone();
    assert!(world.ok(&admin(), Evict { session: session.clone(), client: own }).await, "by who reaches all");
    assert_eq!(world.see(&owner("ann"), &session).await.session.phase, Phase::Open);
}

// NC-19, NC-20
async fn a_client_that_is_not_seen_is_gone_in_the_end(world: World) {
    let ann = owner("ann");
    let idle = world.shell.limits().client_idle_max;
    let (session, host) = made(&world).await;
    world.ok(&host, password(&session, ClientRole::Operator)).await;
    let (second, by_second) = joined(&world, &session, 1).await;
    assert!(!world.ok(&by_second, Seen).await, "it was seen just now");
    world.advance(idle / 2);
    assert!(world.ok(&by_second, Seen).await);
    assert_eq!(clients(&world, &ann, &session).await[1].seen_at, world.clock.now());
    world.advance(idle / 2);
    assert_eq!(world.ask(&host, get(&session)).await.unwrap_err().reason(), Reason::TokenExpired);
    assert!(!world.ok(&host, Seen).await, "too late");
    world.sweep().await;
    assert_eq!(world.ask(&host, get(&session)).await.unwrap_err().reason(), Reason::ProviderAuthFailed);
    let left: Vec<_> = clients(&world, &by_second, &session).await.into_iter().map(|c| c.id).collect();
    assert_eq!(left, [second.client.id]);
    let last = read(&world, &by_second, &session, From::After(0)).await.entries.pop();
    assert!(
        matches!(last, Some(Entry::Event(event)) if matches!(event.kind, EventKind::ClientLeft { cause: LeaveCause::Idle, .. }))
    );
    world.advance(idle / 2);
    world.sweep().await;
    world.denied_read(&ann, get(&session), Reason::OwnerMismatch).await;
}

// DESIGN 14, "Moving a session"
async fn a_session_that_moves_leaves_those_who_joined_behind(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    world.agent(&ann, "b", false).await;
    let (session, host) = made(&world).await;
    world.ok(&host, password(&session, ClientRole::Operator)).await;
    let (_, second) = joined(&world, &session, 1).await;
    world.attach(&ann, &session, ("a", "p")).await;
    world.attach(&ann, &session, ("b", "p")).await;
    world.ask(&second, get(&session)).await.expect("the first project, and another agent, move nobody");
    let kept = interlock_gateway::binding::Attach { keep_clients: true, ..attach(&session, ("b", "q")) };
    world.ok(&ann.clone().naming("q"), kept).await;
    world.ask(&second, get(&session)).await.expect("kept");
    let attached = world.attach(&ann, &session, ("b", "p")).await;
    assert_eq!(attached.seen.last_sequence, world.see(&ann, &session).await.last_sequence);
    assert_eq!(world.ask(&second, get(&session)).await.unwrap_err().reason(), Reason::ProviderAuthFailed);
    world.ask(&host, get(&session)).await.expect("the host goes along");
}

async fn clients_and_password_leave_no_rows(world: World) {
    let before = world.rows();
    let (session, host) = made(&world).await;
    world.ok(&host, password(&session, ClientRole::Operator)).await;
    for _ in 0..3 {
        joined(&world, &session, 1).await;
    }
    let data = b"hello".to_vec().into();
    let post = Post { session: session.clone(), request: request("r"), to: Address::All, data };
    world.ok(&host, post).await;
    world.ok(&owner("ann"), CloseSession { session, force: false }).await;
    world.sweep().await;
    world.advance(Duration::from_secs(24 * 3600));
    world.sweep().await;
    assert_eq!(world.rows(), before);
}
