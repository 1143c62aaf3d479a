//! Agents: what does the work.

use interlock_kit::clock::Timestamp;

use interlock_kit::error::Error;
use interlock_proto::text;

use crate::{
    binding::busy_itself,
    ids::{AgentId, OwnerId},
    limits,
    page::Page,
    store::{Query, Stop, Tx, Verb, View},
};

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Which.
    pub id: AgentId,
    /// Whose; none for built-in ones.
    pub owner: Option<OwnerId>,
    /// Whether every owner may attach to it.
    pub shared: bool,
    /// For people.
    pub description: String,
    /// When it was registered.
    pub created_at: Timestamp,
}

impl Agent {
    /// Whether it exists from the start and is guarded.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        self.owner.is_none()
    }
}

/// An agent and how much it has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSeen {
    /// The agent.
    pub agent: Agent,
    /// How many of its jobs are queued, of all owners.
    pub queued: u32,
    /// How many of its jobs are running, of all owners.
    pub running: u32,
}

/// Registers an agent of the caller's, or changes it.
#[derive(Clone, Debug)]
pub struct SetAgent {
    /// Which.
    pub agent: AgentId,
    /// Open to every owner; administrators only. `None` leaves it.
    pub shared: Option<bool>,
    /// For people; `None` leaves it.
    pub description: Option<String>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStored {
    /// The agent.
    pub seen: AgentSeen,
    /// Whether this call registered it.
    pub created: bool,
}

/// Removes an agent that has no job in flight. Sessions that are bound to it stay so: they take no job until they are
/// attached to another one, or the same owner registers it again.
#[derive(Clone, Debug)]
pub struct RemoveAgent {
    /// Which.
    pub agent: AgentId,
}

/// Reads one agent.
#[derive(Clone, Debug)]
pub struct GetAgent {
    /// Which.
    pub agent: AgentId,
}

/// Lists the agents that the caller may attach to, by id.
#[derive(Clone, Debug)]
pub struct ListAgents {
    /// 1 to 500; 0 means 100.
    pub page_size: u32,
    /// From the page before; empty for the first.
    pub page_token: String,
}

/// A page of agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPage {
    /// By id.
    pub agents: Vec<AgentSeen>,
    /// Empty on the last page.
    pub next_page_token: String,
}

impl Verb for SetAgent {
    type Out = AgentStored;
    const ACTION: &'static str = "agent.set";

    fn run(&self, tx: &mut Tx<'_>) -> Result<AgentStored, Stop> {
        let described = self.description.as_deref().filter(|description| !description.is_empty());
        if described.is_some_and(|text| !text::is_label(text, limits::DESCRIPTION_BYTES_MAX)) {
            let accepted = "0 to 256 bytes that all show, without blanks at the ends";
            return Err(Error::invalid_field("description", accepted).into());
        }
        let (before, permit) = tx.may_set_agent(&self.agent, self.shared.is_some())?;
        let created = before.is_none();
        let mut after = before.clone().unwrap_or_else(|| Agent {
            id: self.agent.clone(),
            owner: tx.caller().owner(),
            shared: false,
            description: String::new(),
            created_at: tx.now(),
        });
        if let Some(shared) = self.shared {
            after.shared = shared;
        }
        if let Some(description) = &self.description {
            after.description.clone_from(description);
        }
        let unchanged = before.as_ref() == Some(&after);
        let seen = tx.set_agent(&permit, before, after)?;
        if !unchanged {
            let facts = if created { r#"{"what":"registered"}"# } else { r#"{"what":"changed"}"# };
            tx.done(self.agent.as_str(), None, facts);
        }
        Ok(AgentStored { seen, created })
    }
}

impl Verb for RemoveAgent {
    type Out = ();
    const ACTION: &'static str = "agent.remove";

    fn run(&self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        let (agent, permit) = tx.may_remove_agent(&self.agent)?;
        // Under the agent's lock: whoever submits to it, or attaches to it, has that lock, too.
        if tx.busy_in(&self.agent)?.is_some() {
            let load = tx.load_of(&permit, &self.agent)?;
            return Err(busy_itself(tx, &self.agent, load));
        }
        tx.remove_agent(&permit, agent);
        tx.done(self.agent.as_str(), None, r#"{"what":"removed"}"#);
        Ok(())
    }
}

impl Query for GetAgent {
    type Out = AgentSeen;
    const ACTION: &'static str = "agent.get";

    fn run(&self, view: &mut View<'_>) -> Result<AgentSeen, Stop> {
        view.agent_seen(&self.agent)
    }
}

impl Query for ListAgents {
    type Out = AgentPage;
    const ACTION: &'static str = "agent.list";

    fn run(&self, view: &mut View<'_>) -> Result<AgentPage, Stop> {
        let page = Page::read(self.page_size, &self.page_token, AgentId::parse, view.limits())?;
        let mut agents = view.agents(page.from.as_ref(), page.limit + 1)?;
        let next_page_token = page.next(&agents, |seen| seen.agent.id.as_str());
        agents.truncate(page.limit);
        Ok(AgentPage { agents, next_page_token })
    }
}
