//! A connection that must speak HTTP/2 from its first byte and may not fall silent half-way.
//!
//! Neither keepalive nor age closes a peer that sends nothing, or half of something: so the first
//! bytes are read before the connection is served, and the frames that follow are counted as they
//! pass. Frame layout: RFC 9113 section 4.1.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// RFC 9113 section 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
/// The preface and the header of the SETTINGS frame that must follow it.
pub(super) const OPENING: usize = PREFACE.len() + FRAME_HEADER;

const DATA: u8 = 0x0;
const SETTINGS: u8 = 0x4;
const HEADERS: u8 = 0x1;
const PUSH_PROMISE: u8 = 0x5;
const CONTINUATION: u8 = 0x9;
const FLAG_ACK: u8 = 0x1;
const FLAG_END_HEADERS: u8 = 0x4;

/// Anything that bytes go through.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Reads the first bytes of a connection.
///
/// # Errors
/// `InvalidData` where they are not HTTP/2; end of file and other faults of the stream.
pub(super) async fn opening(stream: &mut Box<dyn Stream>) -> io::Result<[u8; OPENING]> {
    let mut bytes = [0; OPENING];
    stream.read_exact(&mut bytes).await?;
    if !bytes.starts_with(PREFACE) || bytes[PREFACE.len() + 3] != SETTINGS {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not HTTP/2"));
    }
    Ok(bytes)
}

