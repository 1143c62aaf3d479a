//! How rows are loaded: one statement for all keys of a kind, in the order in which they are locked. Behind the
//! locks come the counts and lists that rest on them: each statement sees what was committed before it began.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use interlock_kit::store::{
    Fault,
    postgres::{Access, Ask, Row, bind, found, pairs_of, rows_of},
};

use super::{
    Head, InFlight, Working, decode,
    lists::{job_list, list},
};
use crate::{
    ids::{AgentId, JobId, OwnerId, ProjectId, SessionId, SessionName},
    request::RequestKey,
    store::{
        Key, codes,
        rows::{JobList, Log},
    },
};

const OWNERS: &str = "SELECT pg_advisory_xact_lock(1, owner)
FROM (SELECT DISTINCT hashtext(owner) AS owner FROM unnest($1::TEXT[]) AS owner ORDER BY 1) AS owners";
pub(super) const SESSION: &str =
    "SELECT id, owner, name, agent, project, epoch, phase, created_at, ended_at FROM session";
const CLIENT: &str = "SELECT id, session, role, hash, cursor, created_at, seen_at FROM client";
pub(super) const REQUEST: &str = "SELECT kind, scope, id, hash, made, sealed, kept_until FROM request";
pub(super) const AGENT: &str = "SELECT id, owner, shared, description, created_at FROM agent";
/// Some of the jobs in flight, and one of the last project: so that two projects (I1) are seen.
const IN_FLIGHT: &str = "SELECT asked.agent, jobs.first, jobs.project, jobs.id
FROM unnest($1::TEXT[], $2::BIGINT[]) AS asked (agent, part) CROSS JOIN LATERAL (
    (SELECT TRUE AS first, project, id FROM job WHERE job.agent = asked.agent AND state < 2
     ORDER BY project, id LIMIT asked.part)
    UNION ALL
    (SELECT FALSE, project, id FROM job WHERE job.agent = asked.agent AND state < 2
     ORDER BY project DESC, id DESC LIMIT 1)) AS jobs";

/// The keys of one flight, kind by kind.
#[derive(Default)]
struct Sorted {
    clients: Vec<Vec<u8>>,
    clients_of: BTreeSet<String>,
    lines: BTreeSet<String>,
    waiters_of: Vec<String>,
    passwords: BTreeSet<String>,
    files_of: BTreeSet<String>,
    files: Vec<String>,
    sessions: BTreeSet<String>,
    requests: (Vec<i16>, [Vec<String>; 2]),
    agents: BTreeSet<String>,
    jobs: Vec<String>,
    owners: BTreeSet<String>,
    logs: Vec<String>,
    in_flight: BTreeMap<AgentId, usize>,
    sessions_of: Vec<String>,
    payloads: Vec<String>,
    results: Vec<String>,
    names: [Vec<String>; 2],
    living: Vec<String>,
    agents_of: Vec<String>,
    owner_loads: Vec<String>,
    loads: Vec<String>,
    positions: [Vec<String>; 2],
    session_loads: [Vec<String>; 2],
    lists: Vec<Ask<Working>>,
}

/// Where in the order of `Sorted::locks` the lock of a key is taken; lists that lock come behind them.
pub(super) fn place(key: &Key) -> Option<u8> {
    match key {
        Key::Client(_) => Some(0),
        Key::Session(_) | Key::ClientsOf(_) | Key::Password(_) | Key::FilesOf(_) | Key::File(..) => Some(1),
        Key::Request(_) => Some(2),
        Key::Agent(_) | Key::InFlight(..) | Key::Waiters(_) => Some(3),
        Key::Job(_) => Some(4),
        Key::Name(..) | Key::SessionsLiving(_) | Key::AgentsOf(_) | Key::OwnerLoad(_) | Key::WaitersOf(_) => {
            Some(5)
        }
        Key::Log(_) => Some(6),
        Key::Jobs(JobList::Ended(..), _) | Key::StaleRequests(..) | Key::Followed => Some(7),
        Key::Jobs(JobList::Queue(_) | JobList::OfAgent(..) | JobList::OfSession(..), _)
        | Key::Load(_)
        | Key::Position(..)
        | Key::SessionLoad(..)
        | Key::SessionOf(_)
        | Key::Payload(_)
        | Key::Result(_)
        | Key::PageSessions(..)
        | Key::PageJobs(..)
        | Key::PageAgents(..)
        | Key::Named(..)
        | Key::IsFile(_)
        | Key::Events(..)
        | Key::OldestEvents(..)
        | Key::Due(_)
        | Key::DueLogs(..)
        | Key::NextDeadline
        | Key::NextOwner(_) => None,
    }
}

