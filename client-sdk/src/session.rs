//! Sessions: what an agent session is bound to, and its log.

use std::time::{Duration, SystemTime};

use interlock_proto::{gateway::v1 as wire, metadata as key};
use tokio::time::Instant;

use crate::{
    clock::from_wire,
    cookie::Cookie,
    error::{Error, Reason},
    event::Binding,
    events::{EventStream, StreamFrom},
    gateway::{Gateway, PAGE, PAGES_MAX, present},
    path, random,
};

/// The longest that the server parks one attach.
const ATTACH_PARK_MAX: Duration = Duration::from_secs(600);

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// `ses_…`.
    pub session_id: String,
    /// Unique among the owner's living sessions; may be empty.
    pub name: String,
    /// Whose it is.
    pub owner_id: String,
    /// What it is bound to; `None` until the first attach.
    pub binding: Option<Binding>,
    /// Whether it takes new work.
    pub state: SessionState,
    /// When it was made.
    pub created_at: Option<SystemTime>,
    /// The sequence number of its newest event.
    pub last_sequence: u64,
    /// How many of its own jobs are in flight.
    pub jobs_in_flight: u32,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Open.
    Open,
    /// Takes no attach, join or submit; gone when its jobs have ended.
    Closing,
    /// A state that this version does not know.
    Unknown,
}

/// A session that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The session.
    pub session: Session,
    /// Its first client.
    pub client_id: String,
    /// That client's credential, shown this once.
    pub cookie: Option<Cookie>,
}

/// A session as an attach left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The session.
    pub session: Session,
    /// Whether the binding changed.
    pub changed: bool,
}

/// How far a close has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Whether the session is gone. If not, it is closing.
    pub gone: bool,
    /// Jobs that it still waits for.
    pub jobs_in_flight: u32,
}

/// Sessions, as one caller sees them. From [`Gateway::sessions`].
#[derive(Clone, Debug)]
pub struct Sessions(Gateway);

impl Sessions {
    pub(crate) fn of(gateway: Gateway) -> Self {
        Self(gateway)
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.0
    }

    /// Makes a session with its first client, the host. `name` may be empty. On no credential
    /// ([`crate::Credentials::none`]) it is the built-in owner `local`'s, where the gateway takes such (`allow_anonymous`).
    ///
    /// # Errors
    /// `NAME_TAKEN`, `INVALID_FIELD`, `LIMIT_REACHED`.
    pub async fn create(&self, name: &str) -> Result<Created, Error> {
        let request = wire::CreateSessionRequest {
            name: name.to_owned(),
            request_id: random::id(),
            owner_id: String::new(),
        };
        let connection = self.0.connection();
        let answer =
            connection.unary(path::CREATE_SESSION, self.0.identity(), request, connection.deadline()).await?;
        let message: wire::CreateSessionResponse = answer.message;
        let cookies = answer.metadata.get_all(key::SET_COOKIE);
        let cookie = cookies.iter().filter_map(|v| v.to_str().ok()).find_map(|v| Cookie::parse(v).ok());
        let session = present(message.session, "session")?.into();
        Ok(Created { session, client_id: message.client_id, cookie })
    }

    /// Reads one session.
    ///
    /// # Errors
    /// `OWNER_MISMATCH` where it is another owner's or does not exist.
    pub async fn get(&self, session_id: &str) -> Result<Session, Error> {
        let request = wire::GetSessionRequest { session_id: session_id.to_owned() };
        let answer: wire::GetSessionResponse = self.0.call(path::READ_SESSION, request).await?;
        Ok(present(answer.session, "session")?.into())
    }

