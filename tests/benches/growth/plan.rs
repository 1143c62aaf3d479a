//! How large, how long, how often.

use std::time::Duration;

use serde::Serialize;

/// What the others are compared with.
pub(crate) const SMALL: u64 = 1_000;
/// The parts of a run.
const PARTS: [&str; 4] = ["sizes", "postgres", "logs", "sweeps"];
/// Fewer say nothing about spread.
const PAIRS_MIN: usize = 6;

/// What one run measures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    /// Rows of each kind, beside [`SMALL`].
    pub(crate) sizes: Vec<u64>,
    /// How often each side is measured.
    pub(crate) pairs: usize,
    /// How long each time, seconds.
    pub(crate) seconds: f64,
    /// Callers at once; each has one call open.
    pub(crate) callers: usize,
    /// Connections that they share.
    pub(crate) connections: usize,
    /// Whether all sizes and both engines were asked for.
    all: bool,
    /// Rows that a sweep finds.
    pub(crate) due: u64,
    /// Only these parts; all where empty.
    only: Vec<String>,
}

impl Plan {
    /// From the command line. `cargo bench` adds `--bench`.
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut plan = Self {
            sizes: vec![100_000],
            pairs: PAIRS_MIN,
            seconds: 0.5,
            callers: 64,
            connections: 4,
            all: false,
            due: 100_000,
            only: Vec::new(),
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => {}
                "--all" => (plan.sizes, plan.all) = (vec![100_000, 1_000_000], true),
                "--rows" => plan.sizes = vec![number::<u64>(arguments.next())?.max(SMALL)],
                "--pairs" => plan.pairs = number::<usize>(arguments.next())?.max(PAIRS_MIN),
                "--seconds" => plan.seconds = number(arguments.next())?,
                name if PARTS.contains(&name) => plan.only.push(argument),
                _ => return Err(usage()),
            }
        }
        if plan.seconds > 0.0 && plan.seconds <= 60.0 { Ok(plan) } else { Err(usage()) }
    }

    /// Whether this part is to be measured: those that are named; where none is, all of them, but that of PostgreSQL
    /// only with `--all`.
    pub(crate) fn wants(&self, part: &str) -> bool {
        let usual = self.only.is_empty() && (self.all || part != "postgres");
        usual || self.only.iter().any(|only| only == part)
    }

    /// How long each side is measured each time.
    pub(crate) fn slice(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

fn number<T: std::str::FromStr>(text: Option<String>) -> Result<T, String> {
    text.and_then(|text| text.parse().ok()).ok_or_else(usage)
}

fn usage() -> String {
    let parts = PARTS.map(|name| format!("[{name}]")).join(" ");
    format!(
        "usage: growth {parts} [--all] [--rows N, at least {SMALL}] [--pairs N, at least {PAIRS_MIN}] [--seconds S]"
    )
}
