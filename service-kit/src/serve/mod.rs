//! Serving: from a bound socket to a call that stands before gate 1.
//!
//! | part | what |
//! |---|---|
//! | [`ServerLimits`] | every bound, with both services' values |
//! | `accept` | the accept loop, and the life of a connection |
//! | `caps` | counts of connections and of calls, in all and by source |
//! | `descriptors` | how many connections there are file descriptors for |
//! | [`Lanes`] | where connections live: a runtime for each core |
//! | `wire` | first bytes, and silence inside a frame |
//! | `timely` | a question that is whole in time, however long its answer takes |
//! | [`Peer`], [`Source`] | who is at the other end |
//! | `bounds` | request id, strict gRPC, policy, deadline, room: the outermost layer |
//! | `answer` | every refusal leaves with `google.rpc.ErrorInfo` |
//! | `meters` | how many calls, and how long they took |
//! | [`Services`] | what is served, and the check that all of it has a policy |
//!
//! hyper speaks HTTP/2 directly rather than through `tonic::transport::Server`: so each connection
//! has its own age and its own end, bounds answer with our statuses, and no second timeout cancels
//! a call under another code. Codecs, routing and generated code stay tonic's.

use std::{future::Future, io, pin::Pin, sync::Arc};

use interlock_proto::options::v1::Listener;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod accept;
mod answer;
mod bounds;
mod call;
mod caps;
mod descriptors;
mod lanes;
mod limits;
mod meters;
mod peer;
mod services;
mod strict;
#[cfg(test)]
mod tests;
mod timely;
mod wire;

use self::{
    accept::{Door, Homes, OnRefusedCertificate},
    bounds::{Bounded, Room},
};
pub(crate) use self::{answer::refusal, bounds::Answer, services::Routes};
pub use self::{
    call::Call,
    lanes::Lanes,
    limits::ServerLimits,
    peer::{Peer, PeerCertificate, Source},
    services::{Services, WithoutPolicy, check_policies},
};
// For the fuzz target `metadata` alone: a server reads it by itself.
#[doc(hidden)]
pub use self::strict::timeout as asked_timeout;
use crate::{
    authn::{Admit, Gate, LiveTrust},
    tls::Tls,
};

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A method has no policy.
    #[error(transparent)]
    WithoutPolicy(#[from] WithoutPolicy),
    /// Bounds contradict each other.
    #[error("limits: {}", .0.join("; "))]
    Limits(Vec<&'static str>),
    /// A listener would serve plain text to the world, or a socket cannot be read.
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// A server: its listeners, and how it admits calls.
pub struct Server<A> {
    limits: ServerLimits,
    admit: Arc<A>,
    lanes: Arc<Lanes>,
    tls: Vec<(Door, Option<LiveTrust>)>,
    health: Vec<(Door, Services)>,
}

impl<A: Admit> Server<A> {
    /// A server with no listener yet.
    pub fn new(limits: ServerLimits, admit: Arc<A>) -> Self {
        Self { limits, admit, lanes: Arc::default(), tls: Vec::new(), health: Vec::new() }
    }

    /// Lets connections live in these lanes; without, in the runtime that [`Server::run`] runs in. Whoever
    /// keeps them ends what still runs there by dropping them.
    #[must_use]
    pub fn lanes(mut self, lanes: &Arc<Lanes>) -> Self {
        self.lanes = Arc::clone(lanes);
        self
    }

    /// The services for clients: TLS, a client certificate is optional.
    #[must_use]
    pub fn public(mut self, socket: TcpListener, tls: Arc<Tls>) -> Self {
        self.tls.push((self.door(Listener::Public, socket, Some(tls)), None));
        self
    }

    /// The services for services: mTLS and the internal token. Who keeps a [`LiveTrust`] can replace the
    /// allow list later.
    #[must_use]
    pub fn internal(mut self, socket: TcpListener, tls: Arc<Tls>, trust: impl Into<LiveTrust>) -> Self {
        self.tls.push((self.door(Listener::Internal, socket, Some(tls)), Some(trust.into())));
        self
    }

    /// Health in plain text, and nothing else: `services` are those of `health::services`.
    #[must_use]
    pub fn health(mut self, socket: TcpListener, services: Services) -> Self {
        self.health.push((self.door(Listener::Health, socket, None), services));
        self
    }

    fn door(&self, listener: Listener, socket: TcpListener, tls: Option<Arc<Tls>>) -> Door {
        let admit = Arc::clone(&self.admit);
        let on_refused: OnRefusedCertificate = Arc::new(move |peer, why| {
            let admit = Arc::clone(&admit);
            let told = async move { admit.handshake_refused(listener, peer, &why).await };
            Box::pin(told) as Pin<Box<dyn Future<Output = ()> + Send>>
        });
        Door { listener, socket, tls, on_refused }
    }

    /// Serves until `shutdown`: then accepts nothing more, tells each connection so (GOAWAY), waits
    /// for open calls for `limits.drain`, and cuts.
    ///
    /// # Errors
    /// [`ServeError`], before anything is served.
    pub async fn run(self, services: Services, shutdown: CancellationToken) -> Result<(), ServeError> {
        let faults = self.limits.faults();
        if !faults.is_empty() {
            return Err(ServeError::Limits(faults));
        }
        check_policies(services.names())?;
        for (_, services) in &self.health {
            check_policies(services.names())?;
        }
        let (tracker, descriptors) = (TaskTracker::new(), descriptors::available());
        let mut accepting = tokio::task::JoinSet::new();
        let routes = services.into_routes();
        for (door, trust) in self.tls {
            let limits = descriptors::fit(&self.limits, door.listener, descriptors);
            let gate = Gate::new(Arc::clone(&self.admit), trust, routes.clone());
            let service = Bounded::new(Room::new(limits.clone(), door.listener), gate);
            let homes = Homes { lanes: Arc::clone(&self.lanes), tracker: tracker.clone() };
            accepting.spawn(accept::run(door, service, limits, shutdown.clone(), homes));
        }
        for (door, services) in self.health {
            let limits = descriptors::fit(&self.limits, door.listener, descriptors);
            let service = Bounded::new(Room::new(limits.clone(), door.listener), services.into_routes());
            let homes = Homes { lanes: Arc::clone(&self.lanes), tracker: tracker.clone() };
            accepting.spawn(accept::run(door, service, limits, shutdown.clone(), homes));
        }
        while let Some(ended) = accepting.join_next().await {
            ended.map_err(io::Error::other)?;
        }
        tracker.close();
        tracker.wait().await;
        Ok(())
    }
}
