//! What sweeps look for. Listings, no truth: each verb looks again.

use interlock_kit::clock::Timestamp;

use crate::{
    ids::{AgentId, ClientId, FileId, JobId, SessionId, WaiterId},
    limits::Limits,
    store::{rows::Read, sqlite::SqliteRows},
    sweep::{Duty, LogsFound},
};

pub(super) fn due(rows: &SqliteRows<'_>, now: Timestamp, limits: &Limits) -> Read<Vec<Duty>> {
    let limit = super::rows_max(limits.sweep_rows_max);
    let at = |back| now.before(back).as_micros();
    let job = |row: &rusqlite::Row<'_>| Ok(JobId::stored(row.get(0)?));
    let session = |row: &rusqlite::Row<'_>| Ok(SessionId::stored(row.get(0)?));

    let leases = rows.many(
        "SELECT id FROM (SELECT id FROM job INDEXED BY job_leased WHERE state = 1 AND lease_until <= ?1
                         ORDER BY lease_until, id LIMIT ?3)
         UNION
         SELECT id FROM (SELECT id FROM job INDEXED BY job_begun
                         WHERE state = 1 AND ended_at IS NULL AND first_started_at <= ?2
                         ORDER BY first_started_at, id LIMIT ?3)
         ORDER BY 1 LIMIT ?3",
        (now.as_micros(), at(limits.run_time_max), limit),
        job,
    )?;
    // Ids sort by time: what is too old is among the first. What was given back and has run for too long may be
    // anywhere, and has an index of its own.
    let overdue = rows.many(
        "SELECT id FROM (SELECT id, submitted_at FROM job INDEXED BY job_waiting WHERE state = 0 ORDER BY id LIMIT ?2)
         WHERE submitted_at <= ?1
         UNION
         SELECT id FROM (SELECT id FROM job INDEXED BY job_begun
                         WHERE state = 0 AND ended_at IS NULL AND first_started_at <= ?3
                         ORDER BY first_started_at, id LIMIT ?2)
         ORDER BY 1 LIMIT ?2",
        (at(limits.queue_age_max), limit, at(limits.run_time_max)),
        job,
    )?;
    // `phase > 0` is the index's own condition: that a number is above it does not say so to SQLite.
    let sessions = rows.many(
        "SELECT s.id FROM session s INDEXED BY session_ending WHERE s.phase > 0 AND s.phase = 1
           AND NOT EXISTS (SELECT 1 FROM job j INDEXED BY job_of_owner
                           WHERE j.owner = s.owner AND j.session = s.id AND j.state < 2)
         UNION ALL
         SELECT s.id FROM session s INDEXED BY session_ending JOIN log_head l ON l.session = s.id
         WHERE s.phase > 0 AND s.phase = 2
           AND (l.first <= l.last OR s.ended_at <= ?1 OR EXISTS (SELECT 1 FROM job j WHERE j.session = s.id))
         ORDER BY 1 LIMIT ?2",
        (at(limits.creation_kept), limit),
        session,
    )?;
    let jobs = rows.many(
        "SELECT DISTINCT session FROM (SELECT session FROM job INDEXED BY job_ended
                                       WHERE state >= 2 AND ended_at <= ?1 ORDER BY ended_at, id LIMIT ?2)
         ORDER BY 1",
        (at(limits.ended_jobs_kept), limit),
        session,
    )?;
    let stale: bool =
        rows.only("SELECT EXISTS (SELECT 1 FROM request WHERE kept_until <= ?1)", [now.as_micros()])?;

    let mut due: Vec<Duty> = leases.into_iter().map(Duty::Lease).collect();
    due.extend(overdue.into_iter().map(Duty::Overdue));
    due.extend(sessions.into_iter().map(Duty::Session));
    due.extend(jobs.into_iter().map(Duty::Jobs));
    due.extend(stale.then_some(Duty::Requests));
    due.extend(rows.many(
        "SELECT session, id FROM client INDEXED BY client_seen WHERE seen_at <= ?1 ORDER BY seen_at, id LIMIT ?2",
        (at(limits.client_idle_max), limit),
        |row| Ok(Duty::Idle(SessionId::stored(row.get(0)?), ClientId::stored(row.get(1)?))),
    )?);
    due.extend(rows.many(
        "SELECT agent, id FROM waiter INDEXED BY waiter_alive WHERE alive_until <= ?1
         ORDER BY alive_until, id LIMIT ?2",
        (now.as_micros(), limit),
        |row| Ok(Duty::Waiter(AgentId::stored(row.get(0)?), WaiterId::stored(row.get(1)?))),
    )?);
    let file =
        |row: &rusqlite::Row<'_>| Ok(Duty::File(SessionId::stored(row.get(0)?), FileId::stored(row.get(1)?)));
    due.extend(rows.many(
        "SELECT session, id FROM file INDEXED BY file_due WHERE due_at IS NOT NULL AND due_at <= ?1
         ORDER BY due_at, id LIMIT ?2",
        (now.as_micros(), limit),
        file,
    )?);
    due.extend(rows.many(
        "SELECT f.session, f.id FROM session s INDEXED BY session_ending
         CROSS JOIN file f INDEXED BY file_of ON f.session = s.id
         WHERE s.phase > 0 AND s.phase = 2 AND f.due_at IS NULL ORDER BY f.session, f.id LIMIT ?1",
        [limit],
        file,
    )?);
    Ok(due)
}

/// A part of the table in order, each look the next one: so the time that one takes does not grow with it.
pub(super) fn logs(
    rows: &SqliteRows<'_>,
    now: Timestamp,
    limits: &Limits,
    after: Option<&SessionId>,
) -> Read<LogsFound> {
    let (walk, part) = (super::rows_max(limits.sweep_logs_max), super::rows_max(limits.sweep_rows_max));
    let after = after.map_or("", SessionId::as_str);
    let session = |row: &rusqlite::Row<'_>| Ok(SessionId::stored(row.get(0)?));
    let end = rows.one(
        "SELECT session FROM log_head WHERE session > ?1 ORDER BY session LIMIT 1 OFFSET ?2",
        (after, walk - 1),
        session,
    )?;
    let due: Vec<SessionId> = rows.many(
        "SELECT session FROM log_head
         WHERE session > ?1 AND session <= ?2
           AND (last + 1 - first > ?3 OR bytes > ?4 OR (first <= last AND first_at <= ?5))
         ORDER BY session LIMIT ?6",
        (
            after,
            end.as_ref().map_or("\u{10ffff}", SessionId::as_str),
            limits.log_events_max,
            limits.log_bytes_max,
            now.before(limits.log_age_max).as_micros(),
            part,
        ),
        session,
    )?;
    let next = if due.len() == limits.sweep_rows_max { due.last().cloned() } else { end };
    Ok(LogsFound { due, next })
}
