//! [`View`]: what a verb or a query can read, and what it may ask of `policy.rs`.

use interlock_kit::{clock::Timestamp, error::Error};
use interlock_proto::credential::Hash;

use super::{Counters, Found, Rows};
use crate::{
    accounts::Source,
    caller::Call,
    ids::{CredentialId, OwnerId, OwnerSessionId, ProjectId, ProjectName, RequestId},
    owner::{Applied, Owner, Standing},
    owner_session::{Access, OwnerSession, RefreshToken, SessionPlace},
    policy::{self, Act, ProjectPermit},
    project::Project,
    project_token::{ProjectToken, TokenAnswer},
    replica::Replica,
    revocation::Revocation,
    role_token::{Answer, Role, RoleToken, TokenUse},
    root::RootFingerprint,
    sweep::Due,
};

/// The reading side of one transaction.
pub struct View<'t> {
    pub(super) rows: &'t (dyn Rows + 't),
    pub(super) call: &'t Call,
    pub(super) now: Timestamp,
    pub(super) root: Option<RootFingerprint>,
    /// What a query is about, for the audit row of its refusal.
    pub(super) subject: String,
    pub(super) scope: String,
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("now", &self.now).finish_non_exhaustive()
    }
}

impl<'t> View<'t> {
    pub(super) fn new(
        rows: &'t (dyn Rows + 't),
        call: &'t Call,
        now: Timestamp,
        root: Option<RootFingerprint>,
    ) -> Self {
        Self { rows, call, now, root, subject: String::new(), scope: String::new() }
    }
}

