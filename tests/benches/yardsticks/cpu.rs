//! Processor time, as Linux counts it: proc(5).

use std::{fs, time::Duration};

/// `USER_HZ`: the same on every architecture that we run on.
const TICKS_PER_S: u64 = 100;

/// What a process has used so far, all its threads, user and system.
pub(crate) fn spent(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    // The name in parentheses may hold anything; what follows it may not.
    let (_, fields) = text.rsplit_once(')').expect("proc(5)");
    let field = |at: usize| fields.split_whitespace().nth(at).and_then(|f| f.parse::<u64>().ok());
    let (user, system) = (field(11).expect("utime"), field(12).expect("stime"));
    ticks(user + system)
}

/// The whole machine so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// All processors together, idle or not.
    pub(crate) all: Duration,
    /// Of that, idle.
    pub(crate) idle: Duration,
}

impl Machine {
    /// Now.
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").expect("proc(5)");
        let first = text.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; guests are in user already.
        let fields: Vec<u64> =
            first.split_whitespace().skip(1).take(8).filter_map(|f| f.parse().ok()).collect();
        let idle = fields.get(3).copied().unwrap_or(0) + fields.get(4).copied().unwrap_or(0);
        Self { all: ticks(fields.iter().sum()), idle: ticks(idle) }
    }
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * (1_000 / TICKS_PER_S))
}
