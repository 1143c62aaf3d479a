//! The commands and their flags.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::{command, output::Format};

/// Sign-in, sessions and safe hand-over for platforms that run agents.
#[derive(Debug, Parser)]
#[command(name = "interlock", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 no project file (whoami), 4 not signed in, 5 denied, 6 busy, 7 unavailable.\n\
    `interlock up` passes on the exit code of a service that does not start: 64 where its configuration is wrong.\n\
    `interlock probe` has the flags and exit codes of grpc_health_probe."
)]
pub(crate) struct Args {
    /// Flags of every command.
    #[command(flatten)]
    pub(crate) common: Common,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Common {
    /// `text` for people, `json` (or `jsonl`) for programs: one document, or one line for each event.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
    /// The context file; `interlock up` writes the default one.
    #[arg(long, global = true, env = "INTERLOCK_CONTEXT", value_name = "FILE")]
    pub(crate) context: Option<PathBuf>,
    /// Act on the token in this file instead of the stored sign-in.
    #[arg(long, global = true, env = "INTERLOCK_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The project that the call is for, by name or id, whatever the folder is bound to.
    #[arg(long, global = true, env = "INTERLOCK_PROJECT", value_name = "PROJECT")]
    pub(crate) project: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run both services in a folder of their own, with everything a first session needs.
    Up(command::up::Up),
    /// Show in under a minute that the guarantees hold, on real processes.
    Demo(command::demo::Demo),
    /// Sign in.
    Login(command::sign_in::Login),
    /// Sign out: the stored session is dead everywhere when this returns.
    Logout,
    /// Bind this folder to a project: calls from here and below are for it.
    Use(command::use_project::Use),
    /// Say who the credential stands for, and which project this folder is for.
    Whoami,
    /// Say whether sign-in is enabled, who is signed in, and whether root is unlocked.
    Status,
    /// Owners: who can sign in, and as what.
    #[command(subcommand)]
    Owner(command::owner::Owner),
    /// Unlock root for the stored sign-in, for a short while.
    #[command(subcommand)]
    Root(command::root::Root),
    /// Projects and their members.
    #[command(subcommand)]
    Project(command::project::Project),
    /// The registry of agents.
    #[command(subcommand)]
    Agent(command::agent::Agent),
    /// Sessions and their bindings.
    #[command(subcommand)]
    Session(command::session::Session),
    /// Jobs of a session.
    #[command(subcommand)]
    Job(command::job::Job),
    /// Files of a session: what its jobs read, and what they leave.
    #[command(subcommand)]
    File(command::file::File),
    /// Run a program for each job of an agent.
    #[command(subcommand)]
    Worker(command::worker::Worker),
    /// Role tokens, and owner sessions.
    #[command(subcommand)]
    Auth(command::role_token::Auth),
    /// Show by four calls that the doors are shut.
    Verify(command::verify::Verify),
    /// Look whether everything is as it must be, and say what to do where it is not.
    Doctor(command::doctor::Doctor),
    /// Audit logs: what was done and what was refused; administrators only.
    #[command(subcommand)]
    Audit(command::audit::Audit),
    /// Ask a server's health, with the flags and exit codes of grpc_health_probe.
    Probe,
}
