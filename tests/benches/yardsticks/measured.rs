//! Figures that are no calls answered: of two sides, pair by pair.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cpu::{self, Machine};

/// Ours, and a bare program of ours.
pub(crate) const OURS_AND_BARE: [&str; 2] = ["ours", "bare"];

/// What a yardstick of any kind has measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    /// Which yardstick.
    pub(crate) name: String,
    /// What stands beside the figures.
    pub(crate) note: String,
    /// What the two columns are.
    pub(crate) sides: [&'static str; 2],
    /// In the order in which they were first told.
    pub(crate) figures: Vec<Figures>,
}

/// One kind of figure, of each pair.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    /// What, and its unit.
    pub(crate) what: &'static str,
    /// Digits after the point that are worth showing.
    #[serde(skip)]
    pub(crate) digits: usize,
    /// Whether a quotient of both says something.
    #[serde(skip)]
    pub(crate) compared: bool,
    /// Of the first side.
    pub(crate) ours: Vec<f64>,
    /// Of the second side.
    pub(crate) bare: Vec<f64>,
}

impl Measured {
    /// Nothing yet.
    pub(crate) fn new(name: impl Into<String>, sides: [&'static str; 2]) -> Self {
        Self { name: name.into(), note: String::new(), sides, figures: Vec::new() }
    }

    /// One pair's figure of both sides.
    pub(crate) fn pair(&mut self, what: &'static str, digits: usize, ours: f64, bare: f64) {
        self.tell(what, digits, true, ours, bare);
    }

    /// The same, where a quotient says nothing.
    pub(crate) fn beside(&mut self, what: &'static str, digits: usize, ours: f64, bare: f64) {
        self.tell(what, digits, false, ours, bare);
    }

    fn tell(&mut self, what: &'static str, digits: usize, compared: bool, ours: f64, bare: f64) {
        let at = self.figures.iter().position(|figures| figures.what == what).unwrap_or_else(|| {
            self.figures.push(Figures { what, digits, compared, ours: Vec::new(), bare: Vec::new() });
            self.figures.len() - 1
        });
        self.figures[at].ours.push(ours);
        self.figures[at].bare.push(bare);
    }
}

/// What goes by while something is measured.
pub(crate) struct Meter<'a> {
    server: u32,
    household: &'a [u32],
    began: Instant,
    machine: Machine,
    own: Duration,
    spent: Duration,
}

/// What has gone by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    pub(crate) seconds: f64,
    /// The server process's, seconds.
    pub(crate) server_cpu: f64,
    /// The share of the whole machine's time that none of our processes used, and that was not idle, percent.
    pub(crate) others: f64,
}

impl<'a> Meter<'a> {
    /// From now on. `household` are all processes of this run.
    pub(crate) fn start(server: u32, household: &'a [u32]) -> Self {
        let (machine, own, spent) = (Machine::now(), all(household), cpu::spent(server));
        Self { server, household, began: Instant::now(), machine, own, spent }
    }

    /// Until now.
    pub(crate) fn read(&self) -> Used {
        let seconds = self.began.elapsed().as_secs_f64();
        let server_cpu = (cpu::spent(self.server) - self.spent).as_secs_f64();
        let (now, own) = (Machine::now(), all(self.household) - self.own);
        let whole = now.all - self.machine.all;
        let others = whole.saturating_sub(now.idle - self.machine.idle).saturating_sub(own);
        let others = 100.0 * others.as_secs_f64() / whole.as_secs_f64().max(f64::MIN_POSITIVE);
        Used { seconds, server_cpu, others }
    }
}

fn all(household: &[u32]) -> Duration {
    household.iter().map(|pid| cpu::spent(*pid)).sum()
}

/// What this share of them does not exceed; sorts them. Zero where there are none.
pub(crate) fn quantile<T: Copy + Ord + Default>(of: &mut [T], share: f64) -> T {
    of.sort_unstable();
    of.get((of.len() as f64 * share) as usize).or(of.last()).copied().unwrap_or_default()
}
