//! Trust between services: what proves a calling service on an internal listener.

use std::{fmt, sync::Arc};

use http::HeaderMap;
use zeroize::Zeroizing;

use super::presented;
use crate::{
    clock::Timestamp,
    error::{Error, Reason},
    internal_token::InternalToken,
    serve::{Call, PeerCertificate},
    spiffe::{SpiffeId, TrustDomain},
};

/// What proves a calling service on an internal listener: a certificate of the trust domain whose
/// SPIFFE id is on the allow list, and the internal token. Either alone is refused.
#[derive(Clone, Debug)]
pub struct InternalTrust {
    /// Whose certificates count.
    pub trust_domain: TrustDomain,
    /// Which services may call what.
    pub allowed: Vec<Allowed>,
    /// The token.
    pub token: InternalToken,
}

/// A service on the allow list.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// Its id.
    pub service: SpiffeId,
    /// The paths that it may call: a whole method path, or a prefix that ends with `/`; `/` is all.
    pub paths: Vec<String>,
}

/// What a calling service stood on when its call began.
pub(crate) struct PeerTrust {
    trust: Arc<InternalTrust>,
    service: SpiffeId,
    not_after: Timestamp,
    token: Zeroizing<String>,
}

impl fmt::Debug for PeerTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTrust").field("service", &self.service).finish_non_exhaustive()
    }
}

impl InternalTrust {
    /// These services may call every internal method.
    #[must_use]
    pub fn new(trust_domain: TrustDomain, allow: Vec<SpiffeId>, token: InternalToken) -> Self {
        let all = |service| Allowed { service, paths: vec!["/".to_owned()] };
        Self { trust_domain, allowed: allow.into_iter().map(all).collect(), token }
    }

    fn allows(&self, service: &SpiffeId, path: &str) -> bool {
        let covers = |p: &String| p == path || (p.ends_with('/') && path.starts_with(p.as_str()));
        let listed = |a: &Allowed| a.service == *service && a.paths.iter().any(covers);
        *service.trust_domain() == self.trust_domain && self.allowed.iter().any(listed)
    }
}

impl Call {
    /// Asks again whether the calling service may go on: its certificate has not ended, it is still
    /// on the allow list, its token is still accepted. For calls that last; a call by no service
    /// stands on its caller's credential alone.
    ///
    /// # Errors
    /// `FORBIDDEN` for the certificate, `INTERNAL_TOKEN_REQUIRED` for the token.
    pub fn recheck_service(&self, now: Timestamp) -> Result<(), Error> {
        let Some(peer) = &self.trust else { return Ok(()) };
        if peer.not_after.is_over(now) || !peer.trust.allows(&peer.service, &self.policy.path) {
            return Err(not_allowed());
        }
        if peer.trust.token.accepts(&peer.token) { Ok(()) } else { Err(token_required()) }
    }
}

/// Certificate first, then token: who has no certificate learns nothing about tokens.
pub(super) fn prove_service(
    trust: Arc<InternalTrust>,
    call: &mut Call,
    headers: &HeaderMap,
    certificate: Option<&PeerCertificate>,
) -> Result<(), Error> {
    let certificate = certificate.ok_or_else(not_allowed)?;
    let service = certificate.identity.clone().ok_or_else(not_allowed)?;
    if !trust.allows(&service, &call.policy.path) {
        return Err(not_allowed());
    }
    call.service = Some(service.clone());
    let token = presented::internal_token(headers).ok_or_else(token_required)?;
    if !trust.token.accepts(&token) {
        return Err(token_required());
    }
    call.trust = Some(Arc::new(PeerTrust { trust, service, not_after: certificate.not_after, token }));
    Ok(())
}

pub(super) fn not_allowed() -> Error {
    Error::new(Reason::Forbidden, "this service may not call this method")
}

fn token_required() -> Error {
    Error::new(Reason::InternalTokenRequired, "the internal token is missing or wrong")
}
