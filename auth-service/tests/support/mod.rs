//! Every engine behind one bench, and short ways to say what a test is about.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::{
    borrow::Cow,
    cell::Cell,
    sync::{Arc, Mutex},
    time::Duration,
};

use interlock_auth::{
    accounts::{Facts, Source},
    caller::{Call, Caller},
    elevation::{Unlock, Unlocked},
    ids::{CredentialId, OwnerId, OwnerSessionId, ProjectId, ProjectName, RequestId},
    owner::{Applied, ApplyAccount, ChangedAccount, ReadForLogin},
    owner_session::{Login, Refresh, Refreshed, SignedIn},
    password::PasswordHash,
    project::CreateProject,
    role_token::{FirstTokens, Role, Rotate, Rotated},
    root::Root,
    store::{Auth, Query, Shell, Signal, Verb},
    trust::{Authenticate, NewCredential, Validation, Verdict},
};
use interlock_kit::{
    clock::{Clock, Timestamp},
    config::Profile,
    error::{Error, Reason},
    store::{
        Fault, Observer, audit,
        audit::{ChainKey, Origin},
        model::{self, Plain},
        postgres::{self, Target},
        sqlite::{self, Options, Place},
        writer::QueueLimits,
    },
};
use interlock_proto::credential::{Credential, Kind};

#[path = "../../../service-kit/tests/store/cluster.rs"]
pub mod cluster;

use cluster::Cluster;

pub const HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAECAwQFBgcICQoLDA0ODw$YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE";
pub const OTHER_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAECAwQFBgcICQoLDA0ODw$YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI";
pub const ACCESS_TTL: Duration = Duration::from_secs(900);
pub const SESSION_TTL: Duration = Duration::from_secs(12 * 3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// SQLite in a file, with its threads.
    File,
    /// SQLite in memory, on the caller's thread.
    Memory,
    /// SQLite in a file, each first look-up misses.
    Missing,
    /// The plain maps.
    Model,
    /// PostgreSQL.
    Postgres,
}

pub const ENGINES: [Engine; 5] =
    [Engine::File, Engine::Memory, Engine::Missing, Engine::Model, Engine::Postgres];

#[derive(Default)]
struct Heard(Mutex<Vec<Signal>>);

impl Observer<Auth> for Heard {
    fn committed(&self, signals: Vec<Signal>) {
        self.0.lock().expect("no panic").extend(signals);
    }

    fn failed(&self, fault: &Fault) {
        eprintln!("the store failed: {fault}");
    }
}

type Model = Arc<parking_lot::Mutex<Plain<Auth>>>;

pub struct Bench {
    pub engine: Engine,
    pub shell: Shell,
    pub clock: Clock,
    /// The root secret that verbs know: none, until a test sets one.
    pub root: Arc<Root>,
    folder: tempfile::TempDir,
    heard: Arc<Heard>,
    model: Option<Model>,
    /// The database, and the cluster that it is in.
    database: Option<(Target, Arc<Cluster>)>,
    made: Cell<u64>,
}

/// One audit row, as far as tests compare it.
pub type Row = (String, String, String, String, String);

impl Bench {
    pub fn open(engine: Engine) -> Self {
        let own = || {
            let cluster = Arc::new(Cluster::start());
            (cluster.url("store"), cluster)
        };
        Self::open_in(engine, own)
    }

