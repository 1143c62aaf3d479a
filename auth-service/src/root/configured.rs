//! Where the root secret comes from: a variable or a file. It is hashed at each start, and again when its file changes.

use std::{path::PathBuf, sync::Arc};

use interlock_kit::{
    config::Profile,
    error::Error,
    hasher::{Hasher, Priority},
    random,
    reload::Reloads,
    secret_file::{self, SecretFileError},
};
use thiserror::Error as ThisError;
use zeroize::Zeroizing;

use super::Root;
use crate::{
    config::{Config, SecretText},
    elevation::{EndElevation, OnAnotherSecret, RootSalt, Why},
    limits,
    parts::host_call,
    password::PasswordHash,
    store::Shell,
};

const ACTION: &str = "elevation.end";

/// Why the root password cannot be used. Says where, never what.
#[derive(Debug, ThisError)]
pub enum RootError {
    /// Its file cannot be read.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// It is not one that can be used.
    #[error("{0}: {1}")]
    Password(String, &'static str),
    /// The store or the hasher refused.
    #[error("the root password: {0}")]
    Refused(#[from] Error),
}

impl RootError {
    /// Whether somebody has to mend what it was told: exit code 64.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::File(error) => error.is_configuration(),
            Self::Password(..) => true,
            Self::Refused(_) => false,
        }
    }
}

/// Where it stands.
#[derive(Clone, Debug)]
pub struct Place {
    variable: Option<SecretText>,
    file: Option<PathBuf>,
    profile: Profile,
}

/// The password itself, for as long as it takes to hash it.
type Password = Zeroizing<Vec<u8>>;

impl Place {
    /// Takes it out of a configuration: it is kept nowhere in clear.
    #[must_use]
    pub fn take(config: &mut Config) -> Self {
        Self {
            variable: config.root_password.take(),
            file: config.root_password_file.clone(),
            profile: config.common.profile,
        }
    }

    /// Reads it; `None` where none is configured.
    ///
    /// # Errors
    /// [`RootError`] for a file that cannot be read, a password that is empty or too long, and in profile `hardened`
    /// for one under 12 characters; in `local` that is a warning.
    pub fn read(&self) -> Result<Option<Password>, RootError> {
        if let Some(SecretText(text)) = &self.variable {
            return self.checked("INTERLOCK_ROOT_PASSWORD".to_owned(), text.as_bytes()).map(Some);
        }
        let Some(path) = &self.file else { return Ok(None) };
        // A line's end belongs to the file, not to the password.
        let bytes_max = limits::PASSWORD_BYTES_MAX as u64 + 2;
        let secret = secret_file::read(path, bytes_max, self.profile)?;
        if let Some(exposed) = &secret.exposed {
            tracing::warn!("{exposed}");
        }
        let line = secret.contents.strip_suffix(b"\n").unwrap_or(&secret.contents);
        self.checked(path.display().to_string(), line.strip_suffix(b"\r").unwrap_or(line)).map(Some)
    }

    fn checked(&self, from: String, password: &[u8]) -> Result<Password, RootError> {
        if !(1..=limits::PASSWORD_BYTES_MAX).contains(&password.len()) {
            return Err(RootError::Password(from, "1 to 1024 bytes"));
        }
        let Ok(text) = std::str::from_utf8(password) else {
            return Err(RootError::Password(from, "must be UTF-8"));
        };
        if text.chars().count() < limits::PASSWORD_CHARS_MIN {
            if self.profile == Profile::Hardened {
                return Err(RootError::Password(from, "at least 12 characters; the profile is hardened"));
            }
            tracing::warn!("the root password has fewer than 12 characters");
        }
        Ok(Zeroizing::new(password.to_vec()))
    }

    /// Watches the file, if it is one.
    #[must_use]
    pub fn reloaded(
        self,
        reloads: Reloads,
        shell: &Shell,
        hasher: &Hasher,
        root: &Arc<Root>,
        shared: bool,
    ) -> Reloads {
        let Some(path) = self.file.clone() else { return reloads };
        let (shell, hasher, root) = (shell.clone(), hasher.clone(), Arc::clone(root));
        let runtime = tokio::runtime::Handle::current();
        reloads.on([path], "root_password", move || {
            let password = self.read()?;
            Ok(runtime.block_on(configure(&shell, &hasher, &root, password, shared))?)
        })
    }
}

/// Hashes the password, unless it is the one that is configured, and ends what stands on another one. Answers whether
/// it is another one. `shared`: other programs may use the same store.
///
/// # Errors
/// [`RootError::Refused`]
pub async fn configure(
    shell: &Shell,
    hasher: &Hasher,
    root: &Root,
    password: Option<Password>,
    shared: bool,
) -> Result<bool, RootError> {
    let changed = match (root.secret(), password) {
        (None, None) => false,
        (Some(_), None) => {
            root.set(None);
            true
        }
        (before, Some(password)) => {
            let same = match before {
                Some(before) => {
                    let stored = before.hash.expose().to_owned();
                    hasher.verify(password.clone(), stored, Priority::Known).await?.ok
                }
                None => false,
            };
            if !same {
                // A random salt where no other program needs the same fingerprint: then no start honours what an
                // earlier one unlocked.
                let salt = match shared {
                    true => shell.ask(&host_call(ACTION), RootSalt).await?,
                    false => random::bytes(),
                };
                let hash = hasher.hash(password, salt).await?;
                root.set(Some(PasswordHash::parse(&hash).map_err(Error::internal)?));
            }
            !same
        }
    };
    end_others(shell).await?;
    Ok(changed)
}

/// Ends the elevations that stand on another secret. A list at a time, each bounded.
async fn end_others(shell: &Shell) -> Result<(), Error> {
    let call = host_call(ACTION);
    loop {
        let others = shell.ask(&call, OnAnotherSecret).await?;
        let full = others.len() >= limits::SWEEP_MAX as usize;
        for session in others {
            shell.run(&call, EndElevation { session, why: Why::Secret }).await?;
        }
        if !full {
            return Ok(());
        }
    }
}
