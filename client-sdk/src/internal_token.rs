//! The internal token that services show each other beside their certificates.
//!
//! A file of one or two lines: the first is sent. It is looked at again at most once a second, so
//! that the token rolls with no restart.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use interlock_proto::credential::{Credential, Kind};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::clock::{Clock, nanos};

const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// An internal token that follows its file.
pub(crate) struct InternalToken {
    path: PathBuf,
    clock: Clock,
    /// When it was looked at, by the monotonic clock, and what it held.
    last: Mutex<(u64, Credential)>,
}

impl InternalToken {
    /// Reads the file for the first time: a bad one is an error.
    pub(crate) fn load(path: PathBuf) -> io::Result<Self> {
        Self::with_clock(path, Clock::system())
    }

    fn with_clock(path: PathBuf, clock: Clock) -> io::Result<Self> {
        let token = first_line(&path)?;
        let last = Mutex::new((clock.monotonic_ns(), token));
        Ok(Self { path, clock, last })
    }

    /// The token to send now. A bad file keeps the last good one and is logged.
    pub(crate) async fn current(self: &Arc<Self>) -> Credential {
        {
            let mut last = self.last.lock();
            let now = self.clock.monotonic_ns();
            if now.saturating_sub(last.0) < nanos(LOOK_AGAIN) {
                return last.1.clone();
            }
            // Claimed before the look: one caller reads, the others go on with what there is.
            last.0 = now;
        }
        let token = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || first_line(&token.path)).await;
        let mut last = self.last.lock();
        match read {
            Ok(Ok(token)) => last.1 = token,
            Ok(Err(error)) => tracing::warn!(%error, "internal token not taken: the last good one stays"),
            Err(_) => tracing::warn!("reading the internal token was cut short"),
        }
        last.1.clone()
    }
}

impl fmt::Debug for InternalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InternalToken").field("path", &self.path).finish_non_exhaustive()
    }
}

fn first_line(path: &Path) -> io::Result<Credential> {
    let named = |what: &dyn fmt::Display| format!("{}: {what}", path.display());
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|e| io::Error::new(e.kind(), named(&e)))?;
    let first = text.lines().next().unwrap_or_default().trim();
    match Credential::parse(first) {
        Ok(token) if token.kind() == Kind::Internal => Ok(token),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, named(&"the first line is no internal token"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_internal_token_is_taken_and_only_the_first_line_is_sent() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let (one, two) =
            (Credential::new(Kind::Internal, &[1; 32]), Credential::new(Kind::Internal, &[2; 32]));
        std::fs::write(&path, format!("{}\n{}\n", one.expose(), two.expose())).expect("written");
        assert_eq!(first_line(&path).expect("well-formed"), one);
        std::fs::write(&path, Credential::new(Kind::Admin, &[1; 32]).expose()).expect("written");
        let error = first_line(&path).expect_err("another kind");
        assert!(!error.to_string().contains("ilk_"), "no secret in an error");
    }

    #[tokio::test]
    async fn the_file_is_followed_and_a_bad_one_keeps_the_last_good() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let put = |token: &str| std::fs::write(&path, token).expect("written");
        let (one, two) =
            (Credential::new(Kind::Internal, &[1; 32]), Credential::new(Kind::Internal, &[2; 32]));
        put(one.expose());
        let clock = Clock::manual(std::time::SystemTime::UNIX_EPOCH);
        let token = Arc::new(InternalToken::with_clock(path.clone(), clock.clone()).expect("well-formed"));
        put(two.expose());
        assert_eq!(token.current().await, one, "looked at a moment ago");
        clock.advance_monotonic(LOOK_AGAIN);
        assert_eq!(token.current().await, two);
        put("junk");
        clock.advance_monotonic(LOOK_AGAIN);
        assert_eq!(token.current().await, two);
    }
}
