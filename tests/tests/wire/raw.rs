//! A client that writes HTTP/2 frames by hand (RFC 9113), so that it can write wrong ones, and reads what comes
//! back frame by frame. It judges nothing.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use http::HeaderMap;
use interlock_proto::credential::Credential;
use interlock_tests::{wire::Outcome, within};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tonic::Status;

use crate::{
    hpack,
    tls::{self, Shows},
};

pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const FRAME_BYTES: usize = 16_384;

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PING: u8 = 0x6;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
pub(crate) const CONTINUATION: u8 = 0x9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;

pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;
const HEADER_TABLE_SIZE: u16 = 0x1;
/// What a window is before anything was said. RFC 9113 section 6.9.2.
const WINDOW: i64 = 65_535;

pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection.
pub(crate) struct Raw {
    stream: Box<dyn Duplex>,
    /// Our end of the socket.
    pub(crate) local: SocketAddr,
    unread: Vec<u8>,
    /// What the server has said of itself.
    pub(crate) settings: BTreeMap<u16, u32>,
    /// How many bytes may be sent, by stream; 0 is the connection.
    room: BTreeMap<u32, i64>,
    answers: BTreeMap<u32, Answer>,
    /// Whether its pings are answered.
    pub(crate) polite: bool,
    pub(crate) pings: usize,
    /// The code of the last GOAWAY.
    pub(crate) goaway: Option<u32>,
    /// The server has ended the connection.
    pub(crate) closed: bool,
    next: u32,
}

/// What came back on one stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: Option<u16>,
    /// Headers and trailers.
    pub(crate) headers: HeaderMap,
    pub(crate) data: Vec<u8>,
    pub(crate) ended: bool,
    /// The code that the stream was reset with.
    pub(crate) reset: Option<u32>,
}

impl Answer {
    /// What it says in gRPC.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        let status = Status::from_header_map(&self.headers)?;
        Some(if status.code() == tonic::Code::Ok { Outcome::ok() } else { Outcome::of(&status) })
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    ends: bool,
}

impl Ask {
    /// A call of that method, with no body.
    pub(crate) fn of(path: &str) -> Self {
        let fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { fields, body: Vec::new(), ends: true }
    }

    pub(crate) fn bearer(self, credential: &Credential) -> Self {
        self.with("authorization", &format!("Bearer {}", credential.expose()))
    }

    /// One more field.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The field with another value.
    pub(crate) fn but(mut self, name: &str, value: &str) -> Self {
        self.fields.iter_mut().filter(|(own, _)| own == name).for_each(|(_, own)| value.clone_into(own));
        self
    }

    /// Without the field.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(own, _)| own != name);
        self
    }

    /// With these bytes after the headers.
    pub(crate) fn body(mut self, bytes: &[u8]) -> Self {
        self.body = bytes.to_vec();
        self
    }

    /// With this message.
    pub(crate) fn message(self, message: &[u8]) -> Self {
        self.body(&prefixed(message))
    }

    /// More of the body is to come.
    pub(crate) fn unended(mut self) -> Self {
        self.ends = false;
        self
    }
}

/// A message as gRPC frames it.
pub(crate) fn prefixed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a message");
    [&[0][..], &length.to_be_bytes(), message].concat()
}

