//! StreamEvents: a session's log from a place in it, and on as it grows.
//!
//! A stream reads the store in parts, each with a decision of its own, so that an eviction or a lost right ends
//! it at the next part; the hub only wakes it. A slow reader reads larger parts later and costs nobody anything.
//! The ground that it stands on (see [`crate::standing`]) is asked again for each message as it leaves.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use interlock_kit::{
    authn::Call,
    error::{Error, Reason},
};
use interlock_proto::gateway::v1::{CaughtUp, Gap, StreamOpened, stream_events_response::Message};

use crate::{
    admit::{self, Admitted},
    caller::Caller,
    event::{Entry, Event, From, Part, ReadEvents, ReadOn, SharedEvent},
    grpc::{Front, StreamMessage, draining, refuse, wire},
    hub::{Bell, Topic},
    ids::{ProjectId, SessionId},
    outlet::{self, Answers, Gone, Outlet, WhenLapsed},
    standing::Standing,
    store::Told,
    streams::Opened,
};

/// What a project token needs for a stream of events, to open it and to keep it.
const SCOPE: &str = "sessions:read";
/// Messages between the reader of the store and the connection.
const ROOM: usize = 32;
/// A wake-up that was lost is made good after this.
const SLOW_POLL: Duration = Duration::from_secs(15);
/// The pause after an answer that says to try again.
const PAUSE: Duration = Duration::from_millis(250);
/// How long after the store the hub may hear that a session is gone.
pub(crate) const GONE_WITHIN: Duration = Duration::from_secs(1);

/// Opens a stream: refused here, with a status, or not at all.
///
/// # Errors
/// What reading the log is refused with; `LIMIT_REACHED`; `DRAINING`.
pub(crate) async fn open(
    front: &Arc<Front>,
    call: &Arc<Call>,
    admitted: &Admitted,
    session: SessionId,
    from: From,
) -> Result<Told<Answers<StreamMessage>>, Error> {
    if front.draining.is_cancelled() {
        return Err(draining());
    }
    let caller = admitted.for_session(&session);
    let place = front.streams.place(&payer(&caller, &session))?;
    let bell = front.hub.bell([Topic::Session(session.clone())]);
    let standing = Arc::new(admitted.standing(&front.verifier));
    let read = ReadEvents { session: session.clone(), from, limit: front.shell.limits().event_batch_max };
    let mut first = front.ask(call, &caller, read.clone()).await?;
    if standing.enter(first.out.project.as_ref().map(ProjectId::as_str)) {
        // Registered first, then decided: an end of the membership in between was heard by nobody.
        first = front.ask(call, &caller, read).await?;
    }
    let opened = front.streams.open(place, admitted.principal(), SCOPE, &standing);
    let (outlet, answers) = outlet::open(ROOM, Arc::clone(&standing), WhenLapsed::Hold, &call.request_id);
    let (front, call) = (Arc::clone(front), Arc::clone(call));
    let tasks = front.tasks.clone();
    let part = first.out;
    let project = part.project.clone();
    let reader =
        Reader { front, call, caller, session, bell, standing, outlet, opened, project, ended: false };
    tasks.spawn(async move {
        // The outlet has said why; there is nobody else to tell.
        let _ = reader.run(part).await;
    });
    Ok(Told { out: answers, unscoped: first.unscoped })
}

/// Whose places a parked call takes.
pub(crate) fn payer(caller: &Caller, session: &SessionId) -> String {
    caller.owner().map_or_else(|| session.to_string(), |owner| owner.to_string())
}

/// The task behind one stream.
struct Reader {
    front: Arc<Front>,
    call: Arc<Call>,
    caller: Arc<Caller>,
    session: SessionId,
    bell: Bell,
    standing: Arc<Standing>,
    outlet: Outlet<StreamMessage>,
    opened: Opened,
    /// Whose membership the stream stands on: events of no other project are delivered.
    project: Option<ProjectId>,
    /// Whether the store has shown that the session is gone.
    ended: bool,
}

/// What ended a pause.
enum Woken {
    Read,
    Over,
}

impl Reader {
    async fn run(mut self, mut part: Part) -> Result<(), Gone> {
        let expires_at = self.standing.expires_at().map(wire::instant);
        let stream_id = self.opened.id().to_owned();
        self.send(Message::Opened(StreamOpened { stream_id, expires_at })).await?;
        let mut said = false;
        loop {
            // What a stream does with an event is in boxes, so that one on which nothing happens is small.
            if let Some(after) = Box::pin(self.deliver(&part)).await? {
                part = match Box::pin(self.read(after)).await {
                    Some(part) => part,
                    None if self.is_gone() => return Box::pin(self.deliver_last(&part, after)).await,
                    None => return Ok(()),
                };
                continue;
            }
            // Nothing is kept of it while the stream waits.
            part.entries = Vec::new();
            if part.caught_up() {
                if !std::mem::replace(&mut said, true) {
                    self.send(Message::CaughtUp(CaughtUp { sequence: part.last })).await?;
                }
                if matches!(self.pause().await, Woken::Over) {
                    return Ok(());
                }
                if self.is_gone() {
                    return Box::pin(self.deliver_last(&part, part.next)).await;
                }
            }
            part = match Box::pin(self.read(part.next)).await {
                Some(part) => part,
                None if self.is_gone() => return Box::pin(self.deliver_last(&part, part.next)).await,
                None => return Ok(()),
            };
        }
    }

    /// Whether the session is gone: the hub has said so, or the store.
    fn is_gone(&self) -> bool {
        self.ended || self.bell.gone().is_some()
    }

