//! The command line of `interlock-auth`.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use interlock_kit::{
    command::{self, AuditCommand, StoreCommand, key_value, say},
    config::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE},
};

use crate::{config::Config, offline, offline_internal, offline_owner, opening, serving, store::Auth};

/// Who is calling and what they may do. Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "interlock-auth", version, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done; 64 arguments, settings or a file of secrets, certificates or accounts is wrong; 1 all else."
)]
pub struct Command {
    #[command(flatten)]
    settings: Settings,
    /// Print the role tokens of a first start once on stdout. Nothing else ever prints them.
    #[arg(long)]
    print_first_tokens: bool,
    #[command(subcommand)]
    host: Option<Host>,
}

#[derive(Debug, Args)]
struct Settings {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Sets one key, like `--set public.address=127.0.0.1:7401`. Wins over environment and file.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value, global = true)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum Host {
    /// Role tokens on this host, while the service does not run.
    Auth {
        #[command(subcommand)]
        what: offline::What,
    },
    /// The store, while the service does not run.
    Store {
        #[command(subcommand)]
        what: StoreCommand,
    },
    /// The audit log, while the service does not run.
    Audit {
        #[command(subcommand)]
        what: AuditCommand,
    },
    /// The token that services show each other, while they run.
    InternalToken {
        #[command(subcommand)]
        what: offline_internal::What,
    },
    /// Owners on this host, while the service does not run.
    Owner {
        #[command(subcommand)]
        what: offline_owner::What,
    },
}

/// Parses arguments (the first is the program's name) and runs. Exit codes: 0 as it should, 1 failed, 64 wrong
/// usage or configuration.
pub fn main_with(args: impl Iterator<Item = OsString>) -> ExitCode {
    let command: Command = match command::parse(args) {
        Ok(command) => command,
        Err(code) => return code,
    };
    let Settings { config, set } = command.settings;
    let read = match &command.host {
        Some(_) => Config::of_host_command(config.as_deref(), set),
        None => Config::of_process(config.as_deref(), set),
    };
    match (read, command.host) {
        (Err(mistakes), _) => command::misconfigured("interlock-auth", &mistakes),
        (Ok(config), Some(Host::Auth { what })) => offline::main(&config, &what),
        (Ok(config), Some(Host::Store { what })) => {
            command::store::<Auth>("interlock-auth", &what, &config.chain_key_file, config.common.profile)
        }
        (Ok(config), Some(Host::Audit { what })) => {
            let place = command::Place {
                folder: &config.common.data_dir,
                file: opening::STORE_FILE,
                database: config.store.as_ref(),
                key: &config.chain_key_file,
                profile: config.common.profile,
            };
            command::audit::<Auth>("interlock-auth", "auth", &what, &place)
        }
        (Ok(config), Some(Host::InternalToken { what })) => offline_internal::main(&config, what),
        (Ok(config), Some(Host::Owner { what })) => offline_owner::main(&config, what),
        (Ok(config), None) => serve(Config { print_first_tokens: command.print_first_tokens, ..config }),
    }
}

fn serve(config: Config) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome =
        runtime.map_err(crate::StartError::from).and_then(|runtime| runtime.block_on(serving::serve(config)));
    match outcome {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(error) => {
            say(&format!("interlock-auth: {error}"));
            ExitCode::from(if error.is_configuration() { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}
