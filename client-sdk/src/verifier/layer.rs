//! The verifier in front of another tonic service, and in front of what that service streams.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt as _};
use http::{Request, Response, header::AUTHORIZATION};
use interlock_proto::{credential::Credential, metadata::ERROR_DOMAIN};
use tonic::{
    Code, Status,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{End, Registration, Verifier, VerifyError};
use crate::error::Reason;

/// Admits calls with a bearer that the verifier knows, and refuses all others with ErrorInfo.
///
/// The handler finds an `Arc<`[`Verdict`](super::Verdict)`>` and the [`Verifier`] in the request's
/// extensions. What the verdict's principal may do there is the service's own decision; streams and
/// parked calls go through [`guard`] or register themselves.
#[derive(Clone, Debug)]
pub struct VerifierLayer {
    verifier: Verifier,
    public: Arc<HashSet<String>>,
}

impl VerifierLayer {
    /// Every method needs a bearer.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier, public: Arc::default() }
    }

    /// The same, but `/package.Service/Method` is for anyone: health checks, say.
    #[must_use]
    pub fn public(mut self, path: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.public).insert(path.into());
        self
    }
}

impl<S> tower::Layer<S> for VerifierLayer {
    type Service = VerifierService<S>;

    fn layer(&self, inner: S) -> VerifierService<S> {
        VerifierService { inner, layer: self.clone() }
    }
}

/// What [`VerifierLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct VerifierService<S> {
    inner: S,
    layer: VerifierLayer,
}

impl<S, B, R> tower::Service<Request<B>> for VerifierService<S>
where
    S: tower::Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The service that was polled ready is the one to call; its clone waits for the next call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let VerifierLayer { verifier, public } = self.layer.clone();
        Box::pin(async move {
            if public.contains(request.uri().path()) {
                return inner.call(request).await;
            }
            let verified = match bearer(&request) {
                Ok(credential) => verifier.verify_from(&credential, address(&request)).await,
                Err(error) => Err(error),
            };
            match verified {
                Ok(verdict) => {
                    request.extensions_mut().insert(verdict);
                    request.extensions_mut().insert(verifier);
                    inner.call(request).await
                }
                Err(error) => Ok(refusal(error.reason(), &error.to_string()).into_http()),
            }
        })
    }
}

/// Where a request comes from, where tonic's own server serves it.
fn address<B>(request: &Request<B>) -> Option<IpAddr> {
    let extensions = request.extensions();
    let tls = extensions.get::<TlsConnectInfo<TcpConnectInfo>>().map(TlsConnectInfo::get_ref);
    tls.or_else(|| extensions.get()).and_then(TcpConnectInfo::remote_addr).map(|peer| peer.ip())
}

/// The one bearer of a request. RFC 6750 section 2.1.
fn bearer<B>(request: &Request<B>) -> Result<Credential, VerifyError> {
    let refused = VerifyError::Unauthenticated(Reason::ProviderAuthFailed);
    let mut values = request.headers().get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(refused) };
    let text = value.to_str().map_err(|_| refused)?;
    let (scheme, token) = text.split_once(' ').ok_or(refused)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refused);
    }
    Credential::parse(token.trim_start_matches(' ')).map_err(|_| refused)
}

/// Puts what a handler streams under a registration: nothing is delivered while the lease is lapsed,
/// and the stream ends with `REVOKED` or `TOKEN_EXPIRED` when its credential does.
pub fn guard<T, S>(
    registration: Registration,
    stream: S,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static
where
    T: Send + 'static,
    S: Stream<Item = Result<T, Status>> + Send + 'static,
{
    async_stream::stream! {
        let mut stream = std::pin::pin!(stream);
        loop {
            let item = tokio::select! {
                biased;
                end = registration.ended() => { yield Err(ended(end)); return; }
                item = stream.next() => item,
            };
            let Some(item) = item else { return };
            // Asked for last: between here and the socket is only what the transport holds.
            if let Err(end) = registration.open().await {
                yield Err(ended(end));
                return;
            }
            yield item;
        }
    }
}

fn ended(end: End) -> Status {
    match end {
        End::Revoked => refusal(Reason::Revoked, "the credential of this stream was revoked"),
        End::Expired => refusal(Reason::TokenExpired, "the credential of this stream has expired"),
    }
}

fn refusal(reason: Reason, message: &str) -> Status {
    let code = if reason == Reason::AuthUnavailable { Code::Unavailable } else { Code::Unauthenticated };
    let details = ErrorDetails::with_error_info(reason.text(), ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(code, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use interlock_proto::credential::Kind;

    #[test]
    fn exactly_one_well_formed_bearer_is_taken() {
        let credential = Credential::new(Kind::Owner, &[5; 32]);
        let with = |values: &[String]| {
            let mut request = Request::new(());
            for value in values {
                request.headers_mut().append(AUTHORIZATION, value.parse().expect("ascii"));
            }
            bearer(&request)
        };
        let good = format!("bEaReR {}", credential.expose());
        assert_eq!(with(std::slice::from_ref(&good)), Ok(credential.clone()));
        assert!(with(&[]).is_err());
        assert!(with(&[good.clone(), good]).is_err(), "two are one too many");
        assert!(with(&[credential.expose().to_owned()]).is_err());
        assert!(with(&["Bearer nonsense".to_owned()]).is_err());
        assert!(with(&[format!("Basic {}", credential.expose())]).is_err());
    }
}
