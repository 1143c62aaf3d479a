//! What a process that holds secrets asks of the kernel.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Keeps this process's memory and environment to itself: no core dump, wherever the system sends those, and
/// `/proc/PID/environ`, `mem` and the like for nobody but root (prctl(2), `PR_SET_DUMPABLE`; core(5)). Passwords
/// of accounts may stand in the environment, keys and tokens in memory. Where the kernel will not, a line in the
/// log says so.
pub fn keep_to_itself() {
    let asked = || -> io::Result<()> {
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        Ok(())
    };
    if let Err(error) = asked() {
        tracing::warn!(%error, "a crash of this process may leave its memory in a file");
    }
}
