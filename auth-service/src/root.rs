//! The root secret: what an owner session unlocks root with.
//!
//! It is configured, never stored: in memory there is its argon2id hash, and in the store only a fingerprint of that
//! hash, beside each elevation it was the proof of. So a changed secret ends all that stood on the old one, and a
//! replica with another secret honours nothing of it (DESIGN 14.14).

use std::{fmt, time::Duration};

use interlock_kit::{error::Error, serve::Source};
use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    barrier::Reached,
    caller::Call,
    elevation::{Lock, Unlock, Unlocked},
    parts::Parts,
    password::PasswordHash,
};

mod configured;

pub use self::configured::{Place, RootError, configure};

/// Which root secret: SHA-256 of its hash. Whoever reads it has as much work with a guess as with the hash of an
/// owner's password.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootFingerprint(pub(crate) [u8; 32]);

impl RootFingerprint {
    fn of(hash: &PasswordHash) -> Self {
        Self(Sha256::digest(hash.expose().as_bytes()).into())
    }
}

impl fmt::Debug for RootFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "RootFingerprint({a:02x}{b:02x}{c:02x}{d:02x})")
    }
}

/// The root secret as it is configured now, if it is. Shared by all calls.
#[derive(Debug, Default)]
pub struct Root(RwLock<Option<Secret>>);

#[derive(Clone, Debug)]
struct Secret {
    hash: PasswordHash,
    fingerprint: RootFingerprint,
}

impl Root {
    /// One that is configured.
    #[must_use]
    pub fn of(hash: PasswordHash) -> Self {
        let root = Self::default();
        root.set(Some(hash));
        root
    }

    /// Replaces it. What stood on another one is honoured no more.
    pub fn set(&self, hash: Option<PasswordHash>) {
        let secret = hash.map(|hash| Secret { fingerprint: RootFingerprint::of(&hash), hash });
        *self.0.write() = secret;
    }

    /// Which one it is; `None` where none is configured.
    #[must_use]
    pub fn fingerprint(&self) -> Option<RootFingerprint> {
        self.0.read().as_ref().map(|secret| secret.fingerprint)
    }

    fn secret(&self) -> Option<Secret> {
        self.0.read().clone()
    }
}

/// What an unlock is asked with.
pub struct Ask {
    /// From where.
    pub source: Source,
    /// The root password.
    pub password: Zeroizing<Vec<u8>>,
    /// For how long at most; the configured time where it is `None`.
    pub ttl: Option<Duration>,
    /// SHA-256 of the certificate that the connection showed, if it did.
    pub certificate: Option<[u8; 32]>,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask").field("source", &self.source).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// Unlocks root for the caller's owner session. Returns when every verifier knows.
///
/// # Errors
/// `ROOT_DISABLED`, `INVALID_CREDENTIALS`, `RATE_LIMITED`, `LIMIT_REACHED` where too many wait for the hasher; the last
/// two leave their row to the caller of this.
pub async fn unlock(parts: &Parts, call: &Call, ask: Ask) -> Result<(Unlocked, Reached), Error> {
    let mut verb = Unlock {
        verified: None,
        ttl: ask.ttl.map_or(parts.root_ttl, |ttl| ttl.min(parts.root_ttl)),
        certificate: ask.certificate,
    };
    if let (Some(secret), Some(principal)) = (parts.root.secret(), call.caller.principal()) {
        parts.root_guesses.check(ask.source, &principal.owner_id)?;
        let priority = parts.root_guesses.priority(ask.source, &principal.owner_id);
        let stored = secret.hash.expose().to_owned();
        let verified = parts.hasher.verify(ask.password, stored, priority).await?;
        verb.verified = verified.ok.then_some(secret.fingerprint);
    }
    // The verb refuses what is not verified, and leaves the row.
    let unlocked = parts.shell.run(call, verb).await?;
    if let Some(principal) = call.caller.principal() {
        parts.root_guesses.succeeded(ask.source, &principal.owner_id);
    }
    let reached = parts.wait_for(unlocked.revocation).await;
    Ok((unlocked, reached))
}

/// Locks root for the caller's owner session. Returns when no verifier takes it for unlocked; `None` where it was not.
///
/// # Errors
/// `LOGIN_REQUIRED` for another kind of credential.
pub async fn lock(parts: &Parts, call: &Call) -> Result<Option<Reached>, Error> {
    match parts.shell.run(call, Lock).await? {
        Some(revocation) => Ok(Some(parts.wait_for(revocation).await)),
        None => {
            // An earlier call has locked it, and may still wait: its repetition promises the same.
            parts.wait_for_all().await;
            Ok(None)
        }
    }
}
