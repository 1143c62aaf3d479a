//! `interlock.audit.v1.AuditService`: a service's audit log, for administrators.
//!
//! The log belongs to the whole service, so the policy of the methods, asked at gate 1, is the whole decision.
//! It is read on connections of its own, on threads that may wait: a long read holds up no verb. How much one
//! call looks at is bounded, and how many calls do so at once.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use interlock_proto::{
    audit::v1::{
        ListRequest, ListResponse, TailRequest, TailResponse, VerifyRequest, VerifyResponse,
        audit_service_server::{AuditService, AuditServiceServer},
    },
    text,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    audit_heads::{self, AuditHeads},
    authn::{self, Admit, Call, Presented},
    error::{Error, Reason},
    field,
    store::{
        Fault,
        audit::{Filter, HEADS_MAX, Known, Look, Trail},
    },
};

mod wire;

const PAGE_DEFAULT: u32 = 100;
const PAGE_MAX: u32 = 1_000;
/// Rows that one call looks at, whether they match or not.
const WINDOW: i64 = 50_000;
/// Bytes of a text that rows are filtered by.
const TEXT_BYTES_MAX: usize = 256;
/// Reads of the log at once; others wait, within their deadline.
const READS_MAX: usize = 4;
/// Streams at once.
const TAILS_MAX: usize = 16;
/// How often a stream looks for new rows. Each look asks for the caller's rights again.
const LOOK: Duration = Duration::from_millis(250);

/// The audit log of one service.
#[derive(Debug)]
pub struct AuditLog<A> {
    gate: Arc<A>,
    reader: Reader,
    heads: Arc<AuditHeads>,
    tails: Arc<Semaphore>,
    verifying: Arc<Semaphore>,
    draining: CancellationToken,
}

impl<A: Admit> AuditLog<A> {
    /// Over these rows, compared with what others remember of them. `gate` is asked again by streams, which end with
    /// `draining`.
    #[must_use]
    pub fn new(gate: Arc<A>, trail: Trail, heads: Arc<AuditHeads>, draining: CancellationToken) -> Self {
        Self {
            gate,
            heads,
            reader: Reader { trail: Arc::new(trail), reads: Arc::new(Semaphore::new(READS_MAX)) },
            tails: Arc::new(Semaphore::new(TAILS_MAX)),
            verifying: Arc::new(Semaphore::new(1)),
            draining,
        }
    }

    /// The service, for a server's [`crate::serve::Services`].
    #[must_use]
    pub fn server(self, message_bytes: usize) -> AuditServiceServer<Self> {
        AuditServiceServer::new(self).max_decoding_message_size(message_bytes)
    }

    async fn list_rows(&self, asked: ListRequest) -> Result<ListResponse, Error> {
        let limit = match asked.page_size {
            0 => PAGE_DEFAULT,
            size @ 1..=PAGE_MAX => size,
            _ => return Err(Error::invalid_field("page_size", format!("0 to {PAGE_MAX}"))),
        };
        let filter = filter(asked.filter, place("after", asked.after)?, limit)?;
        let page = self.reader.page(filter).await?;
        let next = wire::place(page.next);
        let rows = page.rows.into_iter().map(wire::row).collect();
        Ok(ListResponse { rows, next, at_end: page.at_end, gap: page.gap.map(wire::gap) })
    }

    async fn begin_tail(
        &self,
        asked: TailRequest,
        call: Arc<Call>,
        shown: Presented,
    ) -> Result<Tail<A>, Error> {
        let after = match asked.after {
            Some(after) => place("after", after)?,
            None => self.reader.newest().await?,
        };
        let filter = filter(asked.filter, after, PAGE_MAX)?;
        let berth = Arc::clone(&self.tails).try_acquire_owned();
        let berth = berth.map_err(|_| busy("as many streams of the audit log as there may be are open"))?;
        Ok(Tail {
            gate: Arc::clone(&self.gate),
            reader: self.reader.clone(),
            draining: self.draining.clone(),
            filter,
            begun: false,
            call,
            shown,
            _berth: berth,
        })
    }

