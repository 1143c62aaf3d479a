//! One file per command.

use std::process::ExitCode;

use crate::{
    args::{Args, Command, Common},
    context::Caller,
    failure::Failure,
};

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod file;
pub(crate) mod job;
pub(crate) mod member;
pub(crate) mod owner;
pub(crate) mod owner_session;
pub(crate) mod probe;
pub(crate) mod project;
pub(crate) mod project_token;
pub(crate) mod role_token;
pub(crate) mod root;
pub(crate) mod serve;
pub(crate) mod session;
pub(crate) mod sign_in;
pub(crate) mod up;
pub(crate) mod use_project;
pub(crate) mod verify;
pub(crate) mod whoami;
pub(crate) mod worker;

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub(crate) async fn dispatch(args: Args) -> Result<ExitCode, Failure> {
    let common = args.common;
    match args.command {
        Command::Up(up) => return up::run(up, &common).await,
        Command::Demo(demo) => return demo::run(demo, &common).await,
        Command::Login(login) => sign_in::login(&login, &common).await?,
        Command::Logout => sign_in::logout(&common).await?,
        Command::Use(asked) => use_project::run(asked, &common).await?,
        Command::Whoami => return whoami::run(&common).await,
        Command::Status => sign_in::status(&common).await?,
        Command::Owner(owner) => owner::run(owner, &common).await?,
        Command::Root(root) => root::run(root, &common).await?,
        Command::Project(project) => project::run(project, &common).await?,
        Command::Agent(agent) => agent::run(agent, &common).await?,
        Command::Session(session) => session::run(session, &common).await?,
        Command::Job(job) => return job::run(job, &common).await,
        Command::File(file) => file::run(file, &common).await?,
        Command::Worker(worker) => worker::run(worker, &common).await?,
        Command::Auth(auth) => role_token::run(auth, &common).await?,
        Command::Verify(verify) => return verify::run(&verify, &common).await,
        Command::Doctor(doctor) => return doctor::run(&doctor, &common).await,
        Command::Audit(audit) => return audit::run(audit, &common).await,
        // Taken before clap looks: see `main`.
        Command::Probe => return Err(Failure::usage("interlock probe -addr HOST:PORT")),
    }
    Ok(ExitCode::SUCCESS)
}

/// The caller, and a complaint before any call where there is no credential.
fn signed_in(common: &Common) -> Result<Caller, Failure> {
    let caller = Caller::open(common)?;
    if caller.is_signed_in(common)? { Ok(caller) } else { Err(Failure::not_signed_in()) }
}

/// `5s`, `250ms`, `2m`, `1h`.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a whole number and a unit, as in 30s".to_owned())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("the unit is one of ms, s, m, h".to_owned()),
    };
    let millis = number.checked_mul(millis).ok_or_else(|| "too long".to_owned())?;
    Ok(std::time::Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Ok(std::time::Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(std::time::Duration::from_secs(120)));
        for bad in ["", "5", "s", "1d", "-1s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
