//! Planned changes to SQL. Each statement is conditional on the row that it was planned on, and counted.

use interlock_kit::{
    clock::Timestamp,
    store::{Fault, sqlite},
};
use rusqlite::{Connection, Params, params};

use crate::{
    agent::Agent,
    binding::Binding,
    client::Client,
    event::{Event, EventKind},
    file::File,
    ids::{AgentId, ClientId, JobId, OwnerId, ProjectId, SessionId, SessionName},
    job::Job,
    password::SessionPassword,
    request::{Request, RequestKey},
    session::Session,
    store::{
        Change, Signal,
        codes::{self, JobPhase},
        record,
        rows::logged,
    },
    waiter::Waiter,
};

pub(super) fn apply(
    connection: &Connection,
    change: Change,
    now: Timestamp,
    signals: &mut Vec<Signal>,
) -> Result<(), Fault> {
    change.signals(signals);
    let db = Writes(connection);
    match change {
        Change::AddSession(session) => db.add_session(&session, now),
        Change::SetSession(before, after) => db.set_session(&before, &after),
        Change::AddClient(client) => db.add_client(&client),
        Change::SetCursor { client, from, to } => db.one(
            "client",
            "UPDATE client SET cursor = ?3 WHERE id = ?1 AND cursor = ?2",
            (client.as_str(), from, to),
        ),
        Change::SetSeen { client, from, to } => db.one(
            "client",
            "UPDATE client SET seen_at = ?3 WHERE id = ?1 AND seen_at = ?2",
            (client.as_str(), from.as_micros(), to.as_micros()),
        ),
        Change::DropClient(client) => db.one(
            "client",
            "DELETE FROM client WHERE id = ?1 AND session = ?2",
            (client.id.as_str(), client.session.as_str()),
        ),
        Change::SetPassword(before, after) => db.set_password(before.as_ref(), &after),
        Change::AddWaiter(waiter) => db.add_waiter(&waiter),
        Change::SetWaiter(before, after) => db.set_waiter(&before, &after),
        Change::DropWaiter(waiter) => db.one(
            "waiter",
            "DELETE FROM waiter WHERE id = ?1 AND alive_until = ?2",
            (waiter.id.as_str(), waiter.alive_until.as_micros()),
        ),
        Change::AddFile(file) => db.add_file(&file),
        Change::SetFile(both) => db.set_file(&both.0, &both.1),
        Change::DropFile(file) => db.one(
            "file",
            "DELETE FROM file WHERE id = ?1 AND phase = ?2",
            (file.id.as_str(), codes::file_phase(file.phase)),
        ),
        Change::AddAgent(agent) => db.add_agent(&agent),
        Change::SetAgent(before, after) => db.set_agent(&before, &after),
        Change::DropAgent(agent) => db.one(
            "agent",
            "DELETE FROM agent WHERE id = ?1 AND owner IS ?2",
            (agent.id.as_str(), agent.owner.as_ref().map(OwnerId::as_str)),
        ),
        Change::AdoptSession(before, after) => db.one(
            "session",
            "UPDATE session SET owner = ?2, name = ?3 WHERE id = ?1 AND owner = ?4 AND epoch = ?5 AND phase = ?6",
            params![
                after.id.as_str(),
                after.owner.as_str(),
                after.name.as_ref().map(SessionName::as_str),
                before.owner.as_str(),
                before.binding.as_ref().map_or(0, |binding| binding.epoch),
                codes::phase(before.phase),
            ],
        ),
        Change::AddJob(job, payload) => db.add_job(&job, &payload),
        Change::SetJob(both, result) => db.set_job(&both.0, &both.1, result.as_deref()),
        Change::PutRequest(request, now) => db.put_request(&request, now),
        Change::Append { session, binding, kind } => {
            signals.push(db.append(&session, binding, kind, now)?);
            Ok(())
        }
        Change::TrimLog { session, from, to, bytes } => db.trim_log(&session, (from, to), bytes),
        Change::DropJobs(jobs) => jobs.iter().try_for_each(|job| db.drop_job(job)),
        Change::DropRequests(keys) => keys.iter().try_for_each(|key| db.drop_request(key)),
        Change::DropSession(session) => db.drop_session(&session),
        Change::SetFollowed(before, after) => db.one(
            "place in auth's log",
            "UPDATE followed SET sequence = ?1, issued_before = ?2 WHERE sequence = ?3 AND issued_before = ?4",
            [after.sequence, after.issued_before, before.sequence, before.issued_before],
        ),
        Change::KeepLog(keeping) => sqlite::keep(connection, &keeping),
    }
}

