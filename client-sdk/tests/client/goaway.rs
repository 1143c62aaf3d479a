//! A server that has had enough (GOAWAY, ENHANCE_YOUR_CALM): the client connects again, and goes on where it was.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use interlock_client::StreamFrom;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::{Notify, mpsc},
};

use crate::stream::{event, stage_behind};

const PREFACE_BYTES: usize = 24;
const HEADERS: u8 = 0x1;
/// Last stream 0, code 11, and what h2 says beside it.
const CALM: &[u8] = b"\0\0\x1c\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0btoo_many_data_frames";

/// Stands before a server, and ends connections as h2 does when it has had enough.
#[derive(Clone)]
pub(crate) struct Proxy {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    /// The next call is not passed on: it is answered so.
    at_next_call: AtomicBool,
    now: Notify,
}

impl Proxy {
    async fn before(server: SocketAddr) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Self { shared: Arc::default() };
        let shared = Arc::clone(&proxy.shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(pass(client, server, Arc::clone(&shared)));
            }
        });
        (proxy, address)
    }

    fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, server: SocketAddr, shared: Arc<Shared>) {
    let (from_server, to_server) = TcpStream::connect(server).await.unwrap().into_split();
    let (from_client, mut to_client) = client.into_split();
    let enough = Arc::new(Notify::new());
    let up = tokio::spawn(pass_up(from_client, to_server, Arc::clone(&shared), Arc::clone(&enough)));
    let (frames, mut arrived) = mpsc::channel(64);
    let down = tokio::spawn(pass_down(from_server, frames));
    loop {
        tokio::select! {
            frame = arrived.recv() => match frame {
                Some(frame) => to_client.write_all(&frame).await.unwrap_or_default(),
                None => break,
            },
            () = enough.notified() => break,
            () = shared.now.notified() => break,
        }
    }
    let _ = to_client.write_all(CALM).await;
    up.abort();
    down.abort();
}

async fn pass_up(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: Arc<Shared>,
    enough: Arc<Notify>,
) -> Option<()> {
    let mut preface = [0; PREFACE_BYTES];
    from.read_exact(&mut preface).await.ok()?;
    to.write_all(&preface).await.ok()?;
    loop {
        let frame = frame(&mut from).await?;
        if frame[3] == HEADERS && shared.at_next_call.swap(false, Ordering::SeqCst) {
            enough.notify_one();
            std::future::pending::<()>().await;
        }
        to.write_all(&frame).await.ok()?;
    }
}

async fn pass_down(mut from: OwnedReadHalf, frames: mpsc::Sender<Vec<u8>>) -> Option<()> {
    loop {
        frames.send(frame(&mut from).await?).await.ok()?;
    }
}

async fn frame(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut frame = vec![0; 9];
    from.read_exact(&mut frame).await.ok()?;
    let length = usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
    frame.resize(9 + length, 0);
    from.read_exact(&mut frame[9..]).await.ok()?;
    Some(frame)
}

// HARDENING.md: the SDK "treats ENHANCE_YOUR_CALM as reconnect and resume".
#[tokio::test]
async fn a_stream_whose_connection_was_too_much_resumes_on_another() {
    let (mut s, proxy) = stage_behind(StreamFrom::Start, Proxy::before).await;
    let (_, said) = s.accept().await;
    for n in 1..=3 {
        said.send(event(n)).await.unwrap();
        assert_eq!(s.sequence().await, n);
    }
    proxy.shared.now.notify_one();
    let (asked, said) = s.accept().await;
    assert_eq!(asked.after, 3, "after the last event that was handed out");
    said.send(event(4)).await.unwrap();
    assert_eq!(s.sequence().await, 4);
    assert_eq!(proxy.connections(), 2);
}

#[tokio::test]
async fn a_call_that_met_an_ending_connection_is_made_again_on_another() {
    let (mut s, proxy) = stage_behind(StreamFrom::Start, Proxy::before).await;
    let (_, _said) = s.accept().await;
    proxy.shared.at_next_call.store(true, Ordering::SeqCst);
    assert_eq!(crate::soon("an answer", s.events.ack(9)).await.unwrap(), 9);
    assert_eq!(proxy.connections(), 2);
}
