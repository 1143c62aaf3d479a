//! Domain types as the wire has them, and what a handler asks of every request.

use std::{net::IpAddr, time::Duration};

use interlock_kit::{
    audit_heads::{News, to_wire},
    clock::Timestamp,
    error::Error,
    serve::Source,
};
use interlock_proto::auth::v1 as wire;

use crate::{
    barrier::{Granted, Outgoing, Reached},
    caller::{Principal, Proof},
    elevation::StatusOfElevation,
    ids::OwnerId,
    owner::Owner,
    owner_session::{OwnerSession, SessionPlace, SignedIn, StatusOfSession, Successors},
    policy,
    project::Project,
    project_token::ProjectToken,
    revocation::{Effect, Revocation, Subject},
    role_token::{Generation, TokenUse},
    trust::Described,
};

/// A value of a request, within its bound.
///
/// # Errors
/// `MISSING_FIELD` where it is empty, `INVALID_FIELD` where it is too long.
pub(super) fn bytes(field: &str, value: &[u8], bytes_max: usize) -> Result<(), Error> {
    if value.is_empty() {
        return Err(Error::missing_field(field));
    }
    if value.len() > bytes_max {
        return Err(Error::invalid_field(field, format!("at most {bytes_max} bytes")));
    }
    Ok(())
}

pub(super) fn duration(span: Duration) -> prost_types::Duration {
    // A lease is 30 s at most.
    prost_types::Duration::try_from(span).unwrap_or_default()
}

fn at(instant: Timestamp) -> Option<prost_types::Timestamp> {
    Some(instant.to_wire())
}

pub(super) fn principal(p: &Principal) -> wire::Principal {
    let kind = match &p.proof {
        Proof::RoleToken { .. } => wire::CredentialKind::RoleToken,
        Proof::OwnerSession { .. } => wire::CredentialKind::OwnerSession,
        Proof::ProjectToken { .. } => wire::CredentialKind::ProjectToken,
    };
    let mut message = wire::Principal {
        kind: kind.into(),
        credential_id: p.credential_id.as_str().to_owned(),
        owner_id: p.owner_id.as_str().to_owned(),
        role: p.role.text().to_owned(),
        roles: p.roles.clone(),
        session_root: p.session_root,
        issuance: p.issuance,
        expires_at: p.expires_at.and_then(at),
        elevated_until: p.elevated_until.and_then(at),
        elevated_certificate_sha256: p.elevated_for.map(|hash| hash.to_vec().into()).unwrap_or_default(),
        ..wire::Principal::default()
    };
    match &p.proof {
        Proof::RoleToken { generation } => message.generation = *generation,
        Proof::OwnerSession { session } => message.owner_session_id = session.as_str().to_owned(),
        Proof::ProjectToken { project, scopes, agents } => {
            message.project_id = project.as_str().to_owned();
            message.scopes.clone_from(scopes);
            message.agent_ids.clone_from(agents);
        }
    }
    message
}

pub(super) fn reached(reached: Reached) -> wire::Reached {
    let Reached { acknowledged, fenced, streams_closed } = reached;
    wire::Reached { acknowledged, fenced, streams_closed }
}

pub(super) fn project(project: &Project) -> wire::Project {
    wire::Project {
        project_id: project.id.to_string(),
        name: project.name.to_string(),
        created_by: project.created_by.to_string(),
        created_at: at(project.created_at),
    }
}

/// A project token, without its secret.
pub(super) fn project_token(token: &ProjectToken) -> wire::ProjectToken {
    wire::ProjectToken {
        token_id: token.id.to_string(),
        project_id: token.project.to_string(),
        issuer_id: token.issuer.to_string(),
        label: token.label.clone(),
        scopes: token.scopes.clone(),
        agent_ids: token.agents.clone(),
        masked: token.masked.clone(),
        created_at: at(token.created_at),
        expires_at: token.expires_at.and_then(at),
        replaced: token.replaced,
        revoked_at: token.ended.and_then(|ended| at(ended.at)),
    }
}

/// A stored generation; the token itself where it is to be shown.
pub(super) fn role_token(
    Generation { token: stored, uses }: Generation,
    token: Option<&str>,
) -> wire::RoleToken {
    wire::RoleToken {
        role: stored.role.text().to_owned(),
        generation: stored.generation,
        credential_id: stored.id.to_string(),
        masked: stored.masked,
        token: token.unwrap_or_default().to_owned(),
        created_at: at(stored.created_at),
        valid_until: stored.valid_until.and_then(at),
        candidate: stored.candidate,
        uses: uses.into_iter().map(token_use).collect(),
    }
}

pub(super) use wire::hold_lease_request::Use;

/// Whether a text is a source as it is told: in its one form, so that nobody is two.
pub(super) fn is_source(text: &str) -> bool {
    let address = text.strip_suffix("/64").unwrap_or(text).parse::<IpAddr>();
    text.is_empty() || address.is_ok_and(|address| Source::of(address).to_string() == text)
}

fn token_use(used: TokenUse) -> wire::TokenUse {
    let TokenUse { service, source, last_at, noted, .. } = used;
    wire::TokenUse { service, source, last_used_at: at(last_at), noted }
}

/// A new owner session and its credentials.
pub(super) fn signed_in(session: SignedIn, access: &str, refresh: &str) -> wire::LoginResponse {
    wire::LoginResponse {
        access_token: access.to_owned(),
        refresh_token: refresh.to_owned(),
        owner_session_id: session.session.to_string(),
        username: session.owner.to_string(),
        display_name: session.display_name,
        role: session.role.text().to_owned(),
        access_expires_at: at(session.access_expires_at),
        expires_at: at(session.expires_at),
    }
}

