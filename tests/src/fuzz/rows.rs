//! Cells of the gateway's store, changed behind its back: a damaged disk, a hand with an SQL shell.

use std::{
    fs,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::FutureExt as _;
use interlock_gateway::{
    adopt::OwnerFacts,
    agent::SetAgent,
    binding::Attach,
    caller::{Caller, Principal, Unscoped},
    ids::{AgentId, ClientId, JobId, OwnerId, ProjectId, RequestId, SessionId, WorkerName},
    job::{ListJobs, Outcome, Submit},
    lease::{Finish, Renew},
    limits::Limits,
    session::{CloseSession, CreateSession, GetSession, ListSessions},
    store::{Gateway, Query, Resolver, Shell, Signal, Verb},
    sweep::{Due, DueLogs, Duty, Sweep},
    worker::Claim,
};
use interlock_kit::{
    clock::{Clock, Timestamp},
    error::Error,
    store::{
        Fault, Observer,
        audit::{ChainKey, Origin},
        sqlite::{Options, Place},
        writer::QueueLimits,
    },
};
use rusqlite::{Connection, types::Value};
use tempfile::TempDir;

/// The session whose rows are changed, and the one whose are not.
const DAMAGED: &str = "ses_a";
const WHOLE: &str = "ses_b";
const AGENT: &str = "builder";
const PROJECTS: [&str; 2] = ["p", "q"];

static STORE: LazyLock<Vec<u8>> = LazyLock::new(made);
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

/// Changes, each: a table, a row, a column, a kind of value, its length, its bytes.
///
/// # Panics
/// Where the store panics, or a session whose rows are whole is not answered.
pub fn check(data: &[u8]) {
    let file = FOLDER.path().join("gateway.db");
    for end in ["db", "db-wal", "db-shm"] {
        let _ = fs::remove_file(file.with_extension(end));
    }
    fs::write(&file, &*STORE).expect("written");
    let connection = Connection::open(&file).expect("a database");
    connection
        .execute_batch(
            "PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF",
        )
        .expect("set");
    let mut rest = data;
    for _ in 0..4 {
        let [table, row, column, kind, length, more @ ..] = rest else { break };
        let (value, after) = more.split_at(more.len().min(usize::from(*length)));
        change(&connection, [*table, *row, *column].map(usize::from), value_of(*kind, value));
        rest = after;
    }
    drop(connection);
    // A store that cannot be opened says why; it is typed.
    let Ok(shell) = open(Place::File(file), Duration::from_secs(3600)) else { return };
    use_all(&shell);
    let whole = ask(&shell, GetSession { session: session(WHOLE) });
    let named = data.windows(WHOLE.len()).any(|window| window == WHOLE.as_bytes());
    assert!(whole.is_ok() || named, "a session whose rows are whole is not answered: {whole:?}");
    shell.close().now_or_never();
}

fn value_of(kind: u8, bytes: &[u8]) -> Value {
    let number = || bytes.iter().take(8).fold(0_u64, |n, byte| (n << 8) | u64::from(*byte));
    match kind % 5 {
        0 => Value::Null,
        1 => Value::Integer(number().cast_signed()),
        2 => Value::Real(f64::from_bits(number())),
        3 => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        _ => Value::Blob(bytes.to_vec()),
    }
}

/// What the schema does not allow is not done. Rows that name the other session are left alone.
fn change(connection: &Connection, [table, row, column]: [usize; 3], value: Value) {
    let tables = texts(
        connection,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    );
    let table = &tables[table % tables.len()];
    let columns = texts(connection, &format!("SELECT name FROM pragma_table_info('{table}')"));
    let column = &columns[column % columns.len()];
    let keys =
        texts(connection, &format!("SELECT name FROM pragma_table_info('{table}') WHERE type = 'TEXT'"));
    let others: String = keys.iter().map(|key| format!(" AND {key} IS NOT '{WHOLE}'")).collect();
    let rows =
        texts(connection, &format!("SELECT CAST(rowid AS TEXT) FROM {table} WHERE 1{others} ORDER BY rowid"));
    let Some(rowid) = rows.get(row % rows.len().max(1)) else { return };
    let _ = connection.execute(&format!("UPDATE {table} SET {column} = ?1 WHERE rowid = {rowid}"), [value]);
}

/// The texts of a query's first column; none where it cannot be asked (a table without row ids).
fn texts(connection: &Connection, sql: &str) -> Vec<String> {
    let Ok(mut statement) = connection.prepare(sql) else { return Vec::new() };
    let rows = statement.query_map([], |row| row.get(0)).and_then(Iterator::collect);
    rows.unwrap_or_default()
}

/// Every verb and query that reads rows; each may be refused, none may panic.
fn use_all(shell: &Shell) {
    for id in [DAMAGED, WHOLE] {
        let _ = ask(shell, GetSession { session: session(id) });
        let page_token = String::new();
        let _ = ask(shell, ListJobs { session: session(id), in_flight: false, page_size: 0, page_token });
    }
    let _ = ask(shell, ListSessions { page_size: 0, page_token: String::new(), owner: None });
    let claimed = run(shell, claim()).unwrap_or_default().jobs;
    let _ = run(shell, Renew { held: claimed.iter().map(|assignment| assignment.held.clone()).collect() });
    for assignment in claimed {
        let _ = run(shell, finish(assignment.held));
    }
    let _ = run(shell, submit(DAMAGED, "again"));
    let _ = run(shell, attach(DAMAGED, PROJECTS[1]));
    let _ = run(shell, CloseSession { session: session(DAMAGED), force: true });
    let due = shell.ask(&Arc::new(Caller::gateway()), Due, &Everywhere).now_or_never().expect("inline");
    let logs = shell
        .ask(&Arc::new(Caller::gateway()), DueLogs::default(), &Everywhere)
        .now_or_never()
        .expect("inline")
        .map(|told| told.out)
        .unwrap_or_default();
    let due = due.map(|told| told.out).unwrap_or_default();
    for duty in due.into_iter().chain(logs.due.into_iter().map(Duty::Log)) {
        let _ =
            shell.run(&Arc::new(Caller::gateway()), Sweep(duty), &Everywhere).now_or_never().expect("inline");
    }
}

/// A store with two sessions at work: jobs queued, running and ended, requests, clients, a log.
fn made() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gateway.db");
    let shell = open(Place::File(file.clone()), Duration::ZERO).expect("a new store");
    let agent = SetAgent { agent: agent(), shared: Some(true), description: Some("builds".to_owned()) };
    run(&shell, agent).expect("an agent");
    for (number, id) in [(1, DAMAGED), (2, WHOLE)] {
        let create = CreateSession {
            id: session(id),
            client: ClientId::parse(format!("clt_{number}")).expect("an id"),
            cookie: [number; 32],
            sealed: vec![number],
            name: None,
            request: request(&format!("create {number}")),
            owner: None,
        };
        run(&shell, create).expect("a session");
        run(&shell, attach(id, PROJECTS[0])).expect("bound");
    }
    run(&shell, submit(DAMAGED, "1")).expect("queued");
    run(&shell, submit(DAMAGED, "2")).expect("queued");
    let claimed = run(&shell, claim()).expect("claimed").jobs;
    run(&shell, finish(claimed[0].held.clone())).expect("finished");
    run(&shell, submit(DAMAGED, "3")).expect("queued");
    shell.close().now_or_never();
    drop(shell);
    fs::read(file).expect("a database")
}

