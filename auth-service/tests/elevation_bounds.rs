//! I10: an elevation never outlives what was asked for, the bound, its owner session, a lock, a start, another root
//! secret, or a jump of the clock. Random histories on SQLite in a file and on PostgreSQL, beside a plain reckoning of
//! when it has to be over.
//!
//! A failure prints its seed; `INTERLOCK_SEED` (64 hex digits) runs that one again.

mod support;

use std::{cell::Cell, sync::Arc, time::Duration};

use interlock_auth::{
    elevation::{ElevationStatus, Lock},
    limits,
    owner::{RemoveOwner, SetOwner},
    owner_session::{Logout, RevokeAll},
    root,
    sweep::{Clear, Due, FindDue},
    trust::Validation,
};
use interlock_kit::{
    clock::Timestamp,
    hasher::{Hasher, Params},
};
use interlock_proto::credential::{Credential, Kind};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use zeroize::Zeroizing;

use support::{Bench, Engine, cluster::Cluster, host, nobody, seconds};

const CASES: u32 = 16;
const STEPS: usize = 24;
/// A start takes some ten times as long there.
const POSTGRES_EVERY: u32 = 4;

#[derive(Clone, Debug)]
enum Op {
    /// For so many seconds, within the bounds or not.
    Unlock(u64),
    Lock,
    Refresh,
    /// A jump of the clock; it goes forward only, whatever the wall clock does.
    Jump(Duration),
    /// To just before the instant at which it is over, and then to that instant.
    ToItsEnd,
    /// To just before the end of the owner session.
    ToTheSessionsEnd,
    /// The service starts again, with the same root password.
    Restart,
    /// The root password is changed, or taken away, while the service runs.
    Secret(Option<u8>),
    Sweep,
    End(u8),
    SignIn,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let jump =
        prop_oneof![Just(1_u64), Just(59), Just(60), Just(899), Just(3_600), Just(40_000), Just(86_400)];
    let op = prop_oneof![
        6 => prop_oneof![Just(60_u64), Just(900), Just(3_600), 0_u64..5_000].prop_map(Op::Unlock),
        2 => Just(Op::Lock),
        2 => Just(Op::Refresh),
        3 => jump.prop_map(|jump| Op::Jump(Duration::from_secs(jump))),
        3 => Just(Op::ToItsEnd),
        2 => Just(Op::ToTheSessionsEnd),
        2 => Just(Op::Restart),
        1 => prop::option::weighted(0.7, 0_u8..2).prop_map(Op::Secret),
        1 => Just(Op::Sweep),
        2 => (0_u8..4).prop_map(Op::End),
        2 => Just(Op::SignIn),
    ];
    prop::collection::vec(op, 1..STEPS)
}

