//! Where and when a run was made, and of what.

use std::{fs, process::Command};

use interlock_kit::clock::Clock;
use serde::Serialize;

/// What a figure is worth nothing without.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Circumstances {
    /// RFC 3339, UTC.
    pub(crate) date: String,
    /// The commit; with `+changes` where the checkout is not it.
    pub(crate) commit: String,
    /// The processor's model.
    pub(crate) processor: String,
    /// How many of them.
    pub(crate) processors: usize,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// How this was compiled.
    pub(crate) build: &'static str,
}

impl Circumstances {
    /// Of this run.
    pub(crate) fn now() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            date: Clock::system().now().to_string(),
            commit: commit(),
            processor: model.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: kernel.trim().to_owned(),
            build: if cfg!(debug_assertions) { "with debug assertions: no figures" } else { "optimised" },
        }
    }
}

fn commit() -> String {
    let changed = git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty());
    let head = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    if changed { format!("{head}+changes") } else { head }
}

fn git(arguments: &[&str]) -> Option<String> {
    let answer =
        Command::new("git").args(arguments).output().ok().filter(|answer| answer.status.success())?;
    Some(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
}
