//! Certificates, keys and client CAs are replaced under running services; nothing restarts.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use interlock_kit::{
    clock::Clock,
    pki::{Leaf, Pki},
};
use interlock_proto::auth::v1::{CheckMembershipRequest, ValidateRequest};
use interlock_tests::{
    Pair, Setup, eventually,
    pair::Peer,
    service::program,
    wire::{self, Metadata},
};
use prost::Message as _;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How often a sender looks at the file of the internal token.
const LOOK: Duration = Duration::from_secs(1);
const LIST_SESSIONS: &str = "/interlock.gateway.v1.SessionService/ListSessions";
const VALIDATE: &str = "/interlock.auth.v1.TrustService/Validate";
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

// UA-46, UA-11: two accepted lines, taken on change; nobody is refused on the way, and the old token is dead at its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_internal_token_is_rotated_without_downtime() {
    let pair = Pair::start().await;
    let alice = pair.login("alice").await;
    let (config, file) = (pair.world.path("auth.toml"), pair.world.path("internal.token"));
    let step = |step: &str| {
        let mut command = Command::new(program("interlock-auth"));
        let done = command.args(["internal-token", "rotate", step, "--config"]).arg(&config).output();
        let done = done.expect("it runs");
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{step}: {said}{}", String::from_utf8_lossy(&done.stderr));
        assert!(!said.contains("ilk_"), "no token is shown: {said}");
        let text = fs::read_to_string(&file).expect("there");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let question = CheckMembershipRequest { owner_id: "alice".to_owned(), project_id: "system".to_owned() };
    let takes = async |token: &str| {
        let shown = Metadata::none().with("x-internal-token", token);
        let channel = pair.auth_internal(Peer::Listed);
        wire::call(&channel, CHECK_MEMBERSHIP, question.encode_to_vec(), &shown).await.outcome.code == "OK"
    };
    let gateway_takes = async |token: &str| {
        let shown = Metadata::bearer(&alice.access_token).with("x-internal-token", token);
        let channel = pair.gateway_internal(Peer::Listed);
        wire::call(&channel, LIST_SESSIONS, Vec::new(), &shown).await.outcome.code == "OK"
    };
    let over = AtomicBool::new(false);
    let calls = async {
        let mut made = 0_u32;
        while !over.load(Ordering::SeqCst) {
            // A credential that the gateway has not seen: it must ask auth.
            let bob = pair.login("bob").await;
            let sessions = pair.sdk_gateway(&bob.access_token).sessions();
            sessions.list().await.expect("nobody is refused on the way");
            pair.sdk_auth().logout(&bob.access_token).await.expect("signed out");
            made += 1;
        }
        made
    };
    let steps = async {
        let old = pair.world.internal_token().to_owned();
        let lines = step("--begin");
        let [first, new] = &lines[..] else { panic!("two lines") };
        assert_eq!(*first, old);
        for _ in 0..2 {
            eventually("the new token", async || {
                (takes(new).await && gateway_takes(new).await).then_some(())
            })
            .await;
            assert!(takes(&old).await && gateway_takes(&old).await, "both are accepted");
            assert_eq!(step("--promote"), [new.clone(), old.clone()], "and again changes nothing");
        }
        // What the runbook asks for: whoever sends looks at the file again after a second.
        let promoted = Instant::now();
        eventually("that senders have looked", async || (promoted.elapsed() > 3 * LOOK).then_some(())).await;
        assert_eq!(step("--finish"), std::slice::from_ref(new));
        eventually("the end of the old one", async || {
            (!takes(&old).await && !gateway_takes(&old).await).then_some(())
        })
        .await;
        assert!(takes(new).await && gateway_takes(new).await);
        over.store(true, Ordering::SeqCst);
    };
    let (made, ()) = tokio::join!(calls, steps);
    assert!(made > 0, "calls were made meanwhile");
    pair.sdk_gateway(&alice.access_token).sessions().list().await.expect("and on it goes");
}

// UA-04, UA-11: which service may call which method is a file, and a change of it needs no restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_allow_list_is_by_method_and_read_again() {
    let mut pair = Pair::stopped(Setup::default().auth("allow_file", "allow.list"));
    let list = pair.world.path("allow.list");
    let write = |text: &str| {
        let next = list.with_extension("next");
        fs::write(&next, text).expect("written");
        fs::rename(next, &list).expect("replaced");
    };
    let gateway =
        "spiffe://interlock.test/gateway /interlock.auth.v1.TrustService/ /grpc.health.v1.Health/\n";
    let tester = "spiffe://interlock.test/tester";
    write(&format!("# as little as they need\n{gateway}{tester} {CHECK_MEMBERSHIP}\n"));
    pair.start_auth().await;
    pair.start_gateway().await;
    pair.serving().await;
    let alice = pair.login("alice").await;
    pair.sdk_gateway(&alice.access_token).sessions().list().await.expect("the gateway has what it needs");
    let token = Metadata::none().with("x-internal-token", pair.world.internal_token());
    let ask = async |path: &str, message: Vec<u8>| {
        let channel = pair.auth_internal(Peer::Listed);
        wire::call(&channel, path, message, &token).await.outcome.code
    };
    let membership = || {
        CheckMembershipRequest { owner_id: "alice".to_owned(), project_id: "system".to_owned() }
            .encode_to_vec()
    };
    let validate = || ValidateRequest { credential_sha256: vec![7; 32].into() }.encode_to_vec();
    assert_eq!(ask(CHECK_MEMBERSHIP, membership()).await, "OK");
    assert_eq!(ask(VALIDATE, validate()).await, "PERMISSION_DENIED");

    write(&format!("{gateway}{tester} {VALIDATE}\n"));
    eventually("the other method", async || {
        (ask(VALIDATE, validate()).await == "UNAUTHENTICATED").then_some(())
    })
    .await;
    assert_eq!(ask(CHECK_MEMBERSHIP, membership()).await, "PERMISSION_DENIED");
    // One that names nobody keeps the last good list.
    write("# nobody\n");
    eventually("a complaint", async || pair.auth.log().contains("names no service").then_some(())).await;
    assert_eq!(ask(VALIDATE, validate()).await, "UNAUTHENTICATED");
    write(gateway);
    eventually("the end", async || (ask(VALIDATE, validate()).await == "PERMISSION_DENIED").then_some(()))
        .await;
    pair.sdk_gateway(&alice.access_token).sessions().list().await.expect("the gateway goes on");
}
