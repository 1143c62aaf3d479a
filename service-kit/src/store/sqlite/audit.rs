//! Audit rows and chain links in SQLite.

use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow};

use super::retention;
use crate::{
    clock::Timestamp,
    store::{
        Fault,
        audit::{ChainKey, Damage, Entry, Filter, Head, Known, Link, Origin, Report, Row, Span, Walk},
    },
};

/// Appends the batch's entries and its link; without entries there is nothing to link, unless the
/// chain is to be sealed.
pub(super) fn append(
    connection: &Connection,
    key: &ChainKey,
    head: &Head,
    now: Timestamp,
    entries: &[Entry],
    sealed: bool,
) -> Result<Head, Fault> {
    if entries.is_empty() && !sealed {
        return Ok(head.clone());
    }
    let rows: Vec<Row> = entries.iter().map(|entry| Row::of(0, now, entry)).collect();
    let next = head.linked(key, now, &rows, sealed);
    let number = i64::try_from(next.number).expect("a chain of 2^63 batches");
    connection
        .prepare_cached("INSERT INTO audit_batch (writer, number, at, entries, sealed, link) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute((&next.writer, number, now.as_micros(), rows.len() as i64, sealed, &next.link[..]))?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO audit (writer, number, at, principal, role, credential_id, peer, request_id, rpc, action,
                            outcome, reason, subject, scope, detail, count)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?;
    for row in &rows {
        let o = &row.origin;
        insert.execute(rusqlite::params![
            next.writer,
            number,
            now.as_micros(),
            o.principal,
            o.role,
            o.credential_id,
            o.peer,
            o.request_id,
            o.rpc,
            row.action,
            row.outcome,
            row.reason,
            row.subject,
            row.scope,
            row.detail,
            row.count as i64,
        ])?;
    }
    Ok(next)
}

/// The heads of chains that are not sealed.
pub(super) fn open_heads(connection: &Connection) -> Result<Vec<Head>, Fault> {
    // From one writer to the next: there are as many as starts, and far more batches.
    let mut statement = connection.prepare(
        "WITH RECURSIVE writers (writer) AS (
             SELECT MIN(writer) FROM audit_batch
             UNION ALL
             SELECT (SELECT MIN(writer) FROM audit_batch WHERE writer > w.writer) FROM writers w
             WHERE w.writer IS NOT NULL
         )
         SELECT b.writer, b.number, b.link FROM writers w
         JOIN audit_batch b ON b.writer = w.writer
              AND b.number = (SELECT MAX(number) FROM audit_batch WHERE writer = w.writer)
         WHERE NOT b.sealed",
    )?;
    let heads = statement.query_map([], head)?.collect::<Result<_, _>>()?;
    Ok(heads)
}

/// Whether the batch with this link is there.
pub(super) fn holds(connection: &Connection, head: &Head) -> Result<bool, Fault> {
    let number = i64::try_from(head.number).expect("a chain of 2^63 batches");
    let mut statement =
        connection.prepare("SELECT 1 FROM audit_batch WHERE writer = ?1 AND number = ?2 AND link = ?3")?;
    Ok(statement.exists((&head.writer, number, &head.link[..]))?)
}

pub(super) fn head(row: &SqlRow<'_>) -> rusqlite::Result<Head> {
    Ok(Head { writer: row.get(0)?, number: row.get::<_, i64>(1)? as u64, link: row.get(2)? })
}