fn open(place: Place, later: Duration) -> Result<Shell, String> {
    let start = Timestamp::from_micros(1_700_000_000_000_000);
    let options = Options {
        place,
        clock: Clock::manual(start.after(later)),
        chain_key: ChainKey::new([7; 32]),
        limits: QueueLimits::default(),
        inline: true,
        inject_misses: false,
    };
    Shell::open(&options, Arc::new(Limits::default()), Arc::new(Deaf)).map_err(|error| error.to_string())
}

struct Deaf;

impl Observer<Gateway> for Deaf {
    fn committed(&self, _: Vec<Signal>) {}

    fn failed(&self, _: &Fault) {}
}

/// Whoever asks may enter every project.
struct Everywhere;

impl Resolver for Everywhere {
    async fn may_enter(&self, _: &OwnerId, _: &ProjectId) -> Result<bool, Error> {
        Ok(true)
    }

    async fn owner(&self, _: &OwnerId) -> Result<OwnerFacts, Error> {
        Ok(OwnerFacts { known: true, active: true })
    }
}

fn caller() -> Caller {
    Caller {
        principal: Principal::Admin,
        cookie: None,
        named: None,
        unscoped: Unscoped::Warn { sunset: None },
        origin: Arc::new(Origin { principal: "admin".to_owned(), ..Origin::default() }),
    }
}

fn run<V: Verb>(shell: &Shell, verb: V) -> Result<V::Out, Error> {
    shell.run(&Arc::new(caller()), verb, &Everywhere).now_or_never().expect("inline").map(|told| told.out)
}

fn ask<Q: Query>(shell: &Shell, query: Q) -> Result<Q::Out, Error> {
    shell.ask(&Arc::new(caller()), query, &Everywhere).now_or_never().expect("inline").map(|told| told.out)
}

fn session(id: &str) -> SessionId {
    SessionId::parse(id).expect("an id")
}

fn agent() -> AgentId {
    AgentId::parse(AGENT).expect("an id")
}

fn request(text: &str) -> RequestId {
    RequestId::parse(text).expect("an id")
}

fn attach(id: &str, project: &str) -> Attach {
    Attach {
        session: session(id),
        agent: agent(),
        project: ProjectId::parse(project).expect("an id"),
        keep_clients: false,
    }
}

fn submit(id: &str, name: &str) -> Submit {
    let job = JobId::parse(format!("job_{name}")).expect("an id");
    Submit { id: job, session: session(id), request: request(name), payload: b"in".to_vec() }
}

fn claim() -> Claim {
    Claim { agents: vec![agent()], worker: WorkerName::parse("w").expect("a name"), up_to: 8 }
}

fn finish(held: interlock_gateway::lease::Held) -> Finish {
    Finish { held, outcome: Outcome::Succeeded, result: b"out".to_vec(), cause: String::new() }
}
