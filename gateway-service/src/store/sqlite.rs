//! The embedded engine's rows: reads here, writes in [`apply`], columns in [`columns`].

use std::collections::BTreeSet;

use interlock_kit::{
    clock::Timestamp,
    store::{Fault, sqlite::SqliteDomain},
};
use rusqlite::{Connection, OptionalExtension as _, Params, Row};

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
        Change, Gateway, Key, Signal, Stop, codes,
        missing::Missing,
        rows::{EventSize, JobsOf, Load, Log, Read, Rows},
    },
    sweep::{Duty, LogsFound},
    waiter::Waiter,
};

mod apply;
mod columns;
mod due;

mod migrations {
    //! Forward only; a newer store refuses an older program.
    refinery::embed_migrations!("migrations/sqlite");
}

impl SqliteDomain for Gateway {
    fn migrations() -> refinery::Runner {
        migrations::migrations::runner()
    }

    fn rows(
        connection: &Connection,
        misses: Option<&BTreeSet<Key>>,
        work: &mut dyn FnMut(&mut (dyn Rows + '_)),
    ) {
        let mut rows = SqliteRows(connection);
        match misses {
            Some(known) => work(&mut Missing::new(rows, known)),
            None => work(&mut rows),
        }
    }

    fn apply(
        connection: &Connection,
        change: Change,
        now: Timestamp,
        signals: &mut Vec<Signal>,
    ) -> Result<(), Fault> {
        apply::apply(connection, change, now, signals)
    }
}

struct SqliteRows<'c>(&'c Connection);

impl SqliteRows<'_> {
    fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Read<Option<T>> {
        let mut statement = self.0.prepare_cached(sql).map_err(fault)?;
        statement.query_row(params, read).optional().map_err(fault)
    }

    fn only<T: rusqlite::types::FromSql>(&self, sql: &str, params: impl Params) -> Read<T> {
        let mut statement = self.0.prepare_cached(sql).map_err(fault)?;
        statement.query_row(params, |row| row.get(0)).map_err(fault)
    }

    fn many<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Read<Vec<T>> {
        let mut statement = self.0.prepare_cached(sql).map_err(fault)?;
        let rows = statement.query_map(params, read).map_err(fault)?;
        rows.collect::<rusqlite::Result<_>>().map_err(fault)
    }
}

fn fault(error: rusqlite::Error) -> Stop {
    Stop::Fault(Fault::from(error))
}

