//! The program `interlock-auth`.

use std::process::ExitCode;

fn main() -> ExitCode {
    interlock_auth::main_with(std::env::args_os())
}