impl View<'_> {
    /// The instant of this transaction.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The call.
    #[must_use]
    pub fn call(&self) -> &Call {
        self.call
    }

    /// The root secret that is configured, if one is.
    #[must_use]
    pub fn root(&self) -> Option<RootFingerprint> {
        self.root
    }

    /// Whether the caller may do this.
    ///
    /// # Errors
    /// The refusal of [`policy::decide`].
    pub fn authorize(&self, act: Act) -> Result<(), Error> {
        policy::decide(&self.call.caller, act, self.now)
    }

    /// What a query is about, for the audit row of its refusal.
    pub(crate) fn about(&mut self, subject: &str, project: &ProjectId) {
        subject.clone_into(&mut self.subject);
        project.as_str().clone_into(&mut self.scope);
    }

    /// The same, for what is in no project.
    pub(crate) fn about_owner(&mut self, owner: &OwnerId) {
        owner.as_str().clone_into(&mut self.subject);
    }

    /// Whether the caller acts as this owner.
    pub(crate) fn is_caller(&self, owner: &OwnerId) -> bool {
        self.call.caller.principal().is_some_and(|principal| principal.owner_id == *owner)
    }

    /// Whether the caller is a member of a project, and whether there is one.
    pub(crate) fn own_membership(&self, project: &ProjectId) -> Found<(bool, bool)> {
        let exists = self.rows.project(project)?.is_some();
        let member = match self.call.caller.principal() {
            Some(caller) => exists && self.is_member(project, &caller.owner_id)?,
            None => false,
        };
        Ok((member, exists))
    }

    /// The permit for an act in one project: the caller reaches it, and the call names it, or may go without.
    pub(crate) fn authorize_project(&self, act: Act, project: &ProjectId) -> Result<ProjectPermit, Error> {
        let named = self.call.named.as_ref();
        let permit = policy::project(&self.call.caller, act, project, named, self.now)?;
        if named.is_none() {
            self.call.unscoped.judge(self.now)?;
        }
        Ok(permit)
    }

    pub(crate) fn counters(&self) -> Found<Counters> {
        self.rows.counters()
    }

    pub(crate) fn role_tokens(&self, role: Role) -> Found<Vec<RoleToken>> {
        self.rows.role_tokens(role)
    }

    pub(crate) fn role_token(&self, hash: &Hash) -> Found<Option<RoleToken>> {
        self.rows.role_token(hash)
    }

    pub(crate) fn role_token_uses(&self, role: Role) -> Found<Vec<TokenUse>> {
        self.rows.role_token_uses(role)
    }

    pub(crate) fn answer(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<Answer>> {
        self.rows.answer(owner, request)
    }

    pub(crate) fn owner(&self, id: &OwnerId) -> Found<Option<Owner>> {
        self.rows.owner(id)
    }

    pub(crate) fn any_active_owner(&self) -> Found<bool> {
        self.rows.any_active_owner()
    }

    pub(crate) fn owners(&self, after: Option<&OwnerId>, limit: u32) -> Found<Vec<Owner>> {
        self.rows.owners(after, limit)
    }

    pub(crate) fn owners_stored(&self) -> Found<u64> {
        self.rows.owners_stored()
    }

    pub(crate) fn another_administrator(&self, but: &OwnerId) -> Found<bool> {
        self.rows.another_administrator(but)
    }

    pub(crate) fn applied(&self, source: Source, owner: &OwnerId) -> Found<Option<Applied>> {
        self.rows.applied(source, owner)
    }

    /// What is known of whoever `id` names. `local` and `system` sign in nowhere; `local` may yet be
    /// a member of projects ([`OwnerId::is_local`]).
    pub(crate) fn standing(&self, id: &OwnerId) -> Found<Standing> {
        let (active, administrator) = match id.as_str() {
            "admin" => (true, true),
            "user" => (true, false),
            "local" | "system" => (false, false),
            _ => {
                self.rows.owner(id)?.map_or((false, false), |o| (o.active, policy::is_session_root(&o.roles)))
            }
        };
        Ok(Standing { id: id.clone(), active, administrator })
    }

    pub(crate) fn session_and_owner(&self, id: &OwnerSessionId) -> Found<Option<(OwnerSession, Owner)>> {
        let Some(session) = self.rows.owner_session(id)? else { return Ok(None) };
        let owner = self.rows.owner(&session.owner)?;
        Ok(owner.map(|owner| (session, owner)))
    }

    pub(crate) fn living_sessions(&self, owner: &Owner) -> Found<u64> {
        self.rows.living_sessions(&owner.id, owner.sessions_from, self.now)
    }

    pub(crate) fn owner_sessions(
        &self,
        owner: Option<&OwnerId>,
        after: &SessionPlace,
        limit: u32,
    ) -> Found<Vec<OwnerSession>> {
        self.rows.owner_sessions(owner, after, self.now, limit)
    }

    pub(crate) fn first_session_since(&self, owner: Option<&OwnerId>, at: Timestamp) -> Found<Option<u64>> {
        self.rows.first_session_since(owner, at)
    }

    pub(crate) fn elevated_but_for(
        &self,
        root: Option<RootFingerprint>,
        limit: u32,
    ) -> Found<Vec<OwnerSessionId>> {
        self.rows.elevated_but_for(root, limit)
    }

    pub(crate) fn root_salt(&self) -> Found<[u8; 16]> {
        self.rows.root_salt()
    }

    pub(crate) fn access(&self, hash: &Hash) -> Found<Option<Access>> {
        self.rows.access(hash)
    }

    pub(crate) fn refresh_token(&self, hash: &Hash) -> Found<Option<RefreshToken>> {
        self.rows.refresh_token(hash)
    }

    pub(crate) fn project(&self, id: &ProjectId) -> Found<Option<Project>> {
        self.rows.project(id)
    }

    pub(crate) fn project_named(&self, name: &ProjectName) -> Found<Option<Project>> {
        self.rows.project_named(name)
    }

    pub(crate) fn project_of_request(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<Project>> {
        self.rows.project_of_request(owner, request)
    }

    pub(crate) fn projects_made_by(&self, owner: &OwnerId) -> Found<u64> {
        self.rows.projects_made_by(owner)
    }

    pub(crate) fn is_member(&self, project: &ProjectId, owner: &OwnerId) -> Found<bool> {
        Ok(self.rows.member_since(project, owner)?.is_some())
    }

    pub(crate) fn member_since(&self, project: &ProjectId, owner: &OwnerId) -> Found<Option<u64>> {
        self.rows.member_since(project, owner)
    }

    pub(crate) fn project_token(&self, hash: &Hash) -> Found<Option<ProjectToken>> {
        self.rows.project_token(hash)
    }

    pub(crate) fn project_token_named(&self, id: &CredentialId) -> Found<Option<ProjectToken>> {
        self.rows.project_token_named(id)
    }

    pub(crate) fn tokens_issued_by(&self, issuer: &OwnerId) -> Found<u64> {
        self.rows.tokens_issued_by(issuer)
    }

    pub(crate) fn project_tokens(
        &self,
        permit: &ProjectPermit,
        project: &ProjectId,
        after: u64,
        limit: u32,
    ) -> Found<Vec<ProjectToken>> {
        assert!(permit.covers(project), "a permit for another project");
        self.rows.project_tokens(project, after, limit)
    }

    pub(crate) fn token_answer(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<TokenAnswer>> {
        self.rows.token_answer(owner, request)
    }

    pub(crate) fn projects(
        &self,
        member: Option<&OwnerId>,
        after: Option<&str>,
        limit: u32,
    ) -> Found<Vec<Project>> {
        self.rows.projects(member, after, limit)
    }

    pub(crate) fn revocations(&self, after: u64, limit: u32) -> Found<Vec<Revocation>> {
        self.rows.revocations(after, limit)
    }

    pub(crate) fn revocations_before(&self, at: Timestamp) -> Found<u64> {
        self.rows.revocations_before(at)
    }

    pub(crate) fn replicas(&self) -> Found<Vec<Replica>> {
        self.rows.replicas()
    }

    pub(crate) fn due(&self, limit: u32) -> Found<Vec<Due>> {
        self.rows.due(self.now, limit)
    }
}
