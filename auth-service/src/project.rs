//! Projects: the unit that data is kept apart by, and who may enter them.
//!
//! Administrators enter every existing project; others those they are members of; the built-in project
//! `system` is for administrators only and has no members.

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::audit::Outcome,
};

use crate::{
    caller::Proof,
    ids::{OwnerId, ProjectId, ProjectName, RequestId},
    limits,
    owner::Standing,
    policy::{self, Act},
    revocation::{Effect, Subject},
    store::{Query, Stop, Tx, Verb, View},
};

/// A project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Unique among projects.
    pub name: ProjectName,
    /// Who made it.
    pub created_by: OwnerId,
    /// By which request; the built-in one by none.
    pub request: Option<RequestId>,
    /// When.
    pub created_at: Timestamp,
}

/// Makes a project. The caller becomes its first member.
#[derive(Clone, Debug)]
pub struct CreateProject {
    /// Its id, made by the shell.
    pub project: ProjectId,
    /// Its name.
    pub name: ProjectName,
    /// The caller's id of this request.
    pub request: RequestId,
}

impl Verb for CreateProject {
    /// The project, or the one that the same request made before.
    type Out = Project;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Project, Stop> {
        tx.concerning(self.name.as_str());
        let permit = tx.authorize_new_project(&self.project)?;
        let creator = tx.call().caller.principal().ok_or_else(policy::login_required)?.owner_id.clone();
        if let Some(first) = tx.project_of_request(&creator, &self.request)? {
            if first.name == self.name {
                return Ok(first);
            }
            return Err(Error::new(Reason::RequestIdReused, "this request id made another project").into());
        }
        if tx.project_named(&self.name)?.is_some() {
            return Err(Error::new(Reason::NameTaken, "a project of this name exists").into());
        }
        if tx.projects_made_by(&creator)? >= limits::PROJECTS_MAX {
            return Err(Error::new(Reason::LimitReached, "this owner has made too many projects").into());
        }
        let project = Project {
            id: self.project.clone(),
            name: self.name.clone(),
            created_by: creator.clone(),
            request: Some(self.request.clone()),
            created_at: tx.now(),
        };
        tx.insert_project(&permit, project.clone());
        tx.insert_member(&permit, &project.id, &creator)?;
        tx.within(project.id.as_str());
        tx.audit(Outcome::Done, "");
        Ok(project)
    }
}

/// Adds a member, `local` among them: then sessions that were made with no credential may be bound to the project.
/// Members of the project and administrators may.
#[derive(Clone, Debug)]
pub struct AddMember {
    /// Where.
    pub project: ProjectId,
    /// Who.
    pub owner: OwnerId,
}

impl Verb for AddMember {
    /// The row of the revocation log that makes verifiers forget an earlier "no"; `None`: was a member.
    type Out = Option<u64>;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Option<u64>, Stop> {
        tx.concerning(self.owner.as_str());
        tx.within(self.project.as_str());
        let (member, exists) = tx.own_membership(&self.project)?;
        let permit = tx.authorize_project(Act::AddMember { member }, &self.project)?;
        // Only administrators come here without a project: to them its absence is no secret.
        if !exists {
            return Err(Error::new(Reason::NotFound, "no such project").into());
        }
        if !tx.standing(&self.owner)?.active && !self.owner.is_local() {
            return Err(Error::new(Reason::NotFound, "no such active owner").into());
        }
        if tx.is_member(&self.project, &self.owner)? {
            return Ok(None);
        }
        let revocation = tx.revoke(Subject::Membership(self.owner.clone(), self.project.clone()))?;
        tx.insert_member(&permit, &self.project, &self.owner)?;
        tx.audit(Outcome::Done, "");
        Ok(Some(revocation.sequence))
    }
}

/// Ends a membership, and with it the project tokens that the owner issued there. Members of the project and
/// administrators may.
#[derive(Clone, Debug)]
pub struct RemoveMember {
    /// Where.
    pub project: ProjectId,
    /// Who.
    pub owner: OwnerId,
    /// Work that was begun for the owner there is to stop.
    pub cancel_jobs: bool,
}

impl Verb for RemoveMember {
    /// Its row in the revocation log: the barrier to wait for; `None`: was no member.
    type Out = Option<u64>;
    const REVOKES: bool = true;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Option<u64>, Stop> {
        tx.concerning(self.owner.as_str());
        tx.within(self.project.as_str());
        let (member, exists) = tx.own_membership(&self.project)?;
        let permit = tx.authorize_project(Act::RemoveMember { member }, &self.project)?;
        if !exists {
            return Err(Error::new(Reason::NotFound, "no such project").into());
        }
        if !tx.is_member(&self.project, &self.owner)? {
            return Ok(None);
        }
        let subject = Subject::Membership(self.owner.clone(), self.project.clone());
        let revocation = tx.end(subject, Effect::of_end(self.cancel_jobs))?;
        tx.remove_member(&permit, &self.project, &self.owner);
        tx.audit(Outcome::Done, "");
        Ok(Some(revocation.sequence))
    }
}

/// Lists the projects that the caller can enter, by name; for a project token its own.
#[derive(Clone, Debug)]
pub struct ListProjects {
    /// Those whose name is larger.
    pub after: Option<String>,
    /// At most so many; never more than [`limits::PAGE_MAX`]; 0 means [`limits::PAGE_DEFAULT`].
    pub limit: u32,
}

/// A page of projects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectPage {
    /// By name.
    pub projects: Vec<Project>,
    /// Where the next page begins: its [`ListProjects::after`]; `None` on the last page.
    pub next: Option<String>,
}

impl Query for ListProjects {
    type Out = ProjectPage;

    fn run(&self, view: &mut View<'_>) -> Result<ProjectPage, Stop> {
        view.authorize(Act::ListProjects)?;
        let principal = view.call().caller.principal().ok_or_else(policy::login_required)?;
        if let Proof::ProjectToken { project, .. } = &principal.proof {
            let project = view.project(project)?;
            let left = project.filter(|p| self.after.as_deref().is_none_or(|after| p.name.as_str() > after));
            return Ok(ProjectPage { projects: left.into_iter().collect(), next: None });
        }
        let whose = (!principal.is_administrator()).then(|| principal.owner_id.clone());
        let limit = if self.limit == 0 { limits::PAGE_DEFAULT } else { self.limit.min(limits::PAGE_MAX) };
        let mut projects = view.projects(whose.as_ref(), self.after.as_deref(), limit + 1)?;
        let more = projects.len() > limit as usize;
        projects.truncate(limit as usize);
        let next = projects.last().filter(|_| more).map(|last| last.name.to_string());
        Ok(ProjectPage { projects, next })
    }
}

/// Whether an owner of this standing may enter `project`.
pub(crate) fn may_enter(view: &View<'_>, standing: &Standing, project: &ProjectId) -> Result<bool, Stop> {
    let may_have = standing.active || standing.id.is_local();
    if !may_have || view.project(project)?.is_none() {
        return Ok(false);
    }
    Ok(standing.administrator || (!project.is_system() && view.is_member(project, &standing.id)?))
}
