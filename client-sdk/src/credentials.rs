//! As whom a program calls: a fixed credential, or an owner session that refreshes itself.

use std::{fmt, io, pin::Pin, sync::Arc, time::Duration};

use interlock_proto::credential::Credential;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    auth::Auth,
    clock::Clock,
    error::Error,
    owner_session::{OwnerSession, SessionStore},
    retry::is_passing,
};

/// Where the bearer of each call comes from. Cheap to clone; `Debug` shows no secret.
#[derive(Clone, Default)]
pub struct Credentials(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    None,
    Fixed(Credential),
    Owner(Arc<Owner>),
}

/// A bearer for one call.
#[derive(Clone, Debug)]
pub(crate) struct Presented {
    pub(crate) credential: Credential,
}

struct Owner {
    auth: Auth,
    store: Arc<dyn SessionStore>,
    clock: Clock,
    /// Held over a refresh: any number of callers wait for one.
    session: Mutex<Option<OwnerSession>>,
    /// The access token that a server called expired before this clock did.
    refused: parking_lot::Mutex<Option<Credential>>,
    /// Auth could not be asked: until then it is not asked again for a token that still lives.
    rest_until: parking_lot::Mutex<Option<Instant>>,
}

/// How long a refresh may hold up calls whose access token still lives.
const EARLY_WITHIN: Duration = Duration::from_secs(1);
/// How long auth is left alone after it could not be asked.
const REST: Duration = Duration::from_secs(5);

impl Credentials {
    /// No bearer: for callers that have only a session's cookie.
    #[must_use]
    pub fn none() -> Self {
        Self(Source::None)
    }

    /// This credential, for as long as it lives: a role token, a project token, an access token.
    #[must_use]
    pub fn bearer(credential: Credential) -> Self {
        Self(Source::Fixed(credential))
    }

    /// The owner session kept in `store`, refreshed through `auth` before its access token ends: once
    /// for any number of concurrent calls, and once for all programs that share the store.
    ///
    /// An auth service that cannot be asked signs nobody out.
    #[must_use]
    pub fn owner_session(auth: Auth, store: Arc<dyn SessionStore>) -> Self {
        Self(Source::Owner(Arc::new(Owner {
            auth,
            store,
            clock: Clock::system(),
            session: Mutex::new(None),
            refused: parking_lot::Mutex::new(None),
            rest_until: parking_lot::Mutex::new(None),
        })))
    }

    /// The bearer to use now; refreshes first where that is due.
    ///
    /// # Errors
    /// `LOGIN_REQUIRED` where nobody is signed in; what the refresh ended in, otherwise.
    pub async fn current(&self) -> Result<Option<Credential>, Error> {
        Ok(self.present().await?.map(|presented| presented.credential))
    }

    pub(crate) async fn present(&self) -> Result<Option<Presented>, Error> {
        match &self.0 {
            Source::None => Ok(None),
            Source::Fixed(credential) => Ok(Some(Presented { credential: credential.clone() })),
            Source::Owner(owner) => owner.boxed().await.map(Some),
        }
    }

    /// Whether there is a way to a fresh credential.
    pub(crate) fn is_refreshable(&self) -> bool {
        matches!(self.0, Source::Owner(_))
    }

    /// A server called `presented` expired. Whether there is a way to a fresh one.
    pub(crate) fn expired(&self, presented: &Presented) -> bool {
        let Source::Owner(owner) = &self.0 else { return false };
        *owner.refused.lock() = Some(presented.credential.clone());
        true
    }
}

impl Owner {
    /// Boxed, since a refresh is a call, and calls present credentials.
    fn boxed(&self) -> Pin<Box<dyn Future<Output = Result<Presented, Error>> + Send + '_>> {
        Box::pin(self.present())
    }

    async fn present(&self) -> Result<Presented, Error> {
        let mut held = self.session.lock().await;
        if held.is_none() {
            *held = self.blocking(SessionStore::load).await?;
        }
        let signed_out = || Error::signed_out("nobody is signed in here");
        let session = held.clone().ok_or_else(signed_out)?;
        if self.is_good(&session) {
            return Ok(session.into());
        }
        let turn = self.blocking(SessionStore::lock).await?;
        let kept = self.blocking(SessionStore::load).await?.ok_or_else(signed_out)?;
        if self.is_good(&kept) {
            *held = Some(kept.clone());
            return Ok(kept.into());
        }
        match self.refresh(&kept).await {
            Ok(fresh) => {
                let copy = fresh.clone();
                self.blocking(move |store| store.store(&copy)).await?;
                drop(turn);
                *held = Some(fresh.clone());
                Ok(fresh.into())
            }
            Err(error) if is_passing(&error) && self.lives(&kept) => {
                tracing::debug!(%error, "not refreshed; the access token still lives");
                *self.rest_until.lock() = Some(Instant::now() + REST);
                *held = Some(kept.clone());
                Ok(kept.into())
            }
            Err(error) => {
                // Somebody may sign in again meanwhile: look at the store the next time.
                *held = None;
                Err(error)
            }
        }
    }

    /// Refreshes; not for long while the access token still lives.
    async fn refresh(&self, kept: &OwnerSession) -> Result<OwnerSession, Error> {
        if !self.lives(kept) {
            return self.auth.refresh(kept).await;
        }
        let refreshed = timeout(EARLY_WITHIN, self.auth.refresh(kept)).await;
        refreshed.unwrap_or_else(|_| Err(Error::transport("auth does not answer")))
    }

    /// Whether the access token can be used as it is.
    fn is_good(&self, session: &OwnerSession) -> bool {
        if !self.lives(session) {
            return false;
        }
        let resting = self.rest_until.lock().is_some_and(|until| Instant::now() < until);
        resting || !session.is_due(self.clock.wall())
    }

    /// Whether the access token has not ended, by this clock and by what servers said.
    fn lives(&self, session: &OwnerSession) -> bool {
        let refused = self.refused.lock();
        refused.as_ref() != Some(&session.access_token) && self.clock.wall() < session.access_expires_at
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn SessionStore) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || work(&*store)).await;
        let failed = |e: &dyn fmt::Display| Error::local(format!("the place of the owner session: {e}"));
        done.map_err(|e| failed(&e))?.map_err(|e| failed(&e))
    }
}

impl From<OwnerSession> for Presented {
    fn from(session: OwnerSession) -> Self {
        Self { credential: session.access_token }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Source::None => "Credentials(none)",
            Source::Fixed(_) => "Credentials(bearer)",
            Source::Owner(_) => "Credentials(owner session)",
        })
    }
}
