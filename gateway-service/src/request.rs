//! First answers, kept so that a retry gets them again instead of a second effect.

use interlock_kit::clock::Timestamp;

use crate::ids::{OwnerId, RequestId, SessionId};

/// Which call: request ids are the caller's, within one owner's creations, or one session's submits, joinings or messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestKey {
    /// A creation of this owner.
    Create(OwnerId, RequestId),
    /// A submit to this session.
    Submit(SessionId, RequestId),
    /// A joining of this session.
    Join(SessionId, RequestId),
    /// A message to this session.
    Post(SessionId, RequestId),
}

/// The SHA-256 of what a call asked for.
pub type PayloadHash = [u8; 32];

/// The first answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which call.
    pub key: RequestKey,
    /// What it asked for.
    pub hash: PayloadHash,
    /// The id of what it made.
    pub made: String,
    /// A secret answer, sealed by the shell; empty where there is none.
    pub sealed: Vec<u8>,
    /// Until when it is kept.
    pub kept_until: Timestamp,
}
