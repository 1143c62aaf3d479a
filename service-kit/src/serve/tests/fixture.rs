//! The server that the tests talk to: two services with fakes behind them, all three listeners.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::Stream;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use interlock_proto::{
    auth::v1::{
        CheckMembershipRequest, CheckMembershipResponse, DescribeOwnerRequest, DescribeOwnerResponse,
        HoldLeaseRequest, HoldLeaseResponse, ValidateRequest, ValidateResponse, WhoAmIRequest,
        WhoAmIResponse,
        identity_service_server::{IdentityService, IdentityServiceServer},
        trust_service_server::{TrustService, TrustServiceServer},
    },
    credential::{Credential, Kind},
    options::v1::Listener,
};
use parking_lot::Mutex;
use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::{
    authn::{self, Admit, Bearer, Call, InternalTrust, LiveTrust, Presented, Refused, login_required},
    clock::{Clock, Timestamp},
    config::Profile,
    error::{Error, Reason},
    health::Health,
    health_state,
    internal_token::InternalToken,
    pki::{Issued, Leaf, Pki},
    reflection, secret_file,
    serve::{ServeError, Server, ServerLimits, Services},
    tls::{Tls, TlsKind, TlsPaths},
};

pub(super) const TOKEN: &str = "internal-0123456789-0123456789-0123456789";
/// How long a condition may take to become true.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn owner() -> String {
    format!("Bearer {}", Credential::new(Kind::Owner, &[1; 32]).expose())
}

pub(super) fn expired() -> String {
    format!("Bearer {}", Credential::new(Kind::Owner, &[2; 32]).expose())
}

pub(super) fn unknown() -> String {
    format!("Bearer {}", Credential::new(Kind::Owner, &[3; 32]).expose())
}

/// Decides gate 1 on three fixed credentials, and keeps what was refused.
#[derive(Default)]
pub(super) struct Door {
    pub(super) refusals: Mutex<Vec<(String, Reason, Option<String>)>>,
    pub(super) handshakes: Mutex<Vec<(Listener, String)>>,
    /// Records of handshakes never end.
    pub(super) stuck: std::sync::atomic::AtomicBool,
}

impl Admit for Door {
    type Caller = String;

    async fn admit(&self, call: &Call, presented: Presented) -> Result<String, Refused<String>> {
        if let Some(service) = &call.service {
            return Ok(service.path().to_owned());
        }
        let Bearer::Credential(credential) = presented.bearer else {
            return if call.policy.public() { Ok("anyone".to_owned()) } else { Err(login_required().into()) };
        };
        if credential.expose() == &owner()[7..] {
            return Ok("alice".to_owned());
        }
        if credential.expose() == &expired()[7..] {
            let error = Error::new(Reason::TokenExpired, "the credential has expired");
            return Err(Refused { caller: Some("alice".to_owned()), error });
        }
        Err(login_required().into())
    }

    async fn refused(&self, call: &Call, caller: Option<&String>, error: &Error) {
        self.refusals.lock().push((call.policy.path.clone(), error.reason(), caller.cloned()));
    }