/// The successors of a refresh.
pub(super) fn refreshed(successors: &Successors, access: &str, refresh: &str) -> wire::RefreshResponse {
    wire::RefreshResponse {
        access_token: access.to_owned(),
        refresh_token: refresh.to_owned(),
        access_expires_at: at(successors.access_expires_at),
        expires_at: at(successors.expires_at),
    }
}

pub(super) fn status(status: StatusOfSession) -> wire::OwnerSessionServiceGetStatusResponse {
    let StatusOfSession { enabled, signed_in } = status;
    let Some(who) = signed_in else {
        return wire::OwnerSessionServiceGetStatusResponse { enabled, ..Default::default() };
    };
    wire::OwnerSessionServiceGetStatusResponse {
        enabled,
        authenticated: true,
        username: who.owner.to_string(),
        display_name: who.display_name,
        role: who.role.text().to_owned(),
        expires_at: at(who.expires_at),
    }
}

pub(super) fn owner(owner: &Owner) -> wire::Owner {
    wire::Owner {
        owner_id: owner.id.to_string(),
        display_name: owner.display_name.clone(),
        roles: owner.roles.clone(),
        active: owner.active,
        session_root: policy::is_session_root(&owner.roles),
        version: owner.version,
        changed_at: at(owner.changed_at),
    }
}

pub(super) fn owner_session(session: &OwnerSession, current: bool) -> wire::OwnerSession {
    wire::OwnerSession {
        owner_session_id: session.id.to_string(),
        owner_id: session.owner.to_string(),
        created_at: at(session.created_at),
        expires_at: at(session.expires_at),
        refreshes: session.refreshes,
        unlocked_until: session.elevation.and_then(|elevation| at(elevation.until)),
        current,
    }
}

/// No id has a colon.
pub(super) fn page_token(place: &SessionPlace) -> String {
    format!("{}:{}", place.owner, place.issuance)
}

pub(super) fn session_place(page_token: &str) -> Result<SessionPlace, Error> {
    let read = || {
        let (owner, issuance) = page_token.split_once(':')?;
        let issuance = issuance.parse().ok().filter(|number: &u64| i64::try_from(*number).is_ok())?;
        Some(SessionPlace { owner: OwnerId::parse("page_token", owner).ok()?, issuance })
    };
    match page_token {
        "" => Ok(SessionPlace::default()),
        _ => read().ok_or_else(|| Error::invalid_field("page_token", "from the answer before")),
    }
}

pub(super) fn elevation(status: StatusOfElevation) -> wire::ElevationServiceGetStatusResponse {
    wire::ElevationServiceGetStatusResponse {
        enabled: status.enabled,
        unlocked: status.until.is_some(),
        expires_at: status.until.and_then(at),
        session_root: status.session_root,
    }
}

pub(super) fn unlocked(until: Timestamp, reached_by: Reached) -> wire::UnlockResponse {
    wire::UnlockResponse { expires_at: at(until), reached: Some(reached(reached_by)) }
}

pub(super) fn described(found: Described, epoch: &str) -> wire::DescribeOwnerResponse {
    let Described { known, active, role, roles, ended_before, sequence } = found;
    wire::DescribeOwnerResponse {
        known,
        active,
        role: role.map(|role| role.text().to_owned()).unwrap_or_default(),
        session_root: policy::is_session_root(&roles),
        roles,
        sequence,
        epoch: epoch.to_owned(),
        ended_before,
    }
}

pub(super) fn outgoing(
    message: &Outgoing,
    lease: Duration,
    epoch: &str,
    news: News,
) -> wire::HoldLeaseResponse {
    match message {
        Outgoing::Revoked(revocation) => revoked(revocation),
        Outgoing::Granted(Granted { nonce, sequence, reset }) => {
            let granted = wire::hold_lease_response::Granted {
                nonce: *nonce,
                lease: Some(duration(lease)),
                epoch: epoch.to_owned(),
                sequence: *sequence,
                reset: *reset,
                heads: news.heads.into_iter().map(to_wire).collect(),
                remembered: news.remembered.into_iter().map(to_wire).collect(),
            };
            let message = wire::hold_lease_response::Message::Granted(granted);
            wire::HoldLeaseResponse { message: Some(message) }
        }
    }
}

pub(super) fn revoked(revocation: &Revocation) -> wire::HoldLeaseResponse {
    use wire::revoked::Subject as On;
    let subject = match &revocation.subject {
        Subject::Credential(id) => On::CredentialId(id.to_string()),
        Subject::OwnerSession(id) => On::OwnerSessionId(id.to_string()),
        Subject::Owner(id) => On::OwnerId(id.to_string()),
        Subject::Role(role) => On::Role(role.text().to_owned()),
        Subject::Membership(owner, project) => {
            On::Membership(wire::Membership { owner_id: owner.to_string(), project_id: project.to_string() })
        }
        Subject::EveryOwnerSession => On::EveryOwnerSession(true),
    };
    let row = wire::Revoked {
        sequence: revocation.sequence,
        issued_before: revocation.issued_before,
        subject: Some(subject),
        ended: revocation.effect >= Effect::Ends,
        cancel_jobs: revocation.effect == Effect::EndsWork,
    };
    wire::HoldLeaseResponse { message: Some(wire::hold_lease_response::Message::Revoked(row)) }
}
