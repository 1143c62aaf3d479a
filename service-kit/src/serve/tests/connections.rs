//! What bounds a connection: TLS, first bytes, silence, numbers, its end.

use std::{io, time::Duration};

use interlock_proto::auth::v1::{WhoAmIRequest, identity_service_client::IdentityServiceClient};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::fixture::{Fixture, Shows, asks, owner};
use crate::{
    config::{Profile, TlsVersion},
    serve::ServerLimits,
    tls::{Tls, TlsKind, TlsPaths},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longer than any of the bounds under test, shorter than a hang.
const PATIENCE: Duration = Duration::from_secs(5);

fn quick() -> ServerLimits {
    let short = Duration::from_millis(700);
    ServerLimits {
        handshake_timeout: short,
        preface_timeout: short,
        frame_timeout: short,
        ..ServerLimits::auth()
    }
}

/// Whether the other side closes, in time.
async fn is_closed(mut stream: impl tokio::io::AsyncRead + Unpin) -> bool {
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn silent_sockets_are_closed_in_every_phase_and_harm_nobody() {
    let fixture = Fixture::with(quick()).await;
    let shows = Shows::default();
    let tcp = TcpStream::connect(fixture.public).await.expect("accepted");
    let mut half = TcpStream::connect(fixture.public).await.expect("accepted");
    half.write_all(&[0x16, 0x03, 0x01]).await.expect("sent");
    let done = fixture.tls(fixture.public, &shows).await.expect("shaken");
    let mut preface = fixture.tls(fixture.public, &shows).await.expect("shaken");
    preface.write_all(PREFACE).await.expect("sent");
    let mut headers = fixture.tls(fixture.public, &shows).await.expect("shaken");
    headers.write_all(PREFACE).await.expect("sent");
    // SETTINGS, its ACK, and a HEADERS frame that says 4 bytes and has 1.
    headers.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]).await.expect("sent");
    headers.write_all(&[0, 0, 4, 1, 4, 0, 0, 0, 1, 0x82]).await.expect("sent");

    let mut client = IdentityServiceClient::new(fixture.channel(fixture.public, None).await);
    client.who_am_i(asks(WhoAmIRequest {}, &[("authorization", &owner())])).await.expect("unharmed");
    assert!(is_closed(tcp).await, "TCP");
    assert!(is_closed(half).await, "TLS half");
    assert!(is_closed(done).await, "TLS done");
    assert!(is_closed(preface).await, "preface");
    assert!(is_closed(headers).await, "half HEADERS");
    client.who_am_i(asks(WhoAmIRequest {}, &[("authorization", &owner())])).await.expect("still open");
}

#[tokio::test]
async fn what_is_not_http2_is_closed() {
    let fixture = Fixture::start().await;
    let mut http1 = fixture.tls(fixture.public, &Shows::default()).await.expect("shaken");
    http1.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nuser-agent: x\r\n\r\n").await.expect("sent");
    assert!(is_closed(http1).await);
    let mut plain = TcpStream::connect(fixture.public).await.expect("accepted");
    plain.write_all(PREFACE).await.expect("sent");
    assert!(is_closed(plain).await, "plain text to TLS");
    let mut tls = TcpStream::connect(fixture.health).await.expect("accepted");
    tls.write_all(&[0x16; 64]).await.expect("sent");
    assert!(is_closed(tls).await, "TLS to plain text");
}

/// Whether a connection with these properties can be used.
async fn is_taken(fixture: &Fixture, address: std::net::SocketAddr, shows: &Shows<'_>) -> bool {
    let Ok(mut stream) = fixture.tls(address, shows).await else { return false };
    let mut first = [0; 9];
    let opening = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let answered: io::Result<()> = async {
        stream.write_all(&opening).await?;
        stream.read_exact(&mut first).await?;
        Ok(())
    }
    .await;
    answered.is_ok() && first[3] == 4
}

#[tokio::test]
async fn only_tls_13_and_h2_are_taken() {
    let fixture = Fixture::start().await;
    let (gateway, public, internal) = (fixture.issue("gateway"), fixture.public, fixture.internal);
    let certificate = Some(&gateway);
    assert!(is_taken(&fixture, public, &Shows::default()).await);
    assert!(is_taken(&fixture, internal, &Shows { certificate, ..Shows::default() }).await);
    let others: [&'static [&'static [u8]]; 2] = [&[], &[b"http/1.1"]];
    for alpn in others {
        for address in [public, internal] {
            assert!(!is_taken(&fixture, address, &Shows { certificate, alpn, ..Shows::default() }).await);
        }
    }
    for address in [public, internal] {
        assert!(!is_taken(&fixture, address, &Shows { certificate, tls12: true, ..Shows::default() }).await);
    }
}

#[tokio::test]
async fn tls_12_is_a_choice_of_public_listeners_only() {
    let fixture = Fixture::start().await;
    let gateway = fixture.issue("gateway");
    let old = Shows { certificate: Some(&gateway), tls12: true, ..Shows::default() };
    let new = Shows { certificate: Some(&gateway), ..Shows::default() };
    assert!(fixture.shakes_hands(TlsVersion::V1_2.into(), &old).await);
    assert!(fixture.shakes_hands(TlsVersion::V1_2.into(), &new).await);
    for kind in [TlsVersion::V1_3.into(), TlsKind::Internal] {
        assert!(!fixture.shakes_hands(kind, &old).await);
        assert!(fixture.shakes_hands(kind, &new).await);
    }
}

