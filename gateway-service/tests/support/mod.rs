//! A gateway in this process, served over real sockets and TLS, with a fake of auth's TrustService behind its
//! verifier.

use std::{net::SocketAddr, path::Path, time::Duration};

use interlock_gateway::{Listeners, config};
use interlock_kit::{
    clock::Clock,
    pki::{Leaf, Pki},
    secret_file,
    store::{
        audit::Row,
        sqlite::{self, Place},
    },
};
use interlock_proto::credential::{Credential, Kind};
use interlock_proto::gateway::v1::{
    AttachSessionRequest, CreateSessionRequest, CreateSessionResponse, Job, SetAgentRequest,
    StreamEventsRequest, StreamEventsResponse, SubmitJobRequest, agent_service_client::AgentServiceClient,
    job_service_client::JobServiceClient, session_service_client::SessionServiceClient,
    worker_service_client::WorkerServiceClient,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{AsciiMetadataValue, KeyAndValueRef, MetadataMap},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};
use tonic_types::StatusExt as _;

pub(crate) mod trust;
pub(crate) mod worker;

use trust::{FakeTrust, Known};

/// No step of a test takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const PROJECT: &str = "demo";
pub(crate) const AGENT: &str = "builder";
/// The list of who acts for whom, in the folder.
pub(crate) const ON_BEHALF: &str = "on-behalf.list";
/// The list of who works jobs, in the folder.
pub(crate) const WORKERS: &str = "workers.list";

/// The internal token of these services.
pub(crate) fn internal_token() -> String {
    Credential::new(Kind::Internal, &[5; 32]).expose().to_owned()
}

/// A running gateway.
pub(crate) struct Served {
    pub(crate) trust: FakeTrust,
    trust_address: SocketAddr,
    addresses: Addresses,
    ca: String,
    folder: tempfile::TempDir,
    settings: Vec<(String, String)>,
    pub(crate) shutdown: CancellationToken,
    task: JoinHandle<Result<(), interlock_gateway::RunError>>,
}

