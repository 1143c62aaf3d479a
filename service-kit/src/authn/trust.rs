//! Trust between services: what proves a calling service on an internal listener.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
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

/// An [`InternalTrust`] that can be replaced while a server stands on it: by a reload of the allow list,
/// say. Clones share it. Calls that begin after [`LiveTrust::replace`], and the next
/// [`Call::recheck_service`] of those that last, are judged by what is new.
#[derive(Clone, Debug)]
pub struct LiveTrust(Arc<ArcSwap<InternalTrust>>);

/// A service on the allow list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Its id.
    pub service: SpiffeId,
    /// The paths that it may call: a whole method path, or a prefix that ends with `/`; `/` is all.
    pub paths: Vec<String>,
}

/// What a calling service stood on when its call began.
#[derive(Clone)]
pub(crate) struct PeerTrust {
    trust: LiveTrust,
    service: SpiffeId,
    not_after: Timestamp,
    token: Zeroizing<String>,
}

impl fmt::Debug for PeerTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTrust").field("service", &self.service).finish_non_exhaustive()
    }
}

impl LiveTrust {
    /// Trust that starts so.
    #[must_use]
    pub fn new(trust: InternalTrust) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(trust)))
    }

    /// Puts `trust` in the place of what there was.
    pub fn replace(&self, trust: InternalTrust) {
        self.0.store(Arc::new(trust));
    }

    /// What counts now.
    #[must_use]
    pub fn current(&self) -> Arc<InternalTrust> {
        self.0.load_full()
    }
}

impl From<InternalTrust> for LiveTrust {
    fn from(trust: InternalTrust) -> Self {
        Self::new(trust)
    }
}

impl InternalTrust {
    /// These services may call every internal method.
    #[must_use]
    pub fn new(trust_domain: TrustDomain, allow: Vec<SpiffeId>, token: InternalToken) -> Self {
        let all = |service| Allowed { service, paths: vec!["/".to_owned()] };
        Self { trust_domain, allowed: allow.into_iter().map(all).collect(), token }
    }

    pub(super) fn allows(&self, service: &SpiffeId, path: &str) -> bool {
        let listed = |allowed: &Allowed| allowed.covers(service, path);
        *service.trust_domain() == self.trust_domain && self.allowed.iter().any(listed)
    }
}

impl Allowed {
    /// Whether it lets this service call the method of this path.
    #[must_use]
    pub fn covers(&self, service: &SpiffeId, path: &str) -> bool {
        let covers = |p: &String| p == path || (p.ends_with('/') && path.starts_with(p.as_str()));
        self.service == *service && self.paths.iter().any(covers)
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
        let trust = peer.trust.current();
        if peer.not_after.is_over(now) || !trust.allows(&peer.service, &self.policy.path) {
            return Err(not_allowed());
        }
        if trust.token.accepts(&peer.token) { Ok(()) } else { Err(token_required()) }
    }

    /// What the calling service alone can show again: the internal token, under its own id. For sealing what only it
    /// is to open; none where no service calls.
    #[must_use]
    pub fn service_secret(&self) -> Option<Zeroizing<String>> {
        let peer = self.trust.as_ref()?;
        Some(Zeroizing::new(format!("{}\n{}", peer.service, *peer.token)))
    }
}

/// Certificate first, then token: who has no certificate learns nothing about tokens. The certificate
/// was good when the connection was made, and the connection may have outlived it.
pub(super) fn prove_service(
    trust: &LiveTrust,
    call: &mut Call,
    headers: &HeaderMap,
    certificate: Option<&PeerCertificate>,
    now: Timestamp,
) -> Result<(), Error> {
    let certificate = certificate.ok_or_else(not_allowed)?;
    let service = certificate.identity.clone().ok_or_else(not_allowed)?;
    let current = trust.0.load();
    if certificate.not_after.is_over(now) || !current.allows(&service, &call.policy.path) {
        return Err(not_allowed());
    }
    call.service = Some(service.clone());
    let token = presented::internal_token(headers).ok_or_else(token_required)?;
    if !current.token.accepts(&token) {
        return Err(token_required());
    }
    let (trust, not_after) = (trust.clone(), certificate.not_after);
    call.trust = Some(PeerTrust { trust, service, not_after, token });
    Ok(())
}

pub(super) fn not_allowed() -> Error {
    Error::new(Reason::Forbidden, "this service may not call this method")
}

fn token_required() -> Error {
    Error::new(Reason::InternalTokenRequired, "the internal token is missing or wrong")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Profile, secret_file, serve::Peer};
    use interlock_proto::{metadata, options::v1::Listener, policy::Policies};

    const TOKEN: &str = "internal-0123456789-0123456789-0123456789";

    #[test]
    fn a_connection_that_outlives_its_certificate_proves_nothing_and_what_is_replaced_holds_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        secret_file::write(&path, TOKEN.as_bytes()).expect("written");
        let token = InternalToken::load(&path, Profile::Hardened).expect("good");
        let service: SpiffeId = "spiffe://interlock.test/gateway".parse().expect("good");
        let list = |allow| InternalTrust::new(service.trust_domain().clone(), allow, token.clone());
        let trust = LiveTrust::new(list(vec![service.clone()]));

        let end = Timestamp::from_micros(1_000);
        let certificate =
            PeerCertificate { fingerprint: [0; 32], not_after: end, identity: Some(service.clone()) };
        let address = ([127, 0, 0, 1], 1).into();
        let peer = Peer { address, listener: Listener::Internal, certificate: Some(certificate.clone()) };
        let policy = Policies::all().of("/interlock.auth.v1.TrustService/Validate").expect("ours");
        let mut headers = HeaderMap::new();
        headers.insert(metadata::INTERNAL_TOKEN, TOKEN.parse().expect("visible"));
        let mut call = Call::new("req_1".to_owned(), policy, &peer);
        let mut prove = |now: i64| {
            let now = Timestamp::from_micros(now);
            prove_service(&trust, &mut call, &headers, Some(&certificate), now).map_err(|e| e.reason())
        };
        assert_eq!(prove(1_000), Err(Reason::Forbidden));
        assert_eq!(prove(999), Ok(()));

        let now = Timestamp::from_micros(999);
        assert_eq!(call.recheck_service(now).map_err(|e| e.reason()), Ok(()));
        trust.replace(list(Vec::new()));
        assert_eq!(call.recheck_service(now).map_err(|e| e.reason()), Err(Reason::Forbidden));
    }
}
