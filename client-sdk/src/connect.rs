//! Connections: where the service is, how it is reached, and how a broken one comes back.
//!
//! A [`Connection`] is lazy and cheap to clone. It connects at the first call, tries its endpoints in
//! turn, and connects again by itself after any break (GOAWAY and ENHANCE_YOUR_CALM included: what
//! was streaming resumes in [`crate::EventStream`] and [`crate::Worker`]).
//!
//! Calls that park and streams take up a connection's streams for as long as they last. So that ordinary calls
//! always find one, the line to an endpoint has further HTTP/2 connections where many of those are open.
//!
//! The HTTP/2 windows are 64 KiB a stream and 8 MiB a connection: with larger stream windows one
//! unread stream of small events would make the peer end the whole connection.

use std::{
    fmt, io,
    ops::Deref,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::Uri;
use hyper_util::rt::TokioIo;
use interlock_proto::policy::Policies;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    berths::{Berth, Berths},
    error::Error,
    internal_token::InternalToken,
    random,
    rest::Rest,
    tls::{Source, Tls},
};

const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(5);
const CALLS_IN_FLIGHT_MAX: usize = 900;
const ENDPOINTS_MAX: usize = 16;

/// A way to a service. Lazy, cheap to clone, reconnects by itself.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    endpoint: Endpoint,
    dialer: Dialer,
    line: ArcSwap<Line>,
    internal_token: Option<Arc<InternalToken>>,
    deadline: Duration,
}

/// The way to one endpoint. Replaced as a whole to move on to another.
pub(crate) struct Line {
    channel: Channel,
    berths: Berths,
}

/// A call's or a stream's place on a line, until it is dropped.
pub(crate) struct Place {
    line: Arc<Line>,
    pub(crate) channel: Channel,
    _berth: Option<Berth>,
}

impl Deref for Place {
    type Target = Arc<Line>;

    fn deref(&self) -> &Arc<Line> {
        &self.line
    }
}

/// What a connection is made from.
#[derive(Clone, Debug)]
pub struct ConnectionBuilder {
    endpoints: Vec<String>,
    spread: bool,
    tls: Option<Tls>,
    internal_token: Option<PathBuf>,
    connect_timeout: Duration,
    deadline: Duration,
}

impl Connection {
    /// A connection to `https://host:port`, or to `http://host:port` on a loopback address.
    pub fn to(endpoint: impl Into<String>) -> ConnectionBuilder {
        ConnectionBuilder {
            endpoints: vec![endpoint.into()],
            spread: false,
            tls: None,
            internal_token: None,
            connect_timeout: Duration::from_secs(3),
            deadline: Duration::from_secs(10),
        }
    }

    /// The line that calls use now.
    pub(crate) fn line(&self) -> Arc<Line> {
        self.0.line.load_full()
    }

    /// A place for a call of the method at `path`.
    pub(crate) fn place(&self, path: &str) -> Place {
        let line = self.line();
        let parks = Policies::all().of(path).is_some_and(|policy| policy.parks);
        if !parks {
            return Place { channel: line.channel.clone(), line, _berth: None };
        }
        let (channel, berth) = line.berths.take(&line.channel, || self.0.channel());
        Place { channel, line, _berth: Some(berth) }
    }

    /// The default deadline of a call.
    pub(crate) fn deadline(&self) -> Duration {
        self.0.deadline
    }

    pub(crate) fn internal_token(&self) -> Option<&Arc<InternalToken>> {
        self.0.internal_token.as_ref()
    }

    /// How long no new connection is tried.
    pub(crate) fn rest_left(&self) -> Duration {
        self.0.dialer.targets.rest.left()
    }

    /// Whether there is another endpoint to go to.
    pub(crate) fn has_choice(&self) -> bool {
        self.0.dialer.targets.list.len() > 1
    }

