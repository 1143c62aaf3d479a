//! The database's primary killed under load, its synchronous standby promoted: nothing that was acknowledged is lost, the
//! services go on, and an old primary that comes back gets no write and answers no read, whether its own commits could
//! be acknowledged or not.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use interlock_client::SetAgent;
use interlock_kit::{
    config::Profile,
    store::{
        audit::ChainKey,
        postgres::{self, Target},
    },
};
use interlock_tests::{
    Pair, eventually,
    service::program,
    wire::{self, Metadata},
};
use rand::RngExt as _;

use crate::{
    cluster::Cluster,
    load::{auth::SignIns, gateway, gateway::Submits},
    patient, seeded, spans,
};

const LIST_SESSIONS: &str = "/interlock.gateway.v1.SessionService/ListSessions";
/// A host that goes on as another one's standby has the same.
const SETTINGS: [&str; 1] = ["max_connections=80"];
/// Acknowledged writes between two events.
const WRITES: std::ops::Range<usize> = 20..50;
/// Fail-overs with `INTERLOCK_LONG`.
const TAKEOVERS_LONG: usize = 12;

/// How a primary goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Each of its processes is killed.
    Killed,
    /// It stops where it stands, with its connections open, and goes on when another one has taken over.
    Frozen,
}

/// Two hosts, of which one follows the other, and a pair whose stores are there.
struct Stage {
    // Services before the folder, databases last.
    pair: Pair,
    submits: Arc<Submits>,
    sign_ins: Arc<SignIns>,
    /// Has no standby any more once another one has taken over.
    primary: Cluster,
    standby: Cluster,
}

/// Spans until a first write was acknowledged, from when the standby took writes.
#[derive(Default)]
struct Spans {
    gateway: Vec<Duration>,
    auth: Vec<Duration>,
}

impl Stage {
    async fn set() -> Self {
        let primary = Cluster::start_with(&SETTINGS);
        for database in ["auth", "gateway"] {
            primary.database(database);
        }
        let mut standby = primary.standby(&SETTINGS);
        standby.serve();
        primary.commits_wait();
        let url = |name: &str| format!("postgres://interlock@{},{}/{name}", primary.host(), standby.host());
        let setup = patient()
            .auth("lease", "1s")
            .auth("store", &url("auth"))
            .auth("store_sharing", "shared")
            .gateway("store", &url("gateway"))
            .gateway("store_sharing", "shared")
            .gateway("jobs_in_flight_per_owner", "100000");
        let pair = Pair::start_with(setup).await;
        let alice = pair.login("alice").await;
        let sdk = pair.sdk_gateway(&alice.access_token);
        for agent in gateway::AGENTS {
            sdk.agents().set(agent, SetAgent::default()).await.expect("an agent");
        }
        let project = pair.project(&alice, "takeover").await;
        let submits = Arc::new(Submits::begin(&pair, &alice, &project).await);
        let sign_ins = Arc::new(SignIns::begin(&pair));
        Self { pair, submits, sign_ins, primary, standby }
    }

    async fn acknowledges(&self, more: usize) {
        let acknowledged = || [self.submits.acknowledged(), self.sign_ins.acknowledged() * 4];
        let target = acknowledged().map(|count| count + more);
        eventually("acknowledged writes of both", async || {
            acknowledged().iter().zip(&target).all(|(count, target)| count >= target).then_some(())
        })
        .await;
    }

    /// The primary goes, the standby takes over; what was acknowledged is there. The two have changed places then, and
    /// the old one does not run, or has no standby.
    async fn take_over(&mut self, how: End, spans: &mut Spans) {
        match how {
            End::Killed => self.primary.kill_at_once(),
            End::Frozen => self.primary.freeze(),
        }
        self.standby.promote();
        // Nobody acknowledges anything before: what comes first came of the new one.
        let (began, before) = (Instant::now(), [self.submits.acknowledged(), self.sign_ins.acknowledged()]);
        let (mut gateway, mut auth) = (None, None);
        eventually("the first writes of both", async || {
            if self.submits.acknowledged() > before[0] {
                gateway.get_or_insert_with(|| began.elapsed());
            }
            if self.sign_ins.acknowledged() > before[1] {
                auth.get_or_insert_with(|| began.elapsed());
            }
            gateway.and(auth)
        })
        .await;
        spans.gateway.extend(gateway);
        spans.auth.extend(auth);
        std::mem::swap(&mut self.primary, &mut self.standby);
        if how == End::Frozen {
            self.standby.wake();
        }
        self.submits.check_new().await;
        self.sign_ins.check_new().await;
    }

    /// What the host has of both stores.
    fn rows(&self, host: &Cluster) -> [String; 3] {
        let gateway = "SELECT (SELECT COUNT(*) FROM job), (SELECT COUNT(*) FROM event), (SELECT SUM(batch) FROM moment)";
        let auth = "SELECT (SELECT COUNT(*) FROM project), (SELECT SUM(batch) FROM moment)";
        let timeline = "SELECT timeline_id FROM pg_control_checkpoint()";
        [host.sql("gateway", gateway), host.sql("auth", auth), host.sql("postgres", timeline)]
    }

