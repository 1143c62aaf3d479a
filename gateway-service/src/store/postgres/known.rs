//! Look-ups on what is loaded. What is not is missed; with it goes what will be looked up next.

use std::collections::BTreeSet;

use interlock_kit::clock::Timestamp;

use super::{Beginning, List, Working, counted, load};
use crate::{
    agent::Agent,
    caller::CookieHash,
    client::Client,
    ending::Place,
    event::Event,
    file::File,
    ids::{AgentId, FileId, JobId, OwnerId, ProjectId, SessionId, SessionName},
    job::{Job, Phase},
    limits::Limits,
    password::SessionPassword,
    policy::ProjectScope,
    request::{Request, RequestKey},
    session::Session,
    store::{
        Key, Stop, broken,
        rows::{DueBounds, EventSize, JobList, JobsOf, Load, Log, LogBounds, Read, Rows},
    },
    sweep::{Duty, LogsFound},
    waiter::Waiter,
};

/// The least part of a list that is loaded.
const PART_MIN: usize = 16;
/// How much longer the next part is, where one was too short.
const PART_GROWTH: usize = 4;

/// Before every instant.
const AT_FIRST: Timestamp = Timestamp::from_micros(i64::MIN);

/// A working set, and what of it is loaded.
pub(super) struct Known<'w> {
    pub(super) working: &'w Working,
    pub(super) loaded: &'w BTreeSet<Key>,
}

fn miss<T>(key: Key) -> Read<T> {
    Err(Stop::Miss(vec![key]))
}

/// The part of a list that is loaded for so many: few sizes, so that most callers ask for the same.
fn part(limit: usize) -> usize {
    let mut part = PART_MIN;
    while part < limit {
        part *= PART_GROWTH;
    }
    part
}

impl<'w> Known<'w> {
    fn need(&self, key: Key) -> Read<()> {
        if self.loaded.contains(&key) { Ok(()) } else { miss(key) }
    }

    fn need_all(&self, keys: impl IntoIterator<Item = Key>) -> Read<()> {
        let missed: Vec<Key> = keys.into_iter().filter(|key| !self.loaded.contains(key)).collect();
        if missed.is_empty() { Ok(()) } else { Err(Stop::Miss(missed)) }
    }

    /// A row that is here is locked or the batch's own; one that is not may not have been loaded.
    fn row<T: Clone>(&self, row: Option<&T>, key: impl FnOnce() -> Key) -> Read<Option<T>> {
        match row {
            Some(row) => Ok(Some(row.clone())),
            None => self.need(key()).map(|()| None),
        }
    }

    fn count(&self, key: Key) -> Read<u32> {
        let count = self.working.counts.get(&key).copied().unwrap_or_default();
        self.need(key).map(|()| counted(count))
    }

    fn list<T>(&self, key: Key, of: impl FnOnce(&'w List) -> Option<T>) -> Read<T> {
        match self.working.lists.get(&key) {
            Some(list) => of(list).ok_or_else(|| broken("a list of another kind")),
            None => miss(key),
        }
    }

    /// The first jobs of a list as it is by now: those that are stored, without what the batch has taken from it,
    /// with what it has added. What comes after the last loaded one is not known.
    fn first_jobs(&self, list: &JobList, limit: usize) -> Read<Vec<&'w Job>> {
        let Some(Beginning { jobs, part: asked }) = self.working.beginnings.get(list) else {
            return miss(Key::Jobs(list.clone(), part(limit)));
        };
        let end = if jobs.len() < *asked { None } else { jobs.last() };
        let ids: BTreeSet<&JobId> = jobs.iter().chain(self.working.changed.keys()).collect();
        let known = ids.into_iter().take_while(|id| end.is_none_or(|end| *id <= end));
        let known = known.filter_map(|id| self.working.jobs.get(id)).filter(|job| list.has(job));
        let first: Vec<&Job> = known.take(limit).collect();
        match end {
            Some(_) if first.len() < limit => {
                miss(Key::Jobs(list.clone(), (asked * PART_GROWTH).max(part(limit))))
            }
            Some(_) | None => Ok(first),
        }
    }

