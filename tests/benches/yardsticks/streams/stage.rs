//! The services that streams are measured at, and where readers and workers go on either side.

use std::net::SocketAddr;

use bytes::Bytes;
use interlock_client::{OwnerSession, SetAgent};
use interlock_proto::metadata::PROJECT;
use interlock_tests::{
    Pair, Setup,
    wire::{self, Metadata, Shows},
};
use tonic::transport::Channel;

use crate::{bare::Bare, programs};

/// Over the defaults: thousands of streams of one owner on four connections, and logs that keep all of a run.
const RAISED: [(&str, &str); 10] = [
    ("limits.streams_per_connection", "5000"),
    ("limits.connection_window", "512MiB"),
    ("limits.parked_calls", "65536"),
    ("limits.connections_per_source", "8192"),
    ("limits.timeout", "40s"),
    ("parked_per_owner", "16384"),
    ("retention.events", "10000000"),
    ("retention.size", "16GiB"),
    ("lease_ttl", "300s"),
    ("max_run_time", "12h"),
];

/// Both services, with an owner who has a project.
pub(super) struct Stage {
    pub(super) pair: Pair,
    owner: OwnerSession,
    project: String,
}

/// One side: a server, and one session's log there.
#[derive(Clone, Debug)]
pub(super) struct Venue {
    /// The server's process.
    pub(super) server: u32,
    address: SocketAddr,
    shows: Shows,
    /// What each call shows.
    pub(super) metadata: Metadata,
    pub(super) session: String,
    /// Whose jobs its workers run.
    pub(super) agent: String,
}

impl Stage {
    pub(super) async fn set() -> Self {
        // A machine that is kept busy must not let the gateway's lease lapse: that is not what is measured here.
        let setup = Setup::default().auth("lease", "30s").auth("owner_session.access_ttl", "1h");
        let setup = RAISED.into_iter().fold(setup, |setup, (key, value)| setup.gateway(key, value));
        let pair = Pair::start_with(setup).await;
        let owner = pair.login("alice").await;
        let project = pair.project(&owner, "streams").await;
        Self { pair, owner, project }
    }

    /// Ours: a new session on an agent of its own, with so many jobs for workers.
    pub(super) async fn ours(&self, name: &str, jobs: usize) -> Venue {
        let gateway = self.pair.sdk_gateway(&self.owner.access_token).with_project(&self.project);
        gateway.agents().set(name, SetAgent::default()).await.expect("an agent");
        let session = gateway.sessions().create(name).await.expect("a session").session.session_id;
        gateway.sessions().attach(&session, name, &self.project).await.expect("bound");
        for _ in 0..jobs {
            gateway.jobs().submit(&session, Bytes::new()).await.expect("a job");
        }
        Venue { session, agent: name.to_owned(), ..self.gateway() }
    }

    /// The gateway's public listener as it is now.
    fn gateway(&self) -> Venue {
        let server = programs::pid(&self.pair.world, "gateway");
        self.venue(server, self.pair.gateway.address("public"))
    }

    /// The bare program's one ring.
    pub(super) fn bare(&self, bare: &Bare) -> Venue {
        self.venue(bare.pid(), bare.address())
    }

    fn venue(&self, server: u32, address: SocketAddr) -> Venue {
        let world = &self.pair.world;
        let shows = Shows { ca: world.ca(), leaf: Some(world.leaf("pki/tester")) };
        let metadata = Metadata::bearer(&self.owner.access_token).with(PROJECT, &self.project);
        Venue { server, address, shows, metadata, session: "ses_1".to_owned(), agent: "a".to_owned() }
    }

    /// All processes of a run against this bare program.
    pub(super) fn household(&self, bare: Option<&Bare>) -> Vec<u32> {
        let ours = ["auth", "gateway"].map(|service| programs::pid(&self.pair.world, service));
        [std::process::id()].into_iter().chain(ours).chain(bare.map(Bare::pid)).collect()
    }

    /// The gateway anew, in a process of its own.
    pub(super) async fn restart_gateway(&mut self) {
        self.pair.gateway.kill();
        self.pair.start_gateway().await;
        self.pair.serving().await;
    }
}

impl Venue {
    /// A new connection with a client certificate.
    pub(super) fn connect(&self) -> Channel {
        wire::connect(self.address, &self.shows)
    }

    /// The same server, after it was started anew elsewhere or as another process.
    pub(super) fn again(&self, at: &Stage) -> Self {
        let Self { session, agent, .. } = self.clone();
        Self { session, agent, ..at.gateway() }
    }
}
