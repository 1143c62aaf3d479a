//! Owner sessions as they are looked over and ended: one's own, or as an administrator an owner's and everybody's.

use std::time::SystemTime;

use interlock_proto::auth::v1 as wire;

use crate::{
    auth::{Auth, PAGE, PAGES_MAX, REVOCATION, Reached},
    clock::{from_wire, to_wire},
    error::Error,
    path,
};

/// Whose owner sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignInsOf {
    /// The caller's own.
    Own,
    /// An owner's, by its id.
    Owner(String),
    /// Everybody's; administrators only.
    Everybody,
}

/// Which owner sessions to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndSignIns {
    /// One, by its id.
    One(String),
    /// Those of an owner; with an instant, those that began before it.
    Owner(String, Option<SystemTime>),
    /// Those of everybody; with an instant, those that began before it. Administrators only.
    Everybody(Option<SystemTime>),
}

/// A living owner session, as lists show it: without its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// Its id, `ows_…`.
    pub owner_session_id: String,
    /// Whose.
    pub owner_id: String,
    /// When it began.
    pub created_at: Option<SystemTime>,
    /// When it ends, whatever is refreshed.
    pub expires_at: Option<SystemTime>,
    /// How often it was refreshed.
    pub refreshes: u32,
    /// Until when root is unlocked for it, if it is.
    pub unlocked_until: Option<SystemTime>,
    /// Whether it is the calling one.
    pub current: bool,
}

impl Auth {
    /// Living owner sessions, by owner, the oldest first. All pages, at most 50,000.
    ///
    /// # Errors
    /// `FORBIDDEN` for others' to who is no administrator.
    pub async fn sign_ins(&self, of: SignInsOf) -> Result<Vec<SignIn>, Error> {
        let (owner_id, everybody) = match of {
            SignInsOf::Own => (String::new(), false),
            SignInsOf::Owner(owner_id) => (owner_id, false),
            SignInsOf::Everybody => (String::new(), true),
        };
        let (mut found, mut page_token) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let request = wire::ListOwnerSessionsRequest {
                owner_id: owner_id.clone(),
                everybody,
                page_size: PAGE,
                page_token,
            };
            let page: wire::ListOwnerSessionsResponse =
                self.connection.call(path::LIST_OWNER_SESSIONS, &self.identity, request).await?;
            found.extend(page.sessions.into_iter().map(SignIn::from));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    /// Ends owner sessions: no verifier admits them when this returns. The calling one may be among them. `None` where
    /// the one session had ended before.
    ///
    /// # Errors
    /// `FORBIDDEN` for others' to who is no administrator; `NOT_FOUND` for an owner that there is not.
    pub async fn end_sign_ins(&self, which: EndSignIns) -> Result<Option<Reached>, Error> {
        let mut request = wire::RevokeOwnerSessionsRequest::default();
        match which {
            EndSignIns::One(id) => request.owner_session_id = id,
            EndSignIns::Owner(owner_id, before) => {
                (request.owner_id, request.issued_before) = (owner_id, before.map(to_wire));
            }
            EndSignIns::Everybody(before) => {
                (request.everybody, request.issued_before) = (true, before.map(to_wire));
            }
        }
        let answer =
            self.connection.unary(path::REVOKE_OWNER_SESSIONS, &self.identity, request, REVOCATION).await?;
        let answer: wire::RevokeOwnerSessionsResponse = answer.message;
        Ok(answer.reached.map(Into::into))
    }
}

impl From<wire::OwnerSession> for SignIn {
    fn from(s: wire::OwnerSession) -> Self {
        Self {
            owner_session_id: s.owner_session_id,
            owner_id: s.owner_id,
            created_at: from_wire(s.created_at),
            expires_at: from_wire(s.expires_at),
            refreshes: s.refreshes,
            unlocked_until: from_wire(s.unlocked_until),
            current: s.current,
        }
    }
}
