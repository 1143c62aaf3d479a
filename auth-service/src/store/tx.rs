//! [`Tx`]: decisions that leave a permit, planned writes, audit rows. It reads as a [`View`] does.

use std::{ops::Deref, sync::Arc};

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::{
        Ran,
        audit::{Entry, Keeping, Outcome},
    },
};

use crate::{
    accounts::Source,
    caller::Call,
    elevation::Elevation,
    ids::{CredentialId, OwnerId, ProjectId},
    owner::{Applied, Owner},
    owner_session::{Access, OwnerSession, RefreshState, RefreshToken, Successor},
    password::PasswordHash,
    policy::{
        self, Act, CensusPermit, LogPermit, OwnerPermit, OwnerSessionPermit, ProjectPermit, ReplicaPermit,
        RoleTokenPermit, SweepPermit,
    },
    project::Project,
    project_token::{Ended, ProjectToken, TokenAnswer},
    replica::Replica,
    revocation::{Effect, Revocation, Subject},
    role_token::{Answer, RoleToken, TokenUse},
    root::RootFingerprint,
    store::{Auth, Change, Counters, Planned, Query, Rows, Stop, Verb, View},
    sweep::Due,
};

type Found<T> = Result<T, Stop>;

/// One transaction of one verb. Writes are planned, and applied where the verb returns `Ok`.
pub struct Tx<'t> {
    view: View<'t>,
    changes: Vec<Planned>,
    counters: Option<(Counters, Counters)>,
    entry: Entry,
    recorded: Option<Entry>,
}

impl std::fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx")
            .field("now", &self.view.now)
            .field("changes", &self.changes.len())
            .finish_non_exhaustive()
    }
}

impl<'t> Deref for Tx<'t> {
    type Target = View<'t>;

    fn deref(&self) -> &View<'t> {
        &self.view
    }
}

