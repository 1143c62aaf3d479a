//! What a stream or a parked call stands on: the credential that it was opened with, for as long as it lives.
//!
//! Registered at the verifier, so that a revocation ends it before auth counts it as acknowledged, an expiry
//! ends it, and a lapsed lease pauses it. Callers by cookie stand on the gateway's own rows: those are asked
//! again for each batch, and need no lease from auth.

use std::{fmt, net::IpAddr, sync::Arc, time::SystemTime};

use interlock_client::verifier::{Delivery, End, Registration, RenewError, Verdict, Verifier};
use interlock_kit::error::{Error, Reason};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What something long-lived stands on.
pub struct Standing {
    ground: Ground,
    moved: Notify,
}

enum Ground {
    /// A credential of auth's.
    Verdict { verifier: Verifier, present: Mutex<Present> },
    /// A cookie.
    Client,
}

struct Present {
    verdict: Arc<Verdict>,
    /// Whose membership it stands on, too.
    project: Option<String>,
    /// Where it comes from.
    address: Option<IpAddr>,
    registration: Arc<Registration>,
}

impl Standing {
    /// On a verdict, or on a cookie where there is none, for a caller at this address.
    #[must_use]
    pub fn on(verifier: &Verifier, verdict: Option<&Arc<Verdict>>, address: Option<IpAddr>) -> Self {
        let ground = verdict.map_or(Ground::Client, |verdict| Ground::Verdict {
            verifier: verifier.clone(),
            present: Mutex::new(Present {
                verdict: Arc::clone(verdict),
                project: None,
                address,
                registration: Arc::new(verifier.register_from(verdict, None, address)),
            }),
        });
        Self { ground, moved: Notify::new() }
    }

    /// On the gateway's own rows: for callers by cookie, and whatever is decided anew in each transaction.
    #[must_use]
    pub fn on_rows() -> Self {
        Self { ground: Ground::Client, moved: Notify::new() }
    }

    /// Stands on the owner's membership in this project, too, and no longer on that in another one. Whether
    /// that was new: what was decided about the project before it is then to be decided again, since an end of the
    /// membership in between was seen by nobody.
    pub fn enter(&self, project: Option<&str>) -> bool {
        let Ground::Verdict { verifier, present } = &self.ground else { return false };
        let mut present = present.lock();
        if present.project.as_deref() == project {
            return false;
        }
        let verdict = &present.verdict;
        let registration = verifier.register_from(verdict, project, present.address);
        // Both are registered at this moment. An end of the old one was counted for its revocation: it stands.
        if matches!(present.registration.delivery(), Delivery::Ended(_)) {
            return false;
        }
        present.registration = Arc::new(registration);
        present.project = project.map(str::to_owned);
        drop(present);
        self.moved.notify_waiters();
        true
    }

    /// Waits until the ground is gone, and says why.
    pub async fn ended(&self) -> Reason {
        loop {
            let moved = self.moved.notified();
            let Some(registration) = self.registration() else { return std::future::pending().await };
            tokio::select! {
                end = registration.ended() => return why(end),
                () = moved => {}
            }
        }
    }

    /// Waits while delivery is paused.
    ///
    /// # Errors
    /// Why the ground is gone.
    pub async fn open(&self) -> Result<(), Reason> {
        match self.registration() {
            Some(registration) => registration.open().await.map_err(why),
            None => Ok(()),
        }
    }

    /// Whether something may be delivered at this moment.
    #[must_use]
    pub fn delivers(&self) -> bool {
        self.registration().is_none_or(|registration| matches!(registration.delivery(), Delivery::Go))
    }

    /// When the credential ends; `None` if it does not.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.registration().and_then(|registration| registration.expires_at())
    }

    /// The verdict that it stands on now.
    #[must_use]
    pub fn verdict(&self) -> Option<Arc<Verdict>> {
        match &self.ground {
            Ground::Verdict { present, .. } => Some(Arc::clone(&present.lock().verdict)),
            Ground::Client => None,
        }
    }

    /// Moves over to another credential of the same principal.
    ///
    /// # Errors
    /// `OWNER_MISMATCH` for another principal's; why the ground is gone, if it is.
    pub fn renew(&self, fresh: &Arc<Verdict>) -> Result<(), Error> {
        let Ground::Verdict { present, .. } = &self.ground else { return Err(foreign()) };
        let mut present = present.lock();
        present.registration.renew(fresh).map_err(|error| match error {
            RenewError::OtherPrincipal => foreign(),
            RenewError::Revoked => interlock_kit::authn::login_required(),
            RenewError::Ended(end) => Error::new(why(end), "the stream has ended"),
        })?;
        present.verdict = Arc::clone(fresh);
        Ok(())
    }

    fn registration(&self) -> Option<Arc<Registration>> {
        match &self.ground {
            Ground::Verdict { present, .. } => Some(Arc::clone(&present.lock().registration)),
            Ground::Client => None,
        }
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self.ground, Ground::Client) {
            "Standing(client)"
        } else {
            "Standing(verdict)"
        })
    }
}

/// Another principal's stream and no stream at all: the same answer.
pub(crate) fn foreign() -> Error {
    Error::new(Reason::OwnerMismatch, "no such stream of this principal's")
}

fn why(end: End) -> Reason {
    match end {
        End::Revoked => Reason::Revoked,
        End::Expired => Reason::TokenExpired,
    }
}
