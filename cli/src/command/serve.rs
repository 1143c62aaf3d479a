//! `interlock serve auth|gateway …`: the same programs as `interlock-auth` and `interlock-gateway`, so
//! that one build gives all that `up` and `demo` run.

use std::{ffi::OsString, iter, process::ExitCode};

use crate::failure::USAGE;

/// Runs the service named first with the arguments after it.
pub(crate) fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let service = arguments.next();
    match service.as_deref().and_then(|s| s.to_str()) {
        Some("auth") => interlock_auth::main_with(iter::once("interlock-auth".into()).chain(arguments)),
        Some("gateway") => {
            interlock_gateway::main_with(iter::once("interlock-gateway".into()).chain(arguments))
        }
        _ => {
            anstream::eprintln!("interlock: serve auth|gateway [ARGUMENTS OF THAT SERVICE]");
            ExitCode::from(USAGE)
        }
    }
}