impl Served {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), settings).await
    }

    /// With a list of who acts for whom by name.
    pub(crate) async fn start_listing(grants: &str) -> Self {
        Self::start_with_file("on_behalf_file", ON_BEHALF, grants).await
    }

    /// With a list of services that work jobs as themselves.
    pub(crate) async fn start_working(list: &str) -> Self {
        Self::start_with_file("service_workers_file", WORKERS, list).await
    }

    async fn start_with_file(key: &str, name: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        Self::start_in(folder, &[(key, &path.display().to_string())]).await
    }

    async fn start_in(folder: tempfile::TempDir, settings: &[(&str, &str)]) -> Self {
        let (trust, trust_address) = FakeTrust::start().await;
        let now = Clock::system().now();
        let pki = Pki::create(&folder.path().join("pki"), "test.example".parse().expect("a domain"), now);
        let pki = pki.expect("an authority");
        for name in ["gateway", "api", "stranger"] {
            pki.issue(&Leaf::new(name, now)).expect("a certificate");
        }
        secret_file::write(&folder.path().join("internal.token"), internal_token().as_bytes())
            .expect("written");
        let ca = std::fs::read_to_string(pki.ca()).expect("readable");
        let settings: Vec<_> = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (addresses, shutdown, task) = run(folder.path(), trust_address, &settings).await;
        Self { trust, trust_address, addresses, ca, folder, settings, shutdown, task }
    }

    /// Drains it and waits for its end.
    pub(crate) async fn stop(&mut self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(PATIENCE, &mut self.task).await.expect("in time");
        ended.expect("no panic").expect("a clean end");
    }

    /// Drains it and starts it again on the same store.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Drains it and starts it again on the same store, with other settings.
    pub(crate) async fn restart_with(&mut self, settings: &[(&str, &str)]) {
        self.settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.restart().await;
    }

    /// Starts a stopped one again on the same store.
    pub(crate) async fn start_again(&mut self) {
        let running = run(self.folder.path(), self.trust_address, &self.settings).await;
        (self.addresses, self.shutdown, self.task) = running;
    }

    fn tls(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.ca)).domain_name("localhost")
    }

    /// Calls of nobody.
    pub(crate) async fn nobody(&self) -> Calls {
        Calls::to(self.addresses.public, self.tls()).await
    }

    /// Calls of a service on the internal listener, with the certificate of that name and no token yet.
    pub(crate) async fn service(&self, name: &str) -> Calls {
        let pem =
            |end: &str| std::fs::read(self.folder.path().join(format!("pki/{name}.{end}"))).expect("issued");
        let identity = Identity::from_pem(pem("pem"), pem("key"));
        Calls::to(self.addresses.internal, self.tls().identity(identity)).await
    }

    /// The SDK's connection to the public listener.
    pub(crate) fn connection(&self) -> interlock_client::Connection {
        let tls = interlock_client::Tls::ca_file(self.folder.path().join("pki/ca.pem"));
        let endpoint = format!("https://{}", self.addresses.public);
        interlock_client::Connection::to(endpoint).tls(tls).open().expect("a connection")
    }

    /// The audit rows of a stopped gateway.
    pub(crate) fn audit(&self) -> Vec<Row> {
        let place = Place::File(self.folder.path().join("data/gateway.db"));
        let connection = sqlite::connect(&place).expect("the store");
        sqlite::rows(&connection, &sqlite::Filter { limit: 10_000, ..sqlite::Filter::default() })
            .expect("rows")
    }

    /// Calls of the bearer of a credential, in [`PROJECT`].
    pub(crate) async fn calls(&self, known: &Known) -> Calls {
        let bearer = format!("Bearer {}", known.credential.expose());
        self.nobody().await.with("authorization", &bearer).with("x-interlock-project", PROJECT)
    }

    /// An owner who may enter [`PROJECT`].
    pub(crate) async fn owner(&self, name: &str) -> (Known, Calls) {
        let known = self.trust.owner(name);
        self.trust.enter(name, PROJECT);
        let calls = self.calls(&known).await;
        (known, calls)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Where a gateway serves.
#[derive(Clone, Copy)]
struct Addresses {
    public: SocketAddr,
    internal: SocketAddr,
}

type Running = (Addresses, CancellationToken, JoinHandle<Result<(), interlock_gateway::RunError>>);

async fn run(folder: &Path, trust: SocketAddr, settings: &[(String, String)]) -> Running {
    let ready = folder.join("ready.json");
    let path = |name: &str| folder.join(name).display().to_string();
    let mut flags = vec![
        ("public.address".to_owned(), "127.0.0.1:0".to_owned()),
        ("tls.cert".to_owned(), path("pki/gateway.pem")),
        ("tls.key".to_owned(), path("pki/gateway.key")),
        ("tls.client_ca".to_owned(), path("pki/ca.pem")),
        ("tls.trust_domain".to_owned(), "test.example".to_owned()),
        ("internal.address".to_owned(), "127.0.0.1:0".to_owned()),
        ("internal_token_file".to_owned(), path("internal.token")),
        ("allow".to_owned(), "spiffe://test.example/api".to_owned()),
        ("auth.endpoints".to_owned(), format!("http://{trust}")),
        ("data_dir".to_owned(), path("data")),
        ("ready_file".to_owned(), path("ready.json")),
        ("limits.drain".to_owned(), "2s".to_owned()),
    ];
    flags.extend(settings.iter().cloned());
    let config = config::load(None, flags).expect("a good configuration");
    let listeners = Listeners::bind(&config).await.expect("free ports");
    let bound: std::collections::HashMap<_, _> = listeners.addresses().expect("bound").into_iter().collect();
    let addresses = Addresses { public: bound["public"], internal: bound["internal"] };
    let shutdown = CancellationToken::new();
    let mut task = tokio::spawn(interlock_gateway::run(config, listeners, shutdown.clone()));
    tokio::select! {
        ended = &mut task => panic!("the gateway did not start: {ended:?}"),
        () = eventually("the ready file is there", || ready.exists()) => {}
    }
    (addresses, shutdown, task)
}

/// Polls until a condition holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, holds).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

/// Puts the same metadata on each call.
#[derive(Clone)]
pub(crate) struct Carry(MetadataMap);

impl Interceptor for Carry {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for pair in self.0.iter() {
            if let KeyAndValueRef::Ascii(name, value) = pair {
                request.metadata_mut().insert(name.clone(), value.clone());
            }
        }
        Ok(request)
    }
}

