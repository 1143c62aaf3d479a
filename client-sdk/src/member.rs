//! The clients of a session: joining by password, leaving, and what they say to each other.

use std::time::SystemTime;

use bytes::Bytes;
use interlock_proto::{gateway::v1 as wire, metadata as key};

use crate::{
    clock::from_wire,
    cookie::Cookie,
    error::Error,
    gateway::present,
    path, random,
    session::{Session, Sessions},
};

/// What a client of a session may do. Later ones may do all that earlier ones may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientRole {
    /// A role that this version does not know.
    Unknown,
    /// Read, stream, acknowledge, quit.
    Observer,
    /// Also submit, cancel its own jobs, post.
    Operator,
    /// Also attach, close, set the password, evict.
    Host,
}

/// A member of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionClient {
    /// `clt_…`.
    pub client_id: String,
    /// What it may do.
    pub role: ClientRole,
    /// How far it has acknowledged to have read.
    pub cursor: u64,
    /// When it came.
    pub joined_at: Option<SystemTime>,
    /// When it was last seen; some minutes coarse.
    pub seen_at: Option<SystemTime>,
    /// Whether it is the one that asks.
    pub calling: bool,
}

/// Which session to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinTarget<'a> {
    /// By its id.
    Id(&'a str),
    /// By its owner and its name.
    Named {
        /// Whose it is.
        owner_id: &'a str,
        /// Its name.
        name: &'a str,
    },
}

/// A session that was joined, as it was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The session.
    pub session: Session,
    /// The new client.
    pub client_id: String,
    /// What it may do.
    pub role: ClientRole,
    /// All clients, oldest first, the new one included.
    pub clients: Vec<SessionClient>,
    /// The new client's credential, shown this once.
    pub cookie: Cookie,
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostTo<'a> {
    /// Every reader of the session's log.
    All,
    /// One client, by its id.
    Client(&'a str),
    /// Every reader but the sender.
    Others,
}

/// What a quit has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// It was the last client: the session ends.
    pub session_ends: bool,
    /// Jobs that the session still waits for before it is gone.
    pub jobs_in_flight: u32,
}

impl ClientRole {
    /// In lower case, `operator`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Observer => "observer",
            Self::Operator => "operator",
            Self::Host => "host",
        }
    }
}

impl Sessions {
    /// Sets the password (8 to 1024 bytes) that further clients join with, and what they become: operators or
    /// observers. Again is a change; the other clients stay unless `evict_others`. Answers how many were taken out.
    ///
    /// # Errors
    /// `WEAK_PASSWORD`, `MISSING_FIELD`, `INVALID_FIELD`, `SESSION_CLOSING`; `FORBIDDEN` for clients other than hosts.
    pub async fn set_password(
        &self,
        session_id: &str,
        password: &str,
        joiners: ClientRole,
        evict_others: bool,
    ) -> Result<u32, Error> {
        let joiners = match joiners {
            ClientRole::Unknown => wire::ClientRole::Unspecified,
            ClientRole::Observer => wire::ClientRole::Observer,
            ClientRole::Operator => wire::ClientRole::Operator,
            ClientRole::Host => wire::ClientRole::Host,
        };
        let request = wire::SetSessionPasswordRequest {
            session_id: session_id.to_owned(),
            password: password.to_owned(),
            joiners: joiners.into(),
            evict_others,
        };
        let answer: wire::SetSessionPasswordResponse =
            self.gateway().call(path::SET_SESSION_PASSWORD, request).await?;
        Ok(answer.evicted)
    }

