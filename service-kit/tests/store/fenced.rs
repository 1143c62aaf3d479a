//! Lost connections: whatever is cut wherever, a verb that is answered was committed exactly once.

use std::sync::{Arc, atomic::Ordering};

use interlock_kit::{
    error::Reason,
    store::{
        audit::ChainKey,
        postgres::{self, Options},
        writer::QueueLimits,
    },
};

use super::{
    KEY,
    cluster::Cluster,
    counters::{Counters, Ear, add, read},
    on,
    proxy::{Cut, Proxy},
};

/// Batches of more than one verb do not come into it.
fn alone(url: &str) -> Options {
    Options { limits: QueueLimits { batch_max: 1, ..QueueLimits::default() }, ..on(url) }
}

#[tokio::test]
async fn a_connection_that_is_cut_anywhere_commits_exactly_once() {
    let cluster = Cluster::start();
    let proxy = Proxy::before(cluster.socket());
    let ear = Arc::new(Ear::default());
    let options = alone(&proxy.url("store"));
    let store = postgres::open::<Counters>(&options, Arc::clone(&ear) as _).expect("opens");
    let mut done = 0;
    // The statements are known to the connection, and to no later one.
    done += store.write(add("a", i64::MAX)).await.expect("written");
    for how in [Cut::Before, Cut::After] {
        let mut cuts = 0;
        loop {
            proxy.cut(cuts, how);
            let value = store.write(add("a", i64::MAX)).await.expect("written all the same");
            done += 1;
            assert_eq!(value, done, "cut {how:?} question {cuts}");
            if proxy.calm() {
                break;
            }
            cuts += 1;
        }
        assert!(cuts >= 5, "only {cuts} questions {how:?}: begin, load, witness, audit, commit");
    }
    assert_eq!(store.read(read("a")).await.expect("a value"), done);
    store.close().await;
    assert_eq!(ear.signals.lock().len() as i64, done, "one signal for each");
    assert_eq!(ear.failures.load(Ordering::SeqCst), 0);
    assert_eq!(cluster.sql("store", "SELECT COUNT(*) FROM audit"), done.to_string());
    assert_eq!(postgres::verify(&options.target, &ChainKey::new(KEY)).expect("reads"), []);
}

#[tokio::test]
async fn a_connection_that_is_cut_again_while_a_commit_is_settled_commits_exactly_once() {
    let cluster = Cluster::start();
    let proxy = Proxy::before(cluster.socket());
    let options = alone(&proxy.url("store"));
    let store = postgres::open::<Counters>(&options, Arc::new(Ear::default())).expect("opens");
    assert_eq!(store.write(add("a", i64::MAX)).await.expect("written"), 1);
    let before = proxy.asked();
    let mut done = store.write(add("a", i64::MAX)).await.expect("written");
    let commit = proxy.asked() - before - 1;
    for first in [Cut::Before, Cut::After] {
        for second in [Cut::Before, Cut::After] {
            for cuts in 0.. {
                // A connection of its own statements: the commit of the next verb is again the last question.
                done += 1;
                assert_eq!(store.write(add("a", i64::MAX)).await.expect("written"), done);
                proxy.cut_all([(commit, first), (cuts, second)]);
                done += 1;
                let value = store.write(add("a", i64::MAX)).await.expect("written all the same");
                assert_eq!(value, done, "the commit {first:?}, then {second:?} question {cuts}");
                if proxy.calm() {
                    assert!(cuts >= 8, "only {cuts}: start, lock, witness, touch, commit");
                    break;
                }
            }
        }
    }
    store.close().await;
    assert_eq!(postgres::verify(&options.target, &ChainKey::new(KEY)).expect("reads"), []);
}

#[tokio::test]
async fn a_commit_that_cannot_be_asked_about_is_told_as_uncertain_and_its_signals_later() {
    let cluster = Cluster::start();
    let proxy = Proxy::before(cluster.socket());
    let ear = Arc::new(Ear::default());
    let options = alone(&proxy.url("store"));
    let store = postgres::open::<Counters>(&options, Arc::clone(&ear) as _).expect("opens");
    assert_eq!(store.write(add("a", 9)).await.expect("room"), 1);
    let before = proxy.asked();
    assert_eq!(store.write(add("a", 9)).await.expect("room"), 2);
    let last = proxy.asked() - before - 1;
    for (how, happened) in [(Cut::After, true), (Cut::Before, false)] {
        ear.signals.lock().clear();
        proxy.cut_and_close(last, how);
        assert_eq!(super::refused(store.write(add("b", 9)).await), Reason::StoreUnavailable);
        assert!(ear.last.lock().contains("failed in a commit"), "{how:?}: {}", ear.last.lock());
        assert!(ear.signals.lock().is_empty(), "{how:?}");
        proxy.reopen();
        store.write(add("c", 9)).await.expect("room");
        let expected: &[&str] = if happened { &["b", "c"] } else { &["c"] };
        assert_eq!(*ear.signals.lock(), expected, "{how:?}");
    }
    assert_eq!(store.read(read("b")).await.expect("a value"), 1, "the one that happened");
    store.close().await;
    assert_eq!(postgres::verify(&options.target, &ChainKey::new(KEY)).expect("reads"), []);
}