pub(super) fn all(keys: &BTreeSet<Key>, access: Access) -> Vec<Ask<Working>> {
    let mut sorted = Sorted::default();
    for key in keys {
        sorted.add(key, access);
    }
    let mut asks = Vec::new();
    sorted.locks(&mut asks, access);
    sorted.rests(&mut asks);
    asks.append(&mut sorted.lists);
    asks
}

fn pair(of: &mut [Vec<String>; 2], first: &impl ToString, second: &impl ToString) {
    of[0].push(first.to_string());
    of[1].push(second.to_string());
}

impl Sorted {
    fn add(&mut self, key: &Key, access: Access) {
        match key {
            Key::Session(id) => drop(self.sessions.insert(id.to_string())),
            Key::Name(owner, name) => {
                self.owners.insert(owner.to_string());
                pair(&mut self.names, owner, name);
            }
            Key::SessionsLiving(owner) => {
                self.owners.insert(owner.to_string());
                self.living.push(owner.to_string());
            }
            Key::Client(hash) => self.clients.push(hash.to_vec()),
            Key::ClientsOf(session) => {
                self.sessions.insert(session.to_string());
                self.clients_of.insert(session.to_string());
            }
            Key::Password(session) => {
                self.sessions.insert(session.to_string());
                self.passwords.insert(session.to_string());
            }
            Key::FilesOf(session) => {
                self.sessions.insert(session.to_string());
                self.files_of.insert(session.to_string());
            }
            Key::File(session, id) => {
                self.sessions.insert(session.to_string());
                self.files.push(id.to_string());
            }
            Key::Request(key) => {
                if let RequestKey::Create(owner, _) = key {
                    self.owners.insert(owner.to_string());
                }
                let (kind, scope, id) = codes::request_key(key);
                self.requests.0.push(decode::small(kind));
                pair(&mut self.requests.1, &scope, &id);
            }
            Key::Waiters(agent) => {
                self.agents.insert(agent.to_string());
                self.lines.insert(agent.to_string());
            }
            Key::WaitersOf(owner) => {
                self.owners.insert(owner.to_string());
                self.waiters_of.push(owner.to_string());
            }
            Key::Agent(id) => drop(self.agents.insert(id.to_string())),
            Key::AgentsOf(owner) => {
                self.owners.insert(owner.to_string());
                self.agents_of.push(owner.to_string());
            }
            Key::InFlight(agent, part) => {
                self.agents.insert(agent.to_string());
                let asked = self.in_flight.entry(agent.clone()).or_default();
                *asked = (*asked).max(*part);
            }
            Key::Load(agent) => self.loads.push(agent.to_string()),
            Key::Position(agent, job) => pair(&mut self.positions, agent, job),
            Key::SessionLoad(owner, session) => pair(&mut self.session_loads, owner, session),
            Key::OwnerLoad(owner) => {
                self.owners.insert(owner.to_string());
                self.owner_loads.push(owner.to_string());
            }
            Key::SessionOf(job) => self.sessions_of.push(job.to_string()),
            Key::Job(id) => self.jobs.push(id.to_string()),
            Key::Payload(job) => self.payloads.push(job.to_string()),
            Key::Result(job) => self.results.push(job.to_string()),
            Key::Log(session) => self.logs.push(session.to_string()),
            Key::Jobs(of, part) => self.lists.push(job_list(of.clone(), *part, access)),
            Key::PageSessions(..)
            | Key::PageJobs(..)
            | Key::PageAgents(..)
            | Key::Named(..)
            | Key::IsFile(_)
            | Key::Events(..)
            | Key::OldestEvents(..)
            | Key::StaleRequests(..)
            | Key::Due(_)
            | Key::DueLogs(..)
            | Key::NextDeadline
            | Key::NextOwner(_)
            | Key::Followed => self.lists.push(list(key.clone(), access)),
        }
    }

