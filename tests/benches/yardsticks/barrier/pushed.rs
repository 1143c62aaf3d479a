//! The bare side: streams that acknowledge what is pushed, at once.

use std::time::{Duration, Instant};

use interlock_proto::auth::v1::{
    HoldLeaseRequest, HoldLeaseResponse, ValidateRequest,
    hold_lease_request::{Applied, Message as Ask, Renew},
    hold_lease_response::Message as Say,
    trust_service_client::TrustServiceClient,
};
use interlock_tests::{
    Pair,
    wire::{self, Metadata, Shows},
    within,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::Revocation;
use crate::bare::Bare;

/// All of them, each on a connection of its own.
pub(super) struct Streams {
    client: TrustServiceClient<Channel>,
    /// When something was heard, by each of them.
    heard: mpsc::Receiver<Instant>,
    open: JoinSet<()>,
}

impl Streams {
    pub(super) async fn open(pair: &Pair, bare: &Bare, count: usize) -> Self {
        let shows = Shows { ca: pair.world.ca(), leaf: Some(pair.world.leaf("pki/tester")) };
        let (hears, heard) = mpsc::channel(count);
        let mut open = JoinSet::new();
        for _ in 0..count {
            let (asks, out) = mpsc::channel(64);
            let hello = Ask::Renew(Renew::default());
            asks.send(HoldLeaseRequest { message: Some(hello) }).await.expect("room");
            let mut client = TrustServiceClient::new(wire::connect(bare.address(), &shows));
            let request = Metadata::none().on(ReceiverStream::new(out));
            let says = within("a stream", client.hold_lease(request)).await.expect("opened").into_inner();
            open.spawn(acknowledge(asks, says, hears.clone()));
        }
        let client = TrustServiceClient::new(wire::connect(bare.address(), &shows));
        Self { client, heard, open }
    }

    /// Pushes, and is answered when all have acknowledged.
    pub(super) async fn revoke(&mut self) -> Revocation {
        let began = Instant::now();
        let pushed = within("all streams", self.client.validate(ValidateRequest::default())).await;
        let returned = began.elapsed();
        pushed.expect("pushed");
        let mut refused = Duration::ZERO;
        for _ in 0..self.open.len() {
            let at = within("each stream", self.heard.recv()).await.expect("open streams");
            refused = refused.max(at - began);
        }
        Revocation { returned, refused }
    }
}

async fn acknowledge(
    asks: mpsc::Sender<HoldLeaseRequest>,
    mut says: Streaming<HoldLeaseResponse>,
    hears: mpsc::Sender<Instant>,
) {
    while let Ok(Some(HoldLeaseResponse { message: Some(said) })) = says.message().await {
        let Say::Revoked(row) = said else { continue };
        let at = Instant::now();
        let applied = Ask::Applied(Applied { sequence: row.sequence, streams_closed: 0 });
        asks.send(HoldLeaseRequest { message: Some(applied) }).await.expect("an open stream");
        hears.send(at).await.expect("a run that goes on");
    }
}
