//! A verdict: who a credential stands for, as auth said at one point of the revocation log.

use std::{sync::atomic::AtomicU64, time::SystemTime};

use interlock_proto::{
    auth::v1::{self as wire, revoked::Subject},
    credential::Hash,
    options::v1::Caller,
};

use crate::clock::{from_wire, micros};

/// What kind of credential proved a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// A role token.
    RoleToken,
    /// The access token of an owner session.
    OwnerSession,
    /// A project token.
    ProjectToken,
    /// None: a service has named the owner that it acts for.
    Named,
}

/// How a verdict was asked for: how it is asked for again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    /// By the hash of a credential.
    Credential(Hash),
    /// By the id of an owner.
    Owner(String),
}

/// The verified "who" behind a credential.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verdict {
    /// What proved it.
    pub kind: CredentialKind,
    /// The credential's public handle, `crd_…`; empty where there is none.
    pub credential_id: String,
    /// Who the call acts as; `admin` or `user` for role tokens.
    pub owner_id: String,
    /// `admin` or `user`.
    pub role: String,
    /// The owner's roles.
    pub roles: Vec<String>,
    /// Whether the roles meet the root condition by themselves.
    pub session_root: bool,
    /// The owner session, where one proved it.
    pub owner_session_id: Option<String>,
    /// The project that the credential is scoped to.
    pub project_id: Option<String>,
    /// The scopes of a project token.
    pub scopes: Vec<String>,
    /// The agents that a project token's workers may serve; empty: all that its issuer may.
    pub agent_ids: Vec<String>,
    /// Later credentials have larger numbers.
    pub issuance: u64,
    /// The generation of a role token.
    pub generation: u64,
    /// When the credential ends, by the verifier's own clock.
    pub expires_at: Option<SystemTime>,
    /// Until when root is unlocked, likewise.
    pub elevated_until: Option<SystemTime>,
    /// SHA-256 of the client certificate that the unlock is bound to, where it is.
    pub elevated_certificate: Option<[u8; 32]>,
    hash: Hash,
    /// [`Verdict::expires_at`] in microseconds since 1970, for the look at each call.
    expires_us: u64,
    /// Held against all revocations up to this sequence.
    checked: AtomicU64,
}

impl Verdict {
    /// Whether it acts as an administrator: the admin role token, or a session-root owner. Never a
    /// project token, and never somebody who was only named.
    #[must_use]
    pub fn administrator(&self) -> bool {
        let by_itself = matches!(self.kind, CredentialKind::RoleToken | CredentialKind::OwnerSession);
        self.role == "admin" && by_itself
    }

    /// The kind of caller, as policies name it. Who was named is judged like an owner who has signed in.
    #[must_use]
    pub fn caller(&self) -> Caller {
        match self.kind {
            CredentialKind::RoleToken => Caller::RoleToken,
            CredentialKind::OwnerSession | CredentialKind::Named => Caller::OwnerSession,
            CredentialKind::ProjectToken => Caller::ProjectToken,
        }
    }

