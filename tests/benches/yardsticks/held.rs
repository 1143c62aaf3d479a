//! A program that is held to a share of one core, so that it is what a run waits for and not the machine: a control
//! group of its own with a quota of CPU (Linux: sched-bwc; cgroup v1's `cpu`, or cgroup v2).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const ROOT: &str = "/sys/fs/cgroup";
/// The quota counts anew so often. Short, so that no call waits long for the next one. Microseconds.
const PERIOD_US: u64 = 10_000;

/// Until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    pid: u32,
    group: PathBuf,
    before: PathBuf,
}

impl Held {
    /// Holds a process to `percent` of one core.
    ///
    /// # Errors
    /// Where this machine gives us no control group: that takes root, and the `cpu` controller.
    pub(crate) fn to(percent: u64, pid: u32) -> io::Result<Self> {
        let one = Path::new(ROOT).join("cpu");
        let quota = PERIOD_US * percent / 100;
        let (root, limits) = if one.is_dir() {
            let limits =
                [("cpu.cfs_period_us", PERIOD_US.to_string()), ("cpu.cfs_quota_us", quota.to_string())];
            (one, limits.to_vec())
        } else {
            fs::write(Path::new(ROOT).join("cgroup.subtree_control"), "+cpu")?;
            (PathBuf::from(ROOT), vec![("cpu.max", format!("{quota} {PERIOD_US}"))])
        };
        let before = group_of(pid, &root)?;
        let group = root.join(format!("interlock-bench-{pid}"));
        fs::create_dir(&group)?;
        let held = Self { pid, group, before };
        for (name, value) in limits {
            fs::write(held.group.join(name), value)?;
        }
        fs::write(held.group.join("cgroup.procs"), pid.to_string())?;
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A process that has ended is in no group.
        let _ = fs::write(self.before.join("cgroup.procs"), self.pid.to_string());
        if let Err(error) = fs::remove_dir(&self.group) {
            eprintln!("{} is left: {error}", self.group.display());
        }
    }
}

/// Where a process is now: `N:cpu:/path` (v1) or `0::/path` (v2).
fn group_of(pid: u32, root: &Path) -> io::Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let of = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let is = if root == Path::new(ROOT) {
            controllers.is_empty()
        } else {
            controllers.split(',').any(|c| c == "cpu")
        };
        is.then(|| root.join(path.trim_start_matches('/')))
    };
    text.lines()
        .find_map(of)
        .ok_or_else(|| io::Error::other("the process is in no group of the cpu controller"))
}
