//! Planned changes: to the working set, for the verbs that come later in the batch, and to statements. Each is
//! conditional on the row that it was planned on, and counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use interlock_kit::{
    clock::Timestamp,
    store::{
        Fault,
        postgres::{self, Columns, Flush, Out, Param, Unmet, Update, bind},
    },
};

use super::{
    Head, Working,
    decode::{limit, signed, small},
};
use crate::{
    agent::Agent,
    binding::Binding,
    client::Client,
    event::{Event, EventKind},
    file::File,
    ids::{ClientId, JobId, OwnerId, SessionId},
    job::Job,
    password::SessionPassword,
    request::{Request, RequestKey},
    session::{self, Session},
    store::{
        Change, Gateway, Key,
        codes::{self, JobPhase},
        record,
        rows::{Log, logged},
    },
    waiter::Waiter,
};

const SESSION: Columns = Columns::of("session", "id, owner, name, agent, project, epoch, phase, created_at");
const LOG_HEAD: Columns = Columns::of("log_head", "session, first, last, bytes, first_at");
const CLIENT: Columns = Columns::of("client", "id, session, role, hash, cursor, created_at, seen_at");
const JOB: Columns = Columns::of(
    "job",
    "id, session, owner, client, agent, project, epoch, state, attempt, lost, fencing, progress, submitted_at, cause,
     ended_by",
);
const PAYLOAD: Columns = Columns::of("payload", "job, data");
const RESULT: Columns = Columns::of("result", "job, data");
const EVENT: Columns = Columns::of("event", "session, sequence, at, project, epoch, format, facts, data");
const SET_SESSION: Update = Update::of(
    "session",
    "agent = $2, project = $3, epoch = $4, phase = $5, ended_at = $6",
    "id = $1 AND epoch = $7 AND phase = $8",
);
const SET_CURSOR: Update = Update::of("client", "cursor = $3", "id = $1 AND cursor = $2");
const SET_SEEN: Update = Update::of("client", "seen_at = $3", "id = $1 AND seen_at = $2");
const SET_JOB: Update = Update::of(
    "job",
    "state = $2, attempt = $3, lost = $4, fencing = $5, holder = $6, worker = $7, lease_until = $8, progress = $9,
     first_started_at = $10, started_at = $11, cancel_requested_at = $12, ended_at = $13, cause = $14, ended_by = $15",
    "id = $1 AND state = $16 AND fencing = $17 AND lease_until IS NOT DISTINCT FROM $18 AND progress = $19
     AND cancel_requested_at IS NOT DISTINCT FROM $20",
);
/// One that is kept no longer is in the way of none.
const REQUEST: Columns = Columns::of("request", "kind, scope, id, hash, made, sealed, kept_until").or(
    "ON CONFLICT (kind, scope, id) DO UPDATE
     SET hash = excluded.hash, made = excluded.made, sealed = excluded.sealed, kept_until = excluded.kept_until
     WHERE request.kept_until <= $8",
);

