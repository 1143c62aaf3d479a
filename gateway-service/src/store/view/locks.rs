//! Who is calling by cookie, and the locks of a project.

use std::sync::Arc;

use interlock_kit::{
    error::{Error, Reason},
    store::audit::Origin,
};

use super::{Found, View};
use crate::{
    caller::Principal,
    client::Client,
    ids::{OwnerId, ProjectId},
    policy::{Ask, Lock, Permit, ProjectReach, ProjectScope, Refusal, decide},
    session::Session,
    store::{Question, Stop},
};

/// Whether a call on a resource must name the resource's project, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    Checked,
    /// Attach: what is named is the target's project, not the present one.
    OfTarget,
}

impl View<'_> {
    /// The client whose cookie came along. Beside a bearer credential it must lead to the same owner.
    pub(super) fn calling_client(&mut self) -> Result<Option<Client>, Stop> {
        let Some(cookie) = &self.caller.cookie else {
            return match self.caller.principal {
                Principal::Client => Err(not_good().into()),
                Principal::Admin
                | Principal::User
                | Principal::Owner(_)
                | Principal::Project(_)
                | Principal::Service(_)
                | Principal::Anonymous
                | Principal::Gateway => Ok(None),
            };
        };
        let client = self.rows.client(&cookie.hash)?.filter(|client| client.session == cookie.session);
        let client = client.ok_or_else(not_good)?;
        let session = self.rows.session(&client.session)?;
        let session = session.filter(|session| session.phase != crate::session::Phase::Gone);
        let session = session.ok_or_else(not_good)?;
        if self.caller.owner().is_some_and(|owner| owner != session.owner) {
            return Err(not_good().into());
        }
        if client.is_idle(self.now, self.limits) {
            let message = "this client was not seen for too long; join the session again";
            return Err(Error::new(Reason::TokenExpired, message).into());
        }
        if self.caller.principal == Principal::Client {
            self.act_as(&client);
        }
        Ok(Some(client))
    }

    /// In audit rows, the caller is this client from here on.
    pub(in crate::store) fn act_as(&mut self, client: &Client) {
        let (principal, role) = (client.id.to_string(), "client".to_owned());
        let origin = Origin { credential_id: principal.clone(), principal, role, ..(*self.origin).clone() };
        self.origin = Arc::new(origin);
    }

    /// Decides, in the words of a stop.
    pub(in crate::store) fn decide(&self, ask: &Ask<'_>) -> Result<Permit, Stop> {
        decide(self.caller, self.now, ask).map_err(|refusal: Refusal| Error::from(refusal).into())
    }

    /// The locks of a project that a session's resource is in.
    pub(super) fn enter(
        &mut self,
        session: &Session,
        acting: &OwnerId,
        project: &ProjectId,
        naming: Naming,
    ) -> Result<ProjectScope, Stop> {
        self.concerns.scope = project.to_string();
        let reach = self.reach(session, acting, project)?;
        let named = match naming {
            Naming::Checked => {
                self.must_name()?;
                self.caller.named.as_ref()
            }
            Naming::OfTarget => None,
        };
        ProjectScope::agree(&reach, named, project).map_err(|lock| self.shut(lock, project))
    }

    /// The locks of a project that a resource has come into since the call was first answered: a call that names
    /// no project is no worse off than it was then.
    pub(in crate::store) fn enter_again(
        &mut self,
        session: &Session,
        acting: &OwnerId,
        project: &ProjectId,
    ) -> Result<ProjectScope, Stop> {
        let reach = self.reach(session, acting, project)?;
        let agreed = ProjectScope::agree(&reach, self.caller.named.as_ref(), project);
        agreed.map_err(|lock| self.shut(lock, project))
    }

    /// The locks of the project that a session shall be bound to.
    pub(in crate::store) fn enter_target(
        &mut self,
        found: &Found,
        project: &ProjectId,
    ) -> Result<ProjectScope, Stop> {
        self.enter(&found.session, &found.acting, project, Naming::Checked)
    }

    /// What lets this caller into a project. Stops with the question where that is not known.
    pub(super) fn reach(
        &self,
        session: &Session,
        acting: &OwnerId,
        project: &ProjectId,
    ) -> Result<ProjectReach, Stop> {
        let own = session.binding.as_ref().is_some_and(|binding| binding.project == *project);
        match &self.caller.principal {
            Principal::Project(token) => return Ok(ProjectReach::Token(token.project.clone())),
            Principal::Client if own => return Ok(ProjectReach::Own(project.clone())),
            // Neither finds a session to have a reach from; were it so, it would lead nowhere.
            Principal::Service(_) | Principal::Anonymous => return Ok(ProjectReach::Membership(false)),
            Principal::Client
            | Principal::Admin
            | Principal::User
            | Principal::Owner(_)
            | Principal::Gateway => {}
        }
        if *project == ProjectId::system() {
            return Ok(ProjectReach::BuiltIn(self.caller.is_administrator()));
        }
        match self.knows(acting, project) {
            Some(may) => Ok(ProjectReach::Membership(may)),
            None => Err(Stop::Unresolved(Question::Membership {
                owner: acting.clone(),
                project: project.clone(),
            })),
        }
    }

    /// Calls that name no project are marked, or refused.
    pub(super) fn must_name(&mut self) -> Result<(), Stop> {
        if self.caller.named.is_some() {
            return Ok(());
        }
        self.caller.unscoped.judge(self.now)?;
        self.unscoped = true;
        Ok(())
    }

    /// Whether this caller's worker may run what was submitted in a project: of a project token, that project alone;
    /// of others, wherever the agents that they may serve are attached. And only what the call names, if it does.
    pub(crate) fn works_in(&self, project: &ProjectId) -> bool {
        let reach = match &self.caller.principal {
            Principal::Project(token) => ProjectReach::Token(token.project.clone()),
            Principal::Admin | Principal::User | Principal::Owner(_) | Principal::Service(_) => {
                ProjectReach::Membership(true)
            }
            Principal::Client | Principal::Anonymous | Principal::Gateway => ProjectReach::Membership(false),
        };
        ProjectScope::agree(&reach, self.caller.named.as_ref(), project).is_ok()
    }

    /// `PROJECT_MISMATCH`, with what each lock held for the audit row.
    pub(super) fn shut(&mut self, lock: Lock, resource: &ProjectId) -> Stop {
        let token = match &self.caller.principal {
            Principal::Project(token) => Some(token.project.as_str()),
            Principal::Admin
            | Principal::User
            | Principal::Owner(_)
            | Principal::Service(_)
            | Principal::Client
            | Principal::Anonymous
            | Principal::Gateway => None,
        };
        let named = self.caller.named.as_ref().map(ProjectId::as_str);
        self.concerns.scope = resource.to_string();
        self.explain([
            ("lock", lock.text().into()),
            ("token", token.into()),
            ("named", named.into()),
            ("resource", resource.as_str().into()),
        ]);
        Error::new(Reason::ProjectMismatch, "token scope, named project and the resource's project disagree")
            .into()
    }

    /// Whether this caller may see what was made in a project.
    pub(super) fn may_enter(&self, found: &Found, project: &ProjectId) -> Result<bool, Stop> {
        if found.scope.as_ref().is_some_and(|scope| scope.project() == project) {
            return Ok(true);
        }
        let reach = self.reach(&found.session, &found.acting, project)?;
        Ok(ProjectScope::agree(&reach, None, project).is_ok())
    }
}

fn not_good() -> Error {
    Error::new(Reason::ProviderAuthFailed, "login required")
}