    /// Leaves the channel `from` for a fresh one, which starts at the next endpoint. Calls and streams
    /// on the old one may end there. Does nothing if somebody else has moved on from it.
    pub(crate) fn move_on(&self, from: &Arc<Line>) {
        let current = self.0.line.load();
        if !Arc::ptr_eq(&current, from) {
            return;
        }
        self.0.dialer.targets.preferred.fetch_add(1, Ordering::Relaxed);
        let line = Line { channel: self.0.channel(), berths: Berths::default() };
        self.0.line.compare_and_swap(from, Arc::new(line));
    }
}

impl Shared {
    fn channel(&self) -> Channel {
        self.endpoint.connect_with_connector_lazy(self.dialer.clone())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("endpoints", &self.0.dialer.targets.list).finish_non_exhaustive()
    }
}

impl ConnectionBuilder {
    /// A further endpoint of the same service, for when those before it are dead. At most 16.
    #[must_use]
    pub fn or(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// Begins at any of the endpoints, as chance has it, instead of the first: many programs with one list share its
    /// endpoints evenly. Each stays with one, and moves on from a dead one.
    #[must_use]
    pub fn spread(mut self) -> Self {
        self.spread = true;
        self
    }

    /// How `https` endpoints are believed. Required for them.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sends the first line of this file as internal token with every call. For services only.
    #[must_use]
    pub fn internal_token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.internal_token = Some(path.into());
        self
    }

    /// How long one endpoint may take to answer TCP and TLS. 3 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, at_most: Duration) -> Self {
        self.connect_timeout = at_most;
        self
    }

    /// How long a call may take in all, repetitions included, where it says nothing else. 10 s by
    /// default.
    #[must_use]
    pub fn deadline(mut self, at_most: Duration) -> Self {
        self.deadline = at_most;
        self
    }

    /// Reads the files now; connects at the first call. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A bad endpoint, `http` to an address that is not loopback, `https` without [`Tls`], or a file
    /// that cannot be used.
    pub fn open(self) -> Result<Connection, Error> {
        let targets = self.endpoints.iter().map(|e| Target::parse(e)).collect::<Result<Vec<_>, _>>()?;
        if targets.len() > ENDPOINTS_MAX {
            return Err(Error::invalid("endpoint", "at most 16"));
        }
        if self.tls.is_none() && targets.iter().any(|t| t.secure) {
            return Err(Error::invalid("tls", "https endpoints need a CA file"));
        }
        if let Some(tls) = &self.tls {
            for target in targets.iter().filter(|target| target.secure) {
                tls.name_of(&target.host).map_err(|e| Error::invalid("server_name", e.to_string()))?;
            }
        }
        let tls = self.tls.map(Source::load).transpose().map_err(|e| Error::invalid("tls", e.to_string()))?;
        let internal_token = self.internal_token.map(InternalToken::load).transpose();
        let internal_token =
            internal_token.map_err(|e| Error::invalid("internal_token_file", e.to_string()))?;

        let endpoint = endpoint(&targets[0])?;
        let preferred = AtomicUsize::new(if self.spread { random::below(targets.len()) } else { 0 });
        let dialer = Dialer {
            targets: Arc::new(Targets { list: targets, preferred, rest: Rest::new() }),
            tls: tls.map(Arc::new),
            within: self.connect_timeout,
        };
        let channel = endpoint.connect_with_connector_lazy(dialer.clone());
        Ok(Connection(Arc::new(Shared {
            endpoint,
            dialer,
            line: ArcSwap::from_pointee(Line { channel, berths: Berths::default() }),
            internal_token: internal_token.map(Arc::new),
            deadline: self.deadline,
        })))
    }
}

fn endpoint(first: &Target) -> Result<Endpoint, Error> {
    let scheme = if first.secure { "https" } else { "http" };
    let named = |scheme: &str| format!("{scheme}://{}", first.authority);
    let bad = |_| Error::invalid("endpoint", "scheme, host and port");
    let origin =
        named(scheme).parse::<Uri>().map_err(|_| Error::invalid("endpoint", "scheme, host and port"))?;
    // TLS is the dialer's own: towards the channel the inner scheme is always plain.
    let endpoint = Endpoint::from_shared(named("http")).map_err(bad)?.origin(origin);
    let endpoint =
        endpoint.user_agent(concat!("interlock-client/", env!("CARGO_PKG_VERSION"))).map_err(bad)?;
    Ok(endpoint
        .concurrency_limit(CALLS_IN_FLIGHT_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_WITHIN)
        .keep_alive_while_idle(true))
}