/// Runs a verb once.
pub(super) fn run<V: Verb>(
    rows: &(dyn Rows + '_),
    call: &Call,
    now: Timestamp,
    root: Option<RootFingerprint>,
    verb: &V,
) -> Ran<Auth, V::Out> {
    let view = View::new(rows, call, now, root);
    let entry = Entry::new(Arc::clone(&call.origin), call.action.clone(), Outcome::Done);
    let mut tx = Tx { view, changes: Vec::new(), counters: None, entry, recorded: None };
    let result = verb.run(&mut tx);
    let Tx { mut changes, counters, entry, recorded, .. } = tx;
    match result {
        Ok(out) => {
            assert!(
                changes.is_empty() || recorded.is_some() || is_upkeep(&changes),
                "a change without its audit row"
            );
            if let Some((from, to)) = counters {
                changes.push(Planned::Counters { from, to });
            }
            let changes = changes.into_iter().map(Change).collect();
            Ran { result: Ok(out), changes, audit: recorded.into_iter().collect() }
        }
        Err(stop) => {
            let detail = locks(call, Some(&stop), &entry.scope);
            let audit = refused(&stop, Entry { detail, ..entry }).into_iter().collect();
            Ran { result: Err(stop), changes: Vec::new(), audit }
        }
    }
}

/// Runs a query once.
pub(super) fn ask<Q: Query>(
    rows: &(dyn Rows + '_),
    call: &Call,
    now: Timestamp,
    root: Option<RootFingerprint>,
    query: &Q,
) -> Ran<Auth, Q::Out> {
    let mut view = View::new(rows, call, now, root);
    let result = query.run(&mut view);
    let entry = Entry::new(Arc::clone(&call.origin), call.action.clone(), Outcome::Done);
    let mut entry = entry.on(std::mem::take(&mut view.subject)).within(std::mem::take(&mut view.scope));
    entry.detail = locks(call, result.as_ref().err(), &entry.scope);
    let audit = result.as_ref().err().and_then(|stop| refused(stop, entry)).into_iter().collect();
    Ran { result, changes: Vec::new(), audit }
}

/// What changes nothing for a caller: what has ended is cleared, programs keep their rows, uses are noted.
fn is_upkeep(changes: &[Planned]) -> bool {
    let upkeep = |c: &Planned| {
        matches!(
            c,
            Planned::Clear(_)
                | Planned::PutReplica { .. }
                | Planned::DropReplica { .. }
                | Planned::KeepLog(Keeping::Remember { .. })
                | Planned::PutTokenUse { .. }
                | Planned::DropTokenUse(_)
        )
    };
    changes.iter().all(upkeep)
}

/// What each lock held, for the audit row of a `PROJECT_MISMATCH`.
fn locks(call: &Call, stop: Option<&Stop>, project: &str) -> String {
    match stop {
        Some(Stop::Refused(error)) if error.reason() == Reason::ProjectMismatch => {
            let named = call.named.as_ref().map(ProjectId::as_str);
            serde_json::json!({ "lock": "named", "token": null, "named": named, "resource": project })
                .to_string()
        }
        _ => String::new(),
    }
}

/// The audit row of a refusal. Refusals of nobody are counted elsewhere: a flood must not fill the log.
fn refused(stop: &Stop, entry: Entry) -> Option<Entry> {
    match stop {
        Stop::Refused(error) if !entry.origin.principal.is_empty() => {
            Some(Entry { outcome: Outcome::Refused(error.reason()), ..entry })
        }
        Stop::Refused(_) | Stop::Miss(_) | Stop::Unresolved(_) | Stop::Fault(_) => None,
    }
}

/// Who is asked about, for the audit row.
impl Tx<'_> {
    /// The resource.
    pub(crate) fn concerning(&mut self, subject: &str) {
        subject.clone_into(&mut self.entry.subject);
    }

    /// The project.
    pub(crate) fn within(&mut self, project: &str) {
        project.clone_into(&mut self.entry.scope);
    }

    /// The principal, where only the verb finds out who it is (or claims to be).
    pub(crate) fn attribute(&mut self, principal: &str, role: &str) {
        let origin = Arc::make_mut(&mut self.entry.origin);
        principal.clone_into(&mut origin.principal);
        role.clone_into(&mut origin.role);
    }

    /// The credential, where only the verb finds it.
    pub(crate) fn present(&mut self, credential: &CredentialId) {
        credential.as_str().clone_into(&mut Arc::make_mut(&mut self.entry.origin).credential_id);
    }

    /// Plans the one audit row of what was done.
    pub(crate) fn audit(&mut self, outcome: Outcome, detail: impl Into<String>) {
        assert!(self.recorded.is_none(), "a verb records what it did once");
        self.recorded = Some(Entry { outcome, detail: detail.into(), ..self.entry.clone() });
    }
}

/// Decisions that leave a permit.
impl Tx<'_> {
    pub(crate) fn authorize_role_tokens(&self, act: Act) -> Result<RoleTokenPermit, Error> {
        policy::role_tokens(&self.call.caller, act, self.now)
    }

    pub(crate) fn authorize_owners(&self, act: Act) -> Result<OwnerPermit, Error> {
        policy::owners(&self.call.caller, act, self.now)
    }

    pub(crate) fn authorize_new_project(&self, project: &ProjectId) -> Result<ProjectPermit, Error> {
        policy::new_project(&self.call.caller, project, self.now)
    }

    pub(crate) fn authorize_replicas(&self) -> Result<ReplicaPermit, Error> {
        policy::replicas(&self.call.caller, self.now)
    }

    pub(crate) fn authorize_keep_log(&self) -> Result<LogPermit, Error> {
        policy::keep_log(&self.call.caller, self.now)
    }

    pub(crate) fn authorize_census(&self) -> Result<CensusPermit, Error> {
        policy::census(&self.call.caller, self.now)
    }

    pub(crate) fn authorize_sweep(&self) -> Result<SweepPermit, Error> {
        policy::sweep(&self.call.caller, self.now)
    }
}

/// Numbers.
impl Tx<'_> {
    fn numbers(&mut self) -> Found<&mut Counters> {
        if self.counters.is_none() {
            let stored = self.view.rows.counters()?;
            self.counters = Some((stored, stored));
        }
        Ok(self.counters.as_mut().map(|(_, to)| to).expect("set above"))
    }

    /// The next issuance number.
    pub(crate) fn issue(&mut self) -> Found<u64> {
        let counters = self.numbers()?;
        counters.issuance += 1;
        Ok(counters.issuance)
    }

    /// The next row of the revocation log: all of `subject`'s credentials that were issued up to now. To
    /// verifiers it says *ask again*; what ends is said by the other writes of the verb.
    pub(crate) fn revoke(&mut self, subject: Subject) -> Found<Revocation> {
        self.log(subject, Effect::Asks, None)
    }

    /// The same, of those alone that were issued before this number.
    pub(crate) fn revoke_issued_before(&mut self, subject: Subject, issuance: u64) -> Found<Revocation> {
        self.log(subject, Effect::Asks, Some(issuance))
    }

    /// The same, where the subject has ended: what services have made on it ends, too.
    pub(crate) fn end(&mut self, subject: Subject, effect: Effect) -> Found<Revocation> {
        self.log(subject, effect, None)
    }

    fn log(&mut self, subject: Subject, effect: Effect, before: Option<u64>) -> Found<Revocation> {
        let at = self.now;
        let counters = self.numbers()?;
        counters.revocation += 1;
        let (sequence, issued_before) = (counters.revocation, before.unwrap_or(counters.issuance + 1));
        let row = Revocation { sequence, issued_before, subject, at, effect };
        self.changes.push(Planned::Revoke(row.clone()));
        Ok(row)
    }
}

