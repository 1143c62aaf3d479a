//! Submits, attaches, claims and finishes at once, against the real gateway on its embedded store, and against two
//! gateways on one PostgreSQL, over two sessions that share two agents and two projects. What held is read back from
//! the logs of both sessions, from the evidence that each refusal carries, and from the store itself meanwhile, each of
//! one instant.
//!
//! SW-26 to SW-29: I1, I2, I3, I5 hold in a race of submits against attaches. A run counts only where at
//! least a fifth of the attaches changed a binding and a fifth were refused as busy: an unbalanced load
//! finds nothing. `INTERLOCK_SEED` repeats the choices of a run; `INTERLOCK_LONG=1` makes it five times as long.

#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../../../service-kit/tests/store/cluster.rs"]
mod cluster;
mod judge;
mod look;
mod racers;
mod track;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use cluster::Cluster;
use interlock_client::{Gateway, OwnerSession, SetAgent};
use interlock_tests::{
    Pair, Service, Setup,
    wire::{self, Metadata, Shows},
    within, within_times,
};
use judge::{Seen, come_to_rest, judge};
use look::Store;
use racers::{attach, submit, work};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{sync::watch, task::JoinSet};
use tonic::transport::Channel;
use track::{Tally, Track};

pub(crate) const AGENTS: [&str; 2] = ["racer-a", "racer-b"];
const SUBMITTERS: u64 = 4;
const ATTACHERS: u64 = 4;
const WORKERS: u64 = 3;
/// Attaches in all.
const ATTACHES: usize = 1_000;
/// Where each is a transaction of a server that this machine runs beside all else.
const ATTACHES_BETWEEN: usize = 500;

/// Ends the look at the store with the test, also where that fails: a runtime waits for its blocking tasks.
struct Ends(Arc<AtomicBool>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Where they race: racers go to one gateway after the other.
struct Course {
    // Services before the folder, the database last.
    second: Option<Service>,
    pair: Pair,
    cluster: Option<Cluster>,
}

impl Course {
    /// One gateway, on its embedded store.
    async fn alone() -> Self {
        Self { second: None, pair: Pair::start_with(setup()).await, cluster: None }
    }

    /// Two gateways on one database.
    async fn between() -> Self {
        let cluster = Cluster::start_with(&["max_connections=40"]);
        let setup = setup().gateway_in(&cluster.database("gateway"));
        let pair = Pair::start_with(setup).await;
        let mut second = Service::another("gateway", "gateway-2", &pair.world.path(""));
        pair.start_another_gateway(&mut second, "gateway-2").await;
        Self { second: Some(second), pair, cluster: Some(cluster) }
    }

    fn gateway(&self, nth: u64) -> &Service {
        self.second.as_ref().filter(|_| nth % 2 == 1).unwrap_or(&self.pair.gateway)
    }

    fn sdk(&self, nth: u64, alice: &OwnerSession) -> Gateway {
        self.pair.sdk_gateways(&[self.gateway(nth)], &alice.access_token)
    }

    fn channel(&self, nth: u64) -> Channel {
        let shows = Shows { ca: self.pair.world.ca(), leaf: None };
        wire::connect(self.gateway(nth).address("public"), &shows)
    }

    fn store(&self) -> Store {
        match &self.cluster {
            None => Store::File(self.pair.world.path("gateway/gateway.db")),
            Some(cluster) => Store::Database(cluster.url("gateway")),
        }
    }
}

fn setup() -> Setup {
    Setup::default().gateway("jobs_in_flight_per_owner", "100000")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_never_changes_under_a_job() {
    race(Course::alone().await, ATTACHES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_never_changes_under_a_job_between_two_gateways() {
    race(Course::between().await, ATTACHES_BETWEEN).await;
}

async fn race(course: Course, attaches: usize) {
    let given = std::env::var("INTERLOCK_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("seed {seed}: INTERLOCK_SEED={seed} repeats its choices");
    let pair = &course.pair;
    let alice = pair.login("alice").await;
    let gateway = course.sdk(0, &alice);
    let track = Arc::new(lay(pair, &gateway, &alice, attaches * times() as usize).await);
    let began = Instant::now();

    let mut workers = JoinSet::new();
    let (stop, stopped) = watch::channel(false);
    for n in 0..WORKERS {
        let rng = StdRng::seed_from_u64(seed ^ (300 + n));
        let metadata = Metadata::bearer(&alice.access_token);
        workers.spawn(work(course.channel(n), metadata, rng, Arc::clone(&track), stopped.clone()));
    }
    let over = Arc::new(AtomicBool::new(false));
    let _ends = Ends(Arc::clone(&over));
    let looking = tokio::spawn(course.store().watch(Arc::clone(&over)));
    let mut racers = JoinSet::new();
    for n in 0..SUBMITTERS {
        let rng = StdRng::seed_from_u64(seed ^ (100 + n));
        // Each session is submitted to through each gateway.
        let session = track.sessions[n as usize / 2 % 2].clone();
        racers.spawn(submit(course.sdk(n, &alice), rng, session, Arc::clone(&track)));
    }
    for n in 0..ATTACHERS {
        let rng = StdRng::seed_from_u64(seed ^ (200 + n));
        racers.spawn(attach(course.sdk(n, &alice), rng, Arc::clone(&track)));
    }
    within_times(times(), "the end of the race", async {
        while let Some(racer) = racers.join_next().await {
            racer.expect("no racer panics");
        }
    })
    .await;
    come_to_rest(&gateway, &track).await;
    let took = began.elapsed();
    stop.send_replace(true);
    within("the end of the workers", async {
        while let Some(worker) = workers.join_next().await {
            worker.expect("no worker panics");
        }
    })
    .await;
    over.store(true, Ordering::Relaxed);
    let looks = looking.await.expect("I1 and I3 hold in the store");
    judge(pair, &alice, &track, seed, &Seen { took, looks }).await;
}

/// As many attaches as usual.
fn times() -> u32 {
    if std::env::var_os("INTERLOCK_LONG").is_some() { 5 } else { 1 }
}

async fn lay(pair: &Pair, gateway: &Gateway, alice: &OwnerSession, attaches: usize) -> Track {
    for agent in AGENTS {
        gateway.agents().set(agent, SetAgent::default()).await.expect("an agent");
    }
    let projects = [pair.project(alice, "left").await, pair.project(alice, "right").await];
    let mut sessions = Vec::new();
    for (n, project) in projects.iter().enumerate() {
        let session = gateway.sessions().create("").await.expect("a session").session.session_id;
        gateway.sessions().attach(&session, AGENTS[n], project).await.expect("all is idle");
        sessions.push(session);
    }
    Track {
        sessions: sessions.try_into().expect("two"),
        projects,
        tally: Tally::default(),
        attaches,
        attached: watch::Sender::new(0),
        queued: watch::Sender::new(0),
        evidence: Mutex::default(),
        last: Mutex::new([(0, 0), (1, 1)]),
    }
}
