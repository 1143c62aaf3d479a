//! TLS as a client that chooses what it shows, and what is not TLS at all.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use interlock_tests::{Pair, Setup, within};
use rustls::{
    AlertDescription, ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    honest::Honest,
    raw::{self, PREFACE, SETTINGS},
};

/// What a client shows and asks for.
#[derive(Clone, Debug)]
pub(crate) struct Shows {
    /// The authority that it believes, PEM.
    pub(crate) ca: PathBuf,
    /// Certificate and key, PEM.
    pub(crate) leaf: Option<(PathBuf, PathBuf)>,
    pub(crate) alpn: &'static [&'static [u8]],
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    /// Which of this machine's addresses it comes from.
    pub(crate) from: IpAddr,
}

impl Shows {
    /// No certificate; all else as it should be.
    pub(crate) fn nothing(ca: PathBuf) -> Self {
        let from = Ipv4Addr::LOCALHOST.into();
        Self { ca, leaf: None, alpn: &[b"h2"], versions: BOTH, from }
    }

    fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca).expect("an authority")).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .expect("versions that rustls has")
            .with_root_certificates(roots);
        let mut config = match &self.leaf {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::from_pem_file(certificate).expect("a certificate");
                let key = PrivateKeyDer::from_pem_file(key).expect("a key");
                builder.with_client_auth_cert(vec![chain], key).expect("a pair")
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }
}

/// A handshake. In TLS 1.3 it may succeed here although the server refuses: what it says is read next.
pub(crate) async fn shake(address: SocketAddr, shows: &Shows) -> io::Result<TlsStream<TcpStream>> {
    let stream = raw::tcp(address, shows.from).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    within("a handshake", TlsConnector::from(Arc::new(shows.config())).connect(name, stream)).await
}

/// How a server ended a connection on which it was sent nothing but a handshake: with that alert, or with none. Our
/// end of the socket as well, where there is one.
pub(crate) async fn refusal(
    address: SocketAddr,
    shows: &Shows,
) -> (Option<AlertDescription>, Option<SocketAddr>) {
    let mut stream = match shake(address, shows).await {
        Err(error) => return (alert(&error), None),
        Ok(stream) => stream,
    };
    let local = stream.get_ref().0.local_addr().ok();
    let said = within("the end of the connection", stream.read(&mut [0; 64])).await;
    match said {
        Err(error) => (alert(&error), local),
        Ok(0) => (None, local),
        Ok(n) => panic!("{n} bytes instead of an end"),
    }
}

fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    }
}

/// Whether HTTP/2 is spoken on a connection with that handshake.
async fn is_taken(address: SocketAddr, shows: &Shows) -> bool {
    let Ok(mut stream) = shake(address, shows).await else { return false };
    let hello = [&PREFACE[..], &raw::frame(SETTINGS, 0, 0, &[])].concat();
    let spoken = async {
        stream.write_all(&hello).await?;
        stream.flush().await?;
        stream.read(&mut [0; 64]).await
    };
    matches!(within("a word or an end", spoken).await, Ok(1..))
}

const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
const TLS13_ONLY: &[&SupportedProtocolVersion] = &[&TLS13];
const TLS12_ONLY: &[&SupportedProtocolVersion] = &[&TLS12];

// HARDENING, "TLS 1.1; on `internal` also 1.2; ALPN none or http/1.1": refused. The defaults refuse 1.2 on `public`, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_and_protocols_that_are_not_ours_are_refused() {
    let pair = Pair::start_with(Setup::default().auth("tls.public_min_version", "1.2")).await;
    let mut honest = Honest::at_both(&pair).await;
    let tester = Shows { leaf: Some(pair.world.leaf("pki/tester")), ..Shows::nothing(pair.world.ca()) };
    for (service, running) in [("auth", &pair.auth), ("gateway", &pair.gateway)] {
        for listener in ["public", "internal"] {
            let address = running.address(listener);
            let what = format!("{service} {listener}");
            let takes_12 = (service, listener) == ("auth", "public");
            let takes: [(_, &'static [&'static [u8]], _); 7] = [
                (TLS13_ONLY, &[b"h2"], true),
                (TLS13_ONLY, &[b"http/1.1", b"h2"], true),
                (TLS12_ONLY, &[b"h2"], takes_12),
                (TLS13_ONLY, &[b"http/1.1"], false),
                (TLS13_ONLY, &[b"h3"], false),
                (TLS13_ONLY, &[], false),
                (TLS12_ONLY, &[], false),
            ];
            for (versions, alpn, taken) in takes {
                let shows = Shows { versions, alpn, ..tester.clone() };
                let case = format!("{what}: {versions:?} {alpn:?}");
                assert_eq!(is_taken(address, &shows).await, taken, "{case}");
                // Nothing in common is said so, in TLS's own words.
                if versions == TLS12_ONLY && !takes_12 {
                    assert_eq!(
                        refusal(address, &shows).await.0,
                        Some(AlertDescription::ProtocolVersion),
                        "{case}"
                    );
                } else if !alpn.is_empty() && !taken {
                    let said = refusal(address, &shows).await.0;
                    assert_eq!(said, Some(AlertDescription::NoApplicationProtocol), "{case}");
                }
            }
            let said = answer(address, &client_hello_11()).await;
            // A record of one fatal alert (RFC 8446 section 6), and which one is the library's to say.
            let refused = said.len() == 7 && said[0] == ALERT && said[5] == FATAL;
            assert!(refused, "{what}: TLS 1.1 gets {said:02x?}");
        }
    }
    honest.are_unharmed("TLS that is not ours").await;
}