    /// Waits for something new.
    async fn pause(&self) -> Woken {
        tokio::select! {
            biased;
            () = self.outlet.gone() => Woken::Over,
            _ = self.standing.ended() => Woken::Over,
            () = self.front.draining.cancelled() => {
                self.outlet.close(draining());
                Woken::Over
            }
            () = self.bell.rung() => Woken::Read,
            () = tokio::time::sleep(SLOW_POLL) => Woken::Read,
        }
    }

    /// The next part, as soon as the ground holds; `None`: the stream is over, and the outlet says why.
    async fn read(&mut self, after: u64) -> Option<Part> {
        loop {
            tokio::select! {
                biased;
                () = self.outlet.gone() => return None,
                () = self.front.draining.cancelled() => {
                    self.outlet.close(draining());
                    return None;
                }
                open = self.standing.open() => open.ok()?,
            }
            if let Err(error) = self.follow() {
                self.outlet.close(error);
                return None;
            }
            let turn = self.front.streams.turn_to_read().await;
            let limit = self.front.shell.limits().event_batch_max;
            let read = ReadEvents { session: self.session.clone(), from: From::After(after), limit };
            let known = self.bell.kept_after(after, usize::try_from(limit).unwrap_or(usize::MAX));
            let asked = self.front.ask(&self.call, &self.caller, ReadOn { read, known }).await;
            drop(turn);
            match asked {
                Ok(told) => return Some(told.out),
                Err(error) if passes(error.reason()) => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    Box::pin(self.refused(error)).await;
                    return None;
                }
            }
        }
    }

    /// The caller is who the credential says that the stream stands on now.
    fn follow(&mut self) -> Result<(), Error> {
        let caller = self.front.gate.recheck(&self.call, &self.caller)?;
        self.caller = admit::following(&caller, &self.standing)?;
        Ok(())
    }

    /// Says why reading on was refused: a session that is gone is to its store as if it had never been.
    async fn refused(&mut self, error: Error) {
        if is_unknown(&error) {
            // The hub need not hear of what another gateway has ended.
            self.ended = self.bell.goes_within(GONE_WITHIN).await
                || self.front.end_of(&self.session, 0).await.is_some();
            if self.ended {
                return;
            }
        }
        // A bearer that is good no longer ends what stands on it before; so this is of the cookie.
        let evicted = error.reason() == Reason::ProviderAuthFailed && self.caller.cookie.is_some();
        self.outlet.close(if evicted {
            Error::new(Reason::Evicted, "this client is no longer of the session")
        } else {
            // Logged where it is a fault of ours.
            drop(refuse(&error, &self.call.request_id));
            error
        });
    }

    /// Delivers a part up to the first event of another project than the stream stands in. That one is entered
    /// once all before has left; what follows is to be read again, after the number that is answered.
    async fn deliver(&mut self, part: &Part) -> Result<Option<u64>, Gone> {
        for entry in &part.entries {
            match entry {
                Entry::Event(event) => {
                    if self.moves(event).await? {
                        return Ok(Some(event.sequence - 1));
                    }
                    self.event(event).await?;
                }
                Entry::Gap { from, to } => self.send(Message::Gap(Gap { from: *from, to: *to })).await?,
            }
        }
        Ok(None)
    }

    /// Enters the project of an event, where it is another one. Whether what was read of it is to be read again.
    async fn moves(&mut self, event: &Event) -> Result<bool, Gone> {
        if event.project.is_none() || event.project == self.project {
            return Ok(false);
        }
        self.outlet.flushed().await?;
        self.project.clone_from(&event.project);
        Ok(self.standing.enter(self.project.as_ref().map(ProjectId::as_str)))
    }

    /// What the hub still knows of a session that is gone, and the store, then the end. An event of a project that this
    /// reader was not seen to enter is told as a gap.
    async fn deliver_last(&mut self, part: &Part, read: u64) -> Result<(), Gone> {
        let kept = self.bell.gone().unwrap_or_default().iter();
        let mut last: BTreeMap<u64, SharedEvent> =
            kept.filter(|event| event.sequence > read).map(|event| (event.sequence, event.clone())).collect();
        let mut end = part.last;
        if let Some(left) = self.front.end_of(&self.session, read).await {
            end = end.max(left.last);
            last.extend(left.events.into_iter().map(|event| (event.sequence, event.into())));
        }
        let mut next = read;
        for event in last.values() {
            let entered = self.project == part.project && event.project == part.project;
            let visible = (event.project.is_none() || entered) && event.is_for(part.reader.as_ref());
            if event.sequence > next + 1 {
                self.send(Message::Gap(Gap { from: next + 1, to: event.sequence - 1 })).await?;
            }
            if visible {
                self.event(event).await?;
            } else {
                self.send(Message::Gap(Gap { from: event.sequence, to: event.sequence })).await?;
            }
            next = event.sequence;
        }
        if next < end {
            self.send(Message::Gap(Gap { from: next + 1, to: end })).await?;
        }
        self.outlet.close(session_ended());
        Ok(())
    }

    async fn event(&self, event: &SharedEvent) -> Result<(), Gone> {
        self.outlet.send(StreamMessage::Event(event.clone())).await
    }

    async fn send(&self, message: Message) -> Result<(), Gone> {
        self.outlet.send(StreamMessage::Other(Box::new(message))).await
    }
}

/// The end of whatever stood on a session.
pub(crate) fn session_ended() -> Error {
    Error::new(Reason::SessionEnded, "the session has ended")
}

/// Whether a refusal is that of a session that is not there (any more).
pub(crate) fn is_unknown(error: &Error) -> bool {
    matches!(error.reason(), Reason::OwnerMismatch | Reason::ProviderAuthFailed)
}

/// Whether a stream outlives an answer like this.
fn passes(reason: Reason) -> bool {
    matches!(reason, Reason::AuthUnavailable | Reason::StoreUnavailable | Reason::LimitReached)
}
