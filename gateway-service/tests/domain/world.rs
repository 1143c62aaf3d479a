//! A store with a clock that only moves when told, and callers of every kind.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use interlock_gateway::{
    adopt::OwnerFacts,
    agent::SetAgent,
    binding::{Attach, Attached},
    caller::{Caller, Cookie, OwnerSession, Principal, ProjectToken, Unscoped},
    ids::{AgentId, ClientId, JobId, OwnerId, ProjectId, RequestId, SessionId, WorkerName},
    job::{Job, JobState, Outcome, Submit},
    lease::{Finish, Held},
    limits::Limits,
    session::{CreateSession, GetSession, SessionSeen},
    store::{Gateway, Model, Query, Resolver, Shell, Signal, Verb},
    sweep::{Due, DueLogs, Duty, Sweep, Swept},
    worker::{Assignment, Claim},
};
use interlock_kit::{
    clock::{Clock, Timestamp},
    config::Profile,
    error::{Error, Reason},
    store::{
        Fault, Observer,
        audit::{ChainKey, Origin, Row},
        model::Plain,
        postgres::{self, Target},
        sqlite::{Filter, Options, Place},
        writer::QueueLimits,
    },
};
use rusqlite::{Connection, types::Value};
use tempfile::TempDir;

use crate::cluster::Cluster;

pub(crate) type Mutex<T> = parking_lot::Mutex<T>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    File,
    Memory,
    /// In memory, each verb on its caller's thread.
    Inline,
    Missing,
    Model,
    Postgres,
}

pub(crate) struct World {
    pub(crate) shell: Shell,
    pub(crate) clock: Clock,
    pub(crate) members: Members,
    pub(crate) heard: Arc<Heard>,
    plain: Option<Arc<Mutex<Plain<Gateway>>>>,
    folder: Option<TempDir>,
    database: Option<Database>,
    next: AtomicU64,
}

/// A database, and the cluster that it is in.
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) target: Target,
    pub(crate) cluster: Arc<Cluster>,
}

impl Database {
    /// An empty one.
    pub(crate) fn new(cluster: &Arc<Cluster>, name: &str) -> Self {
        let target = Target::parse(&cluster.database(name), Profile::Hardened).unwrap();
        Self { name: name.to_owned(), target, cluster: Arc::clone(cluster) }
    }

    /// What is asked, a row a line.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.cluster.sql(&self.name, sql)
    }
}

/// What auth would answer.
#[derive(Clone, Default)]
pub(crate) struct Members(Arc<Mutex<BTreeSet<(String, String)>>>);

impl Members {
    pub(crate) fn add(&self, owner: &str, project: &str) {
        self.0.lock().insert((owner.to_owned(), project.to_owned()));
    }

    pub(crate) fn remove(&self, owner: &str, project: &str) {
        self.0.lock().remove(&(owner.to_owned(), project.to_owned()));
    }
}

impl Resolver for Members {
    async fn may_enter(&self, owner: &OwnerId, project: &ProjectId) -> Result<bool, Error> {
        Ok(self.0.lock().contains(&(owner.to_string(), project.to_string())))
    }

    /// Who may enter `p` is known and active; those called `idle…` are known.
    async fn owner(&self, owner: &OwnerId) -> Result<OwnerFacts, Error> {
        let active = self.0.lock().contains(&(owner.to_string(), "p".to_owned()));
        Ok(OwnerFacts { known: active || owner.as_str().starts_with("idle"), active })
    }
}

/// What was signalled, and what failed.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) signals: Mutex<Vec<Signal>>,
    pub(crate) faults: Mutex<Vec<String>>,
}

impl Observer<Gateway> for Heard {
    fn committed(&self, signals: Vec<Signal>) {
        self.signals.lock().extend(signals);
    }

    fn failed(&self, fault: &Fault) {
        self.faults.lock().push(fault.to_string());
    }
}

pub(crate) const KEY: [u8; 32] = [7; 32];

/// Those of the gateway in PostgreSQL.
const TABLES: [&str; 14] = [
    "followed",
    "file",
    "waiter",
    "session",
    "log_head",
    "event",
    "client",
    "password",
    "agent",
    "job",
    "owner_load",
    "payload",
    "result",
    "request",
];

impl World {
    pub(crate) fn new(engine: Engine) -> Self {
        Self::with(engine, Limits::default())
    }

    pub(crate) fn with(engine: Engine, limits: Limits) -> Self {
        let cluster = || Database::new(&Arc::new(Cluster::start()), "gateway");
        Self::with_database(engine, limits, cluster)
    }

