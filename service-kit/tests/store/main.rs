//! What every store promises, shown on the smallest domain: named counters.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use interlock_kit::{
    clock::{Clock, Timestamp},
    config::Profile,
    error::{Error, Reason},
    store::{
        Fault, Halt, Observer, Ran, Stop, Store,
        audit::{ChainKey, Outcome, Row},
        model,
        postgres::{self, Target},
        sqlite::{self, Damage, Filter, Options, Place},
        writer::QueueLimits,
    },
};
use parking_lot::Mutex;

use cluster::Cluster;
use counters::{Counters, Ear, Rows, Set, add, entry, read};

mod cluster;
mod copied;
mod counters;
mod epochs;
mod fenced;
mod guarded;
mod logs;
mod postgresql;
mod proxy;
mod shared;
mod twins;

const KEY: [u8; 32] = [7; 32];

fn options(place: Place) -> Options {
    Options {
        place,
        clock: Clock::system(),
        chain_key: ChainKey::new(KEY),
        limits: QueueLimits::default(),
        inline: false,
        inject_misses: false,
    }
}

/// On the database behind this URL.
fn on(url: &str) -> postgres::Options {
    postgres::Options {
        target: Target::parse(url, Profile::Hardened).expect("a URL of ours"),
        sharing: postgres::Sharing::Alone,
        clock: Clock::system(),
        chain_key: ChainKey::new(KEY),
        limits: QueueLimits::default(),
    }
}

fn at(folder: &Path) -> Place {
    Place::File(folder.join("counters.db"))
}

fn refused<T>(outcome: Result<T, Halt<Counters>>) -> Reason {
    match outcome {
        Err(Halt::Refused(error)) => error.reason(),
        Err(Halt::Unresolved(question)) => panic!("asked {question}"),
        Ok(_) => panic!("not refused"),
    }
}

/// Every engine: a name and the store.
fn engines(folder: &Path, cluster: &Cluster, ear: &Arc<Ear>) -> Vec<(&'static str, Store<Counters>)> {
    let open = |options: &Options| sqlite::open::<Counters>(options, Arc::clone(ear) as _).expect("opens");
    vec![
        ("sqlite file", open(&options(at(folder)))),
        ("sqlite memory", open(&options(Place::Memory))),
        ("sqlite inline", open(&Options { inline: true, ..options(Place::Memory) })),
        ("missing", open(&Options { inject_misses: true, ..options(Place::Memory) })),
        ("model", model::open::<Counters>(Clock::system(), Arc::clone(ear) as _).0),
        ("postgres", postgres::open(&on(&cluster.url("store")), Arc::clone(ear) as _).expect("opens")),
    ]
}

