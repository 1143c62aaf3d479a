//! The plain engine's rows: ordinary maps, and the plainest code that answers. The twin of the others.

use std::collections::{BTreeMap, BTreeSet};

use interlock_kit::{
    clock::Timestamp,
    store::{Fault, model::ModelDomain},
};

use crate::{
    agent::Agent,
    caller::CookieHash,
    client::Client,
    ending::Place,
    event::Event,
    file::{self, File},
    ids::{AgentId, ClientId, FileId, JobId, OwnerId, ProjectId, SessionId, SessionName, WaiterId},
    job::{Job, Phase},
    limits::Limits,
    password::SessionPassword,
    policy::ProjectScope,
    request::{Request, RequestKey},
    session::{self, Session},
    store::{
        Change, Gateway, Signal,
        rows::{EventSize, JobsOf, Load, Log, Read, Rows},
    },
    sweep::{Duty, LogsFound},
    waiter::Waiter,
};

mod apply;

/// All rows, for tests to look at.
#[derive(Clone, Debug)]
pub struct Model {
    /// Sessions, gone ones too.
    pub sessions: BTreeMap<SessionId, Session>,
    /// Clients.
    pub clients: BTreeMap<ClientId, Client>,
    /// Passwords of sessions.
    pub passwords: BTreeMap<SessionId, SessionPassword>,
    /// Attaches that wait.
    pub waiters: BTreeMap<WaiterId, Waiter>,
    /// Files, without their contents.
    pub files: BTreeMap<FileId, File>,
    /// Agents.
    pub agents: BTreeMap<AgentId, Agent>,
    /// Jobs.
    pub jobs: BTreeMap<JobId, Job>,
    /// What was submitted.
    pub payloads: BTreeMap<JobId, Vec<u8>>,
    /// What workers answered.
    pub results: BTreeMap<JobId, Vec<u8>>,
    /// First answers.
    pub requests: BTreeMap<RequestKey, Request>,
    /// Logs.
    pub logs: BTreeMap<SessionId, ModelLog>,
    /// Up to where auth's log was seen to.
    pub followed: Place,
}

/// One session's log.
#[derive(Clone, Debug, Default)]
pub struct ModelLog {
    /// The newest number.
    pub last: u64,
    /// What is stored, with its weight.
    pub events: BTreeMap<u64, (Event, u64)>,
}

impl Default for Model {
    fn default() -> Self {
        let primary = Agent {
            id: AgentId::primary(),
            owner: None,
            shared: false,
            description: "built in".to_owned(),
            created_at: Timestamp::default(),
        };
        Self {
            sessions: BTreeMap::new(),
            clients: BTreeMap::new(),
            passwords: BTreeMap::new(),
            waiters: BTreeMap::new(),
            files: BTreeMap::new(),
            agents: BTreeMap::from([(primary.id.clone(), primary)]),
            jobs: BTreeMap::new(),
            payloads: BTreeMap::new(),
            results: BTreeMap::new(),
            requests: BTreeMap::new(),
            logs: BTreeMap::new(),
            followed: Place::default(),
        }
    }
}

impl ModelDomain for Gateway {
    type Model = Model;

