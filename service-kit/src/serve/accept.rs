//! The accept loop of a listener, and the life of one connection.
//!
//! tonic's own server ignores socket options here, spins on accept errors, has one configuration for
//! its life and one age for all connections; so connections are accepted, shaken hands with, bounded
//! and ended here, and hyper serves HTTP/2 on them.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use interlock_proto::options::v1::Listener;
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;

use super::{
    Lanes, ServerLimits,
    bounds::{Answer, Bounded},
    caps::{Caps, Permit},
    peer::{Peer, PeerCertificate, Source},
    wire::{self, Stream, Wire},
};
use crate::tls::{ALPN_H2, Tls};

/// How often the log says that connections are refused.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Told of a certificate that was not accepted: who showed it, and why not.
pub(super) type OnRefusedCertificate =
    Arc<dyn Fn(SocketAddr, String) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A listener with what it needs to admit connections.
pub(super) struct Door {
    pub(super) listener: Listener,
    pub(super) socket: TcpListener,
    /// `None`: plain text.
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) on_refused: OnRefusedCertificate,
}

/// What all connections of a door share.
struct Shared<A> {
    listener: Listener,
    tls: Option<Arc<Tls>>,
    on_refused: OnRefusedCertificate,
    limits: ServerLimits,
    service: Bounded<A>,
    open: Arc<Caps>,
    shaking: Arc<Caps>,
    shutdown: CancellationToken,
}

/// Why a connection never came to be served.
enum Unopened {
    /// The peer was slow, went away or spoke something else.
    Unusable(&'static str),
    /// TLS asked for a certificate and did not get a good one.
    Certificate(String),
}

/// Where connections live, and what waits for their end.
pub(super) struct Homes {
    pub(super) lanes: Arc<Lanes>,
    pub(super) tracker: TaskTracker,
}

/// Accepts until `shutdown`; then returns, and lets go of the socket. Connections live in `homes`.
pub(super) async fn run<A: Answer>(
    door: Door,
    service: Bounded<A>,
    limits: ServerLimits,
    shutdown: CancellationToken,
    homes: Homes,
) {
    let shared = Arc::new(Shared {
        listener: door.listener,
        tls: door.tls,
        on_refused: door.on_refused,
        open: Caps::new(limits.connections, limits.connections_per_source),
        shaking: Caps::new(limits.handshakes, limits.handshakes_per_source),
        limits,
        service,
        shutdown: shutdown.clone(),
    });
    let mut trouble = Trouble::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            accepted = door.socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                trouble.accepted(shared.listener);
                let source = Source::of(address.ip());
                match (shared.open.admit(source), shared.shaking.admit(source)) {
                    (Some(open), Some(shaking)) => {
                        let shared = Arc::clone(&shared);
                        let life = move |stream| async move {
                            connection(shared, stream, address, shaking).await;
                            drop(open);
                        };
                        if let Err(error) = homes.lanes.spawn(&homes.tracker, stream, life) {
                            tracing::warn!(%error, "a connection could not be moved to its lane");
                        }
                    }
                    _ => {
                        unopened(shared.listener, "full");
                        trouble.full(shared.listener, source);
                    }
                }
            }
            Err(error) => {
                unopened(shared.listener, "accept");
                trouble.failed(shared.listener, &error);
                tokio::time::sleep(shared.limits.accept_pause).await;
            }
        }
    }
}

/// What was said of connections that could not be taken. The metric counts each; the log is no flood.
#[derive(Debug, Default)]
struct Trouble {
    /// The last accept failed.
    failing: bool,
    /// When a full listener was told of last, and how many were refused since.
    full: Option<(Instant, u64)>,
}

impl Trouble {
    fn failed(&mut self, listener: Listener, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(%error, listener = listener.as_str_name(), "accept failed; trying on");
        }
    }

    fn accepted(&mut self, listener: Listener) {
        if std::mem::take(&mut self.failing) {
            tracing::info!(listener = listener.as_str_name(), "accepts again");
        }
    }

    fn full(&mut self, listener: Listener, source: Source) {
        let (told, refused) = self.full.unwrap_or((Instant::now(), 0));
        let first = self.full.is_none();
        if !first && told.elapsed() < TOLD_EVERY {
            self.full = Some((told, refused + 1));
            return;
        }
        let listener = listener.as_str_name();
        tracing::warn!(listener, %source, before = refused, "connection refused: too many are open");
        self.full = Some((Instant::now(), 0));
    }
}

fn unopened(listener: Listener, why: &'static str) {
    let listener = listener.as_str_name();
    metrics::counter!("connections_refused_total", "listener" => listener, "why" => why).increment(1);
}

