//! What a verb is going to look up next. Only hints: an engine that loads rows loads them in one flight, in the order of
//! their locks; without any it does so row by row, as they are missed. They decide nothing.

use super::{Found, View};
use crate::{
    ids::{AgentId, JobId, SessionId},
    request::RequestKey,
    store::{Key, Stop, rows::JobList},
};

impl View<'_> {
    /// Says which agents are going to be looked up, and how much of their queues.
    ///
    /// # Errors
    /// [`Stop`]: they are loaded first.
    pub(crate) fn expect_agents<'a>(
        &self,
        agents: impl IntoIterator<Item = &'a AgentId>,
        queued: Option<usize>,
    ) -> Result<(), Stop> {
        self.rows.expect(&mut agents.into_iter().flat_map(|agent| {
            let queue = queued.map(|limit| Key::Jobs(JobList::Queue(agent.clone()), limit));
            std::iter::once(Key::Agent(agent.clone())).chain(queue)
        }))
    }

    /// Says which jobs are going to be looked up.
    ///
    /// # Errors
    /// [`Stop`]: they are loaded first.
    pub(crate) fn expect_jobs<'a>(&self, jobs: impl IntoIterator<Item = &'a JobId>) -> Result<(), Stop> {
        self.rows.expect(&mut jobs.into_iter().cloned().map(Key::Job))
    }

    /// Says that a session is going to be looked up, and the first answer to a call on it.
    ///
    /// # Errors
    /// [`Stop`]: they are loaded first.
    pub(crate) fn expect_call(&self, session: &SessionId, request: &RequestKey) -> Result<(), Stop> {
        let calling = self.caller.cookie.iter().map(|cookie| Key::Client(cookie.hash));
        let rest = [Key::Session(session.clone()), Key::Request(request.clone())];
        self.rows.expect(&mut calling.chain(rest))
    }

    /// Says that a job of a found session is going to be queued for an agent.
    ///
    /// # Errors
    /// [`Stop`]: what that rests on is loaded first.
    pub(crate) fn expect_queueing(&self, found: &Found, agent: &AgentId) -> Result<(), Stop> {
        let load = Key::OwnerLoad(found.session.owner.clone());
        self.rows.expect(&mut guard(agent).chain([load, Key::Log(found.session.id.clone())]))
    }

    /// Says that a found session is going to be bound to an agent.
    ///
    /// # Errors
    /// [`Stop`]: what that rests on is loaded first.
    pub(crate) fn expect_binding(&self, found: &Found, agent: &AgentId) -> Result<(), Stop> {
        let session = &found.session;
        let present = session.binding.as_ref().map(|binding| &binding.agent);
        let agents = [Some(agent), present.filter(|present| *present != agent)];
        let rest =
            [Key::SessionLoad(session.owner.clone(), session.id.clone()), Key::Log(session.id.clone())];
        self.rows.expect(&mut agents.into_iter().flatten().flat_map(guard).chain(rest))
    }
}

/// An agent, and what the guard rests on there.
fn guard(agent: &AgentId) -> impl Iterator<Item = Key> {
    let (agent, flight, line) = (agent.clone(), agent.clone(), agent.clone());
    // How many of the jobs in flight is the engine's to say.
    [Key::Agent(agent), Key::InFlight(flight, 0), Key::Waiters(line)].into_iter()
}
