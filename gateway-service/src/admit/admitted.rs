//! Who calls, as the handlers get it from gate 1.

use std::{fmt, net::IpAddr, sync::Arc};

use interlock_client::verifier::{Verdict, Verifier};
use interlock_kit::{authn::Call, error::Error, store::audit::Origin};
use interlock_proto::credential::Credential;
use zeroize::Zeroizing;

use super::identity::{client_principal, principal};
use crate::{
    caller::{Caller, Cookie},
    ids::SessionId,
    standing::Standing,
};

/// Who calls, as the handlers get it.
#[derive(Clone)]
pub(crate) struct Admitted {
    /// As the domain sees it.
    pub(crate) caller: Arc<Caller>,
    /// What auth said of the bearer; `None` for a cookie alone.
    pub(crate) verdict: Option<Arc<Verdict>>,
    /// The bearer itself.
    pub(super) bearer: Option<Credential>,
    /// All cookies that came along, one a session.
    pub(super) cookies: Arc<[Cookie]>,
    /// Where it comes from.
    pub(super) address: IpAddr,
}

impl Admitted {
    /// What a stream or a parked call of this caller stands on.
    pub(crate) fn standing(&self, verifier: &Verifier) -> Standing {
        Standing::on(verifier, self.verdict.as_ref(), Some(self.address))
    }

    /// What only this caller can show again: the bearer, or what the service that named it stands on. None for a
    /// cookie alone. Answers that hold a secret are sealed under it.
    pub(crate) fn sealing_secret(&self, call: &Call) -> Option<Zeroizing<String>> {
        match &self.bearer {
            Some(bearer) => Some(Zeroizing::new(bearer.expose().to_owned())),
            None => self.verdict.as_ref().and_then(|_| call.service_secret()),
        }
    }

    /// The caller for a call that names its session: with that session's cookie, where several came.
    pub(crate) fn for_session(&self, session: &SessionId) -> Arc<Caller> {
        let fits = |cookie: &&Cookie| cookie.session == *session;
        match self.cookies.iter().find(fits) {
            Some(cookie) if self.caller.cookie.as_ref() != Some(cookie) => {
                Arc::new(Caller { cookie: Some(cookie.clone()), ..(*self.caller).clone() })
            }
            _ => Arc::clone(&self.caller),
        }
    }

    /// Who opened a stream, for whoever wants to renew it.
    pub(crate) fn principal(&self) -> String {
        match (&self.verdict, &self.caller.cookie) {
            (Some(verdict), _) => format!("owner {}", verdict.owner_id),
            (None, Some(cookie)) => client_principal(cookie),
            (None, None) => self.caller.origin.principal.clone(),
        }
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").field("principal", &self.caller.principal).finish_non_exhaustive()
    }
}

/// The caller of a stream, after it was moved over to another credential of the same principal: what that one
/// may do, and no longer what the first one might. The same while it stands on the first.
///
/// # Errors
/// `PROVIDER_AUTH_FAILED` where the credential names nobody.
pub(crate) fn following(caller: &Arc<Caller>, standing: &Standing) -> Result<Arc<Caller>, Error> {
    let Some(verdict) = standing.verdict() else { return Ok(Arc::clone(caller)) };
    if caller.origin.credential_id == verdict.credential_id {
        return Ok(Arc::clone(caller));
    }
    let (role, credential_id) = (verdict.role.clone(), verdict.credential_id.clone());
    let origin = Arc::new(Origin { role, credential_id, ..(*caller.origin).clone() });
    // On which connection it came is not known any more: an unlock that is bound to a certificate does not go along.
    Ok(Arc::new(Caller { principal: principal(&verdict, None)?, origin, ..(**caller).clone() }))
}
