//! Loads whose answers are lists. All are bounded, and each part of them has its index: they look at what they list.

use interlock_kit::store::{
    Fault,
    postgres::{Access, Ask, Param, Row, bind, each},
};

use super::{
    Beginning, List, Working,
    ask::{AGENT, REQUEST, SESSION},
    decode,
};
use crate::{
    ending::Place,
    ids::{AgentId, ClientId, FileId, JobId, OwnerId, SessionId, WaiterId},
    store::{
        Key, codes,
        rows::{DueBounds, JobList, LogBounds},
    },
    sweep::{Duty, LogsFound},
};

/// Ids sort by time: what has queued for too long is among the first. What was given back and has run for too long
/// may be anywhere, and has an index of its own.
const DUE: &str = "SELECT place, id FROM (
    (SELECT 1 AS place, id, 0 AS nth FROM (
        (SELECT id FROM job WHERE state = 1 AND lease_until <= $1 ORDER BY lease_until, id LIMIT $6)
        UNION
        (SELECT id FROM job WHERE state = 1 AND ended_at IS NULL AND first_started_at <= $2
         ORDER BY first_started_at, id LIMIT $6)) AS over ORDER BY id LIMIT $6)
UNION ALL
    (SELECT 2, id, 0 FROM (
        (SELECT id FROM (SELECT id, submitted_at FROM job WHERE state = 0 ORDER BY id LIMIT $6) AS oldest
         WHERE submitted_at <= $3)
        UNION
        (SELECT id FROM job WHERE state = 0 AND ended_at IS NULL AND first_started_at <= $2
         ORDER BY first_started_at, id LIMIT $6)) AS overdue ORDER BY id LIMIT $6)
UNION ALL
    (SELECT 3, id, 0 FROM (
        (SELECT s.id FROM session s WHERE s.phase > 0 AND s.phase = 1
           AND NOT EXISTS (SELECT FROM job j WHERE j.owner = s.owner AND j.session = s.id AND j.state < 2)
         ORDER BY s.id LIMIT $6)
        UNION ALL
        (SELECT s.id FROM session s JOIN log_head l ON l.session = s.id
         WHERE s.phase > 0 AND s.phase = 2
           AND (l.first <= l.last OR s.ended_at <= $4 OR EXISTS (SELECT FROM job j WHERE j.session = s.id))
         ORDER BY s.id LIMIT $6)) AS ending ORDER BY id LIMIT $6)
UNION ALL
    (SELECT DISTINCT 4, session, 0 FROM (
        SELECT session FROM job WHERE state >= 2 AND ended_at <= $5 ORDER BY ended_at, id LIMIT $6) AS old)
UNION ALL
    (SELECT 5, '', 0 WHERE EXISTS (SELECT FROM request WHERE kept_until <= $1))
UNION ALL
    (SELECT 6, session || ' ' || id, row_number() OVER (ORDER BY seen_at, id) FROM (
        SELECT session, id, seen_at FROM client WHERE seen_at <= $7 ORDER BY seen_at, id LIMIT $6) AS idle)
UNION ALL
    (SELECT 7, agent || ' ' || id, row_number() OVER (ORDER BY alive_until, id) FROM (
        SELECT agent, id, alive_until FROM waiter WHERE alive_until <= $1 ORDER BY alive_until, id LIMIT $6) AS over)
UNION ALL
    (SELECT 8, session || ' ' || id, row_number() OVER (ORDER BY due_at, id) FROM (
        SELECT session, id, due_at FROM file WHERE due_at IS NOT NULL AND due_at <= $1
        ORDER BY due_at, id LIMIT $6) AS over)
UNION ALL
    (SELECT 9, session || ' ' || id, row_number() OVER (ORDER BY session, id) FROM (
        SELECT f.session, f.id FROM session s JOIN file f ON f.session = s.id
        WHERE s.phase > 0 AND s.phase = 2 AND f.due_at IS NULL ORDER BY f.session, f.id LIMIT $6) AS left_over)
) AS due ORDER BY place, nth, id";

/// A part of the table in order, each look the next one: so the time that one takes does not grow with it.
const DUE_LOGS: &str = "WITH looked AS MATERIALIZED (
    SELECT session, first, last, bytes, first_at FROM log_head WHERE session > $1 ORDER BY session LIMIT $2)
(SELECT TRUE, MAX(session) FROM looked HAVING COUNT(*) = $2)
UNION ALL
(SELECT FALSE, session FROM looked
 WHERE last + 1 - first > $3 OR bytes > $4 OR (first <= last AND first_at <= $5) ORDER BY session LIMIT $6)";

/// After every id.
const AFTER_ALL: &str = "\u{10ffff}";

