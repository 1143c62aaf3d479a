//! A proxy before a server's socket that cuts a connection at a chosen point of the protocol.
//!
//! It counts what the client asks, but for a connection that listens, which nobody waits for: each `Sync`, each simple query, each start of a connection is answered by one
//! `ReadyForQuery`: <https://www.postgresql.org/docs/15/protocol-message-formats.html>.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

/// Where a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server never hears the question.
    Before,
    /// The server has answered it, and the client never hears that.
    After,
}

/// Shared by all connections.
#[derive(Debug, Default)]
struct State {
    /// Each after so many more questions.
    cuts: Mutex<VecDeque<(u64, Cut)>>,
    /// Whether nobody comes through after the cut.
    for_good: AtomicBool,
    asked: AtomicU64,
    closed: AtomicBool,
    open: Mutex<Vec<(TcpStream, UnixStream)>>,
}

/// A running proxy. Its connections end with it.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
}

impl Proxy {
    /// Before this socket.
    pub(crate) fn before(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::new(State::default());
        let accepting = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.closed.load(Ordering::SeqCst) {
                    client.shutdown(Shutdown::Both).ok();
                } else if let Ok(server) = UnixStream::connect(&socket) {
                    serve(&accepting, client, server).expect("streams can be shared");
                }
            }
        });
        Self { port, state }
    }

    /// The URL of a database behind it.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://interlock@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Cuts at the question that comes after so many others, once.
    pub(crate) fn cut(&self, after: u64, how: Cut) {
        self.cut_all([(after, how)]);
    }

    /// Cuts so one after the other, each counted from the one before.
    pub(crate) fn cut_all(&self, cuts: impl IntoIterator<Item = (u64, Cut)>) {
        *self.state.cuts.lock() = cuts.into_iter().collect();
    }

    /// Cuts there, and lets nobody through until it is reopened.
    pub(crate) fn cut_and_close(&self, after: u64, how: Cut) {
        self.state.for_good.store(true, Ordering::SeqCst);
        self.cut(after, how);
    }

    /// How many questions there were.
    pub(crate) fn asked(&self) -> u64 {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// Cuts no more; whether it would still have.
    pub(crate) fn calm(&self) -> bool {
        !std::mem::take(&mut *self.state.cuts.lock()).is_empty()
    }

    /// Ends all connections, and every new one at once.
    pub(crate) fn close(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
        for (client, server) in self.state.open.lock().drain(..) {
            end(&client, &server);
        }
    }

    /// Lets connections through again.
    pub(crate) fn reopen(&self) {
        self.state.closed.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.close();
    }
}

fn serve(state: &Arc<State>, client: TcpStream, server: UnixStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    state.open.lock().push((client.try_clone()?, server.try_clone()?));
    let asked = Arc::new(AtomicU64::new(0));
    // The question whose answer is the last one, and not handed on.
    let last = Arc::new(AtomicU64::new(u64::MAX));
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn({
        let (state, asked, last) = (Arc::clone(state), Arc::clone(&asked), Arc::clone(&last));
        move || {
            questions(&state, &from, &to, &asked, &last).ok();
            if last.load(Ordering::SeqCst) == u64::MAX {
                end(&from, &to);
            }
        }
    });
    std::thread::spawn(move || {
        answers(&server, &client, &last).ok();
        end(&client, &server);
    });
    Ok(())
}

fn questions(
    state: &State,
    mut client: &TcpStream,
    mut server: &UnixStream,
    asked: &AtomicU64,
    last: &AtomicU64,
) -> io::Result<()> {
    let (mut is_first, mut listens) = (true, false);
    loop {
        let (kind, frame) = if is_first { first(client)? } else { next(client)? };
        listens |= kind == b'Q' && frame.windows(6).any(|word| word == b"LISTEN");
        if listens {
            // Its answers are all handed on.
        } else if is_first || matches!(kind, b'S' | b'Q') {
            let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
            state.asked.fetch_add(1, Ordering::SeqCst);
            let turn = turn(&mut state.cuts.lock());
            if turn.is_some() && state.for_good.swap(false, Ordering::SeqCst) {
                state.closed.store(true, Ordering::SeqCst);
            }
            match turn {
                None => {}
                Some(Cut::Before) => return Ok(()),
                Some(Cut::After) => {
                    last.store(number, Ordering::SeqCst);
                    return server.write_all(&frame);
                }
            }
        }
        is_first = false;
        server.write_all(&frame)?;
        client.flush()?;
    }
}

/// Whether this question's turn has come.
fn turn(cuts: &mut VecDeque<(u64, Cut)>) -> Option<Cut> {
    let (left, how) = cuts.front_mut()?;
    if *left > 0 {
        *left -= 1;
        return None;
    }
    let how = *how;
    cuts.pop_front();
    Some(how)
}

fn answers(server: &UnixStream, mut client: &TcpStream, last: &AtomicU64) -> io::Result<()> {
    let mut answered = 0;
    loop {
        let (kind, frame) = next(server)?;
        let is_ready = kind == b'Z';
        if answered + 1 < last.load(Ordering::SeqCst) {
            client.write_all(&frame)?;
        } else if is_ready {
            return Ok(());
        }
        answered += u64::from(is_ready);
    }
}

/// What a connection begins with: a length and no kind.
fn first(mut from: impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    Ok((0, body(from, length.to_vec(), length)?))
}

fn next(mut from: impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    Ok((kind, body(from, head.to_vec(), length)?))
}

fn body(mut from: impl Read, mut frame: Vec<u8>, length: [u8; 4]) -> io::Result<Vec<u8>> {
    let rest = u32::from_be_bytes(length).saturating_sub(4) as usize;
    let start = frame.len();
    frame.resize(start + rest, 0);
    from.read_exact(&mut frame[start..])?;
    Ok(frame)
}

fn end(client: &TcpStream, server: &UnixStream) {
    client.shutdown(Shutdown::Both).ok();
    server.shutdown(Shutdown::Both).ok();
}
