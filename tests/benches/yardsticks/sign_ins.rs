//! Sign-ins, more than one source at one owner may try: each comes from an address of its own on loopback.

use std::{net::Ipv4Addr, time::Duration};

use interlock_proto::auth::v1::{LoginRequest, owner_session_service_client::OwnerSessionServiceClient};
use interlock_proto::credential::Credential;
use interlock_tests::Pair;
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::load::Caller;

/// Of those that every folder of services has.
pub(crate) const OWNERS: [&str; 8] = ["alice", "bob", "w0", "w1", "w2", "w3", "w4", "w5"];

/// Signs one owner after another in, from one address.
pub(crate) struct Source {
    client: OwnerSessionServiceClient<Channel>,
    owners: Vec<(String, String)>,
    next: usize,
}

impl Source {
    /// The one of this number: at most 250 of them.
    pub(crate) fn new(pair: &Pair, number: u8) -> Self {
        let pem = std::fs::read(pair.world.ca()).expect("a PEM file");
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)).domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{}", pair.auth.address("public")));
        let endpoint = endpoint.expect("an address").tls_config(tls).expect("a certificate");
        let channel = endpoint
            .local_address(Some(Ipv4Addr::new(127, 0, 1, number).into()))
            .connect_timeout(Duration::from_secs(5))
            .connect_lazy();
        let password = |owner: &str| (owner.to_owned(), pair.world.password(owner).to_owned());
        let owners = OWNERS.map(password).into();
        Self { client: OwnerSessionServiceClient::new(channel), owners, next: usize::from(number) }
    }

    /// The next sign-in; its access token.
    pub(crate) async fn sign_in(&mut self) -> Result<Credential, Status> {
        self.next = (self.next + 1) % self.owners.len();
        let (username, password) = self.owners[self.next].clone();
        let answer = self.client.login(LoginRequest { username, password }).await?.into_inner();
        Credential::parse(&answer.access_token).map_err(|_| Status::internal("no credential"))
    }
}

impl Caller for Source {
    async fn call(&mut self) -> Result<(), Status> {
        self.sign_in().await.map(drop)
    }
}
