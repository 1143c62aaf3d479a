//! The door to the store: what a verb can read, and what it can write with which permit.
//!
//! - [`Shell`] runs a [`Verb`] in a transaction, a [`Query`] on a snapshot, for a [`crate::caller::Call`].
//! - [`View`] reads. [`Tx`] is a view that also plans writes; each takes the permit of `policy.rs`.
//! - `Rows` is what an engine does: a few keyed reads. Nothing outside this folder reaches it.
//!
//! Each refusal of a known principal leaves exactly one audit row, written here and nowhere else (beyond a rate
//! it is counted for one); each
//! verb that plans changes must plan exactly one audit row of its own.

use std::collections::BTreeSet;

use interlock_kit::{
    clock::Timestamp,
    store::{self as kit, Domain, audit::Keeping},
};
use interlock_proto::credential::Hash;

pub use self::{shell::Shell, tx::Tx, view::View};
use crate::{
    accounts::Source,
    elevation::Elevation,
    ids::{CredentialId, OwnerId, OwnerSessionId, ProjectId, ProjectName, ReplicaId, RequestId},
    owner::{Applied, Owner},
    owner_session::{Access, OwnerSession, RefreshToken, SessionPlace, Successor},
    password::PasswordHash,
    project::Project,
    project_token::{Ended, ProjectToken, TokenAnswer},
    replica::Replica,
    revocation::Revocation,
    role_token::{Answer, Role, RoleToken, TokenUse},
    root::RootFingerprint,
    sweep::Due,
};

mod missing;
mod model;
mod postgres;
mod shell;
mod sqlite;
mod tx;
mod view;

pub use model::Model;

/// The auth service's store.
#[derive(Debug)]
pub struct Auth;

impl Domain for Auth {
    type Rows<'t> = dyn Rows + 't;
    type Key = Key;
    type Change = Change;
    type Signal = Signal;
    type Question = Never;
}

/// Verbs of this service ask nothing outside their transaction.
#[derive(Debug)]
pub enum Never {}

/// Why a verb stopped.
pub type Stop = kit::Stop<Auth>;

/// One thing done in one transaction. Runs any number of times with the same result.
pub trait Verb: Send + 'static {
    /// Its answer.
    type Out: Send + 'static;
    /// Whether it takes rights away: it is done on a full disk too, in the space that is kept for that.
    const REVOKES: bool = false;

    /// Reads, decides, plans.
    ///
    /// # Errors
    /// The refusal, or what the engine needs first.
    fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Stop>;
}

/// One thing read from one snapshot.
pub trait Query: Send + 'static {
    /// Its answer.
    type Out: Send + 'static;

    /// Reads and decides.
    ///
    /// # Errors
    /// The refusal, or what the engine needs first.
    fn run(&self, view: &mut View<'_>) -> Result<Self::Out, Stop>;
}

/// Told after a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The revocation log has a new row.
    Revoked(Revocation),
    /// Role tokens were stored or replaced.
    RoleTokensChanged(Role),
    /// Another program has added to the revocation log.
    LogGrown,
    /// A revocation has reached all verifiers of a program that shares the store.
    Reached,
}

type Found<T> = Result<T, Stop>;