/// One endpoint, taken apart.
#[derive(Clone, Debug)]
struct Target {
    secure: bool,
    host: String,
    port: u16,
    authority: String,
}

impl Target {
    fn parse(text: &str) -> Result<Self, Error> {
        let bad = || Error::invalid("endpoint", "https://host:port, or http://host:port on loopback");
        let uri = text.parse::<Uri>().map_err(|_| bad())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let authority = uri.authority().ok_or_else(bad)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let loopback =
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !secure && !loopback {
            return Err(Error::invalid("endpoint", "https, since the address is not loopback"));
        }
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { secure, host, port, authority: authority.as_str().to_owned() })
    }
}

#[derive(Debug)]
struct Targets {
    list: Vec<Target>,
    /// Where the next connection starts: the last one that answered.
    preferred: AtomicUsize,
    /// Between two tries.
    rest: Rest,
}

/// Makes one connection for a channel: each endpoint in turn, TCP, then TLS.
#[derive(Clone, Debug)]
struct Dialer {
    targets: Arc<Targets>,
    tls: Option<Arc<Source>>,
    within: Duration,
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

type Dialed = TokioIo<Box<dyn Socket>>;

impl tower::Service<Uri> for Dialer {
    type Response = Dialed;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Dialed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.any().await })
    }
}

impl Dialer {
    async fn any(&self) -> io::Result<Dialed> {
        let Targets { list, preferred, rest } = &*self.targets;
        rest.is_over()?;
        let start = preferred.load(Ordering::Relaxed);
        let mut last = io::Error::other("no endpoint");
        for i in (0..list.len()).map(|i| (start + i) % list.len()) {
            match timeout(self.within, self.one(&list[i])).await {
                Ok(Ok(socket)) => {
                    preferred.store(i, Ordering::Relaxed);
                    rest.end();
                    return Ok(TokioIo::new(socket));
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
            tracing::debug!(endpoint = %list[i].authority, error = %last, "endpoint not reached");
        }
        rest.begin(&last);
        Err(last)
    }

    async fn one(&self, target: &Target) -> io::Result<Box<dyn Socket>> {
        let tcp = TcpStream::connect((target.host.as_str(), target.port)).await?;
        tcp.set_nodelay(true)?;
        let Some(source) = self.tls.as_ref().filter(|_| target.secure) else {
            return Ok(Box::new(tcp));
        };
        let connector = tokio_rustls::TlsConnector::from(source.current().await);
        let tls = connector.connect(source.tls().name_of(&target.host)?, tcp).await?;
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("the server does not speak HTTP/2"));
        }
        Ok(Box::new(tls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_safe_is_refused_before_any_connection() {
        for (endpoint, field) in [
            ("http://example.org:1", "endpoint"),
            ("ftp://127.0.0.1:1", "endpoint"),
            ("127.0.0.1:1", "endpoint"),
            ("https://127.0.0.1:1", "tls"),
        ] {
            let error = Connection::to(endpoint).open().expect_err(endpoint);
            assert_eq!(error.field_violations()[0].field, field, "{endpoint}");
        }
        assert!(Connection::to("http://[::1]:1").open().is_ok());
        assert!(Connection::to("http://localhost:1").open().is_ok());
    }

    #[tokio::test]
    async fn many_connections_share_the_endpoints_where_they_are_to() {
        let to = || Connection::to("http://[::1]:1").or("http://[::1]:2").or("http://[::1]:3");
        let start = |connection: Connection| connection.0.dialer.targets.preferred.load(Ordering::Relaxed);
        let mut counts = [0; 3];
        for _ in 0..600 {
            assert_eq!(start(to().open().expect("good")), 0, "the first, where nothing is said");
            counts[start(to().spread().open().expect("good"))] += 1;
        }
        // Each is 10 standard deviations from its 200.
        assert!(counts.iter().all(|count| (85..=315).contains(count)), "{counts:?}");
    }
}
