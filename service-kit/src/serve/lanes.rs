//! Where connections live: one runtime of one thread for each core, or the runtime that accepts them.
//!
//! Everything that a connection does then happens on one thread: frames, calls, answers. A runtime of
//! several threads moves the tasks of one connection between cores, and wakes one core for what
//! another has read. The door stays one: a connection is accepted once, counted once, and given to the
//! lane with the fewest; so no second process can bind the same port, which sockets shared by
//! `SO_REUSEPORT` would allow, and no lane gets all of few connections by chance.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use tokio::{net::TcpStream, runtime::Handle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The lanes of a server. Dropped, they end; what still ran in them ends too.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: Vec<Lane>,
    ending: CancellationToken,
}

#[derive(Debug)]
struct Lane {
    runtime: Handle,
    /// Connections that live here.
    open: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// Counts one connection of a lane for as long as it lives.
struct Place(Arc<AtomicUsize>);

impl Lanes {
    /// None: connections live in the runtime that accepts them. For tests that bring a clock of their own.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// One for each core that this process may use.
    ///
    /// # Errors
    /// Where the operating system gives no thread, or no event queue.
    pub fn one_a_core() -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let ending = CancellationToken::new();
        let lanes = (0..cores).map(|number| Lane::start(number, &ending)).collect::<io::Result<_>>()?;
        Ok(Self { lanes, ending })
    }

    /// Lets `life` happen in the lane with the fewest connections, with the connection's socket there.
    pub(super) fn spawn<F>(
        &self,
        tracker: &TaskTracker,
        socket: TcpStream,
        life: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(lane) = self.lanes.iter().min_by_key(|lane| lane.open.load(Ordering::Relaxed)) else {
            tracker.spawn(life(socket));
            return Ok(());
        };
        lane.open.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&lane.open));
        // A socket belongs to the event queue that it is registered with.
        let socket = socket.into_std()?;
        let moved = async move {
            let _place = place;
            match TcpStream::from_std(socket) {
                Ok(socket) => life(socket).await,
                Err(error) => tracing::warn!(%error, "a connection could not be moved to its lane"),
            }
        };
        tracker.spawn_on(moved, &lane.runtime);
        Ok(())
    }
}

impl Lane {
    fn start(number: usize, ending: &CancellationToken) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, ended) = (runtime.handle().clone(), ending.clone());
        let thread = std::thread::Builder::new()
            .name(format!("lane-{number}"))
            .spawn(move || runtime.block_on(ended.cancelled()))?;
        Ok(Self { runtime: handle, open: Arc::default(), thread: Some(thread) })
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.ending.cancel();
        for lane in &mut self.lanes {
            if let Some(thread) = lane.thread.take()
                && thread.join().is_err()
            {
                tracing::error!("a lane did not end cleanly");
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::mpsc,
    };

    use super::*;

    async fn accepted(listener: &TcpListener, address: SocketAddr) -> (TcpStream, TcpStream) {
        let (theirs, ours) = tokio::join!(TcpStream::connect(address), listener.accept());
        (theirs.expect("connects"), ours.expect("accepts").0)
    }

    #[tokio::test]
    async fn connections_are_spread_evenly_and_live_on_their_lane() {
        let lanes = Lanes::one_a_core().expect("lanes");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let (tracker, (tell, mut told)) = (TaskTracker::new(), mpsc::unbounded_channel());
        let mut peers = Vec::new();
        for _ in 0..lanes.lanes.len() * 2 {
            let (peer, socket) = accepted(&listener, address).await;
            let tell = tell.clone();
            let life = move |mut socket: TcpStream| async move {
                let name = || std::thread::current().name().map(str::to_owned);
                let before = name();
                tell.send(before.clone()).expect("heard");
                let byte = socket.read_u8().await.expect("a byte");
                assert_eq!(name(), before, "it stays where it is");
                socket.write_u8(byte).await.expect("written");
            };
            lanes.spawn(&tracker, socket, life).expect("moved");
            peers.push(peer);
        }
        let mut seen: Vec<_> = Vec::new();
        for _ in 0..peers.len() {
            seen.push(told.recv().await.flatten().expect("a name"));
        }
        seen.sort();
        let expected: Vec<_> =
            (0..lanes.lanes.len()).flat_map(|n| [format!("lane-{n}"), format!("lane-{n}")]).collect();
        let mut expected = expected;
        expected.sort();
        assert_eq!(seen, expected);
        for mut peer in peers {
            peer.write_u8(7).await.expect("written");
            assert_eq!(peer.read_u8().await.expect("an answer"), 7);
        }
        tracker.close();
        tracker.wait().await;
        assert!(
            lanes.lanes.iter().all(|lane| lane.open.load(Ordering::Relaxed) == 0),
            "each place is given back"
        );
    }

    #[tokio::test]
    async fn without_lanes_a_connection_lives_where_it_was_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let (mut peer, socket) = accepted(&listener, address).await;
        let tracker = TaskTracker::new();
        let here = std::thread::current().id();
        let life = move |mut socket: TcpStream| async move {
            assert_eq!(std::thread::current().id(), here);
            socket.write_u8(1).await.expect("written");
        };
        Lanes::none().spawn(&tracker, socket, life).expect("spawned");
        assert_eq!(peer.read_u8().await.expect("an answer"), 1);
    }
}
