//! One writer: who has lost the lock does not write beside the one who has it now.

use std::sync::Arc;

use interlock_kit::{
    error::Reason,
    store::{audit::ChainKey, postgres},
};

use super::{
    KEY,
    cluster::Cluster,
    counters::{Counters, Ear, add, read},
    on,
    proxy::Proxy,
    refused,
};

#[tokio::test]
async fn who_was_cut_off_writes_nothing_once_another_has_opened_the_store() {
    let cluster = Cluster::start();
    let proxy = Proxy::before(cluster.socket());
    let ear = Arc::new(Ear::default());
    let first = postgres::open::<Counters>(&on(&proxy.url("store")), Arc::clone(&ear) as _).expect("opens");
    assert_eq!(first.write(add("a", 9)).await.expect("room"), 1);
    proxy.close();
    let second =
        postgres::open::<Counters>(&on(&cluster.url("store")), Arc::new(Ear::default())).expect("free");
    assert_eq!(second.write(add("a", 9)).await.expect("room"), 2);
    proxy.reopen();
    assert_eq!(refused(first.write(add("a", 9)).await), Reason::StoreUnavailable, "the second has the lock");
    assert!(ear.last.lock().contains("another program"), "{}", ear.last.lock());
    second.close().await;
    assert_eq!(refused(first.write(add("a", 9)).await), Reason::StoreUnavailable, "what it knows is old");
    assert!(ear.last.lock().contains("start this one again"), "{}", ear.last.lock());
    assert_eq!(first.read(read("a")).await.expect("reads hurt nobody"), 2);
    first.close().await;
    let third =
        postgres::open::<Counters>(&on(&cluster.url("store")), Arc::new(Ear::default())).expect("free");
    assert_eq!(third.write(add("a", 9)).await.expect("room"), 3);
    third.close().await;
    let target = on(&cluster.url("store")).target;
    assert_eq!(postgres::verify(&target, &ChainKey::new(KEY)).expect("reads"), []);
}
