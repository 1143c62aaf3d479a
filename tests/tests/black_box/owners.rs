//! Owners changed while both services run: who is in, who is out, at once and at the gateway too.

use interlock_client::{OwnerSession, Reason, SetOwner};
use interlock_tests::{Pair, audit, home::Home};

const IMPORTED: &str =
    "pbkdf2_sha256$310000$AAECAwQFBgcICQoLDA0ODw==$e4rSQ5KQXKoMyeu1tFpEU3HMo6tplYmG7eJ280WPc/o=";
/// Of `correct horse battery staple`, cost 4.
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG";

/// Whether the gateway lets it in.
async fn is_in(pair: &Pair, session: &OwnerSession) -> bool {
    match pair.sdk_gateway(&session.access_token).sessions().list().await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.reason(), Some(Reason::ProviderAuthFailed), "{error}");
            false
        }
    }
}

// UA-13, UA-25, UA-26, UA-38, UA-51, UA-56, FN-24
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_is_added_changed_and_removed_without_a_restart() {
    let pair = Pair::start().await;
    let owners = pair.sdk_auth_as(&pair.admin()).owners();
    let auth = pair.sdk_auth();
    let set = SetOwner { display_name: Some("Dora".to_owned()), ..SetOwner::default() };
    let added = owners.set("dora", Some("the first password"), set).await.expect("added");
    assert!(added.created && added.owner.active && added.owner.roles == ["user"]);
    let dora = auth.login("dora", "the first password").await.expect("no restart is needed");
    assert!(dora.display_name == "Dora" && is_in(&pair, &dora).await);

    let same = owners.set("dora", Some("the first password"), SetOwner::default()).await.expect("no change");
    assert_eq!((same.owner.version, same.reached), (added.owner.version, None));
    assert!(is_in(&pair, &dora).await, "the password that she has already ends nothing");
    let changed =
        owners.set("dora", Some("the second password"), SetOwner::default()).await.expect("changed");
    assert_eq!(changed.reached.expect("told").acknowledged, 1);
    assert!(!is_in(&pair, &dora).await, "no verifier admits it any more");
    let refused = auth.login("dora", "the first password").await.expect_err("the old one");
    assert_eq!(refused.reason(), Some(Reason::InvalidCredentials));

    let dora = auth.login("dora", "the second password").await.expect("the new one");
    let own = pair.sdk_auth_as(&dora.access_token);
    assert_eq!(own.owners().list().await.expect_err("a user").reason(), Some(Reason::Forbidden));
    let wrong =
        own.change_password("not the password", "the third password", false).await.expect_err("wrong");
    assert_eq!(wrong.reason(), Some(Reason::InvalidCredentials));
    let weak = own.change_password("the second password", "too short", false).await.expect_err("weak");
    assert_eq!(weak.reason(), Some(Reason::WeakPassword));
    assert_eq!(
        own.change_password("the second password", "the third password", true).await.expect("hers"),
        None
    );
    assert!(is_in(&pair, &dora).await, "kept");
    own.change_password("the third password", "the fourth password", false)
        .await
        .expect("hers")
        .expect("told");
    assert!(!is_in(&pair, &dora).await);

    let dora = auth.login("dora", "the fourth password").await.expect("in");
    let stale = SetOwner { expected_version: Some(1), active: Some(false), ..SetOwner::default() };
    assert_eq!(
        owners.set("dora", None, stale).await.expect_err("changed since").reason(),
        Some(Reason::Conflict)
    );
    let inactive = SetOwner { active: Some(false), ..SetOwner::default() };
    owners.set("dora", None, inactive.clone()).await.expect("deactivated");
    assert!(!is_in(&pair, &dora).await);
    let listed = owners.list().await.expect("may");
    let found = listed.iter().find(|owner| owner.owner_id == "dora").expect("listed");
    assert!(!found.active && listed.windows(2).all(|pair| pair[0].owner_id < pair[1].owner_id));
    let last = owners.set("root", None, inactive).await.expect_err("the last administrator");
    assert_eq!(last.reason(), Some(Reason::Forbidden));

    owners.remove("dora", false).await.expect("removed");
    assert_eq!(owners.remove("dora", false).await.expect_err("gone").reason(), Some(Reason::NotFound));
    assert_eq!(owners.get("dora").await.expect_err("gone").reason(), Some(Reason::NotFound));
    let refused = auth.login("dora", "the fourth password").await.expect_err("gone");
    assert_eq!(refused.reason(), Some(Reason::InvalidCredentials));
}