// I10, FN-16, FN-26
#[test]
fn an_elevation_is_over_when_anything_that_it_stands_on_is() {
    let seed: [u8; 32] = match std::env::var("INTERLOCK_SEED") {
        Ok(hex) => std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex")),
        Err(_) => interlock_kit::random::bytes(),
    };
    let chosen = std::env::var_os("INTERLOCK_SEED").is_some();
    let shown: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("INTERLOCK_SEED={shown}");
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (cluster, cases, raised) = (Arc::new(Cluster::start()), Cell::new(0), Cell::new(0));
    let ran = runner.run(&ops(), |ops| {
        cases.set(cases.get() + 1);
        let name = format!("case_{}", cases.get());
        let engines: &[Engine] = match cases.get() % POSTGRES_EVERY {
            1 => &[Engine::File, Engine::Postgres],
            _ if chosen || std::env::var_os("INTERLOCK_LONG").is_some() => &[Engine::File, Engine::Postgres],
            _ => &[Engine::File],
        };
        for engine in engines.iter().copied() {
            let database = || (cluster.database(&name), Arc::clone(&cluster));
            let raises = runtime.block_on(run(Bench::open_in(engine, database), &ops));
            raised.set(raised.get() + raises);
        }
        cluster.sql("postgres", &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        Ok(())
    });
    if let Err(failure) = ran {
        panic!("INTERLOCK_SEED={shown}\n{failure}");
    }
    println!("{} histories, {} unlocks", cases.get(), raised.get());
    assert!(raised.get() > 10, "nothing was shown");
}

async fn run(bench: Bench, ops: &[Op]) -> u32 {
    let mut life = Life::begin(bench).await;
    for op in ops {
        life.step(op).await;
        life.judge(op).await;
    }
    life.bench.shell.close().await;
    life.raised
}

/// One owner's session, and when its elevation has to be over.
struct Life {
    bench: Bench,
    hasher: Hasher,
    password: Option<u8>,
    sessions: u32,
    access: Credential,
    refresh: Credential,
    session_ends: Timestamp,
    alive: bool,
    /// By what was asked, the bound and the session, reckoned here.
    until: Option<Timestamp>,
    raised: u32,
}

impl Life {
    async fn begin(bench: Bench) -> Self {
        let ann = bench.owner("ann0", &["user"]).await;
        bench.first_tokens().await;
        let session = bench.login(&ann).await.expect("in");
        let mut life = Self {
            hasher: Hasher::inline(Params::cheap()),
            password: Some(0),
            sessions: 0,
            access: session.access,
            refresh: session.refresh,
            session_ends: session.signed_in.expires_at,
            alive: true,
            until: None,
            raised: 0,
            bench,
        };
        life.configure().await;
        life
    }

    /// As a start does, and a root password that changes.
    async fn configure(&mut self) {
        let text = self.password.map(|n| Zeroizing::new(format!("root password number {n}").into_bytes()));
        root::configure(&self.bench.shell, &self.hasher, &self.bench.root, text, false)
            .await
            .expect("the host");
    }

    async fn step(&mut self, op: &Op) {
        match op {
            Op::Unlock(ttl) => self.unlock(seconds(*ttl)).await,
            Op::Lock if self.is_in().await => {
                let call = self.bench.call(&self.access, "elevation.lock").await;
                self.bench.run(&call, Lock).await.expect("idempotent");
                self.until = None;
            }
            Op::Refresh if self.is_in().await => {
                let pair = self.bench.refreshed(&self.refresh).await;
                (self.access, self.refresh) = (pair.access, pair.refresh);
            }
            Op::Lock | Op::Refresh => {}
            Op::Jump(by) => self.bench.clock.advance(*by),
            Op::ToItsEnd => {
                let Some(until) = self.until.filter(|until| !until.is_over(self.bench.clock.now())) else {
                    return;
                };
                self.to_just_before(until);
                if self.is_in().await {
                    assert!(self.is_raised().await, "I10: it lasts up to its instant");
                }
                self.bench.clock.advance(Duration::from_micros(1));
            }
            Op::ToTheSessionsEnd => {
                if !self.session_ends.is_over(self.bench.clock.now()) {
                    self.to_just_before(self.session_ends);
                    if self.alive && matches!(self.bench.validate(&self.access).await, Validation::Expired(_))
                    {
                        let pair = self.bench.refreshed(&self.refresh).await;
                        (self.access, self.refresh) = (pair.access, pair.refresh);
                    }
                }
            }
            Op::Restart => {
                // What is told apart by a start is the secret, hashed with a salt of this start.
                let bench = std::mem::replace(&mut self.bench, Bench::open(Engine::Memory));
                self.bench = bench.restarted().await;
                self.bench.root.set(None);
                self.configure().await;
                self.until = None;
            }
            Op::Secret(password) => {
                self.until = self.until.filter(|_| *password == self.password);
                self.password = *password;
                self.configure().await;
            }
            Op::Sweep => {
                let due = self.bench.ask(&host("sweep"), FindDue).await.expect("may");
                for due in due.into_iter().filter(|due| matches!(due, Due::Elevation(_))) {
                    self.bench.run(&host(due.action()), Clear { due }).await.expect("may");
                }
            }
            Op::End(how) => self.end(*how).await,
            Op::SignIn => self.sign_in().await,
        }
    }

    async fn unlock(&mut self, ttl: Duration) {
        if !self.is_in().await {
            return;
        }
        let now = self.bench.clock.now();
        match self.bench.unlock(&self.access, ttl).await {
            Ok(unlocked) => {
                assert!(
                    limits::ROOT_TTL.allows(ttl) && self.password.is_some(),
                    "I10: {ttl:?} is out of bounds"
                );
                let until = now.after(ttl).min(now.after(limits::ROOT_TTL.max)).min(self.session_ends);
                assert_eq!(unlocked.until, until, "I10: it is told what holds");
                self.until = Some(until);
                self.raised += 1;
            }
            Err(refused) => {
                assert!(!limits::ROOT_TTL.allows(ttl) || self.password.is_none(), "{refused}");
            }
        }
    }

    async fn end(&mut self, how: u8) {
        let owner = interlock_auth::ids::OwnerId::made(format!("ann{}", self.sessions));
        match how {
            0 => {
                let out = Logout { kind: Kind::Owner, presented: self.access.hash() };
                let ended = self.bench.run(&nobody("owner_session.logout"), out).await.expect("idempotent");
                // One whose access token is over is not found by it.
                self.alive &= ended.is_none();
                return;
            }
            1 => {
                let all = RevokeAll { owner: Some(owner), issued_before: None };
                drop(self.bench.run(&host("owner_session.revoke"), all).await);
            }
            2 => {
                let edit = interlock_auth::owner::Edit { active: Some(false), ..Default::default() };
                let set = SetOwner { owner, edit, keep_sessions: false, expected: None, cancel_jobs: false };
                drop(self.bench.run(&host("owner.set"), set).await);
            }
            _ => {
                let remove = RemoveOwner { owner, expected: None, cancel_jobs: false };
                drop(self.bench.run(&host("owner.remove"), remove).await);
            }
        }
        // One that is removed by now is nobody's: then it was ended before.
        self.alive = false;
    }

    /// Another owner, so that whatever was done to the one before is over.
    async fn sign_in(&mut self) {
        self.sessions += 1;
        let owner = self.bench.owner(&format!("ann{}", self.sessions), &["user"]).await;
        let session = self.bench.login(&owner).await.expect("in");
        (self.access, self.refresh) = (session.access, session.refresh);
        (self.session_ends, self.alive, self.until) = (session.signed_in.expires_at, true, None);
    }

    fn to_just_before(&self, at: Timestamp) {
        let left = at.since(self.bench.clock.now());
        self.bench.clock.advance(left.saturating_sub(Duration::from_micros(1)));
    }

    async fn is_in(&self) -> bool {
        matches!(self.bench.validate(&self.access).await, Validation::Valid(_))
    }

    async fn is_raised(&self) -> bool {
        let now = self.bench.clock.now();
        let by_verdict = match self.bench.validate(&self.access).await {
            Validation::Valid(verdict) => verdict.principal.is_elevated(now),
            Validation::Expired(_) | Validation::Refused => false,
        };
        let query = ElevationStatus { presented: Some(self.access.hash()), certificate: None };
        let status = self.bench.ask(&nobody("elevation.status"), query).await.expect("public");
        assert_eq!(status.until.is_some(), by_verdict, "who asks is told what verifiers are");
        by_verdict
    }

    async fn judge(&self, op: &Op) {
        let now = self.bench.clock.now();
        let is_in = self.is_in().await;
        assert!(
            !is_in || (self.alive && !self.session_ends.is_over(now)),
            "after {op:?}: an ended session is in"
        );
        let expected = is_in && self.until.is_some_and(|until| !until.is_over(now));
        assert_eq!(self.is_raised().await, expected, "I10 on {:?} after {op:?}", self.bench.engine);
    }
}