/// Limits are far below what SQLite counts to.
fn rows_max(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

impl Rows for SqliteRows<'_> {
    fn session(&self, id: &SessionId) -> Read<Option<Session>> {
        let sql = "SELECT id, owner, name, agent, project, epoch, phase, created_at, ended_at FROM session WHERE id = ?1";
        self.one(sql, [id.as_str()], columns::session)
    }

    fn is_name_taken(&self, owner: &OwnerId, name: &SessionName) -> Read<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM session WHERE owner = ?1 AND name = ?2 AND phase < 2)";
        self.only(sql, [owner.as_str(), name.as_str()])
    }

    fn sessions_living(&self, owner: &OwnerId) -> Read<u32> {
        self.only("SELECT COUNT(*) FROM session WHERE owner = ?1 AND phase < 2", [owner.as_str()])
    }

    fn client(&self, hash: &CookieHash) -> Read<Option<Client>> {
        let sql = "SELECT id, session, role, hash, cursor, created_at, seen_at FROM client WHERE hash = ?1";
        self.one(sql, [&hash[..]], columns::client)
    }

    fn clients_of(&self, session: &SessionId) -> Read<Vec<Client>> {
        let sql =
            "SELECT id, session, role, hash, cursor, created_at, seen_at FROM client INDEXED BY client_of
                   WHERE session = ?1 ORDER BY id";
        self.many(sql, [session.as_str()], columns::client)
    }

    fn password(&self, session: &SessionId) -> Read<Option<SessionPassword>> {
        let sql = "SELECT session, hash, joiners, version FROM password WHERE session = ?1";
        self.one(sql, [session.as_str()], columns::password)
    }

    fn session_named(&self, owner: &OwnerId, name: &SessionName) -> Read<Option<SessionId>> {
        let sql = "SELECT id FROM session WHERE owner = ?1 AND name = ?2 AND phase < 2";
        self.one(sql, [owner.as_str(), name.as_str()], |row| Ok(SessionId::stored(row.get(0)?)))
    }

    fn waiters(&self, agent: &AgentId) -> Read<Vec<Waiter>> {
        let columns = codes::WAITER;
        let sql = &format!(
            "SELECT {columns} FROM waiter INDEXED BY waiter_for WHERE agent = ?1
             UNION SELECT {columns} FROM waiter INDEXED BY waiter_from WHERE present = ?1 ORDER BY 1"
        );
        self.many(sql, [agent.as_str()], columns::waiter)
    }

    fn waiters_of(&self, owner: &OwnerId) -> Read<u32> {
        self.only("SELECT COUNT(*) FROM waiter WHERE owner = ?1", [owner.as_str()])
    }

    fn files_of(&self, session: &SessionId) -> Read<Vec<File>> {
        let sql =
            &format!("SELECT {} FROM file INDEXED BY file_of WHERE session = ?1 ORDER BY id", codes::FILE);
        self.many(sql, [session.as_str()], columns::file)
    }

    fn file(&self, session: &SessionId, id: &FileId) -> Read<Option<File>> {
        let sql = &format!("SELECT {} FROM file WHERE id = ?1 AND session = ?2", codes::FILE);
        self.one(sql, [id.as_str(), session.as_str()], columns::file)
    }

    fn is_file(&self, id: &FileId) -> Read<bool> {
        self.only("SELECT EXISTS (SELECT 1 FROM file WHERE id = ?1)", [id.as_str()])
    }

    fn request(&self, key: &RequestKey) -> Read<Option<Request>> {
        let (kind, scope, id) = codes::request_key(key);
        let sql = "SELECT kind, scope, id, hash, made, sealed, kept_until FROM request
                   WHERE kind = ?1 AND scope = ?2 AND id = ?3";
        self.one(sql, (kind, scope, id), columns::request)
    }

    fn agent(&self, id: &AgentId) -> Read<Option<Agent>> {
        let sql = "SELECT id, owner, shared, description, created_at FROM agent WHERE id = ?1";
        self.one(sql, [id.as_str()], columns::agent)
    }

    fn agents_of(&self, owner: &OwnerId) -> Read<u32> {
        self.only("SELECT COUNT(*) FROM agent WHERE owner = ?1", [owner.as_str()])
    }

    fn projects_in_flight(&self, agent: &AgentId) -> Read<Option<(ProjectId, ProjectId)>> {
        // Four seeks in the index, however long the queue is.
        let sql = "SELECT MIN(p), MAX(p) FROM (
                SELECT (SELECT MIN(project) FROM job INDEXED BY job_queued WHERE agent = ?1 AND state = 0) AS p
                UNION ALL SELECT (SELECT MAX(project) FROM job INDEXED BY job_queued WHERE agent = ?1 AND state = 0)
                UNION ALL SELECT (SELECT MIN(project) FROM job INDEXED BY job_running WHERE agent = ?1 AND state = 1)
                UNION ALL SELECT (SELECT MAX(project) FROM job INDEXED BY job_running WHERE agent = ?1 AND state = 1))";
        let both = self.one(sql, [agent.as_str()], |row| {
            Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<String>>(1)?))
        })?;
        Ok(match both {
            Some((Some(first), Some(last))) => Some((ProjectId::stored(first), ProjectId::stored(last))),
            Some(_) | None => None,
        })
    }

    fn load(&self, agent: &AgentId) -> Read<Load> {
        let queued = "SELECT COUNT(*) FROM job INDEXED BY job_queued WHERE agent = ?1 AND state = 0";
        let running = "SELECT COUNT(*) FROM job INDEXED BY job_running WHERE agent = ?1 AND state = 1";
        Ok(Load {
            queued: self.only(queued, [agent.as_str()])?,
            running: self.only(running, [agent.as_str()])?,
        })
    }

    fn in_flight_of(&self, agent: &AgentId, owner: &OwnerId, limit: usize) -> Read<Vec<Job>> {
        let sql = &format!(
            "SELECT {} FROM job INDEXED BY job_of_owner
             WHERE owner = ?2 AND agent = ?1 AND state < 2 ORDER BY id LIMIT ?3",
            codes::JOB
        );
        self.many(sql, (agent.as_str(), owner.as_str(), rows_max(limit)), columns::job)
    }

    fn queue_position(&self, agent: &AgentId, job: &JobId) -> Read<u32> {
        let sql =
            "SELECT COUNT(*) FROM job INDEXED BY job_queued WHERE agent = ?1 AND state = 0 AND id <= ?2";
        self.only(sql, [agent.as_str(), job.as_str()])
    }

    fn queue(&self, agent: &AgentId, limit: usize) -> Read<Vec<Job>> {
        // All are in one project (I1): naming it lets the index give them in order.
        let sql = &format!(
            "SELECT {} FROM job INDEXED BY job_queued WHERE agent = ?1 AND state = 0
               AND project = (SELECT MIN(project) FROM job INDEXED BY job_queued WHERE agent = ?1 AND state = 0)
             ORDER BY id LIMIT ?2",
            codes::JOB
        );
        self.many(sql, (agent.as_str(), rows_max(limit)), columns::job)
    }

    fn session_jobs(&self, session: &Session, limit: usize) -> Read<Vec<Job>> {
        let sql = &format!(
            "SELECT {} FROM job INDEXED BY job_of_owner
             WHERE owner = ?1 AND session = ?2 AND state < 2 ORDER BY id LIMIT ?3",
            codes::JOB
        );
        self.many(sql, (session.owner.as_str(), session.id.as_str(), rows_max(limit)), columns::job)
    }

    fn session_load(&self, session: &Session) -> Read<u32> {
        let sql = "SELECT COUNT(*) FROM job INDEXED BY job_of_owner WHERE owner = ?1 AND session = ?2 AND state < 2";
        self.only(sql, [session.owner.as_str(), session.id.as_str()])
    }

    fn owner_load(&self, owner: &OwnerId) -> Read<u32> {
        let sql = "SELECT in_flight FROM owner_load WHERE owner = ?1";
        let load = self.one(sql, [owner.as_str()], |row| row.get(0))?.unwrap_or(0);
        #[cfg(debug_assertions)]
        {
            let sql = "SELECT COUNT(*) FROM job INDEXED BY job_of_owner WHERE owner = ?1 AND state < 2";
            let counted: u32 = self.only(sql, [owner.as_str()])?;
            if counted != load {
                return Err(crate::store::broken("an owner's load is not the count of its jobs in flight"));
            }
        }
        Ok(load)
    }

    fn session_of(&self, job: &JobId) -> Read<Option<SessionId>> {
        let sql = "SELECT session FROM job WHERE id = ?1";
        self.one(sql, [job.as_str()], |row| Ok(SessionId::stored(row.get(0)?)))
    }

    fn job(&self, id: &JobId) -> Read<Option<Job>> {
        self.one(&format!("SELECT {} FROM job WHERE id = ?1", codes::JOB), [id.as_str()], columns::job)
    }

    fn payload(&self, id: &JobId) -> Read<Vec<u8>> {
        self.only("SELECT data FROM payload WHERE job = ?1", [id.as_str()])
    }

    fn result(&self, id: &JobId) -> Read<Vec<u8>> {
        let data = self.one("SELECT data FROM result WHERE job = ?1", [id.as_str()], |row| row.get(0))?;
        Ok(data.unwrap_or_default())
    }

    fn log(&self, session: &SessionId) -> Read<Log> {
        let sql = "SELECT first, last, bytes FROM log_head WHERE session = ?1";
        let log = self.one(sql, [session.as_str()], |row| {
            Ok(Log { first: row.get(0)?, last: row.get(1)?, bytes: row.get(2)? })
        })?;
        log.ok_or_else(|| crate::store::broken("a session without a log"))
    }

    fn page_sessions(&self, owner: &OwnerId, before: Option<&SessionId>, limit: usize) -> Read<Vec<Session>> {
        let sql = "SELECT id, owner, name, agent, project, epoch, phase, created_at, ended_at FROM session
                   WHERE owner = ?1 AND phase < 2 AND id < ?2 ORDER BY id DESC LIMIT ?3";
        let before = before.map_or("\u{10ffff}", SessionId::as_str);
        self.many(sql, (owner.as_str(), before, rows_max(limit)), columns::session)
    }

    fn page_jobs(&self, scope: &ProjectScope, of: JobsOf<'_>) -> Read<Vec<Job>> {
        let before = of.before.map_or("\u{10ffff}", JobId::as_str);
        // The few in flight are in an index of their own, however many have ended.
        let rows = if of.in_flight {
            "INDEXED BY job_of_owner WHERE owner = (SELECT owner FROM session WHERE id = ?1) AND state < 2 AND"
        } else {
            "WHERE"
        };
        let sql = &format!(
            "SELECT {} FROM job {rows} session = ?1 AND id < ?2 AND project = ?3 ORDER BY id DESC LIMIT ?4",
            codes::JOB
        );
        let params = (of.session.as_str(), before, scope.project().as_str(), rows_max(of.limit));
        self.many(sql, params, columns::job)
    }

    fn page_agents(
        &self,
        owner: Option<&OwnerId>,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Read<Vec<Agent>> {
        const ALL: &str = "SELECT id, owner, shared, description, created_at FROM agent
                           WHERE id > ?1 ORDER BY id LIMIT ?2";
        // An index for each kind, so that others' agents are not looked at.
        const OF_OWNER: &str = "SELECT id, owner, shared, description, created_at FROM (
                SELECT * FROM (SELECT * FROM agent INDEXED BY agent_shared
                               WHERE shared = 1 AND id > ?1 ORDER BY id LIMIT ?2)
                UNION
                SELECT * FROM (SELECT * FROM agent INDEXED BY agent_of
                               WHERE owner = ?3 AND id > ?1 ORDER BY id LIMIT ?2))
             ORDER BY id LIMIT ?2";
        let (after, limit) = (after.map_or("", AgentId::as_str), rows_max(limit));
        match owner {
            None => self.many(ALL, (after, limit), columns::agent),
            Some(owner) => self.many(OF_OWNER, (after, limit, owner.as_str()), columns::agent),
        }
    }

    fn events(&self, session: &SessionId, after: u64, limit: usize) -> Read<Vec<Event>> {
        let sql = "SELECT sequence, at, project, epoch, format, facts, data FROM event
                   WHERE session = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3";
        let stored = self.many(sql, (session.as_str(), after, rows_max(limit)), columns::event)?;
        stored.into_iter().map(|event| event.map_err(Stop::Fault)).collect()
    }

    fn oldest_events(&self, session: &SessionId, limit: usize) -> Read<Vec<EventSize>> {
        let sql = "SELECT sequence, at, octet_length(facts) + octet_length(data) FROM event
                   WHERE session = ?1 ORDER BY sequence LIMIT ?2";
        self.many(sql, (session.as_str(), rows_max(limit)), |row| {
            Ok(EventSize {
                sequence: row.get(0)?,
                at: Timestamp::from_micros(row.get(1)?),
                bytes: row.get(2)?,
            })
        })
    }

    fn ended_jobs(&self, session: &SessionId, by: Timestamp, limit: usize) -> Read<Vec<JobId>> {
        let sql =
            "SELECT id FROM job WHERE session = ?1 AND state >= 2 AND ended_at <= ?2 ORDER BY id LIMIT ?3";
        self.many(sql, (session.as_str(), by.as_micros(), rows_max(limit)), |row| {
            Ok(JobId::stored(row.get(0)?))
        })
    }

    fn stale_requests(&self, now: Timestamp, limit: usize) -> Read<Vec<RequestKey>> {
        let sql = "SELECT kind, scope, id FROM request WHERE kept_until <= ?1 ORDER BY kept_until, kind, scope, id LIMIT ?2";
        self.many(sql, (now.as_micros(), rows_max(limit)), columns::stored_key)
    }

    fn due(&self, now: Timestamp, limits: &Limits) -> Read<Vec<Duty>> {
        due::due(self, now, limits)
    }

    fn due_logs(&self, now: Timestamp, limits: &Limits, after: Option<&SessionId>) -> Read<LogsFound> {
        due::logs(self, now, limits, after)
    }

    fn next_deadline(&self) -> Read<Option<Timestamp>> {
        let at: Option<i64> =
            self.only("SELECT MIN(lease_until) FROM job INDEXED BY job_leased WHERE state = 1", [])?;
        Ok(at.map(Timestamp::from_micros))
    }

    fn followed(&self) -> Read<Place> {
        let sql = "SELECT sequence, issued_before FROM followed";
        let place =
            self.one(sql, [], |row| Ok(Place { sequence: row.get(0)?, issued_before: row.get(1)? }))?;
        place.ok_or_else(|| crate::store::broken("no place in auth's log"))
    }

    fn next_owner(&self, after: Option<&OwnerId>) -> Read<Option<OwnerId>> {
        // A seek, however many sessions the owner before has.
        let sql = "SELECT MIN(owner) FROM session INDEXED BY session_living WHERE phase < 2 AND owner > ?1";
        let owner: Option<String> = self.only(sql, [after.map_or("", OwnerId::as_str)])?;
        Ok(owner.map(OwnerId::stored))
    }
}
