//! Stores that are damaged, foreign, newer, changed.

use std::path::Path;

use interlock_tests::start::Attempt;
use rusqlite::{Connection, config::DbConfig};

use super::{AUTH, BOTH, GATEWAY, MET, Row, TOLD, all, site::Site};

const LEFT: &str = "it was left as it is";

const DAMAGED: &[Row] = &[
    (
        "empty",
        BOTH,
        |a| changed(a, Vec::clear),
        MET,
        &["the store ", " is damaged: it is empty", LEFT, "restore it"],
    ),
    ("of one byte", BOTH, |a| changed(a, |c| c.truncate(1)), MET, &["the store ", "damaged", LEFT]),
    ("cut in the header", BOTH, |a| changed(a, |c| c.truncate(60)), MET, &["the store ", "damaged", LEFT]),
    ("cut to half", BOTH, |a| changed(a, |c| c.truncate(c.len() / 2)), MET, &["the store ", "damaged", LEFT]),
    (
        "cut in a page",
        BOTH,
        |a| changed(a, |c| c.truncate(c.len() - 2048)),
        MET,
        &["the store ", "damaged", LEFT],
    ),
    (
        "garbage for a header",
        BOTH,
        |a| changed(a, |c| c[..100].fill(0xa5)),
        MET,
        &["not a database of whole pages", LEFT],
    ),
    (
        "zeros for a first page",
        BOTH,
        |a| changed(a, |c| c[..4096].fill(0)),
        MET,
        &["not a database of whole pages", LEFT],
    ),
    (
        "a text",
        BOTH,
        |a| changed(a, |c| *c = b"hunter2\n".repeat(999)),
        MET,
        &["not a database of whole pages", LEFT],
    ),
    (
        "garbage in every page",
        BOTH,
        |a| changed(a, |c| garbled(c, 0xa5)),
        MET,
        &["the store ", "damaged", LEFT],
    ),
    ("holes in every page", BOTH, |a| changed(a, |c| garbled(c, 0)), MET, &["the store ", "damaged", LEFT]),
    ("a migration without a date", BOTH, |a| told(a, UNDATED), MET, &["the store ", "has no date", LEFT]),
    ("a folder", BOTH, folder, MET, &["cannot read the store ", "not a regular file", "must be a file"]),
    ("a loop of links", BOTH, looped, MET, &["cannot read the store ", "symbolic links"]),
    ("closed to this user", BOTH, closed, MET, &["cannot read the store ", "this user can read and write"]),
];

const FOREIGN: &[Row] = &[
    (
        "the gateway's",
        AUTH,
        |a| copied(a, "gateway/gateway.db"),
        MET,
        &["auth.db is not a store of this program: it has migration V1__gateway", LEFT, "set data_dir"],
    ),
    (
        "auth's",
        GATEWAY,
        |a| copied(a, "auth/auth.db"),
        MET,
        &["gateway.db is not a store of this program: it has migration V1__auth", LEFT, "set data_dir"],
    ),
    ("somebody's", BOTH, somebodys, MET, &["is not a store of this program", LEFT, "set data_dir"]),
];

/// DESIGN 11: a newer store refuses an older program.
const OTHER_VERSIONS: &[Row] = &[
    (
        "newer",
        BOTH,
        |a| told(a, NEWER),
        MET,
        &["of a newer version (it has migration V99__later)", LEFT, "use the prog"],
    ),
    (
        "newer in what both services share",
        BOTH,
        |a| told(a, &NEWER.replace(SERVICE, KIT)),
        MET,
        &["of a newer version (it has migration V99__later)", LEFT],
    ),
    (
        "changed",
        BOTH,
        |a| told(a, CHANGED),
        MET,
        &["of another build (migration V1__", LEFT, "use the program that last"],
    ),
    (
        "changed in what both services share",
        BOTH,
        |a| told(a, &CHANGED.replace(SERVICE, KIT)),
        MET,
        &["of another build (migration V1__audit is not", LEFT],
    ),
    (
        "of a checksum that is none",
        BOTH,
        |a| told(a, GARBLED_SUM),
        MET,
        &["of another build (migration V1__", LEFT],
    ),
];

const SERVICE: &str = "refinery_schema_history";
const KIT: &str = "kit_migrations";
const NEWER: &str = "INSERT INTO refinery_schema_history SELECT 99, 'later', applied_on, checksum \
    FROM refinery_schema_history WHERE version = 1";
const CHANGED: &str = "UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1";
const GARBLED_SUM: &str = "UPDATE refinery_schema_history SET checksum = 'hunter2' WHERE version = 1";
const UNDATED: &str = "UPDATE kit_migrations SET applied_on = 'hunter2' WHERE version = 1";

