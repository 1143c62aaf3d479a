//! Pushes a message to every open `HoldLease` stream and answers when each has acknowledged it: what any
//! revocation that reaches everyone costs. No store, no lease, no account of who may be waited out.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use interlock_proto::auth::v1::{
    CheckMembershipRequest, CheckMembershipResponse, DescribeOwnerRequest, DescribeOwnerResponse,
    HoldLeaseRequest, HoldLeaseResponse, Revoked, ValidateRequest, ValidateResponse, hold_lease_request,
    hold_lease_response, revoked, trust_service_server::TrustService,
};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Messages on their way to one stream.
const ROOM: usize = 64;
const OWNER_SESSION: &str = "ows_0190a3b0f5d27c5e8a1b2c3d4e5f6071";

type Pushed = Result<HoldLeaseResponse, Status>;

#[derive(Clone, Default)]
pub(crate) struct Push(Arc<Shared>);

#[derive(Default)]
struct Shared {
    open: Mutex<Open>,
    changed: Notify,
}

#[derive(Default)]
struct Open {
    /// What was pushed last.
    sequence: u64,
    next: u64,
    lines: BTreeMap<u64, Line>,
}

struct Line {
    queue: mpsc::Sender<Pushed>,
    acknowledged: u64,
}

impl Push {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pushes to all who are open now; the number of it.
    fn push(&self) -> Result<u64, Status> {
        let mut open = self.open();
        open.sequence += 1;
        let subject = Some(revoked::Subject::OwnerSessionId(OWNER_SESSION.to_owned()));
        let row = Revoked { sequence: open.sequence, issued_before: u64::MAX, subject, ..Revoked::default() };
        let message = HoldLeaseResponse { message: Some(hold_lease_response::Message::Revoked(row)) };
        for line in open.lines.values() {
            let sent = line.queue.try_send(Ok(message.clone()));
            sent.map_err(|_| Status::resource_exhausted("a stream is not read"))?;
        }
        Ok(open.sequence)
    }

    async fn reached(&self, sequence: u64) {
        loop {
            // Enabled before the look, so that no change between the two is lost.
            let mut changed = pin!(self.0.changed.notified());
            changed.as_mut().enable();
            if self.open().lines.values().all(|line| line.acknowledged >= sequence) {
                return;
            }
            changed.await;
        }
    }
}

#[tonic::async_trait]
impl TrustService for Push {
    type HoldLeaseStream = ReceiverStream<Pushed>;

    async fn hold_lease(
        &self,
        request: Request<Streaming<HoldLeaseRequest>>,
    ) -> Result<Response<Self::HoldLeaseStream>, Status> {
        let (queue, messages) = mpsc::channel(ROOM);
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        let acknowledged = open.sequence;
        open.lines.insert(number, Line { queue, acknowledged });
        drop(open);
        let (push, mut asked) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(HoldLeaseRequest { message: Some(said) })) = asked.message().await {
                if let hold_lease_request::Message::Applied(applied) = said {
                    if let Some(line) = push.open().lines.get_mut(&number) {
                        line.acknowledged = applied.sequence;
                    }
                    push.0.changed.notify_waiters();
                }
            }
            push.open().lines.remove(&number);
            push.0.changed.notify_waiters();
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    /// Pushes, and waits for all: the unary call of this service that stands for a revocation.
    async fn validate(&self, _: Request<ValidateRequest>) -> Result<Response<ValidateResponse>, Status> {
        let sequence = self.push()?;
        self.reached(sequence).await;
        Ok(Response::new(ValidateResponse { sequence, ..ValidateResponse::default() }))
    }

    async fn describe_owner(
        &self,
        _: Request<DescribeOwnerRequest>,
    ) -> Result<Response<DescribeOwnerResponse>, Status> {
        Err(Status::unimplemented("pushes only"))
    }

    async fn check_membership(
        &self,
        _: Request<CheckMembershipRequest>,
    ) -> Result<Response<CheckMembershipResponse>, Status> {
        Err(Status::unimplemented("pushes only"))
    }
}
