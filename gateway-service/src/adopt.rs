//! Sessions whose owner is not known to auth, or not any more: administrators reach them, and give them to somebody.

use interlock_kit::error::{Error, Reason};

use crate::{
    binding::busy_session,
    client::{LeaveCause, leave},
    ids::{OwnerId, SessionId},
    password::SessionPassword,
    policy::{Act, ProjectScope},
    session::{Session, SessionSeen},
    store::{Question, Stop, Tx, Verb},
};

/// What auth knows of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerFacts {
    /// There is such an owner.
    pub known: bool,
    /// It may act.
    pub active: bool,
}

/// Gives a session of an unknown owner to another one.
#[derive(Clone, Debug)]
pub struct AdoptSession {
    /// The session.
    pub session: SessionId,
    /// Whose it shall be; the caller's where `None`.
    pub owner: Option<OwnerId>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The session.
    pub seen: SessionSeen,
    /// Clients that were taken out of it.
    pub evicted: u32,
}

impl Verb for AdoptSession {
    type Out = Adopted;
    const ACTION: &'static str = "session.adopt";

    // UA-48
    fn run(&self, tx: &mut Tx<'_>) -> Result<Adopted, Stop> {
        let found = tx.session(Act::Adopt, &self.session)?;
        let to = self.owner.clone().unwrap_or_else(|| found.acting.clone());
        if found.session.owner == to {
            return Ok(Adopted { seen: tx.seen(found.session, 0)?, evicted: 0 });
        }
        if facts(tx, &found.session.owner)?.known {
            return Err(Error::new(Reason::Forbidden, "the session's owner is known: it stays theirs").into());
        }
        if !facts(tx, &to)?.active {
            return Err(Error::invalid_field("owner_id", "an active owner, or empty").into());
        }
        let jobs = tx.session_jobs(&found.session)?;
        if !jobs.is_empty() {
            return Err(busy_session(tx, &found.session, &jobs));
        }
        tx.need_room_for_session(&to)?;
        let name = match &found.session.name {
            Some(name) if !tx.is_name_taken(&to, name)? => Some(name.clone()),
            Some(_) | None => None,
        };
        let clients = tx.clients(&found)?;
        let password = tx.password(&found)?.filter(|password| !password.is_closed());
        let after = Session { owner: to, name, ..found.session.clone() };
        tx.adopt(&found.permit, &found.session, after.clone());
        // Whoever is in it was let in by somebody else.
        for client in &clients {
            leave(tx, &found.permit, &after, client, LeaveCause::OwnerEnded);
        }
        if let Some(before) = password {
            let closed = SessionPassword::closed(&before);
            tx.set_password(&found.permit, Some(before), closed);
        }
        let evicted = u32::try_from(clients.len()).unwrap_or(u32::MAX);
        let detail = serde_json::json!({
            "from": found.session.owner.as_str(), "to": after.owner.as_str(), "evicted": evicted,
        });
        tx.done(self.session.as_str(), found.scope.as_ref().map(ProjectScope::project), &detail.to_string());
        Ok(Adopted { seen: tx.seen(after, evicted.into())?, evicted })
    }
}

/// What auth knows of an owner; a question, where that was not asked.
fn facts(tx: &Tx<'_>, owner: &OwnerId) -> Result<OwnerFacts, Stop> {
    tx.knows_owner(owner).ok_or_else(|| Stop::Unresolved(Question::Owner { owner: owner.clone() }))
}
