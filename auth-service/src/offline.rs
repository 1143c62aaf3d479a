//! Commands on the host, while the service does not run: where the role tokens are, what they are, and
//! replacing both when the admin token is lost.
//!
//! They take the store's lock, as the service does; so neither runs beside the other.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::Subcommand;
use interlock_kit::{
    clock::Clock,
    command::say,
    config::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE},
    error::Error,
    internal_token::rotation::RotationError,
    secret_file::SecretFileError,
    store::postgres,
};
use interlock_proto::credential::Credential;
use thiserror::Error as ThisError;
use zeroize::Zeroizing;

use crate::{
    accounts_apply::ApplyError,
    config::Config,
    first_start::{self, TokensError},
    ids::OwnerId,
    opening::{self, Database, OpeningError},
    owner_session::RevokeAll,
    parts::host_call,
    role_token::{Generation, Reveal, Status},
    rotation,
    store::Shell,
    token_file::{TokenFile, TokenFileError, Tokens},
};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Print where the recoverable copy of the role tokens is.
    Path,
    /// Print the role tokens, masked.
    Status {
        /// Print the tokens themselves. Leaves an audit row.
        #[arg(long)]
        reveal: bool,
    },
    /// End every owner session of every owner: everybody signs in again. Elevations end with them.
    RevokeAll {
        /// Do it. Without this nothing is changed, and the command fails.
        #[arg(long)]
        yes: bool,
    },
    /// Replace both role tokens and print the new ones. Owners, sessions and the audit log are kept.
    Reset {
        /// Do it. Without this nothing is changed, and the command fails.
        #[arg(long)]
        yes: bool,
    },
}

/// Why a command was not done.
#[derive(Debug, ThisError)]
pub(crate) enum Failed {
    #[error(transparent)]
    Opening(#[from] OpeningError),
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error(transparent)]
    File(#[from] TokenFileError),
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    #[error(transparent)]
    Accounts(#[from] ApplyError),
    #[error("{0}: {1}")]
    Owner(OwnerId, Box<Error>),
    #[error("{path}: must be UTF-8", path = .0.display())]
    NotText(PathBuf),
    #[error("no terminal to ask for the password on; use --password-file FILE or --password-stdin")]
    NoPassword,
    #[error("the two passwords differ; nothing was changed")]
    PasswordsDiffer,
    #[error("{0}")]
    Store(#[from] Error),
    #[error("{0}")]
    System(#[from] std::io::Error),
    #[error("it was done, and stdout cannot be written: {0}; `auth path` says where the tokens are")]
    Output(std::io::Error),
    #[error(
        "this replaces both role tokens: every client needs its new one; repeat with --yes. Nothing was changed"
    )]
    NotConfirmed,
    #[error(
        "this ends every owner session: everybody signs in again; repeat with --yes. Nothing was changed"
    )]
    RevokeNotConfirmed,
    #[error("{0}: no such store; start the service once")]
    NoStore(String),
    #[error(transparent)]
    InternalToken(Box<RotationError>),
    #[error("internal_token_file: must be set: the file of which the token is rotated")]
    NoInternalToken,
}

impl Failed {
    fn is_configuration(&self) -> bool {
        match self {
            Self::Opening(error) => error.is_configuration(),
            Self::Tokens(error) => error.is_configuration(),
            Self::File(error) => error.is_configuration(),
            Self::SecretFile(error) => error.is_configuration(),
            Self::Accounts(_) | Self::NotText(_) | Self::NoInternalToken => true,
            Self::Owner(..)
            | Self::NoPassword
            | Self::PasswordsDiffer
            | Self::Store(_)
            | Self::System(_)
            | Self::Output(_)
            | Self::NotConfirmed
            | Self::RevokeNotConfirmed
            | Self::NoStore(_)
            | Self::InternalToken(_) => false,
        }
    }
}

/// Runs a command; the exit code says whether it was done.
#[must_use]
pub fn main(config: &Config, what: &What) -> ExitCode {
    ended(run(config, what))
}

