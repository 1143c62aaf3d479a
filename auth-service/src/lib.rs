//! Who is calling and what they may do.
//!
//! | file | what |
//! |---|---|
//! | [`barrier`] | **the revocation barrier**: leases of verifiers, acknowledgements, waits |
//! | [`role_token`], [`owner`], [`owner_session`], [`elevation`], [`project`], [`project_token`], [`revocation`], [`trust`], [`audit_log`], [`sweep`] | one noun a file: type, states, verbs |
//! | [`policy`] | who may do what: pure; permits are made here only |
//! | [`store`] | the door to the store, and its engines |
//! | [`caller`], [`ids`], [`limits`], [`password`], [`accounts`] | what nouns are made of |
//! | [`grpc`] | wire to verb and back |
//! | [`replica`], [`replicas`], [`vouch`] | programs that share the store: a row each; the barrier among them; what they may promise |
//! | [`admit`], [`verdicts`] | gate 1: from a credential to a caller; what is known of credentials |
//! | [`sign_in`], [`owner_edit`], [`root`], [`rotation`], [`token_issue`], [`guesses`], [`parts`] | what stands around verbs: hashing, sealing, the copy, the barrier |
//! | [`token_file`], [`first_start`], [`offline`], [`offline_owner`], [`offline_internal`] | role tokens, owners, the internal token, on this host |
//! | [`accounts_apply`], [`sweeper`], [`opening`] | accounts sources; rounds; the data directory |
//! | [`config`], [`command`], [`listeners`], `certificates`, [`serving`] | settings; the command line; sockets; TLS and its reloads; the wiring |
//!
//! [`run`] wires everything: the whole service behind `run(config, listeners, shutdown)`.

use std::{ffi::OsString, process::ExitCode};

use tokio_util::sync::CancellationToken;

pub mod accounts;
pub mod accounts_apply;
pub mod admit;
pub mod audit_log;
pub mod barrier;
pub mod caller;
pub mod census;
mod certificates;
pub mod command;
pub mod config;
pub mod elevation;
pub mod first_start;
pub mod grpc;
pub mod guesses;
pub mod ids;
pub mod limits;
pub mod listeners;
pub mod offline;
pub mod offline_internal;
pub mod offline_owner;
pub mod opening;
pub mod owner;
pub mod owner_edit;
pub mod owner_session;
pub mod parts;
pub mod password;
pub mod policy;
pub mod project;
pub mod project_token;
pub mod replica;
pub mod replicas;
pub mod revocation;
pub mod role_token;
pub mod root;
pub mod rotation;
pub mod serving;
pub mod sign_in;
pub mod store;
pub mod sweep;
pub mod sweeper;
pub mod token_file;
pub mod token_issue;
pub mod trust;
pub mod verdicts;
pub mod vouch;

pub use crate::{config::Config, listeners::Listeners, serving::StartError};

/// The program: parses arguments (the first is its name), serves or runs a host command, and says how it
/// ended.
pub fn main_with(args: impl Iterator<Item = OsString>) -> ExitCode {
    command::main_with(args)
}

/// Serves on bound listeners until `shutdown`, then drains.
///
/// # Errors
/// [`StartError`]; nothing was served then.
pub async fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    serving::run(config, listeners, shutdown).await
}