/// The stream, with its first bytes put back and silence inside a frame bounded.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    replay: [u8; OPENING],
    replayed: usize,
    frames: Frames,
    silence: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>, opening: [u8; OPENING], silence: Duration) -> Self {
        let mut frames = Frames::default();
        frames.pass(&opening[PREFACE.len()..]);
        Self { stream, replay: opening, replayed: 0, frames, silence, timer: None }
    }

    /// The peer has sent nothing more: fine between frames, not inside one.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.frames.unfinished() {
            self.timer = None;
            return Poll::Pending;
        }
        let silence = self.silence;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "silent inside a frame")))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.replayed < OPENING {
            let n = buf.remaining().min(OPENING - this.replayed);
            buf.put_slice(&this.replay[this.replayed..this.replayed + n]);
            this.replayed += n;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => this.poll_silence(cx),
            ready @ Poll::Ready(_) => {
                let steps = this.frames.steps;
                this.frames.pass(&buf.filled()[before..]);
                if let Some(timer) = this.timer.as_mut().filter(|_| this.frames.steps != steps) {
                    timer.as_mut().reset(Instant::now() + this.silence);
                }
                ready
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Where in the frames of a connection its bytes stand. Judges nothing: h2 does.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; FRAME_HEADER],
    /// Bytes of the present header that are there.
    have: usize,
    /// What the present payload is of.
    kind: u8,
    /// Bytes of the present payload that are not there yet.
    left: usize,
    /// A header block that has begun and not ended.
    block: bool,
    /// The peer has acknowledged our settings.
    acknowledged: bool,
    /// How often the peer got somewhere: data of any length, a whole header block, a whole frame of another
    /// kind. Single bytes of a header block are no step, so that it cannot be spun out.
    steps: u64,
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let payload = self.left.min(bytes.len());
            self.left -= payload;
            bytes = &bytes[payload..];
            if payload > 0 && (self.left == 0 || self.kind == DATA) {
                self.step();
            }
            let header = (FRAME_HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + header].copy_from_slice(&bytes[..header]);
            self.have += header;
            bytes = &bytes[header..];
            if self.have == FRAME_HEADER {
                self.begin();
            }
        }
    }

    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        (self.have, self.kind) = (0, kind);
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        match kind {
            HEADERS | PUSH_PROMISE | CONTINUATION => self.block = flags & FLAG_END_HEADERS == 0,
            SETTINGS => self.acknowledged |= flags & FLAG_ACK != 0,
            _ => {}
        }
        if self.left == 0 {
            self.step();
        }
    }

    fn step(&mut self) {
        if self.acknowledged && !self.block {
            self.steps += 1;
        }
    }

    fn unfinished(&self) -> bool {
        self.have > 0 || self.left > 0 || self.block || !self.acknowledged
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const SETTINGS_ACK: [u8; 9] = [0, 0, 0, SETTINGS, FLAG_ACK, 0, 0, 0, 0];
    /// Four bytes of header block are announced.
    const HALF_HEADERS: [u8; 11] = [0, 0, 4, HEADERS, 0x5, 0, 0, 0, 1, 0x82, 0x86];

    fn settings() -> [u8; OPENING] {
        let mut bytes = [0; OPENING];
        bytes[..24].copy_from_slice(PREFACE);
        bytes[27] = SETTINGS;
        bytes
    }

    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let mut stream = SETTINGS_ACK.to_vec();
        stream.extend([0, 0, 2, HEADERS, 0, 0, 0, 0, 1, 1, 2]);
        stream.extend([0, 0, 1, CONTINUATION, FLAG_END_HEADERS, 0, 0, 0, 1, 3]);
        for step in 1..stream.len() {
            let mut frames = Frames::default();
            stream.chunks(step).for_each(|part| frames.pass(part));
            assert!(!frames.unfinished(), "in steps of {step}");
        }
        for cut in 10..stream.len() {
            let mut frames = Frames::default();
            frames.pass(&stream[..cut]);
            assert!(frames.unfinished(), "cut at {cut}");
        }
    }

    async fn read_all(mut wire: Wire) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        wire.read_to_end(&mut bytes).await.map(|_| bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_inside_a_frame_ends_the_connection() {
        for sent in [&[][..], &HALF_HEADERS, &[SETTINGS_ACK.as_slice(), &HALF_HEADERS].concat()] {
            let (mut peer, ours) = tokio::io::duplex(64);
            peer.write_all(sent).await.expect("room");
            let wire = Wire::new(Box::new(ours), settings(), Duration::from_secs(4));
            let began = Instant::now();
            let fault = read_all(wire).await.expect_err("the peer is silent");
            assert_eq!(fault.kind(), io::ErrorKind::TimedOut);
            assert!(began.elapsed() < Duration::from_secs(5));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_block_cannot_be_spun_out() {
        let (mut peer, ours) = tokio::io::duplex(64);
        let wire = Wire::new(Box::new(ours), settings(), Duration::from_secs(4));
        let began = Instant::now();
        let reader = tokio::spawn(read_all(wire));
        // A byte a second: never silent for long, never done.
        peer.write_all(&SETTINGS_ACK).await.expect("room");
        peer.write_all(&[0, 0, 200, HEADERS, 0x5, 0, 0, 0, 1]).await.expect("room");
        for _ in 0..200 {
            if peer.write_all(&[0x82]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let fault = reader.await.expect("no panic").expect_err("it is never done");
        assert_eq!(fault.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_data_is_no_silence() {
        let (mut peer, ours) = tokio::io::duplex(64);
        let wire = Wire::new(Box::new(ours), settings(), Duration::from_secs(4));
        let reader = tokio::spawn(read_all(wire));
        peer.write_all(&SETTINGS_ACK).await.expect("room");
        peer.write_all(&[0, 0, 20, DATA, 0, 0, 0, 0, 1]).await.expect("room");
        for _ in 0..20 {
            peer.write_all(&[1]).await.expect("still open");
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        drop(peer);
        reader.await.expect("no panic").expect("an orderly end");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_between_frames_is_the_keepalives_business() {
        let (mut peer, ours) = tokio::io::duplex(64);
        peer.write_all(&SETTINGS_ACK).await.expect("room");
        let wire = Wire::new(Box::new(ours), settings(), Duration::from_secs(4));
        let reader = tokio::spawn(read_all(wire));
        tokio::time::sleep(Duration::from_secs(600)).await;
        drop(peer);
        let bytes = reader.await.expect("no panic").expect("an orderly end");
        assert_eq!(bytes, [settings().as_slice(), &SETTINGS_ACK].concat(), "the first bytes are put back");
    }

    #[tokio::test]
    async fn what_is_not_http2_is_refused() {
        let (mut peer, ours) = tokio::io::duplex(64);
        peer.write_all(b"GET / HTTP/1.1\r\nhost: interlock.invalid\r\n\r\n").await.expect("room");
        let mut stream: Box<dyn Stream> = Box::new(ours);
        let fault = opening(&mut stream).await.expect_err("not HTTP/2");
        assert_eq!(fault.kind(), io::ErrorKind::InvalidData);
    }
}