/// Prints what a command says, or why it was not done.
pub(crate) fn ended(outcome: Result<Zeroizing<String>, Failed>) -> ExitCode {
    let shown = |text: Zeroizing<String>| {
        let mut out = std::io::stdout();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failed::Output)
    };
    match outcome.and_then(shown) {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(error) => {
            say(&format!("interlock-auth: {error}"));
            ExitCode::from(if error.is_configuration() { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}

/// The lines for stdout.
fn run(config: &Config, what: &What) -> Result<Zeroizing<String>, Failed> {
    let copy = TokenFile::of(&config.common.data_dir, config.common.profile);
    match what {
        What::Path => Ok(Zeroizing::new(format!("{}\n", copy.path().display()))),
        What::Reset { yes: false } => Err(Failed::NotConfirmed),
        What::RevokeAll { yes: false } => Err(Failed::RevokeNotConfirmed),
        What::RevokeAll { yes: true } => with_store(config, revoke_all),
        // A copy that is refused is refused before the store is opened, which would begin a chain of audit rows.
        What::Reset { yes: true } => match copy.read() {
            // A damaged one is replaced, too: that is what the command is for.
            Err(TokenFileError::File(error)) => Err(TokenFileError::from(error).into()),
            Ok(_) | Err(TokenFileError::Corrupt { .. }) => with_store(config, async |shell| {
                let tokens = first_start::reset(&shell, &copy).await?;
                Ok(first_start::shown(&tokens, &copy))
            }),
        },
        What::Status { reveal } => {
            let kept = copy.read()?;
            status_of(config, kept.as_ref(), &copy, *reveal)
        }
    }
}

/// One row of the audit and one of the revocation log, however many there are: so verifiers hear of it before they admit
/// anything of a service that starts again.
async fn revoke_all(shell: Shell) -> Result<Zeroizing<String>, Failed> {
    shell.run(&host_call("owner_session.revoke"), RevokeAll { owner: None, issued_before: None }).await?;
    Ok(Zeroizing::new("every owner session has ended\n".to_owned()))
}

fn status_of(
    config: &Config,
    kept: Option<&Tokens>,
    copy: &TokenFile,
    reveal: bool,
) -> Result<Zeroizing<String>, Failed> {
    with_store(config, async |shell| {
        let call = host_call("role_token.status");
        let stored = if reveal { shell.run(&call, Reveal).await? } else { shell.ask(&call, Status).await? };
        Ok(status(&stored, kept, copy, reveal))
    })
}

pub(crate) fn with_store(
    config: &Config,
    work: impl AsyncFnOnce(Shell) -> Result<Zeroizing<String>, Failed>,
) -> Result<Zeroizing<String>, Failed> {
    let folder = &config.common.data_dir;
    match &config.store {
        Some(target) if !postgres::is_begun(target).map_err(OpeningError::from)? => {
            return Err(Failed::NoStore(target.to_string()));
        }
        Some(_) => {}
        None => {
            let place = folder.join(opening::STORE_FILE);
            if !place.exists() {
                return Err(Failed::NoStore(place.display().to_string()));
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Alone, whatever the services are told: none of them runs meanwhile.
        let database =
            config.store.as_ref().map(|target| Database { target, sharing: postgres::Sharing::Alone });
        let profile = config.common.profile;
        let opened = opening::open(folder, &config.chain_key_file, database, profile, Clock::system())?;
        let done = work(Shell::new(opened.store.clone())).await;
        opened.store.close().await;
        done
    })
}

fn status(stored: &[Generation], kept: Option<&Tokens>, copy: &TokenFile, reveal: bool) -> Zeroizing<String> {
    let mut lines = Zeroizing::new(String::with_capacity(16_384));
    for Generation { token, uses } in stored {
        let known = kept.and_then(|kept| kept.token_of(token)).filter(|_| reveal);
        let shown = known.map_or(token.masked.as_str(), Credential::expose);
        let until = token.valid_until.map(|until| format!(" until {until}")).unwrap_or_default();
        let next = if token.candidate { format!(" next since {}", token.created_at) } else { String::new() };
        let (role, generation) = (token.role.text(), token.generation);
        lines.push_str(&format!("{role} generation {generation} {shown}{until}{next}\n"));
        for used in uses {
            let from = if used.source.is_empty() { "" } else { " from " };
            lines.push_str(&format!("  used {} by {}{from}{}\n", used.last_at, used.service, used.source));
        }
    }
    let recoverable = kept.is_some_and(|kept| kept.has_all(&rotation::present(stored)));
    lines.push_str(&format!("recoverable {recoverable}\npath {}\n", copy.path().display()));
    lines
}
