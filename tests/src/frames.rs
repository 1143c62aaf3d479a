//! HTTP/2 by hand: frames as bytes over TLS, from any address of loopback, as fast as the socket takes them.
//!
//! For floods: what is written and what is read do not wait for each other, and of what comes back only the
//! kinds and codes are counted. (Who wants to read single answers finds a client for that in `tests/tests/wire`.)
//! Frame layout: RFC 9113 section 4.1. Header fields are written as literals without index: RFC 7541 section 6.2.2.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    net::{TcpSocket, TcpStream},
    sync::Mutex as AsyncMutex,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// RFC 9113 section 3.4.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
pub mod kind {
    #![allow(missing_docs, reason = "the names of RFC 9113 section 6")]
    pub const DATA: u8 = 0x0;
    pub const HEADERS: u8 = 0x1;
    pub const PRIORITY: u8 = 0x2;
    pub const RST_STREAM: u8 = 0x3;
    pub const SETTINGS: u8 = 0x4;
    pub const PING: u8 = 0x6;
    pub const GOAWAY: u8 = 0x7;
    pub const WINDOW_UPDATE: u8 = 0x8;
    pub const CONTINUATION: u8 = 0x9;
}

/// Flags of frames.
pub mod flag {
    #![allow(missing_docs, reason = "the names of RFC 9113 section 6")]
    pub const NONE: u8 = 0x0;
    pub const END_STREAM: u8 = 0x1;
    pub const ACK: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
}

/// Codes of resets and ends.
pub mod code {
    #![allow(missing_docs, reason = "the names of RFC 9113 section 7")]
    pub const PROTOCOL_ERROR: u32 = 0x1;
    pub const FLOW_CONTROL_ERROR: u32 = 0x3;
    pub const REFUSED_STREAM: u32 = 0x7;
    pub const CANCEL: u32 = 0x8;
    pub const ENHANCE_YOUR_CALM: u32 = 0xb;
}

