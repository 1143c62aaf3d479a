//! A whole store moves from a file into a database, or not at all.

use std::{path::Path, sync::Arc};

use interlock_kit::store::{
    StoreLock,
    audit::ChainKey,
    copy::{Copied, CopyError, sqlite_to_postgres},
    postgres, sqlite,
};

use super::{
    KEY, at,
    cluster::Cluster,
    counters::{Counters, Ear, add, entry, read},
    on, options, refused,
};

fn copy(folder: &Path, url: &str) -> Result<Vec<Copied>, CopyError> {
    let from = folder.join("counters.db");
    sqlite_to_postgres::<Counters>(&from, &ChainKey::new(KEY), &on(url).target)
}

#[tokio::test]
async fn a_whole_store_moves_with_its_chains_and_goes_on() {
    let (folder, cluster) = (tempfile::tempdir().expect("a folder"), Cluster::start());
    let url = cluster.url("store");
    let open =
        || sqlite::open::<Counters>(&options(at(folder.path())), Arc::new(Ear::default())).expect("opens");
    let store = open();
    for name in ["a", "b", "é", "Z"] {
        store.write(add(name, 9)).await.expect("room");
    }
    store.write(add("a", 9)).await.expect("room");
    refused(store.write(add("a", 2)).await);
    store
        .record(vec![entry(interlock_kit::store::audit::Outcome::Done, "x").detailed("{\"a\": 1}")])
        .await
        .expect("room");
    store.close().await;

    let lock = StoreLock::take(folder.path()).expect("free");
    assert!(matches!(copy(folder.path(), &url), Err(CopyError::Lock(_))), "a program uses the source");
    drop(lock);
    assert!(matches!(copy(&folder.path().join("nowhere"), &url), Err(CopyError::Lock(_))), "no source");
    let tables = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(cluster.sql("store", tables), "0", "nothing was made");

    let copied = copy(folder.path(), &url).expect("copied");
    let rows = |table: &str| copied.iter().find(|copied| copied.table == table).expect("copied").rows;
    assert_eq!((rows("counter"), rows("audit")), (4, 7));
    assert_eq!(postgres::verify(&on(&url).target, &ChainKey::new(KEY)).expect("reads"), []);
    let again = copy(folder.path(), &url).expect_err("it has rows").to_string();
    assert!(again.contains("is not empty") && again.contains("nothing was copied"), "{again}");

    let moved = postgres::open::<Counters>(&on(&url), Arc::new(Ear::default())).expect("opens");
    assert_eq!(moved.read(read("a")).await.expect("a value"), 2);
    assert_eq!(moved.write(add("é", 9)).await.expect("room"), 2);
    moved.close().await;
    assert_eq!(cluster.sql("store", "SELECT COUNT(*), COUNT(DISTINCT id) FROM audit"), "8|8", "ids go on");
    let back = "SELECT COUNT(*) FROM (SELECT at, LAG(at) OVER (ORDER BY id) AS before FROM audit) AS a WHERE at < before";
    assert_eq!(cluster.sql("store", back), "0", "instants, too");
    assert_eq!(postgres::verify(&on(&url).target, &ChainKey::new(KEY)).expect("reads"), []);

    let source = open();
    assert_eq!(source.read(read("é")).await.expect("a value"), 1, "the source is as it was");
    source.close().await;
}

#[tokio::test]
async fn what_is_not_the_same_when_it_is_read_again_is_not_kept() {
    let (folder, cluster) = (tempfile::tempdir().expect("a folder"), Cluster::start());
    let url = cluster.url("store");
    let store =
        sqlite::open::<Counters>(&options(at(folder.path())), Arc::new(Ear::default())).expect("opens");
    store.write(add("a", 9)).await.expect("room");
    store.close().await;
    // Tables that no program has used yet, and that do not keep what they are given.
    postgres::open::<Counters>(&on(&url), Arc::new(Ear::default())).expect("opens").close().await;
    cluster.sql(
        "store",
        "TRUNCATE moment, chain_key;
         CREATE FUNCTION forge() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN NEW.value := NEW.value + 1; RETURN NEW; END $$;
         CREATE TRIGGER forge BEFORE INSERT ON counter FOR EACH ROW EXECUTE FUNCTION forge()",
    );
    let refused = copy(folder.path(), &url).expect_err("forged").to_string();
    assert!(refused.contains("counter") && refused.contains("not the same"), "{refused}");
    assert_eq!(cluster.sql("store", "SELECT COUNT(*) FROM counter"), "0");
    assert_eq!(cluster.sql("store", "SELECT COUNT(*) FROM audit"), "0");
    cluster.sql("store", "DROP TRIGGER forge ON counter");
    copy(folder.path(), &url).expect("it is still empty");
    assert_eq!(cluster.sql("store", "SELECT value FROM counter"), "1");
}
