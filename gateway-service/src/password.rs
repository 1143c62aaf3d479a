//! The password of a session: what further clients join with, and what they become.
//!
//! Hashing is slow, and stays out of transactions: the shell asks [`MaySetPassword`] or [`ReadForJoin`] first, hashes,
//! and then runs the verb, which decides again.

use std::fmt;

use interlock_kit::error::{Error, Reason};

use crate::{
    client::{ClientRole, LeaveCause, leave},
    event::EventKind,
    ids::{OwnerId, SessionId, SessionName},
    limits,
    policy::{Act, ProjectScope},
    store::{Query, Stop, Tx, Verb, View},
};

/// A session's password as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionPassword {
    /// Of this session.
    pub session: SessionId,
    /// Argon2id in PHC form; empty where nobody joins by it any more.
    pub hash: String,
    /// What joiners become: never hosts.
    pub joiners: ClientRole,
    /// Grows by one with each change.
    pub version: u64,
}

impl SessionPassword {
    /// In the place of `before`: none that anybody has. The version goes on, so that who has verified the one before
    /// joins no more.
    #[must_use]
    pub fn closed(before: &Self) -> Self {
        Self { hash: String::new(), version: before.version + 1, ..before.clone() }
    }

    /// Whether nobody joins by it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.hash.is_empty()
    }
}

impl fmt::Debug for SessionPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, hash: _, joiners, version } = self;
        f.debug_struct("SessionPassword")
            .field("session", session)
            .field("joiners", joiners)
            .field("version", version)
            .finish_non_exhaustive()
    }
}

/// Whether a password may be set.
///
/// # Errors
/// `MISSING_FIELD` where it is empty, `WEAK_PASSWORD` under 8 bytes, `INVALID_FIELD` over 1024.
pub fn check(password: &[u8]) -> Result<(), Error> {
    check_size(password)?;
    if password.len() < limits::PASSWORD_BYTES_MIN {
        return Err(Error::new(Reason::WeakPassword, "a session's password has at least 8 bytes"));
    }
    Ok(())
}

/// Whether a password may be presented.
///
/// # Errors
/// `MISSING_FIELD` where it is empty, `INVALID_FIELD` over 1024 bytes.
pub fn check_size(password: &[u8]) -> Result<(), Error> {
    match password.len() {
        0 => Err(Error::missing_field("password")),
        1..=limits::PASSWORD_BYTES_MAX => Ok(()),
        _ => Err(Error::invalid_field("password", "1 to 1024 bytes")),
    }
}

/// The answer to whoever does not know the password of a session, whether there is one or not.
#[must_use]
pub fn wrong() -> Error {
    crate::policy::WRONG_PASSWORD.into()
}

/// Whether the caller may set the password: asked before it is hashed, so that nobody else costs a hash.
#[derive(Clone, Debug)]
pub struct MaySetPassword {
    /// The session.
    pub session: SessionId,
}

/// Sets the password.
#[derive(Clone)]
pub struct SetSessionPassword {
    /// The session.
    pub session: SessionId,
    /// Argon2id in PHC form.
    pub hash: String,
    /// What joiners become.
    pub joiners: ClientRole,
    /// Take all other clients out of the session.
    pub evict_others: bool,
}

impl fmt::Debug for SetSessionPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetSessionPassword").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Which session someone wants to join.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// By its id.
    Id(SessionId),
    /// By its owner and its name.
    Named(OwnerId, SessionName),
}

/// What a password is verified against. Decides nothing: it is for the hasher, and never for the caller.
#[derive(Clone, Debug)]
pub struct ReadForJoin {
    /// Which session.
    pub target: Target,
}

impl Query for MaySetPassword {
    type Out = ();
    const ACTION: &'static str = SetSessionPassword::ACTION;

    fn run(&self, view: &mut View<'_>) -> Result<(), Stop> {
        Ok(view.session(Act::SetPassword, &self.session)?.session.must_be_open()?)
    }
}

impl Verb for SetSessionPassword {
    /// How many clients were taken out.
    type Out = u32;
    const ACTION: &'static str = "session.set_password";

    // NC-04, NC-06, NC-07, NC-29
    fn run(&self, tx: &mut Tx<'_>) -> Result<u32, Stop> {
        let found = tx.session(Act::SetPassword, &self.session)?;
        found.session.must_be_open()?;
        if self.joiners > ClientRole::Operator {
            return Err(Error::invalid_field("joiners", "OPERATOR or OBSERVER").into());
        }
        let before = tx.password(&found)?;
        let after = SessionPassword {
            session: self.session.clone(),
            hash: self.hash.clone(),
            joiners: self.joiners,
            version: before.as_ref().map_or(0, |before| before.version) + 1,
        };
        tx.set_password(&found.permit, before, after);
        tx.append(&found.permit, &found.session, EventKind::PasswordSet);
        let mut evicted = 0;
        if self.evict_others {
            let own = found.client.as_ref().map(|client| &client.id);
            for client in tx.clients(&found)?.iter().filter(|client| Some(&client.id) != own) {
                leave(tx, &found.permit, &found.session, client, LeaveCause::Evicted);
                evicted += 1;
            }
        }
        let detail = serde_json::json!({ "joiners": self.joiners.text(), "evicted": evicted }).to_string();
        tx.done(self.session.as_str(), found.scope.as_ref().map(ProjectScope::project), &detail);
        Ok(evicted)
    }
}

impl Query for ReadForJoin {
    type Out = Option<SessionPassword>;
    const ACTION: &'static str = "session.join";

    fn run(&self, view: &mut View<'_>) -> Result<Option<SessionPassword>, Stop> {
        view.for_join(&self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // NC-22
    #[test]
    fn a_password_has_8_to_1024_bytes() {
        let refused = |password: &[u8]| check(password).expect_err("refused").reason();
        assert_eq!(refused(b""), Reason::MissingField);
        assert_eq!(refused(b"1234567"), Reason::WeakPassword);
        assert_eq!(refused(&[b'x'; 1025]), Reason::InvalidField);
        check(b"12345678").expect("eight");
        check(&[b'x'; 1024]).expect("the most");
    }

    #[test]
    fn a_stored_hash_is_not_shown() {
        let password = SessionPassword {
            session: SessionId::stored("ses_1".to_owned()),
            hash: "$argon2id$secret".to_owned(),
            joiners: ClientRole::Operator,
            version: 1,
        };
        assert!(!format!("{password:?}").contains("secret"));
    }
}
