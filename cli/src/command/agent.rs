//! `agent set|list|remove`.

use interlock_client::{Agent as Found, SetAgent};
use serde_json::{Value, json};

use crate::{args::Common, command::signed_in, failure::Failure, output::table};

/// What to do with agents.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Agent {
    /// Register an agent of yours, or change it.
    Set {
        /// 1 to 64 of a-z, 0-9, `-`, `_` and `.`.
        agent: String,
        /// Open it to every owner (`true`) or not (`false`); administrators only.
        #[arg(long)]
        shared: Option<bool>,
        /// What it is, for people.
        #[arg(long)]
        description: Option<String>,
    },
    /// List the agents that you can attach to.
    List,
    /// Remove an agent of yours that has no jobs in flight.
    Remove {
        /// Which.
        agent: String,
    },
}

/// Does it.
///
/// # Errors
/// What gateway-service refuses.
pub(crate) async fn run(agent: Agent, common: &Common) -> Result<(), Failure> {
    let agents = signed_in(common)?.gateway().agents();
    match agent {
        Agent::Set { agent, shared, description } => {
            let (set, created) = agents.set(&agent, SetAgent { shared, description }).await?;
            let done = if created { "registered" } else { "changed" };
            common.output.print(&format!("{} {done}", set.agent_id), &shown(&set))?;
        }
        Agent::Remove { agent } => {
            agents.remove(&agent).await?;
            common
                .output
                .print(&format!("{agent} removed"), &json!({ "agent_id": agent, "removed": true }))?;
        }
        Agent::List => {
            let found = agents.list().await?;
            let rows: Vec<_> = found.iter().map(row).collect();
            let heading = ["ID", "OWNER", "SHARED", "QUEUED", "RUNNING", "DESCRIPTION"];
            common.output.print(&table(&heading, &rows), &Value::Array(found.iter().map(shown).collect()))?;
        }
    }
    Ok(())
}

fn row(agent: &Found) -> Vec<String> {
    let owner = agent.owner_id.clone().unwrap_or_else(|| "(built in)".to_owned());
    let shared = if agent.shared { "yes" } else { "no" };
    vec![
        agent.agent_id.clone(),
        owner,
        shared.to_owned(),
        agent.queued.to_string(),
        agent.running.to_string(),
        agent.description.clone(),
    ]
}

fn shown(agent: &Found) -> Value {
    json!({
        "agent_id": agent.agent_id, "owner_id": agent.owner_id, "shared": agent.shared, "built_in": agent.built_in,
        "description": agent.description, "queued": agent.queued, "running": agent.running,
    })
}
