//! The link between gateway and auth, as something that breaks: a TCP proxy of our own, which
//! [`Pair::link`](crate::Pair) points the gateway at.
//!
//! What it swallowed once stays lost: such a connection is dead for good, also after the link was healed, as
//! it is where a router forgot it. Only a new one gets through then.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// What one read takes at most, in bytes.
const CHUNK: usize = 4096;
/// What a slow link carries at once, in bytes.
const SLOW_CHUNK: usize = 512;

/// What the link does to what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Pass,
    /// Every connection is reset, also each new one.
    Refuse,
    /// What goes this way is swallowed, and nobody is told.
    Swallow(Way),
    /// Nothing is read: what is sent piles up with its senders.
    Stall,
    /// Each half KiB takes so long.
    Slow(Duration),
    /// A random bit is flipped, so many bytes apart on average.
    Flip {
        /// Bytes.
        every: u32,
    },
    /// A connection ends in the middle of what it carries, after so many bytes on average.
    Truncate {
        /// Bytes.
        after: u32,
    },
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the gateway to auth.
    ToAuth,
    /// From auth to the gateway.
    ToGateway,
    /// Both.
    Both,
}

/// The link. Its connections end with it.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    mode: watch::Sender<Mode>,
    cut: watch::Sender<u64>,
    rng: Mutex<StdRng>,
    accepted: AtomicUsize,
    flipped: AtomicUsize,
    swallowed: AtomicUsize,
}

/// Both directions of a connection end.
struct Over;

impl Link {
    /// A link to that address, which does nothing to what passes yet.
    ///
    /// # Panics
    /// Where there is no socket.
    pub async fn to(target: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let shared = Arc::new(Shared {
            target,
            mode: watch::Sender::new(Mode::Pass),
            cut: watch::Sender::new(0),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            accepted: AtomicUsize::new(0),
            flipped: AtomicUsize::new(0),
            swallowed: AtomicUsize::new(0),
        });
        let address = listener.local_addr().expect("it is bound");
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, _serving: serving }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it does this, to open connections and to new ones.
    pub fn turn(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
        if mode == Mode::Refuse {
            self.cut();
        }
    }

    /// Resets every open connection.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }

    /// How many connections there have been.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many bits were flipped.
    #[must_use]
    pub fn flipped(&self) -> usize {
        self.shared.flipped.load(Ordering::Relaxed)
    }

    /// How many bytes were swallowed.
    #[must_use]
    pub fn swallowed(&self) -> usize {
        self.shared.swallowed.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (near, _) = accepted.expect("a descriptor is left");
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                open.spawn(carry(Arc::clone(&shared), near));
            }
            Some(ended) = open.join_next() => ended.expect("no connection panics"),
        }
    }
}

/// One connection, from its beginning to its end or its cut.
async fn carry(shared: Arc<Shared>, mut near: TcpStream) {
    let mut cut = shared.cut.subscribe();
    if *shared.mode.borrow() == Mode::Refuse {
        return reset(&near);
    }
    let Ok(mut far) = TcpStream::connect(shared.target).await else { return reset(&near) };
    let (near_in, near_out) = near.split();
    let (far_in, far_out) = far.split();
    let there = Pump { shared: &shared, way: Way::ToAuth, from: near_in, to: far_out };
    let back = Pump { shared: &shared, way: Way::ToGateway, from: far_in, to: near_out };
    let was_cut = tokio::select! {
        _ = cut.changed() => true,
        _ = async { tokio::try_join!(there.run(), back.run()) } => false,
    };
    if was_cut {
        reset(&near);
        reset(&far);
    }
}

/// Its close says so at once, and loses what is on the way.
fn reset(socket: &TcpStream) {
    // Where it was closed from the other side, it is as good.
    let _ = socket.set_zero_linger();
}

/// One direction of a connection.
struct Pump<'a> {
    shared: &'a Shared,
    way: Way,
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
}