    /// The caller's sessions, newest first. All pages, at most 50,000.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`.
    pub async fn list(&self) -> Result<Vec<Session>, Error> {
        let mut sessions = Vec::new();
        let mut page_token = String::new();
        for _ in 0..PAGES_MAX {
            let request = wire::ListSessionsRequest { page_size: PAGE, page_token, owner_id: String::new() };
            let page: wire::ListSessionsResponse = self.0.call(path::LIST_SESSIONS, request).await?;
            sessions.extend(page.sessions.into_iter().map(Session::from));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(sessions)
    }

    /// Binds a session to an agent and a project. The same again changes nothing. A move to another project evicts the
    /// clients that have joined.
    ///
    /// # Errors
    /// `SESSION_BUSY` ([`Error::busy`] says why), `SESSION_CLOSING`, `FORBIDDEN`, `PROJECT_MISMATCH`.
    pub async fn attach(
        &self,
        session_id: &str,
        agent_id: &str,
        project_id: &str,
    ) -> Result<Attached, Error> {
        let request = wire::AttachSessionRequest {
            session_id: session_id.to_owned(),
            agent_id: agent_id.to_owned(),
            project_id: project_id.to_owned(),
            on_busy: wire::OnBusy::Reject.into(),
            wait: None,
            keep_clients: false,
        };
        let answer: wire::AttachSessionResponse = self.0.call(path::ATTACH_SESSION, request).await?;
        Ok(Attached { session: present(answer.session, "session")?.into(), changed: answer.changed })
    }

    /// The same, and waits in line until it is free, at most so long (in parts of ten minutes). With `cancel` the
    /// caller's own jobs that keep it busy are cancelled first. Meanwhile the owner's submits to both agents are
    /// refused with `ATTACH_PENDING`.
    ///
    /// # Errors
    /// As [`Sessions::attach`]; `SESSION_BUSY` when the time is up.
    pub async fn attach_when_free(
        &self,
        session_id: &str,
        agent_id: &str,
        project_id: &str,
        at_most: Duration,
        cancel: bool,
    ) -> Result<Attached, Error> {
        let until = Instant::now() + at_most;
        loop {
            let wait = until.saturating_duration_since(Instant::now()).min(ATTACH_PARK_MAX);
            let on_busy = if cancel { wire::OnBusy::Cancel } else { wire::OnBusy::Wait };
            let request = wire::AttachSessionRequest {
                session_id: session_id.to_owned(),
                agent_id: agent_id.to_owned(),
                project_id: project_id.to_owned(),
                on_busy: on_busy.into(),
                wait: Some(wait.try_into().map_err(|_| Error::invalid("wait", "0 to 600 s"))?),
                keep_clients: false,
            };
            let answer = self.0.call_parking(path::ATTACH_SESSION, request, wait).await;
            let answer: wire::AttachSessionResponse = match answer {
                Err(error) if error.reason() == Some(Reason::SessionBusy) && Instant::now() < until => {
                    continue;
                }
                answer => answer?,
            };
            let session = present(answer.session, "session")?.into();
            return Ok(Attached { session, changed: answer.changed });
        }
    }

    /// Ends a session. With `force` also while it has jobs in flight: queued ones are cancelled,
    /// running ones asked.
    ///
    /// # Errors
    /// `SESSION_BUSY` without `force`.
    pub async fn close(&self, session_id: &str, force: bool) -> Result<Closed, Error> {
        let request = wire::CloseSessionRequest { session_id: session_id.to_owned(), force };
        let answer: wire::CloseSessionResponse = self.0.call(path::CLOSE_SESSION, request).await?;
        Ok(Closed { gone: answer.gone, jobs_in_flight: answer.jobs_in_flight })
    }

    /// Gives a session whose owner is not known any more to an owner; to the caller where `owner_id` is `None`. Answers
    /// with the session, and how many clients were taken out of it.
    ///
    /// # Errors
    /// `FORBIDDEN` where its owner is known, and for who is no administrator; `ROOT_REQUIRED`; `SESSION_BUSY` while it
    /// has jobs in flight; `INVALID_FIELD` where the new owner is not active; `LIMIT_REACHED`.
    pub async fn adopt(&self, session_id: &str, owner_id: Option<&str>) -> Result<(Session, u32), Error> {
        let owner_id = owner_id.unwrap_or_default().to_owned();
        let request = wire::AdoptSessionRequest { session_id: session_id.to_owned(), owner_id };
        let answer: wire::AdoptSessionResponse = self.0.call(path::ADOPT_SESSION, request).await?;
        Ok((present(answer.session, "session")?.into(), answer.evicted))
    }

    /// Follows a session's log from a place in it. The stream resumes by itself.
    #[must_use]
    pub fn stream(&self, session_id: &str, from: StreamFrom) -> EventStream {
        EventStream::open(self.0.clone(), session_id.to_owned(), from)
    }

    /// Stores how far the client of the cookie has read. Never goes back; answers the stored place.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a client's cookie.
    pub async fn ack(&self, session_id: &str, sequence: u64) -> Result<u64, Error> {
        let request = wire::AckRequest { session_id: session_id.to_owned(), sequence };
        let answer: wire::AckResponse = self.0.call(path::ACK, request).await?;
        Ok(answer.sequence)
    }
}

impl From<wire::Session> for Session {
    fn from(s: wire::Session) -> Self {
        let state = match s.state() {
            wire::SessionState::Open => SessionState::Open,
            wire::SessionState::Closing => SessionState::Closing,
            wire::SessionState::Unspecified => SessionState::Unknown,
        };
        Self {
            session_id: s.session_id,
            name: s.name,
            owner_id: s.owner_id,
            binding: s.binding.map(Into::into),
            state,
            created_at: from_wire(s.created_at),
            last_sequence: s.last_sequence,
            jobs_in_flight: s.jobs_in_flight,
        }
    }
}
