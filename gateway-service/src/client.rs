//! Clients: the members of a session, each with a credential and a cursor of its own.

use interlock_kit::clock::Timestamp;

use crate::{
    caller::CookieHash,
    ids::{ClientId, SessionId},
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
