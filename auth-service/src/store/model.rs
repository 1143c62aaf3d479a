//! Plain maps: the twin that the SQL is compared with.

use std::collections::BTreeMap;

use interlock_kit::{
    clock::Timestamp,
    store::{Fault, model::ModelDomain},
};
use interlock_proto::credential::Hash;

use super::{Auth, Change, Counters, Found, Planned, Rows, Sealed, Signal};
use crate::{
    accounts::Source,
    ids::{CredentialId, OwnerId, OwnerSessionId, ProjectId, ProjectName, ReplicaId, RequestId},
    owner::{Applied, Owner},
    owner_session::{Access, OwnerSession, RefreshState, RefreshToken, SessionPlace},
    project::Project,
    project_token::{ProjectToken, TokenAnswer},
    replica::Replica,
    revocation::Revocation,
    role_token::{Answer, Role, RoleToken, TokenUse},
    root::RootFingerprint,
    sweep::Due,
};

/// All rows, for tests to look at.
#[derive(Clone, Debug)]
pub struct Model {
    /// The numbers given out last.
    pub counters: Counters,
    /// By hash.
    pub role_tokens: BTreeMap<Hash, RoleToken>,
    /// By token, service and source.
    pub token_uses: BTreeMap<(Hash, String, String), TokenUse>,
    /// By owner and request.
    pub answers: BTreeMap<(OwnerId, RequestId), Answer>,
    /// By id.
    pub owners: BTreeMap<OwnerId, Owner>,
    /// By source and owner.
    pub applied: BTreeMap<(Source, OwnerId), Applied>,
    /// By id.
    pub sessions: BTreeMap<OwnerSessionId, OwnerSession>,
    /// By hash.
    pub access: BTreeMap<Hash, Access>,
    /// By hash.
    pub refresh: BTreeMap<Hash, RefreshToken>,
    /// By id.
    pub projects: BTreeMap<ProjectId, Project>,
    /// Who is a member of what, and since which issuance number.
    pub members: BTreeMap<(ProjectId, OwnerId), u64>,
    /// By hash.
    pub project_tokens: BTreeMap<Hash, ProjectToken>,
    /// By owner and request.
    pub token_answers: BTreeMap<(OwnerId, RequestId), TokenAnswer>,
    /// By sequence.
    pub revocations: BTreeMap<u64, Revocation>,
    /// By id.
    pub replicas: BTreeMap<ReplicaId, Replica>,
}

impl Default for Model {
    fn default() -> Self {
        let system = Project {
            id: ProjectId::system(),
            name: ProjectName::made("system"),
            created_by: OwnerId::made("system"),
            request: None,
            created_at: Timestamp::default(),
        };
        Self {
            counters: Counters::default(),
            role_tokens: BTreeMap::new(),
            token_uses: BTreeMap::new(),
            answers: BTreeMap::new(),
            owners: BTreeMap::new(),
            applied: BTreeMap::new(),
            sessions: BTreeMap::new(),
            access: BTreeMap::new(),
            refresh: BTreeMap::new(),
            projects: BTreeMap::from([(system.id.clone(), system)]),
            members: BTreeMap::new(),
            project_tokens: BTreeMap::new(),
            token_answers: BTreeMap::new(),
            revocations: BTreeMap::new(),
            replicas: BTreeMap::new(),
        }
    }
}

impl ModelDomain for Auth {
    type Model = Model;

    fn model_rows(model: &mut Model, work: &mut dyn FnMut(&mut Self::Rows<'_>)) {
        work(model);
    }

    fn model_apply(
        model: &mut Model,
        change: Change,
        _now: Timestamp,
        signals: &mut Vec<Signal>,
    ) -> Result<(), Fault> {
        if let Planned::Revoke(row) = &change.0 {
            signals.push(Signal::Revoked(row.clone()));
        }
        if let Planned::InsertRoleToken(token) = &change.0 {
            signals.push(Signal::RoleTokensChanged(token.role));
        }
        if let Planned::PutReplica { grown: true, .. } = &change.0 {
            signals.push(Signal::Reached);
        }
        model.apply(change.0)
    }
}

impl Sealed for Model {}

impl Rows for Model {
    fn counters(&self) -> Found<Counters> {
        Ok(self.counters)
    }

