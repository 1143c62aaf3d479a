//! Sessions: made, listed, closed, gone.
//!
//! A session is open, then closing (it takes no more work and waits for its jobs), then gone: to every
//! caller as if it had never been. What is left of it is taken away by a sweep, in bounded parts.

use interlock_kit::clock::Timestamp;

use crate::{
    binding::Binding,
    caller::CookieHash,
    ids::{ClientId, OwnerId, RequestId, SessionId, SessionName},
};

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Which.
    pub id: SessionId,
    /// Whose.
    pub owner: OwnerId,
    /// Unique among the owner's living sessions.
    pub name: Option<SessionName>,
    /// None until the first attach.
    pub binding: Option<Binding>,
    /// Where it is in its life.
    pub phase: Phase,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was gone.
    pub ended_at: Option<Timestamp>,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Takes work.
    Open,
    /// Takes no attach, join or submit; gone when its jobs have ended.
    Closing,
    /// As if it had never been.
    Gone,
}

/// A session as callers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSeen {
    /// The session.
    pub session: Session,
    /// The number of its newest event.
    pub last_sequence: u64,
    /// How many of its own jobs are in flight.
    pub jobs_in_flight: u32,
}

/// Makes a session with its first client.
#[derive(Clone, Debug)]
pub struct CreateSession {
    /// The new session's id: [`SessionId::new`].
    pub id: SessionId,
    /// Its first client's id: [`ClientId::new`].
    pub client: ClientId,
    /// Of the first client's cookie.
    pub cookie: CookieHash,
    /// The cookie, sealed under a key that a retry of this call can derive; kept for ten minutes.
    pub sealed: Vec<u8>,
    /// Unique among the owner's living sessions.
    pub name: Option<SessionName>,
    /// The same id and contents get the first answer again.
    pub request: RequestId,
    /// Whose it shall be; the caller's where `None`. Another's is refused.
    pub owner: Option<OwnerId>,
}

/// What was made, by this call or by the first one with this request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The session.
    pub seen: SessionSeen,
    /// Its first client.
    pub client: ClientId,
    /// The sealed cookie of the first answer.
    pub sealed: Vec<u8>,
    /// Whether this call made it.
    pub first: bool,
}

/// Reads one session.
#[derive(Clone, Debug)]
pub struct GetSession {
    /// Which.
    pub session: SessionId,
}

/// Lists sessions, newest first.
#[derive(Clone, Debug)]
pub struct ListSessions {
    /// 1 to 500; 0 means 100.
    pub page_size: u32,
    /// From the page before; empty for the first.
    pub page_token: String,
    /// Another owner's; the caller's where `None`.
    pub owner: Option<OwnerId>,
}

/// A page of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPage {
    /// Newest first.
    pub sessions: Vec<SessionSeen>,
    /// Empty on the last page.
    pub next_page_token: String,
}

/// Ends a session.
#[derive(Clone, Debug)]
pub struct CloseSession {
    /// Which.
    pub session: SessionId,
    /// Although its jobs are in flight.
    pub force: bool,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Whether it is gone; if not, it is closing.
    pub gone: bool,
    /// Jobs that it still waits for.
    pub jobs_in_flight: u32,
}
