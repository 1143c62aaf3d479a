//! The load: so many callers, each with one call open at a time, for so long.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::task::JoinSet;
use tonic::Status;

use crate::cpu::{self, Machine};

/// Makes one call after another.
pub(crate) trait Caller: Send + 'static {
    /// One call.
    fn call(&mut self) -> impl Future<Output = Result<(), Status>> + Send;

    /// Between two calls that are due, where they do not follow each other at once. A call's time then counts
    /// from when it was due: what waits behind a slow one is late, too.
    fn every(&self) -> Option<Duration> {
        None
    }
}

/// What one side did while it was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Slice {
    /// Calls answered.
    pub(crate) calls: usize,
    /// For how long, seconds.
    pub(crate) seconds: f64,
    /// Answers a second.
    pub(crate) per_second: f64,
    /// The server process's CPU for one call, microseconds.
    pub(crate) server_cpu_us: f64,
    /// The median time of a call, microseconds.
    pub(crate) p50_us: u32,
    /// Ninety-nine of a hundred calls took no longer, microseconds.
    pub(crate) p99_us: u32,
    /// The share of the whole machine's time that none of our processes used, and that was not idle.
    pub(crate) others_share: f64,
}

/// One side: a server, and who calls it.
pub(crate) struct Side<C> {
    /// The server's process.
    pub(crate) server: u32,
    /// Each on its connection.
    pub(crate) callers: Vec<C>,
}

impl<C: Caller> Side<C> {
    /// Has all callers call for so long. `household` are all processes of this run.
    pub(crate) async fn measure(&mut self, slice: Duration, household: &[u32]) -> Slice {
        let (machine, own, server) = (Machine::now(), used(household), cpu::spent(self.server));
        let began = Instant::now();
        let mut running = JoinSet::new();
        let share = 1.0 / self.callers.len().max(1) as f64;
        for (number, caller) in self.callers.drain(..).enumerate() {
            let first = caller.every().map_or(began, |every| began + every.mul_f64(share * number as f64));
            running.spawn(keep_calling(caller, first, began + slice));
        }
        let mut times = Vec::new();
        while let Some(ended) = running.join_next().await {
            let (caller, took) = ended.expect("a caller ends");
            self.callers.push(caller);
            times.extend(took);
        }
        let seconds = began.elapsed().as_secs_f64();
        let server = cpu::spent(self.server) - server;
        let (machine_now, own) = (Machine::now(), used(household) - own);
        let all = machine_now.all - machine.all;
        let others = all.saturating_sub(machine_now.idle - machine.idle).saturating_sub(own);
        times.sort_unstable();
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(0);
        Slice {
            calls: times.len(),
            seconds,
            per_second: times.len() as f64 / seconds,
            server_cpu_us: server.as_secs_f64() * 1e6 / times.len().max(1) as f64,
            p50_us: at(0.5),
            p99_us: at(0.99),
            others_share: others.as_secs_f64() / all.as_secs_f64().max(f64::MIN_POSITIVE),
        }
    }
}

fn used(household: &[u32]) -> Duration {
    household.iter().map(|pid| cpu::spent(*pid)).sum()
}

/// Calls from then until then; gives the caller back, and how long each call took, microseconds.
async fn keep_calling<C: Caller>(mut caller: C, first: Instant, until: Instant) -> (C, Vec<u32>) {
    let mut times = Vec::new();
    let mut due = first;
    let mut now = Instant::now();
    while due < until && now < until {
        match caller.every() {
            None => due = now,
            Some(_) => tokio::time::sleep_until(due.into()).await,
        }
        if let Err(status) = caller.call().await {
            panic!("a call failed, so this is no yardstick: {status}");
        }
        now = Instant::now();
        times.push(u32::try_from((now - due).as_micros()).unwrap_or(u32::MAX));
        due = caller.every().map_or(now, |every| due + every);
    }
    (caller, times)
}
