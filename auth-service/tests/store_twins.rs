//! Random verbs, with time moved between them, on four engines at once: SQLite in memory, SQLite with
//! misses, PostgreSQL, and the plain maps. Answers and audit rows must agree; after each step the invariants are
//! checked:
//!
//! - I9: one refresh token has at most one successor; a replay after the successor was used ends the family;
//! - what was refused or has expired once never validates again: also a project token whose issuer comes back;
//! - a role has one present token and at most one next one;
//! - I11: each denial of a known principal and each change of state has exactly one audit row;
//! - I12: a refused call changes nothing.
//!
//! A failure prints its seed; `INTERLOCK_SEED` (64 hex digits) runs that one again.

mod support;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
    time::Duration,
};

use interlock_auth::{
    caller::{Call, Caller},
    elevation::{EndElevation, Lock, OnAnotherSecret, Unlock, Why},
    ids::{CredentialId, OwnerId, OwnerSessionId, ProjectId, ProjectName, RequestId},
    owner::{ChangePassword, Edit, ListOwners, ReadForLogin, RemoveOwner, SetOwner},
    owner_session::{
        ListSessions, Logout, Refreshed, RevokeAll, RevokeSession, SessionPlace, SignedIn, Whose,
    },
    password::PasswordHash,
    project::{AddMember, CreateProject, ListProjects, RemoveMember},
    project_token::{Grant, IssueToken, Issued, ListTokens, RevokeToken, RotateToken},
    revocation::RevocationsAfter,
    role_token::{Abort, Begin, Commit, PresentTokens, RecordUses, Reveal, Role, Seen, Status, Unheard},
    store::{Query, Verb},
    sweep::{Clear, Due, FindDue},
    trust::{CheckMembership, DescribeOwner, Validation},
};
use interlock_kit::error::Error;
use interlock_proto::credential::{Credential, Kind};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use support::{Bench, Engine, HASH, OTHER_HASH, Pair, as_principal, cluster::Cluster, host, nobody, service};

const OWNERS: [&str; 3] = ["ann", "bob", "rita"];
const CASES: u32 = 40;
const STEPS: usize = 60;

