//! `peers`: servers that Debian has, where their work is like ours, on the same machine in the same run. What they
//! do is less than ours (no principal, no audit, no guard) or other than ours (no TLS); the notes say which.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use interlock_tests::Pair;
use tokio::time::Instant;

use crate::{
    duel::Duel,
    load::{Caller, Side},
    owners::Owner,
    plan::Plan,
    report::Report,
};

mod etcd;
mod redis;

const STARTS_WITHIN: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);

/// A peer's process. Killed on drop.
struct Peer {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Peer {
    /// Starts it with what `arguments` makes of a free port and an empty folder. None where it is not installed.
    fn start(program: &str, arguments: impl FnOnce(u16, &Path) -> Vec<String>) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let started = Command::new(program)
            .args(arguments(address.port(), folder.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match started {
            Ok(child) => Some(Self { child, address, _folder: folder }),
            Err(error) => {
                eprintln!("peers: {program} is left out: {error}");
                None
            }
        }
    }

    /// Whether it accepts connections; returns when it does.
    async fn is_ready(&mut self, program: &str) -> bool {
        let deadline = Instant::now() + STARTS_WITHIN;
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            if let Some(ended) = self.child.try_wait().expect("its state") {
                eprintln!("peers: {program} is left out: it has ended: {ended}");
                return false;
            }
            if Instant::now() >= deadline {
                eprintln!("peers: {program} is left out: it does not serve");
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    fn side<C: Caller>(&self, callers: Vec<C>) -> Side<C> {
        Side { server: self.child.id(), callers }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Those that are installed.
pub(crate) async fn measure(plan: &Plan, pair: &Pair, owners: &[Owner], report: &mut Report) {
    let duels: [Option<Duel>; 2] =
        [etcd::duel(plan, pair, owners).await, redis::duel(plan, pair, owners).await];
    duels.into_iter().flatten().for_each(|duel| report.add(duel));
}
