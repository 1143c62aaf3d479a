//! The log: gap-free, bounded, and read by those who may.

use std::time::Duration;

use interlock_gateway::{
    caller::Caller,
    client::{Ack, CursorOf},
    event::{Entry, From, Part, ReadEvents, SharedEvent},
    ids::SessionId,
    job::Outcome,
    lease::Progress,
    limits::Limits,
    message::{Address, Post},
    store::Signal,
    sweep::DueLogs,
};
use interlock_kit::error::Reason;

use crate::{
    on_every_engine,
    world::{CallerExt as _, Engine, World, cookie, finish, owner, request},
};

on_every_engine!(
    numbers_have_no_gaps_and_signals_say_the_same,
    a_cursor_is_the_clients_own,
    a_moved_session_shows_what_its_reader_may_enter,
);

pub(crate) async fn read(world: &World, caller: &Caller, session: &SessionId, from: From) -> Part {
    world.ask(caller, ReadEvents { session: session.clone(), from, limit: 256 }).await.unwrap()
}

pub(crate) async fn log(world: &World, caller: &Caller, session: &SessionId) -> Vec<SharedEvent> {
    let part = read(world, caller, session, From::After(0)).await;
    let events = part.entries.into_iter().map(|entry| match entry {
        Entry::Event(event) => event,
        Entry::Gap { from, to } => panic!("a gap from {from} to {to}"),
    });
    events.collect()
}

