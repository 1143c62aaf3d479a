//! Several hosts of one store: a standby that is promoted is found, and an old primary that comes back gets nothing, also
//! where its own commits would be answered.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use interlock_kit::store::{
    Store,
    postgres::{self, OpenError, Options, Sharing},
};

use super::{
    cluster::Cluster,
    counters::{Counters, Ear, add, read},
    on,
};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A primary, and a standby that it waits for.
fn two() -> (Cluster, Cluster) {
    let primary = Cluster::start();
    let mut standby = primary.standby(&[]);
    standby.serve();
    primary.commits_wait();
    (primary, standby)
}

/// On whichever of them is the store, as a program whose data is in this folder.
fn beside(folder: &Path, hosts: &[&Cluster]) -> Result<Store<Counters>, OpenError> {
    let hosts: Vec<_> = hosts.iter().map(|host| host.host()).collect();
    let url = format!("postgres://interlock@{}/store", hosts.join(","));
    let options = Options { sharing: Sharing::Shared, ..on(&url) };
    options.target.remember_in(folder)?;
    postgres::open(&options, Arc::new(Ear::default()))
}

/// Counts on, once the store is there again.
async fn counts(store: &Store<Counters>) -> i64 {
    let began = Instant::now();
    loop {
        match store.write(add("a", i64::MAX)).await {
            Ok(count) => return count,
            Err(away) => assert!(began.elapsed() < PATIENCE, "{away:?}"),
        }
    }
}

fn value(host: &Cluster) -> String {
    host.sql("store", "SELECT value FROM counter WHERE name = 'a'")
}

/// Lets the old one acknowledge by itself: the worst that can come back.
fn alone(host: &Cluster) {
    host.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names");
    host.sql("postgres", "SELECT pg_reload_conf()");
}

// I6, issue 5 line 5
#[tokio::test]
async fn a_promoted_standby_is_the_store_and_an_old_primary_that_comes_back_is_not() {
    let (folder, (mut old, mut new)) = (tempfile::tempdir().expect("a folder"), two());
    let store = beside(folder.path(), &[&old, &new]).expect("opens");
    assert_eq!(counts(&store).await, 1);
    old.kill_at_once();
    new.promote();
    assert_eq!(counts(&store).await, 2, "what was acknowledged is there, once");
    assert_eq!(store.read(read("a")).await.expect("a value"), 2);

    old.serve();
    alone(&old);
    assert_eq!(counts(&store).await, 3);
    let other = beside(folder.path(), &[&old, &new]).expect("opens");
    assert_eq!(counts(&other).await, 4);
    other.close().await;
    // Who has never seen any of them sees both.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let stranger = beside(elsewhere.path(), &[&old, &new]).expect("opens");
    assert_eq!(counts(&stranger).await, 5);
    stranger.close().await;

    // Without the new one there is no store, for whoever runs and for whoever starts.
    new.kill_at_once();
    assert!(store.write(add("a", i64::MAX)).await.is_err());
    assert!(store.read(read("a")).await.is_err(), "what an old primary has may lack what was acknowledged");
    let refused = beside(folder.path(), &[&old, &new]).expect_err("an old primary").to_string();
    assert!(refused.contains("earlier epoch (timeline 1, and 2 was seen)"), "{refused}");
    assert_eq!(value(&old), "1", "the old one was written to");
    new.serve();
    assert_eq!(counts(&store).await, 6);

    // Made a standby of the new one, it may take over from that.
    old.follow(&new);
    new.commits_wait();
    assert_eq!(counts(&store).await, 7);
    new.kill_at_once();
    old.promote();
    assert_eq!(counts(&store).await, 8);
    store.close().await;
}

// Issue 5 line 5: cut off from nothing, the old one lives on beside the new one.
#[tokio::test]
async fn a_program_on_an_old_primary_that_lives_on_leaves_it() {
    let (folder, (old, new)) = (tempfile::tempdir().expect("a folder"), two());
    let store = beside(folder.path(), &[&old, &new]).expect("opens");
    assert_eq!(counts(&store).await, 1);
    alone(&old);
    old.sql("postgres", "SELECT 1");
    new.promote();
    new.sql("store", "UPDATE counter SET value = 10");
    // Reads come first: nothing breaks the connection that they are made on.
    let began = Instant::now();
    while store.read(read("a")).await.expect("a value") != 10 {
        assert!(began.elapsed() < PATIENCE, "it reads from the old one for ever");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(counts(&store).await, 11);
    assert_eq!(value(&old), "1");
    store.close().await;
}

// Issue 5 line 5: the machine stands still, and its connections stay open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_stands_still_holds_nobody_up_once_another_one_has_taken_over() {
    let (folder, (old, new)) = (tempfile::tempdir().expect("a folder"), two());
    let store = beside(folder.path(), &[&old, &new]).expect("opens");
    assert_eq!(counts(&store).await, 1);
    old.freeze();
    let waiting = counts(&store);
    let promoted = async {
        tokio::task::block_in_place(|| new.promote());
        Instant::now()
    };
    let (count, promoted) = tokio::join!(waiting, promoted);
    println!("from the promotion to the answer: {:?}", promoted.elapsed());
    assert_eq!(count, 2);
    old.wake();
    assert_eq!(counts(&store).await, 3);
    assert_eq!(store.read(read("a")).await.expect("a value"), 3);
    store.close().await;
}

// Issue 5 line 5
#[tokio::test]
async fn another_cluster_is_not_taken_for_the_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut one, two) = (Cluster::start(), Cluster::start());
    // Clusters of tests are copies of one: they differ in nothing that could be asked. The note says otherwise.
    beside(folder.path(), &[&one]).expect("opens").close().await;
    let note = folder.path().join("store.epoch");
    let noted = std::fs::read_to_string(&note).expect("noted");
    let (system, timeline) = noted.trim().split_once(' ').expect("two numbers");
    assert_eq!(timeline, "1");
    let others = system.parse::<u64>().expect("a number") + 1;
    std::fs::write(&note, format!("{others} 1\n")).expect("written");
    let refused = beside(folder.path(), &[&two]).expect_err("another cluster").to_string();
    assert!(refused.contains(&format!("is another cluster ({system}) than before ({others})")), "{refused}");
    assert!(refused.contains("remove the file store.epoch in data_dir"), "{refused}");
    std::fs::write(&note, "what?").expect("written");
    let refused = beside(folder.path(), &[&one]).expect_err("no epoch").to_string();
    assert!(refused.contains("cannot be remembered"), "{refused}");
    std::fs::remove_file(&note).expect("removed");
    one.kill();
    one.serve();
    beside(folder.path(), &[&one]).expect("as where it was moved on purpose").close().await;
}
