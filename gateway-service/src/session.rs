//! Sessions: made, listed, closed, gone.
//!
//! A session is open, then closing (it takes no more work and waits for its jobs), then gone: to every
//! caller as if it had never been. What is left of it is taken away by a sweep, in bounded parts.

use interlock_kit::clock::Timestamp;

use interlock_kit::error::{Error, Reason};
use sha2::{Digest as _, Sha256};

use crate::{
    binding::{self, Binding},
    caller::CookieHash,
    client::{Client, ClientRole},
    event::EventKind,
    ids::{ClientId, OwnerId, RequestId, SessionId, SessionName},
    job,
    page::Page,
    policy::{Act, Permit},
    request::{PayloadHash, Request, RequestKey},
    store::{Query, Stop, Tx, Verb, View, broken},
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

impl Session {
    /// Refuses where it takes no more work.
    ///
    /// # Errors
    /// `SESSION_CLOSING`.
    pub fn must_be_open(&self) -> Result<(), Error> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Closing | Phase::Gone => Err(Error::new(Reason::SessionClosing, "the session is ending")),
        }
    }
}

impl Verb for CreateSession {
    type Out = Created;
    const ACTION: &'static str = "session.create";

    fn run(&self, tx: &mut Tx<'_>) -> Result<Created, Stop> {
        let own = tx.caller().owner();
        let owner = self
            .owner
            .clone()
            .or(own)
            .ok_or_else(|| Error::new(Reason::Forbidden, "a client cannot make sessions"))?;
        let permit = tx.may_create(&self.id, &owner)?;
        let key = RequestKey::Create(owner.clone(), self.request.clone());
        if let Some(first) = tx.request(&key)? {
            return self.again(tx, &owner, first);
        }
        if let Some(name) = &self.name
            && tx.is_name_taken(&owner, name)?
        {
            return Err(Error::new(Reason::NameTaken, "a living session of this owner has this name").into());
        }
        tx.need_room_for_session(&owner)?;
        let now = tx.now();
        let session = Session {
            id: self.id.clone(),
            owner,
            name: self.name.clone(),
            binding: None,
            phase: Phase::Open,
            created_at: now,
            ended_at: None,
        };
        let client = Client {
            id: self.client.clone(),
            session: self.id.clone(),
            role: ClientRole::Host,
            hash: self.cookie,
            cursor: 0,
            created_at: now,
            seen_at: now,
        };
        let request = Request {
            key,
            hash: self.asked(),
            made: format!("{} {}", self.id, self.client),
            sealed: self.sealed.clone(),
            kept_until: now.after(tx.limits().creation_kept),
        };
        tx.add_session(&permit, session.clone(), client, request);
        tx.append(&permit, &session, EventKind::Created { client: self.client.clone() });
        tx.done(self.id.as_str(), None, "");
        let seen = SessionSeen { session, last_sequence: 1, jobs_in_flight: 0 };
        Ok(Created { seen, client: self.client.clone(), sealed: self.sealed.clone(), first: true })
    }
}

impl CreateSession {
    /// The first answer once more.
    fn again(&self, tx: &mut Tx<'_>, owner: &OwnerId, first: Request) -> Result<Created, Stop> {
        if first.hash != self.asked() {
            return Err(
                Error::new(Reason::RequestIdReused, "this request id asked for another session").into()
            );
        }
        let (session, client) =
            first.made.split_once(' ').ok_or_else(|| broken("a first answer without a client"))?;
        let session = tx.made_session(owner, &SessionId::stored(session.to_owned()))?;
        let seen = tx.seen(session, 0)?;
        Ok(Created { seen, client: ClientId::stored(client.to_owned()), sealed: first.sealed, first: false })
    }

    fn asked(&self) -> PayloadHash {
        let name = self.name.as_ref().map_or("", SessionName::as_str);
        Sha256::digest(name.as_bytes()).into()
    }
}

impl Query for GetSession {
    type Out = SessionSeen;
    const ACTION: &'static str = "session.get";

    fn is_keyed(&self) -> bool {
        true
    }

    fn run(&self, view: &mut View<'_>) -> Result<SessionSeen, Stop> {
        let found = view.session(Act::Get, &self.session)?;
        view.seen(found.session, 0)
    }
}

impl Query for ListSessions {
    type Out = SessionPage;
    const ACTION: &'static str = "session.list";

    fn run(&self, view: &mut View<'_>) -> Result<SessionPage, Stop> {
        let page = Page::read(self.page_size, &self.page_token, SessionId::parse, view.limits())?;
        let (sessions, shown) = view.sessions(self.owner.as_ref(), page.from.as_ref(), page.limit + 1)?;
        let next_page_token = page.next(&sessions, |session| session.id.as_str());
        let shown = sessions.into_iter().zip(shown).take(page.limit).filter(|(_, shown)| *shown);
        let sessions = shown.map(|(session, _)| view.seen(session, 0)).collect::<Result<_, _>>()?;
        Ok(SessionPage { sessions, next_page_token })
    }
}

impl Verb for CloseSession {
    type Out = Closed;
    const ACTION: &'static str = "session.close";

    fn run(&self, tx: &mut Tx<'_>) -> Result<Closed, Stop> {
        let found = tx.session(Act::Close, &self.session)?;
        if found.session.phase == Phase::Gone {
            return Ok(Closed { gone: true, jobs_in_flight: 0 });
        }
        let jobs = tx.session_jobs(&found.session)?;
        if !jobs.is_empty() && !self.force && found.session.phase == Phase::Open {
            return Err(binding::busy_session(tx, &found.session, &jobs));
        }
        let running = wind_up(tx, &found.permit, &found.session)?;
        Ok(Closed { gone: running == 0, jobs_in_flight: running })
    }
}

/// A session takes no more work: what is queued is cancelled, what runs is asked, and the session is gone at once
/// where nothing runs. Answers how many jobs it still waits for.
///
/// # Errors
/// [`Stop`] of the look-ups.
pub(crate) fn wind_up(tx: &mut Tx<'_>, permit: &Permit, session: &Session) -> Result<u32, Stop> {
    let jobs = tx.session_jobs(session)?;
    let running = job::end_all(tx, permit, &jobs, "the session was closed");
    if running > 0 && session.phase == Phase::Closing {
        return Ok(running);
    }
    if session.phase == Phase::Open {
        tx.append(permit, session, EventKind::Closing);
    }
    end(tx, permit, session, if running == 0 { Phase::Gone } else { Phase::Closing });
    Ok(running)
}

/// A session is closing or gone from here on, with its audit row.
pub(crate) fn end(tx: &mut Tx<'_>, permit: &Permit, session: &Session, phase: Phase) {
    let scope = session.binding.as_ref().map(|binding| &binding.project);
    tx.set_phase(permit, session, phase);
    let what = if phase == Phase::Gone { "gone" } else { "closing" };
    tx.done(session.id.as_str(), scope, &facts(&session.id, what));
}

/// What audit rows say of what belongs to a session: which one, so that they are found by it; and what was done, in words
/// of ours, where the action does not tell.
pub(crate) fn facts(session: &SessionId, what: &str) -> String {
    match what {
        "" => format!(r#"{{"{FACT}":"{session}"}}"#),
        what => format!(r#"{{"{FACT}":"{session}","what":"{what}"}}"#),
    }
}

/// What audit rows call it there.
pub(crate) const FACT: &str = "session";