pub(super) fn apply(
    working: &mut Working,
    loaded: &BTreeSet<Key>,
    change: Change,
    now: Timestamp,
    out: &mut Out<'_, Gateway>,
) -> Result<(), Unmet<Gateway>> {
    change.signals(out.signals);
    let flush = &mut *out.flush;
    match change {
        Change::AddSession(session) => add_session(working, flush, session, now)?,
        Change::SetSession(before, after) => set_session(working, flush, &before, after)?,
        Change::AddClient(client) => {
            add_client(flush, &client);
            if let Some(members) = working.members.get_mut(&client.session) {
                members.insert(client.hash);
            }
            fresh("client", working.clients.insert(client.hash, client))?;
        }
        Change::SetCursor { client, from, to } => {
            let mut of = working.clients.values_mut().filter(|of| of.id == client && of.cursor == from);
            of.next().ok_or_else(|| broken("client"))?.cursor = to;
            flush.update("client", SET_CURSOR, &client, [number(from), number(to)]);
        }
        Change::SetSeen { client, from, to } => {
            let mut of = working.clients.values_mut().filter(|of| of.id == client && of.seen_at == from);
            of.next().ok_or_else(|| broken("client"))?.seen_at = to;
            flush.update("client", SET_SEEN, &client, [at(from), at(to)]);
        }
        Change::DropClient(client) => {
            if let Some(members) = working.members.get_mut(&client.session) {
                members.remove(&client.hash);
            }
            same("client", working.clients.remove(&client.hash).as_ref(), &client)?;
            working.left.insert(client.hash);
            let sql = "DELETE FROM client WHERE id = $1 AND session = $2";
            flush.one("client", sql, [text(&client.id), text(&client.session)]);
        }
        Change::AddWaiter(waiter) => {
            working.waits(None, Some(&waiter));
            add_waiter(flush, &waiter);
        }
        Change::SetWaiter(before, after) => {
            working.waits(Some(&before), Some(&after));
            let sql = "UPDATE waiter SET present = $2, alive_until = $3 WHERE id = $1 AND alive_until = $4";
            let present = maybe_text(after.present.as_ref());
            flush.one(
                "waiter",
                sql,
                [text(&after.id), present, at(after.alive_until), at(before.alive_until)],
            );
        }
        Change::DropWaiter(waiter) => {
            working.waits(Some(&waiter), None);
            let sql = "DELETE FROM waiter WHERE id = $1 AND alive_until = $2";
            flush.one("waiter", sql, [text(&waiter.id), at(waiter.alive_until)]);
        }
        Change::SetPassword(before, after) => set_password(working, flush, before.as_ref(), after)?,
        Change::AddFile(file) => {
            add_file(flush, &file);
            fresh("file", working.files.insert(file.id.clone(), file))?;
        }
        Change::SetFile(both) => {
            let (before, after) = *both;
            set_file(flush, &before, &after);
            same("file", working.files.insert(after.id.clone(), after).as_ref(), &before)?;
        }
        Change::DropFile(file) => {
            same("file", working.files.remove(&file.id).as_ref(), &file)?;
            let sql = "DELETE FROM file WHERE id = $1 AND phase = $2";
            flush.one("file", sql, [text(&file.id), bind(small(codes::file_phase(file.phase)))]);
        }
        Change::AddAgent(agent) => {
            add_agent(flush, &agent);
            if let Some(owner) = &agent.owner {
                working.count(Key::AgentsOf(owner.clone()), 1);
            }
            fresh("agent", working.agents.insert(agent.id.clone(), agent))?;
        }
        Change::SetAgent(before, after) => {
            set_agent(flush, &before, &after);
            same("agent", working.agents.insert(after.id.clone(), after).as_ref(), &before)?;
        }
        Change::DropAgent(agent) => {
            same("agent", working.agents.remove(&agent.id).as_ref(), &agent)?;
            if let Some(owner) = &agent.owner {
                working.count(Key::AgentsOf(owner.clone()), -1);
            }
            let sql = "DELETE FROM agent WHERE id = $1 AND owner IS NOT DISTINCT FROM $2";
            flush.one("agent", sql, [text(&agent.id), maybe_text(agent.owner.as_ref())]);
        }
        Change::AdoptSession(before, after) => adopt_session(working, flush, &before, after)?,
        Change::AddJob(job, payload) => {
            let payload: Vec<u8> = payload.into();
            add_job(flush, &job);
            flush.row("payload", PAYLOAD, [text(&job.id), bind(payload.clone())]);
            working.payloads.insert(job.id.clone(), Arc::new(payload));
            working.sessions_of.insert(job.id.clone(), job.session.clone());
            working.moved(None, Some(&job));
        }
        Change::SetJob(both, result) => {
            let (before, after) = *both;
            same("job", working.jobs.get(&before.id), &before)?;
            set_job(flush, &before, &after);
            if let Some(data) = result {
                let data: Vec<u8> = data.into();
                flush.row("result", RESULT, [text(&after.id), bind(data.clone())]);
                working.results.insert(after.id.clone(), Arc::new(data));
            }
            working.moved(Some(&before), Some(&after));
        }
        Change::PutRequest(request, now) => {
            put_request(flush, &request, now);
            let old = working.requests.insert(request.key.clone(), request);
            if old.is_some_and(|old| !old.kept_until.is_over(now)) {
                return Err(broken("request").into());
            }
        }
        Change::Append { session, binding, kind } => {
            let head = head(working, loaded, &session)?;
            out.signals.push(append(head, flush, &session, binding, kind, now)?);
        }
        Change::TrimLog { session, from, to, bytes } => {
            let head = head(working, loaded, &session)?;
            trim_log(head, flush, &session, (from, to), bytes)?;
        }
        Change::DropJobs(jobs) => drop_jobs(working, flush, &jobs)?,
        Change::DropRequests(keys) => {
            for key in keys {
                working.requests.remove(&key).ok_or_else(|| broken("request"))?;
                drop_request(flush, &key);
            }
        }
        Change::DropSession(session) => drop_session(working, flush, &session)?,
        Change::SetFollowed(before, after) => {
            same("place in auth's log", working.followed.replace(after).as_ref(), &before)?;
            let sql = "UPDATE followed SET sequence = $1, issued_before = $2
                       WHERE sequence = $3 AND issued_before = $4";
            let places = [after.sequence, after.issued_before, before.sequence, before.issued_before];
            flush.one("place in auth's log", sql, places.map(number));
        }
        Change::KeepLog(keeping) => postgres::keep(flush, &keeping),
    }
    Ok(())
}