/// What an engine reads. Everything a decision rests on is read here, in the deciding transaction.
pub trait Rows: Sealed {
    /// The numbers given out last.
    fn counters(&self) -> Found<Counters>;
    /// All stored generations of a role, newest first.
    fn role_tokens(&self, role: Role) -> Found<Vec<RoleToken>>;
    /// One role token.
    fn role_token(&self, hash: &Hash) -> Found<Option<RoleToken>>;
    /// Who used the generations of a role, by token, service and source.
    fn role_token_uses(&self, role: Role) -> Found<Vec<TokenUse>>;
    /// The stored answer to a rotation.
    fn answer(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<Answer>>;
    /// An account.
    fn owner(&self, id: &OwnerId) -> Found<Option<Owner>>;
    /// Whether any account can sign in.
    fn any_active_owner(&self) -> Found<bool>;
    /// Owners by id, but for removed ones.
    fn owners(&self, after: Option<&OwnerId>, limit: u32) -> Found<Vec<Owner>>;
    /// How many owners are stored, removed ones included. A bound is held against it, nothing else.
    fn owners_stored(&self) -> Found<u64>;
    /// Whether there is another administrator who can sign in.
    fn another_administrator(&self, but: &OwnerId) -> Found<bool>;
    /// What a source said of an owner.
    fn applied(&self, source: Source, owner: &OwnerId) -> Found<Option<Applied>>;
    /// An owner session.
    fn owner_session(&self, id: &OwnerSessionId) -> Found<Option<OwnerSession>>;
    /// How many of an owner's sessions have not ended at `now`, of those issued from `from` on.
    fn living_sessions(&self, owner: &OwnerId, from: u64, now: Timestamp) -> Found<u64>;
    /// Living owner sessions at `now`, by owner and number: all, or one owner's.
    fn owner_sessions(
        &self,
        owner: Option<&OwnerId>,
        after: &SessionPlace,
        now: Timestamp,
        limit: u32,
    ) -> Found<Vec<OwnerSession>>;
    /// The issuance number of the first owner session that began at `at` or later, of an owner or of all. Numbers
    /// grow with time: those that began before have smaller ones.
    fn first_session_since(&self, owner: Option<&OwnerId>, at: Timestamp) -> Found<Option<u64>>;
    /// Owner sessions with an elevation that stands on another root secret than `root`; any, where there is none.
    fn elevated_but_for(&self, root: Option<RootFingerprint>, limit: u32) -> Found<Vec<OwnerSessionId>>;
    /// What the root password is hashed with by programs that share this store.
    fn root_salt(&self) -> Found<[u8; 16]>;
    /// An access token.
    fn access(&self, hash: &Hash) -> Found<Option<Access>>;
    /// A refresh token.
    fn refresh_token(&self, hash: &Hash) -> Found<Option<RefreshToken>>;
    /// A project.
    fn project(&self, id: &ProjectId) -> Found<Option<Project>>;
    /// A project by its name.
    fn project_named(&self, name: &ProjectName) -> Found<Option<Project>>;
    /// The project that a request made.
    fn project_of_request(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<Project>>;
    /// How many projects an owner has made.
    fn projects_made_by(&self, owner: &OwnerId) -> Found<u64>;
    /// The last issuance number when an owner became a member; `None`: is none.
    fn member_since(&self, project: &ProjectId, owner: &OwnerId) -> Found<Option<u64>>;
    /// A project token.
    fn project_token(&self, hash: &Hash) -> Found<Option<ProjectToken>>;
    /// A project token by its public handle.
    fn project_token_named(&self, id: &CredentialId) -> Found<Option<ProjectToken>>;
    /// How many tokens of an issuer are kept.
    fn tokens_issued_by(&self, issuer: &OwnerId) -> Found<u64>;
    /// A project's tokens with a larger issuance number, oldest first.
    fn project_tokens(&self, project: &ProjectId, after: u64, limit: u32) -> Found<Vec<ProjectToken>>;
    /// The stored answer to a request that made a token.
    fn token_answer(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<TokenAnswer>>;
    /// Projects by name, all or those with this member.
    fn projects(&self, member: Option<&OwnerId>, after: Option<&str>, limit: u32) -> Found<Vec<Project>>;
    /// A part of the revocation log.
    fn revocations(&self, after: u64, limit: u32) -> Found<Vec<Revocation>>;
    /// The last row of the log that is older than `at`; 0 if none is.
    fn revocations_before(&self, at: Timestamp) -> Found<u64>;
    /// The rows of all programs that share the store.
    fn replicas(&self) -> Found<Vec<Replica>>;
    /// What has ended at `now`, but for the log.
    fn due(&self, now: Timestamp, limit: u32) -> Found<Vec<Due>>;
}

mod sealed {
    /// Only engines of this crate have rows.
    pub trait Sealed {}
}
use sealed::Sealed;

/// Numbers that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The last issuance number.
    pub issuance: u64,
    /// The last row of the revocation log.
    pub revocation: u64,
    /// The last row of the log that was dropped.
    pub pruned: u64,
}

/// The name of a read, for engines that load before they run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// [`Rows::counters`].
    Counters,
    /// [`Rows::role_tokens`].
    RoleTokens(Role),
    /// [`Rows::role_token`].
    RoleToken(Hash),
    /// [`Rows::role_token_uses`].
    RoleTokenUses(Role),
    /// [`Rows::answer`].
    Answer(OwnerId, RequestId),
    /// [`Rows::owner`].
    Owner(OwnerId),
    /// [`Rows::any_active_owner`].
    AnyActiveOwner,
    /// [`Rows::owners`].
    Owners(Option<OwnerId>, u32),
    /// [`Rows::owners_stored`].
    OwnersStored,
    /// [`Rows::another_administrator`], for whomever it is asked.
    Administrators,
    /// [`Rows::applied`].
    Applied(Source, OwnerId),
    /// [`Rows::owner_session`].
    OwnerSession(OwnerSessionId),
    /// [`Rows::living_sessions`].
    LivingSessions(OwnerId),
    /// [`Rows::owner_sessions`].
    OwnerSessions(Option<OwnerId>, SessionPlace, Timestamp, u32),
    /// [`Rows::first_session_since`].
    FirstSessionSince(Option<OwnerId>, Timestamp),
    /// [`Rows::elevated_but_for`].
    ElevatedButFor(Option<RootFingerprint>, u32),
    /// [`Rows::root_salt`].
    RootSalt,
    /// [`Rows::access`].
    Access(Hash),
    /// [`Rows::refresh_token`].
    RefreshToken(Hash),
    /// [`Rows::project`].
    Project(ProjectId),
    /// [`Rows::project_named`].
    ProjectNamed(ProjectName),
    /// [`Rows::project_of_request`].
    ProjectOfRequest(OwnerId, RequestId),
    /// [`Rows::projects_made_by`].
    ProjectsMadeBy(OwnerId),
    /// [`Rows::member_since`].
    Member(ProjectId, OwnerId),
    /// [`Rows::project_token`].
    ProjectToken(Hash),
    /// [`Rows::project_token_named`].
    ProjectTokenNamed(CredentialId),
    /// [`Rows::tokens_issued_by`].
    TokensIssuedBy(OwnerId),
    /// [`Rows::project_tokens`].
    ProjectTokens(ProjectId, u64, u32),
    /// [`Rows::token_answer`].
    TokenAnswer(OwnerId, RequestId),
    /// [`Rows::projects`].
    Projects(Option<OwnerId>, Option<String>, u32),
    /// [`Rows::revocations`].
    Revocations(u64, u32),
    /// [`Rows::revocations_before`].
    RevocationsBefore(Timestamp),
    /// [`Rows::replicas`].
    Replicas,
    /// [`Rows::due`].
    Due(Timestamp, u32),
}

impl Key {
    /// Before every [`Key::RevocationsBefore`]: what was asked of an earlier instant does for a later one.
    pub(crate) fn before_all() -> Self {
        Self::RevocationsBefore(Timestamp::from_micros(i64::MIN))
    }
}

/// One planned write. Each meets exactly the rows that it was planned on, or the store is broken. Its
/// fields are the crate's own: outside, only [`Tx`] plans changes.
#[derive(Clone, Debug)]
pub struct Change(pub(crate) Planned);

/// The writes there are.
#[derive(Clone, Debug)]
pub(crate) enum Planned {
    Counters {
        from: Counters,
        to: Counters,
    },
    InsertRoleToken(RoleToken),
    EndRoleToken(Hash),
    LimitRoleToken {
        hash: Hash,
        valid_until: Timestamp,
    },
    /// A candidate becomes the present one.
    PromoteRoleToken(Hash),
    PutTokenUse {
        /// How often it had been noted, where there is one.
        was: Option<u64>,
        used: TokenUse,
    },
    DropTokenUse(TokenUse),
    PutAnswer {
        replaces: bool,
        answer: Answer,
    },
    InsertOwner(Owner),
    UpdateOwner {
        was: u64,
        owner: Owner,
    },
    Rehash {
        owner: OwnerId,
        version: u64,
        hash: PasswordHash,
    },
    PutApplied {
        replaces: bool,
        applied: Applied,
    },
    ForgetApplied {
        source: Source,
        owner: OwnerId,
    },
    InsertOwnerSession(OwnerSession),
    EndOwnerSession {
        id: OwnerSessionId,
        at: Timestamp,
    },
    /// Owner sessions with a smaller issuance number, of every owner.
    EndSessionsBefore(u64),
    CountRefresh {
        id: OwnerSessionId,
        was: u32,
    },
    SetElevation {
        id: OwnerSessionId,
        was: Option<Elevation>,
        elevation: Option<Elevation>,
    },
    InsertAccess(Access),
    InsertRefresh(RefreshToken),
    UseRefresh {
        hash: Hash,
        answer: Successor,
    },
    SpendRefresh(Hash),
    InsertProject(Project),
    InsertMember {
        project: ProjectId,
        owner: OwnerId,
        at: Timestamp,
        since: u64,
    },
    RemoveMember {
        project: ProjectId,
        owner: OwnerId,
    },
    InsertProjectToken(ProjectToken),
    ReplaceProjectToken {
        hash: Hash,
        expires_at: Timestamp,
    },
    EndProjectToken {
        hash: Hash,
        ended: Ended,
    },
    PutTokenAnswer {
        replaces: bool,
        answer: TokenAnswer,
    },
    Revoke(Revocation),
    Clear(Due),
    PutReplica {
        was: Option<u64>,
        grown: bool,
        replica: Replica,
    },
    DropReplica {
        id: ReplicaId,
        beat: u64,
    },
    KeepLog(Keeping),
}

/// The keys that an engine has loaded.
pub(crate) type Loaded = BTreeSet<Key>;