    /// Rows in the order of their locks.
    fn locks(&mut self, asks: &mut Vec<Ask<Working>>, access: Access) {
        let locked = access.clause();
        let sql = format!("{CLIENT} WHERE hash = ANY($1) ORDER BY hash{locked}");
        rows_of(asks, &self.clients, sql, decode::client, |working, client| {
            working.clients.insert(client.hash, client);
        });
        let sql = format!("{SESSION} WHERE id = ANY($1) ORDER BY id{locked}");
        rows_of(asks, &listed(&self.sessions), sql, decode::session, |working, session| {
            working.sessions.insert(session.id.clone(), session);
        });
        self.members(asks);
        self.shelves(asks);
        let sql = format!(
            "SELECT session, hash, joiners, version FROM password WHERE session = ANY($1) ORDER BY session{locked}"
        );
        rows_of(asks, &listed(&self.passwords), sql, decode::password, |working, password| {
            working.passwords.insert(password.session.clone(), password);
        });
        let (kinds, [scopes, ids]) = std::mem::take(&mut self.requests);
        if !kinds.is_empty() {
            let sql = format!(
                "{REQUEST} WHERE (kind, scope, id) IN (SELECT * FROM unnest($1::SMALLINT[], $2::TEXT[], $3::TEXT[]))
                 ORDER BY kind, scope, id{locked}"
            );
            let params = [bind(kinds), bind(scopes), bind(ids)];
            asks.push(found(sql, params, decode::request, |working: &mut Working, request| {
                working.requests.insert(request.key.clone(), request);
            }));
        }
        let sql = format!("{AGENT} WHERE id = ANY($1) ORDER BY id{locked}");
        rows_of(asks, &listed(&self.agents), sql, decode::agent, |working, agent| {
            working.agents.insert(agent.id.clone(), agent);
        });
        self.jobs(asks, locked);
        if access == Access::Locked && !self.owners.is_empty() {
            asks.push(Ask::new(OWNERS, [bind(listed(&self.owners))], |_: &mut Working, _| Ok(())));
        }
        let sql = "SELECT session, first, last, bytes FROM log_head WHERE session = ANY($1) ORDER BY session";
        rows_of(asks, &self.logs, format!("{sql}{locked}"), head, |working, (session, head)| {
            working.logs.insert(session, head);
        });
    }

    /// All clients of sessions, which come and go under the lock of their session. One that was loaded by its cookie
    /// before that lock is loaded again.
    fn members(&self, asks: &mut Vec<Ask<Working>>) {
        if self.clients_of.is_empty() {
            return;
        }
        let of = listed(&self.clients_of);
        let sql = format!("{CLIENT} WHERE session = ANY($1)");
        asks.push(Ask::new(sql, [bind(of.clone())], move |working: &mut Working, rows| {
            for session in of {
                working.members.insert(SessionId::stored(session), BTreeSet::new());
            }
            for row in rows {
                let client = decode::client(row)?;
                let members = working.members.entry(client.session.clone()).or_default();
                members.insert(client.hash);
                working.clients.insert(client.hash, client);
            }
            Ok(())
        }));
    }

    /// Files, which come and go under the lock of their session.
    fn shelves(&self, asks: &mut Vec<Ask<Working>>) {
        let sql = format!("SELECT {} FROM file WHERE id = ANY($1)", codes::FILE);
        rows_of(asks, &self.files, sql, decode::file, |working, file| {
            working.files.insert(file.id.clone(), file);
        });
        if self.files_of.is_empty() {
            return;
        }
        let of = listed(&self.files_of);
        let sql = format!("SELECT {} FROM file WHERE session = ANY($1)", codes::FILE);
        asks.push(Ask::new(sql, [bind(of.clone())], move |working: &mut Working, rows| {
            working.shelves.extend(of.into_iter().map(SessionId::stored));
            for row in rows {
                let file = decode::file(row)?;
                working.files.insert(file.id.clone(), file);
            }
            Ok(())
        }));
    }

