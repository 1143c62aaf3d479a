//! Clients: the members of a session, each with a credential and a cursor of its own.
//!
//! The first one comes with the session, others join ([`crate::join`]). A client quits, is evicted, or is not seen for
//! too long; the last one that quits or is not seen takes the session with it. An eviction never does: the owner may
//! have no client of its own.

use interlock_kit::clock::Timestamp;

use interlock_kit::error::Error;
use serde::{Deserialize, Serialize};

use crate::{
    caller::CookieHash,
    event::EventKind,
    ids::{ClientId, SessionId},
    limits::Limits,
    policy::{Act, Permit, ProjectScope},
    session::{self, Session, wind_up},
    store::{Found, Query, Stop, Tx, Verb, View, broken},
};

/// A member of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Which.
    pub id: ClientId,
    /// Of this session.
    pub session: SessionId,
    /// What it may do.
    pub role: ClientRole,
    /// Of its credential.
    pub hash: CookieHash,
    /// The last event it has acknowledged.
    pub cursor: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last called, or was seen on an open stream: at most [`Limits::seen_step`] too early.
    pub seen_at: Timestamp,
}

impl Client {
    /// Whether it was not seen for so long that its credential is good no longer.
    #[must_use]
    pub fn is_idle(&self, now: Timestamp, limits: &Limits) -> bool {
        self.seen_at.after(limits.client_idle_max).is_over(now)
    }
}

/// What a client may do (DESIGN 14.4). Later ones may do all that earlier ones may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientRole {
    /// Get, stream, acknowledge, quit.
    Observer,
    /// Also submit, cancel, post.
    Operator,
    /// Also attach, close, set the password, evict.
    Host,
}

impl ClientRole {
    /// For audit rows.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Observer => "observer",
            Self::Operator => "operator",
            Self::Host => "host",
        }
    }
}

/// Why a client is no longer of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveCause {
    /// It quit.
    Quit,
    /// It was taken out.
    Evicted,
    /// It was not seen for too long.
    Idle,
    /// The owner of the session, or the owner's membership in its project, has ended.
    OwnerEnded,
}

/// Lists a session's clients, oldest first.
#[derive(Clone, Debug)]
pub struct ListClients {
    /// The session.
    pub session: SessionId,
}

/// A session's clients, as one caller sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// Oldest first.
    pub clients: Vec<Client>,
    /// The one that asks.
    pub calling: Option<ClientId>,
}

/// Takes a client out of the session. Answers whether it was there.
#[derive(Clone, Debug)]
pub struct Evict {
    /// The session.
    pub session: SessionId,
    /// Whom.
    pub client: ClientId,
}

/// The calling client leaves the session.
#[derive(Clone, Debug)]
pub struct Quit {
    /// The session.
    pub session: SessionId,
}

/// What a quit has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// It was the last client.
    pub session_ends: bool,
    /// Jobs that the session still waits for.
    pub jobs_in_flight: u32,
}

/// Notes that the client whose cookie came along was seen. Answers whether that was worth a write.
#[derive(Clone, Debug)]
pub struct Seen;

/// Stores how far the calling client has read. Answers with the cursor as stored.
#[derive(Clone, Debug)]
pub struct Ack {
    /// The session.
    pub session: SessionId,
    /// All events up to and with this one. Never goes back.
    pub sequence: u64,
}

/// The stored cursor of the calling client.
#[derive(Clone, Debug)]
pub struct CursorOf {
    /// The session.
    pub session: SessionId,
}

impl Verb for Ack {
    type Out = u64;
    const ACTION: &'static str = "session.ack";

    fn run(&self, tx: &mut Tx<'_>) -> Result<u64, Stop> {
        let found = tx.session(Act::Ack, &self.session)?;
        let client = calling(&found)?;
        if self.sequence > tx.log(&found)?.last {
            return Err(Error::invalid_field("sequence", "at most the newest event's").into());
        }
        if self.sequence <= client.cursor {
            return Ok(client.cursor);
        }
        tx.set_cursor(&found.permit, client, self.sequence);
        let detail =
            serde_json::json!({ "client": client.id.as_str(), "sequence": self.sequence }).to_string();
        tx.done(self.session.as_str(), found.scope.as_ref().map(ProjectScope::project), &detail);
        Ok(self.sequence)
    }
}

impl Query for CursorOf {
    type Out = u64;
    const ACTION: &'static str = "session.stream";

    fn is_keyed(&self) -> bool {
        true
    }

    fn run(&self, view: &mut View<'_>) -> Result<u64, Stop> {
        let found = view.session(Act::Ack, &self.session)?;
        Ok(calling(&found)?.cursor)
    }
}

impl Query for ListClients {
    type Out = Clients;
    const ACTION: &'static str = "session.list_clients";

    fn run(&self, view: &mut View<'_>) -> Result<Clients, Stop> {
        let found = view.session(Act::ListClients, &self.session)?;
        let calling = found.client.as_ref().map(|client| client.id.clone());
        Ok(Clients { clients: view.clients(&found)?, calling })
    }
}

impl Verb for Evict {
    type Out = bool;
    const ACTION: &'static str = "session.evict_client";

    fn run(&self, tx: &mut Tx<'_>) -> Result<bool, Stop> {
        let found = tx.session(Act::Evict, &self.session)?;
        let clients = tx.clients(&found)?;
        let Some(client) = clients.iter().find(|client| client.id == self.client) else { return Ok(false) };
        leave(tx, &found.permit, &found.session, client, LeaveCause::Evicted);
        let scope = found.scope.as_ref().map(ProjectScope::project);
        tx.done(client.id.as_str(), scope, &session::facts(&self.session, "evicted"));
        Ok(true)
    }
}

impl Verb for Quit {
    type Out = Left;
    const ACTION: &'static str = "session.quit";

    // NC-15, NC-16, NC-17
    fn run(&self, tx: &mut Tx<'_>) -> Result<Left, Stop> {
        let found = tx.session(Act::Quit, &self.session)?;
        let client = calling(&found)?;
        let last = tx.clients(&found)?.iter().all(|other| other.id == client.id);
        leave(tx, &found.permit, &found.session, client, LeaveCause::Quit);
        let scope = found.scope.as_ref().map(ProjectScope::project);
        tx.done(client.id.as_str(), scope, &session::facts(&self.session, "quit"));
        let jobs_in_flight = if last { wind_up(tx, &found.permit, &found.session)? } else { 0 };
        Ok(Left { session_ends: last, jobs_in_flight })
    }
}

impl Verb for Seen {
    type Out = bool;
    const ACTION: &'static str = "session.seen";

    fn run(&self, tx: &mut Tx<'_>) -> Result<bool, Stop> {
        let Some((client, permit)) = tx.present()? else { return Ok(false) };
        if !client.seen_at.after(tx.limits().seen_step()).is_over(tx.now()) {
            return Ok(false);
        }
        tx.set_seen(&permit, &client);
        Ok(true)
    }
}

/// A client is no longer of its session, from here on.
pub(crate) fn leave(tx: &mut Tx<'_>, permit: &Permit, session: &Session, client: &Client, cause: LeaveCause) {
    tx.drop_client(permit, client);
    tx.append(permit, session, EventKind::ClientLeft { client: client.id.clone(), cause });
}

fn calling(found: &Found) -> Result<&Client, Stop> {
    found.client.as_ref().ok_or_else(|| broken("an acknowledgement was permitted to nobody"))
}
