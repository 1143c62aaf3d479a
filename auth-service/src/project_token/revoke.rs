//! Revoking a token.

use interlock_kit::store::audit::Outcome;

use super::permitted;
use crate::{
    ids::{CredentialId, ProjectId},
    policy::Act,
    revocation::Subject,
    store::{Stop, Tx, Verb},
};

/// Ends a token. Members of its project and administrators may. Repeating it is no error.
#[derive(Clone, Debug)]
pub struct RevokeToken {
    /// Where.
    pub project: ProjectId,
    /// Which one.
    pub token: CredentialId,
}

impl Verb for RevokeToken {
    /// Its row in the revocation log: the barrier to wait for.
    type Out = u64;
    const REVOKES: bool = true;

    fn run(&self, tx: &mut Tx<'_>) -> Result<u64, Stop> {
        let act = |member, _: Option<&_>| Act::RevokeToken { member };
        let (permit, token) = permitted(tx, &self.project, &self.token, act)?;
        if let Some(ended) = token.ended {
            return Ok(ended.revocation);
        }
        let revocation = tx.revoke(Subject::Credential(token.id.clone()))?;
        tx.end_project_token(&permit, &token, revocation.sequence);
        tx.audit(Outcome::Done, "");
        Ok(revocation.sequence)
    }
}
