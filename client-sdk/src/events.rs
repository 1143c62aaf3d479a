//! A session's log as a stream that resumes by itself.
//!
//! Whatever breaks (the connection, the gateway, the credential's life), the stream goes on after the
//! last event that it handed out: none is lost and none comes twice. It ends where going on makes no
//! sense: the credential was revoked, the client evicted, the session ended, the call refused.

use interlock_proto::gateway::v1::{self as wire, stream_events_response::Message};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    call::Opened,
    error::{Error, Reason},
    event::Event,
    gateway::Gateway,
    path,
    renewal::Renewal,
    retry::Patience,
};

/// Items that were received and not yet asked for. Beyond it the stream waits for its reader.
const AHEAD_MAX: usize = 64;

/// Where to start in a session's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFrom {
    /// The whole log.
    Start,
    /// After the event with this sequence number.
    After(u64),
    /// After the stored cursor of the client whose cookie is presented.
    Cursor,
}

/// What a stream of events tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamItem {
    /// The next event.
    Event(Event),
    /// Events that retention has taken.
    Gap {
        /// The first one.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// All that was stored has been told. Said once.
    CaughtUp {
        /// The newest sequence number then.
        sequence: u64,
    },
}

/// A session's log, from a place in it and on. From [`crate::Sessions::stream`].
#[derive(Debug)]
pub struct EventStream {
    gateway: Gateway,
    session_id: String,
    items: mpsc::Receiver<Result<StreamItem, Error>>,
    last: Option<u64>,
    _follower: AbortOnDropHandle<()>,
}

impl EventStream {
    pub(crate) fn open(gateway: Gateway, session_id: String, from: StreamFrom) -> Self {
        let (items, received) = mpsc::channel(AHEAD_MAX);
        let last = match from {
            StreamFrom::Start => Some(0),
            StreamFrom::After(sequence) => Some(sequence),
            StreamFrom::Cursor => None,
        };
        let follower = Follower {
            gateway: gateway.clone(),
            session_id: session_id.clone(),
            last,
            caught_up: false,
            patience: Patience::new(),
            items,
        };
        let follower = AbortOnDropHandle::new(tokio::spawn(follower.run()));
        Self { gateway, session_id, items: received, last, _follower: follower }
    }

    /// The next item; an error is the last one, and `None` comes after it. May be dropped at any time
    /// and called again: nothing is lost.
    pub async fn next(&mut self) -> Option<Result<StreamItem, Error>> {
        let item = self.items.recv().await?;
        match &item {
            Ok(StreamItem::Event(event)) => self.last = Some(event.sequence),
            Ok(StreamItem::Gap { to, .. }) => self.last = Some(*to),
            Ok(StreamItem::CaughtUp { sequence }) => self.last = self.last.max(Some(*sequence)),
            Err(_) => {}
        }
        Some(item)
    }

    /// The sequence number that everything up to has been handed out. `None` before the first item of
    /// a stream from the cursor.
    #[must_use]
    pub fn last_sequence(&self) -> Option<u64> {
        self.last
    }

    /// Stores that the client of the cookie has read up to `sequence`. Answers the stored place.
    ///
    /// # Errors
    /// As [`crate::Sessions::ack`].
    pub async fn ack(&self, sequence: u64) -> Result<u64, Error> {
        self.gateway.sessions().ack(&self.session_id, sequence).await
    }
}

/// What keeps the stream going.
struct Follower {
    gateway: Gateway,
    session_id: String,
    /// Everything up to here is in `items`.
    last: Option<u64>,
    caught_up: bool,
    patience: Patience,
    items: mpsc::Sender<Result<StreamItem, Error>>,
}

/// Why one stream is over.
enum Over {
    /// Nobody reads any more.
    Unread,
    /// It broke, or was ended.
    Broken(Error),
}

impl Follower {
    async fn run(mut self) {
        loop {
            let Over::Broken(error) = self.follow().await else { return };
            let refreshable = self.gateway.identity().credentials.is_refreshable();
            let Some(pause) = self.patience.judge(&error, refreshable) else {
                let _ = self.items.send(Err(error)).await;
                return;
            };
            tracing::debug!(session_id = self.session_id, %error, "event stream broke; it resumes");
            tokio::select! {
                () = sleep(pause) => {}
                () = self.items.closed() => return,
            }
        }
    }

    /// Opens a stream after the last item and follows it to its end.
    async fn follow(&mut self) -> Over {
        let request = wire::StreamEventsRequest {
            session_id: self.session_id.clone(),
            after: self.last.unwrap_or(0),
            from_cursor: self.last.is_none(),
        };
        let gateway = self.gateway.clone();
        let (connection, identity) = (gateway.connection(), gateway.identity());
        let opened = connection.open(path::STREAM_EVENTS, identity, tokio_stream::once(request)).await;
        let mut opened: Opened<wire::StreamEventsResponse> = match opened {
            Ok(opened) => opened,
            Err(error) => return Over::Broken(error),
        };
        let mut renewal = Renewal::of(self.gateway.clone(), String::new(), None);
        let error = loop {
            let message = tokio::select! {
                message = opened.messages.message() => message,
                () = renewal.step() => continue,
                () = self.items.closed() => return Over::Unread,
            };
            let message = match message {
                Ok(Some(message)) => message.message,
                Ok(None) => break Error::transport("the stream ended"),
                Err(status) => break Error::from_status(&status),
            };
            match message {
                Some(Message::Opened(o)) => {
                    let expires_at = crate::clock::from_wire(o.expires_at);
                    renewal = Renewal::of(self.gateway.clone(), o.stream_id, expires_at);
                }
                Some(message) => match self.hand_out(message).await {
                    Ok(()) => self.patience.progressed(),
                    Err(over) => return over,
                },
                None => break Error::protocol("the stream said something that this version does not know"),
            }
        };
        match (error.reason(), &opened.presented) {
            (Some(Reason::TokenExpired), Some(presented)) => {
                let _ = identity.credentials.expired(presented);
            }
            (Some(Reason::Draining), _) if connection.has_choice() => connection.move_on(&opened.line),
            _ => {}
        }
        Over::Broken(error)
    }

    /// Puts one message where the reader finds it, in order, once.
    async fn hand_out(&mut self, message: Message) -> Result<(), Over> {
        let (item, last) = match message {
            Message::Event(event) => {
                let sequence = event.sequence;
                match self.last {
                    Some(last) if sequence <= last => return Ok(()),
                    Some(last) if sequence != last + 1 => {
                        return Err(Over::Broken(Error::protocol(format!("event {sequence} after {last}"))));
                    }
                    _ => (StreamItem::Event(event.into()), sequence),
                }
            }
            Message::Gap(gap) => {
                if self.last.is_some_and(|last| gap.to <= last) {
                    return Ok(());
                }
                (StreamItem::Gap { from: gap.from, to: gap.to }, gap.to)
            }
            Message::CaughtUp(at) => {
                let last = self.last.unwrap_or(0).max(at.sequence);
                if std::mem::replace(&mut self.caught_up, true) {
                    return Ok(());
                }
                (StreamItem::CaughtUp { sequence: at.sequence }, last)
            }
            Message::Opened(_) => return Ok(()),
        };
        if self.items.send(Ok(item)).await.is_err() {
            return Err(Over::Unread);
        }
        self.last = Some(last);
        Ok(())
    }
}