/// The head of a log; where no verb had to read it, it is loaded now: locked last.
fn head<'w>(
    working: &'w mut Working,
    loaded: &BTreeSet<Key>,
    session: &SessionId,
) -> Result<&'w mut Head, Unmet<Gateway>> {
    let key = Key::Log(session.clone());
    working.logs.get_mut(session).ok_or_else(|| match loaded.contains(&key) {
        true => Unmet::Fault(broken("log")),
        false => Unmet::Miss(vec![key]),
    })
}

fn text(value: &(impl ToString + ?Sized)) -> Param {
    bind(value.to_string())
}

fn maybe_text<T: ToString>(value: Option<&T>) -> Param {
    bind(value.map(ToString::to_string))
}

fn at(instant: Timestamp) -> Param {
    bind(instant.as_micros())
}

fn maybe_at(instant: Option<Timestamp>) -> Param {
    bind(instant.map(Timestamp::as_micros))
}

fn number(value: u64) -> Param {
    bind(signed(value))
}

fn epoch(binding: Option<&Binding>) -> Param {
    number(binding.map_or(0, |binding| binding.epoch))
}

fn add_session(
    working: &mut Working,
    flush: &mut Flush,
    session: Session,
    now: Timestamp,
) -> Result<(), Fault> {
    let binding = session.binding.as_ref();
    flush.row(
        "session",
        SESSION,
        [
            text(&session.id),
            text(&session.owner),
            maybe_text(session.name.as_ref()),
            maybe_text(binding.map(|binding| &binding.agent)),
            maybe_text(binding.map(|binding| &binding.project)),
            epoch(binding),
            bind(small(codes::phase(session.phase))),
            at(session.created_at),
        ],
    );
    flush.row("log", LOG_HEAD, [text(&session.id), number(1), number(0), number(0), at(now)]);
    working.count(Key::SessionsLiving(session.owner.clone()), 1);
    if let Some(name) = &session.name {
        working.names.insert((session.owner.clone(), name.clone()));
    }
    let log = Log { first: 1, ..Log::default() };
    working.logs.insert(session.id.clone(), Head { log, ..Head::default() });
    fresh("session", working.sessions.insert(session.id.clone(), session))
}

fn set_session(
    working: &mut Working,
    flush: &mut Flush,
    before: &Session,
    after: Session,
) -> Result<(), Fault> {
    let binding = after.binding.as_ref();
    flush.update(
        "session",
        SET_SESSION,
        &after.id,
        [
            maybe_text(binding.map(|binding| &binding.agent)),
            maybe_text(binding.map(|binding| &binding.project)),
            epoch(binding),
            bind(small(codes::phase(after.phase))),
            maybe_at(after.ended_at),
            epoch(before.binding.as_ref()),
            bind(small(codes::phase(before.phase))),
        ],
    );
    if after.phase == session::Phase::Gone && before.phase != session::Phase::Gone {
        working.count(Key::SessionsLiving(after.owner.clone()), -1);
        if let Some(name) = &after.name {
            working.names.remove(&(after.owner.clone(), name.clone()));
        }
    }
    same("session", working.sessions.insert(after.id.clone(), after).as_ref(), before)
}

fn adopt_session(
    working: &mut Working,
    flush: &mut Flush,
    before: &Session,
    after: Session,
) -> Result<(), Fault> {
    flush.one(
        "session",
        "UPDATE session SET owner = $2, name = $3 WHERE id = $1 AND owner = $4 AND epoch = $5 AND phase = $6",
        [
            text(&after.id),
            text(&after.owner),
            maybe_text(after.name.as_ref()),
            text(&before.owner),
            epoch(before.binding.as_ref()),
            bind(small(codes::phase(before.phase))),
        ],
    );
    for (session, by) in [(before, -1), (&after, 1)] {
        working.count(Key::SessionsLiving(session.owner.clone()), by);
    }
    if let Some(name) = &before.name {
        working.names.remove(&(before.owner.clone(), name.clone()));
    }
    if let Some(name) = &after.name {
        working.names.insert((after.owner.clone(), name.clone()));
    }
    same("session", working.sessions.insert(after.id.clone(), after).as_ref(), before)
}

