//! The keyed reads of one transaction, and the writes that verbs plan. Knows no policy.

use interlock_kit::{clock::Timestamp, store::audit::Keeping};

use crate::{
    agent::Agent,
    binding::Binding,
    caller::CookieHash,
    client::Client,
    data::Data,
    ending::Place,
    event::{Event, EventKind},
    file::File,
    ids::{AgentId, ClientId, FileId, JobId, OwnerId, ProjectId, SessionId, SessionName},
    job::{EndedBy, Job, Phase},
    limits::Limits,
    password::SessionPassword,
    policy::ProjectScope,
    request::{Request, RequestKey},
    session::{self, Session},
    store::{Signal, Stop},
    sweep::{Duty, LogsFound},
    waiter::Waiter,
};

/// What a look-up gives.
pub(crate) type Read<T> = Result<T, Stop>;

/// The keyed reads of one transaction. What is read stays as it is until the commit.
pub trait Rows {
    /// One session, gone ones too.
    fn session(&self, id: &SessionId) -> Read<Option<Session>>;
    /// Whether a living session of this owner has this name.
    fn is_name_taken(&self, owner: &OwnerId, name: &SessionName) -> Read<bool>;
    /// How many sessions of this owner live.
    fn sessions_living(&self, owner: &OwnerId) -> Read<u32>;
    /// The client with this cookie.
    fn client(&self, hash: &CookieHash) -> Read<Option<Client>>;
    /// A session's clients, oldest first: as many as it may have.
    fn clients_of(&self, session: &SessionId) -> Read<Vec<Client>>;
    /// The password that clients join a session with.
    fn password(&self, session: &SessionId) -> Read<Option<SessionPassword>>;
    /// The living session of this owner with this name. For queries: it locks nothing.
    fn session_named(&self, owner: &OwnerId, name: &SessionName) -> Read<Option<SessionId>>;
    /// The attaches that wait and concern an agent, earliest first; those whose time or lease is over, too.
    fn waiters(&self, agent: &AgentId) -> Read<Vec<Waiter>>;
    /// How many attaches of an owner wait.
    fn waiters_of(&self, owner: &OwnerId) -> Read<u32>;
    /// A session's files, oldest first: those that come and go, too.
    fn files_of(&self, session: &SessionId) -> Read<Vec<File>>;
    /// One file of a session.
    fn file(&self, session: &SessionId, id: &FileId) -> Read<Option<File>>;
    /// Whether there is a file of this id, in whatever session. For queries: it locks nothing.
    fn is_file(&self, id: &FileId) -> Read<bool>;
    /// The first answer to a call.
    fn request(&self, key: &RequestKey) -> Read<Option<Request>>;
    /// One agent.
    fn agent(&self, id: &AgentId) -> Read<Option<Agent>>;
    /// How many agents this owner has.
    fn agents_of(&self, owner: &OwnerId) -> Read<u32>;
    /// The projects that an agent's jobs in flight are in: the first and the last by name, the same
    /// one unless I1 is broken; `None` where nothing is in flight.
    fn projects_in_flight(&self, agent: &AgentId) -> Read<Option<(ProjectId, ProjectId)>>;
    /// How many jobs of an agent are queued and running.
    fn load(&self, agent: &AgentId) -> Read<Load>;
    /// An agent's jobs in flight that are of this owner's sessions, oldest first.
    fn in_flight_of(&self, agent: &AgentId, owner: &OwnerId, limit: usize) -> Read<Vec<Job>>;
    /// How many queued jobs of the agent are as old as this one or older: its place in the queue.
    fn queue_position(&self, agent: &AgentId, job: &JobId) -> Read<u32>;
    /// An agent's queued jobs, oldest first.
    fn queue(&self, agent: &AgentId, limit: usize) -> Read<Vec<Job>>;
    /// A session's jobs in flight, oldest first.
    fn session_jobs(&self, session: &Session, limit: usize) -> Read<Vec<Job>>;
    /// How many jobs of a session are in flight.
    fn session_load(&self, session: &Session) -> Read<u32>;
    /// How many jobs of an owner's sessions are in flight.
    fn owner_load(&self, owner: &OwnerId) -> Read<u32>;
    /// The session of a job, which never changes: locks nothing.
    fn session_of(&self, job: &JobId) -> Read<Option<SessionId>>;
    /// One job.
    fn job(&self, id: &JobId) -> Read<Option<Job>>;
    /// What was submitted.
    fn payload(&self, id: &JobId) -> Read<Vec<u8>>;
    /// What its worker answered; empty where it has not.
    fn result(&self, id: &JobId) -> Read<Vec<u8>>;
    /// The head of a session's log. Locked last.
    fn log(&self, session: &SessionId) -> Read<Log>;

