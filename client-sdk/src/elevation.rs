//! Root unlock of one's own owner session.

use std::time::{Duration, SystemTime};

use interlock_proto::auth::v1 as wire;

use crate::{
    auth::{Auth, REVOCATION, Reached},
    clock::from_wire,
    error::Error,
    path,
};

/// How it stands with root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootStatus {
    /// Whether a root password is configured there.
    pub enabled: bool,
    /// Until when the bearer, an owner session, has unlocked root; `None` where it is locked.
    pub unlocked_until: Option<SystemTime>,
    /// Whether the bearer is an owner session whose roles meet the root condition by themselves.
    pub session_root: bool,
}

/// Root is unlocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unlocked {
    /// Until when.
    pub expires_at: SystemTime,
    /// What the change reached before the call returned.
    pub reached: Option<Reached>,
}

impl Auth {
    /// Unlocks root for the owner session that is acting: for `ttl`, 1 min to 1 h, or for as long as is configured there,
    /// which is the most in any case. When it has returned every verifier knows. Never made twice by itself.
    ///
    /// # Errors
    /// `ROOT_DISABLED` where no root password is configured; `INVALID_CREDENTIALS`; `LOGIN_REQUIRED` for a credential
    /// of another kind; `RATE_LIMITED` and `LIMIT_REACHED` with a delay.
    pub async fn unlock_root(&self, password: &str, ttl: Option<Duration>) -> Result<Unlocked, Error> {
        let ttl = ttl.map(prost_types::Duration::try_from).transpose();
        let ttl = ttl.map_err(|_| Error::invalid("ttl", "1 min to 1 h"))?;
        let request = wire::UnlockRequest { password: password.to_owned(), ttl };
        let answer = self.connection.unary(path::UNLOCK, &self.identity, request, REVOCATION).await?;
        let answer: wire::UnlockResponse = answer.message;
        let expires_at = from_wire(answer.expires_at);
        let expires_at = expires_at.ok_or_else(|| Error::protocol("an answer without expiry"))?;
        Ok(Unlocked { expires_at, reached: answer.reached.map(Into::into) })
    }

    /// Locks root again, at every verifier. `None` where it was locked. May be repeated.
    ///
    /// # Errors
    /// `LOGIN_REQUIRED` for a credential of another kind.
    pub async fn lock_root(&self) -> Result<Option<Reached>, Error> {
        let answer =
            self.connection.unary(path::LOCK, &self.identity, wire::LockRequest {}, REVOCATION).await?;
        let answer: wire::LockResponse = answer.message;
        Ok(answer.reached.map(Into::into))
    }

    /// How it stands with root here, and for the bearer, if there is one.
    ///
    /// # Errors
    /// Where auth cannot be asked.
    pub async fn root_status(&self) -> Result<RootStatus, Error> {
        let request = wire::ElevationServiceGetStatusRequest {};
        let answer: wire::ElevationServiceGetStatusResponse =
            self.connection.call(path::ELEVATION_STATUS, &self.identity, request).await?;
        let unlocked_until = from_wire(answer.expires_at).filter(|_| answer.unlocked);
        Ok(RootStatus { enabled: answer.enabled, unlocked_until, session_root: answer.session_root })
    }
}
