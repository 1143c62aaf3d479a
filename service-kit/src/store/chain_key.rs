//! The file of the audit chain's key: outside the store, so that who can write the store cannot forge the chain.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::audit::ChainKey;
use crate::{
    config::Profile,
    random,
    secret_file::{self, SecretFileError},
};

const KEY_BYTES: u64 = 32;

/// Why there is no key. One line that says what to do.
#[derive(Debug, Error)]
pub enum ChainKeyError {
    /// The file cannot be read or made, or others can read it.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// It is missing or damaged.
    #[error("{path}: {why}; restore it: without it the audit chain cannot go on", path = path.display())]
    Lost {
        /// Which file.
        path: PathBuf,
        /// What is wrong. Never the content.
        why: &'static str,
    },
}

impl ChainKeyError {
    /// As [`SecretFileError::is_configuration`].
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::File(error) => error.is_configuration(),
            Self::Lost { .. } => true,
        }
    }
}

impl ChainKey {
    /// Reads the key of the store's audit chain; makes one where there is neither key nor store.
    ///
    /// # Errors
    /// [`ChainKeyError`]; what is there is left as it is.
    pub fn of_file(path: &Path, store: &Path, profile: Profile) -> Result<Self, ChainKeyError> {
        Self::beside(path, store.symlink_metadata().is_ok(), profile)
    }

    /// The same, where it is known whether there is a store.
    ///
    /// # Errors
    /// As [`ChainKey::of_file`].
    pub fn beside(path: &Path, is_begun: bool, profile: Profile) -> Result<Self, ChainKeyError> {
        let lost = |why| ChainKeyError::Lost { path: path.to_owned(), why };
        match secret_file::read(path, KEY_BYTES, profile) {
            Ok(secret) => {
                if let Some(exposed) = &secret.exposed {
                    tracing::warn!("{exposed}");
                }
                let key = secret.contents.as_slice().try_into();
                key.map(Self::new).map_err(|_| lost("not a key of 32 bytes"))
            }
            Err(SecretFileError::TooLong { .. }) => Err(lost("not a key of 32 bytes")),
            Err(SecretFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                if is_begun {
                    return Err(lost("missing beside its store"));
                }
                let key: [u8; 32] = random::bytes();
                if let Err(error) = secret_file::create(path, &key) {
                    // Another program that starts at the same time may have made it: then it is that one.
                    let made = path.symlink_metadata().is_ok();
                    return if made { Self::beside(path, is_begun, profile) } else { Err(error.into()) };
                }
                tracing::info!(path = %path.display(), "made the key of the audit chain");
                Ok(Self::new(key))
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_never_beside_a_store_that_had_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, store) = (folder.path().join("key"), folder.path().join("db"));
        let key = || ChainKey::of_file(&path, &store, Profile::Hardened);
        key().expect("made");
        let made = fs::read(&path).expect("there");
        fs::write(&store, "x").expect("written");
        key().expect("read");
        assert_eq!(fs::read(&path).expect("there"), made);
        fs::remove_file(&path).expect("there");
        let refused = key().expect_err("lost").to_string();
        assert!(refused.contains("restore it") && !path.exists(), "{refused}");
    }

    #[test]
    fn a_damaged_key_is_refused_and_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, store) = (folder.path().join("key"), folder.path().join("db"));
        for damaged in [&b"short"[..], b"", &[7; 33]] {
            secret_file::write(&path, damaged).expect("written");
            let refused = ChainKey::of_file(&path, &store, Profile::Hardened).expect_err("damaged");
            assert!(refused.is_configuration(), "{refused}");
            assert_eq!(fs::read(&path).expect("there"), damaged);
        }
    }
}
