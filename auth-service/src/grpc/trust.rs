//! `TrustService`: verdicts, and the stream that holds a verifier's lease.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use interlock_kit::{
    audit_heads::{News, Sent},
    error::{Error, Reason},
    field, serve,
};
use interlock_proto::auth::v1::{
    CheckMembershipRequest, CheckMembershipResponse, DescribeOwnerRequest, DescribeOwnerResponse,
    HoldLeaseRequest, HoldLeaseResponse, ValidateRequest, ValidateResponse,
    hold_lease_request::{Applied, Hello, Message, Renew, Uses},
    trust_service_server::TrustService,
};
use interlock_proto::text;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Asked, answer, refuse, validate::Validated, wire};
use crate::{
    barrier::{self, Missed, Outgoing, Seat, Seated},
    caller::Call,
    census::{Present, ToldUse},
    ids::{CredentialId, OwnerId, ProjectId},
    limits,
    parts::Parts,
    policy,
    revocation::RevocationsAfter,
    trust::{CheckMembership, DescribeOwner, Validation},
};

/// A verifier that says nothing for so many leases has gone.
const SILENCE_LEASES: u32 = 4;
/// Messages on their way to one verifier, beyond the barrier's own queue for it.
const ON_THE_WAY: usize = 16;
/// What one renewal adds to a count at most: once a second for ever is less.
const NOTED_MAX: u64 = 1 << 32;
/// The longest span that the wire has (google/protobuf/duration.proto).
const SPAN_MAX: Duration = Duration::from_secs(315_576_000_000);

pub(super) struct Trust(pub(super) Arc<Parts>);

#[tonic::async_trait]
impl TrustService for Trust {
    type HoldLeaseStream = Pin<Box<dyn Stream<Item = Result<HoldLeaseResponse, Status>> + Send>>;

    async fn hold_lease(
        &self,
        request: Request<Streaming<HoldLeaseRequest>>,
    ) -> Result<Response<Self::HoldLeaseStream>, Status> {
        let asked = Asked::of(request);
        let (call, served, message) = (asked.call(), asked.served, asked.message);
        let (out, answers) = mpsc::channel(ON_THE_WAY);
        let line = Line { parts: Arc::clone(&self.0), call, served, out, sent: Mutex::default() };
        tokio::spawn(line.hold(message));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn validate(
        &self,
        request: Request<ValidateRequest>,
    ) -> Result<Response<ValidateResponse>, Status> {
        Ok(self.validated(request).await?.map(Validated::into_message))
    }

    async fn check_membership(
        &self,
        request: Request<CheckMembershipRequest>,
    ) -> Result<Response<CheckMembershipResponse>, Status> {
        answer(request, async |asked| {
            let owner = OwnerId::parse("owner_id", &asked.message.owner_id)?;
            let project = ProjectId::parse("project_id", &asked.message.project_id)?;
            let found = self.0.shell.ask(&asked.call(), CheckMembership { owner, project }).await?;
            let epoch = self.0.epoch.clone();
            Ok(CheckMembershipResponse { member: found.member, sequence: found.sequence, epoch })
        })
        .await
    }

    async fn describe_owner(
        &self,
        request: Request<DescribeOwnerRequest>,
    ) -> Result<Response<DescribeOwnerResponse>, Status> {
        answer(request, async |asked| {
            let owner = OwnerId::parse("owner_id", &asked.message.owner_id)?;
            let found = self.0.shell.ask(&asked.call(), DescribeOwner { owner }).await?;
            Ok(wire::described(found, &self.0.epoch))
        })
        .await
    }
}

impl Trust {
    /// Validate, as [`super::validate`] serves it.
    pub(super) async fn validated(
        &self,
        request: Request<ValidateRequest>,
    ) -> Result<Response<Validated>, Status> {
        answer(request, async |asked| {
            let hash = asked.message.credential_sha256[..].try_into();
            let hash = hash.map_err(|_| Error::invalid_field("credential_sha256", "32 bytes"))?;
            let now = self.0.clock.now();
            match self.0.gate.validate(&asked.served, &asked.caller, hash, now).await? {
                Validation::Valid(verdict) => Ok(Validated::of(&verdict, &self.0.epoch, now)),
                Validation::Expired(_) => Err(Error::new(Reason::TokenExpired, "the credential has expired")),
                Validation::Refused => Err(policy::login_required()),
            }
        })
        .await
    }
}

/// Reads what a verifier tells of uses of role tokens.
fn told_uses(Uses { used }: Uses) -> Result<Vec<ToldUse>, Error> {
    const FIELD: &str = "renew.uses.used";
    if used.len() > limits::USES_A_RENEWAL {
        return Err(Error::invalid_field(FIELD, format!("0 to {} uses", limits::USES_A_RENEWAL)));
    }
    let read = |(at, told): (usize, wire::Use)| {
        let credential = CredentialId::parse(&format!("{FIELD}[{at}].credential_id"), &told.credential_id)?;
        if !wire::is_source(&told.source) {
            let accepted = "an IPv4 address, a /64 network of IPv6, or empty";
            return Err(Error::invalid_field(format!("{FIELD}[{at}].source"), accepted));
        }
        let accepted = "not negative, nanoseconds under a second";
        let ago =
            field::span(&format!("{FIELD}[{at}].ago"), told.ago, &(Duration::ZERO..=SPAN_MAX), accepted)?;
        let ago = ago.unwrap_or_default();
        let noted = told.noted.min(NOTED_MAX);
        Ok(ToldUse { credential, source: told.source, ago, noted })
    };
    used.into_iter().enumerate().map(read).collect()
}

/// One verifier's stream.
struct Line {
    parts: Arc<Parts>,
    call: Call,
    served: Arc<serve::Call>,
    out: mpsc::Sender<Result<HoldLeaseResponse, Status>>,
    /// What it was told of audit logs.
    sent: Mutex<Sent>,
}

impl Line {
    async fn hold(self, mut asked: Streaming<HoldLeaseRequest>) {
        let ended = tokio::select! {
            ended = self.serve(&mut asked) => ended,
            () = self.parts.shutdown.cancelled() => Err(Error::new(Reason::Draining, "this server is shutting down")),
        };
        if let Err(error) = ended {
            tracing::info!(service = ?self.served.service, reason = %error.reason(), "a verifier's stream ended");
            // Who has gone is told nothing.
            let _ = self.out.try_send(Err(refuse(&self.served.request_id, &error)));
        }
    }