#[derive(Clone, Debug)]
enum Op {
    Login {
        owner: usize,
    },
    Refresh {
        token: usize,
    },
    Logout {
        token: usize,
        by_refresh: bool,
    },
    Rotate {
        caller: usize,
        role: Role,
        grace: u64,
        request: u8,
    },
    BeginRotation {
        caller: usize,
        role: Role,
        request: u8,
    },
    /// Commits, or aborts, the one that is open or another.
    EndRotation {
        caller: usize,
        role: Role,
        commit: bool,
        force: bool,
        other: bool,
        request: u8,
    },
    /// Tokens were used, of which one is unknown.
    Used {
        tokens: [usize; 2],
        source: u8,
        ago: u64,
    },
    Reveal {
        caller: usize,
    },
    Status {
        caller: usize,
    },
    Edit {
        owner: usize,
        active: bool,
        root: bool,
        other: bool,
    },
    Create {
        caller: usize,
        name: u8,
        request: u8,
    },
    Add {
        caller: usize,
        project: usize,
        owner: usize,
    },
    Remove {
        caller: usize,
        project: usize,
        owner: usize,
    },
    Issue {
        caller: usize,
        project: usize,
        ttl: Option<u64>,
        request: u8,
    },
    RotateToken {
        caller: usize,
        token: usize,
        grace: u64,
        request: u8,
    },
    RevokeToken {
        caller: usize,
        token: usize,
    },
    ListTokens {
        caller: usize,
        project: usize,
    },
    Pass {
        seconds: u64,
    },
    Unlock {
        caller: usize,
        verified: bool,
        seconds: u64,
        certificate: bool,
    },
    Lock {
        caller: usize,
    },
    SetOwner {
        caller: usize,
        owner: usize,
        edit: u8,
        keep: bool,
        expected: bool,
    },
    RemoveOwner {
        caller: usize,
        owner: usize,
    },
    ChangePassword {
        caller: usize,
        verified: bool,
        keep: bool,
    },
    EndSession {
        caller: usize,
        session: usize,
    },
    EndSessions {
        caller: usize,
        owner: Option<usize>,
        age: Option<u64>,
    },
    ListSessions {
        caller: usize,
        owner: Option<usize>,
    },
    /// The root password is changed.
    RootSecret {
        other: bool,
    },
    Sweep,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let place = 0_usize..1000;
    let role = prop_oneof![Just(Role::Admin), Just(Role::User)];
    let op = prop_oneof![
        4 => (0..OWNERS.len()).prop_map(|owner| Op::Login { owner }),
        9 => place.clone().prop_map(|token| Op::Refresh { token }),
        2 => (place.clone(), any::<bool>()).prop_map(|(token, by_refresh)| Op::Logout { token, by_refresh }),
        2 => (place.clone(), role.clone(), prop_oneof![Just(0_u64), Just(40_u64)], 0_u8..4)
            .prop_map(|(caller, role, grace, request)| Op::Rotate { caller, role, grace, request }),
        2 => (place.clone(), role.clone(), 0_u8..4)
            .prop_map(|(caller, role, request)| Op::BeginRotation { caller, role, request }),
        2 => (place.clone(), role, any::<[bool; 2]>(), prop::bool::weighted(0.1), 0_u8..4).prop_map(
            |(caller, role, [commit, force], other, request)| {
                Op::EndRotation { caller, role, commit, force, other, request }
            },
        ),
        3 => ([place.clone(), place.clone()], 0_u8..40, prop_oneof![Just(0_u64), Just(15), Just(59), Just(60)])
            .prop_map(|(tokens, source, ago)| Op::Used { tokens, source, ago }),
        1 => place.clone().prop_map(|caller| Op::Reveal { caller }),
        1 => place.clone().prop_map(|caller| Op::Status { caller }),
        2 => (0..OWNERS.len(), prop::bool::weighted(0.8), any::<bool>(), any::<bool>())
            .prop_map(|(owner, active, root, other)| Op::Edit { owner, active, root, other }),
        2 => (place.clone(), 0_u8..4, 0_u8..6)
            .prop_map(|(caller, name, request)| Op::Create { caller, name, request }),
        2 => (place.clone(), place.clone(), 0..OWNERS.len() + 2)
            .prop_map(|(caller, project, owner)| Op::Add { caller, project, owner }),
        1 => (place.clone(), place.clone(), 0..OWNERS.len() + 2)
            .prop_map(|(caller, project, owner)| Op::Remove { caller, project, owner }),
        4 => (place.clone(), place.clone(), prop_oneof![Just(None), Just(Some(30_u64))], 0_u8..20)
            .prop_map(|(caller, project, ttl, request)| Op::Issue { caller, project, ttl, request }),
        2 => (place.clone(), place.clone(), prop_oneof![Just(0_u64), Just(15)], 0_u8..20)
            .prop_map(|(caller, token, grace, request)| Op::RotateToken { caller, token, grace, request }),
        1 => (place.clone(), place.clone()).prop_map(|(caller, token)| Op::RevokeToken { caller, token }),
        1 => (place.clone(), place.clone()).prop_map(|(caller, project)| Op::ListTokens { caller, project }),
        4 => prop_oneof![Just(1_u64), Just(15), Just(30), Just(901), Just(100_000)]
            .prop_map(|seconds| Op::Pass { seconds }),
        3 => (place.clone(), prop::bool::weighted(0.8), prop_oneof![Just(60_u64), Just(3600)], any::<bool>())
            .prop_map(|(caller, verified, seconds, certificate)| {
                Op::Unlock { caller, verified, seconds, certificate }
            }),
        1 => place.clone().prop_map(|caller| Op::Lock { caller }),
        1 => any::<bool>().prop_map(|other| Op::RootSecret { other }),
        3 => (place.clone(), 0..OWNERS.len() + 1, 0_u8..32, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(caller, owner, edit, keep, expected)| {
                Op::SetOwner { caller, owner, edit, keep, expected }
            }),
        1 => (place.clone(), 0..OWNERS.len() + 1).prop_map(|(caller, owner)| Op::RemoveOwner { caller, owner }),
        1 => (place.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(caller, verified, keep)| Op::ChangePassword { caller, verified, keep }),
        1 => (place.clone(), place.clone()).prop_map(|(caller, session)| Op::EndSession { caller, session }),
        2 => (
            place.clone(),
            prop::option::weighted(0.6, 0..OWNERS.len()),
            prop_oneof![Just(None), Just(Some(0_u64)), Just(Some(15)), Just(Some(100))],
        )
            .prop_map(|(caller, owner, age)| Op::EndSessions { caller, owner, age }),
        2 => (place.clone(), prop::option::of(0..OWNERS.len()))
            .prop_map(|(caller, owner)| Op::ListSessions { caller, owner }),
        1 => Just(Op::Sweep),
    ];
    prop::collection::vec(op, 1..STEPS)
}

