//! `barrier`: from calling for a revocation until no verifier admits what it ends, beside a bare push that each
//! stream acknowledges; and a verifier that no longer acknowledges, which is waited out for a lease.

mod holders;
mod pushed;

use std::time::{Duration, Instant};

use interlock_tests::{Pair, Setup};

use self::{
    holders::{Frozen, Verifiers},
    pushed::Streams,
};
use crate::{
    bare::{Bare, Kind},
    measured::{self, Measured, OURS_AND_BARE},
    plan::Plan,
    report::Report,
    sign_ins::Source,
};

/// How many verifiers, and how many revocations in each pair, where a side is measured for a second.
const CROWDS: [(usize, f64); 2] = [(3, 60.0), (100, 24.0)];
/// ... where there is time for more.
const MORE_CROWDS: [(usize, f64); 2] = [(1, 60.0), (10, 60.0)];
const REVOCATIONS_MIN: usize = 8;
/// How often a frozen verifier is waited out: each takes a lease.
const FROZEN: usize = 3;
const LEASE: Duration = Duration::from_secs(2);
/// Sign-ins come from so many addresses in turn, so that no one of them signs in too often.
const SOURCES: u8 = 64;

/// When a revocation was called for, and what happened then.
struct Revocation {
    returned: Duration,
    /// The last of them refused.
    refused: Duration,
}

/// Measures with an auth of its own: its only verifiers are those of this process.
pub(crate) async fn measure(plan: &Plan, report: &mut Report) {
    if !plan.wants("barrier") {
        return;
    }
    let lease = format!("{}s", LEASE.as_secs());
    let mut pair = Pair::stopped(Setup::default().auth("lease", &lease).auth("limits.timeout", "40s"));
    pair.start_auth().await;
    let mut sources: Vec<_> = (1..=SOURCES).map(|number| Source::new(&pair, number)).collect();
    let more = MORE_CROWDS.into_iter().filter(|_| plan.all);
    for (verifiers, revocations) in CROWDS.into_iter().chain(more) {
        let revocations = ((revocations * plan.seconds.min(1.0)) as usize).max(REVOCATIONS_MIN);
        report.take(crowd(plan, &pair, &mut sources, verifiers, revocations).await);
    }
    report.take(frozen(&pair, &mut sources).await);
}

async fn crowd(
    plan: &Plan,
    pair: &Pair,
    sources: &mut [Source],
    verifiers: usize,
    revocations: usize,
) -> Measured {
    let bare = Bare::start(Kind::Push, &pair.world);
    let ours = Verifiers::start(pair, verifiers).await;
    let mut push = Streams::open(pair, &bare, verifiers).await;
    let mut measured = Measured::new(format!("barrier, {verifiers} verifiers"), OURS_AND_BARE);
    measured.note = format!(
        "{revocations} revocations each time, durable when answered, and refused everywhere; bare: push and acknowledge"
    );
    for round in 0..=plan.pairs {
        let (mut a, mut b) = (Times::default(), Times::default());
        for number in 0..revocations {
            let source = &mut sources[(round * revocations + number) % usize::from(SOURCES)];
            a.add(&ours.revoke(source).await);
            b.add(&push.revoke().await);
        }
        // The first one makes connections.
        if round > 0 {
            measured.pair("returned, p50, ms", 2, a.returned(0.5), b.returned(0.5));
            measured.pair("returned, p99, ms", 2, a.returned(0.99), b.returned(0.99));
            measured.pair("refused, p50, ms", 2, a.refused(0.5), b.refused(0.5));
            measured.pair("refused, p99, ms", 2, a.refused(0.99), b.refused(0.99));
            eprintln!(
                "barrier, {verifiers} verifiers {round}/{}: p50 {:.2} and {:.2} ms, p99 {:.2} and {:.2} ms",
                plan.pairs,
                a.returned(0.5),
                b.returned(0.5),
                a.returned(0.99),
                b.returned(0.99)
            );
        }
    }
    drop(ours);
    wait_out(pair, &mut sources[0]).await;
    measured
}

/// Verifiers that have gone are waited for until their leases have run out: so one revocation waits for them all,
/// and none of those that are measured.
async fn wait_out(pair: &Pair, source: &mut Source) {
    let token = source.sign_in().await.expect("a sign-in");
    pair.sdk_auth().logout(&token).await.expect("signed out").expect("it was alive");
}

async fn frozen(pair: &Pair, sources: &mut [Source]) -> Measured {
    let others = Verifiers::start(pair, 2).await;
    let mut measured = Measured::new("barrier, one verifier frozen", ["took", "lease"]);
    measured.note = "a holder that was granted a lease at that moment, and says nothing any more".to_owned();
    for source in sources.iter_mut().take(FROZEN) {
        let token = source.sign_in().await.expect("a sign-in");
        let holder = Frozen::seat(pair).await;
        let began = Instant::now();
        let reached = pair.sdk_auth().logout(&token).await.expect("signed out").expect("it was alive");
        let took = began.elapsed();
        assert_eq!((reached.acknowledged, reached.fenced), (others.count(), 1), "{reached:?}");
        eprintln!("barrier, one verifier frozen: {:.3} s", took.as_secs_f64());
        measured.pair("returned, s", 3, took.as_secs_f64(), LEASE.as_secs_f64());
        drop(holder);
    }
    measured
}

/// Those of one pair, microseconds.
#[derive(Default)]
struct Times {
    returned: Vec<u128>,
    refused: Vec<u128>,
}

impl Times {
    fn add(&mut self, revocation: &Revocation) {
        self.returned.push(revocation.returned.as_micros());
        self.refused.push(revocation.refused.as_micros());
    }

    fn returned(&mut self, share: f64) -> f64 {
        measured::quantile(&mut self.returned, share) as f64 / 1e3
    }

    fn refused(&mut self, share: f64) -> f64 {
        measured::quantile(&mut self.refused, share) as f64 / 1e3
    }
}