    /// As `with`; a database comes from here.
    pub(crate) fn with_database(engine: Engine, limits: Limits, database: impl FnOnce() -> Database) -> Self {
        let mut kept = None;
        let clock = Clock::manual(Timestamp::from_micros(1_700_000_000_000_000));
        let heard = Arc::new(Heard::default());
        let limits = Arc::new(limits);
        let observer: Arc<dyn Observer<Gateway>> = heard.clone();
        let (shell, plain, folder) = match engine {
            Engine::Model => {
                let (shell, plain) = Shell::plain(clock.clone(), limits, observer);
                (shell, Some(plain), None)
            }
            Engine::Postgres => {
                let database = kept.insert(database());
                let options = postgres::Options {
                    target: database.target.clone(),
                    sharing: postgres::Sharing::Alone,
                    clock: clock.clone(),
                    chain_key: ChainKey::new(KEY),
                    limits: QueueLimits::default(),
                };
                (Shell::open_database(&options, limits, observer).unwrap(), None, None)
            }
            Engine::File | Engine::Memory | Engine::Inline | Engine::Missing => {
                let folder = tempfile::tempdir().unwrap();
                let place = match engine {
                    Engine::Memory | Engine::Inline => Place::Memory,
                    Engine::File | Engine::Missing | Engine::Model | Engine::Postgres => {
                        Place::File(folder.path().join("gateway.db"))
                    }
                };
                let options = Options {
                    place,
                    clock: clock.clone(),
                    chain_key: ChainKey::new(KEY),
                    limits: QueueLimits::default(),
                    inline: matches!(engine, Engine::Missing | Engine::Inline),
                    inject_misses: engine == Engine::Missing,
                };
                let shell = Shell::open(&options, limits, observer).unwrap();
                (shell, None, matches!(engine, Engine::File | Engine::Missing).then_some(folder))
            }
        };
        let members = Members::default();
        for (owner, project) in [
            ("ann", "p"),
            ("ann", "q"),
            ("bob", "p"),
            ("bob", "q"),
            ("user", "p"),
            ("admin", "p"),
            ("admin", "q"),
            ("rosa", "p"),
        ] {
            members.add(owner, project);
        }
        Self { shell, clock, members, heard, plain, folder, database: kept, next: AtomicU64::new(1) }
    }

    /// The same store, opened again by a program that knows nothing of the one before.
    pub(crate) async fn reopened(self, limits: Limits) -> Self {
        self.shell.close().await;
        let (clock, heard, limits) = (self.clock.clone(), Arc::clone(&self.heard), Arc::new(limits));
        let shell = match (&self.folder, &self.database) {
            (Some(folder), _) => {
                let options = Options {
                    place: Place::File(folder.path().join("gateway.db")),
                    clock,
                    chain_key: ChainKey::new(KEY),
                    limits: QueueLimits::default(),
                    inline: false,
                    inject_misses: false,
                };
                Shell::open(&options, limits, heard).unwrap()
            }
            (None, Some(database)) => {
                let options = postgres::Options {
                    target: database.target.clone(),
                    sharing: postgres::Sharing::Alone,
                    clock,
                    chain_key: ChainKey::new(KEY),
                    limits: QueueLimits::default(),
                };
                Shell::open_database(&options, limits, heard).unwrap()
            }
            (None, None) => panic!("nothing of it is kept"),
        };
        Self { shell, ..self }
    }

    /// Runs a verb that is answered.
    pub(crate) async fn ok<V: Verb>(&self, caller: &Caller, verb: V) -> V::Out {
        self.run(caller, verb).await.unwrap()
    }

    /// Runs a verb that is refused.
    pub(crate) async fn err<V: Verb>(&self, caller: &Caller, verb: V) -> Error {
        let ran = self.run(caller, verb).await;
        ran.err().expect("it should have been refused")
    }

    /// Runs a verb that is refused with this reason.
    pub(crate) async fn refused<V: Verb>(&self, caller: &Caller, verb: V, reason: Reason) -> Error {
        let error = self.err(caller, verb).await;
        assert_eq!(error.reason(), reason, "{error}");
        error
    }

    pub(crate) async fn run<V: Verb>(&self, caller: &Caller, verb: V) -> Result<V::Out, Error> {
        self.shell.run(&Arc::new(caller.clone()), verb, &self.members).await.map(|told| told.out)
    }

    pub(crate) async fn ask<Q: Query>(&self, caller: &Caller, query: Q) -> Result<Q::Out, Error> {
        self.shell.ask(&Arc::new(caller.clone()), query, &self.members).await.map(|told| told.out)
    }

    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Sweeps until nothing is due; answers how often something was done.
    pub(crate) async fn sweep(&self) -> usize {
        let mut done = 0;
        for _ in 0..1000 {
            let due = self.due().await;
            let mut progress = false;
            for duty in due {
                let swept = self.ok(&Caller::gateway(), Sweep(duty)).await;
                progress |= swept != Swept::Nothing;
                done += usize::from(swept != Swept::Nothing);
            }
            if !progress {
                return done;
            }
        }
        panic!("sweeping does not end");
    }

