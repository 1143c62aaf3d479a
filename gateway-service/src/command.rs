//! The command line of `interlock-gateway`.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use interlock_kit::{
    command::{self, AuditCommand, StoreCommand, key_value, say},
    config::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE},
    process, telemetry,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Config},
    listeners::Listeners,
    server::{self, RunError},
    store::Gateway,
};

/// What a session is bound to and what is running.
#[derive(Debug, Parser)]
#[command(name = "interlock-gateway", version, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done; 64 arguments, settings or a file of secrets, certificates or accounts is wrong; 1 all else."
)]
struct Command {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Sets one key, like `--set public.address=127.0.0.1:7402`. Wins over environment and file.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value, global = true)]
    set: Vec<(String, String)>,
    /// Checks the configuration and ends.
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    host: Option<Host>,
}

#[derive(Debug, Subcommand)]
enum Host {
    /// The store, while no gateway runs on it.
    Store {
        #[command(subcommand)]
        what: StoreCommand,
    },
    /// The audit log, while no gateway runs on its store.
    Audit {
        #[command(subcommand)]
        what: AuditCommand,
    },
}

/// Parses arguments (the first is the program's name) and runs. Exit codes: 0 as it should, 1 failed, 64 wrong
/// usage or configuration.
pub fn main_with(args: impl Iterator<Item = OsString>) -> ExitCode {
    let command: Command = match command::parse(args) {
        Ok(command) => command,
        Err(code) => return code,
    };
    let config = match config::load(command.config.as_deref(), command.set) {
        Ok(config) => config,
        Err(mistakes) => return command::misconfigured("interlock-gateway", &mistakes),
    };
    let (key, profile) = (&config.chain_key_file, config.common.profile);
    match &command.host {
        Some(Host::Store { what }) => {
            return command::store::<Gateway>("interlock-gateway", what, key, profile);
        }
        Some(Host::Audit { what }) => {
            let place = command::Place {
                folder: &config.common.data_dir,
                file: server::STORE_FILE,
                database: config.store.as_ref(),
                key,
                profile,
            };
            return command::audit::<Gateway>("interlock-gateway", "gateway", what, &place);
        }
        None => {}
    }
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
    process::keep_to_itself();
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
