//! Applies accounts sources: at each start, and when one of their files changes.
//!
//! `accounts.rs` reads records and says what makes a change; the verbs of `owner.rs` write it. Between them
//! stands what neither can do: files, and the hasher.

use std::path::{Path, PathBuf};

use interlock_kit::{
    config::Profile,
    error::Error,
    hasher::{HashFormatError, Hasher, Priority},
    random,
    secret_file::{self, SecretFileError},
};
use thiserror::Error as ThisError;
use zeroize::Zeroizing;

use crate::{
    accounts::{self, Account, AccountsError, Finding, Secret, Source},
    config::{Config, SecretText},
    limits,
    owner::{Applied, ApplyAccount, ReadApplied},
    parts::host_call,
    password::PasswordHash,
    store::Shell,
};

const ACTION: &str = "accounts.apply";

/// Where accounts come from.
#[derive(Clone, Debug)]
pub struct Sources {
    accounts_json: Option<SecretText>,
    owners_json: Option<SecretText>,
    accounts_json_file: Option<PathBuf>,
    owners_file: Option<PathBuf>,
    profile: Profile,
}

/// Why accounts could not be applied. Says where, never what. Records before the fault may be applied.
#[derive(Debug, ThisError)]
pub enum ApplyError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A source is not what it should be.
    #[error("{from}: {why}")]
    Source {
        /// The variable or the file.
        from: String,
        /// What is wrong.
        why: AccountsError,
    },
    /// Not UTF-8.
    #[error("{0}: must be UTF-8")]
    Text(String),
    /// A weak password in profile `hardened`.
    #[error("{0}; the profile is hardened")]
    Weak(Finding),
    /// A hash that we made is not one that we read.
    #[error("a hash could not be made: {0}")]
    Hash(#[from] HashFormatError),
    /// The store or the hasher refused.
    #[error("{0}")]
    Refused(#[from] Error),
}

/// What applying did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Owners that are new.
    pub created: usize,
    /// Owners that were changed.
    pub changed: usize,
}

impl Sources {
    /// Those of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            accounts_json: config.accounts_json.clone(),
            owners_json: config.owners_json.clone(),
            accounts_json_file: config.accounts_json_file.clone(),
            owners_file: config.owners_file.clone(),
            profile: config.common.profile,
        }
    }

    /// The files among them: what a watcher watches.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        [&self.accounts_json_file, &self.owners_file].into_iter().flatten().cloned()
    }

    /// Reads them all; the environment wins over the file, owner by owner.
    ///
    /// # Errors
    /// [`ApplyError`] for a source that cannot be used; none is used then.
    pub fn read(&self) -> Result<Vec<Account>, ApplyError> {
        let variable = |name: &str, text: &Option<SecretText>| match text {
            Some(SecretText(text)) => parsed(Source::Environment, name, text),
            None => Ok(Vec::new()),
        };
        let accounts = variable("INTERLOCK_ACCOUNTS_JSON", &self.accounts_json)?;
        let owners = variable("INTERLOCK_OWNERS_JSON", &self.owners_json)?;
        // A file that a variable names in place of its own text is that variable's.
        let named = self.file(Source::Environment, self.accounts_json_file.as_deref())?;
        let file = self.file(Source::File, self.owners_file.as_deref())?;
        let environment = accounts::merge(accounts, accounts::merge(named, owners));
        let all = accounts::merge(environment, file);
        for finding in accounts::findings(&all) {
            if self.profile == Profile::Hardened && matches!(finding, Finding::WeakPassword(_)) {
                return Err(ApplyError::Weak(finding));
            }
            tracing::warn!("{finding}");
        }
        Ok(all)
    }

    fn file(&self, source: Source, path: Option<&Path>) -> Result<Vec<Account>, ApplyError> {
        let Some(path) = path else { return Ok(Vec::new()) };
        let secret = secret_file::read(path, limits::ACCOUNTS_BYTES_MAX as u64, self.profile)?;
        if let Some(exposed) = &secret.exposed {
            tracing::warn!("{exposed}");
        }
        let name = path.display().to_string();
        let text = std::str::from_utf8(&secret.contents).map_err(|_| ApplyError::Text(name.clone()))?;
        parsed(source, &name, text)
    }
}

fn parsed(source: Source, from: &str, text: &str) -> Result<Vec<Account>, ApplyError> {
    accounts::parse(source, text).map_err(|why| ApplyError::Source { from: from.to_owned(), why })
}

/// Applies what differs from what was applied before.
///
/// # Errors
/// [`ApplyError`]; records before the fault are applied, and the next time finds the rest.
pub async fn apply(shell: &Shell, hasher: &Hasher, accounts: &[Account]) -> Result<Done, ApplyError> {
    let of = accounts.iter().map(|account| (account.source, account.owner.clone())).collect();
    let before = shell.ask(&host_call(ACTION), ReadApplied { of }).await?;
    let mut done = Done::default();
    for (account, before) in accounts.iter().zip(before) {
        let (same, hash) = compare(hasher, account, before.as_ref()).await?;
        let Some(account) = account.changed(before.as_ref(), same, hash) else { continue };
        let applied = shell.run(&host_call(ACTION), ApplyAccount { account }).await?;
        done.created += usize::from(applied.created);
        done.changed += usize::from(!applied.created);
    }
    if done != Done::default() {
        tracing::info!(created = done.created, changed = done.changed, "accounts applied");
    }
    Ok(done)
}

/// Whether the password is the one that was applied before, and its hash.
async fn compare(
    hasher: &Hasher,
    account: &Account,
    before: Option<&Applied>,
) -> Result<(bool, PasswordHash), ApplyError> {
    match &account.secret {
        Secret::Hashed(hash) => Ok((before.is_some_and(|b| b.password == *hash), hash.clone())),
        Secret::Plain(plain) => {
            let password = Zeroizing::new(plain.as_bytes().to_vec());
            if let Some(before) = before {
                let stored = before.password.expose().to_owned();
                if hasher.verify(password.clone(), stored, Priority::Known).await?.ok {
                    return Ok((true, before.password.clone()));
                }
            }
            let hash = hasher.hash(password, random::bytes()).await?;
            Ok((false, PasswordHash::parse(&hash)?))
        }
    }
}
