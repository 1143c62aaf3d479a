//! Joining: a further client of a session, by the session's password.

use std::fmt;

use interlock_kit::error::{Error, Reason};
use sha2::{Digest as _, Sha256};

use crate::{
    caller::CookieHash,
    client::{Client, ClientRole},
    event::EventKind,
    ids::{ClientId, RequestId, SessionId},
    request::{Request, RequestKey},
    session::{Session, SessionSeen},
    store::{Stop, Tx, Verb},
};

/// Makes a further client. The password was verified outside, against the version that is named; that it has not
/// changed since is checked here.
#[derive(Clone)]
pub struct Join {
    /// The session.
    pub session: SessionId,
    /// Of the password that was verified.
    pub version: u64,
    /// The new client's id: [`ClientId::new`].
    pub client: ClientId,
    /// Of its cookie.
    pub cookie: CookieHash,
    /// The cookie, sealed under a key that only who knows the password can derive; kept for ten minutes.
    pub sealed: Vec<u8>,
    /// The same id gets the first answer again.
    pub request: RequestId,
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join")
            .field("session", &self.session)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// A client that joined, by this call or by the first one with this request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The session as it is now.
    pub seen: SessionSeen,
    /// The client.
    pub client: Client,
    /// All of the session, oldest first.
    pub clients: Vec<Client>,
    /// The sealed cookie of the first answer.
    pub sealed: Vec<u8>,
}

impl Verb for Join {
    type Out = Joined;
    const ACTION: &'static str = "session.join";

    // NC-05, NC-09, NC-10, NC-28
    fn run(&self, tx: &mut Tx<'_>) -> Result<Joined, Stop> {
        let (session, joiners, permit) = tx.may_join(&self.session, self.version)?;
        session.must_be_open()?;
        let mut clients = tx.clients_of(&permit, &session.id)?;
        let key = RequestKey::Join(session.id.clone(), self.request.clone());
        if let Some(first) = tx.request(&key)? {
            return again(tx, session, clients, first);
        }
        if clients.len() >= tx.limits().clients_max {
            return Err(Error::new(Reason::LimitReached, "the session has as many clients as it may").into());
        }
        let client = self.new_client(tx, joiners);
        let request = Request {
            key,
            hash: Sha256::digest(b"").into(),
            made: client.id.to_string(),
            sealed: self.sealed.clone(),
            kept_until: tx.now().after(tx.limits().creation_kept),
        };
        tx.add_client(&permit, client.clone(), request);
        tx.append(&permit, &session, EventKind::ClientJoined { client: client.id.clone() });
        let detail =
            serde_json::json!({ "client": client.id.as_str(), "role": client.role.text() }).to_string();
        let scope = session.binding.as_ref().map(|binding| binding.project.clone());
        tx.done(session.id.as_str(), scope.as_ref(), &detail);
        clients.push(client.clone());
        Ok(Joined { seen: tx.seen(session, 1)?, client, clients, sealed: self.sealed.clone() })
    }
}

impl Join {
    fn new_client(&self, tx: &Tx<'_>, role: ClientRole) -> Client {
        Client {
            id: self.client.clone(),
            session: self.session.clone(),
            role,
            hash: self.cookie,
            cursor: 0,
            created_at: tx.now(),
            seen_at: tx.now(),
        }
    }
}

/// The first answer once more, while that client is of the session.
fn again(tx: &mut Tx<'_>, session: Session, clients: Vec<Client>, first: Request) -> Result<Joined, Stop> {
    let client = clients.iter().find(|client| client.id.as_str() == first.made).cloned();
    let client = client.ok_or_else(|| {
        Error::new(Reason::RequestIdReused, "the client of this request id is no longer of the session")
    })?;
    Ok(Joined { seen: tx.seen(session, 0)?, client, clients, sealed: first.sealed })
}