    /// An owner's living sessions, newest first, before this one.
    fn page_sessions(&self, owner: &OwnerId, before: Option<&SessionId>, limit: usize) -> Read<Vec<Session>>;
    /// A session's jobs in a project, newest first, before this one.
    fn page_jobs(&self, scope: &ProjectScope, of: JobsOf<'_>) -> Read<Vec<Job>>;
    /// Agents by id, after this one: all, or this owner's and the shared ones.
    fn page_agents(&self, owner: Option<&OwnerId>, after: Option<&AgentId>, limit: usize)
    -> Read<Vec<Agent>>;
    /// Events after a sequence number, in order.
    fn events(&self, session: &SessionId, after: u64, limit: usize) -> Read<Vec<Event>>;
    /// The oldest events' number, time and size.
    fn oldest_events(&self, session: &SessionId, limit: usize) -> Read<Vec<EventSize>>;
    /// Jobs of a session that ended at or before this instant.
    fn ended_jobs(&self, session: &SessionId, by: Timestamp, limit: usize) -> Read<Vec<JobId>>;
    /// First answers that are kept no longer.
    fn stale_requests(&self, now: Timestamp, limit: usize) -> Read<Vec<RequestKey>>;
    /// What is due.
    fn due(&self, now: Timestamp, limits: &Limits) -> Read<Vec<Duty>>;
    /// Which logs are, among the next ones after this session's.
    fn due_logs(&self, now: Timestamp, limits: &Limits, after: Option<&SessionId>) -> Read<LogsFound>;
    /// When the first lease is over.
    fn next_deadline(&self) -> Read<Option<Timestamp>>;
    /// Up to where auth's log was seen to.
    fn followed(&self) -> Read<Place>;
    /// The next owner, by its id, who has a living session. For queries: it locks nothing.
    fn next_owner(&self, after: Option<&OwnerId>) -> Read<Option<OwnerId>>;

    /// What will be looked up next. Only a hint: engines that load rows load these at once.
    fn expect(&self, _keys: &mut dyn Iterator<Item = Key>) -> Read<()> {
        Ok(())
    }
}

/// How many jobs are in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Queued.
    pub queued: u32,
    /// Running.
    pub running: u32,
}

/// Which jobs of a session.
#[derive(Clone, Copy, Debug)]
pub struct JobsOf<'a> {
    /// The session.
    pub session: &'a SessionId,
    /// Only those in flight.
    pub in_flight: bool,
    /// Only older ones.
    pub before: Option<&'a JobId>,
    /// At most so many.
    pub limit: usize,
}

/// The head of a log. Empty where `first > last`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The oldest stored event.
    pub first: u64,
    /// The newest event; 0 before the first.
    pub last: u64,
    /// All stored events together.
    pub bytes: u64,
}

/// One event's place and weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSize {
    /// Its number.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// Its stored form, bytes.
    pub bytes: u64,
}

/// The name of a look-up, for engines that load before they run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// [`Rows::session`].
    Session(SessionId),
    /// [`Rows::is_name_taken`].
    Name(OwnerId, SessionName),
    /// [`Rows::sessions_living`].
    SessionsLiving(OwnerId),
    /// [`Rows::client`].
    Client(CookieHash),
    /// [`Rows::clients_of`].
    ClientsOf(SessionId),
    /// [`Rows::password`].
    Password(SessionId),
    /// [`Rows::session_named`].
    Named(OwnerId, SessionName),
    /// [`Rows::waiters`].
    Waiters(AgentId),
    /// [`Rows::waiters_of`].
    WaitersOf(OwnerId),
    /// [`Rows::files_of`].
    FilesOf(SessionId),
    /// [`Rows::file`].
    File(SessionId, FileId),
    /// [`Rows::is_file`].
    IsFile(FileId),
    /// [`Rows::request`].
    Request(RequestKey),
    /// [`Rows::agent`].
    Agent(AgentId),
    /// [`Rows::agents_of`].
    AgentsOf(OwnerId),
    /// [`Rows::projects_in_flight`], from so many of the jobs.
    InFlight(AgentId, usize),
    /// [`Rows::load`].
    Load(AgentId),
    /// [`Rows::queue_position`].
    Position(AgentId, JobId),
    /// The first of a list of jobs, so many.
    Jobs(JobList, usize),
    /// [`Rows::session_load`]; with the session's owner.
    SessionLoad(OwnerId, SessionId),
    /// [`Rows::owner_load`].
    OwnerLoad(OwnerId),
    /// [`Rows::session_of`].
    SessionOf(JobId),
    /// [`Rows::job`].
    Job(JobId),
    /// [`Rows::payload`].
    Payload(JobId),
    /// [`Rows::result`].
    Result(JobId),
    /// [`Rows::log`].
    Log(SessionId),
    /// [`Rows::page_sessions`].
    PageSessions(OwnerId, Option<SessionId>, usize),
    /// [`Rows::page_jobs`].
    PageJobs(ProjectId, JobsPage),
    /// [`Rows::page_agents`].
    PageAgents(Option<OwnerId>, Option<AgentId>, usize),
    /// [`Rows::events`].
    Events(SessionId, u64, usize),
    /// [`Rows::oldest_events`], from this one on.
    OldestEvents(SessionId, u64, usize),
    /// [`Rows::stale_requests`].
    StaleRequests(Timestamp, usize),
    /// [`Rows::due`].
    Due(DueBounds),
    /// [`Rows::due_logs`].
    DueLogs(Option<SessionId>, LogBounds),
    /// [`Rows::next_deadline`].
    NextDeadline,
    /// [`Rows::followed`].
    Followed,
    /// [`Rows::next_owner`].
    NextOwner(Option<OwnerId>),
}