/// The log of a store that was killed.
const LOGS: &[Row] = &[
    (
        "garbage for a header",
        BOTH,
        |a| log(a, |c| c[..32].fill(0xa5)),
        MET,
        &["-wal is damaged: its log has no valid beg", LEFT],
    ),
    (
        "zeros for a header",
        BOTH,
        |a| log(a, |c| c[..32].fill(0)),
        MET,
        &["-wal is damaged: its log has no valid begin"],
    ),
    (
        "a bit of its header",
        BOTH,
        |a| log(a, |c| c[17] ^= 1),
        MET,
        &["-wal is damaged: its log has no valid beginning"],
    ),
    // Every page of this store stands in its log only.
    (
        "garbage in its first frames",
        BOTH,
        |a| log(a, |c| c[32..32 + 2 * 4120].fill(0xa5)),
        MET,
        &["the store ", "is damaged: its log is cut off by damage", LEFT],
    ),
    (
        "no store beside it",
        BOTH,
        |a| {
            std::fs::remove_file(a.store()).expect("removed");
            a
        },
        MET,
        &["the store ", "is damaged: it is missing beside its log", LEFT],
    ),
    (
        "an empty store beside it",
        BOTH,
        |a| changed(a, Vec::clear),
        MET,
        &["the store ", "is damaged: it is empty", LEFT],
    ),
    // The log of a store that is refused is not written back into it.
    (
        "newer, as only the log says",
        BOTH,
        |a| told(a, NEWER),
        MET,
        &["of a newer version (it has migration V99__later)"],
    ),
    ("somebody's", BOTH, somebodys, MET, &["is not a store of this program", LEFT]),
    ("bad accounts beside it", AUTH, |a| a.write("accounts.json", "hunter2"), TOLD, &["not accounts JSON"]),
];

fn changed(a: &mut Attempt, change: fn(&mut Vec<u8>)) -> &mut Attempt {
    let store = a.store();
    a.change(&store, change)
}

fn log(a: &mut Attempt, change: fn(&mut Vec<u8>)) -> &mut Attempt {
    let log = log_of(&a.store());
    a.change(&log, change)
}

fn log_of(store: &Path) -> std::path::PathBuf {
    store.with_extension("db-wal")
}

/// In the middle of every page but the first.
fn garbled(contents: &mut [u8], with: u8) {
    for page in contents.chunks_mut(4096).skip(1) {
        page[1024..3072].fill(with);
    }
}

/// What is told stands in the log where there was one.
fn told<'a>(a: &'a mut Attempt, sql: &str) -> &'a mut Attempt {
    let had_log = log_of(&a.store()).exists();
    let connection = Connection::open(a.store()).expect("the store");
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, had_log).expect("set");
    assert_eq!(connection.execute(sql, []).expect(sql), 1, "{sql}");
    a
}

fn folder(a: &mut Attempt) -> &mut Attempt {
    std::fs::remove_file(a.store()).expect("removed");
    std::fs::create_dir(a.store()).expect("made");
    a
}

fn looped(a: &mut Attempt) -> &mut Attempt {
    std::fs::remove_file(a.store()).expect("removed");
    std::os::unix::fs::symlink(a.store(), a.store()).expect("linked");
    a
}

fn closed(a: &mut Attempt) -> &mut Attempt {
    let name = a.either("auth/auth.db", "gateway/gateway.db").to_owned();
    a.unprivileged().mode(&name, 0o000)
}

fn copied<'a>(a: &'a mut Attempt, from: &str) -> &'a mut Attempt {
    std::fs::copy(a.path(from), a.store()).expect("copied");
    a
}

/// A database that has nothing to do with us, and nothing of SQLite's log.
fn somebodys(a: &mut Attempt) -> &mut Attempt {
    std::fs::remove_file(a.store()).expect("removed");
    let _ = std::fs::remove_file(log_of(&a.store()));
    let connection = Connection::open(a.store()).expect("a database");
    connection.execute_batch("CREATE TABLE moz_cookies (id INTEGER PRIMARY KEY, value TEXT)").expect("made");
    a
}

// SW-17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_not_whole_or_not_ours_is_refused_and_left() {
    let mut site = Site::at_rest().await;
    for table in [DAMAGED, FOREIGN, OTHER_VERSIONS] {
        all(&mut site, table);
    }
    site.everything_is_there().await;
}

// I6: what is acknowledged stands in the log until it is written back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_start_leaves_the_log_of_a_killed_service_alone() {
    let mut site = Site::killed().await;
    for store in ["auth/auth.db", "gateway/gateway.db"] {
        let bytes = std::fs::metadata(log_of(&site.path(store))).map_or(0, |log| log.len());
        assert!(bytes > 4096, "the log of {store} is {bytes} bytes: this test would show nothing");
    }
    all(&mut site, LOGS);
    site.everything_is_there().await;
}
