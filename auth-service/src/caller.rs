//! Who is behind a call. Nobody is a value, never an absence.

use std::{borrow::Cow, sync::Arc};

use interlock_kit::{clock::Timestamp, spiffe::SpiffeId, store::audit::Origin, unscoped::Unscoped};

use crate::{
    ids::{CredentialId, OwnerId, OwnerSessionId, ProjectId},
    role_token::Role,
};

/// One call, as its verb sees it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks.
    pub caller: Caller,
    /// The same for audit rows.
    pub origin: Arc<Origin>,
    /// The audit action of the method's policy, or of the offline command.
    pub action: Cow<'static, str>,
    /// The project that it names.
    pub named: Option<ProjectId>,
    /// What becomes of it where it should name one and does not.
    pub unscoped: Unscoped,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// No credential, or none that is known.
    Nobody,
    /// A verified principal.
    Principal(Arc<Principal>),
    /// A service on the internal listener.
    Service(SpiffeId),
    /// This program itself at its start, or an offline command on the host that holds the store's lock.
    Host,
}

/// What proved a principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A role token.
    RoleToken {
        /// Which generation of its role.
        generation: u64,
    },
    /// The access token of an owner session.
    OwnerSession {
        /// Which one.
        session: OwnerSessionId,
    },
    /// A project token.
    ProjectToken {
        /// The one project.
        project: ProjectId,
        /// What it may be used for.
        scopes: Vec<String>,
        /// The agents that its workers may serve; empty: all that its issuer may.
        agents: Vec<String>,
    },
}

/// The verified "who" behind a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// What proved it.
    pub proof: Proof,
    /// The credential's public handle.
    pub credential_id: CredentialId,
    /// Whom the call acts as.
    pub owner_id: OwnerId,
    /// `admin` for the admin role token and for session-root owners.
    pub role: Role,
    /// The owner's roles.
    pub roles: Vec<String>,
    /// Whether the roles meet the root condition (DESIGN 1).
    pub session_root: bool,
    /// The issuance number of the credential.
    pub issuance: u64,
    /// When the credential ends, if it does.
    pub expires_at: Option<Timestamp>,
    /// Until when root is unlocked, if it is.
    pub elevated_until: Option<Timestamp>,
    /// SHA-256 of the client certificate that the unlock is bound to, where it is.
    pub elevated_for: Option<[u8; 32]>,
}

impl Principal {
    /// Whether it is an administrator (DESIGN 14.1): the admin role token, or a session-root owner.
    #[must_use]
    pub fn is_administrator(&self) -> bool {
        match &self.proof {
            Proof::RoleToken { .. } => self.role == Role::Admin,
            Proof::OwnerSession { .. } => self.session_root,
            Proof::ProjectToken { .. } => false,
        }
    }

    /// Until when root is unlocked on a connection with this client certificate, if it is.
    #[must_use]
    pub fn elevation_on(&self, certificate: Option<[u8; 32]>) -> Option<Timestamp> {
        self.elevated_until.filter(|_| self.elevated_for.is_none() || self.elevated_for == certificate)
    }

    /// Whether root is unlocked.
    #[must_use]
    pub fn is_elevated(&self, now: Timestamp) -> bool {
        self.elevated_until.is_some_and(|until| !until.is_over(now))
    }
}

impl Caller {
    /// The principal, where there is one.
    #[must_use]
    pub fn principal(&self) -> Option<&Principal> {
        match self {
            Self::Principal(principal) => Some(principal),
            Self::Nobody | Self::Service(_) | Self::Host => None,
        }
    }
}