    /// What a start says that fails.
    fn refused(&self, service: &str) -> String {
        let mut command = Command::new(program(&format!("interlock-{service}")));
        command.env_clear().stdin(Stdio::null()).current_dir(self.pair.world.path(""));
        command.args(["--config", &format!("{service}.toml")]);
        let ended = command.output().expect("it runs");
        assert_eq!(ended.status.code(), Some(1), "{service} started on an old primary");
        String::from_utf8_lossy(&ended.stderr).into_owned()
    }

    async fn restart(&mut self) {
        self.pair.gateway.kill();
        self.pair.auth.kill();
        self.pair.start_auth().await;
        self.pair.start_gateway().await;
        self.pair.serving().await;
    }

    /// Ends the load.
    async fn end(&self) {
        self.submits.end().await;
        self.sign_ins.end().await;
    }

    /// Compares all that was acknowledged. I6, I7, I11
    async fn compare(&mut self, what: &str, spans_of: &Spans) {
        let (jobs, owners) = (self.submits.check_all(&self.pair).await, self.sign_ins.check_all().await);
        let retried = self.submits.retry_everything(&self.pair).await;
        self.sign_ins.check_gateway(&self.pair).await;
        assert!(
            self.pair.gateway.drain().await.success() && self.pair.auth.drain().await.success(),
            "drained"
        );
        let whole = "SELECT (SELECT COUNT(*) FROM job)
                     = (SELECT COUNT(*) FROM audit WHERE action = 'job.submit' AND outcome = 'done')";
        assert_eq!(self.primary.sql("gateway", whole), "t", "I11: a row for each job");
        for (service, key) in [("auth", "audit.key"), ("gateway", "gateway.chain-key")] {
            let target = Target::parse(&self.primary.url(service), Profile::Local).expect("a URL");
            let key = self.pair.world.path(&format!("{service}/{key}"));
            let key = ChainKey::beside(&key, true, Profile::Local).expect("the key of the first start");
            assert_eq!(postgres::verify(&target, &key).expect("reads"), [], "I11: the chains of {service}");
        }
        println!(
            "{what}: {jobs}; {owners}; lost 0; {retried} request ids retried, each with its first answer; from the \
             promotion to the first write: gateway {}, auth {}",
            spans(&spans_of.gateway),
            spans(&spans_of.auth)
        );
    }
}

fn is_long() -> bool {
    std::env::var_os("INTERLOCK_LONG").is_some()
}

// I6, I7, I11, issue 5 line 5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_and_an_old_primary_that_comes_back_gets_nothing() {
    let mut rng = seeded();
    let (mut stage, mut spans) = (Stage::set().await, Spans::default());
    stage.acknowledges(rng.random_range(WRITES)).await;
    stage.take_over(End::Killed, &mut spans).await;

    // The old one comes back, first in the list, without a standby, then with one: it takes writes, and gets none.
    stage.standby.serve();
    let before = stage.rows(&stage.standby);
    stage.acknowledges(rng.random_range(WRITES)).await;
    let mut follower = stage.standby.standby(&SETTINGS);
    follower.serve();
    stage.standby.until("SELECT COUNT(*) FROM pg_stat_replication WHERE sync_state = 'sync'");
    // Who starts anew knows it, too.
    stage.restart().await;
    stage.acknowledges(rng.random_range(WRITES)).await;
    assert_eq!(stage.rows(&stage.standby), before, "the old primary was written to");
    stage.end().await;

    // Alone with the old one, they say that the store is away: it may lack what was acknowledged.
    stage.primary.kill_at_once();
    let before = stage.rows(&stage.standby);
    let (channel, alice) = (stage.pair.gateway_public(), stage.submits.alice());
    let who = Metadata::bearer(&alice.access_token);
    let away = async || {
        let answer = wire::call(&channel, LIST_SESSIONS, Vec::new(), &who).await.outcome;
        assert_ne!(answer.short(), "OK", "a read was answered without the new primary");
        ["STORE_UNAVAILABLE", "AUTH_UNAVAILABLE"].contains(&answer.short()).then_some(())
    };
    eventually("a store that is away", away).await;
    stage.pair.gateway.kill();
    stage.pair.auth.kill();
    for service in ["auth", "gateway"] {
        let said = stage.refused(service);
        assert!(said.contains("is of an earlier epoch (timeline 1, and 2 was seen)"), "{service}: {said}");
    }
    assert_eq!(stage.rows(&stage.standby), before, "the old primary was written to");
    drop(follower);
    stage.primary.serve();
    stage.pair.start_auth().await;
    stage.pair.start_gateway().await;
    stage.pair.serving().await;
    stage.compare("one fail-over, the old primary twice", &spans).await;
}

// I6, I7, I11: again and again, to and fro, also where the primary does not die but stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_takes_over_from_the_other_to_and_fro() {
    if !is_long() {
        println!("with INTERLOCK_LONG");
        return;
    }
    let mut rng = seeded();
    let (mut stage, mut spans) = (Stage::set().await, Spans::default());
    for round in 0..TAKEOVERS_LONG {
        stage.acknowledges(rng.random_range(WRITES)).await;
        let how = if round % 3 == 2 { End::Frozen } else { End::Killed };
        stage.take_over(how, &mut spans).await;
        println!("{round}: {how:?}: {:?} {:?}", spans.gateway.last(), spans.auth.last());
        // The old one is made a standby of the new one, at its place.
        stage.standby.follow(&stage.primary);
        stage.primary.commits_wait();
    }
    stage.end().await;
    stage.compare("fail-overs to and fro", &spans).await;
}
