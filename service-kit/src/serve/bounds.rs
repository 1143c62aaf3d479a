//! What bounds a call before any work: the outermost layer.
//!
//! In this order: request id and span; strict gRPC; the method's policy (none: no such method);
//! deadline; room. What comes back leaves through [`super::answer`].

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response};
use interlock_proto::{
    metadata,
    options::v1::Listener,
    policy::{MethodPolicy, Policies},
};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tonic::{Code, body::Body};
use tower::Service;
use tracing::Instrument as _;

use super::{
    ServerLimits, answer,
    call::Call,
    caps::{Caps, Permit},
    peer::{Peer, Source},
    strict,
    timely::Timely,
};
use crate::error::{Error, Reason};

/// When a caller that found no room should try again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A service behind its bounds.
#[derive(Clone, Debug)]
pub(super) struct Bounded<S> {
    room: Arc<Room>,
    inner: S,
}

/// The room of one listener. Each has its own: whoever fills that of clients leaves room for services,
/// and whoever fills both leaves room for health.
#[derive(Debug)]
pub(super) struct Room {
    limits: ServerLimits,
    calls: Arc<Caps>,
    parked: Arc<Caps>,
    /// Streams that anyone may open. Those of known callers do not compete with them.
    watches: Arc<Caps>,
}

impl Room {
    pub(super) fn new(limits: ServerLimits, listener: Listener) -> Arc<Self> {
        let caps = |total: usize| {
            // Clients come from anywhere; services are few, and known by their certificates.
            let per_source = if listener == Listener::Public { total.div_ceil(2) } else { total };
            Caps::new(total, per_source)
        };
        let (calls, parked) = (caps(limits.calls), caps(limits.parked_calls));
        let watches = caps(limits.watches());
        Arc::new(Self { limits, calls, parked, watches })
    }
}

/// What a call holds while it runs: an ordinary one a place of its connection and one of the listener,
/// a parked one a place of its own kind until its stream has ended.
struct Held {
    _ordinary: Option<(OwnedSemaphorePermit, Permit)>,
    parked: Option<Permit>,
}

impl<S> Bounded<S> {
    pub(super) fn new(room: Arc<Room>, inner: S) -> Self {
        Self { room, inner }
    }
}

impl<S> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let arrived = Instant::now();
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let room = Arc::clone(&self.room);
        strict::mark_sensitive(request.headers_mut());
        let request_id = strict::request_id(request.headers()).to_string();
        let policy = Policies::all().of(request.uri().path());
        let span = span(&request_id, policy, &request);
        let answered = async move {
            let mut answer = match answer(&room, inner, request, policy, &request_id, arrived).await {
                Ok(answer) => answer,
                Err(error) => answer::refusal(&error, &request_id),
            };
            measure(policy, &answer, arrived);
            if let Ok(value) = HeaderValue::try_from(request_id) {
                answer.headers_mut().insert(metadata::REQUEST_ID, value);
            }
            Ok(answer)
        };
        Box::pin(answered.instrument(span))
    }
}

async fn answer<S>(
    room: &Room,
    mut inner: S,
    mut request: Request<Body>,
    policy: Option<&'static MethodPolicy>,
    request_id: &str,
    arrived: Instant,
) -> Result<Response<Body>, Error>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    if let Some(answer) = strict::not_grpc(&request) {
        return Ok(answer);
    }
    let policy = policy.ok_or_else(|| Error::new(Reason::Unimplemented, "no such method"))?;
    let peer = request.extensions_mut().remove::<Arc<Peer>>();
    let peer = peer.ok_or_else(|| Error::internal("a request without its connection"))?;
    let limit = time_limit(&room.limits, policy, strict::timeout(request.headers())?);
    let held = enter(room, &peer, policy)?;
    request.extensions_mut().insert(Call::new(request_id.to_owned(), policy, &peer));
    request.extensions_mut().insert(peer);
    if policy.parks && !policy.client_streaming {
        // The answer may take long; the question may not.
        request = request.map(|body| Body::new(Timely::new(body, arrived + room.limits.timeout)));
    }

    // A panic of a handler is a fault of its own call only, and answered as one.
    let answering = AssertUnwindSafe(inner.call(request)).catch_unwind();
    let answered = match limit {
        None => answering.await,
        Some(limit) if limit.is_zero() => return Err(too_late()),
        Some(limit) => tokio::time::timeout_at(arrived + limit, answering).await.map_err(|_| too_late())?,
    };
    let answer = match answered {
        Ok(Ok(answer)) => answer,
        Ok(Err(never)) => match never {},
        Err(_) => {
            tracing::error!(request_id, method = policy.path, "a handler panicked");
            return Err(Error::internal("a handler panicked"));
        }
    };
    Ok(answer::finished(answer, request_id, held.parked))
}

/// A parked call has bounds of its own, and ends early only where its caller says so.
fn time_limit(limits: &ServerLimits, policy: &MethodPolicy, asked: Option<Duration>) -> Option<Duration> {
    if policy.parks {
        return asked.map(|asked| asked.min(limits.connection_age));
    }
    let most = limits.timeout_of(&policy.path);
    Some(asked.map_or(most, |asked| asked.min(most)))
}

fn too_late() -> Error {
    Error::new(Reason::DeadlineExceeded, answer::DEADLINE)
}

fn enter(room: &Room, peer: &Peer, policy: &MethodPolicy) -> Result<Held, Error> {
    let full = || Error::new(Reason::LimitReached, "too many calls at once").retry_after(RETRY_AFTER);
    let source = Source::of(peer.address.ip());
    let place = |of: &Arc<Caps>| of.admit(source).ok_or_else(full);
    Ok(if policy.parks {
        let kind = if policy.public() && policy.server_streaming { &room.watches } else { &room.parked };
        Held { _ordinary: None, parked: Some(place(kind)?) }
    } else {
        let of_connection = Arc::clone(&peer.calls).try_acquire_owned().map_err(|_| full())?;
        Held { _ordinary: Some((of_connection, place(&room.calls)?)), parked: None }
    })
}

/// Of level debug: at info a call costs no span, and what is logged of it then names it by itself.
fn span(request_id: &str, policy: Option<&MethodPolicy>, request: &Request<Body>) -> tracing::Span {
    let method = policy.map_or("unknown", |policy| policy.path.as_str());
    let peer = request.extensions().get::<Arc<Peer>>();
    let listener = peer.map(|peer| peer.listener.as_str_name());
    let peer = peer.map(|peer| tracing::field::display(peer.address));
    tracing::debug_span!("call", request_id, method, listener, peer, principal = tracing::field::Empty)
}

fn measure(policy: Option<&'static MethodPolicy>, answer: &Response<Body>, arrived: Instant) {
    let method = policy.map_or("unknown", |policy| policy.path.as_str());
    let code = match answer::code(answer) {
        Some(code) => name_of(code),
        None if answer.status().is_success() => name_of(Code::Ok),
        None => "no gRPC",
    };
    let elapsed = arrived.elapsed();
    tracing::debug!(code, elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), "answered");
    metrics::counter!("calls_total", "method" => method, "code" => code).increment(1);
    metrics::histogram!("call_seconds", "method" => method).record(elapsed.as_secs_f64());
}

/// As the protocol's table of codes has it.
fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