    fn role_tokens(&self, role: Role) -> Found<Vec<RoleToken>> {
        let mut found: Vec<_> = self.role_tokens.values().filter(|t| t.role == role).cloned().collect();
        found.sort_by_key(|token| std::cmp::Reverse(token.generation));
        Ok(found)
    }

    fn role_token(&self, hash: &Hash) -> Found<Option<RoleToken>> {
        Ok(self.role_tokens.get(hash).cloned())
    }

    fn role_token_uses(&self, role: Role) -> Found<Vec<TokenUse>> {
        Ok(self.token_uses.values().filter(|used| used.role == role).cloned().collect())
    }

    fn answer(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<Answer>> {
        Ok(self.answers.get(&(owner.clone(), request.clone())).cloned())
    }

    fn owner(&self, id: &OwnerId) -> Found<Option<Owner>> {
        Ok(self.owners.get(id).cloned())
    }

    fn any_active_owner(&self) -> Found<bool> {
        Ok(self.owners.values().any(|owner| owner.active))
    }

    fn owners(&self, after: Option<&OwnerId>, limit: u32) -> Found<Vec<Owner>> {
        let living = self.owners.values().filter(|owner| !owner.is_removed());
        let later = living.filter(|owner| after.is_none_or(|after| owner.id > *after));
        Ok(later.take(limit as usize).cloned().collect())
    }

    fn owners_stored(&self) -> Found<u64> {
        Ok(self.owners.len() as u64)
    }

    fn another_administrator(&self, but: &OwnerId) -> Found<bool> {
        Ok(self.owners.values().any(|owner| owner.id != *but && owner.is_administrator()))
    }

    fn applied(&self, source: Source, owner: &OwnerId) -> Found<Option<Applied>> {
        Ok(self.applied.get(&(source, owner.clone())).cloned())
    }

    fn owner_session(&self, id: &OwnerSessionId) -> Found<Option<OwnerSession>> {
        Ok(self.sessions.get(id).cloned())
    }

    fn living_sessions(&self, owner: &OwnerId, from: u64, now: Timestamp) -> Found<u64> {
        let living = |s: &&OwnerSession| {
            s.owner == *owner && s.issuance >= from && s.ended_at.is_none() && !s.expires_at.is_over(now)
        };
        Ok(self.sessions.values().filter(living).count() as u64)
    }

    fn owner_sessions(
        &self,
        owner: Option<&OwnerId>,
        after: &SessionPlace,
        now: Timestamp,
        limit: u32,
    ) -> Found<Vec<OwnerSession>> {
        let lives = |s: &OwnerSession| {
            !s.expires_at.is_over(now) && self.owners.get(&s.owner).is_some_and(|o| !s.is_ended(o))
        };
        let later =
            |s: &&OwnerSession| owner.is_none_or(|owner| s.owner == *owner) && s.place() > *after && lives(s);
        let mut found: Vec<_> = self.sessions.values().filter(later).cloned().collect();
        found.sort_by_key(OwnerSession::place);
        found.truncate(limit as usize);
        Ok(found)
    }

    fn first_session_since(&self, owner: Option<&OwnerId>, at: Timestamp) -> Found<Option<u64>> {
        let since = |s: &&OwnerSession| owner.is_none_or(|owner| s.owner == *owner) && s.created_at >= at;
        Ok(self.sessions.values().filter(since).map(|s| s.issuance).min())
    }

    fn elevated_but_for(&self, root: Option<RootFingerprint>, limit: u32) -> Found<Vec<OwnerSessionId>> {
        let other = |s: &&OwnerSession| s.elevation.is_some_and(|elevation| Some(elevation.root) != root);
        Ok(self.sessions.values().filter(other).take(limit as usize).map(|s| s.id.clone()).collect())
    }

    fn root_salt(&self) -> Found<[u8; 16]> {
        Ok([0; 16])
    }

    fn access(&self, hash: &Hash) -> Found<Option<Access>> {
        Ok(self.access.get(hash).cloned())
    }

    fn refresh_token(&self, hash: &Hash) -> Found<Option<RefreshToken>> {
        Ok(self.refresh.get(hash).cloned())
    }

    fn project(&self, id: &ProjectId) -> Found<Option<Project>> {
        Ok(self.projects.get(id).cloned())
    }

    fn project_named(&self, name: &ProjectName) -> Found<Option<Project>> {
        Ok(self.projects.values().find(|project| project.name == *name).cloned())
    }

    fn project_of_request(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<Project>> {
        let made = |p: &&Project| p.created_by == *owner && p.request.as_ref() == Some(request);
        Ok(self.projects.values().find(made).cloned())
    }

    fn projects_made_by(&self, owner: &OwnerId) -> Found<u64> {
        Ok(self.projects.values().filter(|project| project.created_by == *owner).count() as u64)
    }

    fn member_since(&self, project: &ProjectId, owner: &OwnerId) -> Found<Option<u64>> {
        Ok(self.members.get(&(project.clone(), owner.clone())).copied())
    }

    fn project_token(&self, hash: &Hash) -> Found<Option<ProjectToken>> {
        Ok(self.project_tokens.get(hash).cloned())
    }

    fn project_token_named(&self, id: &CredentialId) -> Found<Option<ProjectToken>> {
        Ok(self.project_tokens.values().find(|token| token.id == *id).cloned())
    }

    fn tokens_issued_by(&self, issuer: &OwnerId) -> Found<u64> {
        Ok(self.project_tokens.values().filter(|token| token.issuer == *issuer).count() as u64)
    }

    fn project_tokens(&self, project: &ProjectId, after: u64, limit: u32) -> Found<Vec<ProjectToken>> {
        let of = |token: &&ProjectToken| token.project == *project && token.issuance > after;
        let mut found: Vec<_> = self.project_tokens.values().filter(of).cloned().collect();
        found.sort_by_key(|token| token.issuance);
        found.truncate(limit as usize);
        Ok(found)
    }

    fn token_answer(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<TokenAnswer>> {
        Ok(self.token_answers.get(&(owner.clone(), request.clone())).cloned())
    }

    fn projects(&self, member: Option<&OwnerId>, after: Option<&str>, limit: u32) -> Found<Vec<Project>> {
        let entered = |p: &&Project| {
            member.is_none_or(|owner| self.members.contains_key(&(p.id.clone(), owner.clone())))
        };
        let mut found: Vec<_> = self
            .projects
            .values()
            .filter(entered)
            .filter(|project| after.is_none_or(|after| project.name.as_str() > after))
            .cloned()
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found.truncate(limit as usize);
        Ok(found)
    }

    fn revocations(&self, after: u64, limit: u32) -> Found<Vec<Revocation>> {
        Ok(self.revocations.range(after + 1..).take(limit as usize).map(|(_, row)| row.clone()).collect())
    }

    fn revocations_before(&self, at: Timestamp) -> Found<u64> {
        Ok(self.revocations.values().filter(|row| row.at < at).map(|row| row.sequence).max().unwrap_or(0))
    }

    fn replicas(&self) -> Found<Vec<Replica>> {
        Ok(self.replicas.values().cloned().collect())
    }

    fn due(&self, now: Timestamp, limit: u32) -> Found<Vec<Due>> {
        let tokens =
            self.role_tokens.values().filter(|t| t.is_clearable(now)).map(|t| Due::RoleToken(t.hash));
        let clearable = |s: &&OwnerSession| self.owners.get(&s.owner).is_some_and(|o| s.is_clearable(o, now));
        let sessions = self.sessions.values().filter(clearable).map(|s| Due::OwnerSession(s.id.clone()));
        let lapsed = |s: &&OwnerSession| s.elevation.is_some_and(|elevation| elevation.until.is_over(now));
        let elevations = self.sessions.values().filter(lapsed).map(|s| Due::Elevation(s.id.clone()));
        let access = self.access.values().filter(|a| a.is_clearable(now)).map(|a| Due::Access(a.hash));
        let is_over =
            |t: &&RefreshToken| matches!(&t.state, RefreshState::Used(a) if a.ends_at().is_over(now));
        let successors = self.refresh.values().filter(is_over).map(|t| Due::Successor(t.hash));
        let answers = self.answers.values().filter(|a| a.ends_at.is_over(now));
        let answers = answers.map(|a| Due::Answer(a.owner.clone(), a.request.clone()));
        let made = self.token_answers.values().filter(|a| a.ends_at.is_over(now));
        let made = made.map(|a| Due::TokenAnswer(a.owner.clone(), a.request.clone()));
        let of_projects = self.project_tokens.values().filter(|token| token.is_clearable(now));
        let of_projects = of_projects.map(|token| Due::ProjectToken(token.hash));
        Ok(successors
            .chain(answers)
            .chain(elevations)
            .chain(made)
            .chain(tokens)
            .chain(sessions)
            .chain(access)
            .chain(of_projects)
            .take(limit as usize)
            .collect())
    }
}

fn put<K: Ord, V>(
    map: &mut BTreeMap<K, V>,
    key: K,
    value: V,
    replaces: bool,
    what: &str,
) -> Result<(), Fault> {
    let was = usize::from(map.insert(key, value).is_some());
    if was == usize::from(replaces) {
        Ok(())
    } else {
        Err(Fault::Broken(format!("{what}: put over {was} rows")))
    }
}

fn one<'m, K: Ord, V>(map: &'m mut BTreeMap<K, V>, key: &K, what: &str) -> Result<&'m mut V, Fault> {
    map.get_mut(key).ok_or_else(|| Fault::Broken(format!("{what}: no row")))
}

fn only(condition: bool, what: &str) -> Result<(), Fault> {
    Fault::unless_one(usize::from(condition), what)
}

impl Model {
    fn apply(&mut self, change: Planned) -> Result<(), Fault> {
        match change {
            Planned::Counters { from, to } => {
                only(self.counters == from, "counters")?;
                self.counters = to;
            }
            Planned::InsertRoleToken(token) => {
                let is_one = |t: &RoleToken| t.valid_until.is_none() && t.candidate == token.candidate;
                let doubled =
                    |t: &RoleToken| t.role == token.role && (t.generation == token.generation || is_one(t));
                only(!self.role_tokens.values().any(doubled), "present role token")?;
                put(&mut self.role_tokens, token.hash, token, false, "role token")?;
            }
            Planned::EndRoleToken(hash) => self.end_role_token(&hash)?,
            Planned::PromoteRoleToken(hash) => {
                let token = one(&mut self.role_tokens, &hash, "role token")?;
                only(std::mem::replace(&mut token.candidate, false), "candidate")?;
                let role = token.role;
                let present = self.role_tokens.values().filter(|t| t.role == role && t.is_present());
                only(present.count() == 1, "present role token")?;
            }
            Planned::PutTokenUse { was, used } => {
                let key = (used.token, used.service.clone(), used.source.clone());
                let stored = self.token_uses.insert(key, used).map(|stored| stored.noted);
                only(stored == was, "use of a role token")?;
            }
            Planned::DropTokenUse(used) => {
                let dropped = self.token_uses.remove(&(used.token, used.service, used.source));
                only(dropped.is_some(), "use of a role token")?;
            }
            Planned::LimitRoleToken { hash, valid_until } => {
                let token = one(&mut self.role_tokens, &hash, "role token")?;
                only(token.valid_until.replace(valid_until).is_none(), "limit of role token")?;
            }
            Planned::PutAnswer { replaces, answer } => {
                let key = (answer.owner.clone(), answer.request.clone());
                put(&mut self.answers, key, answer, replaces, "answer")?;
            }
            Planned::InsertOwner(owner) => put(&mut self.owners, owner.id.clone(), owner, false, "owner")?,
            Planned::UpdateOwner { was, owner } => {
                let stored = one(&mut self.owners, &owner.id, "owner")?;
                only(stored.version == was, "version of owner")?;
                *stored = owner;
            }
            Planned::EndSessionsBefore(number) => {
                for owner in self.owners.values_mut() {
                    owner.sessions_from = owner.sessions_from.max(number);
                }
            }
            Planned::Rehash { owner, version, hash } => {
                let stored = one(&mut self.owners, &owner, "owner")?;
                only(stored.version == version, "version of owner")?;
                stored.password = hash;
            }
            Planned::PutApplied { replaces, applied } => {
                put(
                    &mut self.applied,
                    (applied.source, applied.owner.clone()),
                    applied,
                    replaces,
                    "applied",
                )?;
            }
            Planned::ForgetApplied { source, owner } => {
                only(self.applied.remove(&(source, owner)).is_some(), "applied")?;
            }
            Planned::InsertProject(project) => {
                only(!self.projects.values().any(|p| p.name == project.name), "name of project")?;
                put(&mut self.projects, project.id.clone(), project, false, "project")?;
            }
            Planned::InsertMember { project, owner, since, .. } => {
                put(&mut self.members, (project, owner), since, false, "member")?;
            }
            Planned::RemoveMember { project, owner } => {
                only(self.members.remove(&(project, owner)).is_some(), "member")?;
            }
            Planned::InsertProjectToken(_)
            | Planned::ReplaceProjectToken { .. }
            | Planned::EndProjectToken { .. }
            | Planned::PutTokenAnswer { .. } => self.apply_to_token(change)?,
            Planned::Revoke(row) => put(&mut self.revocations, row.sequence, row, false, "revocation")?,
            Planned::Clear(due) => self.clear(due)?,
            Planned::PutReplica { was, replica, .. } => {
                only(self.replicas.get(&replica.id).map(|stored| stored.beat) == was, "beat of a program")?;
                self.replicas.insert(replica.id.clone(), replica);
            }
            Planned::DropReplica { id, beat } => {
                let dropped = self.replicas.remove(&id);
                only(dropped.is_some_and(|stored| stored.beat == beat), "beat of a program")?;
            }
            // Beside the rows of a service; a plain store's log is looked at by nobody else.
            Planned::KeepLog(_) => {}
            Planned::InsertOwnerSession(_)
            | Planned::EndOwnerSession { .. }
            | Planned::CountRefresh { .. }
            | Planned::SetElevation { .. }
            | Planned::InsertAccess(_)
            | Planned::InsertRefresh(_)
            | Planned::UseRefresh { .. }
            | Planned::SpendRefresh(_) => self.apply_to_session(change)?,
        }
        Ok(())
    }

