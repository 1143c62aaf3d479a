//! The stream to auth: asks for the lease, applies revocations, acknowledges them.
//!
//! The order of a revocation is the whole point: first nothing it matches is good any more, then what
//! stood on it has ended and is counted, then the service has seen to what it made on it, and only then auth hears of
//! it.

use std::{collections::VecDeque, mem::take, sync::Arc, time::Duration};

use interlock_proto::auth::v1::{
    self as wire, HoldLeaseRequest, HoldLeaseResponse, hold_lease_request as ask, hold_lease_response as say,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use super::{Core, HeadExchange, HeadNews, VerifyError, follow::Following, lease::Stamp, verdict::Asked};
use crate::{
    call::{Identity, Opened},
    clock::span,
    error::Error,
    path,
    retry::Backoff,
};

/// How soon a lapse shows to watchers, and an expiry to streams.
const TICK: Duration = Duration::from_millis(50);
/// A stream on which nothing is heard for so long is given up: auth is frozen, or cut off. Sooner where the
/// lease is short: see [`Holder::silence_max`].
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// What a stream gets to open, at the least: TCP, TLS and HTTP/2 take their round trips, however short the lease.
const OPENING_MIN: Duration = Duration::from_secs(1);
/// A lease is asked for at least so often in its life: one lost answer does not end it.
const ASKS_A_LEASE: u32 = 3;
/// Messages on their way to auth. Beyond it auth does not read: the stream is given up.
const OUTBOX: usize = 256;
/// Questions for the lease without an answer.
const UNANSWERED_MAX: usize = 16;
/// Credentials of open streams that are checked again at once, after a reset.
const RECHECKS: usize = 32;

/// Holds the lease until it is dropped.
pub(super) async fn run(
    core: Arc<Core>,
    verifier_id: String,
    renew_every: Duration,
    following: Following,
    heads: Option<Arc<dyn HeadExchange>>,
) {
    let ticking = Arc::clone(&core);
    let _ticker = AbortOnDropHandle::new(tokio::spawn(async move { tick(&ticking).await }));
    let mut holder = Holder {
        core,
        verifier_id,
        renew_every,
        lease: Duration::MAX,
        nonce: 0,
        renewed: false,
        epoch: String::new(),
        recheck: None,
        begin: following.settled(),
        following,
        heads,
    };
    let mut backoff = Backoff::new(TICK, Duration::from_secs(1));
    loop {
        holder.renewed = false;
        let error = match holder.hold().await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        // A renewal was answered on it: the stream had worked, and the next one may be tried at once.
        if holder.renewed {
            backoff.reset();
        }
        tracing::warn!(%error, "no stream to auth; the lease lives on until it runs out");
        sleep(backoff.pause(error.retry_after()).max(holder.core.trust.rest_left())).await;
    }
}

async fn tick(core: &Core) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        core.lease.settle(&core.clock);
        core.registry.expire(core.clock.wall());
    }
}

struct Holder {
    core: Arc<Core>,
    verifier_id: String,
    renew_every: Duration,
    /// As it was last granted.
    lease: Duration,
    /// Of the last question, on any stream.
    nonce: u64,
    /// Whether a renewal, and not only the hello, was answered on this stream.
    renewed: bool,
    /// Of the last grant; empty before the first.
    epoch: String,
    recheck: Option<AbortOnDropHandle<()>>,
    /// Up to where the service has seen to them in an earlier life; 0 after the first grant.
    begin: u64,
    following: Following,
    heads: Option<Arc<dyn HeadExchange>>,
}

/// One stream: what goes out, and the questions that wait for an answer.
struct Link {
    outbox: mpsc::Sender<HoldLeaseRequest>,
    /// Of its hello.
    first: u64,
    asked: VecDeque<(u64, Stamp)>,
    /// What auth was told is applied here: it sends no row up to this one again.
    told: u64,
    /// The first row that was heard on it.
    oldest: Option<u64>,
    /// The newest row that was heard on it.
    newest: u64,
    /// Nothing was told on it of audit logs and uses yet.
    untold: bool,
}

enum Never {}

