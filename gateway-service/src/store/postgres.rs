//! The rows in PostgreSQL: a working set, loaded as verbs come to need it.
//!
//! - [`Working`]: what a batch has loaded, and what its verbs have planned since.
//! - `known`: the look-ups, each on what is loaded, or a miss.
//! - `ask`, `lists`: how rows are loaded and locked. `decode` reads them.
//! - `told`: what gateways tell each other.
//! - `write`: planned changes to the working set, and to statements.
//!
//! A row that a verb may change is locked when it is loaded. Counts and lists are not: what they rest on is.
//! An agent's jobs in flight are read under the lock of the agent, which whoever adds one has, too; those of a
//! session under the lock of the session; an owner's counts under the owner's advisory lock. Jobs that end in the
//! meantime only make room.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use interlock_kit::{
    clock::Timestamp,
    store::postgres::{Access, Ask, Flush, Out, PostgresDomain, Unmet},
};

use crate::{
    agent::Agent,
    caller::CookieHash,
    client::Client,
    ending::Place,
    event::Event,
    file::File,
    ids::{AgentId, FileId, JobId, OwnerId, ProjectId, SessionId, SessionName, WaiterId},
    job::{Job, Phase},
    password::SessionPassword,
    request::{Request, RequestKey},
    session::Session,
    store::{
        Change, Gateway, Key, Rows, Signal,
        rows::{EventSize, JobList, Load, Log},
    },
    sweep::{Duty, LogsFound},
    waiter::Waiter,
};

mod ask;
mod decode;
mod known;
mod lists;
mod told;
mod write;

mod embedded {
    //! Forward only; a newer store refuses an older program.
    refinery::embed_migrations!("migrations/postgres");
}

/// What a batch has loaded, and what its verbs have planned since.
#[derive(Clone, Debug, Default)]
pub struct Working {
    /// Locked ones, and those that the batch has made.
    sessions: BTreeMap<SessionId, Session>,
    clients: BTreeMap<CookieHash, Client>,
    /// Of sessions whose clients are all loaded.
    members: BTreeMap<SessionId, BTreeSet<CookieHash>>,
    /// Clients that the batch has taken out: stored still.
    left: BTreeSet<CookieHash>,
    passwords: BTreeMap<SessionId, SessionPassword>,
    /// Of agents whose waiters are all loaded.
    lines: BTreeMap<AgentId, BTreeMap<WaiterId, Waiter>>,
    files: BTreeMap<FileId, File>,
    /// Sessions whose files are all loaded.
    shelves: BTreeSet<SessionId>,
    agents: BTreeMap<AgentId, Agent>,
    requests: BTreeMap<RequestKey, Request>,
    logs: BTreeMap<SessionId, Head>,
    /// Of these the locked ones are those that were loaded by their own key.
    jobs: BTreeMap<JobId, Job>,
    sessions_of: BTreeMap<JobId, SessionId>,
    payloads: BTreeMap<JobId, Arc<Vec<u8>>>,
    results: BTreeMap<JobId, Arc<Vec<u8>>>,
    /// Of living sessions.
    names: BTreeSet<(OwnerId, SessionName)>,
    /// By the keys of those look-ups. What is loaded and not here is none.
    counts: BTreeMap<Key, i64>,
    loads: BTreeMap<AgentId, (i64, i64)>,
    in_flight: BTreeMap<AgentId, InFlight>,
    beginnings: BTreeMap<JobList, Beginning>,
    lists: BTreeMap<Key, List>,
    /// Jobs that the batch has made or changed, as they are stored.
    changed: BTreeMap<JobId, Option<Job>>,
    /// How many jobs in flight owners have gained or lost.
    gained: BTreeMap<OwnerId, i64>,
    /// Up to where auth's log was seen to.
    followed: Option<Place>,
}

/// The head of a log.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    log: Log,
    /// The newest stored event; the ones after it are appended by this batch.
    stored: u64,
    /// How much these weigh.
    weight: u64,
    at: Timestamp,
}

/// Some of an agent's jobs in flight, by their projects.
#[derive(Clone, Debug, Default)]
struct InFlight {
    jobs: BTreeMap<ProjectId, BTreeSet<JobId>>,
    /// So many were asked for.
    part: usize,
    /// Whether there may be more of them.
    more: bool,
}

/// The first of a list of jobs.
#[derive(Clone, Debug, Default)]
struct Beginning {
    jobs: Vec<JobId>,
    /// So many were asked for; fewer are all there are.
    part: usize,
}

/// An answer that is no row.
#[derive(Clone, Debug)]
enum List {
    Sessions(Vec<Session>),
    Jobs(Vec<Job>),
    Agents(Vec<Agent>),
    Events(Arc<Vec<Event>>),
    Sizes(Vec<EventSize>),
    Requests(Vec<RequestKey>),
    Duties(Vec<Duty>),
    Logs(LogsFound),
    Named(Option<SessionId>),
    Owner(Option<OwnerId>),
    Is(bool),
    Deadline(Option<Timestamp>),
}

