//! An owner session as a program holds it: two tokens and when they end.

use std::{
    fmt, io,
    time::{Duration, SystemTime},
};

use interlock_proto::credential::{Credential, Malformed};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::clock::micros;

/// The credentials of one owner session. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnerSession {
    /// Bearer for calls.
    pub access_token: Credential,
    /// Bearer for the refresh.
    pub refresh_token: Credential,
    /// Its id.
    pub owner_session_id: String,
    /// The owner's id.
    pub username: String,
    /// The name to show.
    pub display_name: String,
    /// `admin` or `user`.
    pub role: String,
    /// When this access token was received, by this host's clock.
    pub issued_at: SystemTime,
    /// When the access token ends.
    pub access_expires_at: SystemTime,
    /// When the owner session ends, whatever is refreshed.
    pub expires_at: SystemTime,
}

/// Where an owner session is kept between runs of a program. Called on threads that may block.
///
/// Programs that share one place (two shells of one user) take turns by [`SessionStore::lock`], so
/// that they refresh once, not once each.
pub trait SessionStore: Send + Sync + 'static {
    /// The session as it is kept now; `None` where nobody is signed in.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn load(&self) -> io::Result<Option<OwnerSession>>;

    /// Keeps `session` instead of what was kept.
    ///
    /// # Errors
    /// Where it cannot be written; what was kept before must still be there.
    fn store(&self, session: &OwnerSession) -> io::Result<()>;

    /// Waits until nobody else refreshes. The turn ends when the value is dropped.
    ///
    /// # Errors
    /// Where no turn can be had.
    fn lock(&self) -> io::Result<Box<dyn Send>>;
}

/// Keeps an owner session in memory only.
#[derive(Debug)]
pub struct MemoryStore(Mutex<OwnerSession>);

impl MemoryStore {
    /// Starts with `session`.
    #[must_use]
    pub fn new(session: OwnerSession) -> Self {
        Self(Mutex::new(session))
    }
}

impl SessionStore for MemoryStore {
    fn load(&self) -> io::Result<Option<OwnerSession>> {
        Ok(Some(self.0.lock().clone()))
    }

    fn store(&self, session: &OwnerSession) -> io::Result<()> {
        *self.0.lock() = session.clone();
        Ok(())
    }

    fn lock(&self) -> io::Result<Box<dyn Send>> {
        Ok(Box::new(()))
    }
}

impl OwnerSession {
    /// Whether the access token ends so soon that it should be traded now: within a fifth of its
    /// life, at most a minute.
    pub(crate) fn is_due(&self, now: SystemTime) -> bool {
        let life = self.access_expires_at.duration_since(self.issued_at).unwrap_or_default();
        let margin = (life / 5).min(Duration::from_secs(60));
        now + margin >= self.access_expires_at
    }

    /// As text for a file that only its owner can read. Holds both tokens.
    #[must_use]
    pub fn to_json(&self) -> Zeroizing<String> {
        let mut kept = Kept {
            access_token: self.access_token.expose().to_owned(),
            refresh_token: self.refresh_token.expose().to_owned(),
            owner_session_id: self.owner_session_id.clone(),
            username: self.username.clone(),
            display_name: self.display_name.clone(),
            role: self.role.clone(),
            issued_at_us: micros(self.issued_at),
            access_expires_at_us: micros(self.access_expires_at),
            expires_at_us: micros(self.expires_at),
        };
        let text = serde_json::to_string_pretty(&kept).expect("strings and numbers always encode");
        kept.access_token.zeroize();
        kept.refresh_token.zeroize();
        Zeroizing::new(text)
    }

    /// Reads what [`OwnerSession::to_json`] wrote.
    ///
    /// # Errors
    /// [`Malformed`] for anything else.
    pub fn from_json(text: &str) -> Result<Self, Malformed> {
        let kept: Kept = serde_json::from_str(text).map_err(|_| Malformed)?;
        let at = |us| SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(us)).ok_or(Malformed);
        let (access, refresh) = (Zeroizing::new(kept.access_token), Zeroizing::new(kept.refresh_token));
        Ok(Self {
            access_token: Credential::parse(&access)?,
            refresh_token: Credential::parse(&refresh)?,
            owner_session_id: kept.owner_session_id,
            username: kept.username,
            display_name: kept.display_name,
            role: kept.role,
            issued_at: at(kept.issued_at_us)?,
            access_expires_at: at(kept.access_expires_at_us)?,
            expires_at: at(kept.expires_at_us)?,
        })
    }
}

/// The file's shape.
#[derive(Serialize, Deserialize)]
struct Kept {
    access_token: String,
    refresh_token: String,
    owner_session_id: String,
    username: String,
    display_name: String,
    role: String,
    issued_at_us: u64,
    access_expires_at_us: u64,
    expires_at_us: u64,
}

impl fmt::Debug for OwnerSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerSession")
            .field("owner_session_id", &self.owner_session_id)
            .field("username", &self.username)
            .field("access_expires_at", &self.access_expires_at)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use interlock_proto::credential::Kind;

    #[test]
    fn a_kept_session_comes_back_and_debug_tells_no_secret() {
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        let session = OwnerSession {
            access_token: Credential::new(Kind::Owner, &[1; 32]),
            refresh_token: Credential::new(Kind::Refresh, &[2; 32]),
            owner_session_id: "ows_1".to_owned(),
            username: "dev".to_owned(),
            display_name: "Dev".to_owned(),
            role: "user".to_owned(),
            issued_at: at(100),
            access_expires_at: at(200),
            expires_at: at(300),
        };
        assert_eq!(OwnerSession::from_json(&session.to_json()), Ok(session.clone()));
        assert!(!format!("{session:?}").contains("ilk_"));
        assert!(!session.is_due(at(179)) && session.is_due(at(180)));
        assert!(OwnerSession::from_json("{}").is_err());
    }
}
