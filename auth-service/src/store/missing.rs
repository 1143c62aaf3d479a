//! Rows that miss what has not been loaded. In tests that is each first look-up, so that every verb is proven to
//! be one that can be run again; there time must stand still, since some look-ups are of an instant.

use interlock_kit::clock::Timestamp;
use interlock_proto::credential::Hash;

use super::{Counters, Found, Key, Loaded, Rows, Sealed, Stop};
use crate::{
    accounts::Source,
    ids::{CredentialId, OwnerId, OwnerSessionId, ProjectId, ProjectName, RequestId},
    owner::{Applied, Owner},
    owner_session::{Access, OwnerSession, RefreshToken, SessionPlace},
    project::Project,
    project_token::{ProjectToken, TokenAnswer},
    replica::Replica,
    revocation::Revocation,
    role_token::{Answer, Role, RoleToken, TokenUse},
    root::RootFingerprint,
    sweep::Due,
};

/// Another engine's rows, behind misses.
pub(super) struct Missing<'t> {
    pub(super) inner: &'t dyn Rows,
    pub(super) loaded: &'t Loaded,
}

impl Missing<'_> {
    fn after(&self, key: Key) -> Found<&dyn Rows> {
        if self.loaded.contains(&key) { Ok(self.inner) } else { Err(Stop::Miss(vec![key])) }
    }
}

impl Sealed for Missing<'_> {}

impl Rows for Missing<'_> {
    fn counters(&self) -> Found<Counters> {
        self.after(Key::Counters)?.counters()
    }

    fn role_tokens(&self, role: Role) -> Found<Vec<RoleToken>> {
        self.after(Key::RoleTokens(role))?.role_tokens(role)
    }

    fn role_token(&self, hash: &Hash) -> Found<Option<RoleToken>> {
        self.after(Key::RoleToken(*hash))?.role_token(hash)
    }

    fn role_token_uses(&self, role: Role) -> Found<Vec<TokenUse>> {
        self.after(Key::RoleTokenUses(role))?.role_token_uses(role)
    }

    fn answer(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<Answer>> {
        self.after(Key::Answer(owner.clone(), request.clone()))?.answer(owner, request)
    }

    fn owner(&self, id: &OwnerId) -> Found<Option<Owner>> {
        self.after(Key::Owner(id.clone()))?.owner(id)
    }

    fn any_active_owner(&self) -> Found<bool> {
        self.after(Key::AnyActiveOwner)?.any_active_owner()
    }

    fn owners(&self, after: Option<&OwnerId>, limit: u32) -> Found<Vec<Owner>> {
        self.after(Key::Owners(after.cloned(), limit))?.owners(after, limit)
    }

    fn owners_stored(&self) -> Found<u64> {
        self.after(Key::OwnersStored)?.owners_stored()
    }

    fn another_administrator(&self, but: &OwnerId) -> Found<bool> {
        self.after(Key::Administrators)?.another_administrator(but)
    }

    fn applied(&self, source: Source, owner: &OwnerId) -> Found<Option<Applied>> {
        self.after(Key::Applied(source, owner.clone()))?.applied(source, owner)
    }

    fn owner_session(&self, id: &OwnerSessionId) -> Found<Option<OwnerSession>> {
        self.after(Key::OwnerSession(id.clone()))?.owner_session(id)
    }

    fn living_sessions(&self, owner: &OwnerId, from: u64, now: Timestamp) -> Found<u64> {
        self.after(Key::LivingSessions(owner.clone()))?.living_sessions(owner, from, now)
    }

    fn owner_sessions(
        &self,
        owner: Option<&OwnerId>,
        after: &SessionPlace,
        now: Timestamp,
        limit: u32,
    ) -> Found<Vec<OwnerSession>> {
        self.after(Key::OwnerSessions(owner.cloned(), after.clone(), now, limit))?
            .owner_sessions(owner, after, now, limit)
    }

    fn first_session_since(&self, owner: Option<&OwnerId>, at: Timestamp) -> Found<Option<u64>> {
        self.after(Key::FirstSessionSince(owner.cloned(), at))?.first_session_since(owner, at)
    }

    fn elevated_but_for(&self, root: Option<RootFingerprint>, limit: u32) -> Found<Vec<OwnerSessionId>> {
        self.after(Key::ElevatedButFor(root, limit))?.elevated_but_for(root, limit)
    }

    fn root_salt(&self) -> Found<[u8; 16]> {
        self.after(Key::RootSalt)?.root_salt()
    }

    fn access(&self, hash: &Hash) -> Found<Option<Access>> {
        self.after(Key::Access(*hash))?.access(hash)
    }

    fn refresh_token(&self, hash: &Hash) -> Found<Option<RefreshToken>> {
        self.after(Key::RefreshToken(*hash))?.refresh_token(hash)
    }

    fn project(&self, id: &ProjectId) -> Found<Option<Project>> {
        self.after(Key::Project(id.clone()))?.project(id)
    }

    fn project_named(&self, name: &ProjectName) -> Found<Option<Project>> {
        self.after(Key::ProjectNamed(name.clone()))?.project_named(name)
    }

    fn project_of_request(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<Project>> {
        self.after(Key::ProjectOfRequest(owner.clone(), request.clone()))?.project_of_request(owner, request)
    }

    fn projects_made_by(&self, owner: &OwnerId) -> Found<u64> {
        self.after(Key::ProjectsMadeBy(owner.clone()))?.projects_made_by(owner)
    }

    fn member_since(&self, project: &ProjectId, owner: &OwnerId) -> Found<Option<u64>> {
        self.after(Key::Member(project.clone(), owner.clone()))?.member_since(project, owner)
    }

    fn project_token(&self, hash: &Hash) -> Found<Option<ProjectToken>> {
        self.after(Key::ProjectToken(*hash))?.project_token(hash)
    }

    fn project_token_named(&self, id: &CredentialId) -> Found<Option<ProjectToken>> {
        self.after(Key::ProjectTokenNamed(id.clone()))?.project_token_named(id)
    }

    fn tokens_issued_by(&self, issuer: &OwnerId) -> Found<u64> {
        self.after(Key::TokensIssuedBy(issuer.clone()))?.tokens_issued_by(issuer)
    }

    fn project_tokens(&self, project: &ProjectId, after: u64, limit: u32) -> Found<Vec<ProjectToken>> {
        self.after(Key::ProjectTokens(project.clone(), after, limit))?.project_tokens(project, after, limit)
    }

    fn token_answer(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<TokenAnswer>> {
        self.after(Key::TokenAnswer(owner.clone(), request.clone()))?.token_answer(owner, request)
    }

    fn projects(&self, member: Option<&OwnerId>, after: Option<&str>, limit: u32) -> Found<Vec<Project>> {
        self.after(Key::Projects(member.cloned(), after.map(str::to_owned), limit))?
            .projects(member, after, limit)
    }

    fn revocations(&self, after: u64, limit: u32) -> Found<Vec<Revocation>> {
        self.after(Key::Revocations(after, limit))?.revocations(after, limit)
    }

    fn revocations_before(&self, at: Timestamp) -> Found<u64> {
        let earlier = self.loaded.range(Key::before_all()..=Key::RevocationsBefore(at)).next_back();
        self.after(earlier.cloned().unwrap_or(Key::RevocationsBefore(at)))?.revocations_before(at)
    }

    fn replicas(&self) -> Found<Vec<Replica>> {
        self.after(Key::Replicas)?.replicas()
    }

    fn due(&self, now: Timestamp, limit: u32) -> Found<Vec<Due>> {
        self.after(Key::Due(now, limit))?.due(now, limit)
    }
}