impl PostgresDomain for Gateway {
    type Working = Working;

    fn postgres_migrations() -> refinery::Runner {
        embedded::migrations::runner()
    }

    fn ask(keys: &BTreeSet<Key>, access: Access) -> Vec<Ask<Working>> {
        ask::all(keys, access)
    }

    fn place(key: &Key) -> Option<u8> {
        ask::place(key)
    }

    fn working_rows(working: &Working, loaded: &BTreeSet<Key>, work: &mut dyn FnMut(&mut (dyn Rows + '_))) {
        work(&mut known::Known { working, loaded });
    }

    fn working_apply(
        working: &mut Working,
        loaded: &BTreeSet<Key>,
        change: Change,
        now: Timestamp,
        out: &mut Out<'_, Self>,
    ) -> Result<(), Unmet<Self>> {
        write::apply(working, loaded, change, now, out)
    }

    fn tell(signal: &Signal) -> Option<String> {
        told::tell(signal)
    }

    fn hear(told: &str) -> Option<Signal> {
        told::hear(told)
    }

    fn finish(working: &Working, flush: &mut Flush) {
        write::loads(&working.gained, flush);
        // Last of all: a head is held for as short as may be.
        write::heads(&working.logs, flush);
    }
}

impl Working {
    /// A job has changed from what it was to what it is; either may be none.
    fn moved(&mut self, was: Option<&Job>, is: Option<&Job>) {
        let Some(job) = is.or(was) else { return };
        self.changed.entry(job.id.clone()).or_insert_with(|| was.cloned());
        let flies = |job: Option<&Job>| job.is_some_and(Job::is_in_flight);
        let gained = i64::from(flies(is)) - i64::from(flies(was));
        if gained != 0 {
            *self.gained.entry(job.owner.clone()).or_default() += gained;
            self.count(Key::OwnerLoad(job.owner.clone()), gained);
            self.count(Key::SessionLoad(job.owner.clone(), job.session.clone()), gained);
            if let Some(in_flight) = self.in_flight.get_mut(&job.binding.agent) {
                in_flight.moved(job, gained > 0);
            }
        }
        let load = self.loads.entry(job.binding.agent.clone()).or_default();
        for (job, by) in [(was, -1), (is, 1)] {
            match job.map(|job| &job.phase) {
                Some(Phase::Queued) => load.0 += by,
                Some(Phase::Running(_)) => load.1 += by,
                Some(Phase::Ended(_)) | None => {}
            }
        }
        match is {
            Some(is) => drop(self.jobs.insert(is.id.clone(), is.clone())),
            None => drop(self.jobs.remove(&job.id.clone())),
        }
    }

    /// A waiter has changed from what it was to what it is; either may be none.
    fn waits(&mut self, was: Option<&Waiter>, is: Option<&Waiter>) {
        for (agent, line) in &mut self.lines {
            if let Some(was) = was {
                line.remove(&was.id);
            }
            if let Some(is) = is.filter(|is| is.concerns(agent)) {
                line.insert(is.id.clone(), is.clone());
            }
        }
        let by = i64::from(is.is_some()) - i64::from(was.is_some());
        if let Some(waiter) = is.or(was).filter(|_| by != 0) {
            self.count(Key::WaitersOf(waiter.owner.clone()), by);
        }
    }

    fn count(&mut self, key: Key, by: i64) {
        *self.counts.entry(key).or_default() += by;
    }
}

impl InFlight {
    fn moved(&mut self, job: &Job, comes: bool) {
        let project = &job.binding.project;
        if comes {
            self.jobs.entry(project.clone()).or_default().insert(job.id.clone());
        } else if let Some(jobs) = self.jobs.get_mut(project) {
            jobs.remove(&job.id);
            if jobs.is_empty() {
                self.jobs.remove(project);
            }
        }
    }
}

impl JobList {
    /// Whether a job is in it.
    fn has(&self, job: &Job) -> bool {
        match self {
            Self::Queue(agent) => job.phase == Phase::Queued && job.binding.agent == *agent,
            Self::OfAgent(agent, owner) => {
                job.is_in_flight() && job.binding.agent == *agent && job.owner == *owner
            }
            Self::OfSession(_, session) => job.is_in_flight() && job.session == *session,
            Self::Ended(session, by) => match &job.phase {
                Phase::Ended(end) => end.at <= *by && job.session == *session,
                Phase::Queued | Phase::Running(_) => false,
            },
        }
    }
}

fn load((queued, running): (i64, i64)) -> Load {
    Load { queued: counted(queued), running: counted(running) }
}

/// A count that is as large as that is over every limit.
fn counted(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(if count < 0 { 0 } else { u32::MAX })
}