struct Writes<'c>(&'c Connection);

impl Writes<'_> {
    fn one(&self, what: &str, sql: &str, params: impl Params) -> Result<(), Fault> {
        Fault::unless_one(self.some(sql, params)?, what)
    }

    fn some(&self, sql: &str, params: impl Params) -> Result<usize, Fault> {
        Ok(self.0.prepare_cached(sql)?.execute(params)?)
    }

    fn add_session(&self, session: &Session, now: Timestamp) -> Result<(), Fault> {
        let binding = session.binding.as_ref();
        self.one(
            "session",
            "INSERT INTO session (id, owner, name, agent, project, epoch, phase, created_at, ended_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL)",
            params![
                session.id.as_str(),
                session.owner.as_str(),
                session.name.as_ref().map(SessionName::as_str),
                binding.map(|binding| binding.agent.as_str()),
                binding.map(|binding| binding.project.as_str()),
                binding.map_or(0, |binding| binding.epoch),
                codes::phase(session.phase),
                session.created_at.as_micros(),
            ],
        )?;
        self.one(
            "log",
            "INSERT INTO log_head (session, first, last, bytes, first_at) VALUES (?1, 1, 0, 0, ?2)",
            (session.id.as_str(), now.as_micros()),
        )
    }

    fn set_session(&self, before: &Session, after: &Session) -> Result<(), Fault> {
        let binding = after.binding.as_ref();
        self.one(
            "session",
            "UPDATE session SET agent = ?2, project = ?3, epoch = ?4, phase = ?5, ended_at = ?6
             WHERE id = ?1 AND epoch = ?7 AND phase = ?8",
            params![
                after.id.as_str(),
                binding.map(|binding| binding.agent.as_str()),
                binding.map(|binding| binding.project.as_str()),
                binding.map_or(0, |binding| binding.epoch),
                codes::phase(after.phase),
                after.ended_at.map(Timestamp::as_micros),
                before.binding.as_ref().map_or(0, |binding| binding.epoch),
                codes::phase(before.phase),
            ],
        )
    }

    fn add_client(&self, client: &Client) -> Result<(), Fault> {
        self.one(
            "client",
            "INSERT INTO client (id, session, role, hash, cursor, created_at, seen_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                client.id.as_str(),
                client.session.as_str(),
                codes::role(client.role),
                &client.hash[..],
                client.cursor,
                client.created_at.as_micros(),
                client.seen_at.as_micros(),
            ],
        )
    }

    fn add_waiter(&self, waiter: &Waiter) -> Result<(), Fault> {
        self.one(
            "waiter",
            &format!("INSERT INTO waiter ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", codes::WAITER),
            params![
                waiter.id.as_str(),
                waiter.session.as_str(),
                waiter.owner.as_str(),
                waiter.agent.as_str(),
                waiter.present.as_ref().map(AgentId::as_str),
                waiter.project.as_str(),
                waiter.deadline.as_micros(),
                waiter.alive_until.as_micros(),
            ],
        )
    }

    fn set_waiter(&self, before: &Waiter, after: &Waiter) -> Result<(), Fault> {
        self.one(
            "waiter",
            "UPDATE waiter SET present = ?2, alive_until = ?3 WHERE id = ?1 AND alive_until = ?4",
            (
                after.id.as_str(),
                after.present.as_ref().map(AgentId::as_str),
                after.alive_until.as_micros(),
                before.alive_until.as_micros(),
            ),
        )
    }

    fn set_password(&self, before: Option<&SessionPassword>, after: &SessionPassword) -> Result<(), Fault> {
        let (joiners, session) = (codes::role(after.joiners), after.session.as_str());
        match before {
            None => self.one(
                "password",
                "INSERT INTO password (session, hash, joiners, version) VALUES (?1, ?2, ?3, ?4)",
                (session, &after.hash, joiners, after.version),
            ),
            Some(before) => self.one(
                "password",
                "UPDATE password SET hash = ?2, joiners = ?3, version = ?4 WHERE session = ?1 AND version = ?5",
                (session, &after.hash, joiners, after.version, before.version),
            ),
        }
    }

    fn add_file(&self, file: &File) -> Result<(), Fault> {
        self.one(
            "file",
            &format!("INSERT INTO file ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)", codes::FILE),
            params![
                file.id.as_str(),
                file.session.as_str(),
                file.project.as_ref().map(ProjectId::as_str),
                file.epoch,
                file.name.as_str(),
                codes::file_phase(file.phase),
                file.due_at().map(Timestamp::as_micros),
                file.size,
                &file.hash[..],
                file.at.as_micros(),
            ],
        )
    }

    fn set_file(&self, before: &File, after: &File) -> Result<(), Fault> {
        self.one(
            "file",
            "UPDATE file SET phase = ?2, due_at = ?3, size = ?4, hash = ?5, at = ?6 WHERE id = ?1 AND phase = ?7",
            params![
                after.id.as_str(),
                codes::file_phase(after.phase),
                after.due_at().map(Timestamp::as_micros),
                after.size,
                &after.hash[..],
                after.at.as_micros(),
                codes::file_phase(before.phase),
            ],
        )
    }

    fn add_agent(&self, agent: &Agent) -> Result<(), Fault> {
        self.one(
            "agent",
            "INSERT INTO agent (id, owner, shared, description, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                agent.id.as_str(),
                agent.owner.as_ref().map(OwnerId::as_str),
                agent.shared,
                agent.description,
                agent.created_at.as_micros(),
            ],
        )
    }

    fn set_agent(&self, before: &Agent, after: &Agent) -> Result<(), Fault> {
        self.one(
            "agent",
            "UPDATE agent SET shared = ?2, description = ?3 WHERE id = ?1 AND shared = ?4 AND description = ?5",
            (after.id.as_str(), after.shared, &after.description, before.shared, &before.description),
        )
    }

    fn add_job(&self, job: &Job, payload: &[u8]) -> Result<(), Fault> {
        let phase = JobPhase::of(&job.phase);
        self.one(
            "job",
            "INSERT INTO job (id, session, owner, client, agent, project, epoch, state, attempt, lost, fencing,
                              progress, submitted_at, cause, ended_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 0)",
            params![
                job.id.as_str(),
                job.session.as_str(),
                job.owner.as_str(),
                job.client.as_ref().map(ClientId::as_str),
                job.binding.agent.as_str(),
                job.binding.project.as_str(),
                job.binding.epoch,
                phase.state,
                job.attempt,
                job.lost,
                job.fencing,
                phase.progress,
                job.submitted_at.as_micros(),
                phase.cause,
            ],
        )?;
        self.one("payload", "INSERT INTO payload (job, data) VALUES (?1, ?2)", (job.id.as_str(), payload))?;
        self.one(
            "owner load",
            "INSERT INTO owner_load (owner, in_flight) VALUES (?1, 1)
             ON CONFLICT (owner) DO UPDATE SET in_flight = in_flight + 1",
            [job.owner.as_str()],
        )
    }

    /// One job fewer in flight.
    fn unload(&self, owner: &OwnerId) -> Result<(), Fault> {
        let sql = "UPDATE owner_load SET in_flight = in_flight - 1 WHERE owner = ?1 AND in_flight > 1";
        if self.some(sql, [owner.as_str()])? == 1 {
            return Ok(());
        }
        self.one("owner load", "DELETE FROM owner_load WHERE owner = ?1 AND in_flight = 1", [owner.as_str()])
    }

    fn set_job(&self, before: &Job, after: &Job, result: Option<&[u8]>) -> Result<(), Fault> {
        let (was, is) = (JobPhase::of(&before.phase), JobPhase::of(&after.phase));
        let micros = |at: Option<Timestamp>| at.map(Timestamp::as_micros);
        self.one(
            "job",
            "UPDATE job SET state = ?2, attempt = ?3, lost = ?4, fencing = ?5, holder = ?6, worker = ?7,
                    lease_until = ?8, progress = ?9, first_started_at = ?10, started_at = ?11,
                    cancel_requested_at = ?12, ended_at = ?13, cause = ?14, ended_by = ?15
             WHERE id = ?1 AND state = ?16 AND fencing = ?17 AND lease_until IS ?18 AND progress = ?19
               AND cancel_requested_at IS ?20",
            params![
                after.id.as_str(),
                is.state,
                after.attempt,
                after.lost,
                after.fencing,
                after.holder.as_ref().map(OwnerId::as_str),
                is.worker,
                is.lease_until,
                is.progress,
                micros(after.first_started_at),
                micros(after.started_at),
                micros(after.cancel_requested_at),
                is.ended_at,
                is.cause,
                is.ended_by_worker,
                was.state,
                before.fencing,
                was.lease_until,
                was.progress,
                micros(before.cancel_requested_at),
            ],
        )?;
        if before.is_in_flight() && !after.is_in_flight() {
            self.unload(&after.owner)?;
        }
        match result {
            Some(data) => self.one(
                "result",
                "INSERT INTO result (job, data) VALUES (?1, ?2)",
                (after.id.as_str(), data),
            ),
            None => Ok(()),
        }
    }

    fn put_request(&self, request: &Request, now: Timestamp) -> Result<(), Fault> {
        let (kind, scope, id) = codes::request_key(&request.key);
        self.one(
            "request",
            "INSERT INTO request (kind, scope, id, hash, made, sealed, kept_until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (kind, scope, id) DO UPDATE
             SET hash = excluded.hash, made = excluded.made, sealed = excluded.sealed,
                 kept_until = excluded.kept_until
             WHERE request.kept_until <= ?8",
            params![
                kind,
                scope,
                id,
                &request.hash[..],
                request.made,
                request.sealed,
                request.kept_until.as_micros(),
                now.as_micros(),
            ],
        )
    }

    fn append(
        &self,
        session: &SessionId,
        binding: Option<Binding>,
        kind: EventKind,
        now: Timestamp,
    ) -> Result<Signal, Fault> {
        let (facts, data) = record::write(&kind)?;
        let sequence: u64 = self
            .0
            .prepare_cached(
                "UPDATE log_head SET last = last + 1, bytes = bytes + ?2,
                        first_at = CASE WHEN first > last THEN ?3 ELSE first_at END
                 WHERE session = ?1 RETURNING last",
            )?
            .query_row((session.as_str(), record::weight(&facts, data), now.as_micros()), |row| row.get(0))?;
        let (project, epoch) = binding.map_or((None, 0), |binding| (Some(binding.project), binding.epoch));
        self.one(
            "event",
            "INSERT INTO event (session, sequence, at, project, epoch, format, facts, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                session.as_str(),
                sequence,
                now.as_micros(),
                project.as_ref().map(ProjectId::as_str),
                epoch,
                record::FORMAT,
                facts,
                data,
            ],
        )?;
        Ok(logged(session, Event { sequence, at: now, project, epoch, kind }))
    }

    fn trim_log(&self, session: &SessionId, (from, to): (u64, u64), bytes: u64) -> Result<(), Fault> {
        let deleted = self.some(
            "DELETE FROM event WHERE session = ?1 AND sequence BETWEEN ?2 AND ?3",
            (session.as_str(), from, to),
        )?;
        if deleted as u64 != to + 1 - from {
            return Err(Fault::Broken(format!("log: {deleted} events instead of {from} to {to}")));
        }
        self.one(
            "log",
            "UPDATE log_head SET first = ?3 + 1, bytes = bytes - ?4,
                    first_at = COALESCE((SELECT at FROM event WHERE session = ?1 AND sequence = ?3 + 1), first_at)
             WHERE session = ?1 AND first = ?2",
            (session.as_str(), from, to, bytes),
        )
    }

    fn drop_job(&self, job: &JobId) -> Result<(), Fault> {
        self.one("job", "DELETE FROM job WHERE id = ?1 AND state >= 2", [job.as_str()])?;
        self.one("payload", "DELETE FROM payload WHERE job = ?1", [job.as_str()])?;
        self.some("DELETE FROM result WHERE job = ?1", [job.as_str()])?;
        Ok(())
    }

    fn drop_request(&self, key: &RequestKey) -> Result<(), Fault> {
        let sql = "DELETE FROM request WHERE kind = ?1 AND scope = ?2 AND id = ?3";
        self.one("request", sql, codes::request_key(key))
    }

    fn drop_session(&self, session: &SessionId) -> Result<(), Fault> {
        self.some("DELETE FROM client WHERE session = ?1", [session.as_str()])?;
        self.some("DELETE FROM password WHERE session = ?1", [session.as_str()])?;
        self.one("log", "DELETE FROM log_head WHERE session = ?1 AND first > last", [session.as_str()])?;
        self.one("session", "DELETE FROM session WHERE id = ?1 AND phase = 2", [session.as_str()])
    }
}
