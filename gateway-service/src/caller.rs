//! Who is calling, as the domain sees it: principal, cookie, named project; and what is known of its reach.
//!
//! The shell fills a [`Caller`] from what the gate admitted. Nothing here is looked up: a cookie is
//! judged inside the transaction that it acts in.

use std::sync::Arc;

use interlock_kit::{clock::Timestamp, store::audit::Origin};

pub use interlock_kit::unscoped::Unscoped;

use crate::{
    adopt::OwnerFacts,
    ids::{AgentId, OwnerId, ProjectId, SessionId},
};

/// The SHA-256 of a cookie's credential text.
pub type CookieHash = [u8; 32];

/// Who is calling, and for which project.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What the bearer credential proved; [`Principal::Client`] where there is only a cookie.
    pub principal: Principal,
    /// The client credential beside it, or alone.
    pub cookie: Option<Cookie>,
    /// The project that the call names (`x-interlock-project`).
    pub named: Option<ProjectId>,
    /// What becomes of calls that name none.
    pub unscoped: Unscoped,
    /// For audit rows.
    pub origin: Arc<Origin>,
}

/// What a bearer credential proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// The admin role token; acts as the built-in owner `admin`.
    Admin,
    /// The user role token; acts as the built-in owner `user`.
    User,
    /// An owner session.
    Owner(OwnerSession),
    /// A project token.
    Project(ProjectToken),
    /// A service that works jobs as itself.
    Service(ServiceWorker),
    /// Nobody but the client whose cookie came along.
    Client,
    /// Nobody, with no credential at all; makes sessions of the built-in owner `local`.
    Anonymous,
    /// This service itself, in its sweeps.
    Gateway,
}

/// An owner, signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerSession {
    /// Whose.
    pub owner: OwnerId,
    /// Whether its roles meet the root condition without elevation.
    pub session_root: bool,
    /// Until when root is unlocked.
    pub elevated_until: Option<Timestamp>,
}

/// A project token: acts for its issuer, in one project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectToken {
    /// Who issued it.
    pub issuer: OwnerId,
    /// Where it is good.
    pub project: ProjectId,
    /// What it is good for: `sessions:read`, …
    pub scopes: Vec<String>,
    /// The agents that its workers may serve; empty: all that its issuer may.
    pub agents: Vec<AgentId>,
}

/// A service on the internal listener, listed to work jobs as itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceWorker {
    /// As whom it holds leases: its SPIFFE id.
    pub id: OwnerId,
    /// Whose jobs it runs, in order: what the list says, and nothing else.
    pub agents: Arc<[AgentId]>,
}

impl ServiceWorker {
    /// Whether it may serve this agent.
    #[must_use]
    pub fn serves(&self, agent: &AgentId) -> bool {
        self.agents.contains(agent)
    }
}

impl ProjectToken {
    /// Whether its workers may serve this agent, as far as the token says.
    #[must_use]
    pub fn serves(&self, agent: &AgentId) -> bool {
        self.agents.is_empty() || self.agents.contains(agent)
    }
}

/// A client credential as it was presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The session in the cookie's name.
    pub session: SessionId,
    /// Of its value.
    pub hash: CookieHash,
}

/// Answers to "may this owner enter this project", as far as they were asked. Few: one or two a call, and
/// a bound on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Whether the caller may enter the project that it names: what most verbs ask first.
    named: Option<bool>,
    asked: Vec<(OwnerId, ProjectId, bool)>,
    owners: Vec<(OwnerId, OwnerFacts)>,
}

impl Reach {
    /// With the answer for the project that the caller names, where that is known.
    pub(crate) fn of_named(may: Option<bool>) -> Self {
        Self { named: may, ..Self::default() }
    }

    /// Adds an answer. The latest one counts.
    pub(crate) fn learn(&mut self, owner: OwnerId, project: ProjectId, may: bool) {
        self.asked.retain(|(o, p, _)| *o != owner || *p != project);
        self.asked.push((owner, project, may));
    }