    /// Its uses go with it.
    fn end_role_token(&mut self, hash: &Hash) -> Result<(), Fault> {
        self.token_uses.retain(|(token, ..), _| token != hash);
        only(self.role_tokens.remove(hash).is_some(), "role token")
    }

    fn apply_to_token(&mut self, change: Planned) -> Result<(), Fault> {
        match change {
            Planned::InsertProjectToken(token) => {
                only(!self.project_tokens.values().any(|other| other.id == token.id), "id of project token")?;
                put(&mut self.project_tokens, token.hash, token, false, "project token")
            }
            Planned::ReplaceProjectToken { hash, expires_at } => {
                let token = one(&mut self.project_tokens, &hash, "project token")?;
                only(!token.replaced && token.ended.is_none(), "living project token")?;
                (token.replaced, token.expires_at) = (true, Some(expires_at));
                Ok(())
            }
            Planned::EndProjectToken { hash, ended } => {
                let token = one(&mut self.project_tokens, &hash, "project token")?;
                only(token.ended.replace(ended).is_none(), "end of project token")
            }
            Planned::PutTokenAnswer { replaces, answer } => {
                let key = (answer.owner.clone(), answer.request.clone());
                put(&mut self.token_answers, key, answer, replaces, "token answer")
            }
            other => Err(Fault::Broken(format!("no write to a project token: {other:?}"))),
        }
    }

