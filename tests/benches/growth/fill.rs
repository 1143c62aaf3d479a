//! Fills the stores of stopped services through SQL: the rows that as many calls would have left, without the calls.
//! Audit rows are left out: nothing reads them at a start, and they are of no verb's way.
//!
//! Of the gateway's sessions a bounded number is of the owners who call later, spread evenly over all of them; the
//! rest is of owners that nobody knows. Every twentieth session has twenty jobs, the others none.

use std::path::Path;

use interlock_kit::clock::Clock;
use rusqlite::{Connection, params};

use crate::owners::Owner;

/// Rows of one transaction: a multiple of [`JOBS_EACH`].
const CHUNK: u64 = 20_000;
/// Jobs of a session that has some.
pub(crate) const JOBS_EACH: u64 = 20;
/// Sessions of one owner, at most: below the quota.
const SESSIONS_EACH: u64 = 450;
/// Owner sessions of one owner that nobody knows: below the quota.
const SIGN_INS_EACH: u64 = 900;
const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// How the sessions lie in the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    rows: u64,
    owners: u64,
    /// Every so many sessions, one is of an owner who calls.
    step: u64,
    /// How many of those there are.
    known: u64,
    /// When it was made, microseconds.
    at: i64,
}

impl Layout {
    /// Of so many rows and owners.
    pub(crate) fn new(rows: u64, owners: usize) -> Self {
        let owners = owners as u64;
        let known = owners * (rows / owners).min(SESSIONS_EACH);
        Self { rows, owners, step: rows / known, known, at: Clock::system().now().as_micros() }
    }

    /// The sessions of owners who call: its id, which owner's, and whether it has jobs.
    pub(crate) fn known(&self) -> impl Iterator<Item = (String, usize, bool)> + '_ {
        (0..self.known).map(|nth| {
            let at = nth * self.step;
            (self.session(at), (nth % self.owners) as usize, at.is_multiple_of(JOBS_EACH))
        })
    }

    /// The id of a session: older ones sort before younger ones, as those do that services make.
    fn session(&self, at: u64) -> String {
        format!("ses_{:016x}{at:016x}", self.prefix())
    }

    /// The first half of each id: that of an instant two hours ago.
    fn prefix(&self) -> i64 {
        (self.at - 2 * HOUR_US) / 1_000 * 65_536 + 0x7000
    }
}

/// As many sessions, clients, events, jobs and first answers.
pub(crate) fn gateway(store: &Path, layout: &Layout, owners: &[Owner]) {
    let mut connection = open(store);
    let Layout { rows, step, known, owners: count, at, .. } = *layout;
    connection
        .execute_batch(
            "CREATE TEMP TABLE known (k INTEGER PRIMARY KEY, owner TEXT, agent TEXT, project TEXT);
             CREATE TEMP TABLE n (i INTEGER PRIMARY KEY, id TEXT, owner TEXT, agent TEXT, project TEXT);",
        )
        .expect("tables");
    for (k, owner) in owners.iter().enumerate() {
        let name = owner.agent.strip_prefix("a-").expect("an owner's agent is named after it");
        connection
            .execute(
                "INSERT INTO known VALUES (?1, ?2, ?3, ?4)",
                params![k, name, owner.agent, owner.project],
            )
            .expect("a row");
    }
    let prefix = layout.prefix();
    for from in (0..rows).step_by(CHUNK as usize) {
        let to = (from + CHUNK).min(rows);
        let sql = format!(
            "DELETE FROM n;
             WITH RECURSIVE c(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM c WHERE i + 1 < {to})
             INSERT INTO n SELECT c.i, printf('%016x%016x', {prefix}, c.i),
                    COALESCE(k.owner, 'g' || (c.i / 100)), COALESCE(k.agent, 'x' || (c.i / 100)),
                    COALESCE(k.project, printf('prj_%032x', c.i / 100))
             FROM c LEFT JOIN known k
               ON c.i % {step} = 0 AND c.i / {step} < {known} AND k.k = (c.i / {step}) % {count};

             INSERT INTO session (id, owner, name, agent, project, epoch, phase, created_at, ended_at)
             SELECT 'ses_' || id, owner, NULL, agent, project, 1, 0, {made}, NULL FROM n;
             INSERT INTO log_head (session, first, last, bytes, first_at)
             SELECT 'ses_' || id, 1, 1, 61, {made} FROM n;
             INSERT INTO event (session, sequence, at, project, epoch, format, facts, data)
             SELECT 'ses_' || id, 1, {made}, NULL, 0, 1, '{{\"created\":{{\"client\":\"clt_' || id || '\"}}}}', x''
             FROM n;
             INSERT INTO client (id, session, role, hash, cursor, created_at, seen_at)
             SELECT 'clt_' || id, 'ses_' || id, 2, randomblob(32), 0, {made}, {made} FROM n;

             INSERT INTO job (id, session, owner, agent, project, epoch, state, attempt, lost, fencing, holder,
                              progress, submitted_at, first_started_at, started_at, ended_at, cause, ended_by)
             SELECT 'job_' || n.id, 'ses_' || home.id, home.owner, home.agent, home.project, 1, 2, 1, 0, 1,
                    home.owner, 0, {made}, {made}, {made}, {made}, '', 1
             FROM n JOIN n AS home ON home.i = n.i - n.i % {JOBS_EACH};
             INSERT INTO payload (job, data) SELECT 'job_' || id, randomblob(64) FROM n;
             INSERT INTO result (job, data) SELECT 'job_' || id, randomblob(16) FROM n;
             INSERT INTO request (kind, scope, id, hash, made, sealed, kept_until)
             SELECT 1, 'ses_' || home.id, 'r' || n.i, zeroblob(32), 'job_' || n.id, x'', {kept}
             FROM n JOIN n AS home ON home.i = n.i - n.i % {JOBS_EACH};",
            made = at - HOUR_US,
            kept = at + DAY_US,
        );
        chunk(&mut connection, &sql);
    }
}

