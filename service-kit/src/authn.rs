//! Gate 1: who may call a method at all, decided on the matched method before any handler runs.
//!
//! The layer knows the method's policy, the listener and what the peer proved; the service behind
//! [`Admit`] turns the presented credential into its own kind of caller. A handler reached through
//! this layer finds both with [`caller`]. No value here shows a credential in `Debug`.

use std::{future::Future, net::SocketAddr, sync::Arc};

use http::{HeaderMap, Request, Response};
use interlock_proto::{credential::Credential, options::v1::Listener};
use tonic::body::Body;

mod allow_file;
mod presented;
mod trust;

pub(crate) use self::trust::PeerTrust;
use self::trust::{not_allowed, prove_service};
pub use self::{
    allow_file::{AllowFileError, read_lines},
    trust::{Allowed, InternalTrust, LiveTrust},
};
pub use crate::serve::{Call, Source};
use crate::{
    clock,
    error::{Error, Reason},
    serve::{self, Answer, Peer, PeerCertificate, Routes},
};

/// What a caller reads who shows no credential, or one that admits nobody. The same for both: it
/// tells nothing about the credential.
pub const LOGIN_REQUIRED: &str = "login required";

/// The refusal of a missing and of an unknown credential alike.
#[must_use]
pub fn login_required() -> Error {
    Error::new(Reason::ProviderAuthFailed, LOGIN_REQUIRED)
}

/// What a call shows to say who makes it. Well-formed is not known: only a look-up tells.
#[derive(Clone, Debug)]
pub struct Presented {
    /// The bearer credential.
    pub bearer: Bearer,
    /// The client credentials, at most one for each session.
    pub cookies: Vec<Cookie>,
    /// The owner that a service acts for. Only ever set on an internal listener.
    pub on_behalf_of: Option<String>,
}

impl Presented {
    /// Reads what a call presents, as gate 1 does before it asks anybody: pure, and bounded.
    ///
    /// # Errors
    /// `PROVIDER_AUTH_FAILED` for two `authorization` values and for a cookie name sent twice; `FORBIDDEN`
    /// for a call on behalf of someone that does not come from a service.
    pub fn read(headers: &HeaderMap, listener: Listener) -> Result<Self, Error> {
        presented::read(headers, listener)
    }
}

/// The project that a call names.
///
/// # Errors
/// `INVALID_FIELD` for two of them, and for what cannot be the name or id of a project.
pub fn named_project(headers: &HeaderMap) -> Result<Option<String>, Error> {
    presented::named_project(headers)
}

/// The `authorization` of a call.
#[derive(Clone, Debug)]
pub enum Bearer {
    /// None.
    Missing,
    /// Another scheme, or not one of our credentials.
    Malformed,
    /// A well-formed one.
    Credential(Credential),
}

/// A session's cookie.
#[derive(Clone, Debug)]
pub struct Cookie {
    /// The session id in its name.
    pub session_id: String,
    /// Its value; `None`: not a well-formed credential.
    pub credential: Option<Credential>,
}

/// A refusal, with the caller where it was known by then.
#[derive(Clone, Debug)]
pub struct Refused<C> {
    /// Who was refused; `None`: nobody known.
    pub caller: Option<C>,
    /// Why.
    pub error: Error,
}

impl<C> From<Error> for Refused<C> {
    fn from(error: Error) -> Self {
        Self { caller: None, error }
    }
}

/// How a service decides gate 1.
pub trait Admit: Send + Sync + 'static {
    /// Who calls, in the service's words. A stranger on a public method is a value of it.
    type Caller: Clone + Send + Sync + 'static;

    /// Turns what was presented into the caller, and asks gate 1 (`call.policy.admit`).
    ///
    /// A missing and an unknown credential on a method that is not public are both
    /// [`login_required`].
    ///
    /// # Errors
    /// [`Refused`], with the caller where the credential was known.
    fn admit(
        &self,
        call: &Call,
        presented: Presented,
    ) -> impl Future<Output = Result<Self::Caller, Refused<Self::Caller>>> + Send;

    /// Commits the audit row of a refusal at gate 1; the refusal is answered after it. Called for
    /// every refusal made by the layer or by [`Admit::admit`].
    fn refused(
        &self,
        call: &Call,
        caller: Option<&Self::Caller>,
        error: &Error,
    ) -> impl Future<Output = ()> + Send;

    /// Records a peer whose certificate was not accepted: it never got as far as a call.
    fn handshake_refused(
        &self,
        listener: Listener,
        peer: SocketAddr,
        why: &str,
    ) -> impl Future<Output = ()> + Send {
        tracing::warn!(listener = listener.as_str_name(), %peer, why, "certificate refused");
        async {}
    }
}

/// What gate 1 leaves behind for the handler.
#[derive(Clone)]
struct Passed<C> {
    call: Arc<Call>,
    caller: C,
}

/// Takes the call and its caller out of the request of a method behind gate 1.
///
/// # Panics
/// Where the request did not come through gate 1, `C` is not the service's kind of caller, or they were taken
/// before: a handler is never reached in another way.
#[must_use]
pub fn caller<C: Clone + Send + Sync + 'static, T>(request: &mut tonic::Request<T>) -> (Arc<Call>, C) {
    let passed = request.extensions_mut().remove::<Passed<C>>();
    let Passed { call, caller } = passed.expect("a handler stands behind gate 1, and takes its caller once");
    (call, caller)
}

/// Services behind gate 1.
pub(crate) struct Gate<A> {
    admit: Arc<A>,
    trust: Option<LiveTrust>,
    routes: Routes,
}

impl<A> Gate<A> {
    pub(crate) fn new(admit: Arc<A>, trust: Option<LiveTrust>, routes: Routes) -> Self {
        Self { admit, trust, routes }
    }
}

impl<A> Clone for Gate<A> {
    fn clone(&self) -> Self {
        Self { admit: Arc::clone(&self.admit), trust: self.trust.clone(), routes: self.routes.clone() }
    }
}

impl<A: Admit> Answer for Gate<A> {
    async fn answer(&self, mut call: Call, peer: &Peer, mut request: Request<Body>) -> Response<Body> {
        let (trust, certificate) = (self.trust.as_ref(), peer.certificate.as_ref());
        match judge(&*self.admit, trust, &mut call, request.headers(), certificate).await {
            Ok(caller) => {
                let policy = call.policy;
                request.extensions_mut().insert(Passed { call: Arc::new(call), caller });
                self.routes.serve(policy, request).await
            }
            Err(refused) => {
                tracing::debug!(reason = %refused.error.reason(), "refused at gate 1");
                Box::pin(self.admit.refused(&call, refused.caller.as_ref(), &refused.error)).await;
                serve::refusal(&refused.error, &call.request_id)
            }
        }
    }
}

async fn judge<A: Admit>(
    admit: &A,
    trust: Option<&LiveTrust>,
    call: &mut Call,
    headers: &HeaderMap,
    certificate: Option<&PeerCertificate>,
) -> Result<A::Caller, Refused<A::Caller>> {
    call.traceparent = presented::traceparent(headers);
    if !call.policy.served_on(call.listener) {
        return Err(Error::new(Reason::Unimplemented, "no such method on this listener").into());
    }
    if call.listener == Listener::Internal {
        let trust = trust.ok_or_else(not_allowed)?;
        prove_service(trust, call, headers, certificate, clock::wall())?;
    }
    call.named_project = presented::named_project(headers)?;
    let presented = presented::read(headers, call.listener)?;
    call.on_behalf_of.clone_from(&presented.on_behalf_of);
    admit.admit(call, presented).await
}
