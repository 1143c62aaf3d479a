//! Agents: what does the work, by id.

use std::time::SystemTime;

use interlock_proto::gateway::v1 as wire;

use crate::{
    clock::from_wire,
    error::Error,
    gateway::{Gateway, PAGE, PAGES_MAX, present},
    path,
};

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its id.
    pub agent_id: String,
    /// Whose it is; `None` for built-in ones.
    pub owner_id: Option<String>,
    /// Whether every owner may attach to it.
    pub shared: bool,
    /// Whether it exists from the start and is guarded.
    pub built_in: bool,
    /// For people.
    pub description: String,
    /// When it was registered.
    pub created_at: Option<SystemTime>,
    /// How many of its jobs are queued, of all owners.
    pub queued: u32,
    /// How many of its jobs are running, of all owners.
    pub running: u32,
}

/// What to change of an agent; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetAgent {
    /// Open to every owner. Administrators only.
    pub shared: Option<bool>,
    /// 0 to 256 bytes, for people.
    pub description: Option<String>,
}

/// The registry of agents, as one caller sees it. From [`Gateway::agents`].
#[derive(Clone, Debug)]
pub struct Agents(Gateway);

impl Agents {
    pub(crate) fn of(gateway: Gateway) -> Self {
        Self(gateway)
    }

    /// Registers an agent of the caller's, or changes it. Answers whether it is new.
    ///
    /// # Errors
    /// `FORBIDDEN`, `ROOT_REQUIRED` for built-in ones, `INVALID_FIELD`.
    pub async fn set(&self, agent_id: &str, set: SetAgent) -> Result<(Agent, bool), Error> {
        let request = wire::SetAgentRequest {
            agent_id: agent_id.to_owned(),
            shared: set.shared,
            description: set.description,
        };
        let answer: wire::SetAgentResponse = self.0.call(path::SET_AGENT, request).await?;
        Ok((present(answer.agent, "agent")?.into(), answer.created))
    }

    /// Removes an agent of the caller's. Sessions that are bound to it take no job until they are attached to another.
    ///
    /// # Errors
    /// `SESSION_BUSY` while it has jobs in flight; `FORBIDDEN`, also for built-in ones; `NOT_FOUND` for administrators.
    pub async fn remove(&self, agent_id: &str) -> Result<(), Error> {
        let request = wire::RemoveAgentRequest { agent_id: agent_id.to_owned() };
        let wire::RemoveAgentResponse {} = self.0.call(path::REMOVE_AGENT, request).await?;
        Ok(())
    }

    /// Reads one agent.
    ///
    /// # Errors
    /// `NOT_FOUND` or a denial, by who asks.
    pub async fn get(&self, agent_id: &str) -> Result<Agent, Error> {
        let request = wire::GetAgentRequest { agent_id: agent_id.to_owned() };
        let answer: wire::GetAgentResponse = self.0.call(path::READ_AGENT, request).await?;
        Ok(present(answer.agent, "agent")?.into())
    }

    /// The agents that the caller may attach to, by id. All pages, at most 50,000.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`.
    pub async fn list(&self) -> Result<Vec<Agent>, Error> {
        let mut agents = Vec::new();
        let mut page_token = String::new();
        for _ in 0..PAGES_MAX {
            let request = wire::ListAgentsRequest { page_size: PAGE, page_token };
            let page: wire::ListAgentsResponse = self.0.call(path::LIST_AGENTS, request).await?;
            agents.extend(page.agents.into_iter().map(Agent::from));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(agents)
    }
}

impl From<wire::Agent> for Agent {
    fn from(a: wire::Agent) -> Self {
        Self {
            agent_id: a.agent_id,
            owner_id: Some(a.owner_id).filter(|id| !id.is_empty()),
            shared: a.shared,
            built_in: a.built_in,
            description: a.description,
            created_at: from_wire(a.created_at),
            queued: a.queued,
            running: a.running,
        }
    }
}
