//! Replacing a token by another of the same grant.

use std::time::Duration;

use interlock_kit::{
    error::{Error, Reason},
    store::audit::Outcome,
};

use super::{
    Grant, Issued, ProjectToken, again, first_answer,
    issue::{Making, store_new, told},
    permitted,
};
use crate::{
    caller::Caller,
    ids::{CredentialId, ProjectId, RequestId},
    limits,
    policy::Act,
    revocation::Subject,
    store::{Stop, Tx, Verb},
    trust::{self, NewCredential},
};

/// Replaces a token. Its issuer may, and nobody else.
#[derive(Clone, Debug)]
pub struct RotateToken {
    /// Where.
    pub project: ProjectId,
    /// Which one.
    pub token: CredentialId,
    /// How long it stays valid beside its successor; at most [`limits::ROTATION_GRACE`].
    pub grace: Duration,
    /// How long the successor lives; `None`: as long as this one did, from now on.
    pub ttl: Option<Duration>,
    /// The successor.
    pub new: NewCredential,
    /// The caller's id of this request.
    pub request: RequestId,
    /// The answer, sealed by the shell under the presented credential and the request id.
    pub sealed: Vec<u8>,
}

impl Verb for RotateToken {
    type Out = Issued;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Issued, Stop> {
        let mine = |caller: &Caller, token: &ProjectToken| {
            caller.principal().is_some_and(|principal| principal.owner_id == token.issuer)
        };
        let caller = tx.call().caller.clone();
        let act = |member, token: Option<&ProjectToken>| match token {
            Some(token) => Act::RotateToken { member, issuer: mine(&caller, token) },
            None => Act::ListTokens { member },
        };
        let (permit, old) = permitted(tx, &self.project, &self.token, act)?;
        if !limits::ROTATION_GRACE.allows(self.grace) {
            return Err(Error::invalid_field("grace", "0 to 24 h").into());
        }
        let asked = format!("rotate {} {} {:?} {:?}", self.project, self.token, self.grace, self.ttl);
        let (first, replaces) = first_answer(tx, &self.request, &asked)?;
        if let Some(first) = first {
            return Ok(Issued { in_grace: !self.grace.is_zero(), ..again(tx, first)? });
        }
        trust::admit_again(tx)?;
        if old.ended.is_some() || old.replaced || old.is_expired(tx.now()) {
            return Err(Error::new(Reason::Conflict, "this token has ended or was replaced before").into());
        }
        let revocation = tx.revoke(Subject::Credential(old.id.clone()))?.sequence;
        if self.grace.is_zero() {
            tx.end_project_token(&permit, &old, revocation);
        } else {
            let end = tx.now().after(self.grace);
            tx.replace_project_token(&permit, &old, old.expires_at.map_or(end, |own| own.min(end)));
        }
        let grant = self.grant(&old)?;
        let token = store_new(tx, &permit, &old.project, &old.issuer, &grant, &self.new)?;
        let answer = Making { request: &self.request, asked, sealed: &self.sealed, replaces, revocation };
        answer.put(tx, &permit, &token)?;
        tx.audit(Outcome::Done, told(&token));
        let in_grace = !self.grace.is_zero();
        Ok(Issued { sealed: self.sealed.clone(), token, revocation, in_grace, repeated: false })
    }
}

impl RotateToken {
    fn grant(&self, old: &ProjectToken) -> Result<Grant, Error> {
        let ttl = self.ttl.or_else(|| old.expires_at.map(|end| end.since(old.created_at)));
        Grant::new(&old.label, old.scopes.clone(), old.agents.clone(), ttl)
    }
}
