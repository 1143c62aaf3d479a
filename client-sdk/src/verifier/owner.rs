//! What auth knows of owners, for calls that name whom they act for: kept under the lease like verdicts.

use std::sync::Arc;

use interlock_proto::auth::v1 as wire;

use super::{ASKS_MAX, Core, VerifyError, flight::ANSWER_WITHIN, log::Standing, verdict::Verdict};
use crate::{
    call::Identity,
    error::{Code, Error, Reason},
    path,
};

/// What auth knows of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnerFacts {
    /// There is such an owner: it was not removed, and is not only a name.
    pub known: bool,
    /// It may act.
    pub active: bool,
    /// Its roles; none where it may not act.
    pub roles: Vec<String>,
    /// Whether they meet the root condition by themselves.
    pub session_root: bool,
    /// What was issued before this number has ended; 0 of built-in owners.
    pub ended_before: u64,
}

impl Core {
    pub(super) async fn on_behalf_of(self: &Arc<Self>, owner_id: &str) -> Result<Arc<Verdict>, VerifyError> {
        for _ in 0..ASKS_MAX {
            let found = self.named.find(&owner_id.to_owned());
            let known = found.is_some();
            let verdict = match found {
                Some(verdict) => verdict,
                None if !self.lease.holds(&self.clock) => return Err(VerifyError::AuthUnavailable),
                None => {
                    let verdict = Verdict::named(owner_id, self.ask_owner(owner_id).await?);
                    Arc::new(verdict.ok_or(VerifyError::Unauthenticated(Reason::ProviderAuthFailed))?)
                }
            };
            match self.standing(&verdict) {
                Standing::Good => {
                    if !known {
                        self.named.insert(owner_id.to_owned(), Arc::clone(&verdict));
                    }
                    return self.admit(verdict);
                }
                Standing::Matched | Standing::Forgotten => self.named.remove(&owner_id.to_owned()),
            }
        }
        Err(VerifyError::AuthUnavailable)
    }

    pub(super) async fn describe_owner(&self, owner_id: &str) -> Result<OwnerFacts, VerifyError> {
        let wire::DescribeOwnerResponse { known, active, roles, session_root, ended_before, .. } =
            self.ask_owner(owner_id).await?;
        Ok(OwnerFacts { known, active, roles, session_root, ended_before })
    }

    async fn ask_owner(&self, owner_id: &str) -> Result<wire::DescribeOwnerResponse, VerifyError> {
        let request = wire::DescribeOwnerRequest { owner_id: owner_id.to_owned() };
        let nobody = Identity::default();
        let answer = self.trust.unary(path::DESCRIBE_OWNER, &nobody, request, ANSWER_WITHIN).await;
        answer.map(|answer| answer.message).map_err(|error| refusal(&error))
    }
}

/// An id that auth takes for none is nobody's. All else says nothing of the owner.
fn refusal(error: &Error) -> VerifyError {
    if error.code() == Code::InvalidArgument {
        return VerifyError::Unauthenticated(Reason::ProviderAuthFailed);
    }
    tracing::debug!(%error, "auth could not be asked for an owner");
    VerifyError::AuthUnavailable
}