    async fn verify_chains(&self, asked: VerifyRequest) -> Result<VerifyResponse, Error> {
        let caller = |head| Known { by: String::new(), head };
        let known = audit_heads::from_wire("known", asked.known, HEADS_MAX)?.into_iter().map(caller);
        let turn = Arc::clone(&self.verifying).try_acquire_owned();
        let turn = turn.map_err(|_| busy("the audit log is being verified by another call"))?;
        // Before the log is looked at: all of it was stored before it was told.
        let (remembered, peers) = (self.heads.known(), self.heads.peers());
        let report = self.reader.verify(known.chain(remembered).collect(), turn).await?;
        Ok(wire::report(report, peers))
    }
}

#[tonic::async_trait]
impl<A: Admit> AuditService for AuditLog<A> {
    type TailStream = std::pin::Pin<Box<dyn Stream<Item = Result<TailResponse, Status>> + Send>>;

    async fn list(&self, mut request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let (call, _) = authn::caller::<A::Caller, _>(&mut request);
        let listed = self.list_rows(request.into_inner()).await;
        listed.map(Response::new).map_err(|error| refuse(&call, &error))
    }

    async fn tail(&self, mut request: Request<TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let (call, _) = authn::caller::<A::Caller, _>(&mut request);
        let (metadata, _, asked) = request.into_parts();
        let begun = async {
            let shown = Presented::read(&metadata.into_headers(), call.listener)?;
            self.begin_tail(asked, Arc::clone(&call), shown).await
        };
        let tail = begun.await.map_err(|error| refuse(&call, &error))?;
        let batches =
            stream::try_unfold(
                tail,
                |mut tail| async move { tail.next().await.map(|batch| Some((batch, tail))) },
            );
        Ok(Response::new(batches.map(move |batch| batch.map_err(|error| refuse(&call, &error))).boxed()))
    }

    async fn verify(&self, mut request: Request<VerifyRequest>) -> Result<Response<VerifyResponse>, Status> {
        let (call, _) = authn::caller::<A::Caller, _>(&mut request);
        let verified = self.verify_chains(request.into_inner()).await;
        verified.map(Response::new).map_err(|error| refuse(&call, &error))
    }
}

/// One stream of rows.
struct Tail<A> {
    gate: Arc<A>,
    reader: Reader,
    draining: CancellationToken,
    filter: Filter,
    begun: bool,
    call: Arc<Call>,
    shown: Presented,
    _berth: OwnedSemaphorePermit,
}