impl Holder {
    async fn hold(&mut self) -> Result<Never, Error> {
        let (outbox, sending) = mpsc::channel(OUTBOX);
        let applied = if self.epoch.is_empty() { self.begin } else { self.following.settled() };
        let mut link = Link {
            outbox,
            first: 0,
            asked: VecDeque::new(),
            told: applied,
            oldest: None,
            newest: 0,
            untold: true,
        };
        let nonce = self.ask(&mut link);
        link.first = nonce;
        link.send(ask::Message::Hello(ask::Hello {
            verifier_id: self.verifier_id.clone(),
            applied,
            epoch: self.epoch.clone(),
            nonce,
        }))?;
        let core = Arc::clone(&self.core);
        let nobody = Identity::default();
        let opening = core.trust.open(path::HOLD_LEASE, &nobody, ReceiverStream::new(sending));
        let line = core.trust.line();
        let Ok(opened) = timeout(self.silence_max().max(OPENING_MIN), opening).await else {
            // The connection may be a dead one that nobody has reset: the next try gets another.
            core.trust.move_on(&line);
            return Err(Error::deadline());
        };
        let opened: Opened<HoldLeaseResponse> = opened?;
        let Opened { mut messages, line, .. } = opened;

        let mut heard = Instant::now();
        let mut asked = heard;
        loop {
            let pace = self.pace();
            tokio::select! {
                message = messages.message() => {
                    heard = Instant::now();
                    let message = message.map_err(|status| Error::from_status(&status))?;
                    let message = message.ok_or_else(|| Error::transport("auth ended the stream"))?;
                    self.hear(message, &mut link)?;
                }
                done = self.following.worked() => link.acknowledge(done)?,
                // Counted anew after each answer, which may have told a shorter lease.
                () = sleep_until(asked + pace) => {
                    asked = Instant::now();
                    if heard + self.silence_max() <= asked {
                        core.trust.move_on(&line);
                        return Err(Error::transport("auth is silent"));
                    }
                    let nonce = self.ask(&mut link);
                    let renewal = self.renewal(nonce, std::mem::replace(&mut link.untold, false));
                    link.send(ask::Message::Renew(renewal))?;
                }
            }
        }
    }

    /// What is told with a renewal: with the first one of a stream, `anew`, all that auth may not know.
    fn renewal(&self, nonce: u64, anew: bool) -> ask::Renew {
        let news = self.heads.as_ref().map(|heads| heads.tell(anew)).unwrap_or_default();
        let (heads, remembered) = news.to_wire();
        let now_ns = self.core.clock.monotonic_ns();
        self.core.registry.note(&self.core.uses, now_ns);
        let uses = Some(self.core.uses.tell(anew, now_ns));
        ask::Renew { nonce, applied: self.following.settled(), heads, remembered, uses }
    }

    /// Between two renewals.
    fn pace(&self) -> Duration {
        self.renew_every.min(self.lease / ASKS_A_LEASE)
    }

    /// For how long nothing may be heard: two renewals without an answer, so that a third can go out on
    /// another connection while the lease lives. A connection that died without a word costs nobody a call.
    fn silence_max(&self) -> Duration {
        SILENCE_MAX.min(self.lease / ASKS_A_LEASE * (ASKS_A_LEASE - 1))
    }

    /// Notes the time before a question is sent.
    fn ask(&mut self, link: &mut Link) -> u64 {
        self.nonce += 1;
        if link.asked.len() == UNANSWERED_MAX {
            link.asked.pop_front();
        }
        link.asked.push_back((self.nonce, Stamp::of(&self.core.clock)));
        self.nonce
    }