    fn apply_to_session(&mut self, change: Planned) -> Result<(), Fault> {
        match change {
            Planned::InsertOwnerSession(session) => {
                put(&mut self.sessions, session.id.clone(), session, false, "owner session")
            }
            Planned::EndOwnerSession { id, at } => {
                let session = one(&mut self.sessions, &id, "owner session")?;
                only(session.ended_at.replace(at).is_none(), "end of owner session")
            }
            Planned::CountRefresh { id, was } => {
                let session = one(&mut self.sessions, &id, "owner session")?;
                only(session.refreshes == was, "refreshes of owner session")?;
                session.refreshes += 1;
                Ok(())
            }
            Planned::SetElevation { id, was, elevation } => {
                let session = one(&mut self.sessions, &id, "owner session")?;
                only(session.elevation == was, "elevation of owner session")?;
                session.elevation = elevation;
                Ok(())
            }
            Planned::InsertAccess(access) => {
                put(&mut self.access, access.hash, access, false, "access token")
            }
            Planned::InsertRefresh(token) => {
                let doubled = token.predecessor.is_some()
                    && self.refresh.values().any(|other| other.predecessor == token.predecessor);
                only(!doubled, "successor")?;
                put(&mut self.refresh, token.hash, token, false, "refresh token")
            }
            Planned::UseRefresh { hash, answer } => {
                let token = one(&mut self.refresh, &hash, "refresh token")?;
                only(token.state == RefreshState::Fresh, "fresh refresh token")?;
                token.state = RefreshState::Used(answer);
                Ok(())
            }
            Planned::SpendRefresh(hash) => self.spend(&hash),
            other => Err(Fault::Broken(format!("no write to a session: {other:?}"))),
        }
    }