    /// As `open`; a database comes from here.
    pub fn open_in(engine: Engine, database: impl FnOnce() -> (String, Arc<Cluster>)) -> Self {
        let mut kept = None;
        let clock = Clock::manual(Timestamp::from_micros(1_700_000_000_000_000));
        let folder = tempfile::tempdir().expect("a folder");
        let heard = Arc::new(Heard::default());
        let (store, model) = match engine {
            Engine::Model => {
                let (store, model) = model::open::<Auth>(clock.clone(), heard.clone());
                (store, Some(model))
            }
            Engine::Postgres => {
                let (url, cluster) = database();
                let target = Target::parse(&url, Profile::Hardened).expect("a URL of ours");
                let store = on_database(&target, &clock, &heard);
                kept = Some((target, cluster));
                (store, None)
            }
            Engine::File | Engine::Memory | Engine::Missing => {
                let place = match engine {
                    Engine::Memory => Place::Memory,
                    _ => Place::File(folder.path().join("auth.db")),
                };
                let options = Options {
                    place,
                    clock: clock.clone(),
                    chain_key: ChainKey::new([1; 32]),
                    limits: QueueLimits::default(),
                    inline: engine != Engine::File,
                    inject_misses: engine == Engine::Missing,
                };
                (sqlite::open::<Auth>(&options, heard.clone()).expect("opens"), None)
            }
        };
        let root = Arc::new(Root::default());
        let shell = Shell::new(store).with_root(Arc::clone(&root));
        Self { engine, shell, clock, root, folder, heard, model, database: kept, made: Cell::new(0) }
    }

    /// Closes the store and opens it again, as a restart does.
    pub async fn restarted(self) -> Self {
        self.shell.close().await;
        if let Some((target, _)) = &self.database {
            let store = on_database(target, &self.clock, &self.heard);
            return Self { shell: Shell::new(store).with_root(Arc::clone(&self.root)), ..self };
        }
        let place = Place::File(self.folder.path().join("auth.db"));
        let options = Options {
            place,
            clock: self.clock.clone(),
            chain_key: ChainKey::new([1; 32]),
            limits: QueueLimits::default(),
            inline: false,
            inject_misses: false,
        };
        let store = sqlite::open::<Auth>(&options, self.heard.clone()).expect("opens again");
        Self { shell: Shell::new(store).with_root(Arc::clone(&self.root)), ..self }
    }

    pub fn connection(&self) -> rusqlite::Connection {
        sqlite::connect(&Place::File(self.folder.path().join("auth.db"))).expect("opens")
    }

    /// What was signalled since the last time.
    pub fn signals(&self) -> Vec<Signal> {
        std::mem::take(&mut *self.heard.0.lock().expect("no panic"))
    }

    /// All audit rows; the engine in memory shows none.
    pub fn audit(&self) -> Vec<Row> {
        let rows = match (self.engine, &self.model) {
            (_, Some(model)) => model.lock().audit.clone(),
            (Engine::Memory, None) => return Vec::new(),
            (Engine::Postgres, None) => {
                let filter = sqlite::Filter { limit: u32::MAX, ..sqlite::Filter::default() };
                let (target, _) = self.database.as_ref().expect("it has one");
                postgres::rows(target, &filter).expect("readable")
            }
            _ => {
                let filter = sqlite::Filter { limit: u32::MAX, ..sqlite::Filter::default() };
                sqlite::rows(&self.connection(), &filter).expect("readable")
            }
        };
        rows.into_iter().map(row).collect()
    }

    /// Everything that the plain engine holds, as text.
    pub fn state(&self) -> Option<String> {
        self.model.as_ref().map(|model| format!("{:?}", model.lock().model))
    }

    pub fn shows_audit(&self) -> bool {
        self.engine != Engine::Memory
    }

    /// A number that no other thing of this test has.
    pub fn number(&self) -> u64 {
        self.made.set(self.made.get() + 1);
        self.made.get()
    }

    pub fn credential(&self, kind: Kind) -> (Credential, NewCredential) {
        credential(kind, self.number())
    }

    pub async fn first_tokens(&self) -> (Credential, Credential) {
        let (admin, new_admin) = self.credential(Kind::Admin);
        let (user, new_user) = self.credential(Kind::User);
        let first = FirstTokens { admin: new_admin, user: new_user };
        self.shell.run(&host("start"), first).await.expect("first tokens");
        (admin, user)
    }

    pub async fn owner(&self, id: &str, roles: &[&str]) -> OwnerId {
        self.apply(id, roles, true, HASH, true).await.expect("an owner");
        OwnerId::made(id)
    }