    /// Whether the credential has ended at `now`. It is over at its instant.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|at| now >= at)
    }

    /// Until when root is unlocked on a connection that showed the client certificate with this SHA-256 (of its DER),
    /// or none. An unlock that is bound to a certificate holds on connections with that one only.
    #[must_use]
    pub fn elevation_on(&self, certificate: Option<[u8; 32]>) -> Option<SystemTime> {
        self.elevated_until
            .filter(|_| self.elevated_certificate.is_none() || self.elevated_certificate == certificate)
    }

    /// Whether root is unlocked at `now`, on such a connection.
    #[must_use]
    pub fn is_elevated(&self, now: SystemTime, certificate: Option<[u8; 32]>) -> bool {
        self.elevation_on(certificate).is_some_and(|until| now < until)
    }

    /// Whether `other` is the same principal: a stream may go on under either's credential.
    #[must_use]
    pub fn same_principal(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.owner_id == other.owner_id
            && self.role == other.role
            && self.project_id == other.project_id
    }

    /// When it ends, in microseconds since 1970; `u64::MAX` if it does not.
    pub(super) fn expires_us(&self) -> u64 {
        self.expires_us
    }

    pub(super) fn asked(&self) -> Asked {
        match self.kind {
            CredentialKind::RoleToken | CredentialKind::OwnerSession | CredentialKind::ProjectToken => {
                Asked::Credential(self.hash)
            }
            CredentialKind::Named => Asked::Owner(self.owner_id.clone()),
        }
    }

    pub(super) fn is_asked(&self, asked: &Asked) -> bool {
        match asked {
            Asked::Credential(hash) => self.kind != CredentialKind::Named && self.hash == *hash,
            Asked::Owner(owner_id) => self.kind == CredentialKind::Named && self.owner_id == *owner_id,
        }
    }

    pub(super) fn checked(&self) -> &AtomicU64 {
        &self.checked
    }

    /// Reads auth's answer. `None` where it names nobody: never admitted.
    ///
    /// It was asked for at `asked`, by our own clock. Auth's may show another time, and either may be set: what is
    /// left of a credential is counted from there.
    pub(super) fn from_wire(hash: Hash, answer: wire::ValidateResponse, asked: SystemTime) -> Option<Self> {
        let made = from_wire(answer.now);
        let ours = |at: SystemTime| match made {
            Some(made) => asked + at.duration_since(made).unwrap_or_default(),
            None => at,
        };
        let p = answer.principal?;
        let kind = match p.kind() {
            wire::CredentialKind::RoleToken => CredentialKind::RoleToken,
            wire::CredentialKind::OwnerSession => CredentialKind::OwnerSession,
            wire::CredentialKind::ProjectToken => CredentialKind::ProjectToken,
            wire::CredentialKind::Unspecified => return None,
        };
        let expires_at = from_wire(p.expires_at).map(ours);
        let filled = |text: String| Some(text).filter(|t| !t.is_empty());
        if p.owner_id.is_empty() || p.credential_id.is_empty() {
            return None;
        }
        // Bound to something of another shape: to no certificate that there is.
        let elevated_certificate = match &p.elevated_certificate_sha256[..] {
            [] => None,
            bound_to => Some(bound_to.try_into().unwrap_or_default()),
        };
        Some(Self {
            kind,
            credential_id: p.credential_id,
            owner_id: p.owner_id,
            role: p.role,
            roles: p.roles,
            session_root: p.session_root,
            owner_session_id: filled(p.owner_session_id),
            project_id: filled(p.project_id),
            scopes: p.scopes,
            agent_ids: p.agent_ids,
            issuance: p.issuance,
            generation: p.generation,
            expires_at,
            elevated_until: from_wire(p.elevated_until).map(ours),
            elevated_certificate,
            hash,
            expires_us: expires_at.map_or(u64::MAX, micros),
            checked: AtomicU64::new(answer.sequence),
        })
    }

    /// Reads auth's answer about an owner that was named. `None` where it may not act.
    ///
    /// Its number is below those of all credentials: every row about the owner matches it.
    pub(super) fn named(owner_id: &str, answer: wire::DescribeOwnerResponse) -> Option<Self> {
        if !answer.active || answer.role.is_empty() {
            return None;
        }
        Some(Self {
            kind: CredentialKind::Named,
            credential_id: String::new(),
            owner_id: owner_id.to_owned(),
            role: answer.role,
            roles: answer.roles,
            session_root: answer.session_root,
            owner_session_id: None,
            project_id: None,
            scopes: Vec::new(),
            agent_ids: Vec::new(),
            issuance: 0,
            generation: 0,
            expires_at: None,
            elevated_until: None,
            elevated_certificate: None,
            hash: Hash::default(),
            expires_us: u64::MAX,
            checked: AtomicU64::new(answer.sequence),
        })
    }

    /// Of a role token, for tests.
    #[cfg(test)]
    pub(super) fn of_role_token(credential_id: &str, issuance: u64) -> Self {
        let principal = wire::Principal {
            kind: wire::CredentialKind::RoleToken.into(),
            credential_id: credential_id.to_owned(),
            owner_id: "user".to_owned(),
            role: "user".to_owned(),
            issuance,
            ..Default::default()
        };
        let answer = wire::ValidateResponse { principal: Some(principal), ..Default::default() };
        Self::from_wire(Hash::default(), answer, SystemTime::UNIX_EPOCH).expect("it names somebody")
    }

    /// Whether a revocation concerns this credential. One of a kind that this version does not know
    /// concerns all: deny by absence.
    pub(super) fn matched_by(&self, row: &wire::Revoked) -> bool {
        let issued_before = self.issuance < row.issued_before;
        match &row.subject {
            Some(Subject::CredentialId(id)) => {
                issued_before && self.kind != CredentialKind::Named && *id == self.credential_id
            }
            Some(Subject::OwnerSessionId(id)) => {
                issued_before && self.owner_session_id.as_deref() == Some(id.as_str())
            }
            Some(Subject::OwnerId(id)) => issued_before && *id == self.owner_id,
            Some(Subject::Role(role)) => {
                issued_before && self.kind == CredentialKind::RoleToken && *role == self.role
            }
            Some(Subject::EveryOwnerSession(_)) => issued_before && self.kind == CredentialKind::OwnerSession,
            // A project token ends with its issuer's membership.
            Some(Subject::Membership(m)) => {
                self.kind == CredentialKind::ProjectToken && self.is_in(m, self.project_id.as_deref())
            }
            None => true,
        }
    }

    /// As [`Verdict::matched_by`], for something inside `project`.
    pub(super) fn matched_in(&self, row: &wire::Revoked, project: Option<&str>) -> bool {
        let membership = match &row.subject {
            Some(Subject::Membership(m)) => self.is_in(m, project),
            _ => false,
        };
        membership || self.matched_by(row)
    }

    fn is_in(&self, membership: &wire::Membership, project: Option<&str>) -> bool {
        membership.owner_id == self.owner_id && project == Some(membership.project_id.as_str())
    }
}