impl<A: Admit> Tail<A> {
    /// The next rows, as soon as there are some.
    async fn next(&mut self) -> Result<TailResponse, Error> {
        if !std::mem::replace(&mut self.begun, true) {
            return Ok(TailResponse { rows: Vec::new(), next: wire::place(self.filter.after), gap: None });
        }
        loop {
            // Nothing is handed out that was not allowed just now: a revocation need not find this stream.
            let admitted = self.may_go_on().await?;
            if admitted {
                let page = self.reader.page(self.filter.clone()).await?;
                self.filter.after = page.next;
                if !page.rows.is_empty() || page.gap.is_some() {
                    let rows = page.rows.into_iter().map(wire::row).collect();
                    return Ok(TailResponse {
                        rows,
                        next: wire::place(page.next),
                        gap: page.gap.map(wire::gap),
                    });
                }
                if !page.at_end {
                    continue;
                }
            }
            tokio::select! {
                () = self.draining.cancelled() => {
                    return Err(Error::new(Reason::Draining, "this service shuts down; go on after the last row"));
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Whether rows may be handed out now; not while nobody can say so.
    async fn may_go_on(&self) -> Result<bool, Error> {
        let Err(refused) = self.gate.admit(&self.call, self.shown.clone()).await else { return Ok(true) };
        let ended = match refused.error.reason() {
            Reason::AuthUnavailable | Reason::StoreUnavailable => return Ok(false),
            Reason::TokenExpired => refused.error,
            _ => Error::new(Reason::Revoked, "the right that this stream stood on has ended"),
        };
        self.gate.refused(&self.call, refused.caller.as_ref(), &ended).await;
        Err(ended)
    }
}

/// Reads of the log, so many at once.
#[derive(Clone, Debug)]
struct Reader {
    trail: Arc<Trail>,
    reads: Arc<Semaphore>,
}

/// What one bounded look found.
struct Page {
    rows: Vec<crate::store::audit::Row>,
    /// Go on after this one.
    next: i64,
    at_end: bool,
    /// Rows between the cursor and this one were removed.
    gap: Option<i64>,
}

impl Reader {
    async fn page(&self, filter: Filter) -> Result<Page, Error> {
        self.on_a_thread(move |trail| {
            let Look { rows, through, newest, removed } = trail.look(&filter, WINDOW)?;
            let is_full = rows.len() == filter.limit as usize;
            let next = rows.last().filter(|_| is_full).map_or(through.max(filter.after), |row| row.id);
            let at_end = next >= newest;
            // Told once: nothing comes any more where rows were removed.
            let next = if at_end { next.max(removed) } else { next };
            Ok(Page { rows, next, at_end, gap: (removed > filter.after).then_some(removed) })
        })
        .await
    }

    async fn newest(&self) -> Result<i64, Error> {
        self.on_a_thread(Trail::newest).await
    }

    /// One at a time: `turn` is given back when the thread is done, whether or not anybody waits for it still.
    async fn verify(
        &self,
        known: Vec<Known>,
        turn: OwnedSemaphorePermit,
    ) -> Result<crate::store::audit::Report, Error> {
        let trail = Arc::clone(&self.trail);
        let work = move || {
            let report = trail.verify(&known);
            drop(turn);
            report
        };
        Ok(tokio::task::spawn_blocking(work).await.map_err(Error::internal)??)
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Trail) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = Arc::clone(&self.reads).acquire_owned().await.map_err(Error::internal)?;
        let trail = Arc::clone(&self.trail);
        let work = move || {
            let done = work(&trail);
            drop(turn);
            done
        };
        Ok(tokio::task::spawn_blocking(work).await.map_err(Error::internal)??)
    }
}

fn filter(
    asked: Option<interlock_proto::audit::v1::Filter>,
    after: i64,
    limit: u32,
) -> Result<Filter, Error> {
    let asked = asked.unwrap_or_default();
    let text = |field: &str, given: String| {
        let fits = given.is_empty() || text::is_label(&given, TEXT_BYTES_MAX);
        let accepted = format!("0 to {TEXT_BYTES_MAX} bytes that all show, without blanks at the ends");
        if fits { Ok(given) } else { Err(Error::invalid_field(format!("filter.{field}"), accepted)) }
    };
    Ok(Filter {
        after,
        through: None,
        principal: text("principal", asked.principal)?,
        action: text("action", asked.action)?,
        reason: text("reason", asked.reason)?,
        rpc: text("rpc", asked.rpc)?,
        subject: text("subject", asked.subject)?,
        mentions: text("mentions", asked.mentions)?,
        scope: text("project_id", asked.project_id)?,
        since: field::instant("filter.since", asked.since)?,
        until: field::instant("filter.until", asked.until)?,
        limit,
    })
}

fn place(field: &str, given: u64) -> Result<i64, Error> {
    i64::try_from(given).map_err(|_| Error::invalid_field(field, "`next` of an earlier answer"))
}

fn busy(why: &'static str) -> Error {
    Error::new(Reason::LimitReached, why).retry_after(Duration::from_secs(1))
}

fn refuse(call: &Call, error: &Error) -> Status {
    if matches!(error.reason(), Reason::Internal | Reason::StoreUnavailable) {
        let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::error!(request_id = call.request_id, reason = %error.reason(), source, "the audit log");
    }
    error.to_status(&call.request_id)
}

const _: () = assert!(HEADS_MAX <= 1_024, "the .proto says so");
