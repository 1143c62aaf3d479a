//! Rows that miss each first look-up: so tests prove that every verb can be run again.

use std::collections::BTreeSet;

use interlock_kit::clock::Timestamp;

use crate::{
    agent::Agent,
    caller::CookieHash,
    client::Client,
    event::Event,
    ids::{AgentId, JobId, OwnerId, ProjectId, SessionId, SessionName},
    job::Job,
    limits::Limits,
    policy::ProjectScope,
    request::{Request, RequestKey},
    session::Session,
    store::{
        Key, Stop,
        rows::{EventSize, JobsOf, Load, Log, Read, Rows},
    },
    sweep::{Duty, LogsFound},
};

/// Other rows, seen only where their key is known.
pub(super) struct Missing<'k, R> {
    inner: R,
    known: &'k BTreeSet<Key>,
}

impl<'k, R: Rows> Missing<'k, R> {
    pub(super) fn new(inner: R, known: &'k BTreeSet<Key>) -> Self {
        Self { inner, known }
    }

    fn at(&self, key: Key) -> Result<&R, Stop> {
        if self.known.contains(&key) { Ok(&self.inner) } else { Err(Stop::Miss(vec![key])) }
    }

    fn list(&self, name: String) -> Result<&R, Stop> {
        self.at(Key::Listing(name))
    }
}

impl<R: Rows> Rows for Missing<'_, R> {
    fn session(&self, id: &SessionId) -> Read<Option<Session>> {
        self.at(Key::Session(id.clone()))?.session(id)
    }

    fn is_name_taken(&self, owner: &OwnerId, name: &SessionName) -> Read<bool> {
        self.at(Key::Name(owner.clone(), name.clone()))?.is_name_taken(owner, name)
    }

    fn sessions_living(&self, owner: &OwnerId) -> Read<u32> {
        self.at(Key::Owner(owner.clone()))?.sessions_living(owner)
    }

    fn client(&self, hash: &CookieHash) -> Read<Option<Client>> {
        self.at(Key::Client(*hash))?.client(hash)
    }

    fn request(&self, key: &RequestKey) -> Read<Option<Request>> {
        self.at(Key::Request(key.clone()))?.request(key)
    }

    fn agent(&self, id: &AgentId) -> Read<Option<Agent>> {
        self.at(Key::Agent(id.clone()))?.agent(id)
    }

    fn agents_of(&self, owner: &OwnerId) -> Read<u32> {
        self.at(Key::Owner(owner.clone()))?.agents_of(owner)
    }

    fn projects_in_flight(&self, agent: &AgentId) -> Read<Option<(ProjectId, ProjectId)>> {
        self.at(Key::InFlight(agent.clone()))?.projects_in_flight(agent)
    }

    fn load(&self, agent: &AgentId) -> Read<Load> {
        self.at(Key::InFlight(agent.clone()))?.load(agent)
    }

    fn in_flight_of(&self, agent: &AgentId, owner: &OwnerId, limit: usize) -> Read<Vec<Job>> {
        self.at(Key::InFlight(agent.clone()))?.in_flight_of(agent, owner, limit)
    }

    fn queue_position(&self, agent: &AgentId, job: &JobId) -> Read<u32> {
        self.at(Key::InFlight(agent.clone()))?.queue_position(agent, job)
    }

    fn queue(&self, agent: &AgentId, limit: usize) -> Read<Vec<Job>> {
        self.at(Key::InFlight(agent.clone()))?.queue(agent, limit)
    }

    fn session_jobs(&self, session: &Session, limit: usize) -> Read<Vec<Job>> {
        self.at(Key::Jobs(session.id.clone()))?.session_jobs(session, limit)
    }

    fn session_load(&self, session: &Session) -> Read<u32> {
        self.at(Key::Jobs(session.id.clone()))?.session_load(session)
    }

    fn owner_load(&self, owner: &OwnerId) -> Read<u32> {
        self.at(Key::Owner(owner.clone()))?.owner_load(owner)
    }

    fn session_of(&self, job: &JobId) -> Read<Option<SessionId>> {
        self.at(Key::Job(job.clone()))?.session_of(job)
    }

    fn job(&self, id: &JobId) -> Read<Option<Job>> {
        self.at(Key::Job(id.clone()))?.job(id)
    }

    fn payload(&self, id: &JobId) -> Read<Vec<u8>> {
        self.at(Key::Contents(id.clone()))?.payload(id)
    }

    fn result(&self, id: &JobId) -> Read<Vec<u8>> {
        self.at(Key::Contents(id.clone()))?.result(id)
    }

    fn log(&self, session: &SessionId) -> Read<Log> {
        self.at(Key::Log(session.clone()))?.log(session)
    }

    fn page_sessions(&self, owner: &OwnerId, before: Option<&SessionId>, limit: usize) -> Read<Vec<Session>> {
        self.list(format!("sessions {owner} {before:?}"))?.page_sessions(owner, before, limit)
    }

    fn page_jobs(&self, scope: &ProjectScope, of: JobsOf<'_>) -> Read<Vec<Job>> {
        self.list(format!("jobs {of:?}"))?.page_jobs(scope, of)
    }

    fn page_agents(
        &self,
        owner: Option<&OwnerId>,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Read<Vec<Agent>> {
        self.list(format!("agents {owner:?} {after:?}"))?.page_agents(owner, after, limit)
    }

    fn events(&self, session: &SessionId, after: u64, limit: usize) -> Read<Vec<Event>> {
        self.list(format!("events {session} {after}"))?.events(session, after, limit)
    }

    fn oldest_events(&self, session: &SessionId, limit: usize) -> Read<Vec<EventSize>> {
        self.list(format!("oldest events {session}"))?.oldest_events(session, limit)
    }

    fn ended_jobs(&self, session: &SessionId, by: Timestamp, limit: usize) -> Read<Vec<JobId>> {
        self.list(format!("ended jobs {session}"))?.ended_jobs(session, by, limit)
    }

    fn stale_requests(&self, now: Timestamp, limit: usize) -> Read<Vec<RequestKey>> {
        self.list("stale requests".to_owned())?.stale_requests(now, limit)
    }

    fn due(&self, now: Timestamp, limits: &Limits) -> Read<Vec<Duty>> {
        self.list("due".to_owned())?.due(now, limits)
    }

    fn due_logs(&self, now: Timestamp, limits: &Limits, after: Option<&SessionId>) -> Read<LogsFound> {
        self.list("due logs".to_owned())?.due_logs(now, limits, after)
    }

    fn next_deadline(&self) -> Read<Option<Timestamp>> {
        self.list("deadline".to_owned())?.next_deadline()
    }
}
