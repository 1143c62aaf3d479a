//! Submits, attaches, claims and finishes at once, against the real gateway, over two sessions that share
//! two agents and two projects. What held is read back from the logs of both sessions, and from the
//! evidence that each refusal carries, and from the store itself meanwhile, each of one instant.
//!
//! SW-26 to SW-29: I1, I2, I3, I5 hold in a race of submits against attaches. A run counts only where at
//! least a fifth of the attaches changed a binding and a fifth were refused as busy: an unbalanced load
//! finds nothing. `INTERLOCK_SEED` repeats the choices of a run; `INTERLOCK_LONG=1` makes it five times as long.

mod judge;
mod racers;
mod track;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use interlock_client::{Gateway, OwnerSession, SetAgent};
use interlock_tests::{Pair, Setup, wire::Metadata, within, within_times};
use judge::{Seen, come_to_rest, judge, watch_store};
use racers::{attach, submit, work};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{sync::watch, task::JoinSet};
use track::{Tally, Track};

pub(crate) const AGENTS: [&str; 2] = ["racer-a", "racer-b"];
const SUBMITTERS: u64 = 4;
const ATTACHERS: u64 = 4;
const WORKERS: u64 = 3;
/// Attaches in all.
const ATTACHES: usize = 1_000;

/// Ends the look at the store with the test, also where that fails: a runtime waits for its blocking tasks.
struct Ends(Arc<AtomicBool>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_never_changes_under_a_job() {
    let given = std::env::var("INTERLOCK_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("seed {seed}: INTERLOCK_SEED={seed} repeats its choices");
    let setup = Setup::default().gateway("jobs_in_flight_per_owner", "100000");
    let pair = Pair::start_with(setup).await;
    let alice = pair.login("alice").await;
    let gateway = pair.sdk_gateway(&alice.access_token);
    let track = Arc::new(lay(&pair, &gateway, &alice).await);
    let began = Instant::now();

    let mut workers = JoinSet::new();
    let (stop, stopped) = watch::channel(false);
    for n in 0..WORKERS {
        let rng = StdRng::seed_from_u64(seed ^ (300 + n));
        let metadata = Metadata::bearer(&alice.access_token);
        workers.spawn(work(pair.gateway_public(), metadata, rng, Arc::clone(&track), stopped.clone()));
    }
    let over = Arc::new(AtomicBool::new(false));
    let _ends = Ends(Arc::clone(&over));
    let looking = tokio::task::spawn_blocking({
        let (store, over) = (pair.world.path("gateway/gateway.db"), Arc::clone(&over));
        move || watch_store(&store, &over)
    });
    let mut racers = JoinSet::new();
    for n in 0..SUBMITTERS {
        let rng = StdRng::seed_from_u64(seed ^ (100 + n));
        let session = track.sessions[n as usize % 2].clone();
        racers.spawn(submit(pair.sdk_gateway(&alice.access_token), rng, session, Arc::clone(&track)));
    }
    for n in 0..ATTACHERS {
        let rng = StdRng::seed_from_u64(seed ^ (200 + n));
        racers.spawn(attach(pair.sdk_gateway(&alice.access_token), rng, Arc::clone(&track)));
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
    judge(&pair, &alice, &track, seed, &Seen { took, looks }).await;
}

/// As many attaches as usual.
fn times() -> u32 {
    if std::env::var_os("INTERLOCK_LONG").is_some() { 5 } else { 1 }
}

async fn lay(pair: &Pair, gateway: &Gateway, alice: &OwnerSession) -> Track {
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
        attaches: ATTACHES * times() as usize,
        attached: watch::Sender::new(0),
        queued: watch::Sender::new(0),
        evidence: Mutex::default(),
        last: Mutex::new([(0, 0), (1, 1)]),
    }
}
