//! Who may enter which project: yeses of auth, kept under the lease like verdicts.

use std::sync::{Arc, atomic::AtomicU64};

use interlock_proto::auth::v1::{self as wire, Revoked, revoked::Subject};

use super::{ASKS_MAX, Core, VerifyError, flight::ANSWER_WITHIN, log::Standing};
use crate::{call::Identity, path};

/// An owner that may enter a project.
pub(super) struct Member {
    owner_id: String,
    project_id: String,
    checked: AtomicU64,
}

impl Member {
    /// Whether a revocation concerns this: of the membership, or of the owner (whose roles may have
    /// been what let them in).
    fn matched_by(&self, row: &Revoked) -> bool {
        match &row.subject {
            Some(Subject::Membership(m)) => m.owner_id == self.owner_id && m.project_id == self.project_id,
            Some(Subject::OwnerId(owner_id)) => *owner_id == self.owner_id,
            Some(
                Subject::CredentialId(_)
                | Subject::OwnerSessionId(_)
                | Subject::Role(_)
                | Subject::EveryOwnerSession(_),
            ) => false,
            None => true,
        }
    }
}

impl Core {
    pub(super) async fn may_enter(&self, owner_id: &str, project_id: &str) -> Result<bool, VerifyError> {
        let key = key(owner_id, project_id);
        for _ in 0..ASKS_MAX {
            if !self.lease.holds(&self.clock) {
                return Err(VerifyError::AuthUnavailable);
            }
            let found = self.members.find(&key);
            let known = found.is_some();
            let member = match found {
                Some(member) => member,
                None => match self.ask_membership(owner_id, project_id).await? {
                    Some(member) => Arc::new(member),
                    None => return Ok(false),
                },
            };
            if self.log.standing(&member.checked, |row| member.matched_by(row)) != Standing::Good {
                self.members.remove(&key);
                continue;
            }
            if !known {
                self.members.insert(key, member);
            }
            return if self.lease.holds(&self.clock) { Ok(true) } else { Err(VerifyError::AuthUnavailable) };
        }
        Err(VerifyError::AuthUnavailable)
    }

    pub(super) fn is_known_member(&self, owner_id: &str, project_id: &str) -> bool {
        let member = self.members.find(&key(owner_id, project_id));
        let good = |member: &Arc<Member>| {
            self.log.standing(&member.checked, |row| member.matched_by(row)) == Standing::Good
        };
        member.as_ref().is_some_and(good) && self.lease.holds(&self.clock)
    }

    async fn ask_membership(&self, owner_id: &str, project_id: &str) -> Result<Option<Member>, VerifyError> {
        let request =
            wire::CheckMembershipRequest { owner_id: owner_id.to_owned(), project_id: project_id.to_owned() };
        let nobody = Identity::default();
        let answer = self.trust.unary(path::CHECK_MEMBERSHIP, &nobody, request, ANSWER_WITHIN).await;
        let answer: wire::CheckMembershipResponse = match answer {
            Ok(answer) => answer.message,
            Err(error) => {
                tracing::debug!(%error, "auth could not be asked for a membership");
                return Err(VerifyError::AuthUnavailable);
            }
        };
        Ok(answer.member.then(|| Member {
            owner_id: owner_id.to_owned(),
            project_id: project_id.to_owned(),
            checked: AtomicU64::new(answer.sequence),
        }))
    }
}

/// Ids never hold a NUL: one key, one pair.
fn key(owner_id: &str, project_id: &str) -> String {
    format!("{owner_id}\0{project_id}")
}
