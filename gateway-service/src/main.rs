//! The program `interlock-gateway`.

use std::process::ExitCode;

fn main() -> ExitCode {
    interlock_gateway::main_with(std::env::args_os())
}
