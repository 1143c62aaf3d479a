//! Clients: the members of a session, each with a credential and a cursor of its own.

use interlock_kit::clock::Timestamp;

use interlock_kit::error::Error;

use crate::{
    caller::CookieHash,
    ids::{ClientId, SessionId},
    policy::{Act, ProjectScope},
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

    fn run(&self, view: &mut View<'_>) -> Result<u64, Stop> {
        let found = view.session(Act::Ack, &self.session)?;
        Ok(calling(&found)?.cursor)
    }
}

fn calling(found: &Found) -> Result<&Client, Stop> {
    found.client.as_ref().ok_or_else(|| broken("an acknowledgement was permitted to nobody"))
}