fn add_client(flush: &mut Flush, client: &Client) {
    flush.row(
        "client",
        CLIENT,
        [
            text(&client.id),
            text(&client.session),
            bind(small(codes::role(client.role))),
            bind(client.hash.to_vec()),
            number(client.cursor),
            at(client.created_at),
            at(client.seen_at),
        ],
    );
}

fn add_waiter(flush: &mut Flush, waiter: &Waiter) {
    flush.one(
        "waiter",
        format!("INSERT INTO waiter ({}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", codes::WAITER),
        [
            text(&waiter.id),
            text(&waiter.session),
            text(&waiter.owner),
            text(&waiter.agent),
            maybe_text(waiter.present.as_ref()),
            text(&waiter.project),
            at(waiter.deadline),
            at(waiter.alive_until),
        ],
    );
}

fn set_password(
    working: &mut Working,
    flush: &mut Flush,
    before: Option<&SessionPassword>,
    after: SessionPassword,
) -> Result<(), Fault> {
    let mut params = vec![
        text(&after.session),
        text(&after.hash),
        bind(small(codes::role(after.joiners))),
        number(after.version),
    ];
    let sql = match before {
        None => "INSERT INTO password (session, hash, joiners, version) VALUES ($1, $2, $3, $4)",
        Some(before) => {
            params.push(number(before.version));
            "UPDATE password SET hash = $2, joiners = $3, version = $4 WHERE session = $1 AND version = $5"
        }
    };
    flush.one("password", sql, params);
    match (working.passwords.insert(after.session.clone(), after), before) {
        (None, None) => Ok(()),
        (found, Some(before)) => same("password", found.as_ref(), before),
        (Some(_), None) => Err(broken("password")),
    }
}

fn add_file(flush: &mut Flush, file: &File) {
    flush.one(
        "file",
        format!("INSERT INTO file ({}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)", codes::FILE),
        [
            text(&file.id),
            text(&file.session),
            maybe_text(file.project.as_ref()),
            number(file.epoch),
            text(&file.name),
            bind(small(codes::file_phase(file.phase))),
            maybe_at(file.due_at()),
            number(file.size),
            bind(file.hash.to_vec()),
            at(file.at),
        ],
    );
}

fn set_file(flush: &mut Flush, before: &File, after: &File) {
    flush.one(
        "file",
        "UPDATE file SET phase = $2, due_at = $3, size = $4, hash = $5, at = $6 WHERE id = $1 AND phase = $7",
        [
            text(&after.id),
            bind(small(codes::file_phase(after.phase))),
            maybe_at(after.due_at()),
            number(after.size),
            bind(after.hash.to_vec()),
            at(after.at),
            bind(small(codes::file_phase(before.phase))),
        ],
    );
}

fn add_agent(flush: &mut Flush, agent: &Agent) {
    flush.one(
        "agent",
        "INSERT INTO agent (id, owner, shared, description, created_at) VALUES ($1, $2, $3, $4, $5)",
        [
            text(&agent.id),
            maybe_text(agent.owner.as_ref()),
            bind(agent.shared),
            text(&agent.description),
            at(agent.created_at),
        ],
    );
}

fn set_agent(flush: &mut Flush, before: &Agent, after: &Agent) {
    flush.one(
        "agent",
        "UPDATE agent SET shared = $2, description = $3 WHERE id = $1 AND shared = $4 AND description = $5",
        [
            text(&after.id),
            bind(after.shared),
            text(&after.description),
            bind(before.shared),
            text(&before.description),
        ],
    );
}

fn add_job(flush: &mut Flush, job: &Job) {
    let phase = JobPhase::of(&job.phase);
    flush.row(
        "job",
        JOB,
        [
            text(&job.id),
            text(&job.session),
            text(&job.owner),
            maybe_text::<ClientId>(job.client.as_ref()),
            text(&job.binding.agent),
            text(&job.binding.project),
            number(job.binding.epoch),
            bind(small(phase.state)),
            bind(i64::from(job.attempt)),
            bind(i64::from(job.lost)),
            number(job.fencing),
            number(phase.progress),
            at(job.submitted_at),
            text(phase.cause),
            bind(0_i16),
        ],
    );
}

