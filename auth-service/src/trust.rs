//! What verifiers ask: is this credential good, and may this owner enter that project.
//!
//! A verdict and the revocation sequence that it was made at are read from one snapshot: a verifier
//! compares that sequence with the revocations it has applied, so that a slow answer never brings back
//! what was revoked (DESIGN 6).

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use interlock_kit::clock::Timestamp;
use interlock_proto::credential::{Credential, Hash, Kind};

use crate::{
    caller::{Principal, Proof},
    ids::{CredentialId, OwnerId, ProjectId},
    owner::Owner,
    owner_session::{Access, OwnerSession},
    policy::{self, Act},
    project, project_token,
    role_token::{Role, RoleToken},
    store::{Query, Stop, View},
};

/// A credential that a shell has made and a verb is to store: everything but the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCredential {
    /// Its public handle.
    pub id: CredentialId,
    /// What it is for.
    pub kind: Kind,
    /// The SHA-256 of its text.
    pub hash: Hash,
    /// Its first and last four characters.
    pub masked: String,
}

impl NewCredential {
    /// What may be stored of `credential`.
    #[must_use]
    pub fn of(credential: &Credential, id: CredentialId) -> Self {
        Self { id, kind: credential.kind(), hash: credential.hash(), masked: credential.masked() }
    }
}

/// What is known of a presented credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Validation {
    /// It is good.
    Valid(Verdict),
    /// It was, until it ended by itself: `TOKEN_EXPIRED`. Who it was is for the audit row.
    Expired(Arc<Principal>),
    /// Unknown, revoked, of a deactivated owner, or of a kind that proves nobody:
    /// `PROVIDER_AUTH_FAILED`.
    Refused,
}

/// A good credential.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Whom it proves.
    pub principal: Arc<Principal>,
    /// The revocation sequence that this was read at.
    pub sequence: u64,
    /// What verifiers are told of the principal, once one was.
    pub(crate) wire: Arc<OnceLock<Bytes>>,
}

impl Verdict {
    /// Read at this revocation sequence.
    #[must_use]
    pub fn new(principal: Arc<Principal>, sequence: u64) -> Self {
        Self { principal, sequence, wire: Arc::default() }
    }

    /// What verifiers are told of the principal, encoded once for all clones.
    pub(crate) fn wire(&self, encode: impl FnOnce() -> Bytes) -> &Bytes {
        self.wire.get_or_init(encode)
    }
}

impl PartialEq for Verdict {
    fn eq(&self, other: &Self) -> bool {
        (&self.principal, self.sequence) == (&other.principal, other.sequence)
    }
}

impl Eq for Verdict {}

/// Gate 1 of this service: who presents this credential? Holding it is the right to ask.
#[derive(Clone, Debug)]
pub struct Authenticate {
    /// SHA-256 of the credential's text.
    pub hash: Hash,
}

impl Query for Authenticate {
    type Out = Validation;

    fn run(&self, view: &mut View<'_>) -> Result<Validation, Stop> {
        verdict(view, &self.hash)
    }
}

/// `TrustService.Validate`: the same for a verifier. Services only.
#[derive(Clone, Debug)]
pub struct Validate {
    /// SHA-256 of the credential's text.
    pub hash: Hash,
}

impl Query for Validate {
    type Out = Validation;

    fn run(&self, view: &mut View<'_>) -> Result<Validation, Stop> {
        view.authorize(Act::Verify)?;
        verdict(view, &self.hash)
    }
}

/// `TrustService.CheckMembership`. Services only.
#[derive(Clone, Debug)]
pub struct CheckMembership {
    /// Who.
    pub owner: OwnerId,
    /// Where.
    pub project: ProjectId,
}

/// Whether an owner may enter a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The project exists and the owner may enter it.
    pub member: bool,
    /// The revocation sequence that this was read at.
    pub sequence: u64,
}

impl Query for CheckMembership {
    type Out = Membership;

    fn run(&self, view: &mut View<'_>) -> Result<Membership, Stop> {
        view.authorize(Act::Verify)?;
        let sequence = view.counters()?.revocation;
        let standing = view.standing(&self.owner)?;
        let member = project::may_enter(view, &standing, &self.project)?;
        Ok(Membership { member, sequence })
    }
}

/// `TrustService.DescribeOwner`. Services only.
#[derive(Clone, Debug)]
pub struct DescribeOwner {
    /// Who.
    pub owner: OwnerId,
}

/// What is known of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// There is such an owner, active or not.
    pub known: bool,
    /// It may act.
    pub active: bool,
    /// The role on the wire; only of one that may act.
    pub role: Option<Role>,
    /// As configured; none where it may not act.
    pub roles: Vec<String>,
    /// Owner sessions with a smaller issuance number have ended; 0 of built-in owners.
    pub ended_before: u64,
    /// The revocation sequence that this was read at.
    pub sequence: u64,
}

impl Query for DescribeOwner {
    type Out = Described;