    /// Makes a further client of a session, by its password. Needs no credential. Makes a request id, so that a
    /// repetition after a lost answer makes one client, and gets its cookie.
    ///
    /// # Errors
    /// `INVALID_CREDENTIALS` whatever is wrong; `RATE_LIMITED`, `SESSION_CLOSING`, `LIMIT_REACHED`.
    pub async fn join(&self, target: JoinTarget<'_>, password: &str) -> Result<Joined, Error> {
        let mut request = wire::JoinSessionRequest {
            password: password.to_owned(),
            request_id: random::id(),
            ..wire::JoinSessionRequest::default()
        };
        match target {
            JoinTarget::Id(id) => request.session_id = id.to_owned(),
            JoinTarget::Named { owner_id, name } => {
                (request.owner_id, request.name) = (owner_id.to_owned(), name.to_owned());
            }
        }
        let connection = self.gateway().connection();
        let (who, within) = (self.gateway().identity(), connection.deadline());
        let answer = connection.unary(path::JOIN_SESSION, who, request, within).await?;
        let message: wire::JoinSessionResponse = answer.message;
        let cookies = answer.metadata.get_all(key::SET_COOKIE);
        let cookie = cookies.iter().filter_map(|v| v.to_str().ok()).find_map(|v| Cookie::parse(v).ok());
        let role = message.role().into();
        Ok(Joined {
            session: present(message.session, "session")?.into(),
            client_id: message.client_id,
            role,
            clients: message.clients.into_iter().map(SessionClient::from).collect(),
            cookie: present(cookie, "cookie")?,
        })
    }

    /// All clients of a session, oldest first.
    ///
    /// # Errors
    /// `OWNER_MISMATCH` where the session is another owner's or does not exist.
    pub async fn clients(&self, session_id: &str) -> Result<Vec<SessionClient>, Error> {
        let request = wire::ListClientsRequest { session_id: session_id.to_owned() };
        let answer: wire::ListClientsResponse = self.gateway().call(path::LIST_CLIENTS, request).await?;
        Ok(answer.clients.into_iter().map(SessionClient::from).collect())
    }

    /// Takes a client out of its session. Answers whether it was there.
    ///
    /// # Errors
    /// `FORBIDDEN` for clients other than hosts.
    pub async fn evict(&self, session_id: &str, client_id: &str) -> Result<bool, Error> {
        let (session_id, client_id) = (session_id.to_owned(), client_id.to_owned());
        let request = wire::EvictClientRequest { session_id, client_id };
        let answer: wire::EvictClientResponse = self.gateway().call(path::EVICT_CLIENT, request).await?;
        Ok(answer.evicted)
    }

    /// Leaves a session, as the client of the cookie. The last one's quit ends the session.
    ///
    /// # Errors
    /// `PROVIDER_AUTH_FAILED` where the client has left before, which a repetition after a lost answer finds too.
    pub async fn quit(&self, session_id: &str) -> Result<Left, Error> {
        let request = wire::QuitRequest { session_id: session_id.to_owned() };
        let answer: wire::QuitResponse = self.gateway().call(path::QUIT, request).await?;
        Ok(Left { session_ends: answer.session_ends, jobs_in_flight: answer.jobs_in_flight })
    }

    /// Says something (1 byte to 16 KiB) in a session. Answers with its place in the log.
    ///
    /// # Errors
    /// `NOT_FOUND` where there is no such client; `FORBIDDEN` for observers.
    pub async fn post(&self, session_id: &str, to: PostTo<'_>, data: impl Into<Bytes>) -> Result<u64, Error> {
        let request = wire::PostMessageRequest {
            session_id: session_id.to_owned(),
            request_id: random::id(),
            data: data.into(),
            to_client_id: if let PostTo::Client(client) = to { client.to_owned() } else { String::new() },
            to_others: to == PostTo::Others,
        };
        let answer: wire::PostMessageResponse = self.gateway().call(path::POST_MESSAGE, request).await?;
        Ok(answer.sequence)
    }
}

impl From<wire::ClientRole> for ClientRole {
    fn from(role: wire::ClientRole) -> Self {
        match role {
            wire::ClientRole::Unspecified => Self::Unknown,
            wire::ClientRole::Observer => Self::Observer,
            wire::ClientRole::Operator => Self::Operator,
            wire::ClientRole::Host => Self::Host,
        }
    }
}

impl From<wire::Client> for SessionClient {
    fn from(c: wire::Client) -> Self {
        let role = c.role().into();
        Self {
            client_id: c.client_id,
            role,
            cursor: c.cursor,
            joined_at: from_wire(c.joined_at),
            seen_at: from_wire(c.seen_at),
            calling: c.calling,
        }
    }
}