/// The first jobs of a list. Those that are about to go are locked; a verb that changes one of the others asks for it
/// by its id.
pub(super) fn job_list(list: JobList, part: usize, access: Access) -> Ask<Working> {
    let select = format!("SELECT {} FROM job WHERE", codes::JOB);
    let limit = bind(decode::limit(part));
    let (sql, params) = match &list {
        JobList::Queue(agent) => {
            (format!("{select} agent = $1 AND state = 0 ORDER BY id LIMIT $2"), vec![text(agent), limit])
        }
        JobList::OfAgent(agent, owner) => (
            format!("{select} agent = $1 AND owner = $2 AND state < 2 ORDER BY id LIMIT $3"),
            vec![text(agent), text(owner), limit],
        ),
        JobList::OfSession(owner, session) => (
            format!("{select} owner = $1 AND session = $2 AND state < 2 ORDER BY id LIMIT $3"),
            vec![text(owner), text(session), limit],
        ),
        JobList::Ended(session, by) => (
            format!(
                "{select} session = $1 AND state >= 2 AND ended_at <= $2 ORDER BY id LIMIT $3{}",
                access.clause()
            ),
            vec![text(session), bind(by.as_micros()), limit],
        ),
    };
    Ask::new(sql, params, move |working: &mut Working, rows| {
        let mut jobs = Vec::with_capacity(rows.len());
        for row in rows {
            let job = decode::job(row)?;
            jobs.push(job.id.clone());
            working.jobs.insert(job.id.clone(), job);
        }
        let before = working.beginnings.entry(list).or_default();
        if before.part < part {
            *before = Beginning { jobs, part };
        }
        Ok(())
    })
}

pub(super) fn list(key: Key, access: Access) -> Ask<Working> {
    match &key {
        Key::PageSessions(owner, before, limit) => {
            let sql =
                format!("{SESSION} WHERE owner = $1 AND phase < 2 AND id < $2 ORDER BY id DESC LIMIT $3");
            let before = before.as_ref().map_or(AFTER_ALL, SessionId::as_str);
            let params = vec![text(owner), text(before), bind(decode::limit(*limit))];
            listed(key, sql, params, |rows| Ok(List::Sessions(each(rows, decode::session)?)))
        }
        Key::PageJobs(project, of) => {
            let flying = if of.in_flight { " AND state < 2" } else { "" };
            let sql = format!(
                "SELECT {} FROM job WHERE session = $1 AND id < $2 AND project = $3{flying}
                 ORDER BY id DESC LIMIT $4",
                codes::JOB
            );
            let before = of.before.as_ref().map_or(AFTER_ALL, JobId::as_str);
            let params = vec![text(&of.session), text(before), text(project), bind(decode::limit(of.limit))];
            listed(key, sql, params, |rows| Ok(List::Jobs(each(rows, decode::job)?)))
        }
        Key::PageAgents(owner, after, limit) => {
            let after = after.as_ref().map(ToString::to_string).unwrap_or_default();
            let mut params = vec![bind(after), bind(decode::limit(*limit))];
            let open = if let Some(owner) = owner {
                params.push(text(owner));
                " AND (shared OR owner = $3)"
            } else {
                ""
            };
            let sql = format!("{AGENT} WHERE id > $1{open} ORDER BY id LIMIT $2");
            listed(key, sql, params, |rows| Ok(List::Agents(each(rows, decode::agent)?)))
        }
        Key::Named(owner, name) => {
            let sql = "SELECT id FROM session WHERE owner = $1 AND name = $2 AND phase < 2";
            listed(key.clone(), sql, vec![text(owner), text(name)], |rows| {
                let id = rows.first().map(|row| row.try_get(0)).transpose()?;
                Ok(List::Named(id.map(SessionId::stored)))
            })
        }
        Key::NextOwner(after) => {
            let sql = "SELECT MIN(owner) FROM session WHERE phase < 2 AND owner > $1";
            let after = after.as_ref().map(ToString::to_string).unwrap_or_default();
            listed(key.clone(), sql, vec![bind(after)], |rows| {
                let row = rows.first().ok_or_else(|| Fault::Broken("no answer".to_owned()))?;
                Ok(List::Owner(row.try_get::<_, Option<String>>(0)?.map(OwnerId::stored)))
            })
        }
        Key::Followed => {
            let sql = format!("SELECT sequence, issued_before FROM followed{}", access.clause());
            Ask::new(sql, Vec::new(), |working: &mut Working, rows| {
                let row = rows.first().ok_or_else(|| Fault::Broken("no place in auth's log".to_owned()))?;
                let (sequence, issued_before) = (decode::unsigned(row, 0)?, decode::unsigned(row, 1)?);
                working.followed = Some(Place { sequence, issued_before });
                Ok(())
            })
        }
        Key::IsFile(id) => {
            let sql = "SELECT EXISTS (SELECT FROM file WHERE id = $1)";
            listed(key.clone(), sql, vec![text(id)], |rows| {
                let row = rows.first().ok_or_else(|| Fault::Broken("no answer".to_owned()))?;
                Ok(List::Is(row.try_get(0)?))
            })
        }
        Key::Events(session, after, limit) => {
            let sql = "SELECT sequence, at, project, epoch, format, facts, data FROM event
                       WHERE session = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";
            let params = vec![text(session), bind(decode::signed(*after)), bind(decode::limit(*limit))];
            listed(key, sql, params, |rows| Ok(List::Events(each(rows, decode::event)?.into())))
        }
        Key::OldestEvents(session, from, limit) => {
            let sql = "SELECT sequence, at, (octet_length(facts) + octet_length(data))::BIGINT FROM event
                       WHERE session = $1 AND sequence >= $2 ORDER BY sequence LIMIT $3";
            let params = vec![text(session), bind(decode::signed(*from)), bind(decode::limit(*limit))];
            listed(key, sql, params, |rows| Ok(List::Sizes(each(rows, decode::event_size)?)))
        }
        Key::Due(bounds) => due(*bounds),
        Key::DueLogs(after, bounds) => due_logs(after.clone(), *bounds),
        Key::StaleRequests(now, limit) => {
            let sql = format!(
                "{REQUEST} WHERE kept_until <= $1 ORDER BY kept_until, kind, scope, id LIMIT $2{}",
                access.clause()
            );
            let params = vec![bind(now.as_micros()), bind(decode::limit(*limit))];
            Ask::new(sql, params, move |working: &mut Working, rows| {
                let mut keys = Vec::with_capacity(rows.len());
                for row in rows {
                    let request = decode::request(row)?;
                    keys.push(request.key.clone());
                    working.requests.insert(request.key.clone(), request);
                }
                working.lists.insert(key, List::Requests(keys));
                Ok(())
            })
        }
        _ => listed(key, "SELECT MIN(lease_until) FROM job WHERE state = 1", Vec::new(), |rows| {
            let row = rows.first().ok_or_else(|| Fault::Broken("no deadline".to_owned()))?;
            Ok(List::Deadline(decode::maybe_instant(row, 0)?))
        }),
    }
}

