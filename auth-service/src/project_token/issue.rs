//! Issuing a token.

use interlock_kit::{
    error::{Error, Reason},
    store::audit::Outcome,
};

use super::{Grant, ProjectToken, TokenAnswer, again, first_answer, no_project};
use crate::{
    ids::{OwnerId, ProjectId, RequestId},
    limits, policy,
    policy::{Act, ProjectPermit},
    store::{Stop, Tx, Verb},
    trust::{self, NewCredential},
};

/// Issues a project token to the caller, who it acts for. Members and administrators may.
#[derive(Clone, Debug)]
pub struct IssueToken {
    /// Where.
    pub project: ProjectId,
    /// What for.
    pub grant: Grant,
    /// The credential.
    pub new: NewCredential,
    /// The caller's id of this request.
    pub request: RequestId,
    /// The answer, sealed by the shell under the presented credential and the request id.
    pub sealed: Vec<u8>,
}

/// A token that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The answer that counts: the given one, or that of the first request with this id. Open it with
    /// the presented credential and the request id.
    pub sealed: Vec<u8>,
    /// The token, as it is stored.
    pub token: ProjectToken,
    /// The row of the revocation log for the token it replaced: the barrier to wait for. 0: none.
    pub revocation: u64,
    /// The one it replaced goes on for a while: the answer says nothing of what was reached.
    pub in_grace: bool,
    /// The same request came before; the given credential was not stored.
    pub repeated: bool,
}

impl Verb for IssueToken {
    type Out = Issued;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Issued, Stop> {
        tx.concerning(self.new.id.as_str());
        tx.within(self.project.as_str());
        let (member, exists) = tx.own_membership(&self.project)?;
        let permit = tx.authorize_project(Act::IssueToken { member }, &self.project)?;
        if !exists {
            return Err(no_project());
        }
        let asked = format!("issue {} {:?}", self.project, self.grant);
        let (first, replaces) = first_answer(tx, &self.request, &asked)?;
        if let Some(first) = first {
            return again(tx, first);
        }
        trust::admit_again(tx)?;
        let issuer = tx.call().caller.principal().ok_or_else(policy::login_required)?.owner_id.clone();
        let token = store_new(tx, &permit, &self.project, &issuer, &self.grant, &self.new)?;
        let answer = Making { request: &self.request, asked, sealed: &self.sealed, replaces, revocation: 0 };
        answer.put(tx, &permit, &token)?;
        tx.audit(Outcome::Done, told(&token));
        Ok(Issued { sealed: self.sealed.clone(), token, revocation: 0, in_grace: false, repeated: false })
    }
}

/// Stores a token for this issuer.
///
/// # Errors
/// `LIMIT_REACHED` where the issuer has too many.
pub(super) fn store_new(
    tx: &mut Tx<'_>,
    permit: &ProjectPermit,
    project: &ProjectId,
    issuer: &OwnerId,
    grant: &Grant,
    new: &NewCredential,
) -> Result<ProjectToken, Stop> {
    if tx.tokens_issued_by(issuer)? >= limits::PROJECT_TOKENS_MAX {
        return Err(Error::new(Reason::LimitReached, "this owner has issued too many tokens").into());
    }
    let member = tx.is_member(project, issuer)?;
    let version = tx.owner(issuer)?.map_or(0, |owner| owner.version);
    let now = tx.now();
    let token = ProjectToken {
        hash: new.hash,
        id: new.id.clone(),
        project: project.clone(),
        issuer: issuer.clone(),
        label: grant.label.clone(),
        scopes: grant.scopes.clone(),
        agents: grant.agents.clone(),
        by_role: (!member).then_some(version),
        issuance: tx.issue()?,
        masked: new.masked.clone(),
        created_at: now,
        expires_at: grant.ttl.map(|ttl| now.after(ttl)),
        replaced: false,
        ended: None,
    };
    tx.insert_project_token(permit, token.clone());
    Ok(token)
}

/// What of a request is remembered for its repetition.
pub(super) struct Making<'a> {
    pub(super) request: &'a RequestId,
    pub(super) asked: String,
    pub(super) sealed: &'a [u8],
    pub(super) replaces: bool,
    pub(super) revocation: u64,
}

impl Making<'_> {
    pub(super) fn put(
        self,
        tx: &mut Tx<'_>,
        permit: &ProjectPermit,
        token: &ProjectToken,
    ) -> Result<(), Stop> {
        let caller = tx.call().caller.principal().ok_or_else(policy::login_required)?;
        let answer = TokenAnswer {
            owner: caller.owner_id.clone(),
            request: self.request.clone(),
            credential: caller.credential_id.clone(),
            asked: self.asked,
            sealed: self.sealed.to_vec(),
            token: token.id.clone(),
            revocation: self.revocation,
            ends_at: tx.now().after(limits::SEALED_ANSWER_TTL),
        };
        tx.put_token_answer(permit, self.replaces, answer);
        Ok(())
    }
}

/// The facts of an audit row.
pub(super) fn told(token: &ProjectToken) -> String {
    serde_json::json!({
        "scopes": token.scopes, "agents": token.agents,
        "expires_at": token.expires_at.map(|at| at.to_string()),
    })
    .to_string()
}