    /// What is due now.
    pub(crate) async fn due(&self) -> Vec<Duty> {
        let mut due = self.ask(&Caller::gateway(), Due).await.unwrap();
        let logs = self.ask(&Caller::gateway(), DueLogs::default()).await.unwrap();
        due.extend(logs.due.into_iter().map(Duty::Log));
        due
    }

    /// All rows but the audit's; `None` where an engine shows none.
    pub(crate) fn rows(&self) -> Option<String> {
        if let Some(plain) = &self.plain {
            return Some(format!("{:#?}", plain.lock().model));
        }
        if let Some(database) = &self.database {
            let tables = TABLES.map(|table| format!("SELECT '{table}', t::TEXT FROM {table} t ORDER BY 2"));
            return Some(database.sql(&tables.join(";")));
        }
        let connection = self.connection()?;
        let mut tables = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'audit%' AND name <> 'moment'")
            .unwrap();
        let tables: Vec<String> =
            tables.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap();
        let mut dump = String::new();
        for table in tables.iter().filter(|table| !table.starts_with("sqlite_")) {
            let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns = statement.column_count();
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let values: Vec<Value> = (0..columns).map(|column| row.get(column).unwrap()).collect();
                dump.push_str(&format!("{table} {values:?}\n"));
            }
        }
        Some(dump)
    }

    /// All audit rows; `None` where an engine shows none.
    pub(crate) fn audit(&self) -> Option<Vec<Row>> {
        if let Some(plain) = &self.plain {
            return Some(plain.lock().audit.clone());
        }
        let filter = Filter { limit: 1_000_000, ..Filter::default() };
        if let Some(database) = &self.database {
            return Some(postgres::rows(&database.target, &filter).unwrap());
        }
        Some(interlock_kit::store::sqlite::rows(&self.connection()?, &filter).unwrap())
    }

    pub(crate) fn is_model(&self) -> bool {
        self.plain.is_some()
    }

    /// The plain engine's rows.
    pub(crate) fn model(&self) -> Model {
        self.plain.as_ref().expect("the plain engine").lock().model.clone()
    }

    /// The database, on PostgreSQL.
    pub(crate) fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    pub(crate) fn connection(&self) -> Option<Connection> {
        let folder = self.folder.as_ref()?;
        Some(Connection::open(folder.path().join("gateway.db")).unwrap())
    }

    /// Runs a verb that is refused; shows that nothing but one audit row has changed (I11, I12).
    pub(crate) async fn denied<V: Verb>(&self, caller: &Caller, verb: V, reason: Reason) -> Error {
        let (rows, audit) = (self.rows(), self.audit());
        let error = self.refused(caller, verb, reason).await;
        self.only_one_row_more(rows.as_deref(), audit.as_deref(), reason);
        error
    }

    /// Likewise for a query.
    pub(crate) async fn denied_read<Q: Query>(&self, caller: &Caller, query: Q, reason: Reason) -> Error {
        let (rows, audit) = (self.rows(), self.audit());
        let error = self.ask(caller, query).await.err().expect("it should have been refused");
        assert_eq!(error.reason(), reason, "{error}");
        self.only_one_row_more(rows.as_deref(), audit.as_deref(), reason);
        error
    }

    fn only_one_row_more(&self, rows: Option<&str>, audit: Option<&[Row]>, reason: Reason) {
        assert_eq!(self.rows().as_deref(), rows, "a refused call has changed something (I12)");
        if let (Some(before), Some(after)) = (audit, self.audit()) {
            assert_eq!(after.len(), before.len() + 1, "one audit row for each denial (I11)");
            let row = after.last().unwrap();
            assert_eq!((row.outcome.as_str(), row.reason.as_str()), ("refused", reason.wire().text()));
        }
    }

    // What tests make.

    pub(crate) async fn session(&self, caller: &Caller) -> SessionId {
        let number = self.number();
        let id = session_id(number);
        let verb = CreateSession {
            id: id.clone(),
            client: ClientId::parse(format!("clt_{number:06}")).unwrap(),
            cookie: hash(number),
            sealed: vec![1],
            name: None,
            request: request(&format!("create {number}")),
            owner: None,
        };
        let made = self.ok(caller, verb).await;
        assert!(made.first);
        id
    }

    pub(crate) async fn agent(&self, caller: &Caller, name: &str, shared: bool) -> AgentId {
        let shared = shared.then_some(true);
        self.ok(caller, SetAgent { agent: agent(name), shared, description: None }).await;
        agent(name)
    }

    pub(crate) async fn attach(&self, caller: &Caller, session: &SessionId, to: (&str, &str)) -> Attached {
        self.ok(&caller.clone().naming(to.1), attach(session, to)).await
    }

    pub(crate) async fn submit(&self, caller: &Caller, session: &SessionId) -> Job {
        self.ok(caller, self.submission(session)).await
    }

    pub(crate) fn submission(&self, session: &SessionId) -> Submit {
        let number = self.number();
        let id = JobId::parse(format!("job_{number:06}")).unwrap();
        Submit {
            id,
            session: session.clone(),
            request: request(&format!("submit {number}")),
            payload: b"in".to_vec(),
        }
    }

    pub(crate) async fn claim(&self, caller: &Caller, agent_name: &str) -> Option<Assignment> {
        self.ok(caller, claim(agent_name, 1)).await.jobs.pop()
    }

    /// A session of ann's, bound to agent a and project p, and a job of it that runs.
    pub(crate) async fn running(&self) -> (Caller, SessionId, Held) {
        let ann = owner("ann");
        self.agent(&ann, "a", false).await;
        let session = self.session(&ann).await;
        self.attach(&ann, &session, ("a", "p")).await;
        self.submit(&ann, &session).await;
        let held = self.claim(&ann, "a").await.unwrap().held;
        (ann, session, held)
    }

    pub(crate) async fn job(&self, caller: &Caller, job: &JobId) -> Job {
        self.ask(caller, JobState { job: job.clone() }).await.unwrap()
    }

    pub(crate) async fn see(&self, caller: &Caller, session: &SessionId) -> SessionSeen {
        self.ask(caller, GetSession { session: session.clone() }).await.unwrap()
    }
}

