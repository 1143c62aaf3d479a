//! A running auth on loopback, with certificates of its own, and clients for it.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use interlock_auth::{Config, Listeners, StartError};
use interlock_kit::{
    clock::Clock,
    pki::{Issued, Leaf, Pki, TrustDomain},
    secret_file,
};
use interlock_proto::{
    auth::v1::{
        LoginRequest, LoginResponse, identity_service_client::IdentityServiceClient,
        owner_session_service_client::OwnerSessionServiceClient,
        project_service_client::ProjectServiceClient, role_token_service_client::RoleTokenServiceClient,
        trust_service_client::TrustServiceClient,
    },
    metadata,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};
use tonic_types::StatusExt as _;

/// No step of a test takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The internal token of these tests.
pub(crate) const INTERNAL_TOKEN: &str = "internal-0123456789-0123456789-0123456789";
/// The owners of these tests.
pub(crate) const ACCOUNTS: &str = r#"[
    {"username":"alice","password":"alice's long password","role":"user","display_name":"Alice"},
    {"username":"root","password":"root's long password","role":"root"}]"#;

/// A folder with all that auth needs, and what is configured besides.
pub(crate) struct Host {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) pki: Pki,
    pub(crate) flags: Vec<(String, String)>,
    pub(crate) env: Vec<(&'static str, String)>,
}

/// A running auth. Ends with [`Served::stop`].
pub(crate) struct Served {
    pub(crate) public: SocketAddr,
    pub(crate) internal: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    /// Of each bound listener, by name.
    pub(crate) addresses: Vec<(&'static str, SocketAddr)>,
    running: JoinHandle<Result<(), StartError>>,
}

impl Host {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let domain: TrustDomain = "interlock.test".parse().expect("a trust domain");
        let now = Clock::system().now();
        let pki = Pki::create(&folder.path().join("pki"), domain, now).expect("an authority");
        for name in ["auth", "gateway", "stranger"] {
            pki.issue(&Leaf::new(name, now)).expect("a certificate");
        }
        let at = |name: &str| folder.path().join(name).display().to_string();
        secret_file::write(&folder.path().join("internal-token"), INTERNAL_TOKEN.as_bytes())
            .expect("written");
        let flags = [
            ("profile", "hardened".to_owned()),
            ("public.address", "127.0.0.1:0".to_owned()),
            ("internal.address", "127.0.0.1:0".to_owned()),
            ("tls.cert", at("pki/auth.pem")),
            ("tls.key", at("pki/auth.key")),
            ("tls.client_ca", at("pki/ca.pem")),
            ("tls.trust_domain", "interlock.test".to_owned()),
            ("allow", "spiffe://interlock.test/gateway".to_owned()),
            ("internal_token_file", at("internal-token")),
            ("data_dir", at("data")),
            ("lease", "1s".to_owned()),
            ("argon2.m_kib", "8".to_owned()),
            ("argon2.t", "1".to_owned()),
        ];
        let flags = flags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self { folder, pki, flags, env: vec![("INTERLOCK_ACCOUNTS_JSON", ACCOUNTS.to_owned())] }
    }

    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.flags.retain(|(known, _)| known != key);
        self.flags.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    pub(crate) fn config(&self) -> Config {
        let env = self.env.iter().map(|(name, value)| (name.into(), value.into()));
        Config::read(None, env, self.flags.clone()).expect("a good configuration")
    }

    pub(crate) async fn start(&self) -> Served {
        let config = self.config();
        let listeners = Listeners::bind(&config).await.expect("bound");
        let addresses = listeners.addresses().expect("bound");
        let at = |name: &str| addresses.iter().find(|(n, _)| *n == name).expect("bound").1;
        let shutdown = CancellationToken::new();
        let (public, internal) = (at("public"), at("internal"));
        let running = tokio::spawn(interlock_auth::run(config, listeners, shutdown.clone()));
        let served = Served { public, internal, shutdown, addresses, running };
        let mut sessions = OwnerSessionServiceClient::new(self.public(&served));
        if let Err(status) = within(sessions.get_status(plain(Default::default()))).await {
            panic!("auth does not answer: {status:?}; {:?}", served.running.await);
        }
        served
    }