// UA-24, UA-39, DESIGN 14.16: hashes made elsewhere sign in once; removed is removed, over a restart too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imported_hashes_become_ours_and_a_restart_revives_nobody() {
    let mut pair = Pair::start().await;
    let owners = pair.sdk_auth_as(&pair.admin()).owners();
    let password = "correct horse battery staple";
    for (owner, hash) in [("django", IMPORTED), ("apache", BCRYPT)] {
        assert!(owners.import(owner, hash, SetOwner::default()).await.expect("imported").created);
        assert!(!owners.import(owner, hash, SetOwner::default()).await.expect("the same").created);
        pair.sdk_auth().login(owner, password).await.expect("signed in");
    }
    for dear in [
        "pbkdf2_sha256$99999999$AAECAwQFBgcICQoLDA0ODw==$e4rSQ5KQXKoMyeu1tFpEU3HMo6tplYmG7eJ280WPc/o=",
        "hunter2",
    ] {
        let refused = owners.import("eve", dear, SetOwner::default()).await.expect_err("refused");
        assert_eq!(refused.reason(), Some(Reason::InvalidField));
        assert!(!format!("{refused} {refused:?}").contains(dear));
    }
    // Of the accounts file, unchanged at the next start.
    owners.remove("bob", false).await.expect("removed");
    let set = SetOwner { display_name: Some("Changed at run time".to_owned()), ..SetOwner::default() };
    owners.set("alice", None, set).await.expect("changed");
    assert!(pair.auth.drain().await.success());
    let store = pair.world.path("auth/auth.db");
    let stored: Vec<String> = {
        let store = rusqlite::Connection::open(&store).expect("the store");
        let mut rows = store.prepare("SELECT password FROM owner WHERE active").expect("owners");
        let rows = rows.query_map([], |row| row.get(0)).expect("read");
        rows.collect::<Result<_, _>>().expect("rows")
    };
    assert!(stored.len() >= 10 && stored.iter().all(|hash| hash.starts_with("$argon2id$")));
    pair.start_auth().await;
    pair.serving().await;
    let owners = pair.sdk_auth_as(&pair.admin()).owners();
    assert_eq!(owners.get("bob").await.expect_err("gone").reason(), Some(Reason::NotFound));
    assert_eq!(owners.get("alice").await.expect("there").display_name, "Changed at run time");
    let rows = audit::all(&store);
    let of = |action: &str| rows.iter().filter(|row| row.action == action && row.outcome == "done").count();
    assert_eq!((of("owner.import"), of("owner.remove"), of("owner.set")), (2, 1, 1), "one for each change");
}

// Issue 6 line 1, UA-56: at the gateway too, and streams end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_ins_are_listed_and_ended_by_command() {
    let pair = Pair::start().await;
    let home = Home::of(&pair);
    let keep = |name: &str, secret: &str| {
        let file = home.path(name);
        std::fs::write(&file, secret).expect("written");
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, owner_only).expect("a file of ours");
        file.display().to_string()
    };
    let ran = |token: &str, line: &str, code: i32| {
        let out = home.run(&format!("--token-file {token} auth sessions {line}"));
        let (said, why) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.status.code(), Some(code), "{line}: {said}{why}");
        said.into_owned()
    };
    let admin = keep("admin.token", pair.admin().expose());
    let run = |line: &str| ran(&admin, line, 0);
    let (alice, other, bob) = (pair.login("alice").await, pair.login("alice").await, pair.login("bob").await);
    let list = run("list --owner alice");
    assert!(list.contains(&alice.owner_session_id) && list.contains(&other.owner_session_id), "{list}");
    assert!(!list.contains(&bob.owner_session_id) && !list.contains("ilk_"), "{list}");
    let shown: serde_json::Value = serde_json::from_str(&run("list --all -o json")).expect("JSON");
    assert_eq!(shown.as_array().map(Vec::len), Some(3), "{shown}");

    let ended = run(&format!("revoke {}", other.owner_session_id));
    assert!(ended.contains("1 verifiers acknowledged"), "{ended}");
    assert!(!is_in(&pair, &other).await && is_in(&pair, &alice).await);
    assert!(run(&format!("revoke {}", other.owner_session_id)).contains("had ended before"));
    run("revoke --all --older-than 1h");
    assert!(is_in(&pair, &alice).await && is_in(&pair, &bob).await, "none began so early");
    run("revoke --owner alice");
    assert!(!is_in(&pair, &alice).await && is_in(&pair, &bob).await);

    let sdk = pair.sdk_gateway(&bob.access_token);
    let session = sdk.sessions().create("bobs").await.expect("a session").session.session_id;
    let mut stream = sdk.sessions().stream(&session, interlock_client::StreamFrom::Start);
    interlock_tests::within("the log", stream.next()).await.expect("it goes on").expect("no error");
    let told = run("revoke --all");
    assert!(told.contains("1 streams closed"), "{told}");
    assert!(!is_in(&pair, &bob).await);
    // By her own session: she ends that one.
    let bob = pair.login("bob").await;
    let own = keep("own.token", bob.access_token.expose());
    ran(&own, "list --all", 5);
    assert!(ran(&own, "list", 0).contains("this one"));
    ran(&own, "revoke --owner bob", 0);
    assert!(!is_in(&pair, &bob).await);
}