    /// Jobs that the verb is going to change: locked, and then as they are.
    fn locked(&self, jobs: Vec<&Job>, and: impl Fn(&Job) -> Option<Key>) -> Read<Vec<Job>> {
        let others = |job: &&Job| !self.working.changed.contains_key(&job.id);
        let keys = jobs.iter().copied().filter(others).flat_map(|job| {
            let own = Key::Job(job.id.clone());
            std::iter::once(own).chain(and(job))
        });
        self.need_all(keys)?;
        Ok(jobs.into_iter().cloned().collect())
    }
}

impl Rows for Known<'_> {
    fn session(&self, id: &SessionId) -> Read<Option<Session>> {
        self.row(self.working.sessions.get(id), || Key::Session(id.clone()))
    }

    fn is_name_taken(&self, owner: &OwnerId, name: &SessionName) -> Read<bool> {
        self.need(Key::Name(owner.clone(), name.clone()))?;
        Ok(self.working.names.contains(&(owner.clone(), name.clone())))
    }

    fn sessions_living(&self, owner: &OwnerId) -> Read<u32> {
        self.count(Key::SessionsLiving(owner.clone()))
    }

    fn client(&self, hash: &CookieHash) -> Read<Option<Client>> {
        if self.working.left.contains(hash) {
            return Ok(None);
        }
        self.row(self.working.clients.get(hash), || Key::Client(*hash))
    }

    fn clients_of(&self, session: &SessionId) -> Read<Vec<Client>> {
        let Some(members) = self.working.members.get(session) else {
            return miss(Key::ClientsOf(session.clone()));
        };
        let mut clients: Vec<Client> =
            members.iter().filter_map(|hash| self.working.clients.get(hash)).cloned().collect();
        clients.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(clients)
    }

    fn password(&self, session: &SessionId) -> Read<Option<SessionPassword>> {
        self.row(self.working.passwords.get(session), || Key::Password(session.clone()))
    }

    fn session_named(&self, owner: &OwnerId, name: &SessionName) -> Read<Option<SessionId>> {
        let key = Key::Named(owner.clone(), name.clone());
        self.list(key, |list| if let List::Named(id) = list { Some(id.clone()) } else { None })
    }

    fn waiters(&self, agent: &AgentId) -> Read<Vec<Waiter>> {
        match self.working.lines.get(agent) {
            Some(line) => Ok(line.values().cloned().collect()),
            None => miss(Key::Waiters(agent.clone())),
        }
    }

    fn waiters_of(&self, owner: &OwnerId) -> Read<u32> {
        self.count(Key::WaitersOf(owner.clone()))
    }

    fn files_of(&self, session: &SessionId) -> Read<Vec<File>> {
        if !self.working.shelves.contains(session) {
            return miss(Key::FilesOf(session.clone()));
        }
        Ok(self.working.files.values().filter(|file| file.session == *session).cloned().collect())
    }

    fn file(&self, session: &SessionId, id: &FileId) -> Read<Option<File>> {
        let found = self.working.files.get(id).filter(|file| file.session == *session);
        if found.is_none() && !self.working.shelves.contains(session) {
            self.need(Key::File(session.clone(), id.clone()))?;
        }
        Ok(found.cloned())
    }

    fn is_file(&self, id: &FileId) -> Read<bool> {
        self.list(Key::IsFile(id.clone()), |list| if let List::Is(is) = list { Some(*is) } else { None })
    }

    fn request(&self, key: &RequestKey) -> Read<Option<Request>> {
        self.row(self.working.requests.get(key), || Key::Request(key.clone()))
    }

    fn agent(&self, id: &AgentId) -> Read<Option<Agent>> {
        self.row(self.working.agents.get(id), || Key::Agent(id.clone()))
    }

    fn agents_of(&self, owner: &OwnerId) -> Read<u32> {
        self.count(Key::AgentsOf(owner.clone()))
    }

    fn projects_in_flight(&self, agent: &AgentId) -> Read<Option<(ProjectId, ProjectId)>> {
        let Some(in_flight) = self.working.in_flight.get(agent) else {
            // Who asks for these looks at the line next.
            self.need_all([Key::InFlight(agent.clone(), PART_MIN), Key::Waiters(agent.clone())])?;
            return miss(Key::InFlight(agent.clone(), PART_MIN));
        };
        let projects = &in_flight.jobs;
        match projects.first_key_value().zip(projects.last_key_value()) {
            Some(((first, _), (last, _))) => Ok(Some((first.clone(), last.clone()))),
            // The batch has ended all that it knows of.
            None if in_flight.more => miss(Key::InFlight(agent.clone(), in_flight.part * PART_GROWTH)),
            None => Ok(None),
        }
    }

    fn load(&self, agent: &AgentId) -> Read<Load> {
        self.need(Key::Load(agent.clone()))?;
        Ok(load(self.working.loads.get(agent).copied().unwrap_or_default()))
    }

    fn in_flight_of(&self, agent: &AgentId, owner: &OwnerId, limit: usize) -> Read<Vec<Job>> {
        let jobs = self.first_jobs(&JobList::OfAgent(agent.clone(), owner.clone()), limit)?;
        let queued = jobs.iter().filter(|job| job.phase == Phase::Queued);
        self.need_all(queued.map(|job| Key::Position(agent.clone(), job.id.clone())))?;
        Ok(jobs.into_iter().cloned().collect())
    }

    fn queue_position(&self, agent: &AgentId, job: &JobId) -> Read<u32> {
        let key = Key::Position(agent.clone(), job.clone());
        let stored = self.working.counts.get(&key).copied().unwrap_or_default();
        self.need(key)?;
        let queue = JobList::Queue(agent.clone());
        let is_before =
            |other: Option<&Job>| i64::from(other.is_some_and(|other| other.id <= *job && queue.has(other)));
        let changed = self.working.changed.iter();
        let gained: i64 =
            changed.map(|(id, was)| is_before(self.working.jobs.get(id)) - is_before(was.as_ref())).sum();
        Ok(counted(stored + gained))
    }

    fn queue(&self, agent: &AgentId, limit: usize) -> Read<Vec<Job>> {
        let jobs = self.first_jobs(&JobList::Queue(agent.clone()), limit)?;
        self.locked(jobs, |job| Some(Key::Payload(job.id.clone())))
    }

    fn session_jobs(&self, session: &Session, limit: usize) -> Read<Vec<Job>> {
        let list = JobList::OfSession(session.owner.clone(), session.id.clone());
        self.locked(self.first_jobs(&list, limit)?, |_| None)
    }

    fn session_load(&self, session: &Session) -> Read<u32> {
        self.count(Key::SessionLoad(session.owner.clone(), session.id.clone()))
    }

    fn owner_load(&self, owner: &OwnerId) -> Read<u32> {
        self.count(Key::OwnerLoad(owner.clone()))
    }

    fn session_of(&self, job: &JobId) -> Read<Option<SessionId>> {
        self.row(self.working.sessions_of.get(job), || Key::SessionOf(job.clone()))
    }

    fn job(&self, id: &JobId) -> Read<Option<Job>> {
        if !self.working.changed.contains_key(id) {
            self.need(Key::Job(id.clone()))?;
        }
        Ok(self.working.jobs.get(id).cloned())
    }

    fn payload(&self, id: &JobId) -> Read<Vec<u8>> {
        if let Some(data) = self.working.payloads.get(id) {
            return Ok(data.to_vec());
        }
        self.need(Key::Payload(id.clone()))?;
        Err(broken("a job without a payload"))
    }

    fn result(&self, id: &JobId) -> Read<Vec<u8>> {
        let found = self.working.results.get(id);
        Ok(self.row(found, || Key::Result(id.clone()))?.map(|data| data.to_vec()).unwrap_or_default())
    }

    fn log(&self, session: &SessionId) -> Read<Log> {
        let head = self.row(self.working.logs.get(session), || Key::Log(session.clone()))?;
        Ok(head.ok_or_else(|| broken("a session without a log"))?.log)
    }

    fn page_sessions(&self, owner: &OwnerId, before: Option<&SessionId>, limit: usize) -> Read<Vec<Session>> {
        let key = Key::PageSessions(owner.clone(), before.cloned(), limit);
        let page = self.list(key, |list| if let List::Sessions(page) = list { Some(page) } else { None })?;
        // Each of them is shown with these.
        self.need_all(page.iter().flat_map(|session| {
            let load = Key::SessionLoad(session.owner.clone(), session.id.clone());
            [load, Key::Log(session.id.clone())]
        }))?;
        Ok(page.clone())
    }

    fn page_jobs(&self, scope: &ProjectScope, of: JobsOf<'_>) -> Read<Vec<Job>> {
        let key = Key::PageJobs(scope.project().clone(), of.into());
        self.list(key, |list| if let List::Jobs(page) = list { Some(page.clone()) } else { None })
    }

    fn page_agents(
        &self,
        owner: Option<&OwnerId>,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Read<Vec<Agent>> {
        let key = Key::PageAgents(owner.cloned(), after.cloned(), limit);
        let page = self.list(key, |list| if let List::Agents(page) = list { Some(page) } else { None })?;
        self.need_all(page.iter().map(|agent| Key::Load(agent.id.clone())))?;
        Ok(page.clone())
    }

    fn events(&self, session: &SessionId, after: u64, limit: usize) -> Read<Vec<Event>> {
        let key = Key::Events(session.clone(), after, limit);
        self.list(key, |list| if let List::Events(events) = list { Some(events.to_vec()) } else { None })
    }

    fn oldest_events(&self, session: &SessionId, limit: usize) -> Read<Vec<EventSize>> {
        // From where the batch has not trimmed it yet.
        let key = Key::OldestEvents(session.clone(), self.log(session)?.first, limit);
        self.list(key, |list| if let List::Sizes(sizes) = list { Some(sizes.clone()) } else { None })
    }

    fn ended_jobs(&self, session: &SessionId, by: Timestamp, limit: usize) -> Read<Vec<JobId>> {
        // What had ended at an earlier instant has ended at this one.
        let (list, first) = (JobList::Ended(session.clone(), by), JobList::Ended(session.clone(), AT_FIRST));
        let earlier = self.working.beginnings.range(first..=list.clone()).next_back();
        let jobs = self.first_jobs(earlier.map_or(&list, |(earlier, _)| earlier), limit)?;
        Ok(jobs.into_iter().map(|job| job.id.clone()).collect())
    }

    fn stale_requests(&self, now: Timestamp, limit: usize) -> Read<Vec<RequestKey>> {
        let key = Key::StaleRequests(now, limit);
        let stale = |list: &List| if let List::Requests(keys) = list { Some(keys.clone()) } else { None };
        // What was stale at an earlier instant is so at this one.
        let earlier = self.working.lists.range(Key::StaleRequests(AT_FIRST, 0)..=key.clone());
        let of_this_size = |key: &&Key| matches!(key, Key::StaleRequests(_, size) if *size == limit);
        let earlier = earlier.map(|(key, _)| key).rfind(of_this_size);
        let mut keys = self.list(earlier.cloned().unwrap_or(key), stale)?;
        // What a verb of this batch has dropped is gone; what is left waits for the next sweep.
        keys.retain(|key| {
            self.working.requests.get(key).is_some_and(|request| request.kept_until.is_over(now))
        });
        Ok(keys)
    }

    fn due(&self, now: Timestamp, limits: &Limits) -> Read<Vec<Duty>> {
        let key = Key::Due(DueBounds::of(now, limits));
        self.list(key, |list| if let List::Duties(duties) = list { Some(duties.clone()) } else { None })
    }

    fn due_logs(&self, now: Timestamp, limits: &Limits, after: Option<&SessionId>) -> Read<LogsFound> {
        let key = Key::DueLogs(after.cloned(), LogBounds::of(now, limits));
        self.list(key, |list| if let List::Logs(found) = list { Some(found.clone()) } else { None })
    }

    fn next_deadline(&self) -> Read<Option<Timestamp>> {
        self.list(Key::NextDeadline, |list| if let List::Deadline(at) = list { Some(*at) } else { None })
    }

    fn followed(&self) -> Read<Place> {
        self.working.followed.ok_or_else(|| Stop::Miss(vec![Key::Followed]))
    }

    fn next_owner(&self, after: Option<&OwnerId>) -> Read<Option<OwnerId>> {
        let key = Key::NextOwner(after.cloned());
        self.list(key, |list| if let List::Owner(owner) = list { Some(owner.clone()) } else { None })
    }

    fn expect(&self, keys: &mut dyn Iterator<Item = Key>) -> Read<()> {
        let unknown = keys.filter_map(|key| match key {
            Key::Jobs(list, limit) => {
                (!self.working.beginnings.contains_key(&list)).then(|| Key::Jobs(list, part(limit)))
            }
            Key::InFlight(agent, _) => {
                (!self.working.in_flight.contains_key(&agent)).then_some(Key::InFlight(agent, PART_MIN))
            }
            key => Some(key),
        });
        self.need_all(unknown)
    }
}
