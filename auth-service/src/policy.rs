//! Who may do what. Pure: no store, no clock, no I/O, and no default arm.
//!
//! Gate 1 (the method's policy in its .proto) has looked at the kind of credential and the least role;
//! this is gate 2, asked inside each verb. What is allowed leaves a permit behind, and nothing is written
//! without one. The permits' fields are private: this module alone makes them.

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
};

use crate::{
    caller::{Caller, Principal, Proof},
    ids::{OwnerId, OwnerSessionId, ProjectId},
    owner::Owner,
    owner_session::OwnerSession,
};

/// What someone wants to do, with the facts that decide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// See the role tokens masked.
    ReadRoleTokens,
    /// See the role tokens themselves.
    RevealRoleTokens,
    /// Replace a role token.
    RotateRoleTokens,
    /// Store first tokens, replace both, compare them with the recoverable copy.
    ResetRoleTokens,
    /// Write owners as accounts sources say.
    ApplyAccounts,
    /// Read owners.
    ReadOwners,
    /// Add, change and remove owners.
    EditOwners,
    /// See owner sessions.
    ListSessions {
        /// They are the caller's own.
        own: bool,
    },
    /// End owner sessions.
    EndSessions {
        /// They are the caller's own.
        own: bool,
    },
    /// Ask what a credential proves, or who may enter what, or read the revocation log.
    Verify,
    /// Make a project.
    CreateProject,
    /// Add a member to a project.
    AddMember {
        /// The project exists and the caller is its member.
        member: bool,
    },
    /// End a membership in a project.
    RemoveMember {
        /// The project exists and the caller is its member.
        member: bool,
    },
    /// Issue a token of a project.
    IssueToken {
        /// The project exists and the caller is its member.
        member: bool,
    },
    /// See a project's tokens.
    ListTokens {
        /// The project exists and the caller is its member.
        member: bool,
    },
    /// Replace a token of a project.
    RotateToken {
        /// The project exists and the caller is its member.
        member: bool,
        /// The caller issued it.
        issuer: bool,
    },
    /// End a token of a project.
    RevokeToken {
        /// The project exists and the caller is its member.
        member: bool,
    },
    /// List the projects that one can enter.
    ListProjects,
    /// Ask who one is.
    KnowOneself,
    /// Clear away what has ended.
    Sweep,
    /// Keep the row of this program among those that share the store.
    Replicate,
    /// Keep what belongs to audit logs beside their rows.
    KeepLog,
    /// Keep who uses role tokens.
    KeepCensus,
}

/// What a caller is, as far as the table below tells callers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    Nobody,
    Service,
    Host,
    AdminToken,
    UserToken,
    SessionRoot { elevated: bool },
    Owner,
    ProjectToken,
}

fn rank(caller: &Caller, now: Timestamp) -> Rank {
    match caller {
        Caller::Nobody => Rank::Nobody,
        Caller::Service(_) => Rank::Service,
        Caller::Host => Rank::Host,
        Caller::Principal(principal) => rank_of(principal, now),
    }
}

fn rank_of(principal: &Principal, now: Timestamp) -> Rank {
    match &principal.proof {
        Proof::RoleToken { .. } if principal.is_administrator() => Rank::AdminToken,
        Proof::RoleToken { .. } => Rank::UserToken,
        Proof::OwnerSession { .. } if principal.session_root => {
            Rank::SessionRoot { elevated: principal.is_elevated(now) }
        }
        Proof::OwnerSession { .. } => Rank::Owner,
        Proof::ProjectToken { .. } => Rank::ProjectToken,
    }
}