/// One frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("no frame is that long").to_be_bytes();
    let mut bytes = Vec::with_capacity(9 + payload.len());
    bytes.extend([length[1], length[2], length[3], kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block.
#[must_use]
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            length(text.len(), &mut bytes);
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// An integer with a prefix of seven bits: RFC 7541 section 5.1.
fn length(n: usize, bytes: &mut Vec<u8>) {
    const PREFIX: usize = 127;
    if n < PREFIX {
        bytes.push(n as u8);
        return;
    }
    bytes.push(PREFIX as u8);
    let mut left = n - PREFIX;
    while left >= 128 {
        bytes.push((left % 128 + 128) as u8);
        left /= 128;
    }
    bytes.push(left as u8);
}

/// The header block of a call, with more fields after the usual ones.
#[must_use]
pub fn call(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    all.extend(more);
    fields(&all)
}

/// Where to connect to, from where, and what to show.
#[derive(Clone, Debug)]
pub struct Plug {
    /// The listener.
    pub to: SocketAddr,
    /// Our end: any address of 127.0.0.0/8. Whoever has another one is another source.
    pub from: IpAddr,
    /// The authority to believe, PEM.
    pub ca: PathBuf,
    /// Certificate and key.
    pub leaf: Option<(PathBuf, PathBuf)>,
}

impl Plug {
    /// The same, from another address: 127.0.0.`n`.
    #[must_use]
    pub fn from(&self, n: u8) -> Self {
        Self { from: IpAddr::V4(Ipv4Addr::new(127, 0, 0, n)), ..self.clone() }
    }

    /// A connection without TLS.
    ///
    /// # Errors
    /// What the system says.
    pub async fn tcp(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        // Many short connections in a row need their ports again at once.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(self.from, 0))?;
        let stream = socket.connect(self.to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A connection with TLS on which nothing was said yet.
    ///
    /// # Errors
    /// What the system or the other side says.
    pub async fn tls(&self) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(self.config()).connect(name, self.tcp().await?).await
    }

    /// How TLS is spoken.
    ///
    /// # Panics
    /// Where the files cannot be read.
    #[must_use]
    pub fn config(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca).expect("an authority")).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a version")
            .with_root_certificates(roots);
        let mut config = match &self.leaf {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_file(certificate).expect("a certificate")];
                let key = PrivateKeyDer::from_pem_file(key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

/// What came back so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Frames by kind.
    pub frames: BTreeMap<u8, u64>,
    /// Acknowledgements of pings and settings, by kind.
    pub acks: BTreeMap<u8, u64>,
    /// Resets by code.
    pub resets: BTreeMap<u32, u64>,
    /// The code of the last GOAWAY, and what it says beside.
    pub goaway: Option<(u32, String)>,
    /// The other side has closed.
    pub closed: bool,
}

impl Seen {
    /// Frames of a kind.
    #[must_use]
    pub fn of(&self, kind: u8) -> u64 {
        self.frames.get(&kind).copied().unwrap_or_default()
    }

    /// Resets with a code.
    #[must_use]
    pub fn reset_with(&self, code: u32) -> u64 {
        self.resets.get(&code).copied().unwrap_or_default()
    }
}

type Writer = Arc<AsyncMutex<WriteHalf<TlsStream<TcpStream>>>>;

/// An open connection. Closed on drop.
#[derive(Debug)]
pub struct Raw {
    writer: Writer,
    seen: Arc<Mutex<Seen>>,
    reader: JoinHandle<()>,
}

impl Raw {
    /// Connects, and exchanges settings. Pings are answered from then on.
    ///
    /// # Errors
    /// What the system or the other side says.
    pub async fn open(plug: &Plug) -> io::Result<Self> {
        let mut stream = plug.tls().await?;
        stream.write_all(&[PREFACE.as_slice(), &frame(kind::SETTINGS, flag::NONE, 0, &[])].concat()).await?;
        let mut kinds = BTreeMap::new();
        while !kinds.contains_key(&kind::SETTINGS) {
            let (header, _) = read(&mut stream).await?;
            *kinds.entry(header.kind).or_default() += 1;
        }
        stream.write_all(&frame(kind::SETTINGS, flag::ACK, 0, &[])).await?;
        let seen = Arc::new(Mutex::new(Seen { frames: kinds, ..Seen::default() }));
        let (reader, writer) = split(stream);
        let writer = Arc::new(AsyncMutex::new(writer));
        let reader = tokio::spawn(follow(reader, Arc::clone(&writer), Arc::clone(&seen)));
        Ok(Self { writer, seen, reader })
    }

    /// Writes these bytes.
    ///
    /// # Errors
    /// The other side has closed.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = self.writer.lock().await;
        writer.write_all(bytes).await?;
        writer.flush().await
    }

    /// Writes what `piece` makes for 0 to `count`, in large parts, until the other side has had enough;
    /// gives how many were written.
    pub async fn flood(&self, count: u32, piece: impl Fn(u32) -> Vec<u8>) -> u32 {
        let mut part = Vec::new();
        for n in 0..count {
            part.extend(piece(n));
            if part.len() >= 32 * 1024 || n + 1 == count {
                if self.seen().goaway.is_some() || self.send(&part).await.is_err() {
                    return n;
                }
                part.clear();
            }
        }
        count
    }

    /// What came back so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no reader panics")
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct Header {
    kind: u8,
    flags: u8,
}

async fn read(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<(Header, Vec<u8>)> {
    let mut header = [0; 9];
    stream.read_exact(&mut header).await?;
    let [a, b, c, kind, flags, ..] = header;
    let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
    stream.read_exact(&mut payload).await?;
    Ok((Header { kind, flags }, payload))
}

async fn follow(mut reader: ReadHalf<TlsStream<TcpStream>>, writer: Writer, seen: Arc<Mutex<Seen>>) {
    while let Ok((Header { kind, flags }, payload)) = read(&mut reader).await {
        let acks = matches!(kind, kind::PING | kind::SETTINGS) && flags & flag::ACK != 0;
        note(&mut seen.lock().expect("no reader panics"), kind, acks, &payload);
        if kind == kind::PING && !acks {
            // Whoever writes now shows by that that it lives.
            if let Ok(mut writer) = writer.try_lock() {
                let _ = writer.write_all(&frame(kind::PING, flag::ACK, 0, &payload)).await;
                let _ = writer.flush().await;
            }
        }
    }
    seen.lock().expect("no reader panics").closed = true;
}

fn note(seen: &mut Seen, kind: u8, acks: bool, payload: &[u8]) {
    *seen.frames.entry(kind).or_default() += 1;
    if acks {
        *seen.acks.entry(kind).or_default() += 1;
    }
    let word = |at: usize| {
        let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_be_bytes).unwrap_or_default()
    };
    match kind {
        kind::RST_STREAM => *seen.resets.entry(word(0)).or_default() += 1,
        kind::GOAWAY => {
            let says = String::from_utf8_lossy(payload.get(8..).unwrap_or_default()).into_owned();
            seen.goaway = Some((word(4), says));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_fields_are_as_the_standards_write_them() {
        assert_eq!(frame(kind::DATA, flag::END_STREAM, 3, b"ab"), b"\0\0\x02\0\x01\0\0\0\x03ab");
        assert_eq!(fields(&[("a", "bc")]), b"\0\x01a\x02bc");
        // RFC 7541 section C.1.2 has 1337 with a prefix of five bits; with seven it is 127 + 74 + 9 * 128.
        let mut bytes = Vec::new();
        length(1337, &mut bytes);
        assert_eq!(bytes, [127, 186, 9]);
    }
}
