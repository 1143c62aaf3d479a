//! How long, how often, and what.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

/// All yardsticks, in the order they are measured.
pub(crate) const YARDSTICKS: [&str; 17] = [
    "validate", "refresh", "read", "attach", "waiting", "job", "submit", "verify", "peers", "postgres",
    "burst", "paced", "stuck", "idle", "storm", "joins", "barrier",
];
/// Those that are measured where they are named, and with `--all`: the usual run is to end within five minutes.
const LONG: [&str; 1] = ["postgres"];
/// Fewer say nothing about spread.
const PAIRS_MIN: usize = 6;
/// More would need more file descriptors than is usual.
const CLIENTS_MAX: usize = 4_000;

/// What one run measures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    /// How often each side is measured.
    pub(crate) pairs: usize,
    /// How long each time, seconds.
    pub(crate) seconds: f64,
    /// Callers at once, unless the yardstick says otherwise; each has one call open.
    pub(crate) callers: usize,
    /// Connections that they share.
    pub(crate) connections: usize,
    /// Clients of event streams, each on a connection of its own.
    pub(crate) clients: usize,
    /// Also what takes longer than the usual run.
    pub(crate) all: bool,
    /// An earlier run's JSON to compare with.
    pub(crate) against: Option<PathBuf>,
    /// Only these yardsticks; all where empty.
    only: Vec<String>,
}

impl Plan {
    /// From the command line. `cargo bench` adds `--bench`.
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut plan = Self {
            pairs: PAIRS_MIN,
            seconds: 1.0,
            callers: 64,
            connections: 4,
            clients: 1_000,
            all: false,
            against: None,
            only: Vec::new(),
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => {}
                "--pairs" => plan.pairs = number::<usize>(arguments.next())?.max(PAIRS_MIN),
                "--seconds" => plan.seconds = number(arguments.next())?,
                "--clients" => plan.clients = number::<usize>(arguments.next())?.clamp(1, CLIENTS_MAX),
                "--all" => plan.all = true,
                "--against" => plan.against = Some(arguments.next().ok_or_else(usage)?.into()),
                name if YARDSTICKS.contains(&name) => plan.only.push(argument),
                _ => return Err(usage()),
            }
        }
        if plan.seconds > 0.0 && plan.seconds <= 600.0 { Ok(plan) } else { Err(usage()) }
    }

    /// Whether this yardstick is to be measured.
    pub(crate) fn wants(&self, yardstick: &str) -> bool {
        debug_assert!(YARDSTICKS.contains(&yardstick), "{yardstick} is not listed");
        let usual = self.only.is_empty() && (self.all || !LONG.contains(&yardstick));
        usual || self.only.iter().any(|only| only == yardstick)
    }

    /// The same with so many callers.
    pub(crate) fn of(&self, callers: usize) -> Self {
        Self { callers, connections: self.connections.min(callers), ..self.clone() }
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
    let names = YARDSTICKS.map(|name| format!("[{name}]")).join(" ");
    let numbers = format!("[--pairs N, at least {PAIRS_MIN}] [--seconds S] [--clients N]");
    format!("usage: yardsticks {names} {numbers} [--all] [--against FILE]")
}
