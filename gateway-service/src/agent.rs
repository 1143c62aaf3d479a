//! Agents: what does the work.

use interlock_kit::clock::Timestamp;

use crate::ids::{AgentId, OwnerId};

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
    /// The longest description, bytes.
    pub const DESCRIPTION_BYTES_MAX: usize = 256;

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
