//! Redis (Debian: `redis-server`) that syncs each write: an element pushed onto a list, beside `SubmitJob`. Plain
//! TCP, no other row, nobody asked who it is.

use interlock_tests::Pair;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};
use tonic::Status;

use super::Peer;
use crate::{duel::Duel, load::Caller, owners::Owner, plan::Plan, programs, submit};

const PROGRAM: &str = "redis-server";

/// Pushes, again and again, on a connection of its own.
struct Pusher {
    stream: BufReader<TcpStream>,
    command: Vec<u8>,
    answer: String,
}

impl Pusher {
    async fn connect(peer: &Peer, number: usize) -> Self {
        let stream = TcpStream::connect(peer.address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        let (list, payload) = (format!("queue-{number}"), submit::PAYLOAD);
        let mut command =
            format!("*3\r\n$5\r\nLPUSH\r\n${}\r\n{list}\r\n${}\r\n", list.len(), payload.len()).into_bytes();
        command.extend_from_slice(payload);
        command.extend_from_slice(b"\r\n");
        Self { stream: BufReader::new(stream), command, answer: String::new() }
    }
}

impl Caller for Pusher {
    async fn call(&mut self) -> Result<(), Status> {
        let failed = |error: std::io::Error| Status::unavailable(error.to_string());
        self.stream.get_mut().write_all(&self.command).await.map_err(failed)?;
        self.answer.clear();
        self.stream.read_line(&mut self.answer).await.map_err(failed)?;
        if self.answer.starts_with(':') { Ok(()) } else { Err(Status::internal(self.answer.clone())) }
    }
}

/// The gateway's public listener beside it. None where it is not installed.
pub(super) async fn duel(plan: &Plan, pair: &Pair, owners: &[Owner]) -> Option<Duel> {
    let mut peer = Peer::start(PROGRAM, |port, folder| {
        let (port, folder) = (port.to_string(), folder.to_string_lossy());
        [
            ["--bind", "127.0.0.1"],
            ["--port", &port],
            ["--dir", &folder],
            ["--save", ""],
            ["--appendonly", "yes"],
            ["--appendfsync", "always"],
        ]
        .concat()
        .iter()
        .map(|argument| (*argument).to_owned())
        .collect()
    })?;
    peer.is_ready(PROGRAM).await.then_some(())?;
    let mut callers = Vec::new();
    for number in 0..plan.callers {
        callers.push(Pusher::connect(&peer, number).await);
    }
    let mut redis = peer.side(callers);
    let mut ours = submit::ours(plan, pair, owners, "peers");
    let auth = programs::pid(&pair.world, "auth");
    let mut duel =
        Duel::fight("submit beside Redis", plan, &mut ours, &mut redis, &[auth]).await.beside("Redis");
    duel.note = "; Redis pushes 256 bytes onto a list, plain TCP, each write synced".to_owned();
    Some(duel)
}