    /// The answer, where there is one.
    pub(crate) fn knows(&self, caller: &Caller, owner: &OwnerId, project: &ProjectId) -> Option<bool> {
        let asked = self.asked.iter().find(|(o, p, _)| o == owner && p == project).map(|(_, _, may)| *may);
        let is_named = || caller.named.as_ref() == Some(project) && caller.acts_as() == Some(owner.as_str());
        asked.or_else(|| self.named.filter(|_| is_named()))
    }

    /// Adds what is known of an owner. The latest answer counts.
    pub(crate) fn learn_owner(&mut self, owner: OwnerId, facts: OwnerFacts) {
        self.owners.retain(|(known, _)| *known != owner);
        self.owners.push((owner, facts));
    }

    /// What is known of an owner, where that was asked.
    pub(crate) fn knows_owner(&self, owner: &OwnerId) -> Option<OwnerFacts> {
        self.owners.iter().find(|(known, _)| known == owner).map(|(_, facts)| *facts)
    }

    /// How many answers were asked for.
    pub(crate) fn asked(&self) -> usize {
        self.asked.len() + self.owners.len()
    }
}

impl Caller {
    /// The gateway itself, for sweeps.
    #[must_use]
    pub fn gateway() -> Self {
        let origin =
            Origin { principal: "gateway".to_owned(), role: "service".to_owned(), ..Origin::default() };
        Self {
            principal: Principal::Gateway,
            cookie: None,
            named: None,
            unscoped: Unscoped::Warn { sunset: None },
            origin: Arc::new(origin),
        }
    }

    /// The owner that it acts as; none for a cookie alone (its session's owner then) and for sweeps. A service acts as
    /// itself: no owner has its id.
    #[must_use]
    pub fn owner(&self) -> Option<OwnerId> {
        match &self.principal {
            Principal::Admin => Some(OwnerId::admin()),
            Principal::User => Some(OwnerId::user()),
            Principal::Owner(session) => Some(session.owner.clone()),
            Principal::Project(token) => Some(token.issuer.clone()),
            Principal::Service(worker) => Some(worker.id.clone()),
            Principal::Anonymous => Some(OwnerId::local()),
            Principal::Client | Principal::Gateway => None,
        }
    }

    /// [`Caller::owner`] as text.
    #[must_use]
    pub(crate) fn acts_as(&self) -> Option<&str> {
        match &self.principal {
            Principal::Admin => Some(OwnerId::ADMIN),
            Principal::User => Some(OwnerId::USER),
            Principal::Owner(session) => Some(session.owner.as_str()),
            Principal::Project(token) => Some(token.issuer.as_str()),
            Principal::Service(worker) => Some(worker.id.as_str()),
            Principal::Anonymous => Some(OwnerId::LOCAL),
            Principal::Client | Principal::Gateway => None,
        }
    }

    /// The admin role token and session-root owners.
    #[must_use]
    pub fn is_administrator(&self) -> bool {
        match &self.principal {
            Principal::Admin => true,
            Principal::Owner(session) => session.session_root,
            Principal::User
            | Principal::Project(_)
            | Principal::Service(_)
            | Principal::Client
            | Principal::Anonymous
            | Principal::Gateway => false,
        }
    }

    /// Whether the root condition is met: administrators, and whoever has unlocked root.
    #[must_use]
    pub fn meets_root(&self, now: Timestamp) -> bool {
        self.is_administrator() || self.is_elevated(now)
    }

    /// Whether it reaches every owner's resources: the admin role token, and a session-root owner who
    /// has unlocked root besides (DESIGN 14.1).
    #[must_use]
    pub fn reaches_all(&self, now: Timestamp) -> bool {
        match &self.principal {
            Principal::Admin => true,
            Principal::Owner(session) => session.session_root && self.is_elevated(now),
            Principal::User
            | Principal::Project(_)
            | Principal::Service(_)
            | Principal::Client
            | Principal::Anonymous
            | Principal::Gateway => false,
        }
    }

    fn is_elevated(&self, now: Timestamp) -> bool {
        match &self.principal {
            Principal::Owner(session) => session.elevated_until.is_some_and(|until| !until.is_over(now)),
            Principal::Admin
            | Principal::User
            | Principal::Project(_)
            | Principal::Service(_)
            | Principal::Client
            | Principal::Anonymous
            | Principal::Gateway => false,
        }
    }
}
