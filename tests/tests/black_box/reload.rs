//! Certificates, keys and client CAs are replaced under running services; nothing restarts.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use interlock_kit::{
    clock::Clock,
    pki::{Leaf, Pki},
};
use interlock_proto::auth::v1::CheckMembershipRequest;
use interlock_tests::{
    Pair, eventually,
    pair::Peer,
    wire::{self, Metadata},
};
use prost::Message as _;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const CHECK_MEMBERSHIP: &str = "/interlock.auth.v1.TrustService/CheckMembership";

/// The certificate that a new connection is shown.
async fn shown(address: SocketAddr, ca: &Path) -> Vec<u8> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).expect("PEM") {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = TcpStream::connect(address).await.expect("a listener");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("a handshake");
    let chain = stream.get_ref().1.peer_certificates().expect("a server shows one");
    chain.first().expect("a leaf").to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_shown_to_new_connections() {
    let pair = Pair::start().await;
    let alice = pair.login("alice").await;
    let gateway = pair.sdk_gateway(&alice.access_token);
    let session = gateway.sessions().create("").await.expect("a session").session.session_id;
    let pki = Pki::load(&pair.world.path("pki")).expect("the authority");
    for (service, address) in
        [("auth", pair.auth.address("public")), ("gateway", pair.gateway.address("public"))]
    {
        let ca = pair.world.ca();
        let before = shown(address, &ca).await;
        assert_eq!(before, shown(address, &ca).await, "nothing has changed yet");
        let issued = pki.issue(&Leaf::new(service, Clock::system().now())).expect("a new leaf");
        let wanted = CertificateDer::from_pem_file(&issued.cert).expect("PEM").to_vec();
        assert_ne!(before, wanted);
        eventually("the new certificate", async || (shown(address, &ca).await == wanted).then_some(())).await;
    }
    // The connection that was open before serves on.
    gateway.sessions().get(&session).await.expect("the session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_authority_that_is_added_counts_without_a_restart() {
    let pair = Pair::start().await;
    let token = Metadata::none().with("x-internal-token", pair.world.internal_token());
    let question = CheckMembershipRequest { owner_id: "alice".to_owned(), project_id: "system".to_owned() };
    let ask = async || {
        let channel = pair.auth_internal(Peer::Foreign);
        wire::call(&channel, CHECK_MEMBERSHIP, question.encode_to_vec(), &token).await.outcome.code
    };
    assert_ne!(ask().await, "OK", "another authority's certificate");
    let both =
        [pair.world.ca(), pair.world.path("foreign/ca.pem")].map(|f| fs::read(f).expect("PEM")).concat();
    let next = pair.world.path("pki/next.pem");
    fs::write(&next, both).expect("written");
    fs::rename(next, pair.world.ca()).expect("replaced");
    eventually("the added authority", async || (ask().await == "OK").then_some(())).await;

    // A bad file keeps the last good set.
    fs::write(pair.world.path("pki/bad.pem"), "no certificate at all").expect("written");
    fs::rename(pair.world.path("pki/bad.pem"), pair.world.path("pki/auth.pem")).expect("replaced");
    eventually("a complaint", async || pair.auth.log().contains("reload").then_some(())).await;
    assert_eq!(ask().await, "OK");
}