/// As many credentials: half as many owner sessions, each with an access token and a refresh token.
pub(crate) fn auth(store: &Path, layout: &Layout) {
    let mut connection = open(store);
    let issued: i64 =
        connection.query_row("SELECT issuance FROM counter", [], |row| row.get(0)).expect("a counter");
    let (sessions, at, prefix) = (layout.rows / 2, layout.at, layout.prefix());
    connection
        .execute_batch("CREATE TEMP TABLE n (i INTEGER PRIMARY KEY, id TEXT, access BLOB, refresh BLOB)")
        .expect("a table");
    for from in (0..sessions).step_by(CHUNK as usize) {
        let to = (from + CHUNK).min(sessions);
        let sql = format!(
            "DELETE FROM n;
             WITH RECURSIVE c(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM c WHERE i + 1 < {to})
             INSERT INTO n SELECT i, printf('%016x%016x', {prefix}, i), randomblob(32), randomblob(32) FROM c;

             INSERT OR IGNORE INTO owner (id, display_name, roles, active, password, version, sessions_from,
                                          changed_at)
             SELECT 'g' || (i / {SIGN_INS_EACH}), '', '[\"user\"]', 1, '$none', 1, 0, {made} FROM n;
             INSERT INTO owner_session (id, owner, issuance, created_at, expires_at, ended_at, refreshes)
             SELECT 'ows_' || id, 'g' || (i / {SIGN_INS_EACH}), {issued} + 2 * i + 1, {made}, {ends}, NULL, 0
             FROM n;
             INSERT INTO access_token (hash, id, session, issuance, expires_at)
             SELECT access, 'crd_a' || id, 'ows_' || id, {issued} + 2 * i + 1, {ends} FROM n ORDER BY access;
             INSERT INTO refresh_token (hash, id, session, issuance, state)
             SELECT refresh, 'crd_r' || id, 'ows_' || id, {issued} + 2 * i + 2, 'fresh' FROM n ORDER BY refresh;
             UPDATE counter SET issuance = {issued} + 2 * {to};",
            made = at - HOUR_US,
            ends = at + DAY_US,
        );
        chunk(&mut connection, &sql);
    }
}

/// Hashes of access tokens, spread over all of them.
pub(crate) fn access_hashes(store: &Path, count: u64) -> Vec<Vec<u8>> {
    let connection = open(store);
    let mut hashes = connection
        .prepare(
            "SELECT hash FROM access_token WHERE session LIKE 'ows\\_0%' ESCAPE '\\' AND id LIKE 'crd\\_a%' ESCAPE '\\'
             ORDER BY hash",
        )
        .expect("a statement");
    let all: Vec<Vec<u8>> = hashes
        .query_map([], |row| row.get(0))
        .and_then(Iterator::collect::<rusqlite::Result<_>>)
        .expect("hashes");
    let step = (all.len() / count as usize).max(1);
    all.into_iter().step_by(step).take(count as usize).collect()
}