    /// A start that is expected to fail.
    pub(crate) async fn refused(&self) -> StartError {
        let config = self.config();
        let listeners = Listeners::bind(&config).await.expect("bound");
        within(interlock_auth::run(config, listeners, CancellationToken::new())).await.expect_err("refused")
    }

    fn ca(&self) -> Certificate {
        Certificate::from_pem(std::fs::read(self.pki.ca()).expect("the authority"))
    }

    /// To the public listener, without a certificate.
    pub(crate) fn public(&self, served: &Served) -> Channel {
        self.channel(served.public, None)
    }

    /// To the internal listener, with the certificate of that name, if any.
    pub(crate) fn internal(&self, served: &Served, name: Option<&str>) -> Channel {
        self.channel(served.internal, name)
    }

    fn channel(&self, to: SocketAddr, name: Option<&str>) -> Channel {
        let mut tls = ClientTlsConfig::new().ca_certificate(self.ca()).domain_name("localhost");
        if let Some(name) = name {
            let Issued { cert, key, .. } = self.issued(name);
            let read = |path| std::fs::read(path).expect("issued");
            tls = tls.identity(Identity::from_pem(read(cert), read(key)));
        }
        let endpoint = Channel::from_shared(format!("https://{to}")).expect("an address");
        endpoint.tls_config(tls).expect("a TLS configuration").connect_lazy()
    }

    fn issued(&self, name: &str) -> Issued {
        let at = |end: &str| self.folder.path().join("pki").join(format!("{name}.{end}"));
        let id = format!("spiffe://interlock.test/{name}").parse().expect("an id");
        Issued { cert: at("pem"), key: at("key"), id }
    }

    pub(crate) fn sessions(&self, served: &Served) -> OwnerSessionServiceClient<Channel> {
        OwnerSessionServiceClient::new(self.public(served))
    }

    pub(crate) fn tokens(&self, served: &Served) -> RoleTokenServiceClient<Channel> {
        RoleTokenServiceClient::new(self.public(served))
    }

    pub(crate) fn identity(&self, served: &Served) -> IdentityServiceClient<Channel> {
        IdentityServiceClient::new(self.public(served))
    }

    pub(crate) fn projects(&self, served: &Served) -> ProjectServiceClient<Channel> {
        ProjectServiceClient::new(self.public(served))
    }

    pub(crate) fn trust(&self, served: &Served) -> TrustServiceClient<Channel> {
        TrustServiceClient::new(self.internal(served, Some("gateway")))
    }

    /// The role token in the recoverable copy.
    pub(crate) fn token(&self, role: &str) -> String {
        let text = std::fs::read(self.data("auth_tokens.json")).expect("the recoverable copy");
        let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        json["tokens"][role].as_str().expect("a token").to_owned()
    }

    pub(crate) async fn login(&self, served: &Served, username: &str) -> LoginResponse {
        let asked =
            LoginRequest { username: username.to_owned(), password: format!("{username}'s long password") };
        within(self.sessions(served).login(plain(asked))).await.expect("signed in").into_inner()
    }

    /// Audit rows of this action, as (principal, outcome, reason).
    pub(crate) fn audit(&self, action: &str) -> Vec<(String, String, String)> {
        let store = rusqlite::Connection::open(self.data("auth.db")).expect("the store");
        let mut rows = store
            .prepare("SELECT principal, outcome, reason FROM audit WHERE action = ?1 ORDER BY id")
            .expect("the audit log");
        let found =
            rows.query_map([action], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("read");
        found.map(|row| row.expect("a row")).collect()
    }
}

impl Served {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        within(self.running).await.expect("no panic").expect("an orderly end");
    }
}

/// A request without a credential.
pub(crate) fn plain<T>(message: T) -> Request<T> {
    Request::new(message)
}

/// A request with a bearer credential.
pub(crate) fn bearer<T>(message: T, credential: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {credential}").parse().expect("ASCII");
    request.metadata_mut().insert(metadata::AUTHORIZATION, value);
    request
}

/// A request of a service: with the internal token.
pub(crate) fn service<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(metadata::INTERNAL_TOKEN, INTERNAL_TOKEN.parse().expect("ASCII"));
    request
}

/// The reason of a refusal.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}
