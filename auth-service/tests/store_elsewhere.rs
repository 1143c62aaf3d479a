//! Auth with its store in a database: what `opening` promises of a folder, it promises here.

mod support;

use interlock_auth::{
    opening::{self, CHAIN_KEY_FILE, Database},
    role_token::{First, FirstTokens},
    store::Shell,
};
use interlock_kit::{
    clock::Clock,
    config::Profile,
    store::postgres::{Sharing, Target},
};
use interlock_proto::credential::Kind;

use support::cluster::Cluster;

#[tokio::test]
async fn a_store_in_a_database_is_opened_by_one_and_never_without_its_chain_key() {
    let (cluster, folder) = (Cluster::start(), tempfile::tempdir().expect("a folder"));
    let other = tempfile::tempdir().expect("a folder");
    let target = Target::parse(&cluster.url("store"), Profile::Hardened).expect("a URL");
    let open = |folder: &tempfile::TempDir| {
        let database = Database { target: &target, sharing: Sharing::Alone };
        let key = folder.path().join(CHAIN_KEY_FILE);
        opening::open(folder.path(), &key, Some(database), Profile::Hardened, Clock::system())
    };
    let opened = open(&folder).expect("made");
    let shell = Shell::new(opened.store.clone());
    let (_, admin) = support::credential(Kind::Admin, 1);
    let (_, user) = support::credential(Kind::User, 2);
    let first = FirstTokens { admin, user };
    let stored = shell.run(&support::host("start"), first.clone()).await;
    assert_eq!(stored.expect("stored"), First::Stored);
    std::fs::copy(folder.path().join(CHAIN_KEY_FILE), other.path().join(CHAIN_KEY_FILE)).expect("copied");
    let refused = open(&other).expect_err("held").to_string();
    assert!(refused.contains("another program uses the store postgres://"), "{refused}");
    opened.store.close().await;
    drop(opened);

    std::fs::remove_file(folder.path().join(CHAIN_KEY_FILE)).expect("there");
    let refused = open(&folder).expect_err("no key").to_string();
    assert!(refused.contains("restore it"), "{refused}");
    let opened = open(&other).expect("with the key, from anywhere");
    let again = Shell::new(opened.store.clone()).run(&support::host("start"), first).await;
    assert_eq!(again.expect("asked"), First::Present, "what was stored is there");
    opened.store.close().await;
}