/// A frame, whatever it says. RFC 9113 section 4.1.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Connects from an address of this machine.
pub(crate) async fn tcp(address: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let stream = within("a connection", socket.connect(address)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Raw {
    /// HTTP/2 over TLS, with what it shows.
    pub(crate) async fn open(address: SocketAddr, shows: &Shows) -> io::Result<Self> {
        let stream = tls::shake(address, shows).await?;
        let local = stream.get_ref().0.local_addr()?;
        Self::on(Box::new(stream), local).await
    }

    /// HTTP/2 in plain text.
    pub(crate) async fn plain(address: SocketAddr) -> io::Result<Self> {
        let stream = tcp(address, Ipv4Addr::LOCALHOST.into()).await?;
        let local = stream.local_addr()?;
        Self::on(Box::new(stream), local).await
    }

    async fn on(stream: Box<dyn Duplex>, local: SocketAddr) -> io::Result<Self> {
        let mut raw = Self {
            stream,
            local,
            unread: Vec::new(),
            settings: BTreeMap::new(),
            room: BTreeMap::from([(0, WINDOW)]),
            answers: BTreeMap::new(),
            polite: true,
            pings: 0,
            goaway: None,
            closed: false,
            next: 1,
        };
        let no_table = [&HEADER_TABLE_SIZE.to_be_bytes()[..], &0_u32.to_be_bytes()].concat();
        let hello = [&PREFACE[..], &frame(SETTINGS, 0, 0, &no_table)].concat();
        raw.send(&hello).await?;
        raw.until("the server's settings", |raw| !raw.settings.is_empty()).await;
        Ok(raw)
    }

    /// Sends bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        within("room for bytes", async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await
    }

    /// Makes a request on the next stream, as far as windows let it. What cannot be sent any more is dropped: an
    /// answer has come, or none will.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> u32 {
        let stream = self.next;
        self.next += 2;
        let window = self.settings.get(&INITIAL_WINDOW_SIZE).map_or(WINDOW, |window| i64::from(*window));
        self.room.insert(stream, window);
        self.answers.insert(stream, Answer::default());
        let bare = ask.ends && ask.body.is_empty();
        // A server that has had enough may have closed.
        let _ = self.send(&headers(stream, &hpack::block(&ask.fields), bare)).await;
        if !bare {
            self.body(stream, &ask.body, ask.ends).await;
        }
        stream
    }

    /// Sends more of a request's body.
    pub(crate) async fn body(&mut self, stream: u32, bytes: &[u8], ends: bool) {
        let mut rest = bytes;
        loop {
            let room = self.room[&0].min(self.room[&stream]).clamp(0, FRAME_BYTES as i64);
            let (part, after) = rest.split_at(rest.len().min(usize::try_from(room).expect("clamped")));
            if !part.is_empty() || rest.is_empty() {
                rest = after;
                let flags = if ends && rest.is_empty() { END_STREAM } else { 0 };
                for window in [0, stream] {
                    *self.room.get_mut(&window).expect("each has one") -= part.len() as i64;
                }
                if (ends || !part.is_empty()) && self.send(&frame(DATA, flags, stream, part)).await.is_err() {
                    return;
                }
            } else if self.answers[&stream].ended || !self.pump().await {
                return;
            }
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Resets a stream.
    pub(crate) async fn reset(&mut self, stream: u32, code: u32) {
        let _ = self.send(&frame(RST_STREAM, 0, stream, &code.to_be_bytes())).await;
    }

    /// What comes back on a stream, once it has ended or the connection has.
    pub(crate) async fn answer(&mut self, stream: u32) -> Answer {
        self.until("an answer", |raw| raw.has_ended(stream)).await;
        self.seen(stream).clone()
    }

    /// What has come back on a stream by now.
    pub(crate) fn seen(&self, stream: u32) -> &Answer {
        &self.answers[&stream]
    }

    pub(crate) fn has_ended(&self, stream: u32) -> bool {
        self.closed || self.seen(stream).ended || self.seen(stream).reset.is_some()
    }

    /// A request and its answer.
    pub(crate) async fn call(&mut self, ask: &Ask) -> Answer {
        let stream = self.ask(ask).await;
        self.answer(stream).await
    }

    /// Reads until that holds, or the server has closed.
    ///
    /// # Panics
    /// Where neither comes in time.
    pub(crate) async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        within(what, async { while !holds(self) && self.pump().await {} }).await;
    }

    /// Reads one frame; false once the server has closed.
    async fn pump(&mut self) -> bool {
        while !self.closed {
            if let Some((kind, flags, stream, payload)) = self.whole_frame() {
                self.take(kind, flags, stream, &payload).await;
                return true;
            }
            match self.stream.read_buf(&mut self.unread).await {
                Ok(0) | Err(_) => self.closed = true,
                Ok(_) => {}
            }
        }
        false
    }

    fn whole_frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let [a, b, c, kind, flags, s1, s2, s3, s4] = *self.unread.first_chunk::<9>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = self.unread.get(9..9 + length)?.to_vec();
        self.unread.drain(..9 + length);
        Some((kind, flags, u32::from_be_bytes([s1, s2, s3, s4]), payload))
    }

    async fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        match kind {
            SETTINGS if flags & ACK == 0 => {
                for entry in payload.chunks_exact(6) {
                    let value = u32::from_be_bytes(entry[2..].try_into().expect("four bytes"));
                    self.settings.insert(u16::from_be_bytes([entry[0], entry[1]]), value);
                }
                let _ = self.send(&frame(SETTINGS, ACK, 0, &[])).await;
            }
            PING if flags & ACK == 0 => {
                self.pings += 1;
                if self.polite {
                    let _ = self.send(&frame(PING, ACK, 0, payload)).await;
                }
            }
            WINDOW_UPDATE => *self.room.entry(stream).or_insert(0) += i64::from(number(0)),
            GOAWAY => self.goaway = Some(number(4)),
            RST_STREAM => self.answers.entry(stream).or_default().reset = Some(number(0)),
            HEADERS => {
                assert_eq!(flags & END_HEADERS, END_HEADERS, "our answers have short headers");
                let answer = self.answers.entry(stream).or_default();
                answer.status = hpack::read(payload, &mut answer.headers).or(answer.status);
                answer.ended |= flags & END_STREAM != 0;
            }
            DATA => {
                let answer = self.answers.entry(stream).or_default();
                answer.data.extend(payload);
                answer.ended |= flags & END_STREAM != 0;
            }
            _ => {}
        }
    }

    /// How much the server takes on the whole connection, unread.
    pub(crate) fn window(&self) -> i64 {
        self.room[&0]
    }
}

/// A header block in as many frames as it needs.
fn headers(stream: u32, block: &[u8], ends: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut parts = block.chunks(FRAME_BYTES).enumerate().peekable();
    while let Some((n, part)) = parts.next() {
        let end = if parts.peek().is_none() { END_HEADERS } else { 0 };
        let (kind, flags) = match n {
            0 => (HEADERS, end | if ends { END_STREAM } else { 0 }),
            _ => (CONTINUATION, end),
        };
        bytes.extend(frame(kind, flags, stream, part));
    }
    bytes
}
