//! The end of owner sessions, by their owner or by an administrator: of one, of all of an owner, of everybody's.
//!
//! However many end, the revocation log gets one row. That several have ended is one number a owner,
//! `sessions_from`; "began before an instant" is turned into such a number here, for instants of the log never go back
//! and numbers grow with them (DESIGN 14.10). Verifiers are told to ask again of all: access tokens that were issued by
//! a later refresh have larger numbers than their session.

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::audit::Outcome,
};

use super::end;
use crate::{
    ids::{OwnerId, OwnerSessionId},
    owner::Owner,
    policy,
    revocation::Subject,
    store::{Stop, Tx, Verb},
    trust,
};

/// Ends one owner session. Repeating it is no error, but for an owner whose session is forgotten by then: it is
/// nobody's.
#[derive(Clone, Debug)]
pub struct RevokeSession {
    /// Which.
    pub session: OwnerSessionId,
}

impl Verb for RevokeSession {
    /// The row of the revocation log; `None` where it had ended before.
    type Out = Option<u64>;
    const REVOKES: bool = true;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Option<u64>, Stop> {
        tx.concerning(self.session.as_str());
        let found = tx.session_and_owner(&self.session)?;
        let session = found.as_ref().map(|(session, _)| session);
        // A foreign and an unknown one are refused alike.
        let permit = policy::end_session(&tx.call().caller, session, tx.now())?;
        trust::admit_again(tx)?;
        let (Some((session, owner)), Some(permit)) = (found, permit) else { return Ok(None) };
        if session.is_ended(&owner) || session.expires_at.is_over(tx.now()) {
            return Ok(None);
        }
        let revocation = end(tx, &permit, &session)?;
        tx.audit(Outcome::Done, r#"{"session":"ended"}"#);
        Ok(Some(revocation))
    }
}

/// Ends all owner sessions of an owner or of everybody, or those that began before an instant.
#[derive(Clone, Debug)]
pub struct RevokeAll {
    /// Whose; `None`: everybody's.
    pub owner: Option<OwnerId>,
    /// Only those that began before this instant.
    pub issued_before: Option<Timestamp>,
}

impl Verb for RevokeAll {
    /// The row of the revocation log.
    type Out = u64;
    const REVOKES: bool = true;

    fn run(&self, tx: &mut Tx<'_>) -> Result<u64, Stop> {
        tx.concerning(self.owner.as_ref().map_or("everybody", OwnerId::as_str));
        let permit = policy::end_sessions(&tx.call().caller, self.owner.as_ref(), tx.now())?;
        trust::admit_again(tx)?;
        let first_kept = match self.issued_before {
            Some(at) => tx.first_session_since(self.owner.as_ref(), at)?,
            None => None,
        };
        let revocation = match &self.owner {
            Some(owner) => {
                let living = tx.owner(owner)?.filter(|owner| !owner.is_removed());
                let living = living.ok_or_else(|| Error::new(Reason::NotFound, "no such owner"))?;
                let revocation = tx.revoke(Subject::Owner(living.id.clone()))?;
                let from = first_kept.unwrap_or(revocation.issued_before).max(living.sessions_from);
                // The next version: who is about to sign in by a password that was verified before does so again.
                let version = living.version + 1;
                let after = Owner { version, sessions_from: from, changed_at: tx.now(), ..living };
                tx.update_owner(&permit, version - 1, after);
                revocation
            }
            None => {
                let revocation = tx.revoke(Subject::EveryOwnerSession)?;
                tx.end_sessions_before(&permit, first_kept.unwrap_or(revocation.issued_before));
                revocation
            }
        };
        let before = self.issued_before.map(|at| at.to_string());
        let detail = serde_json::json!({ "sessions": "ended", "issued_before": before });
        tx.audit(Outcome::Done, detail.to_string());
        Ok(revocation.sequence)
    }
}