/// Decides.
///
/// # Errors
/// `PROVIDER_AUTH_FAILED` for nobody, `ROOT_REQUIRED` where only elevation is missing, else `FORBIDDEN`.
pub fn decide(caller: &Caller, act: Act, now: Timestamp) -> Result<(), Error> {
    let rank = rank(caller, now);
    if rank == Rank::Nobody {
        return Err(login_required());
    }
    let allowed = match act {
        Act::ReadRoleTokens | Act::ReadOwners | Act::EditOwners => administers(rank),
        Act::ListSessions { own } | Act::EndSessions { own } => administers(rank) || (own && is_person(rank)),
        // DESIGN 14.1: by role alone nobody; the admin token meets the root condition.
        Act::RevealRoleTokens | Act::RotateRoleTokens => match rank {
            Rank::AdminToken | Rank::Host | Rank::SessionRoot { elevated: true } => true,
            Rank::SessionRoot { elevated: false } => return Err(root_required()),
            Rank::Nobody | Rank::Service | Rank::UserToken | Rank::Owner | Rank::ProjectToken => false,
        },
        Act::ResetRoleTokens
        | Act::ApplyAccounts
        | Act::Sweep
        | Act::Replicate
        | Act::KeepLog
        | Act::KeepCensus => rank == Rank::Host,
        // The host reads the log for its barrier; administrators have nothing to ask here.
        Act::Verify => matches!(rank, Rank::Service | Rank::Host),
        Act::CreateProject => is_person(rank),
        Act::AddMember { member }
        | Act::RemoveMember { member }
        | Act::IssueToken { member }
        | Act::ListTokens { member }
        | Act::RevokeToken { member } => reaches_project(rank, member),
        // The answer acts for the issuer: for administrators, too, somebody else.
        Act::RotateToken { member, issuer } => issuer && reaches_project(rank, member),
        Act::ListProjects => is_person(rank) || rank == Rank::ProjectToken,
        Act::KnowOneself => is_person(rank) || rank == Rank::ProjectToken,
    };
    if allowed { Ok(()) } else { Err(Error::new(Reason::Forbidden, "this principal may not do this")) }
}

fn administers(rank: Rank) -> bool {
    matches!(rank, Rank::AdminToken | Rank::SessionRoot { .. } | Rank::Host)
}

/// Administrators reach every project, others those they are members of.
fn reaches_project(rank: Rank, member: bool) -> bool {
    matches!(rank, Rank::AdminToken | Rank::SessionRoot { .. }) || (member && is_person(rank))
}

fn is_person(rank: Rank) -> bool {
    match rank {
        Rank::AdminToken | Rank::UserToken | Rank::SessionRoot { .. } | Rank::Owner => true,
        Rank::Nobody | Rank::Service | Rank::Host | Rank::ProjectToken => false,
    }
}

/// Whether roles meet the root condition: `admin`, `owner`, `superuser` or `root` in any case, nothing
/// else (DESIGN 1).
#[must_use]
pub fn is_session_root(roles: &[String]) -> bool {
    const ROOT: [&str; 4] = ["admin", "owner", "superuser", "root"];
    roles.iter().any(|role| ROOT.iter().any(|root| role.eq_ignore_ascii_case(root)))
}

/// The refusal of a call that needs a credential and has none.
#[must_use]
pub fn login_required() -> Error {
    Error::new(Reason::ProviderAuthFailed, "login required")
}

/// The one refusal of sign-ins and refreshes: it tells nothing apart.
#[must_use]
pub fn wrong_credentials() -> Error {
    Error::new(Reason::InvalidCredentials, "the credentials are wrong")
}

/// The refusal of a credential that is not of an owner session, where one is needed.
#[must_use]
pub fn of_another_kind() -> Error {
    Error::new(Reason::LoginRequired, "this credential is not of an owner session")
}

/// The refusal of an unlock where no root password is configured.
#[must_use]
pub fn root_disabled() -> Error {
    Error::new(Reason::RootDisabled, "no root password is configured here")
}

/// The refusal where only elevation is missing.
#[must_use]
pub fn root_required() -> Error {
    Error::new(Reason::RootRequired, "this takes the admin role token, or root to be unlocked")
}

/// Role tokens may be written.
#[derive(Debug)]
pub struct RoleTokenPermit(());

/// Owners may be written: all of them, or one.
#[derive(Debug)]
pub struct OwnerPermit {
    only: Option<OwnerId>,
}