pub(crate) type Line = InterceptedService<Channel, Carry>;

/// Calls with the same metadata.
#[derive(Clone)]
pub(crate) struct Calls {
    channel: Channel,
    metadata: MetadataMap,
}

impl Calls {
    async fn to(address: SocketAddr, tls: ClientTlsConfig) -> Self {
        let endpoint = Channel::from_shared(format!("https://{address}")).expect("an address");
        let channel = endpoint.tls_config(tls).expect("TLS").connect().await.expect("connected");
        Self { channel, metadata: MetadataMap::new() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.metadata.insert(name, AsciiMetadataValue::try_from(value).expect("ascii"));
        self
    }

    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.metadata.remove(name);
        self
    }

    pub(crate) fn line(&self) -> Line {
        InterceptedService::new(self.channel.clone(), Carry(self.metadata.clone()))
    }

    pub(crate) fn sessions(&self) -> SessionServiceClient<Line> {
        SessionServiceClient::new(self.line())
    }

    pub(crate) fn jobs(&self) -> JobServiceClient<Line> {
        JobServiceClient::new(self.line())
    }

    pub(crate) fn agents(&self) -> AgentServiceClient<Line> {
        AgentServiceClient::new(self.line())
    }

    pub(crate) fn workers(&self) -> WorkerServiceClient<Line> {
        WorkerServiceClient::new(self.line())
    }

    /// Registers [`AGENT`].
    pub(crate) async fn set_agent(&self) {
        let agent = SetAgentRequest { agent_id: AGENT.to_owned(), ..SetAgentRequest::default() };
        self.agents().set_agent(agent).await.expect("registered");
    }

    pub(crate) async fn create(&self, request_id: &str) -> Response<CreateSessionResponse> {
        let create =
            CreateSessionRequest { request_id: request_id.to_owned(), ..CreateSessionRequest::default() };
        self.sessions().create_session(create).await.expect("created")
    }

    /// A new session on [`AGENT`] in [`PROJECT`], and its cookie.
    pub(crate) async fn bound_session(&self) -> (String, String) {
        let created = self.create("first").await;
        let cookie = cookie_of(&created);
        let session = created.into_inner().session.expect("made").session_id;
        self.attach(&session).await.expect("attached");
        (session, cookie)
    }

    pub(crate) async fn attach(&self, session: &str) -> Result<bool, Status> {
        let attach = AttachSessionRequest {
            session_id: session.to_owned(),
            agent_id: AGENT.to_owned(),
            project_id: PROJECT.to_owned(),
            ..AttachSessionRequest::default()
        };
        Ok(self.sessions().attach_session(attach).await?.into_inner().changed)
    }

    pub(crate) async fn submit(&self, session: &str, request_id: &str) -> Result<Job, Status> {
        let submit = SubmitJobRequest {
            session_id: session.to_owned(),
            request_id: request_id.to_owned(),
            payload: format!("payload of {request_id}").into(),
        };
        Ok(self.jobs().submit_job(submit).await?.into_inner().job.expect("queued"))
    }

    pub(crate) async fn stream(
        &self,
        session: &str,
        after: u64,
    ) -> Result<Streaming<StreamEventsResponse>, Status> {
        let from = StreamEventsRequest { session_id: session.to_owned(), after, from_cursor: false };
        Ok(self.sessions().stream_events(from).await?.into_inner())
    }
}

/// `name=value` of the cookie in an answer.
pub(crate) fn cookie_of<T>(response: &Response<T>) -> String {
    let text = response.metadata().get("set-cookie").expect("a cookie").to_str().expect("ascii").to_owned();
    assert!(text.ends_with("; Path=/; HttpOnly; Secure; SameSite=Strict"), "{text}");
    text.split(';').next().expect("a pair").to_owned()
}

/// The reason in a status.
pub(crate) fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_else(|| format!("no reason: {status:?}"))
}

/// The next message of a stream, in time.
pub(crate) async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
    tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time")
}