/// Writes. Each takes the permit that the decision left, and checks that it is for this row.
impl Tx<'_> {
    /// Stores a role token.
    pub fn insert_role_token(&mut self, _permit: &RoleTokenPermit, token: RoleToken) {
        self.changes.push(Planned::InsertRoleToken(token));
    }

    pub(crate) fn end_role_token(&mut self, _permit: &RoleTokenPermit, token: &RoleToken) {
        self.changes.push(Planned::EndRoleToken(token.hash));
    }

    pub(crate) fn limit_role_token(
        &mut self,
        _permit: &RoleTokenPermit,
        token: &RoleToken,
        valid_until: Timestamp,
    ) {
        self.changes.push(Planned::LimitRoleToken { hash: token.hash, valid_until });
    }

    /// A candidate becomes the present one. The one before it must end first.
    pub(crate) fn promote_role_token(&mut self, _permit: &RoleTokenPermit, candidate: &RoleToken) {
        self.changes.push(Planned::PromoteRoleToken(candidate.hash));
    }

    pub(crate) fn put_token_use(&mut self, _permit: &CensusPermit, was: Option<u64>, used: TokenUse) {
        self.changes.push(Planned::PutTokenUse { was, used });
    }

    pub(crate) fn drop_token_use(&mut self, _permit: &CensusPermit, used: TokenUse) {
        self.changes.push(Planned::DropTokenUse(used));
    }

    pub(crate) fn put_answer(&mut self, _permit: &RoleTokenPermit, replaces: bool, answer: Answer) {
        self.changes.push(Planned::PutAnswer { replaces, answer });
    }

    /// Whatever an earlier owner of this name was given has ended: it has a smaller number.
    pub(crate) fn insert_owner(&mut self, permit: &OwnerPermit, owner: Owner) -> Found<Owner> {
        assert!(permit.covers(&owner.id), "a permit for another owner");
        let sessions_from = self.numbers()?.issuance + 1;
        let stored = Owner { sessions_from, ..owner };
        self.changes.push(Planned::InsertOwner(stored.clone()));
        Ok(stored)
    }

    pub(crate) fn update_owner(&mut self, permit: &OwnerPermit, was: u64, owner: Owner) {
        assert!(permit.covers(&owner.id), "a permit for another owner");
        assert!(owner.version == was + 1, "an edit is the next version");
        self.changes.push(Planned::UpdateOwner { was, owner });
    }

    pub(crate) fn put_applied(&mut self, _permit: &OwnerPermit, replaces: bool, applied: Applied) {
        self.changes.push(Planned::PutApplied { replaces, applied });
    }

    pub(crate) fn forget_applied(&mut self, _permit: &OwnerPermit, source: Source, owner: &OwnerId) {
        self.changes.push(Planned::ForgetApplied { source, owner: owner.clone() });
    }

    pub(crate) fn rehash(&mut self, permit: &OwnerSessionPermit, owner: &Owner, hash: PasswordHash) {
        assert!(permit.covers_owner(&owner.id), "a permit for another owner");
        self.changes.push(Planned::Rehash { owner: owner.id.clone(), version: owner.version, hash });
    }

    pub(crate) fn insert_owner_session(&mut self, permit: &OwnerSessionPermit, session: OwnerSession) {
        assert!(
            permit.covers(&session.id) && permit.covers_owner(&session.owner),
            "a permit for another session"
        );
        self.changes.push(Planned::InsertOwnerSession(session));
    }

    pub(crate) fn end_owner_session(&mut self, permit: &OwnerSessionPermit, session: &OwnerSession) {
        assert!(permit.covers(&session.id), "a permit for another session");
        self.changes.push(Planned::EndOwnerSession { id: session.id.clone(), at: self.now });
    }

    /// Ends the owner sessions of every owner that have a smaller issuance number.
    pub(crate) fn end_sessions_before(&mut self, permit: &OwnerPermit, number: u64) {
        assert!(permit.covers_all(), "a permit for one owner");
        self.changes.push(Planned::EndSessionsBefore(number));
    }

    pub(crate) fn count_refresh(&mut self, permit: &OwnerSessionPermit, session: &OwnerSession) {
        assert!(permit.covers(&session.id), "a permit for another session");
        self.changes.push(Planned::CountRefresh { id: session.id.clone(), was: session.refreshes });
    }

    pub(crate) fn set_elevation(
        &mut self,
        permit: &OwnerSessionPermit,
        session: &OwnerSession,
        elevation: Option<Elevation>,
    ) {
        assert!(permit.covers(&session.id), "a permit for another session");
        let (id, was) = (session.id.clone(), session.elevation);
        self.changes.push(Planned::SetElevation { id, was, elevation });
    }

    pub(crate) fn drop_elevation(&mut self, _permit: &SweepPermit, session: &OwnerSession) {
        let (id, was) = (session.id.clone(), session.elevation);
        self.changes.push(Planned::SetElevation { id, was, elevation: None });
    }

    pub(crate) fn insert_access(&mut self, permit: &OwnerSessionPermit, access: Access) {
        assert!(permit.covers(&access.session), "a permit for another session");
        self.changes.push(Planned::InsertAccess(access));
    }

    pub(crate) fn insert_refresh(&mut self, permit: &OwnerSessionPermit, token: RefreshToken) {
        assert!(
            permit.covers(&token.session) && token.state == RefreshState::Fresh,
            "a permit for another session"
        );
        self.changes.push(Planned::InsertRefresh(token));
    }

    pub(crate) fn use_refresh(
        &mut self,
        permit: &OwnerSessionPermit,
        token: &RefreshToken,
        answer: Successor,
    ) {
        assert!(permit.covers(&token.session), "a permit for another session");
        self.changes.push(Planned::UseRefresh { hash: token.hash, answer });
    }

    pub(crate) fn spend_refresh(&mut self, permit: &OwnerSessionPermit, token: &RefreshToken) {
        assert!(permit.covers(&token.session), "a permit for another session");
        self.changes.push(Planned::SpendRefresh(token.hash));
    }

    pub(crate) fn insert_project(&mut self, permit: &ProjectPermit, project: Project) {
        assert!(permit.covers(&project.id), "a permit for another project");
        self.changes.push(Planned::InsertProject(project));
    }

    /// A new member's number is that of the last credential issued before: what it issues has a larger one, and what
    /// it issued in an earlier membership has not.
    pub(crate) fn insert_member(
        &mut self,
        permit: &ProjectPermit,
        project: &ProjectId,
        owner: &OwnerId,
    ) -> Found<()> {
        assert!(permit.covers(project), "a permit for another project");
        let since = self.numbers()?.issuance;
        let (project, owner, at) = (project.clone(), owner.clone(), self.now);
        self.changes.push(Planned::InsertMember { project, owner, at, since });
        Ok(())
    }

    pub(crate) fn remove_member(&mut self, permit: &ProjectPermit, project: &ProjectId, owner: &OwnerId) {
        assert!(permit.covers(project), "a permit for another project");
        self.changes.push(Planned::RemoveMember { project: project.clone(), owner: owner.clone() });
    }

    pub(crate) fn insert_project_token(&mut self, permit: &ProjectPermit, token: ProjectToken) {
        assert!(permit.covers(&token.project), "a permit for another project");
        self.changes.push(Planned::InsertProjectToken(token));
    }

    /// It goes on until then, beside its successor.
    pub(crate) fn replace_project_token(
        &mut self,
        permit: &ProjectPermit,
        token: &ProjectToken,
        expires_at: Timestamp,
    ) {
        assert!(permit.covers(&token.project), "a permit for another project");
        self.changes.push(Planned::ReplaceProjectToken { hash: token.hash, expires_at });
    }

    pub(crate) fn end_project_token(
        &mut self,
        permit: &ProjectPermit,
        token: &ProjectToken,
        revocation: u64,
    ) {
        assert!(permit.covers(&token.project), "a permit for another project");
        let ended = Ended { at: self.now, revocation };
        self.changes.push(Planned::EndProjectToken { hash: token.hash, ended });
    }

    pub(crate) fn put_token_answer(&mut self, _permit: &ProjectPermit, replaces: bool, answer: TokenAnswer) {
        self.changes.push(Planned::PutTokenAnswer { replaces, answer });
    }

    pub(crate) fn put_replica(&mut self, _permit: &ReplicaPermit, was: Option<&Replica>, replica: Replica) {
        assert!(replica.beat == was.map_or(0, |was| was.beat) + 1, "a beat is the next one");
        let grown = was.is_none_or(|was| was.reached < replica.reached);
        self.changes.push(Planned::PutReplica { was: was.map(|was| was.beat), grown, replica });
    }

    pub(crate) fn drop_replica(&mut self, _permit: &ReplicaPermit, replica: &Replica) {
        self.changes.push(Planned::DropReplica { id: replica.id.clone(), beat: replica.beat });
    }

    pub(crate) fn keep_log(&mut self, _permit: &LogPermit, keeping: Keeping) {
        self.changes.push(Planned::KeepLog(keeping));
    }

    pub(crate) fn clear(&mut self, _permit: &SweepPermit, due: Due) -> Found<()> {
        if let Due::Revocations(through) = due {
            self.numbers()?.pruned = through;
        }
        self.changes.push(Planned::Clear(due));
        Ok(())
    }
}