    pub async fn apply(
        &self,
        id: &str,
        roles: &[&str],
        active: bool,
        hash: &str,
        password_changed: bool,
    ) -> Result<interlock_auth::owner::AccountApplied, Error> {
        self.shell.run(&host("account.apply"), account(id, roles, active, hash, password_changed)).await
    }

    pub async fn login(&self, owner: &OwnerId) -> Result<Session, Error> {
        let facts =
            self.shell.ask(&nobody("owner_session.login"), ReadForLogin { owner: owner.clone() }).await?;
        let version = facts.map_or(0, |facts| facts.version);
        self.login_of_version(owner, version).await
    }

    pub async fn login_of_version(&self, owner: &OwnerId, version: u64) -> Result<Session, Error> {
        let (access, new_access) = self.credential(Kind::Owner);
        let (refresh, new_refresh) = self.credential(Kind::Refresh);
        let login = Login {
            owner: owner.clone(),
            version,
            session: OwnerSessionId::made(format!("ows_{}", self.number())),
            access: new_access,
            refresh: new_refresh,
            access_ttl: ACCESS_TTL,
            session_ttl: SESSION_TTL,
            rehashed: None,
        };
        let signed_in = self.shell.run(&nobody("owner_session.login"), login).await?;
        Ok(Session { access, refresh, signed_in })
    }

    /// A refresh with new successors.
    pub fn refresh_verb(&self, presented: &Credential) -> (Refresh, Pair) {
        let (access, new_access) = self.credential(Kind::Owner);
        let (refresh, new_refresh) = self.credential(Kind::Refresh);
        let pair = Pair { access, refresh };
        let verb = Refresh {
            presented: presented.hash(),
            access: new_access,
            refresh: new_refresh,
            sealed: pair.sealed(),
            access_ttl: ACCESS_TTL,
        };
        (verb, pair)
    }

    pub async fn refresh(&self, presented: &Credential) -> Result<Refreshed, Error> {
        let (verb, _) = self.refresh_verb(presented);
        self.shell.run(&nobody("owner_session.refresh"), verb).await
    }

    /// The successors that a refresh gave.
    pub async fn refreshed(&self, presented: &Credential) -> Pair {
        match self.refresh(presented).await.expect("refreshed") {
            Refreshed::Issued(answer) => Pair::open(&answer.sealed),
            other @ (Refreshed::Unknown | Refreshed::Replayed { .. }) => panic!("{other:?}"),
        }
    }

    /// Sets the root secret whose hash this is, as a configuration does.
    pub fn root_secret(&self, hash: &str) {
        self.root.set(Some(PasswordHash::parse(hash).expect("a hash")));
    }

    /// Unlocks root, as who gave the right password.
    pub async fn unlock(&self, access: &Credential, ttl: Duration) -> Result<Unlocked, Error> {
        let call = self.call(access, "elevation.unlock").await;
        let verb = Unlock { verified: self.root.fingerprint(), ttl, certificate: None };
        self.shell.run(&call, verb).await
    }

    pub async fn rotate(
        &self,
        caller: &Call,
        role: Role,
        grace: Duration,
        request: &str,
    ) -> (Credential, Result<Rotated, Error>) {
        let (credential, new) = self.credential(role.kind());
        let sealed = credential.expose().as_bytes().to_vec();
        let rotate = Rotate { role, new, grace, request: RequestId::made(request), sealed };
        (credential, self.shell.run(caller, rotate).await)
    }

    pub async fn project(
        &self,
        caller: &Call,
        name: &str,
    ) -> Result<interlock_auth::project::Project, Error> {
        let create = CreateProject {
            project: ProjectId::made(format!("prj_{}", self.number())),
            name: ProjectName::made(name),
            request: RequestId::made(format!("req_{}", self.number())),
        };
        self.shell.run(caller, create).await
    }

    pub async fn validate(&self, credential: &Credential) -> Validation {
        self.shell.ask(&nobody(""), Authenticate { hash: credential.hash() }).await.expect("answers")
    }

    pub async fn valid(&self, credential: &Credential) -> Verdict {
        match self.validate(credential).await {
            Validation::Valid(verdict) => verdict,
            other => panic!("not valid: {other:?}"),
        }
    }

