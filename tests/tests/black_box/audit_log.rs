//! `AuditService` of both services, and `interlock audit` on top of it: rows are found, followed, and shown to be
//! whole or not.

use std::path::Path;

use interlock_client::{AuditFilter, AuditRow, Reason};
use interlock_tests::{Pair, eventually, home::Home, within};
use rusqlite::Connection;
use serde_json::Value;

/// Nothing else is asked for.
fn of(principal: &str) -> AuditFilter {
    AuditFilter { principal: principal.to_owned(), ..AuditFilter::default() }
}

// SQ-20, SW-44: readable by AuditService.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denials_are_found_by_who_why_what_and_where() {
    let pair = Pair::start().await;
    let alice = pair.login("alice").await;
    let (p, q) = (pair.project(&alice, "p").await, pair.project(&alice, "q").await);
    let sdk = pair.sdk_gateway(&alice.access_token);
    sdk.agents().set("a", interlock_client::SetAgent::default()).await.expect("an agent");
    let session = sdk.sessions().create("").await.expect("a session").session.session_id;
    sdk.sessions().attach(&session, "a", &p).await.expect("idle");
    let denied = sdk.clone().with_project(&q).sessions().get(&session).await.expect_err("another project");
    assert_eq!(denied.reason(), Some(Reason::ProjectMismatch));

    let log = pair.sdk_gateway(&pair.admin()).audit();
    let filter = AuditFilter { reason: "PROJECT_MISMATCH".to_owned(), ..of("alice") };
    let found = log.list(&filter, 0, 0).await.expect("an administrator");
    assert!(found.at_end);
    let [row] = &found.rows[..] else { panic!("one row, not {found:#?}") };
    assert_eq!(
        (row.action.as_str(), row.outcome.as_str(), row.subject.as_str(), row.role.as_str(), row.count),
        ("session.get", "refused", session.as_str(), "user", 1)
    );
    assert_eq!(row.rpc, "/interlock.gateway.v1.SessionService/GetSession");
    assert_eq!(Some(row.request_id.as_str()), denied.request_id());
    assert!(row.credential_id.starts_with("crd_") && row.peer.starts_with("127.0.0.1:"), "{row:#?}");
    let detail: Value = serde_json::from_str(&row.detail).expect("facts");
    assert!(detail.to_string().contains(&q), "the named project: {detail}");

    // By each field, and by none of them under another value.
    let at = row.at.expect("an instant");
    let (before, after) =
        (at - std::time::Duration::from_millis(1), at + std::time::Duration::from_millis(1));
    let matching = [
        AuditFilter { rpc: row.rpc.clone(), ..filter.clone() },
        AuditFilter { action: row.action.clone(), ..filter.clone() },
        AuditFilter { subject: session.clone(), ..filter.clone() },
        AuditFilter { since: Some(before), until: Some(after), ..filter.clone() },
    ];
    for filter in matching {
        assert_eq!(log.list(&filter, 0, 0).await.expect("read").rows, found.rows, "{filter:?}");
    }
    let other = || "other".to_owned();
    let missing = [
        AuditFilter { principal: other(), ..filter.clone() },
        AuditFilter { rpc: other(), ..filter.clone() },
        AuditFilter { action: other(), ..filter.clone() },
        AuditFilter { subject: other(), ..filter.clone() },
        AuditFilter { project_id: other(), ..filter.clone() },
        AuditFilter { since: Some(after), ..filter.clone() },
        AuditFilter { until: Some(before), ..filter.clone() },
    ];
    for filter in missing {
        assert_eq!(log.list(&filter, 0, 0).await.expect("read").rows, [], "{filter:?}");
    }

    // Page by page it is the same log.
    let everything = AuditFilter::default();
    let whole = log.list(&everything, 0, 1_000).await.expect("read");
    let (mut rows, mut next) = (Vec::new(), 0);
    loop {
        let page = log.list(&everything, next, 2).await.expect("read");
        assert!(page.rows.len() <= 2);
        rows.extend(page.rows);
        next = page.next;
        if page.at_end {
            break;
        }
    }
    assert_eq!(rows[..whole.rows.len()], whole.rows[..]);

    // Auth's log is auth's; it too is nobody's but the administrators'.
    let log = pair.sdk_auth_as(&pair.admin()).audit();
    let made = AuditFilter { action: "project.create".to_owned(), ..of("alice") };
    assert_eq!(log.list(&made, 0, 0).await.expect("read").rows.len(), 2);
    let refused = pair.sdk_auth_as(&alice.access_token).audit().list(&made, 0, 0).await;
    assert_eq!(refused.expect_err("no administrator").reason(), Some(Reason::Forbidden));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_gives_each_row_once_and_ends_with_its_credential() {
    const SESSIONS: usize = 30;
    let mut pair = Pair::start().await;
    let (alice, root) = (pair.login("alice").await, pair.login("root").await);
    let filter = AuditFilter { action: "session.create".to_owned(), ..of("alice") };
    let mut tail = pair.sdk_gateway(&root.access_token).audit().tail(filter, Some(0));
    let sdk = pair.sdk_gateway(&alice.access_token);
    let (mut made, mut told): (Vec<String>, Vec<AuditRow>) = (Vec::new(), Vec::new());
    for n in 0..SESSIONS {
        if n == SESSIONS / 2 {
            // The stream breaks, and goes on where it was.
            pair.gateway.kill();
            pair.start_gateway().await;
            pair.serving().await;
        }
        made.push(sdk.sessions().create("").await.expect("a session").session.session_id);
        if n % 10 == 0 {
            told.extend(within("rows", tail.next()).await.expect("an administrator"));
        }
    }
    while told.len() < SESSIONS {
        told.extend(within("rows", tail.next()).await.expect("an administrator"));
    }
    let told: Vec<_> = told.into_iter().map(|row| row.subject).collect();
    assert_eq!(told, made, "each once, in order");

    pair.sdk_auth().logout(&root.access_token).await.expect("signed out");
    let ended = within("the end", tail.next()).await.expect_err("it stood on that credential");
    assert!(matches!(ended.reason(), Some(Reason::Revoked | Reason::ProviderAuthFailed)), "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_a_cut_and_an_older_copy_are_found() {
    let mut pair = Pair::start().await;
    let root = pair.login("root").await;
    let home = Home::of(&pair);
    home.keep(&root);
    let verify = |expected: i32| {
        let out = home.run("audit verify");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(out.status.code(), Some(expected), "{said}{}", String::from_utf8_lossy(&out.stderr));
        said
    };
    let said = verify(0);
    assert!(said.contains("auth: whole: ") && said.contains("nothing to compare with from before"), "{said}");
    let store = pair.world.path("gateway/gateway.db");

    let older = aside(&mut pair, &store, "older").await;
    eventually("a session", async || pair.sdk_gateway(&root.access_token).sessions().create("").await.ok())
        .await;
    let said = verify(0);
    assert!(
        said.contains("gateway: whole: ") && said.contains("chains compared with the last time"),
        "{said}"
    );
    let heads: Value =
        serde_json::from_slice(&std::fs::read(home.kept().join("audit-heads.json")).expect("kept"))
            .expect("JSON");
    let (writer, number) =
        (heads["gateway"][0]["writer"].as_str().expect("a writer"), heads["gateway"][0]["number"].as_i64());
    let newer = aside(&mut pair, &store, "newer").await;

    // An older copy of the store is put back: every chain of it is whole.
    put_back(&mut pair, &older, &store, |_| {}).await;
    let said = verify(1);
    assert!(said.contains("gateway: DAMAGED") && said.contains("is an older copy"), "{said}");

    // A row is changed.
    put_back(&mut pair, &newer, &store, |connection| {
        let changed = connection
            .execute("UPDATE audit SET principal = 'mallory' WHERE action = 'session.create'", [])
            .expect("a row");
        assert_eq!(changed, 1);
    })
    .await;
    let said = verify(1);
    assert!(said.contains("was edited") && said.contains("auth: whole"), "{said}");

    // The end of the chain that was seen last is cut off, with its rows: what is left is whole.
    put_back(&mut pair, &newer, &store, |connection| {
        for table in ["audit", "audit_batch"] {
            let sql = format!("DELETE FROM {table} WHERE writer = ?1 AND number >= ?2");
            assert!(connection.execute(&sql, (writer, number)).expect("rows") > 0);
        }
    })
    .await;
    let said = verify(1);
    assert!(said.contains("the log was cut"), "{said}");

    // And what was there is whole still.
    put_back(&mut pair, &newer, &store, |_| {}).await;
    verify(0);
}

/// Stops the gateway, keeps a copy of its store, and starts it again.
async fn aside(pair: &mut Pair, store: &Path, name: &str) -> std::path::PathBuf {
    assert!(pair.gateway.drain().await.success(), "it drains");
    let copy = store.with_extension(name);
    drop(fold(store));
    std::fs::copy(store, &copy).expect("a copy");
    pair.start_gateway().await;
    pair.serving().await;
    copy
}

/// Puts a copy in the store's place, does something to it, and starts the gateway on it.
async fn put_back(pair: &mut Pair, copy: &Path, store: &Path, work: impl FnOnce(&Connection)) {
    assert!(pair.gateway.drain().await.success(), "it drains");
    for file in ["db-wal", "db-shm"] {
        let _ = std::fs::remove_file(store.with_extension(file));
    }
    std::fs::copy(copy, store).expect("a copy");
    work(&fold(store));
    pair.start_gateway().await;
    pair.serving().await;
}

/// The store, with all of it in its one file.
fn fold(store: &Path) -> Connection {
    let connection = Connection::open(store).expect("the store");
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("folded");
    connection
}