#[tokio::test]
async fn reads_go_on_after_a_lost_connection() {
    let cluster = Cluster::start();
    let proxy = Proxy::before(cluster.socket());
    let store =
        postgres::open::<Counters>(&on(&proxy.url("store")), Arc::new(Ear::default())).expect("opens");
    assert_eq!(store.write(add("a", 9)).await.expect("room"), 1);
    for how in [Cut::Before, Cut::After] {
        for cuts in 0..4 {
            proxy.cut(cuts, how);
            assert_eq!(store.read(read("a")).await.expect("a value"), 1, "cut {how:?} question {cuts}");
            proxy.calm();
        }
    }
    store.close().await;
}

/// Runs `what` in the commit of a change of a counter, the first `times`: a sequence is not undone.
fn in_commit(cluster: &Cluster, times: u32, what: &str) {
    cluster.sql(
        "store",
        &format!(
            "CREATE SEQUENCE falls; GRANT ALL ON SEQUENCE falls TO interlock;
             CREATE FUNCTION fall() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN IF nextval('falls') <= {times} THEN {what}; END IF; RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER fall AFTER INSERT OR UPDATE ON counter
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fall()"
        ),
    );
}

#[tokio::test]
async fn a_backend_that_is_ended_in_its_commit_is_settled_and_run_again() {
    let cluster = Cluster::start();
    let url = cluster.url("store");
    let store = postgres::open::<Counters>(&alone(&url), Arc::new(Ear::default())).expect("opens");
    in_commit(&cluster, 1, "PERFORM pg_terminate_backend(pg_backend_pid())");
    assert_eq!(store.write(add("a", 9)).await.expect("run again"), 1);
    assert_eq!(store.write(add("a", 9)).await.expect("room"), 2);
    assert_eq!(cluster.sql("store", "SELECT last_value FROM falls"), "3", "twice for the first, once after");
    store.close().await;
    assert_eq!(postgres::verify(&on(&url).target, &ChainKey::new(KEY)).expect("reads"), []);
}

#[tokio::test]
async fn deadlocks_and_serialization_failures_are_run_again_a_bounded_number_of_times() {
    for code in ["serialization_failure", "deadlock_detected"] {
        let cluster = Cluster::start();
        let ear = Arc::new(Ear::default());
        let options = alone(&cluster.url("store"));
        let store = postgres::open::<Counters>(&options, Arc::clone(&ear) as _).expect("opens");
        in_commit(&cluster, 3, &format!("RAISE {code}"));
        assert_eq!(store.write(add("a", 9)).await.expect("run again"), 1, "{code}");
        assert_eq!(cluster.sql("store", "SELECT last_value FROM falls"), "4", "{code}");
        cluster.sql("store", "ALTER SEQUENCE falls MINVALUE -1000000; SELECT setval('falls', -1000000)");
        let reason = super::refused(store.write(add("a", 9)).await);
        assert_eq!(reason, Reason::StoreUnavailable, "{code} for ever");
        assert_eq!(store.read(read("a")).await.expect("a value"), 1, "{code}");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_no_standby_has_is_not_answered_even_if_it_is_cancelled() {
    let cluster = Cluster::start();
    let url = cluster.url("store");
    let store = postgres::open::<Counters>(&alone(&url), Arc::new(Ear::default())).expect("opens");
    cluster.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    let set = "SELECT COUNT(*) FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting <> ''";
    cluster.until(set);
    let writing = tokio::spawn({
        let store = store.clone();
        async move { store.write(add("a", 9)).await }
    });
    let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let cancel = "SELECT COUNT(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    // The wait is given up on, which is no answer: its settling waits for a standby, too.
    tokio::task::block_in_place(|| {
        cluster.until(waits);
        cluster.sql("postgres", cancel);
    });
    tokio::task::block_in_place(|| cluster.until(waits));
    assert!(!writing.is_finished(), "it was answered, and no standby has it");
    tokio::task::block_in_place(|| {
        cluster.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names");
        cluster.sql("postgres", "SELECT pg_reload_conf()");
    });
    assert_eq!(writing.await.expect("no panic").expect("settled"), 1);
    assert_eq!(store.write(add("a", 9)).await.expect("room"), 2, "once");
    store.close().await;
}