const ALERT: u8 = 21;
const FATAL: u8 = 2;

/// A ClientHello of TLS 1.1 (RFC 4346 section 7.4.1.2): one cipher suite, no extensions.
fn client_hello_11() -> Vec<u8> {
    let body = [&[3, 2][..], &[7; 32], &[0], &[0, 2, 0xc0, 0x13], &[1, 0]].concat();
    let message = [&[1, 0, 0, u8::try_from(body.len()).expect("short")], &body[..]].concat();
    [&[22, 3, 1, 0, u8::try_from(message.len()).expect("short")], &message[..]].concat()
}

/// Sends bytes and reads until the server closes.
async fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = raw::tcp(address, Ipv4Addr::LOCALHOST.into()).await.expect("a connection");
    let mut said = Vec::new();
    // Who closes on the first bytes may not take the rest.
    let _ = stream.write_all(bytes).await;
    let _ = within("the end of the connection", stream.read_to_end(&mut said)).await;
    said
}

/// The same, inside TLS.
async fn answer_in_tls(address: SocketAddr, shows: &Shows, bytes: &[u8]) -> Vec<u8> {
    let mut stream = shake(address, shows).await.expect("a good handshake");
    let mut said = Vec::new();
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let _ = within("the end of the connection", stream.read_to_end(&mut said)).await;
    said
}

// HARDENING, "garbage preface, HTTP/1.1, TLS to a plain port": closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_http2_is_closed() {
    let pair = Pair::start().await;
    let mut honest = Honest::at_both(&pair).await;
    let tester = Shows { leaf: Some(pair.world.leaf("pki/tester")), ..Shows::nothing(pair.world.ca()) };
    let http1 = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    let http2 = [&PREFACE[..], &raw::frame(SETTINGS, 0, 0, &[])].concat();
    let ping_first = [&PREFACE[..], &raw::frame(raw::PING, 0, 0, &[0; 8])].concat();
    let inputs: [(&str, &[u8]); 5] = [
        ("a garbage preface", &[0xa5; 64]),
        ("nearly the preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\n\n0123456789"),
        ("the preface and no settings", &ping_first),
        ("HTTP/1.1", http1),
        ("a TLS hello", &client_hello_11()),
    ];
    for (service, running) in [("auth", &pair.auth), ("gateway", &pair.gateway)] {
        for (input, bytes) in inputs {
            for listener in ["public", "internal"] {
                let began = Instant::now();
                let said = answer_in_tls(running.address(listener), &tester, bytes).await;
                println!("{service} {listener}, {input} in TLS: closed after {:?}", began.elapsed());
                assert_eq!(said, b"", "{service} {listener}: {input} in TLS");
            }
            let said = answer(running.address("health"), bytes).await;
            assert_eq!(said, b"", "{service} health: {input}");
        }
        for (input, bytes) in [("HTTP/2", &http2[..]), ("HTTP/1.1", http1), ("garbage", &[0xa5; 64])] {
            for listener in ["public", "internal"] {
                let said = answer(running.address(listener), bytes).await;
                // At most an alert (RFC 8446 section 6): a record of 7 bytes.
                assert!(
                    said.is_empty() || said.len() == 7 && said[0] == ALERT,
                    "{listener}, plain {input}: {said:?}"
                );
            }
        }
        for (input, bytes) in [("a TLS hello", client_hello_11()), ("HTTP/2", http2.clone())] {
            let said = answer(running.address("metrics"), &bytes).await;
            let said = String::from_utf8_lossy(&said);
            assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "metrics, {input}: {said}");
        }
    }
    honest.are_unharmed("what is not HTTP/2").await;
}