/// One project may be written.
#[derive(Debug)]
pub struct ProjectPermit {
    project: ProjectId,
}

/// One owner session of one owner may be written.
#[derive(Debug)]
pub struct OwnerSessionPermit {
    owner: OwnerId,
    session: OwnerSessionId,
}

/// What has ended may be cleared.
#[derive(Debug)]
pub struct SweepPermit(());

/// Rows of programs that share the store may be written.
#[derive(Debug)]
pub struct ReplicaPermit(());

/// What belongs to audit logs beside their rows may be written.
#[derive(Debug)]
pub struct LogPermit(());

/// Who uses role tokens may be written.
#[derive(Debug)]
pub struct CensusPermit(());

impl ProjectPermit {
    /// Whether it is for this project.
    pub(crate) fn covers(&self, project: &ProjectId) -> bool {
        self.project == *project
    }
}

impl OwnerPermit {
    /// Whether it is for all owners.
    pub(crate) fn covers_all(&self) -> bool {
        self.only.is_none()
    }

    /// Whether it is for this owner.
    pub(crate) fn covers(&self, owner: &OwnerId) -> bool {
        self.only.as_ref().is_none_or(|only| only == owner)
    }
}

impl OwnerSessionPermit {
    /// Whether it is for this session.
    pub(crate) fn covers(&self, session: &OwnerSessionId) -> bool {
        self.session == *session
    }

    /// Whether it is for a session of this owner.
    pub(crate) fn covers_owner(&self, owner: &OwnerId) -> bool {
        self.owner == *owner
    }
}

/// For [`Act::RotateRoleTokens`] and [`Act::ResetRoleTokens`].
pub(crate) fn role_tokens(caller: &Caller, act: Act, now: Timestamp) -> Result<RoleTokenPermit, Error> {
    assert!(matches!(act, Act::RotateRoleTokens | Act::ResetRoleTokens), "{act:?} writes no role token");
    decide(caller, act, now).map(|()| RoleTokenPermit(()))
}

/// For [`Act::ApplyAccounts`] and [`Act::EditOwners`].
pub(crate) fn owners(caller: &Caller, act: Act, now: Timestamp) -> Result<OwnerPermit, Error> {
    assert!(matches!(act, Act::ApplyAccounts | Act::EditOwners), "{act:?} writes no owner");
    decide(caller, act, now).map(|()| OwnerPermit { only: None })
}

/// For [`Act::EndSessions`]: all of one owner, or of all owners.
pub(crate) fn end_sessions(
    caller: &Caller,
    owner: Option<&OwnerId>,
    now: Timestamp,
) -> Result<OwnerPermit, Error> {
    let own = owner.is_some_and(|owner| is_own(caller, owner));
    decide(caller, Act::EndSessions { own }, now).map(|()| OwnerPermit { only: owner.cloned() })
}

/// For [`Act::EndSessions`]: one session. One that there is not is nobody's own.
pub(crate) fn end_session(
    caller: &Caller,
    session: Option<&OwnerSession>,
    now: Timestamp,
) -> Result<Option<OwnerSessionPermit>, Error> {
    let own = session.is_some_and(|session| is_own(caller, &session.owner));
    decide(caller, Act::EndSessions { own }, now).map(|()| session.map(end_own))
}

fn is_own(caller: &Caller, owner: &OwnerId) -> bool {
    caller.principal().is_some_and(|principal| principal.owner_id == *owner)
}

/// A living session of an owner is the right to change that owner's password, for who also has the present one.
pub(crate) fn own_password(
    session: &OwnerSession,
    owner: &Owner,
    now: Timestamp,
) -> Result<OwnerPermit, Error> {
    if session.is_ended(owner) {
        return Err(login_required());
    }
    go_on(session, owner, now).map(|_| OwnerPermit { only: Some(owner.id.clone()) })
}

