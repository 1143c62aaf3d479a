//! Rows that miss each first look-up: so tests prove that every verb can be run again. Time must stand still there:
//! some look-ups are of an instant.

use std::collections::BTreeSet;

use interlock_kit::clock::Timestamp;

use crate::{
    agent::Agent,
    caller::CookieHash,
    client::Client,
    ending::Place,
    event::Event,
    file::File,
    ids::{AgentId, FileId, JobId, OwnerId, ProjectId, SessionId, SessionName},
    job::Job,
    limits::Limits,
    password::SessionPassword,
    policy::ProjectScope,
    request::{Request, RequestKey},
    session::Session,
    store::{
        Key, Stop,
        rows::{DueBounds, EventSize, JobList, JobsOf, Load, Log, LogBounds, Read, Rows},
    },
    sweep::{Duty, LogsFound},
    waiter::Waiter,
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
}

impl<R: Rows> Rows for Missing<'_, R> {
    fn session(&self, id: &SessionId) -> Read<Option<Session>> {
        self.at(Key::Session(id.clone()))?.session(id)
    }

    fn is_name_taken(&self, owner: &OwnerId, name: &SessionName) -> Read<bool> {
        self.at(Key::Name(owner.clone(), name.clone()))?.is_name_taken(owner, name)
    }

    fn sessions_living(&self, owner: &OwnerId) -> Read<u32> {
        self.at(Key::SessionsLiving(owner.clone()))?.sessions_living(owner)
    }

    fn client(&self, hash: &CookieHash) -> Read<Option<Client>> {
        self.at(Key::Client(*hash))?.client(hash)
    }

    fn clients_of(&self, session: &SessionId) -> Read<Vec<Client>> {
        self.at(Key::ClientsOf(session.clone()))?.clients_of(session)
    }

    fn password(&self, session: &SessionId) -> Read<Option<SessionPassword>> {
        self.at(Key::Password(session.clone()))?.password(session)
    }

    fn session_named(&self, owner: &OwnerId, name: &SessionName) -> Read<Option<SessionId>> {
        self.at(Key::Named(owner.clone(), name.clone()))?.session_named(owner, name)
    }

    fn waiters(&self, agent: &AgentId) -> Read<Vec<Waiter>> {
        self.at(Key::Waiters(agent.clone()))?.waiters(agent)
    }

    fn waiters_of(&self, owner: &OwnerId) -> Read<u32> {
        self.at(Key::WaitersOf(owner.clone()))?.waiters_of(owner)
    }

    fn files_of(&self, session: &SessionId) -> Read<Vec<File>> {
        self.at(Key::FilesOf(session.clone()))?.files_of(session)
    }

    fn file(&self, session: &SessionId, id: &FileId) -> Read<Option<File>> {
        self.at(Key::File(session.clone(), id.clone()))?.file(session, id)
    }

    fn is_file(&self, id: &FileId) -> Read<bool> {
        self.at(Key::IsFile(id.clone()))?.is_file(id)
    }

    fn request(&self, key: &RequestKey) -> Read<Option<Request>> {
        self.at(Key::Request(key.clone()))?.request(key)
    }

    fn agent(&self, id: &AgentId) -> Read<Option<Agent>> {
        self.at(Key::Agent(id.clone()))?.agent(id)
    }

    fn agents_of(&self, owner: &OwnerId) -> Read<u32> {
        self.at(Key::AgentsOf(owner.clone()))?.agents_of(owner)
    }

    fn projects_in_flight(&self, agent: &AgentId) -> Read<Option<(ProjectId, ProjectId)>> {
        self.at(Key::InFlight(agent.clone(), 1))?.projects_in_flight(agent)
    }

    fn load(&self, agent: &AgentId) -> Read<Load> {
        self.at(Key::Load(agent.clone()))?.load(agent)
    }

    fn in_flight_of(&self, agent: &AgentId, owner: &OwnerId, limit: usize) -> Read<Vec<Job>> {
        let list = JobList::OfAgent(agent.clone(), owner.clone());
        self.at(Key::Jobs(list, limit))?.in_flight_of(agent, owner, limit)
    }

    fn queue_position(&self, agent: &AgentId, job: &JobId) -> Read<u32> {
        self.at(Key::Position(agent.clone(), job.clone()))?.queue_position(agent, job)
    }

    fn queue(&self, agent: &AgentId, limit: usize) -> Read<Vec<Job>> {
        self.at(Key::Jobs(JobList::Queue(agent.clone()), limit))?.queue(agent, limit)
    }

    fn session_jobs(&self, session: &Session, limit: usize) -> Read<Vec<Job>> {
        let list = JobList::OfSession(session.owner.clone(), session.id.clone());
        self.at(Key::Jobs(list, limit))?.session_jobs(session, limit)
    }

    fn session_load(&self, session: &Session) -> Read<u32> {
        self.at(Key::SessionLoad(session.owner.clone(), session.id.clone()))?.session_load(session)
    }

    fn owner_load(&self, owner: &OwnerId) -> Read<u32> {
        self.at(Key::OwnerLoad(owner.clone()))?.owner_load(owner)
    }

    fn session_of(&self, job: &JobId) -> Read<Option<SessionId>> {
        self.at(Key::SessionOf(job.clone()))?.session_of(job)
    }

    fn job(&self, id: &JobId) -> Read<Option<Job>> {
        self.at(Key::Job(id.clone()))?.job(id)
    }

    fn payload(&self, id: &JobId) -> Read<Vec<u8>> {
        self.at(Key::Payload(id.clone()))?.payload(id)
    }

    fn result(&self, id: &JobId) -> Read<Vec<u8>> {
        self.at(Key::Result(id.clone()))?.result(id)
    }

    fn log(&self, session: &SessionId) -> Read<Log> {
        self.at(Key::Log(session.clone()))?.log(session)
    }

    fn page_sessions(&self, owner: &OwnerId, before: Option<&SessionId>, limit: usize) -> Read<Vec<Session>> {
        self.at(Key::PageSessions(owner.clone(), before.cloned(), limit))?.page_sessions(owner, before, limit)
    }

    fn page_jobs(&self, scope: &ProjectScope, of: JobsOf<'_>) -> Read<Vec<Job>> {
        self.at(Key::PageJobs(scope.project().clone(), of.into()))?.page_jobs(scope, of)
    }

    fn page_agents(
        &self,
        owner: Option<&OwnerId>,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Read<Vec<Agent>> {
        self.at(Key::PageAgents(owner.cloned(), after.cloned(), limit))?.page_agents(owner, after, limit)
    }

    fn events(&self, session: &SessionId, after: u64, limit: usize) -> Read<Vec<Event>> {
        self.at(Key::Events(session.clone(), after, limit))?.events(session, after, limit)
    }

    fn oldest_events(&self, session: &SessionId, limit: usize) -> Read<Vec<EventSize>> {
        self.at(Key::OldestEvents(session.clone(), 0, limit))?.oldest_events(session, limit)
    }

    fn ended_jobs(&self, session: &SessionId, by: Timestamp, limit: usize) -> Read<Vec<JobId>> {
        self.at(Key::Jobs(JobList::Ended(session.clone(), by), limit))?.ended_jobs(session, by, limit)
    }

    fn stale_requests(&self, now: Timestamp, limit: usize) -> Read<Vec<RequestKey>> {
        self.at(Key::StaleRequests(now, limit))?.stale_requests(now, limit)
    }

    fn due(&self, now: Timestamp, limits: &Limits) -> Read<Vec<Duty>> {
        self.at(Key::Due(DueBounds::of(now, limits)))?.due(now, limits)
    }

    fn due_logs(&self, now: Timestamp, limits: &Limits, after: Option<&SessionId>) -> Read<LogsFound> {
        self.at(Key::DueLogs(after.cloned(), LogBounds::of(now, limits)))?.due_logs(now, limits, after)
    }

    fn next_deadline(&self) -> Read<Option<Timestamp>> {
        self.at(Key::NextDeadline)?.next_deadline()
    }

    fn followed(&self) -> Read<Place> {
        self.at(Key::Followed)?.followed()
    }

    fn next_owner(&self, after: Option<&OwnerId>) -> Read<Option<OwnerId>> {
        self.at(Key::NextOwner(after.cloned()))?.next_owner(after)
    }
}