/// A list of jobs, by their ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobList {
    /// [`Rows::queue`].
    Queue(AgentId),
    /// [`Rows::in_flight_of`].
    OfAgent(AgentId, OwnerId),
    /// [`Rows::session_jobs`]; with the session's owner.
    OfSession(OwnerId, SessionId),
    /// [`Rows::ended_jobs`].
    Ended(SessionId, Timestamp),
}

/// A page of a session's jobs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobsPage {
    /// The session.
    pub session: SessionId,
    /// Only those in flight.
    pub in_flight: bool,
    /// Only older ones.
    pub before: Option<JobId>,
    /// At most so many.
    pub limit: usize,
}

impl From<JobsOf<'_>> for JobsPage {
    fn from(of: JobsOf<'_>) -> Self {
        let JobsOf { session, in_flight, before, limit } = of;
        Self { session: session.clone(), in_flight, before: before.cloned(), limit }
    }
}

/// By which instants things are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DueBounds {
    /// Leases and first answers that end by then.
    pub now: Timestamp,
    /// Jobs in flight that were first started by then.
    pub started: Timestamp,
    /// Queued jobs that were submitted by then.
    pub submitted: Timestamp,
    /// Sessions that were gone by then.
    pub gone: Timestamp,
    /// Jobs that ended by then.
    pub ended: Timestamp,
    /// Clients that were not seen since then.
    pub idle: Timestamp,
    /// At most so many of each kind.
    pub rows: usize,
}

impl DueBounds {
    /// As the limits say.
    #[must_use]
    pub fn of(now: Timestamp, limits: &Limits) -> Self {
        Self {
            now,
            started: now.before(limits.run_time_max),
            submitted: now.before(limits.queue_age_max),
            gone: now.before(limits.creation_kept),
            ended: now.before(limits.ended_jobs_kept),
            idle: now.before(limits.client_idle_max),
            rows: limits.sweep_rows_max,
        }
    }
}

/// Beyond which a log is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogBounds {
    /// So many events.
    pub events: u64,
    /// So many bytes.
    pub bytes: u64,
    /// An event that was stored by then.
    pub stored: Timestamp,
    /// So many logs are looked at.
    pub logs: usize,
    /// At most so many are found.
    pub rows: usize,
}

impl LogBounds {
    /// As the limits say.
    #[must_use]
    pub fn of(now: Timestamp, limits: &Limits) -> Self {
        Self {
            events: limits.log_events_max,
            bytes: limits.log_bytes_max,
            stored: now.before(limits.log_age_max),
            logs: limits.sweep_logs_max,
            rows: limits.sweep_rows_max,
        }
    }
}