/// For a new project.
pub(crate) fn new_project(
    caller: &Caller,
    project: &ProjectId,
    now: Timestamp,
) -> Result<ProjectPermit, Error> {
    decide(caller, Act::CreateProject, now).map(|()| ProjectPermit { project: project.clone() })
}

/// For everything in one project: members and tokens. The caller's reach is decided first; then the project that the
/// call names, if it names one, must be this one (DESIGN 10, 14.5). The built-in project has neither, for nobody.
pub(crate) fn project(
    caller: &Caller,
    act: Act,
    project: &ProjectId,
    named: Option<&ProjectId>,
    now: Timestamp,
) -> Result<ProjectPermit, Error> {
    assert!(
        matches!(
            act,
            Act::AddMember { .. }
                | Act::RemoveMember { .. }
                | Act::IssueToken { .. }
                | Act::ListTokens { .. }
                | Act::RotateToken { .. }
                | Act::RevokeToken { .. }
        ),
        "{act:?} is in no project"
    );
    decide(caller, act, now)?;
    if project.is_system() {
        return Err(Error::new(Reason::Forbidden, "the built-in project has no members and no tokens"));
    }
    if named.is_some_and(|named| named != project) {
        return Err(Error::new(Reason::ProjectMismatch, "the call names another project"));
    }
    Ok(ProjectPermit { project: project.clone() })
}

/// For [`Act::Sweep`].
pub(crate) fn sweep(caller: &Caller, now: Timestamp) -> Result<SweepPermit, Error> {
    decide(caller, Act::Sweep, now).map(|()| SweepPermit(()))
}

/// For [`Act::Replicate`].
pub(crate) fn replicas(caller: &Caller, now: Timestamp) -> Result<ReplicaPermit, Error> {
    decide(caller, Act::Replicate, now).map(|()| ReplicaPermit(()))
}

/// For [`Act::KeepLog`].
pub(crate) fn keep_log(caller: &Caller, now: Timestamp) -> Result<LogPermit, Error> {
    decide(caller, Act::KeepLog, now).map(|()| LogPermit(()))
}

/// For [`Act::KeepCensus`].
pub(crate) fn census(caller: &Caller, now: Timestamp) -> Result<CensusPermit, Error> {
    decide(caller, Act::KeepCensus, now).map(|()| CensusPermit(()))
}

/// A verified password is the right to begin a session of that owner, if the owner is active and is
/// still what it was when the password was verified.
pub(crate) fn sign_in(
    owner: Option<Owner>,
    verified: u64,
    session: &OwnerSessionId,
) -> Result<(Owner, OwnerSessionPermit), Error> {
    let owner = owner.filter(|owner| owner.active).ok_or_else(wrong_credentials)?;
    if owner.version != verified {
        return Err(Error::new(Reason::Conflict, "the owner has changed meanwhile; sign in again"));
    }
    let permit = OwnerSessionPermit { owner: owner.id.clone(), session: session.clone() };
    Ok((owner, permit))
}

/// A refresh token of a living session of an active owner is the right to go on with it.
pub(crate) fn go_on(
    session: &OwnerSession,
    owner: &Owner,
    now: Timestamp,
) -> Result<OwnerSessionPermit, Error> {
    if session.is_ended(owner) {
        return Err(wrong_credentials());
    }
    if session.expires_at.is_over(now) {
        return Err(Error::new(Reason::TokenExpired, "the owner session has ended; sign in again"));
    }
    Ok(end_own(session))
}