    fn run(&self, view: &mut View<'_>) -> Result<Described, Stop> {
        view.authorize(Act::Verify)?;
        let sequence = view.counters()?.revocation;
        let standing = view.standing(&self.owner)?;
        let stored = view.owner(&self.owner)?.filter(|owner| !owner.is_removed());
        let known = stored.is_some() || self.owner.is_reserved();
        let ended_before = stored.as_ref().map_or(0, |owner| owner.sessions_from);
        let role = standing.active.then_some(if standing.administrator { Role::Admin } else { Role::User });
        let roles = match (role, stored) {
            (Some(_), Some(owner)) => owner.roles,
            (Some(role), None) => vec![role.text().to_owned()],
            (None, _) => Vec::new(),
        };
        Ok(Described { known, active: standing.active, role, roles, ended_before, sequence })
    }
}

/// Asks again, inside the transaction, whether what proved the caller still stands.
///
/// A call may wait between gate 1 and its verb. What it has been refused meanwhile must not help it to make a
/// new credential: else whoever has a stolen one, and calls waiting, keeps up with every rotation (DESIGN 14.8).
///
/// # Errors
/// `PROVIDER_AUTH_FAILED` where the credential, its owner session or its owner's rank has ended; `ROOT_REQUIRED` where
/// root was locked meanwhile.
pub(crate) fn admit_again(view: &View<'_>) -> Result<(), Stop> {
    let Some(principal) = view.call().caller.principal() else { return Ok(()) };
    let now = view.now();
    let stands = match &principal.proof {
        Proof::RoleToken { .. } => view.role_tokens(principal.role)?.iter().any(|token| {
            token.id == principal.credential_id && !token.valid_until.is_some_and(|end| end.is_over(now))
        }),
        Proof::OwnerSession { session } => {
            let found = view.session_and_owner(session)?.filter(|(session, owner)| {
                !session.is_ended(owner)
                    && !session.expires_at.is_over(now)
                    && policy::is_session_root(&owner.roles) == principal.session_root
            });
            let elevation = found.as_ref().and_then(|(session, _)| session.elevation);
            let unlocked = elevation.is_some_and(|elevation| elevation.holds(view.root(), now));
            if found.is_some() && principal.is_elevated(now) && !unlocked {
                return Err(policy::root_required().into());
            }
            found.is_some()
        }
        // What asks here makes or shows tokens, which no project token may.
        Proof::ProjectToken { .. } => false,
    };
    if stands { Ok(()) } else { Err(policy::login_required().into()) }
}

/// Reads what a credential proves, together with the sequence it was read at.
pub(crate) fn verdict(view: &View<'_>, hash: &Hash) -> Result<Validation, Stop> {
    let sequence = view.counters()?.revocation;
    if let Some(access) = view.access(hash)? {
        return Ok(of_access(view, &access)?.map_or(Validation::Refused, |p| timed(p, sequence, view.now())));
    }
    if let Some(token) = view.role_token(hash)? {
        return Ok(timed(of_role_token(&token), sequence, view.now()));
    }
    let Some(token) = view.project_token(hash)? else { return Ok(Validation::Refused) };
    let proven = project_token::principal(view, &token)?;
    Ok(proven.map_or(Validation::Refused, |p| timed(p, sequence, view.now())))
}

fn timed(principal: Principal, sequence: u64, now: Timestamp) -> Validation {
    let principal = Arc::new(principal);
    if principal.expires_at.is_some_and(|end| end.is_over(now)) {
        Validation::Expired(principal)
    } else {
        Validation::Valid(Verdict::new(principal, sequence))
    }
}

fn of_role_token(token: &RoleToken) -> Principal {
    Principal {
        proof: Proof::RoleToken { generation: token.generation },
        credential_id: token.id.clone(),
        owner_id: token.role.owner(),
        role: token.role,
        roles: vec![token.role.text().to_owned()],
        // The admin token meets the root condition (DESIGN 14.1).
        session_root: token.role == Role::Admin,
        issuance: token.issuance,
        expires_at: token.valid_until,
        elevated_until: None,
        elevated_for: None,
    }
}

/// `None` where the owner session was ended or its owner may not act.
fn of_access(view: &View<'_>, access: &Access) -> Result<Option<Principal>, Stop> {
    let Some((session, owner)) = view.session_and_owner(&access.session)? else { return Ok(None) };
    if session.is_ended(&owner) {
        return Ok(None);
    }
    Ok(Some(of_session(view, access, &session, &owner)))
}

fn of_session(view: &View<'_>, access: &Access, session: &OwnerSession, owner: &Owner) -> Principal {
    let elevation = session.elevation.filter(|elevation| elevation.holds(view.root(), view.now()));
    Principal {
        proof: Proof::OwnerSession { session: session.id.clone() },
        credential_id: access.id.clone(),
        owner_id: owner.id.clone(),
        role: owner.role(),
        roles: owner.roles.clone(),
        session_root: policy::is_session_root(&owner.roles),
        issuance: access.issuance,
        expires_at: Some(access.expires_at),
        elevated_until: elevation.map(|elevation| elevation.until),
        elevated_for: elevation.and_then(|elevation| elevation.certificate),
    }
}