fn set_job(flush: &mut Flush, before: &Job, after: &Job) {
    let (was, is) = (JobPhase::of(&before.phase), JobPhase::of(&after.phase));
    flush.update(
        "job",
        SET_JOB,
        &after.id,
        [
            bind(small(is.state)),
            bind(i64::from(after.attempt)),
            bind(i64::from(after.lost)),
            number(after.fencing),
            maybe_text::<OwnerId>(after.holder.as_ref()),
            bind(is.worker.map(str::to_owned)),
            bind(is.lease_until),
            number(is.progress),
            maybe_at(after.first_started_at),
            maybe_at(after.started_at),
            maybe_at(after.cancel_requested_at),
            bind(is.ended_at),
            text(is.cause),
            bind(i16::from(is.ended_by_worker)),
            bind(small(was.state)),
            number(before.fencing),
            bind(was.lease_until),
            number(was.progress),
            maybe_at(before.cancel_requested_at),
        ],
    );
}

fn put_request(flush: &mut Flush, request: &Request, now: Timestamp) {
    let (kind, scope, id) = codes::request_key(&request.key);
    flush.row_or(
        "request",
        REQUEST,
        [
            bind(small(kind)),
            text(scope),
            text(id),
            bind(request.hash.to_vec()),
            text(&request.made),
            bind(request.sealed.clone()),
            at(request.kept_until),
        ],
        [at(now)],
    );
}

fn append(
    head: &mut Head,
    flush: &mut Flush,
    session: &SessionId,
    binding: Option<Binding>,
    kind: EventKind,
    now: Timestamp,
) -> Result<crate::store::Signal, Fault> {
    let (facts, data) = record::write(&kind)?;
    let weight = record::weight(&facts, data);
    head.log.last += 1;
    head.log.bytes += weight;
    head.weight += weight;
    head.at = now;
    let (project, epoch) = binding.map_or((None, 0), |binding| (Some(binding.project), binding.epoch));
    flush.row(
        "event",
        EVENT,
        [
            text(session),
            number(head.log.last),
            at(now),
            maybe_text(project.as_ref()),
            number(epoch),
            bind(record::FORMAT),
            text(&facts),
            bind(data.to_vec()),
        ],
    );
    Ok(logged(session, Event { sequence: head.log.last, at: now, project, epoch, kind }))
}

/// What of several rows goes has to be all of them: then there is one row that says so.
fn trim_log(
    head: &mut Head,
    flush: &mut Flush,
    session: &SessionId,
    (from, to): (u64, u64),
    bytes: u64,
) -> Result<(), Fault> {
    if head.log.first != from || to > head.stored || head.log.bytes < bytes {
        return Err(broken("log"));
    }
    head.log.first = to + 1;
    head.log.bytes -= bytes;
    flush.one(
        "log",
        "WITH gone AS (DELETE FROM event WHERE session = $1 AND sequence BETWEEN $2 AND $3 RETURNING sequence)
         UPDATE log_head SET first = $3 + 1, bytes = bytes - $4,
                first_at = COALESCE((SELECT at FROM event WHERE session = $1 AND sequence = $3 + 1), first_at)
         WHERE session = $1 AND first = $2 AND (SELECT COUNT(*) FROM gone) = $3 + 1 - $2",
        [text(session), number(from), number(to), number(bytes)],
    );
    Ok(())
}

fn drop_jobs(working: &mut Working, flush: &mut Flush, jobs: &[JobId]) -> Result<(), Fault> {
    for id in jobs {
        let job = working.jobs.get(id).filter(|job| !job.is_in_flight()).cloned();
        let job = job.ok_or_else(|| broken("job"))?;
        working.moved(Some(&job), None);
        working.sessions_of.remove(id);
        working.payloads.remove(id);
        working.results.remove(id);
    }
    let ids: Vec<String> = jobs.iter().map(ToString::to_string).collect();
    let count = || bind(limit(jobs.len()));
    let all = "SELECT COUNT(*) FROM gone HAVING COUNT(*) = $2";
    let sql = format!("WITH gone AS (DELETE FROM job WHERE id = ANY($1) AND state >= 2 RETURNING id) {all}");
    flush.one("jobs", sql, [bind(ids.clone()), count()]);
    let sql = format!("WITH gone AS (DELETE FROM payload WHERE job = ANY($1) RETURNING job) {all}");
    flush.one("payloads", sql, [bind(ids.clone()), count()]);
    flush.any("results", "DELETE FROM result WHERE job = ANY($1)", [bind(ids)]);
    Ok(())
}