    fn spend(&mut self, hash: &Hash) -> Result<(), Fault> {
        let token = one(&mut self.refresh, hash, "refresh token")?;
        only(matches!(token.state, RefreshState::Used(_)), "used refresh token")?;
        token.state = RefreshState::Spent;
        Ok(())
    }

    fn clear(&mut self, due: Due) -> Result<(), Fault> {
        match due {
            Due::RoleToken(hash) => self.end_role_token(&hash),
            Due::OwnerSession(id) => {
                self.access.retain(|_, access| access.session != id);
                self.refresh.retain(|_, token| token.session != id);
                only(self.sessions.remove(&id).is_some(), "owner session")
            }
            Due::Elevation(_) => only(false, "an elevation is ended, not cleared"),
            Due::Access(hash) => only(self.access.remove(&hash).is_some(), "access token"),
            Due::Successor(hash) => self.spend(&hash),
            Due::Answer(owner, request) => only(self.answers.remove(&(owner, request)).is_some(), "answer"),
            Due::TokenAnswer(owner, request) => {
                only(self.token_answers.remove(&(owner, request)).is_some(), "token answer")
            }
            Due::ProjectToken(hash) => only(self.project_tokens.remove(&hash).is_some(), "project token"),
            Due::Revocations(through) => {
                self.revocations.retain(|sequence, _| *sequence > through);
                Ok(())
            }
        }
    }
}