    async fn serve(&self, asked: &mut Streaming<HoldLeaseRequest>) -> Result<(), Error> {
        let hello = match self.next(asked).await? {
            Some(Message::Hello(hello)) => self.hello(&hello)?,
            Some(_) => return Err(Error::missing_field("hello")),
            None => return Ok(()),
        };
        let who = Arc::clone(&hello.who);
        let (seat, mut messages) = self.seated(hello).await?;
        let present = self.parts.census.came(&who);
        loop {
            tokio::select! {
                said = self.next(asked) => match said? {
                    Some(message) => self.heard(&seat, &present, message)?,
                    None => return Ok(()),
                },
                message = messages.recv() => match message {
                    Some(message) => self.send(&message).await?,
                    None => return Err(barrier::Violation::Closed.on("applied")),
                },
            }
        }
    }

    fn heard(&self, seat: &Seat, present: &Present, message: Message) -> Result<(), Error> {
        match message {
            Message::Hello(_) => Err(Error::invalid_field("hello", "first, and once")),
            Message::Applied(Applied { sequence, streams_closed }) => {
                Ok(seat.applied(sequence, streams_closed).map_err(|v| v.on("applied.sequence"))?)
            }
            Message::Renew(Renew { nonce, applied, heads, remembered, uses }) => {
                self.served.recheck_service(self.parts.clock.wall())?;
                let news = News::read("renew", heads, remembered)?;
                let uses = uses.map(told_uses).transpose()?;
                self.parts.heads.heard(&self.peer(), news);
                if let Some(uses) = uses {
                    present.told(&self.peer().into(), uses);
                }
                Ok(seat.renew(nonce, applied).map_err(|v| v.on("renew.applied"))?)
            }
        }
    }