#[tokio::test]
async fn every_engine_counts_refuses_and_reads_alike() {
    let (folder, cluster) = (tempfile::tempdir().expect("a folder"), Cluster::start());
    let ear = Arc::new(Ear::default());
    for (name, store) in engines(folder.path(), &cluster, &ear) {
        for expected in 1..=3 {
            assert_eq!(store.write(add("a", 3)).await.expect("room"), expected, "{name}");
        }
        assert_eq!(refused(store.write(add("a", 3)).await), Reason::LimitReached, "{name}");
        assert_eq!(store.read(read("a")).await.expect("a value"), 3, "{name}: a refused verb wrote");
        assert_eq!(store.read(read("b")).await.expect("a value"), 0, "{name}");
        assert_eq!(store.look(read("a")).await.expect("a value"), 3, "{name}");
        store.close().await;
        assert_eq!(refused(store.write(add("a", 9)).await), Reason::StoreUnavailable, "{name}");
        assert_eq!(refused(store.look(read("a")).await), Reason::StoreUnavailable, "{name}");
    }
    assert_eq!(ear.signals.lock().len(), 6 * 3, "one signal for each committed change");
    assert_eq!(ear.failures.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn concurrent_verbs_lose_no_update() {
    let (folder, cluster) = (tempfile::tempdir().expect("a folder"), Cluster::start());
    for (name, store) in engines(folder.path(), &cluster, &Arc::new(Ear::default())) {
        let all = (0..200).map(|_| store.write(add("a", i64::MAX)));
        let done = futures_util::future::join_all(all).await;
        let values: BTreeSet<i64> = done.into_iter().map(|d| d.expect("room")).collect();
        assert_eq!(values, (1..=200).collect(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_look_shows_all_that_was_answered_before_it() {
    let (folder, cluster) = (tempfile::tempdir().expect("a folder"), Cluster::start());
    for (name, store) in engines(folder.path(), &cluster, &Arc::new(Ear::default())) {
        let callers = ["a", "b", "c", "d"].map(|counter| {
            let store = store.clone();
            tokio::spawn(async move {
                for expected in 1..=100 {
                    assert_eq!(store.write(add(counter, i64::MAX)).await.expect("room"), expected);
                    // The second one finds the snapshot of the first, where nothing was committed in between.
                    for _ in 0..2 {
                        assert_eq!(store.look(read(counter)).await.expect("a value"), expected, "{name}");
                    }
                }
            })
        });
        for caller in callers {
            caller.await.expect("no update was missed");
        }
    }
}

#[tokio::test]
async fn only_the_guilty_verb_of_a_batch_fails() {
    let (folder, cluster) = (tempfile::tempdir().expect("a folder"), Cluster::start());
    let ear = Arc::new(Ear::default());
    for (name, store) in engines(folder.path(), &cluster, &ear) {
        let before = ear.failures.load(Ordering::SeqCst);
        // Plans on a value that is not there: the engine must notice, and not lose its neighbours.
        let stale = store.write(|_: &mut (dyn Rows + '_), _| Ran {
            result: Ok(0_i64),
            changes: vec![Set { name: "z", from: 0, to: 1 }.into(), Set { name: "z", from: 7, to: 8 }.into()],
            audit: vec![],
        });
        let panics = store
            .write(|_: &mut (dyn Rows + '_), _| -> Ran<Counters, i64> { panic!("an invariant is broken") });
        let (first, stale, panics, last) =
            tokio::join!(store.write(add("a", 9)), stale, panics, store.write(add("a", 9)));
        assert_eq!((first.expect("fine"), last.expect("fine")), (1, 2), "{name}");
        assert_eq!((refused(stale), refused(panics)), (Reason::Internal, Reason::Internal), "{name}");
        assert_eq!(store.read(read("z")).await.expect("a value"), 0, "{name}: half a verb was written");
        let panics = store
            .look(|_: &mut (dyn Rows + '_), _| -> Ran<Counters, i64> { panic!("an invariant is broken") });
        assert_eq!(refused(panics.await), Reason::Internal, "{name}");
        assert_eq!(store.look(read("a")).await.expect("a value"), 2, "{name}: nobody else is harmed");
        assert_eq!(ear.failures.load(Ordering::SeqCst), before + 3, "{name}");
    }
}

#[tokio::test]
async fn a_refused_read_is_recorded_before_it_is_answered() {
    let (store, plain) = model::open::<Counters>(Clock::system(), Arc::new(Ear::default()));
    let refuse = |_: &mut (dyn Rows + '_), _| -> Ran<Counters, ()> {
        Ran {
            result: Err(Stop::Refused(Error::new(Reason::OwnerMismatch, "not yours"))),
            changes: vec![],
            audit: vec![entry(Outcome::Refused(Reason::OwnerMismatch), "x")],
        }
    };
    assert_eq!(refused(store.read(refuse).await), Reason::OwnerMismatch);
    let reasons: Vec<String> = plain.lock().audit.iter().map(|row| row.reason.clone()).collect();
    assert_eq!(reasons, ["OWNER_MISMATCH"]);

    let folder = tempfile::tempdir().expect("a folder");
    let store =
        sqlite::open::<Counters>(&options(at(folder.path())), Arc::new(Ear::default())).expect("opens");
    assert_eq!(refused(store.look(refuse).await), Reason::OwnerMismatch);
    let other = sqlite::connect(&at(folder.path())).expect("opens");
    let rows: i64 = other
        .query_row("SELECT count(*) FROM audit WHERE reason = 'OWNER_MISMATCH'", [], |row| row.get(0))
        .expect("reads");
    assert_eq!(rows, 1);
}

// I11: no row, no change, no answer.
#[tokio::test]
async fn no_row_no_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let store =
        sqlite::open::<Counters>(&options(at(folder.path())), Arc::new(Ear::default())).expect("opens");
    assert_eq!(store.write(add("a", 9)).await.expect("room"), 1);
    let other = sqlite::connect(&at(folder.path())).expect("opens");
    let full =
        "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room for rows'); END";
    other.execute_batch(full).expect("from now on no row goes in");
    refused(store.write(add("a", 9)).await);
    assert_eq!(store.read(read("a")).await.expect("a value"), 1, "a change without its row");
    other.execute_batch("DROP TRIGGER full").expect("there is room again");
    assert_eq!(store.write(add("a", 9)).await.expect("room"), 2);
    store.close().await;
    assert_eq!(sqlite::verify(&other, &ChainKey::new(KEY)).expect("reads"), []);
}

#[tokio::test]
async fn a_question_writes_nothing() {
    let (store, plain) = model::open::<Counters>(Clock::system(), Arc::new(Ear::default()));
    let asked = store.write(|_: &mut (dyn Rows + '_), _| -> Ran<Counters, ()> {
        Ran {
            result: Err(Stop::Unresolved("may they?".to_owned())),
            changes: vec![Set { name: "a", from: 0, to: 1 }.into()],
            audit: vec![entry(Outcome::Done, "a")],
        }
    });
    assert!(matches!(asked.await, Err(Halt::Unresolved(question)) if question == "may they?"));
    assert!(plain.lock().audit.is_empty() && plain.lock().model.is_empty());
}

#[tokio::test]
async fn acknowledged_writes_and_the_chain_survive_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 1..=3 {
        let store =
            sqlite::open::<Counters>(&options(at(folder.path())), Arc::new(Ear::default())).expect("opens");
        assert_eq!(store.write(add("a", 9)).await.expect("room"), round);
        store.close().await;
    }
    let connection = sqlite::connect(&at(folder.path())).expect("opens");
    let rows = sqlite::rows(&connection, &Filter { limit: 10, ..Filter::default() }).expect("reads");
    assert_eq!(rows.iter().map(|row| row.subject.as_str()).collect::<Vec<_>>(), ["a"; 3]);
    assert_eq!(sqlite::verify(&connection, &ChainKey::new(KEY)).expect("reads"), []);
    let sealed: i64 = connection
        .query_row("SELECT COUNT(*) FROM audit_batch WHERE sealed", [], |r| r.get(0))
        .expect("reads");
    assert_eq!(sealed, 2, "the writers before the last one have ended");
}

#[tokio::test]
async fn the_chain_shows_edits_holes_strays_and_another_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let store =
        sqlite::open::<Counters>(&options(at(folder.path())), Arc::new(Ear::default())).expect("opens");
    for _ in 0..4 {
        store.write(add("a", 9)).await.expect("room");
    }
    store.close().await;
    let connection = sqlite::connect(&at(folder.path())).expect("opens");
    let damages = |tampering: &str| {
        connection.execute_batch("BEGIN").expect("begins");
        connection.execute_batch(tampering).expect("tampers");
        let found = sqlite::verify(&connection, &ChainKey::new(KEY)).expect("reads");
        connection.execute_batch("ROLLBACK").expect("undoes");
        found
    };
    assert_eq!(damages(""), []);
    let edited = damages("UPDATE audit SET principal = 'another' WHERE number = 2");
    assert!(matches!(edited[..], [Damage::Edited { number: 2, .. }]), "{edited:?}");
    let removed = damages("DELETE FROM audit WHERE number = 3");
    assert!(matches!(removed[..], [Damage::Edited { number: 3, .. }]), "{removed:?}");
    let hole = damages("DELETE FROM audit WHERE number = 2; DELETE FROM audit_batch WHERE number = 2");
    assert!(matches!(hole[..], [Damage::Hole { number: 2, .. }, ..]), "{hole:?}");
    let stray = damages("DELETE FROM audit_batch WHERE number = 4");
    assert_eq!(stray, [Damage::Strays { rows: 1 }]);
    let other = sqlite::verify(&connection, &ChainKey::new([8; 32])).expect("reads");
    assert_eq!(other.len(), 4, "no link is right under another key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_grows_while_it_is_verified_is_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let store =
        sqlite::open::<Counters>(&options(at(folder.path())), Arc::new(Ear::default())).expect("opens");
    // Enough rows that looking takes longer than a commit.
    store.record(vec![entry(Outcome::Done, "a"); 5_000]).await.expect("room");
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            loop {
                store.record(vec![entry(Outcome::Done, "a")]).await.expect("room");
            }
        }
    });
    let connection = sqlite::connect(&at(folder.path())).expect("opens");
    for _ in 0..20 {
        let damages = tokio::task::block_in_place(|| sqlite::verify(&connection, &ChainKey::new(KEY)));
        assert_eq!(damages.expect("reads"), []);
    }
    writing.abort();
}

#[tokio::test]
async fn a_lock_that_another_program_holds_costs_one_wait_not_one_each() {
    let folder = tempfile::tempdir().expect("a folder");
    let ear = Arc::new(Ear::default());
    let store = sqlite::open::<Counters>(&options(at(folder.path())), Arc::clone(&ear) as _).expect("opens");
    let other = sqlite::connect(&at(folder.path())).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let all = futures_util::future::join_all((0..16).map(|_| store.write(add("a", 99))));
    // Sixteen waits would be half a minute and more.
    let all = tokio::time::timeout(Duration::from_secs(15), all).await.expect("in time");
    assert!(all.into_iter().all(|one| refused(one) == Reason::StoreUnavailable));
    assert!(ear.failures.load(Ordering::SeqCst) >= 1);
    other.execute_batch("ROLLBACK").expect("let go");
    assert_eq!(store.write(add("a", 99)).await.expect("room"), 1, "and it goes on");
}

#[tokio::test]
async fn an_observer_that_panics_stops_nobody() {
    struct Clumsy;
    impl Observer<Counters> for Clumsy {
        fn committed(&self, _: Vec<&'static str>) {
            panic!("as told");
        }
        fn failed(&self, _: &Fault) {
            panic!("as told");
        }
    }
    let store = sqlite::open::<Counters>(&options(Place::Memory), Arc::new(Clumsy)).expect("opens");
    for expected in 1..=2 {
        assert_eq!(store.write(add("a", 9)).await.expect("committed"), expected);
        let broken = store.write(|_: &mut (dyn Rows + '_), _| -> Ran<Counters, i64> { panic!("broken") });
        assert_eq!(refused(broken.await), Reason::Internal);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_never_pause_do_not_let_the_log_grow() {
    let folder = tempfile::tempdir().expect("a folder");
    let store =
        sqlite::open::<Counters>(&options(at(folder.path())), Arc::new(Ear::default())).expect("opens");
    let readers: Vec<_> = (0..3)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    // A read that takes 10 ms: the log's place of one is the place of the next, so it is never free.
                    let slow = |rows: &mut (dyn Rows + '_), _| {
                        let (began, mut result) = (Clock::instant(), rows.value("a"));
                        while began.elapsed() < Duration::from_millis(10) && result.is_ok() {
                            result = rows.value("a");
                        }
                        Ran { result, changes: vec![], audit: vec![] }
                    };
                    let read = if number == 0 { store.look(slow).await } else { store.read(slow).await };
                    read.expect("read");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let detail = "x".repeat(1 << 20);
    for _ in 0..320 {
        store.record(vec![entry(Outcome::Done, "a").detailed(detail.clone())]).await.expect("room");
    }
    readers.iter().for_each(tokio::task::JoinHandle::abort);
    let log = std::fs::metadata(folder.path().join("counters.db-wal")).expect("there").len();
    assert!(log <= 140 << 20, "{} MiB of log", log >> 20);
}

#[tokio::test]
async fn instants_never_go_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = Timestamp::from_micros(1_000_000_000);
    let instant = |_: &mut (dyn Rows + '_), now: Timestamp| -> Ran<Counters, Timestamp> {
        Ran { result: Ok(now), changes: vec![], audit: vec![entry(Outcome::Done, "now")] }
    };
    let late = Clock::manual(start.after(Duration::from_secs(86_400)));
    let store = sqlite::open::<Counters>(
        &Options { clock: late, ..options(at(folder.path())) },
        Arc::new(Ear::default()),
    );
    let store = store.expect("opens");
    let first = store.write(instant).await.expect("an instant");
    store.close().await;
    // A day back, over a restart.
    let early = Clock::manual(start);
    let store = sqlite::open::<Counters>(
        &Options { clock: early, ..options(at(folder.path())) },
        Arc::new(Ear::default()),
    );
    let second = store.expect("opens").write(instant).await.expect("an instant");
    assert!(second >= first, "{second} is before {first}");
}

#[tokio::test]
async fn a_newer_store_and_a_foreign_file_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || sqlite::open::<Counters>(&options(at(folder.path())), Arc::new(Ear::default()));
    open().expect("opens").close().await;
    let connection = sqlite::connect(&at(folder.path())).expect("opens");
    connection
        .execute(
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
             SELECT 2, 'from_the_future', applied_on, '1' FROM refinery_schema_history WHERE version = 1",
            [],
        )
        .expect("a later version's row");
    drop(connection);
    let error = open().expect_err("newer").to_string();
    assert!(error.contains("use the program that last wrote it, or a newer one"), "{error}");

    let file = folder.path().join("not-a-store.db");
    std::fs::write(&file, "a letter to a friend, long enough to be read as a header of a database")
        .expect("written");
    let opened = sqlite::open::<Counters>(&options(Place::File(file.clone())), Arc::new(Ear::default()));
    let error = opened.expect_err("no store").to_string();
    assert!(error.contains("left as it is"), "{error}");
    assert!(std::fs::read_to_string(&file).expect("still text").starts_with("a letter"));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let (gate, wait) = std::sync::mpsc::channel::<()>();
    let limits = QueueLimits { waiting_max: 2, batch_max: 1 };
    let store =
        sqlite::open::<Counters>(&Options { limits, ..options(Place::Memory) }, Arc::new(Ear::default()));
    let store = store.expect("opens");
    let wait = Mutex::new(wait);
    let blocked = store.write(move |_: &mut (dyn Rows + '_), _| -> Ran<Counters, ()> {
        let _ = wait.lock().recv();
        Ran { result: Ok(()), changes: vec![], audit: vec![] }
    });
    let many = futures_util::future::join_all((0..8).map(|_| store.write(add("a", 99))));
    let (blocked, many, ()) = tokio::join!(blocked, many, async {
        // Everything is queued or refused once this runs; then the writer may go on.
        tokio::task::yield_now().await;
        drop(gate);
    });
    blocked.expect("done");
    let (done, full): (Vec<_>, Vec<_>) = many.into_iter().partition(Result::is_ok);
    assert!(!done.is_empty() && !full.is_empty(), "{} done, {} refused", done.len(), full.len());
    assert!(full.into_iter().all(|f| refused(f) == Reason::LimitReached));
}

#[test]
fn rows_of_one_entry_are_the_same_on_every_engine() {
    let entry = entry(Outcome::Refused(Reason::Forbidden), "x").within("p").detailed("{}");
    let row = Row::of(3, Timestamp::from_micros(5), &entry);
    assert_eq!((row.outcome.as_str(), row.reason.as_str(), row.count), ("refused", "FORBIDDEN", 1));
}
