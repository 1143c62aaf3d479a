//! Messages: what clients say to each other through the session's log.

use std::fmt;

use interlock_kit::error::{Error, Reason};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    data::{Data, Length},
    event::EventKind,
    ids::{ClientId, RequestId, SessionId},
    policy::{Act, ProjectScope},
    request::{Request, RequestKey},
    store::{Stop, Tx, Verb, broken},
};

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// Every reader of the log.
    All,
    /// One client.
    One(ClientId),
    /// Every reader but the sender.
    Others,
}

impl Address {
    /// Whether a reader gets what `from` has sent; none is the owner without a client.
    #[must_use]
    pub fn reaches(&self, from: Option<&ClientId>, reader: Option<&ClientId>) -> bool {
        match self {
            Self::All => true,
            Self::One(client) => reader == Some(client),
            Self::Others => reader != from,
        }
    }
}

/// Appends a message to the session's log. Answers with its place.
#[derive(Clone)]
pub struct Post {
    /// The session.
    pub session: SessionId,
    /// The same id and message get the first answer again.
    pub request: RequestId,
    /// Whom it is for.
    pub to: Address,
    /// Handed on as it is.
    pub data: Data,
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, request, to, data } = self;
        f.debug_struct("Post")
            .field("session", session)
            .field("request", request)
            .field("to", to)
            .field("data", &Length(data.len()))
            .finish()
    }
}

impl Verb for Post {
    type Out = u64;
    const ACTION: &'static str = "session.post";

    fn run(&self, tx: &mut Tx<'_>) -> Result<u64, Stop> {
        self.check(tx)?;
        let found = tx.session(Act::Post, &self.session)?;
        let key = RequestKey::Post(self.session.clone(), self.request.clone());
        let hash = self.hash();
        if let Some(first) = tx.request(&key)? {
            if first.hash != hash {
                let message = "this request id came with another message";
                return Err(Error::new(Reason::RequestIdReused, message).into());
            }
            return first.made.parse().map_err(|_| broken("a first answer without a place"));
        }
        if let Address::One(client) = &self.to
            && !tx.clients(&found)?.iter().any(|other| other.id == *client)
        {
            return Err(Error::new(Reason::NotFound, "the session has no such client").into());
        }
        let sequence = tx.log(&found)?.last + 1;
        let kept_until = tx.now().after(tx.limits().creation_kept);
        let request = Request { key, hash, made: sequence.to_string(), sealed: Vec::new(), kept_until };
        tx.keep_answer(&found.permit, &found.session, request);
        let from = found.client.as_ref().map(|client| client.id.clone());
        let kind = EventKind::Message { from, to: self.to.clone(), data: self.data.clone() };
        tx.append(&found.permit, &found.session, kind);
        let detail = serde_json::json!({ "sequence": sequence, "bytes": self.data.len() }).to_string();
        tx.done(self.session.as_str(), found.scope.as_ref().map(ProjectScope::project), &detail);
        Ok(sequence)
    }
}

impl Post {
    fn check(&self, tx: &Tx<'_>) -> Result<(), Error> {
        let most = tx.limits().message_bytes_max;
        match self.data.len() {
            0 => Err(Error::missing_field("data")),
            length if length <= most => Ok(()),
            _ => Err(Error::invalid_field("data", format!("1 to {most} bytes"))),
        }
    }

    fn hash(&self) -> [u8; 32] {
        let to = match &self.to {
            Address::All => "all",
            Address::One(client) => client.as_str(),
            Address::Others => "others",
        };
        Sha256::new().chain_update(to).chain_update([0]).chain_update(&*self.data).finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_whom_it_is_for() {
        let [a, b] = ["clt_a", "clt_b"].map(|id| ClientId::stored(id.to_owned()));
        let to = |address: Address, reader| address.reaches(Some(&a), reader);
        assert!(to(Address::All, None) && to(Address::All, Some(&a)));
        assert!(to(Address::One(b.clone()), Some(&b)) && !to(Address::One(b.clone()), Some(&a)));
        assert!(!to(Address::One(b.clone()), None));
        assert!(to(Address::Others, Some(&b)) && to(Address::Others, None) && !to(Address::Others, Some(&a)));
        assert!(!Address::Others.reaches(None, None), "the owner is no other than the owner");
    }
}
