//! What is removed of an audit log, in SQLite, and the checkpoints that stand for it.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow};

use super::audit::{SELECT, head, newest, row};
use crate::{
    clock::Timestamp,
    store::{
        Fault,
        audit::{Chain, Checkpoint, Link, Oldest, REMOVED_CHAINS_MAX, Trim},
    },
};

/// Removes what was planned, and leaves its checkpoints. Once done it meets nothing more.
pub(super) fn trim(connection: &Connection, trim: &Trim) -> Result<(), Fault> {
    for cleared in &trim.chains {
        let (c, writer) = (&cleared.checkpoint, &cleared.checkpoint.head.writer);
        let number = c.head.number as i64;
        connection
            .prepare_cached("DELETE FROM audit WHERE id BETWEEN ?1 AND ?2 AND writer = ?3 AND number <= ?4")?
            .execute((cleared.from, c.through, writer, number))?;
        connection
            .prepare_cached("DELETE FROM audit_batch WHERE writer = ?1 AND number <= ?2")?
            .execute((writer, number))?;
        connection
            .prepare_cached(
                "INSERT INTO audit_checkpoint (writer, number, link, sealed, through, damaged, mark)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (writer) DO UPDATE SET number = excluded.number, link = excluded.link,
                     sealed = excluded.sealed, through = excluded.through, damaged = excluded.damaged,
                     mark = excluded.mark
                 WHERE excluded.number > audit_checkpoint.number",
            )?
            .execute((
                writer,
                number,
                &c.head.link[..],
                c.sealed,
                c.through,
                c.damaged as i64,
                &c.mark[..],
            ))?;
    }
    connection
        .prepare_cached(
            "DELETE FROM audit_checkpoint WHERE writer IN (
                 SELECT writer FROM audit_checkpoint WHERE sealed ORDER BY through DESC, writer
                 LIMIT -1 OFFSET ?1)",
        )?
        .execute([REMOVED_CHAINS_MAX as i64])?;
    Ok(())
}

/// What stands for the removed beginnings of chains.
pub(super) fn checkpoints(connection: &Connection) -> Result<Vec<Checkpoint>, Fault> {
    let mut statement = connection.prepare(&format!("{CHECKPOINT} ORDER BY writer"))?;
    Ok(statement.query_map([], checkpoint)?.collect::<Result<_, _>>()?)
}

/// No row up to this place is there any more of those that were removed; 0 where none was.
pub(super) fn removed(connection: &Connection) -> Result<i64, Fault> {
    let sql = "SELECT COALESCE(MAX(through), 0) FROM audit_checkpoint";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// The place and the instant of the first row.
pub(in crate::store) fn first(connection: &Connection) -> Result<Option<(i64, Timestamp)>, Fault> {
    let sql = "SELECT id, at FROM audit ORDER BY id LIMIT 1";
    let read = |row: &SqlRow<'_>| Ok((row.get(0)?, Timestamp::from_micros(row.get(1)?)));
    Ok(connection.query_row(sql, [], read).optional()?)
}

/// So many of the oldest rows, and their chains.
pub(in crate::store) fn oldest(connection: &Connection, limit: usize) -> Result<Oldest, Fault> {
    let snapshot = connection.unchecked_transaction()?;
    let mut statement = connection.prepare(&format!(
        "{SELECT_PLACED} FROM audit ORDER BY id LIMIT ?1",
        SELECT_PLACED = SELECT.replace(" FROM audit", ", writer, number")
    ))?;
    let read =
        |found: &SqlRow<'_>| Ok((found.get::<_, String>(15)?, found.get::<_, i64>(16)? as u64, row(found)?));
    let rows: Vec<_> = statement.query_map([limit as i64], read)?.collect::<Result<_, _>>()?;
    drop(statement);
    let mut lasts: BTreeMap<&str, u64> = BTreeMap::new();
    for (writer, number, _) in &rows {
        let last = lasts.entry(writer).or_default();
        *last = (*last).max(*number);
    }
    let chains =
        lasts.into_iter().map(|(writer, upto)| chain(connection, writer, upto)).collect::<Result<_, _>>()?;
    let (all, newest) = (rows.len() < limit, newest(connection)?);
    drop(snapshot);
    Ok(Oldest { rows, all, newest, chains })
}

/// The batches of one chain up to the one behind `upto`.
fn chain(connection: &Connection, writer: &str, upto: u64) -> Result<Chain, Fault> {
    let mut batches = connection.prepare_cached(
        "SELECT writer, number, link, at, sealed, entries FROM audit_batch
         WHERE writer = ?1 AND number <= ?2 ORDER BY number",
    )?;
    let read = |found: &SqlRow<'_>| {
        let (head, at) = (head(found)?, Timestamp::from_micros(found.get(3)?));
        let link = Link { head, at, sealed: found.get(4)?, rows: Vec::new() };
        Ok((link, found.get::<_, i64>(5)?.unsigned_abs()))
    };
    let upto = i64::try_from(upto.saturating_add(1)).unwrap_or(i64::MAX);
    let batches = batches.query_map((writer, upto), read)?.collect::<Result<_, _>>()?;
    let checkpoint = connection
        .prepare_cached(&format!("{CHECKPOINT} WHERE writer = ?1"))?
        .query_row([writer], checkpoint)
        .optional()?;
    let last: i64 = connection
        .prepare_cached("SELECT COALESCE(MAX(number), 0) FROM audit_batch WHERE writer = ?1")?
        .query_row([writer], |row| row.get(0))?;
    Ok(Chain { batches, checkpoint, last: last.unsigned_abs() })
}

const CHECKPOINT: &str = "SELECT writer, number, link, sealed, through, damaged, mark FROM audit_checkpoint";

fn checkpoint(row: &SqlRow<'_>) -> rusqlite::Result<Checkpoint> {
    Ok(Checkpoint {
        head: head(row)?,
        sealed: row.get(3)?,
        through: row.get(4)?,
        damaged: row.get::<_, i64>(5)?.unsigned_abs(),
        mark: row.get(6)?,
    })
}