#[tokio::test]
async fn files_that_do_not_fit_are_named() {
    let fixture = Fixture::start().await;
    let load = |paths, kind| Tls::load(paths, kind, Profile::Hardened).map(drop).map_err(|e| e.to_string());
    let public = TlsKind::Public { tls12: false };
    let without_ca = TlsPaths { client_ca: None, ..fixture.tls_paths() };
    assert_eq!(load(without_ca.clone(), public), Ok(()));
    assert!(load(without_ca, TlsKind::Internal).expect_err("no CA").contains("client CA"));
    let foreign_key = TlsPaths { key: fixture.issue("other").key, ..fixture.tls_paths() };
    assert!(load(foreign_key, public).expect_err("no pair").contains("other.key"));
    let no_file = TlsPaths { certificate: "nowhere.pem".into(), ..fixture.tls_paths() };
    assert!(load(no_file, public).expect_err("no file").contains("nowhere.pem"));
}

#[tokio::test]
async fn a_reloaded_certificate_is_shown_to_the_next_connection() {
    let fixture = Fixture::start().await;
    let shown = async || {
        let stream = fixture.tls(fixture.public, &Shows::default()).await.expect("shaken");
        stream.get_ref().1.peer_certificates().expect("shown")[0].clone().into_owned()
    };
    let file = || CertificateDer::from_pem_file(fixture.certificate_file()).expect("a certificate");
    let open = fixture.channel(fixture.public, None).await;
    let (first, first_end) = (shown().await, fixture.tls.not_after());
    assert_eq!(first, file());
    assert!(!fixture.tls.reload().expect("the same files"));

    fixture.issue("auth");
    assert_eq!(shown().await, first, "not before a reload");
    assert!(fixture.tls.reload().expect("good files"));
    let second = shown().await;
    assert!(second == file() && second != first);
    assert!(fixture.tls.not_after() >= first_end);

    std::fs::write(fixture.certificate_file(), "no certificate").expect("written");
    let fault = fixture.tls.reload().expect_err("a bad file");
    assert!(fault.to_string().contains("auth.pem"), "{fault}");
    assert_eq!(shown().await, second, "the last good set stays");
    let mut client = IdentityServiceClient::new(open);
    client.who_am_i(asks(WhoAmIRequest {}, &[("authorization", &owner())])).await.expect("open ones stay");
}

#[tokio::test]
async fn connections_of_one_source_are_bounded() {
    let limits = ServerLimits { connections_per_source: 2, handshakes_per_source: 2, ..ServerLimits::auth() };
    let fixture = Fixture::with(limits).await;
    let first = fixture.channel(fixture.public, None).await;
    let _second = fixture.channel(fixture.public, None).await;
    assert!(fixture.tls(fixture.public, &Shows::default()).await.is_err(), "a third");
    let mut client = IdentityServiceClient::new(first);
    client.who_am_i(asks(WhoAmIRequest {}, &[("authorization", &owner())])).await.expect("unharmed");
}

#[tokio::test]
async fn an_old_connection_is_told_so_and_then_cut() {
    let limits = ServerLimits {
        connection_age: Duration::from_millis(200),
        connection_age_grace: Duration::from_millis(100),
        timeout: Duration::from_millis(150),
        ..ServerLimits::auth()
    };
    let fixture = Fixture::with(limits).await;
    let began = Instant::now();
    let mut stream = fixture.tls(fixture.public, &Shows::default()).await.expect("shaken");
    stream
        .write_all(&[PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]].concat())
        .await
        .expect("sent");
    let mut bytes = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    assert!(ended.is_ok() && began.elapsed() >= Duration::from_millis(180));
    assert!(frame_kinds(&bytes).contains(&7), "GOAWAY comes first");
}

/// The kinds of the frames in what a server sent.
fn frame_kinds(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, ..] = *bytes {
        kinds.push(kind);
        let length = 9 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
        bytes = bytes.get(length..).unwrap_or_default();
    }
    kinds
}

#[tokio::test]
async fn a_shutdown_waits_for_open_calls_and_not_for_ever() {
    let limits = ServerLimits { drain: Duration::from_millis(200), ..ServerLimits::auth() };
    let fixture = Fixture::with(limits).await;
    let mut client = IdentityServiceClient::new(fixture.channel(fixture.public, None).await);
    let hanging = tokio::spawn(async move {
        let owner = owner();
        let metadata = [("authorization", owner.as_str()), ("x-interlock-project", "hang")];
        client.who_am_i(asks(WhoAmIRequest {}, &metadata)).await
    });
    fixture.until("the call runs", |f| f.runs() == 1).await;
    let (address, began) = (fixture.public, Instant::now());
    fixture.shutdown.cancel();
    timeout(PATIENCE, fixture.served).await.expect("bounded").expect("no panic").expect("an orderly end");
    assert!(began.elapsed() >= Duration::from_millis(150), "the call had its time");
    assert!(hanging.await.expect("no panic").is_err());
    assert!(TcpStream::connect(address).await.is_err(), "nothing is accepted any more");
}
