//! A worker's hello: who it is, what it serves, what it says it holds. Bounded here, judged by the verbs.

use interlock_kit::error::Error;
use interlock_proto::gateway::v1::work_request;

use crate::{
    grpc::wire,
    ids::{AgentId, WorkerName},
    lease::Held,
    limits::Limits,
};

/// Who the worker is.
#[derive(Debug)]
pub(super) struct Hello {
    /// As it names itself.
    pub(super) worker: WorkerName,
    /// The agents it serves, each once.
    pub(super) agents: Vec<AgentId>,
    /// How many jobs it runs at once.
    pub(super) capacity: u32,
}

/// Reads a hello, and the jobs that the worker says it holds.
///
/// # Errors
/// `INVALID_FIELD` or `MISSING_FIELD`, naming the field within the hello.
pub(super) fn read(asked: work_request::Hello, limits: &Limits) -> Result<(Hello, Vec<Held>), Error> {
    if asked.agent_ids.is_empty() {
        return Err(Error::missing_field("agent_ids"));
    }
    if asked.agent_ids.len() > limits.served_agents_max {
        return Err(Error::invalid_field("agent_ids", format!("1 to {} agents", limits.served_agents_max)));
    }
    if asked.capacity == 0 || asked.capacity > limits.capacity_max {
        return Err(Error::invalid_field("capacity", format!("1 to {}", limits.capacity_max)));
    }
    let held = wire::all_held(asked.held, limits.capacity_max)?;
    let named = asked.agent_ids.into_iter().enumerate();
    let named = named.map(|(at, agent)| AgentId::parse_as(&format!("agent_ids[{at}]"), agent));
    let mut agents: Vec<AgentId> = named.collect::<Result<_, _>>()?;
    agents.sort();
    agents.dedup();
    let worker = WorkerName::parse(asked.worker)?;
    Ok((Hello { worker, agents, capacity: asked.capacity }, held))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(agents: &[&str], capacity: u32) -> work_request::Hello {
        let agent_ids = agents.iter().map(|agent| (*agent).to_owned()).collect();
        work_request::Hello { worker: "w".to_owned(), agent_ids, capacity, held: Vec::new() }
    }

    #[test]
    fn a_hello_is_bounded() {
        let limits = Limits::default();
        let (read_back, _) = read(hello(&["b", "a", "b"], 1), &limits).expect("good");
        assert_eq!(read_back.agents.iter().map(AgentId::as_str).collect::<Vec<_>>(), ["a", "b"]);
        let many = vec!["a"; limits.served_agents_max + 1];
        for bad in [hello(&[], 1), hello(&many, 1), hello(&["a"], 0), hello(&["a"], 65), hello(&["A b"], 1)] {
            read(bad, &limits).expect_err("out of bounds");
        }
    }
}
