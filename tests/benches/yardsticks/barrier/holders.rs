//! Verifiers of this process, each with a lease from auth; and one that is frozen.

use std::time::{Duration, Instant};

use interlock_client::{
    Auth, Connection, Tls,
    verifier::{End, Verifier, VerifierOptions, VerifyError},
};
use interlock_kit::random;
use interlock_proto::{
    auth::v1::{
        HoldLeaseRequest, HoldLeaseResponse,
        hold_lease_request::{Hello, Message as Ask},
        hold_lease_response::Message as Say,
        trust_service_client::TrustServiceClient,
    },
    metadata::INTERNAL_TOKEN,
};
use interlock_tests::{Pair, pair::Peer, wire::Metadata, within};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Revocation;
use crate::sign_ins::Source;

/// Verifiers that are asked once more after a revocation.
const ASKED: usize = 3;

/// All of them, each on a connection of its own.
pub(super) struct Verifiers {
    all: Vec<Verifier>,
    auth: Auth,
}

impl Verifiers {
    /// Starts so many, and waits until each holds its lease.
    pub(super) async fn start(pair: &Pair, count: usize) -> Self {
        let all: Vec<_> = (0..count).map(|_| verifier(pair)).collect();
        for verifier in &all {
            within("a lease", verifier.ready()).await;
        }
        Self { all, auth: pair.sdk_auth() }
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.all.len()).expect("a few")
    }

    /// Signs an owner in, makes every verifier admit it, with something open that stands on it, and out again.
    pub(super) async fn revoke(&self, source: &mut Source) -> Revocation {
        let token = source.sign_in().await.expect("a sign-in");
        let mut open = JoinSet::new();
        for verifier in &self.all {
            let verdict = verifier.verify(&token).await.expect("a living credential under a lease");
            let registration = verifier.register(&verdict);
            open.spawn(async move { (registration.ended().await, Instant::now()) });
        }
        let began = Instant::now();
        let reached = self.auth.logout(&token).await.expect("signed out").expect("it was alive");
        let returned = began.elapsed();
        // I8: what has been answered, holds. A few stand for all: each of them asks auth once more.
        for verifier in self.all.iter().take(ASKED) {
            let refused = verifier.verify(&token).await.expect_err("a credential that was revoked");
            assert!(matches!(refused, VerifyError::Unauthenticated(_)), "{refused}");
        }
        assert_eq!((reached.acknowledged, reached.fenced), (self.count(), 0), "{reached:?}");
        let mut refused = Duration::ZERO;
        for (end, at) in within("the end of what stood on it", open.join_all()).await {
            assert_eq!(end, End::Revoked);
            refused = refused.max(at - began);
        }
        Revocation { returned, refused }
    }
}

fn verifier(pair: &Pair) -> Verifier {
    let (certificate, key) = pair.world.leaf("pki/tester");
    let tls = Tls::ca_file(pair.world.ca()).identity_files(certificate, key).server_name("localhost");
    let connection = Connection::to(format!("https://{}", pair.auth.address("internal")))
        .tls(tls)
        .internal_token_file(pair.world.path("internal.token"))
        .open()
        .expect("a connection");
    Verifier::start(connection, VerifierOptions::named("barrier"))
}

/// Holds a lease and says nothing any more.
pub(super) struct Frozen {
    _asks: mpsc::Sender<HoldLeaseRequest>,
    _says: Streaming<HoldLeaseResponse>,
}

impl Frozen {
    /// Takes a lease.
    pub(super) async fn seat(pair: &Pair) -> Self {
        let (asks, out) = mpsc::channel(1);
        let hello = Hello { verifier_id: random::id("frozen"), nonce: 1, ..Hello::default() };
        asks.send(HoldLeaseRequest { message: Some(Ask::Hello(hello)) }).await.expect("room");
        let metadata = Metadata::none().with(INTERNAL_TOKEN, pair.world.internal_token());
        let mut client = TrustServiceClient::new(pair.auth_internal(Peer::Listed));
        let opened = client.hold_lease(metadata.on(ReceiverStream::new(out))).await;
        let mut says = opened.expect("a stream").into_inner();
        let said = within("a lease", says.message()).await.expect("living").expect("no end");
        assert!(matches!(said.message, Some(Say::Granted(_))), "{said:?}");
        Self { _asks: asks, _says: says }
    }
}
