//! What is kept about audit logs beside their rows, in SQLite.

use rusqlite::Connection;

use super::{audit::head, retention};
use crate::{
    clock::Timestamp,
    store::{
        Fault,
        audit::{Head, Keeping, PEER_HEADS_MAX, PEERS_MAX, Remembered},
    },
};

/// Applies one planned write.
///
/// # Errors
/// What the store says.
pub fn keep(connection: &Connection, keeping: &Keeping) -> Result<(), Fault> {
    match keeping {
        Keeping::Remember { peer, heads, at } => remember(connection, peer, heads, *at),
        Keeping::Trim(trim) => retention::trim(connection, trim),
    }
}

fn remember(connection: &Connection, peer: &str, heads: &[Head], now: Timestamp) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO remembered_head (peer, writer, number, link, at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (peer, writer) DO UPDATE SET number = excluded.number, link = excluded.link, at = excluded.at
         WHERE excluded.number > remembered_head.number",
    )?;
    for head in heads {
        statement.execute((peer, &head.writer, head.number as i64, &head.link[..], now.as_micros()))?;
    }
    connection
        .prepare_cached(
            "DELETE FROM remembered_head WHERE peer = ?1 AND writer IN (
                 SELECT writer FROM remembered_head WHERE peer = ?1 ORDER BY at DESC, writer LIMIT -1 OFFSET ?2)",
        )?
        .execute((peer, PEER_HEADS_MAX as i64))?;
    Ok(())
}

/// The ends of chains: those that are not sealed, then those that were sealed last, the latest of them at the end.
pub(in crate::store) fn heads(connection: &Connection) -> Result<Vec<Head>, Fault> {
    // From one writer to the next: there are as many as starts, and far more batches.
    let mut statement = connection.prepare(
        "WITH RECURSIVE writers (writer) AS (
             SELECT MIN(writer) FROM audit_batch
             UNION ALL
             SELECT (SELECT MIN(writer) FROM audit_batch WHERE writer > w.writer) FROM writers w
             WHERE w.writer IS NOT NULL
         ), newest AS (
             SELECT b.writer, b.number, b.link, b.sealed, b.at FROM writers w
             JOIN audit_batch b ON b.writer = w.writer
                  AND b.number = (SELECT MAX(number) FROM audit_batch WHERE writer = w.writer)
             ORDER BY b.sealed, b.at DESC, b.writer LIMIT ?1
         )
         SELECT writer, number, link FROM newest ORDER BY sealed, at, writer",
    )?;
    let heads = statement.query_map([PEER_HEADS_MAX as i64], head)?.collect::<Result<_, _>>()?;
    Ok(heads)
}

/// What is kept of others' chains.
pub(in crate::store) fn remembered(connection: &Connection) -> Result<Vec<Remembered>, Fault> {
    let mut statement = connection.prepare(
        "SELECT writer, number, link, peer FROM remembered_head ORDER BY at, peer, writer LIMIT ?1",
    )?;
    let rows = statement.query_map([(PEERS_MAX * PEER_HEADS_MAX) as i64], |row| {
        Ok(Remembered { peer: row.get(3)?, head: head(row)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
