//! Both services, and every way in.

use std::{net::SocketAddr, time::Duration};

use interlock_client::{Auth, Connection, Credentials, Gateway, OwnerSession, Reason, Tls};
use interlock_proto::credential::Credential;
use tonic::transport::Channel;

use crate::{
    link::Link,
    patience::{eventually, within},
    service::Service,
    wire::{self, Metadata, Shows},
    world::{Setup, World},
};

const LIST_SESSIONS: &str = "/interlock.gateway.v1.SessionService/ListSessions";

/// A running pair.
#[derive(Debug)]
pub struct Pair {
    // Services before the folder: they are killed before it is removed.
    /// Auth.
    pub auth: Service,
    /// The gateway.
    pub gateway: Service,
    /// Their folder.
    pub world: World,
    /// Where the gateway finds auth, if not where it listens: what stands between them.
    pub link: Option<SocketAddr>,
}

/// Who a connection to an internal listener is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// No certificate.
    Nobody,
    /// A service on the allow list.
    Listed,
    /// A service of the trust domain that is not on it.
    Unlisted,
    /// One that says it is on it, by another authority.
    Foreign,
}

impl Pair {
    /// Starts both, as they are without further settings.
    ///
    /// # Panics
    /// Where they do not start.
    pub async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    /// Starts both with these settings, and waits until the gateway admits calls.
    ///
    /// # Panics
    /// Where they do not start.
    pub async fn start_with(setup: Setup) -> Self {
        let mut pair = Self::stopped(setup);
        pair.start_auth().await;
        pair.start_gateway().await;
        pair.serving().await;
        pair
    }

    /// Starts both with a link between them that can be broken, and waits until the gateway admits calls.
    ///
    /// # Panics
    /// Where they do not start.
    pub async fn start_linked(setup: Setup, seed: u64) -> (Self, Link) {
        let mut pair = Self::stopped(setup);
        pair.start_auth().await;
        let link = Link::to(pair.auth.address("internal"), seed).await;
        pair.link = Some(link.address());
        pair.start_gateway().await;
        pair.serving().await;
        (pair, link)
    }