    /// Whose audit log is meant, by the certificate.
    fn peer(&self) -> String {
        self.served.service.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    fn hello(&self, hello: &Hello) -> Result<barrier::Hello, Error> {
        let id = &hello.verifier_id;
        if !limits::VERIFIER_ID_BYTES.contains(&id.len()) || !id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid_field("hello.verifier_id", "16 to 64 printable characters of ASCII"));
        }
        if !hello.epoch.is_empty() && !text::is_name(&hello.epoch) {
            return Err(Error::invalid_field("hello.epoch", "empty, or that of the last grant"));
        }
        let service = self.served.service.as_ref().ok_or_else(policy::login_required)?;
        Ok(barrier::Hello {
            who: format!("{service} {id}").into(),
            applied: hello.applied,
            anew: hello.applied == 0 && hello.epoch.is_empty(),
            nonce: hello.nonce,
        })
    }

    /// Gives the verifier its place and what it missed. Where that is gone, it begins anew.
    async fn seated(&self, hello: barrier::Hello) -> Result<(Seat, mpsc::Receiver<Outgoing>), Error> {
        if let Some(replicas) =
            self.parts.replicas.as_ref().filter(|_| hello.applied > self.parts.barrier.newest())
        {
            // It comes from another program on the store, which is ahead.
            replicas.follow().await?;
        }
        let Seated { seat, missed, messages } = self.parts.barrier.seat(&hello)?;
        let Some(missed) = missed else { return Ok((seat, messages)) };
        if self.send_missed(missed).await? {
            seat.caught_up().map_err(|v| v.on("hello.applied"))?;
            return Ok((seat, messages));
        }
        let Seated { seat, messages, .. } =
            self.parts.barrier.seat(&barrier::Hello { anew: true, ..hello })?;
        Ok((seat, messages))
    }

    /// Whether all of it could be sent.
    async fn send_missed(&self, Missed { after, upto }: Missed) -> Result<bool, Error> {
        if after == upto {
            // It has all, and waits for what this program may vouch for.
            return Ok(true);
        }
        if upto - after > u64::from(limits::REVOCATION_PAGE_MAX) {
            return Ok(false);
        }
        let query = RevocationsAfter { after, limit: limits::REVOCATION_PAGE_MAX };
        let page = self.parts.shell.ask(&self.call, query).await?;
        // The log has no gaps: who has the last one has all.
        if page.reset || page.rows.last().is_none_or(|row| row.sequence < upto) {
            return Ok(false);
        }
        // Later ones are in the queue.
        for revocation in page.rows.into_iter().filter(|row| row.sequence <= upto) {
            self.send(&Outgoing::Revoked(Arc::new(revocation))).await?;
        }
        Ok(true)
    }

    async fn next(&self, asked: &mut Streaming<HoldLeaseRequest>) -> Result<Option<Message>, Error> {
        let silence = self.parts.barrier.lease() * SILENCE_LEASES;
        let next = tokio::time::timeout(silence, asked.message()).await;
        let next = next.map_err(|_| Error::new(Reason::DeadlineExceeded, "the verifier fell silent"))?;
        match next {
            Ok(None) => Ok(None),
            Ok(Some(HoldLeaseRequest { message: Some(message) })) => Ok(Some(message)),
            Ok(Some(HoldLeaseRequest { message: None })) => Err(Error::missing_field("message")),
            // Cut off or reset: its lease runs out.
            Err(status) => {
                // Of what cannot be decoded it is told; no fault of ours is to be logged.
                if let Some(error) = field::unreadable(&status) {
                    let _ = self.out.try_send(Err(error.to_status(&self.served.request_id)));
                }
                Ok(None)
            }
        }
    }

    /// Waits for room on the way, for a lease at most: who reads nothing for so long is fenced by then.
    async fn send(&self, message: &Outgoing) -> Result<(), Error> {
        let lease: Duration = self.parts.barrier.lease();
        let news = match message {
            Outgoing::Granted(_) => self.parts.heads.news(&self.peer(), &mut self.sent.lock()),
            Outgoing::Revoked(_) => News::default(),
        };
        let message = wire::outgoing(message, lease, &self.parts.epoch, news);
        let sent = tokio::time::timeout(lease, self.out.send(Ok(message))).await;
        let too_slow = || Error::new(Reason::TooSlow, "the verifier reads nothing");
        sent.map_err(|_| too_slow())?.map_err(|_| too_slow())
    }
}