/// Rows in the order they were stored.
///
/// # Errors
/// What the store says.
pub fn rows(connection: &Connection, filter: &Filter) -> Result<Vec<Row>, Fault> {
    let mut statement = connection.prepare_cached(&format!(
        "{SELECT} WHERE id > ?1 AND id <= ?2 AND at >= ?3 AND at < ?4
         AND (?5 = '' OR principal = ?5) AND (?6 = '' OR action = ?6) AND (?7 = '' OR reason = ?7)
         AND (?8 = '' OR rpc = ?8) AND (?9 = '' OR subject = ?9) AND (?10 = '' OR scope = ?10)
         AND (?11 = '' OR subject = ?11 OR instr(detail, '\"' || ?11 || '\"') > 0)
         ORDER BY id LIMIT ?12"
    ))?;
    let found = statement.query_map(
        rusqlite::params![
            filter.after,
            filter.through.unwrap_or(i64::MAX),
            filter.since.map_or(i64::MIN, Timestamp::as_micros),
            filter.until.map_or(i64::MAX, Timestamp::as_micros),
            filter.principal,
            filter.action,
            filter.reason,
            filter.rpc,
            filter.subject,
            filter.scope,
            filter.mentions,
            filter.limit,
        ],
        row,
    )?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// The id of the newest row; 0 where there is none.
pub(in crate::store) fn newest(connection: &Connection) -> Result<i64, Fault> {
    Ok(connection.query_row("SELECT COALESCE(MAX(id), 0) FROM audit", [], |row| row.get(0))?)
}

/// The newest place and how far rows were removed, then the rows that those bound: of one snapshot.
pub(in crate::store) fn look(
    connection: &Connection,
    bounded: impl Fn(Span) -> Option<Filter>,
) -> Result<(Span, Vec<Row>), Fault> {
    let snapshot = connection.unchecked_transaction()?;
    let first = retention::first(connection)?.map_or(0, |(id, _)| id);
    let span = Span { first, newest: newest(connection)?, removed: retention::removed(connection)? };
    let found = bounded(span).map(|filter| rows(connection, &filter)).transpose()?;
    drop(snapshot);
    Ok((span, found.unwrap_or_default()))
}

pub(super) const SELECT: &str =
    "SELECT id, at, principal, role, credential_id, peer, request_id, rpc, action, outcome, reason,
                             subject, scope, detail, count FROM audit";

pub(super) fn row(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        id: row.get(0)?,
        at: Timestamp::from_micros(row.get(1)?),
        origin: Origin {
            principal: row.get(2)?,
            role: row.get(3)?,
            credential_id: row.get(4)?,
            peer: row.get(5)?,
            request_id: row.get(6)?,
            rpc: row.get(7)?,
        },
        action: row.get(8)?,
        outcome: row.get(9)?,
        reason: row.get(10)?,
        subject: row.get(11)?,
        scope: row.get(12)?,
        detail: row.get(13)?,
        count: row.get::<_, i64>(14)? as u64,
    })
}

/// Reads every chain and compares each link with its rows.
///
/// # Errors
/// What the store says.
pub fn verify(connection: &Connection, key: &ChainKey) -> Result<Vec<Damage>, Fault> {
    Ok(report(connection, key, &[])?.damages)
}

/// The same, with what else there is to say of it; `known` are heads that must still be there. Memory holds one
/// batch at a time.
pub(in crate::store) fn report(
    connection: &Connection,
    key: &ChainKey,
    known: &[Known],
) -> Result<Report, Fault> {
    // One snapshot for all that is read: a writer may be at work. What is made here goes with it.
    let snapshot = connection.is_autocommit().then(|| connection.unchecked_transaction()).transpose()?;
    let report = walk(connection, key, known)?;
    drop(snapshot);
    Ok(report)
}

fn walk(connection: &Connection, key: &ChainKey, known: &[Known]) -> Result<Report, Fault> {
    let mut walk = Walk::new(key, known, retention::checkpoints(connection)?);
    let mut batches = connection
        .prepare("SELECT writer, number, link, at, sealed FROM audit_batch ORDER BY writer, number")?;
    let mut found = batches.query([])?;
    // Rows of a batch follow each other by id; a temporary index saves a scan for each batch.
    connection.execute_batch("CREATE TEMP TABLE IF NOT EXISTS audit_place AS SELECT writer, number, id FROM audit; CREATE INDEX IF NOT EXISTS temp.audit_place_by ON audit_place (writer, number, id)")?;
    let mut statement = connection.prepare(&format!(
        "{SELECT} WHERE id IN (SELECT id FROM temp.audit_place WHERE writer = ?1 AND number = ?2) ORDER BY id"
    ))?;
    while let Some(batch) = found.next()? {
        let head = head(batch)?;
        let rows = statement.query_map((&head.writer, head.number as i64), row)?.collect::<Result<_, _>>()?;
        walk.next(Link { head, at: Timestamp::from_micros(batch.get(3)?), sealed: batch.get(4)?, rows });
    }
    let strays = connection
        .query_row(
            "SELECT COUNT(*) FROM audit a WHERE NOT EXISTS (SELECT 1 FROM audit_batch b WHERE b.writer = a.writer AND b.number = a.number)",
            [],
            |row| row.get::<_, i64>(0),
        )
        .optional()?
        .unwrap_or(0) as u64;
    drop(statement);
    connection.execute_batch("DROP TABLE temp.audit_place")?;
    Ok(walk.finish(strays))
}
