//! Programs that end with their parent, however that ends.
//!
//! A child of `kill -9`'d parent lives on, and would work without a lease or hold a store's lock. So we
//! start children through this executable: it asks the kernel for a signal at its parent's death
//! (prctl(2), `PR_SET_PDEATHSIG`; kept over execve) and then becomes the program, with the same process id.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
    process::ExitCode,
};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::process::Command;

use crate::{failure::Failure, output::Format};

/// The hidden first argument.
pub(crate) const LAUNCH: &str = "__launch";
/// The program is not there or cannot be run, as shells say it.
const CANNOT_RUN: u8 = 127;

/// What happens to the program when its parent dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnParentDeath {
    /// It is asked to end, and may drain.
    Terminate,
    /// It is killed.
    Kill,
}

impl OnParentDeath {
    const fn text(self) -> &'static str {
        match self {
            Self::Terminate => "terminate",
            Self::Kill => "kill",
        }
    }

    const fn signal(self) -> Signal {
        match self {
            Self::Terminate => Signal::TERM,
            Self::Kill => Signal::KILL,
        }
    }
}

/// A command that takes the program and its arguments as further arguments. Start it from a thread that
/// lives as long as the process: the kernel's "parent" is the thread.
///
/// # Errors
/// Where this executable cannot be found any more.
pub(crate) fn command(on_death: OnParentDeath) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(LAUNCH).arg(on_death.text()).arg(std::process::id().to_string());
    Ok(command)
}

/// Becomes the program.
pub(crate) fn launch(arguments: &[OsString]) -> ExitCode {
    let [on_death, parent, program, rest @ ..] = arguments else {
        return Failure::usage("nothing to launch").report(Format::Text);
    };
    let kinds = [OnParentDeath::Terminate, OnParentDeath::Kill];
    let Some(on_death) = kinds.into_iter().find(|kind| on_death == OsStr::new(kind.text())) else {
        return Failure::usage("unknown end").report(Format::Text);
    };
    if let Err(error) = set_parent_process_death_signal(Some(on_death.signal())) {
        anstream::eprintln!("interlock: warning: the program may outlive its parent: {error}");
    }
    // The parent may have died before the kernel was asked.
    let lives = getppid().is_some_and(|pid| OsStr::new(&pid.as_raw_nonzero().to_string()) == parent);
    if !lives {
        return ExitCode::FAILURE;
    }
    let error = std::process::Command::new(program).args(rest).exec();
    anstream::eprintln!("interlock: cannot run {}: {error}", program.to_string_lossy());
    ExitCode::from(CANNOT_RUN)
}
