//! What sweeps look for. Listings, no truth: each verb looks again.

use interlock_kit::clock::Timestamp;

use crate::{
    ids::{JobId, SessionId},
    limits::Limits,
    store::{rows::Read, sqlite::SqliteRows},
    sweep::Duty,
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
    let sessions = rows.many(
        "SELECT s.id FROM session s WHERE s.phase = 1
           AND NOT EXISTS (SELECT 1 FROM job j INDEXED BY job_of_owner
                           WHERE j.owner = s.owner AND j.session = s.id AND j.state < 2)
         UNION ALL
         SELECT s.id FROM session s JOIN log_head l ON l.session = s.id WHERE s.phase = 2
           AND (l.first <= l.last OR s.ended_at <= ?1 OR EXISTS (SELECT 1 FROM job j WHERE j.session = s.id))
         ORDER BY 1 LIMIT ?2",
        (at(limits.creation_kept), limit),
        session,
    )?;
    let logs = rows.many(
        "SELECT session FROM log_head
         WHERE last + 1 - first > ?1 OR bytes > ?2 OR (first <= last AND first_at <= ?3) ORDER BY session LIMIT ?4",
        (limits.log_events_max, limits.log_bytes_max, at(limits.log_age_max), limit),
        session,
    )?;
    let jobs = rows.many(
        "SELECT DISTINCT session FROM job WHERE state >= 2 AND ended_at <= ?1 ORDER BY session LIMIT ?2",
        (at(limits.ended_jobs_kept), limit),
        session,
    )?;
    let stale: bool =
        rows.only("SELECT EXISTS (SELECT 1 FROM request WHERE kept_until <= ?1)", [now.as_micros()])?;

    let mut due: Vec<Duty> = leases.into_iter().map(Duty::Lease).collect();
    due.extend(overdue.into_iter().map(Duty::Overdue));
    due.extend(sessions.into_iter().map(Duty::Session));
    due.extend(logs.into_iter().map(Duty::Log));
    due.extend(jobs.into_iter().map(Duty::Jobs));
    due.extend(stale.then_some(Duty::Requests));
    Ok(due)
}
