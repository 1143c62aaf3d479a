//! One call, as everything behind the listener sees it.

use std::net::SocketAddr;

use interlock_proto::{options::v1::Listener, policy::MethodPolicy};

use super::peer::{Peer, Source};
use crate::{authn::PeerTrust, spiffe::SpiffeId, telemetry::TraceParent};

/// What is known of a call apart from who makes it. Holds no credential.
#[derive(Clone, Debug)]
pub struct Call {
    /// The caller's where well-formed, else ours; also in the answer, the log and the audit row.
    pub request_id: String,
    /// The policy of the method.
    pub policy: &'static MethodPolicy,
    /// Where it came in.
    pub listener: Listener,
    /// The socket's other end.
    pub peer: SocketAddr,
    /// The service that calls: its certificate's SPIFFE id, once it is on the allow list.
    pub service: Option<SpiffeId>,
    /// SHA-256 of the client certificate, on any listener that got one.
    pub cert_fingerprint: Option<[u8; 32]>,
    /// The project that the call names.
    pub named_project: Option<String>,
    /// The owner that a service says it acts for, whether it may or not.
    pub on_behalf_of: Option<String>,
    /// Where the call stands in a trace, if it says so.
    pub traceparent: Option<TraceParent>,
    /// What the calling service stands on, to be asked again by long calls.
    pub(crate) trust: Option<PeerTrust>,
}

impl Call {
    pub(crate) fn new(request_id: String, policy: &'static MethodPolicy, peer: &Peer) -> Self {
        Self {
            request_id,
            policy,
            listener: peer.listener,
            peer: peer.address,
            service: None,
            cert_fingerprint: peer.certificate.as_ref().map(|c| c.fingerprint),
            named_project: None,
            on_behalf_of: None,
            traceparent: None,
            trust: None,
        }
    }

    /// What the caller is counted by.
    #[must_use]
    pub fn source(&self) -> Source {
        Source::of(self.peer.ip())
    }
}