async fn numbers_have_no_gaps_and_signals_say_the_same(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    for _ in 0..3 {
        world.submit(&ann, &session).await;
        let held = world.claim(&ann, "a").await.unwrap().held;
        world.ok(&ann, Progress { held: held.clone(), number: 1, data: vec![0, 255, 7] }).await;
        world.ok(&ann, finish(&held, Outcome::Succeeded)).await;
    }
    let events = log(&world, &ann, &session).await;
    let numbers: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (1..=14).collect::<Vec<_>>());
    assert_eq!(world.see(&ann, &session).await.last_sequence, 14);
    let signalled: Vec<SharedEvent> = world
        .heard
        .signals
        .lock()
        .iter()
        .filter_map(|signal| match signal {
            Signal::Logged { session: of, event } if *of == session => Some(event.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(signalled, events);
    // In small parts it is the same log.
    let (mut parts, mut next) = (Vec::new(), 0);
    loop {
        let verb = ReadEvents { session: session.clone(), from: From::After(next), limit: 3 };
        let part = world.ask(&ann, verb).await.unwrap();
        next = part.next;
        let caught_up = part.caught_up();
        parts.extend(part.entries);
        if caught_up {
            break;
        }
    }
    assert_eq!(parts, events.into_iter().map(Entry::Event).collect::<Vec<_>>());
}

async fn a_cursor_is_the_clients_own(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    let host = cookie(&session, world.number() - 1);
    world.attach(&ann, &session, ("a", "p")).await;
    let ack = |sequence| Ack { session: session.clone(), sequence };
    assert_eq!(world.ok(&host, ack(2)).await, 2);
    assert_eq!(world.ok(&host, ack(1)).await, 2, "it never goes back");
    assert_eq!(world.ask(&host, CursorOf { session: session.clone() }).await.unwrap(), 2);
    world.denied(&host, ack(3), Reason::InvalidField).await;
    world.denied(&ann, ack(1), Reason::Forbidden).await;
    world.submit(&host, &session).await;
    let part = read(&world, &host, &session, From::Cursor).await;
    assert_eq!((part.entries.len(), part.next), (1, 3));
    let from_cursor = ReadEvents { session: session.clone(), from: From::Cursor, limit: 1 };
    world.denied_read(&ann, from_cursor, Reason::InvalidField).await;
}

// DESIGN 14, moving a session
async fn a_moved_session_shows_what_its_reader_may_enter(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let job = world.submit(&ann, &session).await.id;
    let held = world.claim(&ann, "a").await.unwrap().held;
    world.ok(&ann, finish(&held, Outcome::Succeeded)).await;
    world.attach(&ann, &session, ("a", "q")).await;
    assert_eq!(log(&world, &ann, &session).await.len(), 6);
    world.members.remove("ann", "p");
    let part = read(&world, &ann, &session, From::After(0)).await;
    let shown: Vec<_> = part.entries.iter().map(|entry| matches!(entry, Entry::Event(_))).collect();
    assert_eq!(shown, [true, false, true], "created, a gap over what is of p, attached to q");
    assert_eq!(part.entries[1], Entry::Gap { from: 2, to: 5 });
    let state = interlock_gateway::job::JobState { job };
    world.denied_read(&ann.naming("p"), state, Reason::ProjectMismatch).await;
}

// I15, NC-26
#[tokio::test]
async fn what_retention_has_taken_is_a_gap() {
    for engine in [Engine::File, Engine::Missing, Engine::Model, Engine::Postgres] {
        let limits = Limits { log_events_max: 5, event_batch_max: 4, sweep_rows_max: 3, ..Limits::default() };
        let world = World::with(engine, limits);
        let ann = owner("ann");
        world.agent(&ann, "a", false).await;
        let session = world.session(&ann).await;
        world.attach(&ann, &session, ("a", "p")).await;
        for _ in 0..8 {
            world.submit(&ann, &session).await;
        }
        world.sweep().await;
        let part = read(&world, &ann, &session, From::After(2)).await;
        assert_eq!(part.entries[0], Entry::Gap { from: 3, to: 5 });
        assert_eq!((part.entries.len(), part.next, part.last), (5, 9, 10));
        assert_eq!(log_from(&world, &ann, &session, 5).await, 4);
    }
}

// NC-26, issue 7 line 4
#[tokio::test]
async fn what_is_too_old_goes_however_little_it_is() {
    for engine in [Engine::File, Engine::Missing, Engine::Model, Engine::Postgres] {
        let limits = Limits::default();
        let age = limits.log_age_max;
        let world = World::with(engine, limits);
        let ann = owner("ann");
        let session = world.session(&ann).await;
        let post = |text: &str| Post {
            session: session.clone(),
            request: request(text),
            to: Address::All,
            data: text.as_bytes().to_vec().into(),
        };
        world.ok(&ann, post("old")).await;
        world.advance(age / 2);
        world.ok(&ann, post("younger")).await;
        world.advance(age / 2 - Duration::from_millis(1));
        world.sweep().await;
        assert_eq!(log(&world, &ann, &session).await.len(), 3, "{engine:?}: none is too old yet");
        world.advance(Duration::from_millis(1));
        world.sweep().await;
        let part = read(&world, &ann, &session, From::After(0)).await;
        assert_eq!(part.entries[0], Entry::Gap { from: 1, to: 2 }, "{engine:?}");
        assert!(
            matches!(&part.entries[1..], [Entry::Event(event)] if event.sequence == 3),
            "{engine:?}: {:?}",
            part.entries
        );
    }
}

// NC-26, issue 7 line 4
#[tokio::test]
async fn a_log_that_is_too_heavy_loses_its_oldest_events() {
    for engine in [Engine::File, Engine::Missing, Engine::Model, Engine::Postgres] {
        let limits = Limits {
            log_bytes_max: 4_096,
            progress_bytes_max: 1_024,
            message_bytes_max: 1_024,
            ..Limits::default()
        };
        let most = usize::try_from(limits.log_bytes_max).unwrap();
        let world = World::with(engine, limits);
        let (ann, session, held) = world.running().await;
        for number in 1..=12 {
            world.ok(&ann, Progress { held: held.clone(), number, data: vec![7; 1_000] }).await;
        }
        world.sweep().await;
        let part = read(&world, &ann, &session, From::After(0)).await;
        let Entry::Gap { from: 1, to } = part.entries[0] else { panic!("{engine:?}: {:?}", part.entries[0]) };
        let kept: Vec<_> = part.entries[1..]
            .iter()
            .map(|entry| match entry {
                Entry::Event(event) => event,
                Entry::Gap { .. } => panic!("{engine:?}: a second gap"),
            })
            .collect();
        let numbers: Vec<u64> = kept.iter().map(|event| event.sequence).collect();
        assert_eq!(
            numbers,
            (to + 1..=part.last).collect::<Vec<_>>(),
            "{engine:?}: the newest, without a hole"
        );
        // Not one more than has to go: what a line weighs beside its bytes is little.
        assert!((3..=4).contains(&kept.len()) && kept.len() * 1_000 <= most, "{engine:?}: {numbers:?}");
        world.sweep().await;
        assert_eq!(read(&world, &ann, &session, From::After(0)).await.entries, part.entries, "{engine:?}");
    }
}

// Each look goes through a bounded part of the logs, the next one on from there, and around.
#[tokio::test]
async fn looks_at_logs_go_around_in_bounded_parts() {
    for engine in [Engine::File, Engine::Missing, Engine::Model, Engine::Postgres] {
        let limits = Limits {
            log_events_max: 4,
            event_batch_max: 4,
            sweep_rows_max: 2,
            sweep_logs_max: 3,
            ..Limits::default()
        };
        let world = World::with(engine, limits);
        let ann = owner("ann");
        world.agent(&ann, "a", false).await;
        let mut long = Vec::new();
        for number in 0..7 {
            let session = world.session(&ann).await;
            if number != 3 {
                world.attach(&ann, &session, ("a", "p")).await;
                for _ in 0..6 {
                    world.submit(&ann, &session).await;
                }
                long.push(session);
            }
        }
        long.sort();
        let (mut found, mut after, mut looks) = (Vec::new(), None, 0);
        loop {
            let logs = world.ask(&Caller::gateway(), DueLogs { after }).await.unwrap();
            assert!(logs.due.len() <= 2, "a bounded part: {logs:?}");
            found.extend(logs.due);
            looks += 1;
            match logs.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(found, long, "each once, in order, and none that is short");
        assert!(looks >= 3, "{looks} looks at seven logs, three at most in each");
    }
}

async fn log_from(world: &World, caller: &Caller, session: &SessionId, after: u64) -> usize {
    read(world, caller, session, From::After(after)).await.entries.len()
}