/// First answers that nobody may ask for any more.
pub(crate) fn stale_requests(store: &Path, count: u64) {
    let at = Clock::system().now().as_micros();
    let sql = format!(
        "WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM c WHERE i + 1 < {count})
         INSERT INTO request (kind, scope, id, hash, made, sealed, kept_until)
         SELECT 1, 'ses_stale' || (i % 1000), 'stale' || i, zeroblob(32), 'job_stale' || i, x'', {at} - {HOUR_US} - i
         FROM c;"
    );
    chunk(&mut open(store), &sql);
}

/// More events in each of the first so many sessions of nobody's, so that they are `count` together.
pub(crate) fn long_logs(store: &Path, sessions: u64, count: u64) {
    let each = count / sessions;
    let at = Clock::system().now().as_micros() - HOUR_US;
    let facts = r#"{"job_cancel_requested":{"job":"job_0"}}"#;
    let (last, bytes) = (each + 1, facts.len());
    let sql = format!(
        "CREATE TEMP TABLE long AS SELECT id FROM session WHERE owner LIKE 'g%' ORDER BY id LIMIT {sessions};
         WITH RECURSIVE c(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM c WHERE i < {last})
         INSERT INTO event (session, sequence, at, project, epoch, format, facts, data)
         SELECT id, i, {at}, NULL, 0, 1, '{facts}', x'' FROM long, c;
         UPDATE log_head SET last = {last}, bytes = bytes + {each} * {bytes} WHERE session IN (SELECT id FROM long);"
    );
    chunk(&mut open(store), &sql);
}

/// More events in the log of that owner's youngest session, so that they are `count` together.
pub(crate) fn log(store: &Path, owner: &str, count: u64) {
    let mut connection = open(store);
    let find = "SELECT session, last FROM log_head
                WHERE session = (SELECT id FROM session WHERE owner = ?1 ORDER BY id DESC LIMIT 1)";
    let (session, last): (String, u64) =
        connection.query_row(find, [owner], |row| Ok((row.get(0)?, row.get(1)?))).expect("its session");
    let at = Clock::system().now().as_micros();
    let facts = r#"{"job_cancel_requested":{"job":"job_0"}}"#;
    let (more, bytes) = (count - last, facts.len());
    let sql = format!(
        "WITH RECURSIVE c(i) AS (SELECT {last} + 1 UNION ALL SELECT i + 1 FROM c WHERE i < {count})
         INSERT INTO event (session, sequence, at, project, epoch, format, facts, data)
         SELECT '{session}', i, {at}, NULL, 0, 1, '{facts}', x'' FROM c;
         UPDATE log_head SET last = {count}, bytes = bytes + {more} * {bytes} WHERE session = '{session}';"
    );
    chunk(&mut connection, &sql);
}

/// Access tokens that ended longer ago than they are remembered.
pub(crate) fn ended_tokens(store: &Path, count: u64) {
    let ended = Clock::system().now().as_micros() - 2 * DAY_US;
    let sql = format!(
        "CREATE TEMP TABLE home AS
             SELECT row_number() OVER () - 1 AS k, id FROM owner_session WHERE owner LIKE 'g%';
         WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM c WHERE i + 1 < {count})
         INSERT INTO access_token (hash, id, session, issuance, expires_at)
         SELECT randomblob(32), 'crd_e' || i, home.id, 1, {ended} - i
         FROM c JOIN home ON home.k = c.i % (SELECT COUNT(*) FROM home);"
    );
    chunk(&mut open(store), &sql);
}

/// What a statement counts in a store, whoever writes to it meanwhile.
pub(crate) fn count(store: &Path, sql: &str) -> u64 {
    open(store).query_row(sql, [], |row| row.get(0)).expect("a count")
}

/// A lost fill is filled again: no waiting for the disk.
fn open(store: &Path) -> Connection {
    let connection = Connection::open(store).expect("a store that a first start has made");
    connection.busy_timeout(std::time::Duration::from_secs(10)).expect("settings");
    connection
        .execute_batch(
            "PRAGMA synchronous = OFF; PRAGMA cache_size = -262144; PRAGMA temp_store = MEMORY;
             PRAGMA foreign_keys = ON;",
        )
        .expect("settings");
    connection
}

fn chunk(connection: &mut Connection, sql: &str) {
    let transaction = connection.transaction().expect("a transaction");
    transaction.execute_batch(sql).expect("rows that the tables take");
    transaction.commit().expect("committed");
}