#[test]
fn engines_agree_and_invariants_hold() {
    let seed: [u8; 32] = match std::env::var("INTERLOCK_SEED") {
        Ok(hex) => std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex")),
        Err(_) => interlock_kit::random::bytes(),
    };
    let shown: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("INTERLOCK_SEED={shown}");
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (cluster, cases) = (Arc::new(Cluster::start()), Cell::new(0));
    let ran = runner.run(&ops(), |ops| {
        cases.set(cases.get() + 1);
        runtime.block_on(run(&ops, &cluster, &format!("case_{}", cases.get())));
        Ok(())
    });
    if let Err(failure) = ran {
        panic!("INTERLOCK_SEED={shown}\n{failure}");
    }
}

async fn run(ops: &[Op], cluster: &Arc<Cluster>, database: &str) {
    let mut world = World::new(cluster, database).await;
    for op in ops {
        world.step(op).await;
        world.check(op).await;
    }
    world.compare_all().await;
    world.twins[3].shell.close().await;
    cluster.sql("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
}

/// The engines, what tests hold of them, and what has been seen.
struct World {
    twins: [Bench; 4],
    /// Role tokens and access tokens, in the order they were made.
    bearers: Vec<Credential>,
    refresh: Vec<Credential>,
    projects: Vec<ProjectId>,
    /// Project tokens, and of which project.
    tokens: Vec<(ProjectId, CredentialId)>,
    /// What has been refused or has expired once.
    dead: BTreeSet<[u8; 32]>,
    /// Refresh token to its one successor.
    successor: BTreeMap<[u8; 32], Pair>,
    /// Refresh tokens that were presented and answered with successors.
    presented: BTreeSet<[u8; 32]>,
    /// Refresh token to its family.
    family: BTreeMap<[u8; 32], String>,
    ended: BTreeSet<String>,
}

impl World {
    async fn new(cluster: &Arc<Cluster>, database: &str) -> Self {
        let database = || (cluster.database(database), Arc::clone(cluster));
        let twins = [Engine::Model, Engine::Memory, Engine::Missing, Engine::Postgres];
        let twins = twins.map(|engine| Bench::open_in(engine, database));
        let mut bearers = Vec::new();
        for twin in &twins {
            let (admin, user) = twin.first_tokens().await;
            bearers = vec![admin, user];
            for (owner, role) in OWNERS.iter().zip(["user", "user", "root"]) {
                twin.owner(owner, &[role]).await;
            }
        }
        Self {
            twins,
            bearers,
            refresh: Vec::new(),
            projects: vec![ProjectId::system()],
            tokens: Vec::new(),
            dead: BTreeSet::new(),
            successor: BTreeMap::new(),
            presented: BTreeSet::new(),
            family: BTreeMap::new(),
            ended: BTreeSet::new(),
        }
    }

    /// Runs one verb on each engine: the answers agree, and the audit rows are as they must be.
    async fn all<V: Verb + Clone>(&self, call: &Call, verb: V) -> Result<V::Out, Error>
    where
        V::Out: Debug,
    {
        let model = &self.twins[0];
        let (before, rows) = (model.state(), model.audit().len());
        let answer = model.run(call, verb.clone()).await;
        let changed = model.state() != before;
        let new = model.audit().split_off(rows);
        match &answer {
            Err(_) => {
                assert!(!changed, "I12: a refused call changed something");
                let known = call.caller != Caller::Nobody;
                assert!(new.len() <= 1 && (!known || new.len() == 1), "I11: a denial has {} rows", new.len());
                assert!(new.iter().all(|row| row.2 == "refused"));
            }
            Ok(_) if call.action == "sweep" => assert!(new.is_empty()),
            Ok(_) => assert!(
                new.len() <= 1 && (!changed || new.len() == 1),
                "I11: a change has {} rows",
                new.len()
            ),
        }
        for twin in &self.twins[1..] {
            let other = twin.run(call, verb.clone()).await;
            assert_eq!(text(&answer), text(&other), "{:?} differs", twin.engine);
        }
        answer
    }

    async fn ask<Q: Query + Clone>(&self, call: &Call, query: Q) -> Result<Q::Out, Error>
    where
        Q::Out: Debug,
    {
        let answer = self.twins[0].ask(call, query.clone()).await;
        for twin in &self.twins[1..] {
            let other = twin.ask(call, query.clone()).await;
            assert_eq!(text(&answer), text(&other), "{:?} differs", twin.engine);
        }
        answer
    }

    async fn call(&self, caller: usize, action: &'static str) -> Call {
        let bearer = &self.bearers[caller % self.bearers.len()];
        match self.twins[0].validate(bearer).await {
            Validation::Valid(verdict) => as_principal(verdict, action),
            Validation::Expired(_) | Validation::Refused => nobody(action),
        }
    }

    async fn step(&mut self, op: &Op) {
        match op {
            Op::Login { owner } => self.login(OWNERS[*owner]).await,
            Op::Refresh { token } => self.refresh(*token).await,
            Op::Logout { token, by_refresh } => self.logout(*token, *by_refresh).await,
            Op::Rotate { caller, role, grace, request } => {
                let call = self.call(*caller, "role_token.rotate").await;
                let (credential, new) = self.twins[0].credential(role.kind());
                let verb = interlock_auth::role_token::Rotate {
                    role: *role,
                    new,
                    grace: Duration::from_secs(*grace),
                    request: RequestId::made(format!("r{request}")),
                    sealed: credential.expose().as_bytes().to_vec(),
                };
                if self.all(&call, verb).await.is_ok_and(|rotated| !rotated.repeated) {
                    self.bearers.push(credential);
                }
            }
            Op::BeginRotation { caller, role, request } => {
                self.begin_rotation(*caller, *role, *request).await;
            }
            Op::EndRotation { .. } => self.end_rotation(op).await,
            Op::Used { tokens, source, ago } => self.used(*tokens, *source, *ago).await,
            Op::Reveal { caller } => {
                drop(self.all(&self.call(*caller, "role_token.status").await, Reveal).await);
            }
            Op::Status { caller } => {
                drop(self.ask(&self.call(*caller, "role_token.status").await, Status).await);
            }
            Op::Edit { owner, active, root, other } => {
                let (roles, hash) =
                    (if *root { ["root"] } else { ["user"] }, if *other { OTHER_HASH } else { HASH });
                let verb = support::account(OWNERS[*owner], &roles, *active, hash, *other);
                self.all(&host("account.apply"), verb).await.expect("the host may");
            }
            Op::Create { caller, name, request } => {
                let call = self.call(*caller, "project.create").await;
                let id = ProjectId::made(format!("prj_{}", self.twins[0].number()));
                let name = ProjectName::made(format!("p{name}"));
                let verb =
                    CreateProject { project: id, name, request: RequestId::made(format!("r{request}")) };
                if let Ok(project) = self.all(&call, verb).await
                    && !self.projects.contains(&project.id)
                {
                    self.projects.push(project.id);
                }
            }
            Op::Add { caller, project, owner } => {
                let call = self.call(*caller, "project.add_member").await;
                let project = self.projects[project % self.projects.len()].clone();
                let owner = OwnerId::made(*OWNERS.get(*owner).unwrap_or(&"user"));
                drop(self.all(&call, AddMember { project, owner }).await);
            }
            Op::Remove { caller, project, owner } => {
                let call = self.call(*caller, "project.remove_member").await;
                let project = self.projects[project % self.projects.len()].clone();
                let owner = OwnerId::made(*OWNERS.get(*owner).unwrap_or(&"user"));
                drop(self.all(&call, RemoveMember { project, owner, cancel_jobs: false }).await);
            }
            Op::Issue { caller, project, ttl, request } => {
                self.issue(*caller, *project, ttl.map(Duration::from_secs), *request).await;
            }
            Op::RotateToken { caller, token, grace, request } => {
                let Some((project, token)) = pick(&self.tokens, *token) else { return };
                let call = self.call(*caller, "project.rotate_token").await;
                let (secret, new) = self.twins[0].credential(Kind::Project);
                let (grace, request) = (Duration::from_secs(*grace), RequestId::made(format!("t{request}")));
                let sealed = secret.expose().as_bytes().to_vec();
                let verb = RotateToken { project, token, grace, ttl: None, new, request, sealed };
                let made = self.all(&call, verb).await;
                self.keep(secret, made);
            }
            Op::RevokeToken { caller, token } => {
                let Some((project, token)) = pick(&self.tokens, *token) else { return };
                let call = self.call(*caller, "project.revoke_token").await;
                drop(self.all(&call, RevokeToken { project, token }).await);
            }
            Op::ListTokens { caller, project } => {
                let call = self.call(*caller, "project.list_tokens").await;
                let project = self.projects[project % self.projects.len()].clone();
                drop(self.ask(&call, ListTokens { project, after: 0, limit: 0 }).await);
            }
            Op::Pass { seconds } => {
                for twin in &self.twins {
                    twin.clock.advance(Duration::from_secs(*seconds));
                }
            }
            Op::Unlock { caller, verified, seconds, certificate } => {
                let call = self.call(*caller, "elevation.unlock").await;
                let verified = self.twins[0].root.fingerprint().filter(|_| *verified);
                let certificate = certificate.then_some([7; 32]);
                let verb = Unlock { verified, ttl: Duration::from_secs(*seconds), certificate };
                drop(self.all(&call, verb).await);
            }
            Op::Lock { caller } => drop(self.all(&self.call(*caller, "elevation.lock").await, Lock).await),
            Op::SetOwner { caller, owner, edit, keep, expected } => {
                let call = self.call(*caller, "owner.set").await;
                let bit = |n: u8| edit & (1 << n) != 0;
                let edit = Edit {
                    display_name: bit(0).then(|| "Another".to_owned()),
                    roles: bit(1).then(|| vec![if bit(2) { "Root" } else { "user" }.to_owned()]),
                    active: bit(3).then_some(bit(4)),
                    password: (bit(0) || bit(4)).then(|| PasswordHash::parse(OTHER_HASH).expect("a hash")),
                };
                let owner = OwnerId::made(*OWNERS.get(*owner).unwrap_or(&"dora"));
                let expected = expected.then_some(2);
                drop(
                    self.all(
                        &call,
                        SetOwner { owner, edit, keep_sessions: *keep, expected, cancel_jobs: false },
                    )
                    .await,
                );
            }
            Op::RemoveOwner { caller, owner } => {
                let call = self.call(*caller, "owner.remove").await;
                let owner = OwnerId::made(*OWNERS.get(*owner).unwrap_or(&"dora"));
                drop(self.all(&call, RemoveOwner { owner, expected: None, cancel_jobs: true }).await);
            }
            Op::ChangePassword { caller, verified, keep } => {
                let call = self.call(*caller, "owner.change_password").await;
                let password = PasswordHash::parse(HASH).expect("a hash");
                let verb = ChangePassword { verified: verified.then_some(2), password, keep_sessions: *keep };
                drop(self.all(&call, verb).await);
            }
            Op::EndSession { caller, session } => {
                let known: Vec<String> = self.family.values().cloned().collect();
                let Some(session) = pick(&known, *session) else { return };
                let call = self.call(*caller, "owner_session.revoke").await;
                let verb = RevokeSession { session: OwnerSessionId::made(session.as_str()) };
                if matches!(self.all(&call, verb).await, Ok(Some(_))) {
                    assert!(self.ended.insert(session), "a session ends once");
                }
            }
            Op::EndSessions { caller, owner, age } => {
                let call = self.call(*caller, "owner_session.revoke").await;
                let owner = owner.map(|owner| OwnerId::made(OWNERS[owner]));
                let now = self.twins[0].clock.now();
                let issued_before = age.map(|age| now.before(Duration::from_secs(age)));
                drop(self.all(&call, RevokeAll { owner, issued_before }).await);
            }
            Op::ListSessions { caller, owner } => {
                let call = self.call(*caller, "owner_session.list").await;
                let whose =
                    owner.map_or(Whose::Everybody, |owner| Whose::Owner(OwnerId::made(OWNERS[owner])));
                self.list_sessions(&call, whose).await;
            }
            Op::RootSecret { other } => {
                for twin in &self.twins {
                    twin.root_secret(if *other { OTHER_HASH } else { HASH });
                }
                let mut sessions = self.ask(&host("elevation.end"), OnAnotherSecret).await.expect("may");
                sessions.sort();
                for session in sessions {
                    let verb = EndElevation { session, why: Why::Secret };
                    assert!(self.all(&host("elevation.end"), verb).await.expect("may"));
                }
            }
            Op::Sweep => self.sweep().await,
        }
    }

    async fn begin_rotation(&mut self, caller: usize, role: Role, request: u8) {
        let call = self.call(caller, "role_token.begin_rotation").await;
        let (credential, new) = self.twins[0].credential(role.kind());
        let sealed = credential.expose().as_bytes().to_vec();
        let verb = Begin { role, new, request: RequestId::made(format!("r{request}")), sealed };
        if self.all(&call, verb).await.is_ok_and(|begun| !begun.repeated) {
            self.bearers.push(credential);
        }
    }

    async fn end_rotation(&self, op: &Op) {
        let Op::EndRotation { caller, role, commit, force, other, request } = op else { return };
        let call = self.call(*caller, "role_token.end_rotation").await;
        let kept = self.ask(&host("settle"), PresentTokens).await.expect("the host may");
        let open = kept.iter().find(|token| token.role == *role && token.candidate && !other);
        let candidate = open.map_or_else(|| CredentialId::made("crd_none"), |token| token.id.clone());
        let (role, request) = (*role, RequestId::made(format!("r{request}")));
        if *commit {
            let (force, window, unheard) = (*force, Duration::from_secs(60), Unheard::default());
            let verb = Commit { role, candidate, force, request, window, unheard };
            drop(self.all(&call, verb).await);
        } else {
            drop(self.all(&call, Abort { role, candidate, request }).await);
        }
    }

    async fn used(&self, tokens: [usize; 2], source: u8, ago: u64) {
        let mut seen = Vec::new();
        for token in tokens {
            let bearer = &self.bearers[token % self.bearers.len()];
            let credential = match self.twins[0].validate(bearer).await {
                Validation::Valid(verdict) => verdict.principal.credential_id.clone(),
                Validation::Expired(_) | Validation::Refused => CredentialId::made("crd_none"),
            };
            let (service, source) = ("s".to_owned(), format!("10.0.0.{source}"));
            seen.push(Seen { credential, service, source, ago: Duration::from_secs(ago), noted: 1 });
        }
        self.all(&host("sweep"), RecordUses { seen }).await.expect("the host may");
    }

    async fn issue(&mut self, caller: usize, project: usize, ttl: Option<Duration>, request: u8) {
        let call = self.call(caller, "project.issue_token").await;
        let (secret, new) = self.twins[0].credential(Kind::Project);
        let verb = IssueToken {
            project: self.projects[project % self.projects.len()].clone(),
            grant: Grant::new("", vec!["jobs:read".to_owned()], Vec::new(), ttl).expect("good"),
            new,
            request: RequestId::made(format!("t{request}")),
            sealed: secret.expose().as_bytes().to_vec(),
        };
        let made = self.all(&call, verb).await;
        self.keep(secret, made);
    }

    fn keep(&mut self, secret: Credential, made: Result<Issued, Error>) {
        let Ok(made) = made else { return };
        if !made.repeated {
            self.bearers.push(secret);
            self.tokens.push((made.token.project, made.token.id));
        }
    }

    async fn login(&mut self, owner: &str) {
        let owner = OwnerId::made(owner);
        let call = nobody("owner_session.login");
        let facts = self.ask(&call, ReadForLogin { owner: owner.clone() }).await.expect("anyone");
        // One that was removed is unknown: it is tried all the same.
        let version = facts.map_or(1, |facts| facts.version);
        let first = &self.twins[0];
        let ((access, new_access), (refresh, new_refresh)) =
            (first.credential(Kind::Owner), first.credential(Kind::Refresh));
        let verb = interlock_auth::owner_session::Login {
            owner,
            version,
            session: interlock_auth::ids::OwnerSessionId::made(format!("ows_{}", first.number())),
            access: new_access,
            refresh: new_refresh,
            access_ttl: support::ACCESS_TTL,
            session_ttl: support::SESSION_TTL,
            rehashed: None,
        };
        if let Ok(SignedIn { session, .. }) = self.all(&call, verb).await {
            self.family.insert(refresh.hash(), session.to_string());
            self.bearers.push(access);
            self.refresh.push(refresh);
        }
    }

    async fn refresh(&mut self, token: usize) {
        let Some(presented) = pick(&self.refresh, token) else { return };
        let (hash, family) = (presented.hash(), self.family[&presented.hash()].clone());
        let (verb, _) = self.twins[0].refresh_verb(&presented);
        let outcome = self.all(&nobody("owner_session.refresh"), verb).await;
        let spent =
            self.successor.get(&hash).is_some_and(|next| self.presented.contains(&next.refresh.hash()));
        match outcome {
            // Its session has been swept.
            Ok(Refreshed::Unknown) | Err(_) => {}
            Ok(Refreshed::Replayed { session, .. }) => {
                assert_eq!(session.as_str(), family);
                assert!(self.presented.contains(&hash), "I9: a first use is no replay");
                assert!(self.ended.insert(family), "I9: a family ends once");
            }
            Ok(Refreshed::Issued(answer)) => {
                assert!(!spent, "I9: a replay was answered");
                assert!(!self.ended.contains(&family), "I9: an ended family goes on");
                let pair = Pair::open(&answer.sealed);
                let known = self.successor.entry(hash).or_insert_with(|| pair.clone());
                assert_eq!(*known, pair, "I9: a second successor");
                if self.presented.insert(hash) {
                    self.family.insert(pair.refresh.hash(), family);
                    self.bearers.push(pair.access);
                    self.refresh.push(pair.refresh);
                }
            }
        }
    }

    async fn logout(&mut self, token: usize, by_refresh: bool) {
        let (from, kind) =
            if by_refresh { (&self.refresh, Kind::Refresh) } else { (&self.bearers, Kind::Owner) };
        let Some(presented) = pick(from, token) else { return };
        let verb = Logout { kind, presented: presented.hash() };
        let ended = self.all(&nobody("owner_session.logout"), verb).await.expect("idempotent");
        if let Some(ended) = ended {
            assert!(self.ended.insert(ended.session.to_string()), "a session ends once");
        }
    }

    /// Page by page: no session twice, and none that has ended.
    async fn list_sessions(&self, call: &Call, whose: Whose) {
        let mut after = SessionPlace::default();
        loop {
            let query = ListSessions { whose: whose.clone(), after: after.clone(), limit: 2 };
            let Ok(page) = self.ask(call, query).await else { return };
            for session in &page.sessions {
                assert!(session.place() > after, "in order");
                assert!(!self.ended.contains(session.id.as_str()), "an ended one is listed");
                after = session.place();
            }
            match page.next {
                Some(next) => assert_eq!(next, after),
                None => return,
            }
        }
    }

    async fn sweep(&self) {
        let due = self.twins[0].ask(&host("sweep"), FindDue).await.expect("the host may");
        for twin in &self.twins[1..] {
            let mut other = twin.ask(&host("sweep"), FindDue).await.expect("the host may");
            let mut due = due.clone();
            other.sort_by_key(|d| format!("{d:?}"));
            due.sort_by_key(|d| format!("{d:?}"));
            assert_eq!(due, other);
        }
        for due in due {
            // A session's tokens go with it, so a later one of the list may be gone already.
            let action = if matches!(due, Due::Elevation(_)) { due.action() } else { "sweep" };
            self.all(&host(action), Clear { due }).await.expect("the host may");
        }
    }

    /// After each step.
    async fn check(&mut self, op: &Op) {
        let kept = self.ask(&host("settle"), PresentTokens).await.expect("the host may");
        for role in Role::ALL {
            let count =
                |candidate| kept.iter().filter(|t| t.role == role && t.candidate == candidate).count();
            assert!(count(false) == 1 && count(true) <= 1, "after {op:?}: {kept:?}");
        }
        for bearer in &self.bearers {
            let mut answers = Vec::new();
            for twin in &self.twins {
                answers.push(twin.validate(bearer).await);
            }
            assert!(answers.iter().all(|answer| *answer == answers[0]), "after {op:?}: {answers:?}");
            let valid = matches!(answers[0], Validation::Valid(_));
            assert!(!valid || !self.dead.contains(&bearer.hash()), "after {op:?}: the dead came back");
            if let Validation::Valid(verdict) = &answers[0]
                && let interlock_auth::caller::Proof::OwnerSession { session } = &verdict.principal.proof
            {
                assert!(!self.ended.contains(session.as_str()), "after {op:?}: an ended session validates");
            }
            if !valid {
                self.dead.insert(bearer.hash());
            }
        }
    }

    /// At the end: everything that can be asked.
    async fn compare_all(&self) {
        drop(self.ask(&host("end"), Status).await.expect("the host may"));
        let page =
            self.ask(&service(), RevocationsAfter { after: 0, limit: 1000 }).await.expect("services may");
        let sequences: Vec<_> = page.rows.iter().map(|row| row.sequence).collect();
        assert!(sequences.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a gap: {sequences:?}");
        drop(self.ask(&host("end"), ListOwners { after: None, limit: 0 }).await.expect("the host may"));
        for caller in 0..self.bearers.len() {
            let call = self.call(caller, "end").await;
            drop(self.ask(&call, ListProjects { after: None, limit: 0 }).await);
        }
        for owner in OWNERS.iter().chain(&["user", "admin", "local", "nobody"]) {
            let describe = DescribeOwner { owner: OwnerId::made(*owner) };
            self.ask(&service(), describe).await.expect("services may");
        }
        for project in &self.projects {
            for owner in OWNERS.iter().chain(&["user", "admin", "local", "nobody"]) {
                let check = CheckMembership { project: project.clone(), owner: OwnerId::made(*owner) };
                self.ask(&service(), check).await.expect("services may");
            }
        }
        for twin in &self.twins[2..] {
            assert_eq!(self.twins[0].audit(), twin.audit(), "audit rows of {:?} differ", twin.engine);
        }
    }
}

fn pick<T: Clone>(from: &[T], at: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[at % from.len()].clone())
}

fn text<T: Debug>(answer: &Result<T, Error>) -> String {
    match answer {
        Ok(out) => format!("{out:?}"),
        Err(error) => format!("{}: {error}", error.reason()),
    }
}