/// One planned write. Each is conditional on the rows that it was planned on.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new session with an empty log.
    AddSession(Session),
    /// A session changes.
    SetSession(Session, Session),
    /// A new client.
    AddClient(Client),
    /// A client's cursor moves.
    SetCursor {
        /// Whose.
        client: ClientId,
        /// From here.
        from: u64,
        /// To there.
        to: u64,
    },
    /// A client was seen.
    SetSeen {
        /// Who.
        client: ClientId,
        /// When it was seen before.
        from: Timestamp,
        /// When it was now.
        to: Timestamp,
    },
    /// A client goes.
    DropClient(Client),
    /// The password that clients join a session with.
    SetPassword(Option<SessionPassword>, SessionPassword),
    /// An attach waits.
    AddWaiter(Waiter),
    /// It goes on waiting.
    SetWaiter(Waiter, Waiter),
    /// It waits no longer.
    DropWaiter(Waiter),
    /// A file begins to come.
    AddFile(File),
    /// A file goes on in its life.
    SetFile(Box<(File, File)>),
    /// Nothing is left of a file.
    DropFile(File),
    /// A new agent.
    AddAgent(Agent),
    /// An agent changes.
    SetAgent(Agent, Agent),
    /// An agent goes.
    DropAgent(Agent),
    /// A session has another owner, and perhaps no name any more.
    AdoptSession(Session, Session),
    /// A new job and what was submitted.
    AddJob(Job, Data),
    /// A job changes; with what its worker answered, where it did.
    SetJob(Box<(Job, Job)>, Option<Data>),
    /// A first answer; takes the place of one that is kept no longer.
    PutRequest(Request, Timestamp),
    /// An event, numbered when it is applied.
    Append {
        /// To the log of this session.
        session: SessionId,
        /// The binding that it was made under.
        binding: Option<Binding>,
        /// What happened.
        kind: EventKind,
    },
    /// The oldest events of a log go.
    TrimLog {
        /// Of this session.
        session: SessionId,
        /// From the oldest stored one.
        from: u64,
        /// Up to and with this one.
        to: u64,
        /// Their weight.
        bytes: u64,
    },
    /// Ended jobs go, with all that is theirs.
    DropJobs(Vec<JobId>),
    /// First answers go.
    DropRequests(Vec<RequestKey>),
    /// A gone session without events and jobs goes, with its clients and its password.
    DropSession(SessionId),
    /// Auth's log was seen to up to another place.
    SetFollowed(Place, Place),
    /// What belongs to audit logs beside their rows is kept.
    KeepLog(Keeping),
}

impl Change {
    /// What to tell after the commit; a log's growth is told by the engine, which knows the number.
    pub(crate) fn signals(&self, out: &mut Vec<Signal>) {
        match self {
            Self::SetSession(_, after) if after.phase == session::Phase::Gone => {
                out.push(Signal::SessionGone { session: after.id.clone() });
            }
            Self::AddJob(job, _) => {
                out.push(Signal::AgentQueued { agent: job.binding.agent.clone() });
                out.push(Signal::JobChanged { job: job.id.clone(), ended: false });
            }
            Self::DropWaiter(waiter) => out.push(Signal::LineMoved { agent: waiter.agent.clone() }),
            Self::SetJob(both, _) => job_signals(&both.0, &both.1, out),
            Self::AddSession(_)
            | Self::SetSession(..)
            | Self::AddClient(_)
            | Self::SetCursor { .. }
            | Self::SetSeen { .. }
            | Self::DropClient(_)
            | Self::SetPassword(..)
            | Self::AddWaiter(_)
            | Self::SetWaiter(..)
            | Self::AddFile(_)
            | Self::SetFile(_)
            | Self::DropFile(_)
            | Self::AddAgent(_)
            | Self::SetAgent(..)
            | Self::DropAgent(_)
            | Self::AdoptSession(..)
            | Self::PutRequest(..)
            | Self::Append { .. }
            | Self::TrimLog { .. }
            | Self::DropJobs(_)
            | Self::DropRequests(_)
            | Self::DropSession(_)
            | Self::SetFollowed(..)
            | Self::KeepLog(_) => {}
        }
    }
}

fn job_signals(before: &Job, after: &Job, out: &mut Vec<Signal>) {
    let job = || after.id.clone();
    let was_running = matches!(before.phase, Phase::Running(_));
    let taken = match &after.phase {
        Phase::Running(_) => false,
        Phase::Queued => true,
        Phase::Ended(end) => end.by == EndedBy::Gateway,
    };
    if was_running && taken {
        out.push(Signal::LeaseTaken { job: job(), fencing: before.fencing });
    }
    if matches!(after.phase, Phase::Ended(_)) {
        out.push(Signal::LineMoved { agent: after.binding.agent.clone() });
    }
    if after.phase == Phase::Queued {
        out.push(Signal::AgentQueued { agent: after.binding.agent.clone() });
    }
    if before.cancel_requested_at.is_none() && after.cancel_requested_at.is_some() {
        out.push(Signal::CancelRequested { job: job(), fencing: after.fencing });
    }
    // Renewals and lines of progress change nothing that a waiting caller would see.
    if std::mem::discriminant(&before.phase) != std::mem::discriminant(&after.phase)
        || before.cancel_requested_at != after.cancel_requested_at
    {
        out.push(Signal::JobChanged { job: job(), ended: matches!(after.phase, Phase::Ended(_)) });
    }
}

/// The signal of a log's growth.
pub(crate) fn logged(session: &SessionId, event: Event) -> Signal {
    Signal::Logged { session: session.clone(), event: event.into() }
}
