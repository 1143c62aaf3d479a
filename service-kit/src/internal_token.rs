//! The secret that services show each other beside their certificates.
//!
//! A file of one or two lines: the first is sent, both are accepted. So it rolls without downtime: add the new
//! one as second line everywhere, promote it to the first, drop the old one. [`rotation`] does that.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    config::Profile,
    secret_file::{self, SecretFileError},
};

pub mod rotation;

/// The shortest token, bytes: 32 characters of a random text cannot be guessed.
const TOKEN_BYTES_MIN: usize = 32;
/// The longest token, bytes.
const TOKEN_BYTES_MAX: usize = 256;
/// Two tokens and their line ends.
const FILE_BYTES_MAX: u64 = 2 * (TOKEN_BYTES_MAX as u64 + 2);

/// Why a token file is not taken.
#[derive(Debug, Error)]
pub enum InternalTokenError {
    /// The file cannot be read, or must not be.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The file is not one or two lines with a token each.
    #[error(
        "{path}: must be one or two lines, each {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} printable ASCII characters without spaces",
        path = .0.display()
    )]
    Malformed(PathBuf),
}

/// The current internal token; cheap to clone, reloads in place.
#[derive(Clone)]
pub struct InternalToken {
    path: Arc<Path>,
    profile: Profile,
    tokens: Arc<ArcSwap<Tokens>>,
}

struct Tokens {
    sent: Zeroizing<String>,
    /// SHA-256 of what is accepted; twice the same where there is one line.
    accepted: [[u8; 32]; 2],
}

impl InternalToken {
    /// Reads the file.
    ///
    /// # Errors
    /// [`InternalTokenError`], also where others can read it in profile `hardened`.
    pub fn load(path: &Path, profile: Profile) -> Result<Self, InternalTokenError> {
        let tokens = Arc::new(ArcSwap::from_pointee(read(path, profile)?));
        Ok(Self { path: path.into(), profile, tokens })
    }

    /// The token to send.
    #[must_use]
    pub fn sent(&self) -> Zeroizing<String> {
        self.tokens.load().sent.clone()
    }

    /// Whether this is one of the accepted tokens. Takes the same time whatever it is.
    #[must_use]
    pub fn accepts(&self, token: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let tokens = self.tokens.load();
        let [first, second] = &tokens.accepted;
        (digest.ct_eq(first) | digest.ct_eq(second)).into()
    }

    /// Reads the file again; says whether anything changed.
    ///
    /// # Errors
    /// As [`InternalToken::load`]; the last good tokens stay.
    pub fn reload(&self) -> Result<bool, InternalTokenError> {
        let fresh = read(&self.path, self.profile)?;
        let current = self.tokens.load();
        // What is sent is the first of what is accepted.
        let same = current.accepted.as_flattened().ct_eq(fresh.accepted.as_flattened());
        let changed = !bool::from(same);
        if changed {
            self.tokens.store(Arc::new(fresh));
        }
        Ok(changed)
    }

    /// Whether two tokens are accepted: a rotation has begun and is not finished.
    #[must_use]
    pub fn is_rolling(&self) -> bool {
        let tokens = self.tokens.load();
        let [first, second] = &tokens.accepted;
        !bool::from(first.ct_eq(second))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for InternalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InternalToken").field("path", &self.path).finish_non_exhaustive()
    }
}

fn read(path: &Path, profile: Profile) -> Result<Tokens, InternalTokenError> {
    let (first, second) = lines(path, profile)?;
    let digest = |line: &str| Sha256::digest(line.as_bytes()).into();
    let accepted = [digest(&first), digest(second.as_ref().unwrap_or(&first))];
    Ok(Tokens { sent: first, accepted })
}

type Line = Zeroizing<String>;

/// The one or two tokens of a file.
fn lines(path: &Path, profile: Profile) -> Result<(Line, Option<Line>), InternalTokenError> {
    let secret = secret_file::read(path, FILE_BYTES_MAX, profile)?;
    if let Some(exposed) = &secret.exposed {
        tracing::warn!("{exposed}");
    }
    let malformed = || InternalTokenError::Malformed(path.to_owned());
    let text = std::str::from_utf8(&secret.contents).map_err(|_| malformed())?;
    let mut lines = text.lines();
    let first = lines.next().ok_or_else(malformed)?;
    let second = lines.next();
    let good = |line: &str| {
        (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&line.len())
            && line.bytes().all(|b| b.is_ascii_graphic())
    };
    if lines.next().is_some() || !good(first) || !second.is_none_or(good) {
        return Err(malformed());
    }
    let kept = |line: &str| Zeroizing::new(line.to_owned());
    Ok((kept(first), second.map(kept)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "old-0123456789-0123456789-0123456789";
    const NEW: &str = "new-0123456789-0123456789-0123456789";

    #[test]
    fn rolls_by_add_promote_drop_and_keeps_the_last_good() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("internal-token");
        let put = |text: String| secret_file::write(&path, text.as_bytes()).expect("written");
        put(OLD.to_owned());
        let token = InternalToken::load(&path, Profile::Hardened).expect("good");
        assert!(token.accepts(OLD) && !token.accepts(NEW) && !token.accepts(""));
        assert!(!token.reload().expect("good"));

        put(format!("{OLD}\n{NEW}\n"));
        assert!(token.reload().expect("good"));
        assert!(token.accepts(OLD) && token.accepts(NEW));
        assert_eq!(*token.sent(), OLD);

        put(format!("{NEW}\n{OLD}\n"));
        assert!(token.reload().expect("good"));
        assert_eq!(*token.sent(), NEW);

        for bad in ["", "\n", "short", &format!("{NEW}\n{OLD}\n{OLD}"), &format!("{NEW} x")] {
            put(bad.to_owned());
            let error = token.reload().expect_err("malformed");
            assert!(!error.to_string().contains(NEW), "{error}");
            assert!(token.accepts(OLD) && token.accepts(NEW));
        }

        put(NEW.to_owned());
        assert!(token.reload().expect("good"));
        assert!(token.accepts(NEW) && !token.accepts(OLD));
        assert!(!format!("{token:?}").contains(NEW));
    }
}