    /// What `/readyz` of a service says: its status code and text.
    ///
    /// # Panics
    /// Where it has no listener for metrics, or does not answer.
    pub async fn readyz(service: &Service) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let asked = async {
            let mut stream = tokio::net::TcpStream::connect(service.address("metrics")).await?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = within("readiness", asked).await.expect("an answer");
        let code =
            answer.split_whitespace().nth(1).and_then(|code| code.parse().ok()).expect("a status code");
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned());
        (code, body.unwrap_or_default())
    }

    /// Both with these settings, neither started.
    ///
    /// # Panics
    /// Where their folder cannot be made.
    #[must_use]
    pub fn stopped(setup: Setup) -> Self {
        let world = World::new(setup);
        let folder = world.path("");
        Self {
            auth: Service::new("auth", &folder),
            gateway: Service::new("gateway", &folder),
            world,
            link: None,
        }
    }

    /// Starts auth, where it was before.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start_auth(&mut self) -> Duration {
        self.world.configure_auth(self.auth.addresses());
        self.auth.start().await
    }

    /// Starts the gateway, where it was before.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start_gateway(&mut self) -> Duration {
        self.start_gateway_at(self.link.unwrap_or_else(|| self.auth.address("internal"))).await
    }

    /// The same, where it finds auth at this address.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start_gateway_at(&mut self, auth: SocketAddr) -> Duration {
        self.world.configure_gateway(auth, self.gateway.addresses());
        self.gateway.start().await
    }

    /// Starts a further gateway, with the settings of the first one and files of that name; again, where it was
    /// before. Waits until it admits calls.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start_another_gateway(&self, gateway: &mut Service, name: &str) {
        let auth = self.link.unwrap_or_else(|| self.auth.address("internal"));
        self.start_another_gateway_at(gateway, name, &[auth]).await;
    }

    /// The same, where it finds auth at these addresses.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start_another_gateway_at(&self, gateway: &mut Service, name: &str, auth: &[SocketAddr]) {
        self.world.configure_gateway_as(name, auth, gateway.addresses());
        gateway.start().await;
        self.admits(gateway).await;
    }

    /// Starts a further auth, with the settings of the first one but for this store, and files of that name; again,
    /// where it was before.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start_another_auth(&self, auth: &mut Service, name: &str, store: Option<&str>) {
        self.world.configure_auth_as(name, store, auth.addresses());
        auth.start().await;
    }

    /// Waits until the gateway admits calls: it holds a lease.
    ///
    /// # Panics
    /// Where it does not come to that.
    pub async fn serving(&self) {
        self.admits(&self.gateway).await;
    }

    async fn admits(&self, gateway: &Service) {
        let user = Metadata::bearer(&self.world.role_token("user"));
        let channel = wire::connect(gateway.address("public"), &self.shows(Peer::Nobody));
        eventually("a gateway that admits calls", async || {
            let answer = wire::call(&channel, LIST_SESSIONS, Vec::new(), &user).await;
            (answer.outcome.code == "OK").then_some(())
        })
        .await;
    }

    /// A new connection to auth's public listener.
    #[must_use]
    pub fn auth_public(&self) -> Channel {
        wire::connect(self.auth.address("public"), &self.shows(Peer::Nobody))
    }

    /// A new connection to the gateway's public listener.
    #[must_use]
    pub fn gateway_public(&self) -> Channel {
        wire::connect(self.gateway.address("public"), &self.shows(Peer::Nobody))
    }

    /// A new connection to auth's internal listener.
    #[must_use]
    pub fn auth_internal(&self, peer: Peer) -> Channel {
        wire::connect(self.auth.address("internal"), &self.shows(peer))
    }

    /// A new connection to the gateway's internal listener.
    #[must_use]
    pub fn gateway_internal(&self, peer: Peer) -> Channel {
        wire::connect(self.gateway.address("internal"), &self.shows(peer))
    }

    fn shows(&self, peer: Peer) -> Shows {
        let leaf = match peer {
            Peer::Nobody => None,
            Peer::Listed => Some(self.world.leaf("pki/tester")),
            Peer::Unlisted => Some(self.world.leaf("pki/unlisted")),
            Peer::Foreign => Some(self.world.leaf("foreign/tester")),
        };
        Shows { ca: self.world.ca(), leaf }
    }

    /// The SDK's way to auth, as nobody.
    ///
    /// # Panics
    /// Where the folder's files cannot be used.
    #[must_use]
    pub fn sdk_auth(&self) -> Auth {
        Auth::new(self.sdk(&self.auth))
    }

    /// The SDK's way to auth, as that credential's bearer.
    #[must_use]
    pub fn sdk_auth_as(&self, credential: &Credential) -> Auth {
        self.sdk_auth().with_credentials(Credentials::bearer(credential.clone()))
    }

    /// The SDK's way to the gateway, as that credential's bearer.
    #[must_use]
    pub fn sdk_gateway(&self, credential: &Credential) -> Gateway {
        self.sdk_gateway_as(Credentials::bearer(credential.clone()))
    }

    /// The SDK's way to the gateway.
    #[must_use]
    pub fn sdk_gateway_as(&self, credentials: Credentials) -> Gateway {
        Gateway::new(self.sdk(&self.gateway), credentials)
    }

    /// The SDK's way to the first of these gateways that answers, as that credential's bearer.
    ///
    /// # Panics
    /// Where there is none, or the folder's files cannot be used.
    #[must_use]
    pub fn sdk_gateways(&self, gateways: &[&Service], credential: &Credential) -> Gateway {
        Gateway::new(self.sdk_any(gateways), Credentials::bearer(credential.clone()))
    }

    /// The same, as nobody.
    ///
    /// # Panics
    /// Where there is none, or the folder's files cannot be used.
    #[must_use]
    pub fn sdk_gateways_of_nobody(&self, gateways: &[&Service]) -> Gateway {
        Gateway::new(self.sdk_any(gateways), Credentials::none())
    }

    /// The SDK's way to the first of these auths that answers, as nobody.
    ///
    /// # Panics
    /// Where there is none, or the folder's files cannot be used.
    #[must_use]
    pub fn sdk_auths(&self, auths: &[&Service]) -> Auth {
        Auth::new(self.sdk_any(auths))
    }

    fn sdk_any(&self, services: &[&Service]) -> Connection {
        let mut endpoints = services.iter().map(|service| format!("https://{}", service.address("public")));
        let first = Connection::to(endpoints.next().expect("a service"));
        let tls = Tls::ca_file(self.world.ca()).server_name("localhost");
        let connection = endpoints.fold(first, interlock_client::ConnectionBuilder::or).tls(tls);
        connection.open().expect("a connection")
    }

    fn sdk(&self, service: &Service) -> Connection {
        let endpoint = format!("https://{}", service.address("public"));
        let tls = Tls::ca_file(self.world.ca()).server_name("localhost");
        Connection::to(endpoint).tls(tls).open().expect("a connection")
    }

    /// Signs an owner in; again, where it was too often.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn login(&self, owner: &str) -> OwnerSession {
        let auth = self.sdk_auth();
        eventually("a sign-in", async || match auth.login(owner, self.world.password(owner)).await {
            Ok(session) => Some(session),
            Err(error) if error.reason() == Some(Reason::RateLimited) => None,
            Err(error) => panic!("{owner} cannot sign in: {error}"),
        })
        .await
    }

    /// The admin role token.
    #[must_use]
    pub fn admin(&self) -> Credential {
        self.world.role_token("admin")
    }

    /// The user role token.
    #[must_use]
    pub fn user(&self) -> Credential {
        self.world.role_token("user")
    }

    /// A project of that owner's; its id.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn project(&self, owner: &OwnerSession, name: &str) -> String {
        self.sdk_auth_as(&owner.access_token).create_project(name).await.expect("a project").project_id
    }
}
