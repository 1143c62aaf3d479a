//! Calls by path and bytes: whatever a client of any kind could send, and what came back.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes};
use interlock_proto::credential::Credential;
use prost::Message;
use tokio_stream::Stream;
use tonic::{
    Code, Request, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_types::StatusExt as _;

use crate::patience::within;

/// What a connection shows.
#[derive(Clone, Debug)]
pub struct Shows {
    /// Which authority it believes, PEM.
    pub ca: PathBuf,
    /// Its certificate and key.
    pub leaf: Option<(PathBuf, PathBuf)>,
}

/// A lazy connection to a TLS listener.
///
/// # Panics
/// Where the files cannot be read.
#[must_use]
pub fn connect(address: SocketAddr, shows: &Shows) -> Channel {
    let read = |path: &PathBuf| std::fs::read(path).expect("a PEM file");
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&shows.ca)))
        .domain_name("localhost");
    if let Some((certificate, key)) = &shows.leaf {
        tls = tls.identity(Identity::from_pem(read(certificate), read(key)));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address");
    endpoint
        .tls_config(tls)
        .expect("certificates")
        .connect_timeout(Duration::from_secs(5))
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024)
        .connect_lazy()
}

/// A lazy connection to a plain listener.
///
/// # Panics
/// Never for a socket address.
#[must_use]
pub fn connect_plain(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy()
}

/// What a call carries beside its message.
#[derive(Clone, Debug, Default)]
pub struct Metadata(Vec<(&'static str, Vec<u8>)>);

impl Metadata {
    /// Nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// A bearer credential.
    #[must_use]
    pub fn bearer(credential: &Credential) -> Self {
        Self::none().with("authorization", &format!("Bearer {}", credential.expose()))
    }

    /// One more entry.
    #[must_use]
    pub fn with(self, name: &'static str, value: &str) -> Self {
        self.with_bytes(name, value.as_bytes())
    }

    /// One more entry, of any bytes that HTTP/2 can carry there: no controls but the tab.
    #[must_use]
    pub fn with_bytes(mut self, name: &'static str, value: &[u8]) -> Self {
        self.0.push((name, value.to_owned()));
        self
    }

    /// A request that carries it.
    ///
    /// # Panics
    /// Where HTTP/2 cannot carry a value.
    pub fn on<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (name, value) in &self.0 {
            let name = AsciiMetadataKey::from_static(name);
            let value = AsciiMetadataValue::try_from(value.as_slice()).expect("no control characters");
            request.metadata_mut().append(name, value);
        }
        request
    }
}

/// What came back, reduced to what a caller can act on.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The status code, as gRPC writes it: `OK`, `PERMISSION_DENIED`.
    pub code: String,
    /// `ErrorInfo.reason`; empty where there is none.
    pub reason: String,
    /// The text of the status.
    pub message: String,
}

impl Outcome {
    /// Of a refusal.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let info = status.get_details_error_info();
        let ours = info.filter(|info| info.domain == "interlock");
        Self {
            code: code(status.code()),
            reason: ours.map(|info| info.reason).unwrap_or_default(),
            message: status.message().to_owned(),
        }
    }

    /// Of a success.
    #[must_use]
    pub fn ok() -> Self {
        Self { code: code(Code::Ok), reason: String::new(), message: String::new() }
    }

    /// `OK`, or the reason, or the bare code.
    #[must_use]
    pub fn short(&self) -> &str {
        if self.reason.is_empty() { &self.code } else { &self.reason }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} `{}`", self.code, self.reason, self.message)
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn code(code: Code) -> String {
    let mut text = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}

/// An answer: its outcome, the first message of a success, and its metadata.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it says.
    pub outcome: Outcome,
    /// The only message of a unary answer, the first one of a stream.
    pub message: Bytes,
    /// Metadata of headers, or of the refusal.
    pub metadata: MetadataMap,
    /// `grpc-status-details-bin` of a refusal, as it came.
    pub details: Bytes,
}

impl Answer {
    /// The message as that type.
    ///
    /// # Panics
    /// Where the call was refused or the message is of another type.
    #[must_use]
    pub fn read<M: Message + Default>(&self) -> M {
        assert_eq!(self.outcome, Outcome::ok());
        M::decode(self.message.clone()).expect("the message")
    }

    fn refused(status: &Status) -> Self {
        let metadata = status.metadata().clone();
        let details = Bytes::copy_from_slice(status.details());
        Self { outcome: Outcome::of(status), message: Bytes::new(), metadata, details }
    }
}

/// Calls any method, of whatever shape, with one message.
///
/// # Panics
/// Where no answer comes in time.
pub async fn call(channel: &Channel, path: &str, message: impl Into<Bytes>, metadata: &Metadata) -> Answer {
    let answer = async {
        match open(channel, path, message, metadata).await {
            Err(status) => Answer::refused(&status),
            Ok((metadata, mut messages)) => match messages.message().await {
                Err(status) => Answer::refused(&status),
                Ok(first) => {
                    let (outcome, message) = (Outcome::ok(), first.unwrap_or_default());
                    Answer { outcome, message, metadata, details: Bytes::new() }
                }
            },
        }
    };
    within(path, answer).await
}

/// Calls a method by its message.
///
/// # Panics
/// Where no answer comes in time.
pub async fn ask(channel: &Channel, path: &str, message: &impl Message, metadata: &Metadata) -> Answer {
    call(channel, path, message.encode_to_vec(), metadata).await
}

/// Opens a stream with one message from here.
///
/// # Errors
/// What the server answers instead.
pub async fn open(
    channel: &Channel,
    path: &str,
    message: impl Into<Bytes>,
    metadata: &Metadata,
) -> Result<(MetadataMap, Streaming<Bytes>), Status> {
    open_with(channel, path, tokio_stream::once(message.into()), metadata).await
}

/// Opens a stream with these messages from here, which may never end.
///
/// # Errors
/// What the server answers instead.
pub async fn open_with(
    channel: &Channel,
    path: &str,
    messages: impl Stream<Item = Bytes> + Send + 'static,
    metadata: &Metadata,
) -> Result<(MetadataMap, Streaming<Bytes>), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path =
        http::uri::PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()))?;
    let request = metadata.on(messages);
    let (metadata, messages, _) = client.streaming(request, path, Raw).await?.into_parts();
    Ok((metadata, messages))
}

/// Messages as they are on the wire.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