    /// A call with this credential.
    pub async fn call(&self, credential: &Credential, action: &'static str) -> Call {
        as_principal(self.valid(credential).await, action)
    }

    pub async fn run<V: Verb>(&self, call: &Call, verb: V) -> Result<V::Out, Error> {
        self.shell.run(call, verb).await
    }

    pub async fn ask<Q: Query>(&self, call: &Call, query: Q) -> Result<Q::Out, Error> {
        self.shell.ask(call, query).await
    }
}

fn on_database(target: &Target, clock: &Clock, heard: &Arc<Heard>) -> interlock_kit::store::Store<Auth> {
    let options = postgres::Options {
        target: target.clone(),
        sharing: postgres::Sharing::Alone,
        clock: clock.clone(),
        chain_key: ChainKey::new([1; 32]),
        limits: QueueLimits::default(),
    };
    postgres::open::<Auth>(&options, heard.clone()).expect("opens")
}

#[derive(Clone, Debug)]
pub struct Session {
    pub access: Credential,
    pub refresh: Credential,
    pub signed_in: SignedIn,
}

/// The two credentials that a refresh gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub access: Credential,
    pub refresh: Credential,
}

impl Pair {
    /// Tests seal nothing: the bytes are the texts.
    pub fn sealed(&self) -> Vec<u8> {
        format!("{} {}", self.access.expose(), self.refresh.expose()).into_bytes()
    }

    pub fn open(sealed: &[u8]) -> Self {
        let text = std::str::from_utf8(sealed).expect("text");
        let (access, refresh) = text.split_once(' ').expect("two");
        let parse = |text| Credential::parse(text).expect("well-formed");
        Self { access: parse(access), refresh: parse(refresh) }
    }
}

pub fn credential(kind: Kind, number: u64) -> (Credential, NewCredential) {
    let mut random = [0; 32];
    random[..8].copy_from_slice(&number.to_be_bytes());
    let credential = Credential::new(kind, &random);
    let new = NewCredential::of(&credential, CredentialId::made(format!("crd_{number}")));
    (credential, new)
}

pub fn account(id: &str, roles: &[&str], active: bool, hash: &str, password_changed: bool) -> ApplyAccount {
    let record = Applied {
        source: Source::Environment,
        owner: OwnerId::made(id),
        facts: Facts {
            display_name: format!("{id} of Test"),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            active,
        },
        password: PasswordHash::parse(hash).expect("a hash"),
    };
    ApplyAccount { account: ChangedAccount { record, password_changed } }
}

fn call(caller: Caller, principal: &str, role: &str, credential: &str, action: &'static str) -> Call {
    let origin = Origin {
        principal: principal.to_owned(),
        role: role.to_owned(),
        credential_id: credential.to_owned(),
        ..Origin::default()
    };
    let unscoped = interlock_kit::unscoped::Unscoped::Warn { sunset: None };
    Call { caller, origin: Arc::new(origin), action: Cow::Borrowed(action), named: None, unscoped }
}

pub fn host(action: &'static str) -> Call {
    call(Caller::Host, "host", "", "", action)
}

pub fn nobody(action: &'static str) -> Call {
    call(Caller::Nobody, "", "", "", action)
}

pub fn service() -> Call {
    call(
        Caller::Service("spiffe://test/gateway".parse().expect("a SPIFFE id")),
        "spiffe://test/gateway",
        "",
        "",
        "trust",
    )
}

pub fn as_principal(verdict: Verdict, action: &'static str) -> Call {
    let p = verdict.principal;
    let (owner, role, id) = (p.owner_id.to_string(), p.role.text(), p.credential_id.to_string());
    call(Caller::Principal(p), &owner, role, &id, action)
}

fn row(row: audit::Row) -> Row {
    (row.origin.principal, row.action, row.outcome, row.reason, row.subject)
}

pub fn reason<T: std::fmt::Debug>(result: Result<T, Error>) -> Reason {
    result.expect_err("refused").reason()
}

pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
