//! `interlock`: the command line for people and scripts.
//!
//! | module | what |
//! |---|---|
//! | [`args`] | the commands and their flags |
//! | [`context`], [`endpoints`] | which services, which credential: files in the user's configuration folder |
//! | [`keep`] | owner sessions, tokens and cookies in 0600 files |
//! | [`failure`] | what went wrong, what to do next, exit codes |
//! | [`output`] | text for people, JSON for programs |
//! | [`command`] | one file per command |
//! | [`world`], [`pair`], [`database`] | a folder in which both services run, their processes, their stores on PostgreSQL: for `up` and `demo` |

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

mod args;
mod command;
mod context;
mod database;
mod door;
mod endpoints;
mod failure;
mod keep;
mod launcher;
mod output;
mod pair;
mod password;
mod project_name;
mod stop;
mod world;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // These three take flags as other programs define them, so clap's tree does not see them.
    match arguments.get(1).and_then(|a| a.to_str()) {
        Some("serve") => return command::serve::run(arguments.into_iter().skip(2)),
        Some("probe") => return runtime(command::probe::run(arguments.into_iter().skip(2).collect())),
        Some(launcher::LAUNCH) => return launcher::launch(&arguments[2..]),
        _ => {}
    }
    // Tokens and passwords go through this process: no core dump has them. Where the kernel will not, go on.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let args = args::Args::parse_from(arguments);
    let format = args.common.output;
    runtime(async move {
        match command::dispatch(args).await {
            Ok(code) => code,
            Err(failure) => failure.report(format),
        }
    })
}

fn runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // A read of standard input may still hang in a blocking thread; it must not hold the exit.
            runtime.shutdown_background();
            code
        }
        Err(error) => failure::Failure::local(format!("cannot start: {error}")).report(output::Format::Text),
    }
}