pub(crate) fn attach(session: &SessionId, (to, project): (&str, &str)) -> Attach {
    Attach {
        session: session.clone(),
        agent: agent(to),
        project: self::project(project),
        keep_clients: false,
    }
}

pub(crate) fn claim(name: &str, up_to: u32) -> Claim {
    Claim { agents: vec![agent(name)], worker: WorkerName::parse("w").unwrap(), up_to }
}

pub(crate) fn finish(held: &Held, outcome: Outcome) -> Finish {
    Finish { held: held.clone(), outcome, result: b"out".to_vec(), cause: String::new() }
}

pub(crate) fn session_id(number: u64) -> SessionId {
    SessionId::parse(format!("ses_{number:06}")).unwrap()
}

pub(crate) fn agent(name: &str) -> AgentId {
    AgentId::parse(name).unwrap()
}

pub(crate) fn project(name: &str) -> ProjectId {
    ProjectId::parse(name).unwrap()
}

pub(crate) fn request(text: &str) -> RequestId {
    RequestId::parse(text).unwrap()
}

pub(crate) fn hash(number: u64) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    hash
}

fn caller(principal: Principal, name: &str) -> Caller {
    let origin =
        Origin { principal: name.to_owned(), credential_id: format!("crd_{name}"), ..Origin::default() };
    Caller {
        principal,
        cookie: None,
        named: None,
        unscoped: Unscoped::Warn { sunset: None },
        origin: Arc::new(origin),
    }
}

/// The admin role token.
pub(crate) fn admin() -> Caller {
    caller(Principal::Admin, "admin")
}

/// The user role token.
pub(crate) fn user() -> Caller {
    caller(Principal::User, "user")
}

/// An owner, signed in.
pub(crate) fn owner(name: &str) -> Caller {
    let owner = OwnerId::parse(name).unwrap();
    caller(Principal::Owner(OwnerSession { owner, session_root: false, elevated_until: None }), name)
}

/// A session-root owner; elevated or not.
pub(crate) fn root(name: &str, elevated: bool) -> Caller {
    let owner = OwnerId::parse(name).unwrap();
    let elevated_until = elevated.then(|| Timestamp::from_micros(i64::MAX));
    caller(Principal::Owner(OwnerSession { owner, session_root: true, elevated_until }), name)
}

/// A project token with every scope.
pub(crate) fn token(issuer: &str, project_name: &str) -> Caller {
    let scopes = ["sessions:read", "sessions:write", "jobs:read", "jobs:submit", "jobs:work"];
    let token = ProjectToken {
        agents: Vec::new(),
        issuer: OwnerId::parse(issuer).unwrap(),
        project: project(project_name),
        scopes: scopes.map(str::to_owned).to_vec(),
    };
    caller(Principal::Project(token), issuer)
}

/// Who shows nothing.
pub(crate) fn nobody() -> Caller {
    caller(Principal::Client, "")
}

/// A session's client, by its cookie alone.
pub(crate) fn cookie(session: &SessionId, number: u64) -> Caller {
    let cookie = Some(Cookie { session: session.clone(), hash: hash(number) });
    Caller { cookie, ..caller(Principal::Client, "client") }
}

pub(crate) trait CallerExt {
    fn naming(self, project: &str) -> Self;
}

impl CallerExt for Caller {
    fn naming(self, name: &str) -> Self {
        Self { named: Some(project(name)), ..self }
    }
}