fn due(bounds: DueBounds) -> Ask<Working> {
    let DueBounds { now, started, submitted, gone, ended, idle, rows } = bounds;
    let mut params: Vec<Param> = [now, started, submitted, gone, ended].map(|at| bind(at.as_micros())).into();
    params.push(bind(decode::limit(rows)));
    params.push(bind(idle.as_micros()));
    listed(Key::Due(bounds), DUE, params, |rows| Ok(List::Duties(each(rows, duty)?)))
}

fn duty(row: &Row) -> Result<Duty, Fault> {
    let id: String = row.try_get(1)?;
    Ok(match row.try_get::<_, i32>(0)? {
        1 => Duty::Lease(JobId::stored(id)),
        2 => Duty::Overdue(JobId::stored(id)),
        3 => Duty::Session(SessionId::stored(id)),
        4 => Duty::Jobs(SessionId::stored(id)),
        5 => Duty::Requests,
        7 => {
            let (agent, waiter) = id.split_once(' ').ok_or_else(|| decode::unknown(1))?;
            Duty::Waiter(AgentId::stored(agent.to_owned()), WaiterId::stored(waiter.to_owned()))
        }
        8 | 9 => {
            let (session, file) = id.split_once(' ').ok_or_else(|| decode::unknown(1))?;
            Duty::File(SessionId::stored(session.to_owned()), FileId::stored(file.to_owned()))
        }
        _ => {
            let (session, client) = id.split_once(' ').ok_or_else(|| decode::unknown(1))?;
            Duty::Idle(SessionId::stored(session.to_owned()), ClientId::stored(client.to_owned()))
        }
    })
}

fn due_logs(after: Option<SessionId>, bounds: LogBounds) -> Ask<Working> {
    let from = after.as_ref().map(ToString::to_string).unwrap_or_default();
    let params = vec![
        bind(from),
        bind(decode::limit(bounds.logs)),
        bind(decode::signed(bounds.events)),
        bind(decode::signed(bounds.bytes)),
        bind(bounds.stored.as_micros()),
        bind(decode::limit(bounds.rows)),
    ];
    listed(Key::DueLogs(after, bounds), DUE_LOGS, params, move |rows| {
        let (mut due, mut end) = (Vec::new(), None);
        for row in rows {
            let session = SessionId::stored(row.try_get(1)?);
            if row.try_get(0)? {
                end = Some(session);
            } else {
                due.push(session);
            }
        }
        due.sort();
        let next = if due.len() == bounds.rows { due.last().cloned() } else { end };
        Ok(List::Logs(LogsFound { due, next }))
    })
}

fn listed(
    key: Key,
    sql: impl Into<std::borrow::Cow<'static, str>>,
    params: Vec<Param>,
    read: impl FnOnce(&[Row]) -> Result<List, Fault> + Send + 'static,
) -> Ask<Working> {
    Ask::new(sql, params, move |working: &mut Working, rows| {
        working.lists.insert(key, read(rows)?);
        Ok(())
    })
}

fn text(value: &(impl ToString + ?Sized)) -> Param {
    bind(value.to_string())
}
