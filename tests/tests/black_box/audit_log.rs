//! `AuditService` of both services, and `interlock audit` on top of it: rows are found, followed, and shown to be
//! whole or not.

use std::path::{Path, PathBuf};

use interlock_client::{AuditFilter, AuditRow, Reason};
use interlock_tests::{Log, Pair, Setup, eventually, home::Home, within};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
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
        AuditFilter { project_id: p.clone(), ..filter.clone() },
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

    // A session's rows are found with those of its jobs and clients. SW-44
    let job = sdk.jobs().submit(&session, "work").await.expect("queued").job_id;
    sdk.jobs().cancel(&job).await.expect("queued");
    sdk.clone().with_project(&q).jobs().get(&job).await.expect_err("another project");
    let other = sdk.sessions().create("").await.expect("a session").session.session_id;
    let with = |id: &str| AuditFilter { mentions: id.to_owned(), ..AuditFilter::default() };
    let of_it = log.list(&with(&session), 0, 0).await.expect("read").rows;
    let of_it: Vec<_> = of_it.iter().map(|row| (row.action.as_str(), row.subject.as_str())).collect();
    assert_eq!(
        of_it,
        [
            ("session.create", session.as_str()),
            ("session.attach", session.as_str()),
            ("session.get", session.as_str()),
            ("job.submit", job.as_str()),
            ("job.cancel", job.as_str()),
            ("job.get", job.as_str()),
        ]
    );
    assert_eq!(log.list(&with(&other), 0, 0).await.expect("read").rows.len(), 1);
    let home = Home::of(&pair);
    let token = home.path("admin.token");
    interlock_kit::secret_file::write(&token, pair.admin().expose().as_bytes()).expect("written");
    // On the command line each flag is the filter of its name, a tail takes the same, and each leaves something out.
    pair.sdk_gateway(&pair.user()).sessions().create("").await.expect("another's");
    let everything = log.list(&AuditFilter::default(), 0, 1_000).await.expect("read").rows.len();
    let flags = [
        ("--principal", "alice", of("alice")),
        (
            "--reason",
            "PROJECT_MISMATCH",
            AuditFilter { reason: row.reason.clone(), ..AuditFilter::default() },
        ),
        ("--rpc", &row.rpc, AuditFilter { rpc: row.rpc.clone(), ..AuditFilter::default() }),
        ("--action", "job.get", AuditFilter { action: "job.get".to_owned(), ..AuditFilter::default() }),
        ("--subject", &job, AuditFilter { subject: job.clone(), ..AuditFilter::default() }),
        ("--session", &session, with(&session)),
        ("--in-project", &p, AuditFilter { project_id: p.clone(), ..AuditFilter::default() }),
    ];
    for (flag, value, filter) in flags {
        let out = home.run(&format!("--token-file {} -o json audit list {flag} {value}", token.display()));
        assert!(out.status.success(), "{flag}: {}", String::from_utf8_lossy(&out.stderr));
        let shown: Vec<Value> = serde_json::from_slice(&out.stdout).expect("JSON");
        let shown = shown.iter().filter(|row| row["service"] == "gateway").map(|row| row["id"].as_u64());
        let shown: Vec<_> = shown.map(|id| id.expect("a place")).collect();
        let rows = log.list(&filter, 0, 1_000).await.expect("read").rows;
        let mut tail = log.tail(filter, Some(0));
        assert_eq!(within("rows", tail.next()).await.expect("an administrator"), rows, "{flag}");
        let rows: Vec<_> = rows.iter().map(|row| row.id).collect();
        assert!(shown == rows && (1..everything).contains(&rows.len()), "{flag}: {shown:?} {rows:?}");
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
async fn an_edit_a_cut_and_an_older_copy_are_found_by_what_was_seen_the_last_time() {
    // Auth stores nothing of the gateway's log here: what it would remember has a test of its own.
    let mut pair = Pair::start_with(Setup::default().auth("audit.upkeep_every", "10m")).await;
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
    let older = Log::Gateway.aside(&mut pair, "older").await;
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
    let newer = Log::Gateway.aside(&mut pair, "newer").await;

    // An older copy of the store is put back: every chain of it is whole.
    Log::Gateway.put_back(&mut pair, &older, |_| {}).await;
    let said = verify(1);
    assert!(said.contains("gateway: DAMAGED") && said.contains("is an older copy"), "{said}");

    // A row is changed.
    Log::Gateway
        .put_back(&mut pair, &newer, |connection| {
            let changed = connection
                .execute("UPDATE audit SET principal = 'mallory' WHERE action = 'session.create'", [])
                .expect("a row");
            assert_eq!(changed, 1);
        })
        .await;
    let said = verify(1);
    assert!(said.contains("was edited") && said.contains("auth: whole"), "{said}");

    // The end of the chain that was seen last is cut off, with its rows: what is left is whole.
    Log::Gateway
        .put_back(&mut pair, &newer, |connection| {
            for table in ["audit", "audit_batch"] {
                let sql = format!("DELETE FROM {table} WHERE writer = ?1 AND number >= ?2");
                assert!(connection.execute(&sql, (writer, number)).expect("rows") > 0);
            }
        })
        .await;
    let said = verify(1);
    assert!(said.contains("the log was cut"), "{said}");

    // And what was there is whole still.
    Log::Gateway.put_back(&mut pair, &newer, |_| {}).await;
    verify(0);
}

// DESIGN 11, 14.18: what is left of a log is whole, and nobody has kept anything but the other service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_finds_its_log_cut_or_replaced_by_what_the_other_one_remembers() {
    let setup = Setup::default().auth("audit.upkeep_every", "1s").gateway("audit.upkeep_every", "1s");
    let mut pair = Pair::start_with(setup).await;
    for log in [Log::Gateway, Log::Auth] {
        let older = log.aside(&mut pair, "older").await;
        log.grow(&pair, 3).await;
        // The head that the other one has stored when it has stood still.
        let head = eventually("a head that the other service remembers", async || {
            let newest = log.sdk(&pair).verify(&[]).await.expect("an administrator").heads.swap_remove(0);
            (log.remembered(&pair, &newest.writer) == Some(newest.number)).then_some(newest)
        })
        .await;
        let newer = log.aside(&mut pair, "newer").await;
        let damages = log.verified(&pair).await.damages;
        assert!(damages.is_empty(), "nothing was done to it yet: {damages:#?}");

        // Its tail is cut: the batch that the other one has seen last, and what came behind it.
        log.put_back(&mut pair, &newer, |connection| {
            for table in ["audit", "audit_batch"] {
                let sql = format!("DELETE FROM {table} WHERE writer = ?1 AND number >= ?2");
                let number = i64::try_from(head.number).expect("a number");
                assert!(connection.execute(&sql, (&head.writer, number)).expect("rows") > 0);
            }
        })
        .await;
        let damages = log.verified(&pair).await.damages;
        // The seal that the first restart put behind it may have been told of, too. This one has sealed what it found.
        let lost = format!(" of {} was there once, as {} remembers", head.writer, log.other().known_as());
        let cut = format!("{lost}; its chain ends with batch {}:", head.number);
        assert!(damages.iter().any(|damage| damage.contains(&cut)), "{damages:#?}");

        // A copy of before is put in its place.
        log.put_back(&mut pair, &older, |_| {}).await;
        let damages = log.verified(&pair).await.damages;
        let cut = format!("{lost}; nothing of that chain is there:");
        assert!(damages.iter().any(|damage| damage.contains(&cut)), "{damages:#?}");

        // Rows that were changed, or taken out of the middle, are found without anybody's memory.
        log.put_back(&mut pair, &newer, |connection| {
            let sql = "DELETE FROM audit_batch WHERE writer = ?1 AND number = 1";
            assert_eq!(connection.execute(sql, [&head.writer]).expect("a batch"), 1);
        })
        .await;
        let damages = log.verified(&pair).await.damages;
        let hole = format!("batch 1 of {} is missing", head.writer);
        assert!(damages.contains(&hole), "{damages:#?}");
        log.put_back(&mut pair, &newer, |_| {}).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_rows_are_removed_and_whoever_asks_for_them_is_told_so() {
    const ROWS: usize = 150;
    let setup = Setup::default().gateway("audit.upkeep_every", "1s");
    let setup = setup.gateway("audit.rows_max", "100").gateway("audit.age_min", "0s");
    let pair = Pair::start_with(setup).await;
    let root = pair.login("root").await;
    let home = Home::of(&pair);
    home.keep(&root);
    let sdk = pair.sdk_gateway(&pair.world.role_token("user"));
    let log = Log::Gateway.sdk(&pair);
    let everything = AuditFilter::default();
    for _ in 0..ROWS {
        sdk.sessions().create("").await.expect("a session");
    }
    let page = eventually("a log that was trimmed", async || {
        let page = log.list(&everything, 0, 1_000).await.expect("an administrator");
        (page.rows.len() <= 102).then_some(page)
    })
    .await;
    let through = page.gap.expect("whoever begins at the beginning is told");
    assert!(page.rows.iter().all(|row| row.id > through) && page.at_end, "{through}");
    assert_eq!(page.rows[0].id, through + 1, "and nothing else is missing");
    let trimmed = AuditFilter { action: "audit.trim".to_owned(), ..AuditFilter::default() };
    let told = log.list(&trimmed, 0, 1_000).await.expect("read").rows;
    assert!(told.iter().any(|row| row.detail.contains("through") && row.outcome == "done"), "{told:#?}");
    assert_eq!(
        log.list(&everything, through, 10).await.expect("read").gap,
        None,
        "from there on it is whole"
    );
    let report = log.verify(&[]).await.expect("verified");
    assert!(report.damages.is_empty() && report.rows <= 102, "{report:#?}");

    let mut tail = log.tail(everything.clone(), Some(1));
    assert!(!within("rows", tail.next()).await.expect("an administrator").is_empty());
    assert_eq!(tail.gap(), Some(through));
    let out = home.run("audit export gateway --after 1");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.success() && said.contains(&format!("gateway: rows up to {through} were removed")),
        "{said}"
    );
    // One JSON object a line, each after the cursor; from the last one on there is what came since.
    let ids = |out: &[u8]| -> Vec<u64> {
        let line = |line: &str| {
            let row: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            row["id"].as_u64().unwrap_or_else(|| panic!("no cursor: {line}"))
        };
        String::from_utf8_lossy(out).lines().map(line).collect()
    };
    let whole = ids(&out.stdout);
    assert!(whole.first() > Some(&through) && whole.windows(2).all(|pair| pair[0] < pair[1]), "{whole:?}");
    let last = *whole.last().expect("rows");
    sdk.sessions().create("").await.expect("a session");
    let out = home.run(&format!("audit export gateway --after {last} --action session.create"));
    let since = ids(&out.stdout);
    assert!(out.status.success() && since.len() == 1 && since[0] > last, "{last} {since:?}");
}

/// What is done to a service's store while the service is down.
trait Stored {
    fn store(self, pair: &Pair) -> PathBuf;
    fn remembered(self, pair: &Pair, writer: &str) -> Option<u64>;
    async fn aside(self, pair: &mut Pair, name: &str) -> PathBuf;
    async fn put_back(self, pair: &mut Pair, copy: &Path, work: impl FnOnce(&Connection));
}

impl Stored for Log {
    fn store(self, pair: &Pair) -> PathBuf {
        pair.world.path(&format!("{0}/{0}.db", self.name()))
    }

    /// What the other service has stored of a chain of this log.
    fn remembered(self, pair: &Pair, writer: &str) -> Option<u64> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let store = Connection::open_with_flags(self.other().store(pair), flags).expect("the store");
        let sql = "SELECT number FROM remembered_head WHERE writer = ?1";
        let number: Option<i64> = store.query_row(sql, [writer], |row| row.get(0)).optional().expect("rows");
        number.and_then(|number| u64::try_from(number).ok())
    }

    /// Stops the service, keeps a copy of its store, and starts it again.
    async fn aside(self, pair: &mut Pair, name: &str) -> PathBuf {
        self.stop(pair).await;
        let store = self.store(pair);
        let copy = store.with_extension(name);
        drop(fold(&store));
        std::fs::copy(&store, &copy).expect("a copy");
        self.start(pair).await;
        copy
    }

    /// Puts a copy in the store's place, does something to it, and starts the service on it.
    async fn put_back(self, pair: &mut Pair, copy: &Path, work: impl FnOnce(&Connection)) {
        self.stop(pair).await;
        let store = self.store(pair);
        for file in ["db-wal", "db-shm"] {
            let _ = std::fs::remove_file(store.with_extension(file));
        }
        std::fs::copy(copy, &store).expect("a copy");
        work(&fold(&store));
        self.start(pair).await;
    }
}

/// The store, with all of it in its one file.
fn fold(store: &Path) -> Connection {
    let connection = Connection::open(store).expect("the store");
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("folded");
    connection
}
