//! Bare servers: what any server of this kind costs. tonic's own server with its own TLS, our windows, the
//! runtime layout of our programs ([`lanes`]), and a handler that does next to nothing. Processes of their own.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead as _, BufReader, Read as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use interlock_kit::store::writer::QueueLimits;
use interlock_proto::{
    auth::v1::trust_service_server::TrustServiceServer,
    gateway::v1::{
        job_service_server::JobServiceServer, session_service_server::SessionServiceServer,
        worker_service_server::WorkerServiceServer,
    },
};
use interlock_tests::World;
use tempfile::TempDir;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig, server::Router};

pub(crate) mod cycle;
pub(crate) mod echo;
pub(crate) mod fan_out;
pub(crate) mod grouped;
mod lanes;
pub(crate) mod push;
pub(crate) mod session;
pub(crate) mod there;
pub(crate) mod write;

/// The first argument of a bare server; its kind and settings follow.
const BARE: &str = "--bare";
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Answers. A client certificate is required, as on an internal listener.
    Echo,
    /// Writes and answers. A client certificate is optional, as on a public listener.
    Write,
    /// The same, with a transaction for each call.
    WriteEach,
    /// Answers with a session, or writes its binding. A client certificate is optional.
    Sessions,
    /// Queues jobs and has them worked off. A client certificate is optional.
    Cycle,
    /// Delivers events to cursors. A client certificate is optional.
    FanOut,
    /// Pushes to streams and waits for their word. A client certificate is required.
    Push,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Write => "write",
            Self::WriteEach => "write-each",
            Self::Sessions => "sessions",
            Self::Cycle => "cycle",
            Self::FanOut => "fan-out",
            Self::Push => "push",
        }
    }

    fn named(name: &OsStr) -> Option<Self> {
        [Self::Echo, Self::Write, Self::WriteEach, Self::Sessions, Self::Cycle, Self::FanOut, Self::Push]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// Whether it serves as an internal listener does.
    fn is_internal(self) -> bool {
        matches!(self, Self::Echo | Self::Push)
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
        Self::start_on(kind, world, "")
    }

    /// The same, writing to this empty database, where it is named.
    pub(crate) fn start_on(kind: Kind, world: &World, url: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, key) = world.leaf("pki/auth");
        let mut child = Command::new(std::env::current_exe().expect("the path of this program"))
            .args([BARE, kind.name()])
            .args([world.ca(), certificate, key])
            .arg(folder.path())
            .arg(url)
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

/// Runs as one, where this process was started as one.
pub(crate) fn hidden() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == BARE).then(|| main(arguments))
}

/// The program: its kind; authority, certificate, key; a folder; a database or nothing. Serves until its input ends.
fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let kind = Kind::named(&arguments.next().unwrap_or_default()).expect("the name of a kind");
    let mut path = || PathBuf::from(arguments.next().expect("authority, certificate, key, folder"));
    let (ca, certificate, key, folder) = (path(), path(), path(), path());
    let url = arguments.next().and_then(|url| url.into_string().ok()).filter(|url| !url.is_empty());
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(read(&certificate), read(&key)))
        .client_ca_root(Certificate::from_pem(read(&ca)))
        .client_auth_optional(!kind.is_internal());
    let router = router(kind, tls, &folder, url.as_deref());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || lanes::serve(&listener, &router));
    // Whoever started this has gone once the input ends.
    let _ = std::io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}

fn router(kind: Kind, tls: ServerTlsConfig, folder: &Path, url: Option<&str>) -> Router {
    let mut server = Server::builder()
        .tls_config(tls)
        .expect("certificates")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    match kind {
        Kind::Echo => server.add_service(TrustServiceServer::new(echo::Echo)),
        Kind::Write | Kind::WriteEach => {
            let together = if kind == Kind::Write { QueueLimits::default().batch_max } else { 1 };
            let write = match url {
                None => write::Write::open(folder, together),
                Some(url) => write::Write::open_there(url, together),
            };
            server.add_service(JobServiceServer::new(write))
        }
        Kind::Sessions => {
            let sessions = url.map_or_else(|| session::Sessions::open(folder), session::Sessions::open_there);
            server.add_service(SessionServiceServer::new(sessions))
        }
        Kind::Cycle => {
            let cycle = cycle::Cycle::open(folder);
            server
                .add_service(JobServiceServer::new(cycle.clone()))
                .add_service(WorkerServiceServer::new(cycle))
        }
        Kind::FanOut => {
            let ring = fan_out::Ring::new();
            server
                .add_service(SessionServiceServer::new(fan_out::Cursors(ring.clone())))
                .add_service(WorkerServiceServer::new(fan_out::Voices(ring)))
        }
        Kind::Push => server.add_service(TrustServiceServer::new(push::Push::default())),
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("a PEM file")
}