    fn jobs(&self, asks: &mut Vec<Ask<Working>>, locked: &str) {
        if self.jobs.is_empty() {
            return;
        }
        let sql = format!("SELECT {} FROM job WHERE id = ANY($1) ORDER BY id{locked}", codes::JOB);
        let ids = self.jobs.clone();
        asks.push(Ask::new(sql, [bind(self.jobs.clone())], move |working: &mut Working, rows| {
            // What a list has shown may have gone since.
            for id in ids {
                let id = JobId::stored(id);
                working.jobs.remove(&id);
                working.sessions_of.remove(&id);
            }
            for row in rows {
                let job = decode::job(row)?;
                working.sessions_of.insert(job.id.clone(), job.session.clone());
                working.jobs.insert(job.id.clone(), job);
            }
            Ok(())
        }));
    }

    /// What rests on the locks, and what never changes.
    fn rests(&mut self, asks: &mut Vec<Ask<Working>>) {
        self.of_agents(asks);
        let sql = "SELECT id, session FROM job WHERE id = ANY($1)";
        let read = |row: &Row| Ok((JobId::stored(row.try_get(0)?), SessionId::stored(row.try_get(1)?)));
        rows_of(asks, &self.sessions_of, sql.to_owned(), read, |working, (job, session)| {
            working.sessions_of.insert(job, session);
        });
        let data = |row: &Row| Ok((JobId::stored(row.try_get(0)?), Arc::new(row.try_get::<_, Vec<u8>>(1)?)));
        let sql = "SELECT job, data FROM payload WHERE job = ANY($1)";
        rows_of(asks, &self.payloads, sql.to_owned(), data, |working, (job, data)| {
            working.payloads.insert(job, data);
        });
        let sql = "SELECT job, data FROM result WHERE job = ANY($1)";
        rows_of(asks, &self.results, sql.to_owned(), data, |working, (job, data)| {
            working.results.insert(job, data);
        });
        let sql = "SELECT owner, name FROM session
                   WHERE phase < 2 AND (owner, name) IN (SELECT * FROM unnest($1::TEXT[], $2::TEXT[]))";
        let name = |row: &Row| Ok((OwnerId::stored(row.try_get(0)?), SessionName::stored(row.try_get(1)?)));
        pairs_of(asks, &self.names, sql, name, |working, name| {
            working.names.insert(name);
        });
        let owner = |of: fn(OwnerId) -> Key| {
            move |row: &Row| Ok((of(OwnerId::stored(row.try_get(0)?)), row.try_get::<_, i64>(1)?))
        };
        let count = |working: &mut Working, (key, count): (Key, i64)| {
            working.counts.insert(key, count);
        };
        let sql = "SELECT owner, COUNT(*) FROM session WHERE owner = ANY($1) AND phase < 2 GROUP BY owner";
        rows_of(asks, &self.living, sql.to_owned(), owner(Key::SessionsLiving), count);
        let sql = "SELECT owner, COUNT(*) FROM agent WHERE owner = ANY($1) GROUP BY owner";
        rows_of(asks, &self.agents_of, sql.to_owned(), owner(Key::AgentsOf), count);
        let sql = "SELECT owner, COUNT(*) FROM waiter WHERE owner = ANY($1) GROUP BY owner";
        rows_of(asks, &self.waiters_of, sql.to_owned(), owner(Key::WaitersOf), count);
        let sql = "SELECT owner, in_flight FROM owner_load WHERE owner = ANY($1)";
        rows_of(asks, &self.owner_loads, sql.to_owned(), owner(Key::OwnerLoad), count);
        let sql = "SELECT asked.owner, asked.session,
                          (SELECT COUNT(*) FROM job
                           WHERE job.owner = asked.owner AND job.session = asked.session AND state < 2)
                   FROM unnest($1::TEXT[], $2::TEXT[]) AS asked (owner, session)";
        let load = |row: &Row| {
            let (owner, session) = (OwnerId::stored(row.try_get(0)?), SessionId::stored(row.try_get(1)?));
            Ok((Key::SessionLoad(owner, session), row.try_get::<_, i64>(2)?))
        };
        pairs_of(asks, &self.session_loads, sql, load, count);
    }