impl Pump<'_> {
    async fn run(mut self) -> Result<(), Over> {
        let mut buffer = [0; CHUNK];
        let mut left = None;
        let mut modes = self.shared.mode.subscribe();
        loop {
            let stalls = modes.wait_for(|mode| *mode != Mode::Stall).await;
            stalls.map_err(|_| Over)?;
            let read = tokio::select! {
                read = self.from.read(&mut buffer) => read,
                _ = modes.wait_for(|mode| *mode == Mode::Stall) => continue,
            };
            let mode = *self.shared.mode.borrow();
            let read = match read {
                _ if swallows(mode, self.way) => return self.lose(read.unwrap_or(0)).await,
                Ok(0) => {
                    // A half-closed connection may go on the other way.
                    let _ = self.to.shutdown().await;
                    return Ok(());
                }
                Ok(read) => read,
                Err(_) => return Err(Over),
            };
            self.pass(mode, &mut buffer[..read], &mut left).await?;
        }
    }

    /// Swallows this and all that comes, and keeps the end of it to itself.
    async fn lose(mut self, first: usize) -> Result<(), Over> {
        let mut buffer = [0; CHUNK];
        let mut read = Ok(first);
        while let Ok(bytes @ 1..) = read {
            self.shared.swallowed.fetch_add(bytes, Ordering::Relaxed);
            read = self.from.read(&mut buffer).await;
        }
        std::future::pending().await
    }

    async fn pass(&mut self, mode: Mode, bytes: &mut [u8], left: &mut Option<usize>) -> Result<(), Over> {
        match mode {
            Mode::Slow(pause) => {
                for part in bytes.chunks(SLOW_CHUNK) {
                    tokio::time::sleep(pause).await;
                    self.to.write_all(part).await.map_err(over)?;
                }
                return Ok(());
            }
            Mode::Flip { every } => {
                let mut at = left.take().unwrap_or_else(|| self.shared.pick(every));
                while at < bytes.len() {
                    bytes[at] ^= 1 << (self.shared.pick(4) - 1);
                    self.shared.flipped.fetch_add(1, Ordering::Relaxed);
                    at += self.shared.pick(every);
                }
                *left = Some(at - bytes.len());
            }
            Mode::Truncate { after } => {
                let at = left.take().unwrap_or_else(|| self.shared.pick(after));
                if at < bytes.len() {
                    let _ = self.to.write_all(&bytes[..at]).await;
                    return Err(Over);
                }
                *left = Some(at - bytes.len());
            }
            Mode::Pass | Mode::Refuse | Mode::Stall | Mode::Swallow(_) => *left = None,
        }
        self.to.write_all(bytes).await.map_err(over)
    }
}

impl Shared {
    /// 1 to twice the mean.
    fn pick(&self, mean: u32) -> usize {
        let picked = self.rng.lock().expect("no connection panics").random_range(1..=2 * mean);
        picked as usize
    }
}

fn over(_: io::Error) -> Over {
    Over
}

fn swallows(mode: Mode, way: Way) -> bool {
    matches!(mode, Mode::Swallow(lost) if lost == Way::Both || lost == way)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::within;

    /// Sends back what it gets.
    async fn echo() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener.local_addr().expect("bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (mut socket, _) = listener.accept().await.expect("a connection");
                open.spawn(async move {
                    let (mut from, mut to) = socket.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        (address, tasks)
    }

    async fn said(link: &Link, text: &[u8]) -> Vec<u8> {
        let mut socket = TcpStream::connect(link.address()).await.expect("connected");
        let mut heard = Vec::new();
        let talk = async {
            // Where the link ends the connection, there is less to hear.
            let _ = socket.write_all(text).await;
            let _ = socket.shutdown().await;
            let _ = socket.read_to_end(&mut heard).await;
        };
        within("an end", talk).await;
        heard
    }

    #[tokio::test]
    async fn each_mode_does_what_it_says() {
        let (address, _serving) = echo().await;
        let link = Link::to(address, 7).await;
        let text = vec![b'x'; 20_000];
        assert_eq!(said(&link, &text).await, text);
        link.turn(Mode::Refuse);
        assert_eq!(said(&link, &text).await, b"");
        link.turn(Mode::Flip { every: 1_000 });
        let heard = said(&link, &text).await;
        let wrong = heard.iter().filter(|byte| **byte != b'x').count();
        assert!(heard.len() == text.len() && (1..=link.flipped()).contains(&wrong), "{wrong}");
        link.turn(Mode::Truncate { after: 1_000 });
        assert!(said(&link, &text).await.len() <= 2_000);
        link.turn(Mode::Slow(Duration::from_millis(1)));
        assert_eq!(said(&link, &text[..2_000]).await, &text[..2_000]);
        assert_eq!(link.connections(), 5);
    }

    #[tokio::test]
    async fn what_was_swallowed_stays_lost_and_a_new_connection_passes() {
        let (address, _serving) = echo().await;
        let link = Link::to(address, 7).await;
        let mut old = TcpStream::connect(link.address()).await.expect("connected");
        link.turn(Mode::Swallow(Way::Both));
        old.write_all(b"lost").await.expect("sent");
        within("the loss", async {
            while link.swallowed() < 4 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        link.turn(Mode::Pass);
        old.write_all(b"lost too").await.expect("sent");
        assert_eq!(said(&link, b"through").await, b"through");
        let mut byte = [0];
        let heard = tokio::time::timeout(Duration::from_millis(50), old.read(&mut byte)).await;
        assert!(heard.is_err(), "a dead connection spoke: {heard:?}");
        link.cut();
        within("the cut", old.read(&mut byte)).await.expect_err("a reset");
    }
}
