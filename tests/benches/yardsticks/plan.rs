//! How long, how often, and what.

use std::time::Duration;

use serde::Serialize;

const USAGE: &str = "usage: yardsticks [validate] [submit] [verify] [--pairs N, at least 6] [--seconds S]";
/// Fewer say nothing about spread.
const PAIRS_MIN: usize = 6;

/// What one run measures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    /// How often each side is measured.
    pub(crate) pairs: usize,
    /// How long each time, seconds.
    pub(crate) seconds: f64,
    /// Callers at once; each has one call open.
    pub(crate) callers: usize,
    /// Connections that they share.
    pub(crate) connections: usize,
    /// Only these yardsticks; all where empty.
    only: Vec<String>,
}

impl Plan {
    /// From the command line. `cargo bench` adds `--bench`.
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut plan = Self { pairs: PAIRS_MIN, seconds: 4.0, callers: 64, connections: 4, only: Vec::new() };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => {}
                "--pairs" => plan.pairs = number::<usize>(arguments.next())?.max(PAIRS_MIN),
                "--seconds" => plan.seconds = number(arguments.next())?,
                "validate" | "submit" | "verify" => plan.only.push(argument),
                _ => return Err(USAGE.to_owned()),
            }
        }
        if plan.seconds > 0.0 && plan.seconds <= 600.0 { Ok(plan) } else { Err(USAGE.to_owned()) }
    }

    /// Whether this yardstick is to be measured.
    pub(crate) fn wants(&self, yardstick: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == yardstick)
    }

    /// How long each side is measured each time.
    pub(crate) fn slice(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

fn number<T: std::str::FromStr>(text: Option<String>) -> Result<T, String> {
    text.and_then(|text| text.parse().ok()).ok_or_else(|| USAGE.to_owned())
}
