//! What bounds a call before any work: the outermost layer.
//!
//! In this order: request id and span; strict gRPC; the method's policy (none: no such method);
//! deadline; room. What comes back leaves through [`super::answer`].

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Request, Response};
use interlock_proto::{
    metadata,
    options::v1::Listener,
    policy::{MethodPolicy, Policies},
};
use tokio::time::Instant;
use tonic::body::Body;
use tracing::Instrument as _;

use super::{
    ServerLimits, Source, answer,
    call::Call,
    caps::{Caps, Count, Permit, Seat},
    meters::Meters,
    peer::Peer,
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

/// What answers the calls of one connection. All that they share is here, so that a call touches one counter of
/// references, on the core that its connection lives on.
pub(super) struct Connection<A> {
    bounded: Bounded<A>,
    peer: Peer,
    /// Ordinary calls that are open on it.
    open: Count,
    calls: Arc<Seat>,
    parked: Arc<Seat>,
    watches: Arc<Seat>,
}

/// What a call holds while it runs: an ordinary one a place of its connection and one of the listener,
/// a parked one a place of its own kind until its stream has ended.
enum Held<'a> {
    Ordinary { _place: Place<'a>, _permit: Permit },
    Parked(Permit),
}

/// One ordinary call of a connection, until it is dropped.
struct Place<'a>(&'a Count);

impl<A: Answer> Bounded<A> {
    pub(super) fn new(room: Arc<Room>, inner: A) -> Self {
        Self { room, inner }
    }

    /// What answers the calls that come in on a peer's connection.
    pub(super) fn connection(&self, peer: Peer) -> Arc<Connection<A>> {
        let (bounded, source) = (self.clone(), Source::of(peer.address.ip()));
        let Room { limits, calls, parked, watches, .. } = &*self.room;
        let open = Count::up_to(limits.calls_per_connection);
        let (calls, parked, watches) = (calls.seat(source), parked.seat(source), watches.seat(source));
        Arc::new(Connection { bounded, peer, open, calls, parked, watches })
    }
}

impl<A: Answer> Connection<A> {
    /// The answer to a request that came in on this connection.
    pub(super) fn call(
        self: &Arc<Self>,
        mut request: Request<Body>,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        let arrived = Instant::now();
        let connection = Arc::clone(self);
        strict::mark_sensitive(request.headers_mut());
        let request_id = strict::request_id(request.headers()).into_text();
        let policy = Policies::all().of(request.uri().path());
        let span = span(&request_id, policy, &self.peer);
        let answered = async move {
            let mut answer = match answer(&connection, request, policy, &request_id, arrived).await {
                Ok(answer) => answer,
                Err(error) => answer::refusal(&error, &request_id),
            };
            connection.bounded.room.meters.measure(policy, &answer, arrived.elapsed());
            if let Ok(mut value) = HeaderValue::try_from(request_id) {
                // No secret, but another one each time: it would push all that repeats out of HPACK's table.
                value.set_sensitive(true);
                answer.headers_mut().insert(REQUEST_ID, value);
            }
            answer
        };
        Box::pin(answered.instrument(span))
    }

    fn enter(&self, policy: &MethodPolicy) -> Result<Held<'_>, Error> {
        let full = || Error::new(Reason::LimitReached, "too many calls at once").retry_after(RETRY_AFTER);
        if policy.parks {
            let kind = if policy.public() && policy.server_streaming { &self.watches } else { &self.parked };
            return kind.admit().map(Held::Parked).ok_or_else(full);
        }
        let place = Place::of(&self.open).ok_or_else(full)?;
        let permit = self.calls.admit().ok_or_else(full)?;
        Ok(Held::Ordinary { _place: place, _permit: permit })
    }
}

impl<'a> Place<'a> {
    fn of(count: &'a Count) -> Option<Self> {
        count.take().then(|| Self(count))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

async fn answer<A: Answer>(
    connection: &Connection<A>,
    mut request: Request<Body>,
    policy: Option<&'static MethodPolicy>,
    request_id: &str,
    arrived: Instant,
) -> Result<Response<Body>, Error> {
    if let Some(answer) = strict::not_grpc(&request) {
        return Ok(answer);
    }
    let policy = policy.ok_or_else(|| Error::new(Reason::Unimplemented, "no such method"))?;
    let Connection { bounded: Bounded { room, inner }, peer, .. } = connection;
    let limit = time_limit(&room.limits, policy, strict::timeout(request.headers())?);
    let held = connection.enter(policy)?;
    let call = Call::new(request_id.to_owned(), policy, peer);
    if policy.parks && !policy.client_streaming {
        // The answer may take long; the question may not.
        request = request.map(|body| Body::new(Timely::new(body, arrived + room.limits.timeout)));
    }

    // A panic of a handler is a fault of its own call only, and answered as one.
    let answering = pin!(AssertUnwindSafe(inner.answer(call, peer, request)).catch_unwind());
    let answered = match limit {
        None => answering.await,
        Some(limit) if limit.is_zero() => return Err(too_late()),
        Some(limit) => tokio::time::timeout_at(arrived + limit, answering).await.map_err(|_| too_late())?,
    };
    let Ok(answer) = answered else {
        tracing::error!(request_id, method = policy.path, "a handler panicked");
        return Err(Error::internal("a handler panicked"));
    };
    Ok(match held {
        Held::Parked(permit) => answer::finished_later(answer, request_id, Some(permit)),
        Held::Ordinary { .. } if policy.server_streaming => answer::finished_later(answer, request_id, None),
        Held::Ordinary { .. } => answer::finished(answer, request_id),
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

/// Of level debug: at info a call costs no span, and what is logged of it then names it by itself.
fn span(request_id: &str, policy: Option<&MethodPolicy>, peer: &Peer) -> tracing::Span {
    let method = policy.map_or("unknown", |policy| policy.path.as_str());
    let listener = peer.listener.as_str_name();
    let peer = tracing::field::display(peer.address);
    tracing::debug_span!("call", request_id, method, listener, peer, principal = tracing::field::Empty)
}