async fn connection<A: Answer>(
    shared: Arc<Shared<A>>,
    stream: TcpStream,
    address: SocketAddr,
    shaking: Permit,
) {
    let opened = tokio::select! {
        biased;
        () = shared.shutdown.cancelled() => return,
        opened = open(&shared, stream, address) => opened,
    };
    drop(shaking);
    match opened {
        Ok((wire, peer)) => serve(&shared, wire, peer).await,
        Err(Unopened::Unusable(why)) => {
            tracing::debug!(peer = %address, why, "connection closed before its first call");
            unopened(shared.listener, why);
        }
        Err(Unopened::Certificate(why)) => {
            unopened(shared.listener, "certificate");
            // A record that cannot be written must not hold up a shutdown.
            let told = tokio::time::timeout(shared.limits.drain, (shared.on_refused)(address, why)).await;
            if told.is_err() {
                tracing::warn!(peer = %address, "a refused certificate could not be recorded in time");
            }
        }
    }
}

/// TLS, its protocol, and the first bytes of HTTP/2: each within its time.
async fn open<A>(
    shared: &Shared<A>,
    stream: TcpStream,
    address: SocketAddr,
) -> Result<(Wire, Peer), Unopened> {
    let limits = &shared.limits;
    prepare(&stream, limits).map_err(|_| Unopened::Unusable("socket"))?;
    let (mut stream, certificate): (Box<dyn Stream>, _) = match &shared.tls {
        None => (Box::new(stream), None),
        Some(tls) => {
            let accepting = TlsAcceptor::from(tls.config()).accept(stream);
            let shaken = tokio::time::timeout(limits.handshake_timeout, accepting)
                .await
                .map_err(|_| Unopened::Unusable("handshake timeout"))?
                .map_err(|error| refused_handshake(&error))?;
            let (_, session) = shaken.get_ref();
            if session.alpn_protocol() != Some(ALPN_H2) {
                return Err(Unopened::Unusable("alpn"));
            }
            let certificate = match session.peer_certificates().and_then(<[_]>::first) {
                None => None,
                Some(leaf) => Some(
                    PeerCertificate::read(leaf)
                        .ok_or_else(|| Unopened::Certificate("cannot be parsed".to_owned()))?,
                ),
            };
            (Box::new(shaken), certificate)
        }
    };
    let opening = tokio::time::timeout(limits.preface_timeout, wire::opening(&mut stream))
        .await
        .map_err(|_| Unopened::Unusable("preface timeout"))?
        .map_err(|_| Unopened::Unusable("preface"))?;
    let peer = Peer { address, listener: shared.listener, certificate };
    Ok((Wire::new(stream, opening, limits.frame_timeout), peer))
}

fn prepare(stream: &TcpStream, limits: &ServerLimits) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(stream, limits.keepalive_interval)?;
    rustix::net::sockopt::set_tcp_keepintvl(stream, limits.keepalive_timeout)?;
    Ok(())
}

fn refused_handshake(error: &io::Error) -> Unopened {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(
            fault @ (rustls::Error::NoCertificatesPresented
            | rustls::Error::InvalidCertificate(_)
            | rustls::Error::InvalidCertRevocationList(_)),
        ) => Unopened::Certificate(fault.to_string()),
        _ => Unopened::Unusable("handshake"),
    }
}

/// Serves calls until the peer leaves, the connection is old, or the server shuts down; then lets
/// open calls finish for a bounded time, and cuts.
async fn serve<A: Answer>(shared: &Shared<A>, wire: Wire, peer: Peer) {
    let limits = &shared.limits;
    let listener = shared.listener.as_str_name();
    metrics::counter!("connections_served_total", "listener" => listener).increment(1);
    metrics::gauge!("connections_open", "listener" => listener).increment(1.0);
    let connection = shared.service.connection(peer);
    let calls = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answer = connection.call(request.map(Body::new));
        async { Ok::<_, Infallible>(answer.await) }
    });
    let mut served = pin!(builder(limits).serve_connection(TokioIo::new(wire), calls));
    let mut end = pin!(tokio::time::sleep(jittered(limits.connection_age)));
    let (mut ending, mut draining) = (false, false);
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                break;
            }
            () = shared.shutdown.cancelled(), if !draining => {
                served.as_mut().graceful_shutdown();
                let cut = Instant::now() + limits.drain;
                let cut = if ending { cut.min(end.deadline()) } else { cut };
                end.as_mut().reset(cut);
                (ending, draining) = (true, true);
            }
            () = end.as_mut() => {
                if ending {
                    tracing::debug!("connection cut: its calls did not end in time");
                    break;
                }
                served.as_mut().graceful_shutdown();
                end.as_mut().reset(Instant::now() + limits.connection_age_grace);
                ending = true;
            }
        }
    }
    metrics::gauge!("connections_open", "listener" => listener).decrement(1.0);
}

fn builder(limits: &ServerLimits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .max_local_error_reset_streams(limits.local_error_resets)
        .max_pending_accept_reset_streams(limits.pending_accept_resets)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_header_list_size(limits.header_list_bytes)
        // What a slow reader can make one stream hold back here.
        .max_send_buf_size(usize::try_from(limits.stream_window_bytes).unwrap_or(usize::MAX))
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

/// Plus or minus a tenth, so that connections made together do not end together.
fn jittered(age: Duration) -> Duration {
    let [byte] = crate::random::bytes::<1>();
    age.mul_f64(0.9 + 0.2 * f64::from(byte) / 255.0)
}