fn drop_request(flush: &mut Flush, key: &RequestKey) {
    let (kind, scope, id) = codes::request_key(key);
    let sql = "DELETE FROM request WHERE kind = $1 AND scope = $2 AND id = $3";
    flush.one("request", sql, [bind(small(kind)), text(scope), text(id)]);
}

fn drop_session(working: &mut Working, flush: &mut Flush, id: &SessionId) -> Result<(), Fault> {
    let empty = working.logs.remove(id).filter(|head| head.log.first > head.log.last);
    empty.ok_or_else(|| broken("log"))?;
    working.sessions.remove(id).ok_or_else(|| broken("session"))?;
    working.clients.retain(|_, client| client.session != *id);
    working.members.remove(id);
    working.passwords.remove(id);
    flush.any("clients", "DELETE FROM client WHERE session = $1", [text(id)]);
    flush.any("password", "DELETE FROM password WHERE session = $1", [text(id)]);
    flush.one("log", "DELETE FROM log_head WHERE session = $1 AND first > last", [text(id)]);
    flush.one("session", "DELETE FROM session WHERE id = $1 AND phase = 2", [text(id)]);
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "what an insertion displaced")]
fn fresh<T>(what: &str, old: Option<T>) -> Result<(), Fault> {
    if old.is_none() { Ok(()) } else { Err(broken(what)) }
}

fn same<T: PartialEq>(what: &str, found: Option<&T>, expected: &T) -> Result<(), Fault> {
    if found == Some(expected) { Ok(()) } else { Err(broken(what)) }
}

fn broken(what: &str) -> Fault {
    Fault::Broken(format!("{what}: not the row that the change was planned on"))
}

/// What owners have more or less in flight.
pub(super) fn loads(gained: &BTreeMap<OwnerId, i64>, flush: &mut Flush) {
    let of = |is: fn(&i64) -> bool| -> (Vec<String>, Vec<i64>) {
        gained.iter().filter(|(_, by)| is(by)).map(|(owner, by)| (owner.to_string(), *by)).unzip()
    };
    let (more, fewer) = (of(|by| *by > 0), of(|by| *by < 0));
    if !more.0.is_empty() {
        let sql = "INSERT INTO owner_load (owner, in_flight) SELECT * FROM unnest($1::TEXT[], $2::BIGINT[])
                   ON CONFLICT (owner) DO UPDATE SET in_flight = owner_load.in_flight + excluded.in_flight";
        flush.many("owner load", more.0.len(), sql, [bind(more.0), bind(more.1)]);
    }
    if !fewer.0.is_empty() {
        let sql = "UPDATE owner_load SET in_flight = in_flight + less.by
                   FROM unnest($1::TEXT[], $2::BIGINT[]) AS less (owner, by) WHERE owner_load.owner = less.owner";
        flush.many("owner load", fewer.0.len(), sql, [bind(fewer.0.clone()), bind(fewer.1)]);
        let sql = "DELETE FROM owner_load WHERE owner = ANY($1) AND in_flight = 0";
        flush.any("owner load", sql, [bind(fewer.0)]);
    }
}

/// The ends of the logs that something was appended to: each where it was when it was loaded.
pub(super) fn heads(logs: &BTreeMap<SessionId, Head>, flush: &mut Flush) {
    let grown: Vec<_> = logs.iter().filter(|(_, head)| head.log.last > head.stored).collect();
    if grown.is_empty() {
        return;
    }
    let of = |value: fn(&Head) -> i64| bind(grown.iter().map(|(_, head)| value(head)).collect::<Vec<i64>>());
    let sessions: Vec<String> = grown.iter().map(|(session, _)| session.to_string()).collect();
    flush.many(
        "log",
        grown.len(),
        "UPDATE log_head SET last = new.last, bytes = bytes + new.weight,
                first_at = CASE WHEN first > log_head.last THEN new.at ELSE first_at END
         FROM unnest($1::TEXT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[])
              AS new (session, stored, last, weight, at)
         WHERE log_head.session = new.session AND log_head.last = new.stored",
        [
            bind(sessions),
            of(|head| signed(head.stored)),
            of(|head| signed(head.log.last)),
            of(|head| signed(head.weight)),
            of(|head| head.at.as_micros()),
        ],
    );
}