    fn of_agents(&mut self, asks: &mut Vec<Ask<Working>>) {
        if !self.lines.is_empty() {
            asks.push(lines(listed(&self.lines)));
        }
        if !self.in_flight.is_empty() {
            asks.push(in_flight(std::mem::take(&mut self.in_flight)));
        }
        let sql = "SELECT agent, COUNT(*) FILTER (WHERE state = 0), COUNT(*) FILTER (WHERE state = 1)
                   FROM job WHERE agent = ANY($1) AND state < 2 GROUP BY agent";
        let load = |row: &Row| Ok((AgentId::stored(row.try_get(0)?), (row.try_get(1)?, row.try_get(2)?)));
        rows_of(asks, &self.loads, sql.to_owned(), load, |working, (agent, load)| {
            working.loads.insert(agent, load);
        });
        let sql = "SELECT asked.agent, asked.job,
                          (SELECT COUNT(*) FROM job WHERE job.agent = asked.agent AND state = 0 AND id <= asked.job)
                   FROM unnest($1::TEXT[], $2::TEXT[]) AS asked (agent, job)";
        let position = |row: &Row| {
            let (agent, job) = (AgentId::stored(row.try_get(0)?), JobId::stored(row.try_get(1)?));
            Ok((Key::Position(agent, job), row.try_get::<_, i64>(2)?))
        };
        pairs_of(asks, &self.positions, sql, position, |working, (key, count)| {
            working.counts.insert(key, count);
        });
    }
}

fn lines(agents: Vec<String>) -> Ask<Working> {
    let columns = codes::WAITER;
    let sql = format!(
        "SELECT line.*, asked.agent FROM unnest($1::TEXT[]) AS asked (agent) CROSS JOIN LATERAL (
            SELECT {columns} FROM waiter WHERE agent = asked.agent
            UNION SELECT {columns} FROM waiter WHERE present = asked.agent) AS line"
    );
    Ask::new(sql, [bind(agents.clone())], move |working: &mut Working, rows| {
        for agent in agents {
            working.lines.insert(AgentId::stored(agent), BTreeMap::new());
        }
        for row in rows {
            let waiter = decode::waiter(row)?;
            let line = working.lines.entry(AgentId::stored(row.try_get(8)?)).or_default();
            line.insert(waiter.id.clone(), waiter);
        }
        Ok(())
    })
}

fn in_flight(asked: BTreeMap<AgentId, usize>) -> Ask<Working> {
    let agents: Vec<String> = asked.keys().map(ToString::to_string).collect();
    let parts: Vec<i64> = asked.values().map(|part| decode::limit(*part)).collect();
    Ask::new(IN_FLIGHT, [bind(agents), bind(parts)], move |working: &mut Working, rows| {
        let mut read: BTreeMap<AgentId, (InFlight, usize)> = BTreeMap::new();
        for (agent, part) in asked {
            read.insert(agent, (InFlight { part, ..InFlight::default() }, 0));
        }
        for row in rows {
            let agent = AgentId::stored(row.try_get(0)?);
            let unasked = || Fault::Broken("jobs of an agent that was not asked for".to_owned());
            let (of, first) = read.get_mut(&agent).ok_or_else(unasked)?;
            *first += usize::from(row.try_get::<_, bool>(1)?);
            let jobs = of.jobs.entry(ProjectId::stored(row.try_get(2)?)).or_default();
            jobs.insert(JobId::stored(row.try_get(3)?));
        }
        for (agent, (of, first)) in read {
            let more = first == of.part;
            working.in_flight.insert(agent, InFlight { more, ..of });
        }
        Ok(())
    })
}

fn head(row: &Row) -> Result<(SessionId, Head), Fault> {
    let log = Log {
        first: decode::unsigned(row, 1)?,
        last: decode::unsigned(row, 2)?,
        bytes: decode::unsigned(row, 3)?,
    };
    Ok((SessionId::stored(row.try_get(0)?), Head { log, stored: log.last, ..Head::default() }))
}

fn listed(set: &BTreeSet<String>) -> Vec<String> {
    set.iter().cloned().collect()
}
