//! Bare servers: what any server of this kind costs. tonic's own server with its own TLS, our windows, the
//! runtime that our programs use, and a handler that does next to nothing. Processes of their own.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use interlock_proto::{
    auth::v1::trust_service_server::TrustServiceServer, gateway::v1::job_service_server::JobServiceServer,
};
use interlock_tests::World;
use tempfile::TempDir;
use tonic::transport::{
    Certificate, Identity, Server, ServerTlsConfig,
    server::{Router, TcpIncoming},
};

use crate::programs;

pub(crate) mod echo;
pub(crate) mod write;

const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Answers. A client certificate is required, as on an internal listener.
    Echo,
    /// Writes and answers. A client certificate is optional, as on a public listener.
    Write,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Write => "write",
        }
    }
}

/// A running one. Killed on drop.
pub(crate) struct Bare {
    child: Child,
    address: SocketAddr,
    /// What it writes to.
    _folder: TempDir,
}

impl Bare {
    /// Starts it with auth's certificate, and waits until it says where it is.
    pub(crate) fn start(kind: Kind, world: &World) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, key) = world.leaf("pki/auth");
        let mut child = Command::new(std::env::current_exe().expect("the path of this program"))
            .args([programs::BARE, kind.name()])
            .args([world.ca(), certificate, key])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let mut line = String::new();
        let said = child.stdout.as_mut().expect("piped");
        BufReader::new(said).read_line(&mut line).expect("its address");
        let address = line.trim().parse().expect("an address");
        Self { child, address, _folder: folder }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program: its kind; authority, certificate, key; a folder. Serves until its input ends.
pub(crate) fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let kind = arguments.next().unwrap_or_default();
    let kind = if kind == Kind::Echo.name() { Kind::Echo } else { Kind::Write };
    let mut path = || PathBuf::from(arguments.next().expect("authority, certificate, key, folder"));
    let (ca, certificate, key, folder) = (path(), path(), path(), path());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.spawn(async move {
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(read(&certificate), read(&key)))
            .client_ca_root(Certificate::from_pem(read(&ca)))
            .client_auth_optional(kind == Kind::Write);
        let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        println!("{}", incoming.local_addr().expect("an address"));
        let served = router(kind, tls, &folder).serve_with_incoming(incoming.with_nodelay(Some(true)));
        served.await.expect("served");
    });
    // Whoever started this has gone once the input ends.
    let _ = std::io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}

fn router(kind: Kind, tls: ServerTlsConfig, folder: &Path) -> Router {
    let mut server = Server::builder()
        .tls_config(tls)
        .expect("certificates")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    match kind {
        Kind::Echo => server.add_service(TrustServiceServer::new(echo::Echo)),
        Kind::Write => server.add_service(JobServiceServer::new(write::Write::open(folder))),
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("a PEM file")
}
