//! The command line of `interlock-gateway`.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::Parser;
use interlock_kit::{
    config::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE},
    telemetry,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Config},
    listeners::Listeners,
    server::{self, RunError},
};

/// What a session is bound to and what is running.
#[derive(Debug, Parser)]
#[command(name = "interlock-gateway", version)]
struct Command {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets one key, like `--set public.address=127.0.0.1:7402`. Wins over environment and file.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Checks the configuration and ends.
    #[arg(long)]
    check_config: bool,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

/// Parses arguments (the first is the program's name) and runs. Exit codes: 0 as it should, 1 failed, 64 wrong
/// usage or configuration.
pub fn main_with(args: impl Iterator<Item = OsString>) -> ExitCode {
    let command = match Command::try_parse_from(args) {
        Ok(command) => command,
        Err(said) => {
            let shown = said.print().is_ok();
            return ExitCode::from(if said.use_stderr() || !shown { EXIT_USAGE } else { EXIT_OK });
        }
    };
    let config = match config::load(command.config.as_deref(), command.set) {
        Ok(config) => config,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| say(&format!("interlock-gateway: {mistake}")));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if command.check_config {
        say("interlock-gateway: the configuration is good");
        return ExitCode::from(EXIT_OK);
    }
    match serve(config) {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(error) => {
            say(&format!("interlock-gateway: {error}"));
            ExitCode::from(if error.is_configuration() { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}

fn serve(config: Config) -> Result<(), RunError> {
    telemetry::init_logs(config.common.log_format, &config.common.log_filter)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        on_signal(shutdown.clone())?;
        let listeners = Listeners::bind(&config).await?;
        server::run(config, listeners, shutdown).await
    })
}

/// SIGTERM and SIGINT begin the shutdown.
fn on_signal(shutdown: CancellationToken) -> std::io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "shutting down");
        shutdown.cancel();
    });
    Ok(())
}

/// One line on stderr, for what must be said where no log goes.
fn say(line: &str) {
    use std::io::Write as _;
    // Who closed stderr wants no answer.
    let _ = writeln!(std::io::stderr(), "{line}");
}
