//! Resident memory, as Linux counts it: proc(5).

use std::{fs, time::Duration};

/// How often it is looked at until it stays as it is.
const LOOKS_MAX: usize = 20;
const LOOK: Duration = Duration::from_millis(50);

/// What a process has resident now, KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("proc(5)");
    line.trim().trim_end_matches(" kB").parse().expect("proc(5)")
}

/// The same, once it has come to rest; after a second whatever it is.
pub(crate) async fn settled_kib(pid: u32) -> u64 {
    let mut before = resident_kib(pid);
    for _ in 0..LOOKS_MAX {
        tokio::time::sleep(LOOK).await;
        let now = resident_kib(pid);
        if now == before {
            break;
        }
        before = now;
    }
    before
}