    fn hear(&mut self, message: HoldLeaseResponse, link: &mut Link) -> Result<(), Error> {
        match message.message {
            Some(say::Message::Granted(granted)) => {
                self.granted(granted, link);
                link.acknowledge(self.following.advance())
            }
            Some(say::Message::Revoked(row)) => {
                if row.sequence <= link.told && !self.core.log.remembers(&row) {
                    // Auth was put back to an earlier copy of its store: numbers mean other rows now. Not
                    // acknowledged, and nothing that stood on the old log counts after the next grant.
                    self.epoch.clear();
                    self.begin = 0;
                    return Err(Error::protocol("auth tells another history of revocations"));
                }
                link.oldest.get_or_insert(row.sequence);
                link.newest = link.newest.max(row.sequence);
                let (sequence, streams_closed) = (row.sequence, self.core.apply(&row));
                if sequence <= self.following.settled() {
                    return link.acknowledge(vec![(sequence, streams_closed)]);
                }
                if !self.following.push(row, streams_closed) {
                    return Err(Error::transport("revocations come faster than the service sees to them"));
                }
                link.acknowledge(self.following.advance())
            }
            // A kind of message that this version does not know may have been a revocation.
            None => Err(Error::protocol("auth said something that this version does not know")),
        }
    }

    fn granted(&mut self, mut granted: say::Granted, link: &mut Link) {
        let (heads, remembered) = (take(&mut granted.heads), take(&mut granted.remembered));
        if let (Some(side), Some(news)) = (&self.heads, HeadNews::of_wire(heads, remembered)) {
            side.hear(news);
        }
        let Some(at) = link.asked.iter().position(|(nonce, _)| *nonce == granted.nonce) else { return };
        let sent = link.asked[at].1;
        link.asked.drain(..=at);
        // A log that is shorter than what was applied of it is another one.
        let another = granted.sequence < link.told;
        let missed = granted.reset || another || (self.epoch.is_empty() && self.begin == 0);
        let upto = granted.sequence.max(link.newest);
        if missed {
            self.following.start_over(upto, !another, link.oldest);
        }
        if missed || self.epoch.is_empty() {
            self.recheck = self.core.start_over(upto);
            link.told = 0;
        }
        self.begin = 0;
        self.epoch = granted.epoch;
        self.lease = span(granted.lease).max(TICK);
        self.renewed |= granted.nonce > link.first;
        self.core.lease.grant(sent, span(granted.lease), &self.core.clock);
    }
}

impl Link {
    /// What was seen to, as far as auth has told it on this stream: the rest it tells again.
    fn acknowledge(&self, done: Vec<(u64, u64)>) -> Result<(), Error> {
        let told = done.into_iter().filter(|(sequence, _)| *sequence <= self.newest);
        told.into_iter().try_for_each(|(sequence, streams_closed)| {
            self.send(ask::Message::Applied(ask::Applied { sequence, streams_closed }))
        })
    }

    fn send(&self, message: ask::Message) -> Result<(), Error> {
        let sent = self.outbox.try_send(HoldLeaseRequest { message: Some(message) });
        sent.map_err(|_| Error::transport("auth does not read"))
    }
}

impl Core {
    /// Applies a revocation. How many streams and parked calls it closed here.
    fn apply(&self, row: &wire::Revoked) -> u64 {
        if !self.log.push(row) {
            return self.log.closed_by(row.sequence);
        }
        let closed = self.registry.end(row);
        self.log.note_closed(row.sequence, closed);
        tracing::debug!(sequence = row.sequence, closed, "revocation applied");
        closed
    }

    /// Nothing that was verified before counts; open streams pause until their credentials have been
    /// checked again.
    fn start_over(self: &Arc<Self>, sequence: u64) -> Option<AbortOnDropHandle<()>> {
        self.log.reset(sequence);
        self.verdicts.clear();
        self.members.clear();
        self.named.clear();
        let doubted = self.registry.doubt_all();
        if doubted.is_empty() {
            return None;
        }
        let core = Arc::clone(self);
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            use futures_util::StreamExt as _;
            let checks = futures_util::stream::iter(doubted);
            checks.for_each_concurrent(RECHECKS, |asked| core.check_again(asked)).await;
        })))
    }

    async fn check_again(self: &Arc<Self>, asked: Asked) {
        let mut backoff = Backoff::new(TICK, Duration::from_secs(1));
        loop {
            match self.verify_again(&asked).await {
                Ok(verdict) => return self.registry.settle(&asked, Some(&verdict)),
                Err(VerifyError::Unauthenticated(_)) => return self.registry.settle(&asked, None),
                Err(VerifyError::AuthUnavailable) => sleep(backoff.pause(None)).await,
            }
        }
    }
}