/// Any credential of a session is the right to end it.
pub(crate) fn end_own(session: &OwnerSession) -> OwnerSessionPermit {
    OwnerSessionPermit { owner: session.owner.clone(), session: session.id.clone() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{ids::CredentialId, role_token::Role};

    fn principal(proof: Proof, role: Role, session_root: bool, unlocked: bool) -> Caller {
        Caller::Principal(Arc::new(Principal {
            proof,
            credential_id: CredentialId::made("crd_1"),
            owner_id: OwnerId::made("o"),
            role,
            roles: Vec::new(),
            session_root,
            issuance: 1,
            expires_at: None,
            elevated_until: unlocked.then(|| Timestamp::from_micros(10)),
            elevated_for: None,
        }))
    }

    /// The whole table, to be read and reviewed. A: allowed, F: FORBIDDEN, R: ROOT_REQUIRED, P: no credential.
    #[test]
    fn the_table() {
        // SW-24, SW-25: column `usr` of the first three rows.
        const TABLE: &[(Act, &str)] = &[
            (Act::ReadRoleTokens, "PFAAFAAFFF"),
            (Act::RevealRoleTokens, "PFAAFRAFFF"),
            (Act::RotateRoleTokens, "PFAAFRAFFF"),
            (Act::ResetRoleTokens, "PFAFFFFFFF"),
            (Act::ApplyAccounts, "PFAFFFFFFF"),
            (Act::ReadOwners, "PFAAFAAFFF"),
            (Act::EditOwners, "PFAAFAAFFF"),
            (Act::ListSessions { own: false }, "PFAAFAAFFF"),
            (Act::ListSessions { own: true }, "PFAAAAAAAF"),
            (Act::EndSessions { own: false }, "PFAAFAAFFF"),
            (Act::EndSessions { own: true }, "PFAAAAAAAF"),
            (Act::Verify, "PAAFFFFFFF"),
            (Act::CreateProject, "PFFAAAAAAF"),
            (Act::AddMember { member: false }, "PFFAFAAFFF"),
            (Act::AddMember { member: true }, "PFFAAAAAAF"),
            (Act::ListProjects, "PFFAAAAAAA"),
            (Act::KnowOneself, "PFFAAAAAAA"),
            (Act::Sweep, "PFAFFFFFFF"),
            (Act::Replicate, "PFAFFFFFFF"),
            (Act::KeepCensus, "PFAFFFFFFF"),
        ];
        let session = || Proof::OwnerSession { session: OwnerSessionId::made("ows_1") };
        let token = || Proof::RoleToken { generation: 1 };
        let project =
            Proof::ProjectToken { project: ProjectId::made("prj_1"), scopes: Vec::new(), agents: Vec::new() };
        let callers = [
            Caller::Nobody,
            Caller::Service("spiffe://x/y".parse().expect("a SPIFFE id")),
            Caller::Host,
            principal(token(), Role::Admin, true, false),
            principal(token(), Role::User, false, false),
            principal(session(), Role::Admin, true, false),
            principal(session(), Role::Admin, true, true),
            principal(session(), Role::User, false, false),
            principal(session(), Role::User, false, true),
            principal(project, Role::Admin, true, true),
        ];
        for (act, expected) in TABLE {
            let found: String = callers
                .iter()
                .map(|caller| match decide(caller, *act, Timestamp::from_micros(5)).map_err(|e| e.reason()) {
                    Ok(()) => 'A',
                    Err(Reason::Forbidden) => 'F',
                    Err(Reason::RootRequired) => 'R',
                    Err(Reason::ProviderAuthFailed) => 'P',
                    Err(other) => panic!("{act:?}: {other}"),
                })
                .collect();
            assert_eq!(&found, expected, "{act:?}");
        }
    }

    #[test]
    fn four_words_in_any_case_are_root() {
        // FN-14
        for role in ["admin", "OWNER", "SuperUser", "rOOt"] {
            assert!(is_session_root(&["user".to_owned(), role.to_owned()]), "{role}");
        }
        for role in ["administrator", "user", "", "root ", "roots", "süperuser"] {
            assert!(!is_session_root(&[role.to_owned()]), "{role}");
        }
    }

    #[test]
    fn elevation_ends_at_its_instant() {
        let caller =
            principal(Proof::OwnerSession { session: OwnerSessionId::made("s") }, Role::Admin, true, true);
        let refused = decide(&caller, Act::RotateRoleTokens, Timestamp::from_micros(10)).expect_err("over");
        assert_eq!(refused.reason(), Reason::RootRequired);
    }
}
