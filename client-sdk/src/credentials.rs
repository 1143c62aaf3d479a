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
    /// As it was last seen.
    held: parking_lot::Mutex<Option<OwnerSession>>,
    /// Held over a refresh: any number of callers wait for one.
    renewing: Mutex<()>,
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
            held: parking_lot::Mutex::new(None),
            renewing: Mutex::new(()),
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
    fn boxed(self: &Arc<Self>) -> Pin<Box<dyn Future<Output = Result<Presented, Error>> + Send>> {
        Box::pin(Arc::clone(self).present())
    }

    async fn present(self: Arc<Self>) -> Result<Presented, Error> {
        let session = self.known().await?;
        if self.is_good(&session) {
            return Ok(session.into());
        }
        let owner = Arc::clone(&self);
        // A task of its own, which goes on when this caller gives up: a refresh token that was used and
        // whose successor was not kept would end the owner session at its next use.
        let mut renewing = tokio::spawn(async move { owner.renew().await });
        let renewed = if self.lives(&session) {
            timeout(EARLY_WITHIN, &mut renewing)
                .await
                .unwrap_or_else(|_| Ok(Err(Error::transport("auth does not answer"))))
        } else {
            renewing.await
        };
        match renewed.unwrap_or_else(|_| Err(Error::local("a refresh was cut short"))) {
            Ok(fresh) => Ok(fresh.into()),
            Err(error) if is_passing(&error) && self.lives(&session) => {
                tracing::debug!(%error, "not refreshed; the access token still lives");
                *self.rest_until.lock() = Some(Instant::now() + REST);
                Ok(session.into())
            }
            Err(error) => Err(error),
        }
    }

    /// The session as it was last seen, or as it is kept.
    async fn known(&self) -> Result<OwnerSession, Error> {
        let held = self.held.lock().clone();
        match held {
            Some(session) => Ok(session),
            None => self.look().await,
        }
    }

    async fn look(&self) -> Result<OwnerSession, Error> {
        let kept = self.blocking(SessionStore::load).await?;
        (*self.held.lock()).clone_from(&kept);
        kept.ok_or_else(|| Error::signed_out("nobody is signed in here"))
    }

    /// Refreshes, and keeps what comes of it: one at a time here, and among all that share the store.
    async fn renew(&self) -> Result<OwnerSession, Error> {
        let _one = self.renewing.lock().await;
        let seen = self.known().await?;
        if self.is_good(&seen) {
            return Ok(seen);
        }
        let _turn = self.blocking(SessionStore::lock).await?;
        let kept = self.look().await?;
        if self.is_good(&kept) {
            return Ok(kept);
        }
        match self.auth.refresh(&kept).await {
            Ok(fresh) => {
                let copy = fresh.clone();
                self.blocking(move |store| store.store(&copy)).await?;
                *self.held.lock() = Some(fresh.clone());
                Ok(fresh)
            }
            Err(error) => {
                if !is_passing(&error) {
                    // Somebody may sign in again meanwhile: look at the store the next time.
                    *self.held.lock() = None;
                }
                Err(error)
            }
        }
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