    fn model_rows(model: &mut Model, work: &mut dyn FnMut(&mut (dyn Rows + '_))) {
        work(model);
    }

    fn model_apply(
        model: &mut Model,
        change: Change,
        now: Timestamp,
        signals: &mut Vec<Signal>,
    ) -> Result<(), Fault> {
        apply::apply(model, change, now, signals)
    }
}

impl Model {
    fn in_flight(&self) -> impl DoubleEndedIterator<Item = &Job> {
        self.jobs.values().filter(|job| job.is_in_flight())
    }

    fn of_agent<'m>(&'m self, agent: &'m AgentId) -> impl Iterator<Item = &'m Job> {
        self.in_flight().filter(move |job| job.binding.agent == *agent)
    }

    fn of_session<'m>(&'m self, session: &'m SessionId) -> impl Iterator<Item = &'m Job> {
        self.in_flight().filter(move |job| job.session == *session)
    }
}

impl ModelLog {
    fn first(&self) -> u64 {
        self.events.keys().next().copied().unwrap_or(self.last + 1)
    }

    fn bytes(&self) -> u64 {
        self.events.values().map(|(_, bytes)| bytes).sum()
    }
}

fn count<T>(of: impl Iterator<Item = T>) -> u32 {
    u32::try_from(of.count()).unwrap_or(u32::MAX)
}

impl Rows for Model {
    fn session(&self, id: &SessionId) -> Read<Option<Session>> {
        Ok(self.sessions.get(id).cloned())
    }

    fn is_name_taken(&self, owner: &OwnerId, name: &SessionName) -> Read<bool> {
        let living = self.sessions.values().filter(|session| session.phase != session::Phase::Gone);
        let mut named = living.filter(|session| session.name.as_ref() == Some(name));
        Ok(named.any(|session| session.owner == *owner))
    }

    fn sessions_living(&self, owner: &OwnerId) -> Read<u32> {
        let living = self.sessions.values().filter(|session| session.phase != session::Phase::Gone);
        Ok(count(living.filter(|session| session.owner == *owner)))
    }

    fn client(&self, hash: &CookieHash) -> Read<Option<Client>> {
        Ok(self.clients.values().find(|client| client.hash == *hash).cloned())
    }

    fn clients_of(&self, session: &SessionId) -> Read<Vec<Client>> {
        Ok(self.clients.values().filter(|client| client.session == *session).cloned().collect())
    }

    fn password(&self, session: &SessionId) -> Read<Option<SessionPassword>> {
        Ok(self.passwords.get(session).cloned())
    }

    fn session_named(&self, owner: &OwnerId, name: &SessionName) -> Read<Option<SessionId>> {
        let living = self.sessions.values().filter(|session| session.phase != session::Phase::Gone);
        let mut named = living.filter(|session| session.name.as_ref() == Some(name));
        Ok(named.find(|session| session.owner == *owner).map(|session| session.id.clone()))
    }

    fn waiters(&self, agent: &AgentId) -> Read<Vec<Waiter>> {
        Ok(self.waiters.values().filter(|waiter| waiter.concerns(agent)).cloned().collect())
    }

    fn waiters_of(&self, owner: &OwnerId) -> Read<u32> {
        Ok(count(self.waiters.values().filter(|waiter| waiter.owner == *owner)))
    }

    fn files_of(&self, session: &SessionId) -> Read<Vec<File>> {
        Ok(self.files.values().filter(|file| file.session == *session).cloned().collect())
    }

    fn file(&self, session: &SessionId, id: &FileId) -> Read<Option<File>> {
        Ok(self.files.get(id).filter(|file| file.session == *session).cloned())
    }

    fn is_file(&self, id: &FileId) -> Read<bool> {
        Ok(self.files.contains_key(id))
    }

    fn request(&self, key: &RequestKey) -> Read<Option<Request>> {
        Ok(self.requests.get(key).cloned())
    }

    fn agent(&self, id: &AgentId) -> Read<Option<Agent>> {
        Ok(self.agents.get(id).cloned())
    }

    fn agents_of(&self, owner: &OwnerId) -> Read<u32> {
        Ok(count(self.agents.values().filter(|agent| agent.owner.as_ref() == Some(owner))))
    }

    fn projects_in_flight(&self, agent: &AgentId) -> Read<Option<(ProjectId, ProjectId)>> {
        let projects: BTreeSet<&ProjectId> = self.of_agent(agent).map(|job| &job.binding.project).collect();
        Ok(projects.first().zip(projects.last()).map(|(&first, &last)| (first.clone(), last.clone())))
    }

    fn load(&self, agent: &AgentId) -> Read<Load> {
        let queued = count(self.of_agent(agent).filter(|job| job.phase == Phase::Queued));
        Ok(Load { queued, running: count(self.of_agent(agent)) - queued })
    }

    fn in_flight_of(&self, agent: &AgentId, owner: &OwnerId, limit: usize) -> Read<Vec<Job>> {
        Ok(self.of_agent(agent).filter(|job| job.owner == *owner).take(limit).cloned().collect())
    }

    fn queue_position(&self, agent: &AgentId, job: &JobId) -> Read<u32> {
        let queued = self.of_agent(agent).filter(|job| job.phase == Phase::Queued);
        Ok(count(queued.filter(|other| other.id <= *job)))
    }

    fn queue(&self, agent: &AgentId, limit: usize) -> Read<Vec<Job>> {
        Ok(self.of_agent(agent).filter(|job| job.phase == Phase::Queued).take(limit).cloned().collect())
    }

    fn session_jobs(&self, session: &Session, limit: usize) -> Read<Vec<Job>> {
        Ok(self.of_session(&session.id).take(limit).cloned().collect())
    }

    fn session_load(&self, session: &Session) -> Read<u32> {
        Ok(count(self.of_session(&session.id)))
    }

    fn owner_load(&self, owner: &OwnerId) -> Read<u32> {
        Ok(count(self.in_flight().filter(|job| job.owner == *owner)))
    }

    fn session_of(&self, job: &JobId) -> Read<Option<SessionId>> {
        Ok(self.jobs.get(job).map(|job| job.session.clone()))
    }

    fn job(&self, id: &JobId) -> Read<Option<Job>> {
        Ok(self.jobs.get(id).cloned())
    }

    fn payload(&self, id: &JobId) -> Read<Vec<u8>> {
        self.payloads.get(id).cloned().ok_or_else(|| crate::store::broken("a job without a payload"))
    }

    fn result(&self, id: &JobId) -> Read<Vec<u8>> {
        Ok(self.results.get(id).cloned().unwrap_or_default())
    }

    fn log(&self, session: &SessionId) -> Read<Log> {
        let log = self.logs.get(session).ok_or_else(|| crate::store::broken("a session without a log"))?;
        Ok(Log { first: log.first(), last: log.last, bytes: log.bytes() })
    }

    fn page_sessions(&self, owner: &OwnerId, before: Option<&SessionId>, limit: usize) -> Read<Vec<Session>> {
        let living = self.sessions.values().rev().filter(|session| session.phase != session::Phase::Gone);
        let mine = living.filter(|session| session.owner == *owner);
        let page = mine.filter(|session| before.is_none_or(|before| session.id < *before));
        Ok(page.take(limit).cloned().collect())
    }

    fn page_jobs(&self, scope: &ProjectScope, of: JobsOf<'_>) -> Read<Vec<Job>> {
        let of_session = self.jobs.values().rev().filter(|job| job.session == *of.session);
        let open = of_session.filter(|job| job.binding.project == *scope.project());
        let wanted = open.filter(|job| !of.in_flight || job.is_in_flight());
        let page = wanted.filter(|job| of.before.is_none_or(|before| job.id < *before));
        Ok(page.take(of.limit).cloned().collect())
    }

    fn page_agents(
        &self,
        owner: Option<&OwnerId>,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Read<Vec<Agent>> {
        let open = self
            .agents
            .values()
            .filter(|agent| owner.is_none_or(|owner| agent.shared || agent.owner.as_ref() == Some(owner)));
        Ok(open.filter(|agent| after.is_none_or(|after| agent.id > *after)).take(limit).cloned().collect())
    }

    fn events(&self, session: &SessionId, after: u64, limit: usize) -> Read<Vec<Event>> {
        let log = self.logs.get(session);
        let events = log.into_iter().flat_map(|log| log.events.range(after + 1..));
        Ok(events.take(limit).map(|(_, (event, _))| event.clone()).collect())
    }

    fn oldest_events(&self, session: &SessionId, limit: usize) -> Read<Vec<EventSize>> {
        let events = self.logs.get(session).into_iter().flat_map(|log| log.events.iter());
        let sizes =
            events.map(|(&sequence, (event, bytes))| EventSize { sequence, at: event.at, bytes: *bytes });
        Ok(sizes.take(limit).collect())
    }

    fn ended_jobs(&self, session: &SessionId, by: Timestamp, limit: usize) -> Read<Vec<JobId>> {
        let of_session = self.jobs.values().filter(|job| job.session == *session);
        let ended = of_session.filter(|job| ended_by(job, by));
        Ok(ended.take(limit).map(|job| job.id.clone()).collect())
    }

    fn stale_requests(&self, now: Timestamp, limit: usize) -> Read<Vec<RequestKey>> {
        let mut stale: Vec<&Request> = self.requests.values().filter(|r| r.kept_until.is_over(now)).collect();
        stale.sort_by(|a, b| (a.kept_until, &a.key).cmp(&(b.kept_until, &b.key)));
        Ok(stale.into_iter().take(limit).map(|request| request.key.clone()).collect())
    }

    fn due(&self, now: Timestamp, limits: &Limits) -> Read<Vec<Duty>> {
        let part = limits.sweep_rows_max;
        let leases = self.in_flight().filter(|job| match &job.phase {
            Phase::Running(lease) => lease.until.is_over(now) || job.deadline(limits).is_over(now),
            Phase::Queued | Phase::Ended(_) => false,
        });
        let queued = || self.in_flight().filter(|job| job.phase == Phase::Queued);
        let too_old =
            queued().take(part).filter(|job| job.submitted_at.after(limits.queue_age_max).is_over(now));
        let runs_until = |job: &Job| job.first_started_at.map(|first| first.after(limits.run_time_max));
        let mut ran_out: Vec<&Job> =
            queued().filter(|job| runs_until(job).is_some_and(|until| until.is_over(now))).collect();
        ran_out.sort_by_key(|job| (job.first_started_at, &job.id));
        let overdue: BTreeSet<&JobId> =
            too_old.chain(ran_out.into_iter().take(part)).map(|job| &job.id).collect();
        let mut due: Vec<Duty> = leases.take(part).map(|job| Duty::Lease(job.id.clone())).collect();
        due.extend(overdue.into_iter().take(part).map(|job| Duty::Overdue(job.clone())));
        let ending = self.sessions.values().filter(|session| self.is_due(session, now, limits));
        due.extend(ending.take(part).map(|session| Duty::Session(session.id.clone())));
        let by = now.before(limits.ended_jobs_kept);
        let mut old: Vec<&Job> = self.jobs.values().filter(|job| ended_by(job, by)).collect();
        old.sort_by_key(|job| (ended_at(job), &job.id));
        let sessions: BTreeSet<&SessionId> = old.into_iter().take(part).map(|job| &job.session).collect();
        due.extend(sessions.into_iter().map(|session| Duty::Jobs(session.clone())));
        due.extend((!self.stale_requests(now, 1)?.is_empty()).then_some(Duty::Requests));
        let mut idle: Vec<&Client> =
            self.clients.values().filter(|client| client.is_idle(now, limits)).collect();
        idle.sort_by_key(|client| (client.seen_at, &client.id));
        let idle = idle.into_iter().take(part);
        due.extend(idle.map(|client| Duty::Idle(client.session.clone(), client.id.clone())));
        let mut over: Vec<&Waiter> =
            self.waiters.values().filter(|waiter| waiter.alive_until.is_over(now)).collect();
        over.sort_by_key(|waiter| (waiter.alive_until, &waiter.id));
        let over = over.into_iter().take(part);
        due.extend(over.map(|waiter| Duty::Waiter(waiter.agent.clone(), waiter.id.clone())));
        let mut over: Vec<&File> =
            self.files.values().filter(|file| file.due_at().is_some_and(|at| at.is_over(now))).collect();
        over.sort_by_key(|file| (file.due_at(), &file.id));
        let mut left: Vec<&File> = self
            .files
            .values()
            .filter(|file| file.phase == file::Phase::Kept && self.is_gone(&file.session))
            .collect();
        left.sort_by_key(|file| (&file.session, &file.id));
        let both = over.into_iter().take(part).chain(left.into_iter().take(part));
        due.extend(both.map(|file| Duty::File(file.session.clone(), file.id.clone())));
        Ok(due)
    }

    fn due_logs(&self, now: Timestamp, limits: &Limits, after: Option<&SessionId>) -> Read<LogsFound> {
        let following = self.logs.iter().filter(|(session, _)| after.is_none_or(|after| *session > after));
        let looked: Vec<_> = following.take(limits.sweep_logs_max).collect();
        let due = looked.iter().filter(|(_, log)| is_log_due(log, now, limits));
        let due: Vec<SessionId> =
            due.take(limits.sweep_rows_max).map(|(session, _)| (*session).clone()).collect();
        let next = match looked.last() {
            _ if due.len() == limits.sweep_rows_max => due.last().cloned(),
            Some((last, _)) if looked.len() == limits.sweep_logs_max => Some((*last).clone()),
            Some(_) | None => None,
        };
        Ok(LogsFound { due, next })
    }

    fn next_deadline(&self) -> Read<Option<Timestamp>> {
        let running = self.jobs.values().filter_map(|job| match &job.phase {
            Phase::Running(lease) => Some(lease.until),
            Phase::Queued | Phase::Ended(_) => None,
        });
        Ok(running.min())
    }

    fn followed(&self) -> Read<Place> {
        Ok(self.followed)
    }

    fn next_owner(&self, after: Option<&OwnerId>) -> Read<Option<OwnerId>> {
        let living = self.sessions.values().filter(|session| session.phase != session::Phase::Gone);
        let owners = living.map(|session| &session.owner);
        Ok(owners.filter(|owner| after.is_none_or(|after| *owner > after)).min().cloned())
    }
}

impl Model {
    fn is_gone(&self, session: &SessionId) -> bool {
        self.sessions.get(session).is_some_and(|session| session.phase == session::Phase::Gone)
    }

    fn is_due(&self, session: &Session, now: Timestamp, limits: &Limits) -> bool {
        match session.phase {
            session::Phase::Open => false,
            session::Phase::Closing => self.of_session(&session.id).next().is_none(),
            session::Phase::Gone => {
                let has_events = self.logs.get(&session.id).is_some_and(|log| !log.events.is_empty());
                let has_jobs = self.jobs.values().any(|job| job.session == session.id);
                let forgotten =
                    session.ended_at.is_some_and(|at| at.after(limits.creation_kept).is_over(now));
                has_events || has_jobs || forgotten
            }
        }
    }
}

fn is_log_due(log: &ModelLog, now: Timestamp, limits: &Limits) -> bool {
    let oldest = log.events.values().next().map(|(event, _)| event.at);
    log.last + 1 - log.first() > limits.log_events_max
        || log.bytes() > limits.log_bytes_max
        || oldest.is_some_and(|at| at.after(limits.log_age_max).is_over(now))
}

fn ended_by(job: &Job, by: Timestamp) -> bool {
    ended_at(job).is_some_and(|at| at <= by)
}

fn ended_at(job: &Job) -> Option<Timestamp> {
    match &job.phase {
        Phase::Ended(end) => Some(end.at),
        Phase::Queued | Phase::Running(_) => None,
    }
}
