//! What bounds a call before any work: the outermost layer.
//!
//! In this order: request id and span; strict gRPC; the method's policy (none: no such method);
//! deadline; room. What comes back leaves through [`super::answer`].

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Request, Response};
use interlock_proto::{
    metadata,
    options::v1::Listener,
    policy::{MethodPolicy, Policies},
};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tonic::body::Body;
use tracing::Instrument as _;

use super::{
    ServerLimits, answer,
    call::Call,
    caps::{Caps, Permit},
    meters::Meters,
    peer::{Peer, Source},
    strict,
    timely::Timely,
};
use crate::error::{Error, Reason};

/// When a caller that found no room should try again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

const REQUEST_ID: HeaderName = HeaderName::from_static(metadata::REQUEST_ID);

/// What answers a call that is within its bounds.
pub(crate) trait Answer: Clone + Send + Sync + 'static {
    /// The answer.
    fn answer(
        &self,
        call: Call,
        peer: &Peer,
        request: Request<Body>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// What answers calls, behind its bounds.
#[derive(Clone, Debug)]
pub(super) struct Bounded<A> {
    room: Arc<Room>,
    inner: A,
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
    meters: Meters,
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
        Arc::new(Self { limits, calls, parked, watches, meters: Meters::new() })
    }
}

/// What a call holds while it runs: an ordinary one a place of its connection and one of the listener,
/// a parked one a place of its own kind until its stream has ended.
struct Held {
    _ordinary: Option<(OwnedSemaphorePermit, Permit)>,
    parked: Option<Permit>,
}

impl<A: Answer> Bounded<A> {
    pub(super) fn new(room: Arc<Room>, inner: A) -> Self {
        Self { room, inner }
    }

    /// The answer to a request that came in on a peer's connection.
    pub(super) fn call(
        &self,
        peer: Arc<Peer>,
        mut request: Request<Body>,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        let arrived = Instant::now();
        let (room, inner) = (Arc::clone(&self.room), self.inner.clone());
        strict::mark_sensitive(request.headers_mut());
        let request_id = strict::request_id(request.headers()).into_text();
        let policy = Policies::all().of(request.uri().path());
        let span = span(&request_id, policy, &peer);
        let answered = async move {
            let mut answer = match answer(&room, &inner, &peer, request, policy, &request_id, arrived).await {
                Ok(answer) => answer,
                Err(error) => answer::refusal(&error, &request_id),
            };
            room.meters.measure(policy, &answer, arrived.elapsed());
            if let Ok(value) = HeaderValue::try_from(request_id) {
                answer.headers_mut().insert(REQUEST_ID, value);
            }
            answer
        };
        Box::pin(answered.instrument(span))
    }
}

async fn answer<A: Answer>(
    room: &Room,
    inner: &A,
    peer: &Peer,
    mut request: Request<Body>,
    policy: Option<&'static MethodPolicy>,
    request_id: &str,
    arrived: Instant,
) -> Result<Response<Body>, Error> {
    if let Some(answer) = strict::not_grpc(&request) {
        return Ok(answer);
    }
    let policy = policy.ok_or_else(|| Error::new(Reason::Unimplemented, "no such method"))?;
    let limit = time_limit(&room.limits, policy, strict::timeout(request.headers())?);
    let held = enter(room, peer, policy)?;
    let call = Call::new(request_id.to_owned(), policy, peer);
    if policy.parks && !policy.client_streaming {
        // The answer may take long; the question may not.
        request = request.map(|body| Body::new(Timely::new(body, arrived + room.limits.timeout)));
    }

    // A panic of a handler is a fault of its own call only, and answered as one.
    let answering = AssertUnwindSafe(inner.answer(call, peer, request)).catch_unwind();
    let answered = match limit {
        None => answering.await,
        Some(limit) if limit.is_zero() => return Err(too_late()),
        Some(limit) => tokio::time::timeout_at(arrived + limit, answering).await.map_err(|_| too_late())?,
    };
    let Ok(answer) = answered else {
        tracing::error!(request_id, method = policy.path, "a handler panicked");
        return Err(Error::internal("a handler panicked"));
    };
    Ok(if policy.server_streaming || held.parked.is_some() {
        answer::finished_later(answer, request_id, held.parked)
    } else {
        answer::finished(answer, request_id)
    })
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
fn span(request_id: &str, policy: Option<&MethodPolicy>, peer: &Peer) -> tracing::Span {
    let method = policy.map_or("unknown", |policy| policy.path.as_str());
    let listener = peer.listener.as_str_name();
    let peer = tracing::field::display(peer.address);
    tracing::debug_span!("call", request_id, method, listener, peer, principal = tracing::field::Empty)
}
