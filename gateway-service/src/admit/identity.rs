//! What was presented, in the domain's words: principals, cookies, origins of audit rows.

use std::{sync::Arc, time::SystemTime};

use interlock_client::verifier::{CredentialKind, Verdict};
use interlock_kit::{
    authn::{self, Call, login_required},
    clock::Timestamp,
    denials::Counted,
    error::Error,
    store::audit::{Entry, Origin, Outcome},
};
use interlock_proto::credential::Kind;

use super::Known;
use crate::{
    caller::{Cookie, OwnerSession, Principal, ProjectToken},
    ids::{AgentId, OwnerId, ProjectId, SessionId},
};

/// Cookies of well-formed client credentials; any other is nobody's.
pub(super) fn cookies(presented: Vec<authn::Cookie>) -> Result<Vec<Cookie>, Error> {
    let read = presented.into_iter().map(|cookie| {
        let credential = cookie.credential.filter(|credential| credential.kind() == Kind::Client);
        let session = SessionId::parse(cookie.session_id).map_err(|_| login_required())?;
        Ok(Cookie { session, hash: credential.ok_or_else(login_required)?.hash() })
    });
    read.collect()
}

/// Who a verdict is, on a connection with this client certificate: an unlock may be bound to one (DESIGN 14.14).
pub(super) fn principal(verdict: &Verdict, certificate: Option<[u8; 32]>) -> Result<Principal, Error> {
    // Auth's ids are not ours to trust blindly: one of another shape is nobody.
    let owner = || OwnerId::parse(verdict.owner_id.clone()).map_err(|_| login_required());
    Ok(match verdict.kind {
        CredentialKind::RoleToken if verdict.administrator() => Principal::Admin,
        CredentialKind::RoleToken => Principal::User,
        CredentialKind::OwnerSession => Principal::Owner(OwnerSession {
            owner: owner()?,
            session_root: verdict.session_root,
            elevated_until: verdict.elevation_on(certificate).map(timestamp),
        }),
        // Whatever its roles are: a plain owner.
        CredentialKind::Named => {
            Principal::Owner(OwnerSession { owner: owner()?, session_root: false, elevated_until: None })
        }
        CredentialKind::ProjectToken => {
            let project = verdict.project_id.clone().ok_or_else(login_required)?;
            Principal::Project(ProjectToken {
                issuer: owner()?,
                project: ProjectId::parse(project).map_err(|_| login_required())?,
                scopes: verdict.scopes.clone(),
                // One of another shape is none of ours; to leave it out might leave none, which is all.
                agents: agents(&verdict.agent_ids)?,
            })
        }
    })
}

fn agents(ids: &[String]) -> Result<Vec<AgentId>, Error> {
    let parsed = ids.iter().map(|id| AgentId::parse(id.clone()).map_err(|_| login_required()));
    parsed.collect()
}

fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// A call by nobody known; on the internal listener, by a service.
pub(super) fn nobody(call: &Call) -> Origin {
    Origin {
        principal: call.service.as_ref().map(ToString::to_string).unwrap_or_default(),
        // For whomever a service acts, its rows name it.
        peer: match &call.service {
            Some(service) => format!("{} {service}", call.peer),
            None => call.peer.to_string(),
        },
        request_id: call.request_id.clone(),
        rpc: call.policy.path.clone(),
        ..Origin::default()
    }
}

/// A call by someone known.
pub(super) fn origin(call: &Call, who: &Known, cookie: Option<&Cookie>) -> Origin {
    let known = nobody(call);
    match (who, cookie) {
        (Known::Verdict(verdict, _), _) => Origin {
            principal: verdict.owner_id.clone(),
            role: verdict.role.clone(),
            credential_id: verdict.credential_id.clone(),
            ..known
        },
        (Known::Service(worker), _) => {
            Origin { principal: worker.id.to_string(), role: "service".to_owned(), ..known }
        }
        (Known::Nobody, _) => {
            Origin { principal: OwnerId::LOCAL.to_owned(), role: "anonymous".to_owned(), ..known }
        }
        (Known::Cookie, Some(cookie)) => {
            Origin { principal: client_principal(cookie), role: "client".to_owned(), ..known }
        }
        (Known::Cookie, None) => known,
    }
}

/// A cookie's caller before it is looked up: whoever holds the cookie of that session.
pub(super) fn client_principal(cookie: &Cookie) -> String {
    let [a, b, c, d, ..] = cookie.hash;
    format!("client of {} ({a:02x}{b:02x}{c:02x}{d:02x})", cookie.session)
}

/// The row of refusals that were counted.
pub(super) fn counted_row(counted: Counted) -> Entry {
    let origin = Arc::new(Origin { principal: counted.key, ..Origin::default() });
    let span = serde_json::json!({ "first": counted.first.to_string(), "last": counted.last.to_string() });
    let mut entry =
        Entry::new(origin, "gate.refused", Outcome::Refused(counted.reason)).detailed(span.to_string());
    entry.count = counted.count;
    entry
}