    async fn handshake_refused(&self, listener: Listener, _: SocketAddr, why: &str) {
        self.handshakes.lock().push((listener, why.to_owned()));
        if self.stuck.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

/// Both services: counts its runs, and can be told to hang.
#[derive(Clone, Default)]
pub(super) struct Fake {
    runs: Arc<AtomicUsize>,
}

impl Fake {
    fn ran(&self) {
        self.runs.fetch_add(1, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl IdentityService for Fake {
    async fn who_am_i(
        &self,
        mut request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        self.ran();
        let (call, caller) = authn::caller::<String, _>(&mut request);
        match call.named_project.as_deref() {
            Some("hang") => std::future::pending().await,
            Some("panic") => panic!("as told"),
            Some("busy") => Err(Error::new(Reason::SessionBusy, "busy").to_status(&call.request_id)),
            _ => Ok(Response::new(WhoAmIResponse { display_name: caller, ..Default::default() })),
        }
    }
}

#[tonic::async_trait]
impl TrustService for Fake {
    type HoldLeaseStream = std::pin::Pin<Box<dyn Stream<Item = Result<HoldLeaseResponse, Status>> + Send>>;

    async fn hold_lease(
        &self,
        mut request: Request<Streaming<HoldLeaseRequest>>,
    ) -> Result<Response<Self::HoldLeaseStream>, Status> {
        self.ran();
        let (call, _) = authn::caller::<String, _>(&mut request);
        assert_eq!(call.recheck_service(Clock::system().now()).map_err(|e| e.reason()), Ok(()));
        let ended = call.recheck_service(Timestamp::from_micros(i64::MAX)).map_err(|e| e.reason());
        assert_eq!(ended, Err(Reason::Forbidden), "the certificate has an end");
        let mut messages = request.into_inner();
        Ok(Response::new(Box::pin(async_stream(async move {
            while let Some(_message) = messages.message().await? {}
            Err(Status::internal("an inner text"))
        }))))
    }

    async fn validate(
        &self,
        mut request: Request<ValidateRequest>,
    ) -> Result<Response<ValidateResponse>, Status> {
        self.ran();
        let (_, caller) = authn::caller::<String, _>(&mut request);
        Ok(Response::new(ValidateResponse { epoch: caller, ..Default::default() }))
    }

    async fn describe_owner(
        &self,
        _: Request<DescribeOwnerRequest>,
    ) -> Result<Response<DescribeOwnerResponse>, Status> {
        self.ran();
        Ok(Response::new(DescribeOwnerResponse::default()))
    }

    async fn check_membership(
        &self,
        _: Request<CheckMembershipRequest>,
    ) -> Result<Response<CheckMembershipResponse>, Status> {
        self.ran();
        Ok(Response::new(CheckMembershipResponse::default()))
    }
}

/// A stream that gives one answer when `work` ends.
fn async_stream<T>(work: impl Future<Output = Result<T, Status>>) -> impl Stream<Item = Result<T, Status>> {
    futures_util::stream::once(work)
}

pub(super) struct Fixture {
    pub(super) pki: Pki,
    pub(super) public: SocketAddr,
    pub(super) internal: SocketAddr,
    pub(super) health: SocketAddr,
    pub(super) tls: Arc<Tls>,
    pub(super) internal_tls: Arc<Tls>,
    pub(super) trust: LiveTrust,
    pub(super) door: Arc<Door>,
    pub(super) state: health_state::Health,
    pub(super) shutdown: CancellationToken,
    pub(super) served: JoinHandle<Result<(), ServeError>>,
    fake: Fake,
    folder: TempDir,
}

/// What a client shows and asks for in TLS.
pub(super) struct Shows<'a> {
    pub(super) certificate: Option<&'a Issued>,
    pub(super) alpn: &'static [&'static [u8]],
    pub(super) tls12: bool,
}

impl Default for Shows<'_> {
    fn default() -> Self {
        Self { certificate: None, alpn: &[b"h2"], tls12: false }
    }
}

impl Fixture {
    pub(super) async fn start() -> Self {
        Self::with(ServerLimits::auth()).await
    }

    pub(super) async fn with(limits: ServerLimits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let domain = "interlock.test".parse().expect("a trust domain");
        let now = Clock::system().now();
        let pki = Pki::create(&folder.path().join("pki"), domain, now).expect("an authority");
        let server = pki.issue(&Leaf::new("auth", now)).expect("issued");
        let token = folder.path().join("internal-token");
        secret_file::write(&token, TOKEN.as_bytes()).expect("written");
        let token = InternalToken::load(&token, Profile::Hardened).expect("good");

        revoke(&pki, &crl_file(&folder), &[]);
        let paths = TlsPaths {
            certificate: server.cert.clone(),
            key: server.key.clone(),
            client_ca: Some(pki.ca()),
            client_crl: Some(crl_file(&folder)),
        };
        let load = |kind| Arc::new(Tls::load(paths.clone(), kind, Profile::Hardened).expect("good files"));
        let tls = load(TlsKind::Public { tls12: false });
        let internal_tls = load(TlsKind::Internal);
        let allowed = pki.issue(&Leaf::new("gateway", now)).expect("issued").id;
        let trust = LiveTrust::new(InternalTrust::new(pki.trust_domain().clone(), vec![allowed], token));

        let (door, fake) = (Arc::new(Door::default()), Fake::default());
        let shutdown = CancellationToken::new();
        let services = Services::new()
            .with(IdentityServiceServer::new(fake.clone()).max_decoding_message_size(limits.message_bytes))
            .with(TrustServiceServer::new(fake.clone()).max_decoding_message_size(limits.message_bytes));
        let state = health_state::Health::new(["store"]);
        let health = Health::new(state.clone(), services.names(), shutdown.clone());
        let services = reflection::add(services.with(health.server())).expect("good descriptors");

        let mut sockets = Vec::new();
        for _ in 0..3 {
            sockets.push(TcpListener::bind("127.0.0.1:0").await.expect("a free port"));
        }
        let [public, internal, health_socket]: [TcpListener; 3] = sockets.try_into().expect("three");
        let address = |socket: &TcpListener| socket.local_addr().expect("bound");
        let addresses = [address(&public), address(&internal), address(&health_socket)];
        let served = Server::new(limits, Arc::clone(&door))
            .public(public, Arc::clone(&tls))
            .internal(internal, Arc::clone(&internal_tls), trust.clone())
            .health(health_socket, health.services())
            .run(services, shutdown.clone());
        let served = tokio::spawn(served);
        let [public, internal, health] = addresses;
        Self {
            pki,
            public,
            internal,
            health,
            tls,
            internal_tls,
            trust,
            door,
            state,
            shutdown,
            served,
            fake,
            folder,
        }
    }

    /// How often a handler ran.
    pub(super) fn runs(&self) -> usize {
        self.fake.runs.load(Ordering::SeqCst)
    }

    pub(super) fn issue(&self, name: &str) -> Issued {
        self.pki.issue(&Leaf::new(name, Clock::system().now())).expect("issued")
    }

    /// Writes a revocation list with this certificate in it.
    pub(super) fn revoke(&self, issued: &Issued) {
        let der = CertificateDer::from_pem_file(&issued.cert).expect("a certificate");
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).expect("a certificate");
        revoke(&self.pki, &crl_file(&self.folder), &[parsed.raw_serial()]);
    }

    /// Where the revocation list is.
    pub(super) fn revocations_file(&self) -> PathBuf {
        crl_file(&self.folder)
    }

    pub(super) fn certificate_file(&self) -> PathBuf {
        self.folder.path().join("pki/auth.pem")
    }

    pub(super) async fn tls(
        &self,
        address: SocketAddr,
        shows: &Shows<'_>,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        connect(address, client_config(&self.pki, shows)).await
    }

    pub(super) async fn channel(&self, address: SocketAddr, certificate: Option<&Issued>) -> Channel {
        let config = client_config(&self.pki, &Shows { certificate, ..Shows::default() });
        let connector = tower::service_fn(move |_| {
            let config = config.clone();
            async move { connect(address, config).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://localhost").connect_with_connector(connector).await.expect("connected")
    }

    /// Where the server's files are.
    pub(super) fn tls_paths(&self) -> TlsPaths {
        TlsPaths {
            certificate: self.certificate_file(),
            key: self.certificate_file().with_extension("key"),
            client_ca: Some(self.pki.ca()),
            client_crl: None,
        }
    }

    /// Whether a listener of this kind, with the server's files, shakes hands with such a client.
    pub(super) async fn shakes_hands(&self, kind: TlsKind, shows: &Shows<'_>) -> bool {
        let tls = Tls::load(self.tls_paths(), kind, Profile::Hardened).expect("good files");
        let (theirs, ours) = tokio::io::duplex(64 * 1024);
        let connector = tokio_rustls::TlsConnector::from(client_config(&self.pki, shows));
        let name = ServerName::try_from("localhost").expect("a name");
        let acceptor = tokio_rustls::TlsAcceptor::from(tls.config());
        let (client, server) = tokio::join!(connector.connect(name, theirs), acceptor.accept(ours));
        client.is_ok() && server.is_ok()
    }

    /// A connection that adds nothing to what it is told to send.
    pub(super) async fn raw(&self) -> SendRequest<Body> {
        raw(self.tls(self.public, &Shows::default()).await.expect("shaken")).await
    }

    /// Waits until something is so.
    pub(super) async fn until(&self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let waiting = async {
            while !so(self) {
                tokio::task::yield_now().await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
    }
}

fn crl_file(folder: &TempDir) -> PathBuf {
    folder.path().join("crl.pem")
}

fn revoke(pki: &Pki, file: &Path, serials: &[&[u8]]) {
    let der = CertificateDer::from_pem_file(pki.ca()).expect("a CA");
    let key = std::fs::read_to_string(pki.ca().with_extension("key")).expect("its key");
    let issuer = Issuer::from_ca_cert_der(&der, KeyPair::from_pem(&key).expect("a key")).expect("a CA");
    let revoked = |serial: &&[u8]| RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time: rcgen::date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2026, 1, 1),
        next_update: rcgen::date_time_ymd(2099, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let pem = list.signed_by(&issuer).and_then(|crl| crl.pem()).expect("signed");
    std::fs::write(file, pem).expect("written");
}

/// HTTP/2 on a stream.
pub(super) async fn raw(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> SendRequest<Body> {
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = shaken.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

async fn connect(
    address: SocketAddr,
    config: Arc<rustls::ClientConfig>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    tokio_rustls::TlsConnector::from(config).connect(name, stream).await
}

fn client_config(pki: &Pki, shows: &Shows<'_>) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.ca()).expect("a CA")).expect("a CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let version = if shows.tls12 { &rustls::version::TLS12 } else { &rustls::version::TLS13 };
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match shows.certificate {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain = vec![CertificateDer::from_pem_file(&issued.cert).expect("a certificate")];
            let key = PrivateKeyDer::from_pem_file(&issued.key).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    };
    config.alpn_protocols = shows.alpn.iter().map(|p| p.to_vec()).collect();
    Arc::new(config)
}

/// A request with metadata.
pub(super) fn asks<T>(message: T, metadata: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in metadata {
        request.metadata_mut().append(*name, value.parse().expect("visible"));
    }
    request
}

/// The reason in a status, which every refusal has.
pub(super) fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map_or_else(|| format!("no ErrorInfo: {status:?}"), |info| info.reason)
}
