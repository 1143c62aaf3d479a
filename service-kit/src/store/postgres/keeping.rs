//! What is kept about audit logs beside their rows, in PostgreSQL.

use super::{
    Flush,
    audit::{head, offline},
    bind, retention,
    target::Target,
};
use crate::{
    clock::Timestamp,
    store::{
        Fault,
        audit::{Head, Keeping, PEER_HEADS_MAX, PEERS_MAX, Remembered},
    },
};

/// Plans one write.
pub fn keep(flush: &mut Flush, keeping: &Keeping) {
    match keeping {
        Keeping::Remember { peer, heads, at } => remember(flush, peer, heads, *at),
        Keeping::Trim(trim) => retention::trim(flush, trim),
    }
}

fn remember(flush: &mut Flush, peer: &str, heads: &[Head], now: Timestamp) {
    let writers: Vec<String> = heads.iter().map(|head| head.writer.clone()).collect();
    let numbers: Vec<i64> = heads.iter().map(|head| head.number as i64).collect();
    let links: Vec<Vec<u8>> = heads.iter().map(|head| head.link.to_vec()).collect();
    flush.any(
        "heads of another service",
        "INSERT INTO remembered_head AS kept (peer, writer, number, link, at)
         SELECT $1, writer, number, link, $5
         FROM unnest($2::TEXT[], $3::BIGINT[], $4::BYTEA[]) AS told (writer, number, link) ORDER BY writer
         ON CONFLICT (peer, writer) DO UPDATE SET number = excluded.number, link = excluded.link, at = excluded.at
         WHERE excluded.number > kept.number",
        [bind(peer.to_owned()), bind(writers), bind(numbers), bind(links), bind(now.as_micros())],
    );
    flush.any(
        "heads of another service",
        "DELETE FROM remembered_head WHERE peer = $1 AND writer IN (
             SELECT writer FROM remembered_head WHERE peer = $1 ORDER BY at DESC, writer OFFSET $2)",
        [bind(peer.to_owned()), bind(PEER_HEADS_MAX as i64)],
    );
}

/// The ends of chains: those that are not sealed, then those that were sealed last, the latest of them at the end.
pub(in crate::store) fn heads(target: &Target) -> Result<Vec<Head>, Fault> {
    // From one writer to the next: there are as many as starts, and far more batches.
    let sql = "WITH RECURSIVE writers (writer) AS (
                   (SELECT writer FROM audit_batch ORDER BY writer LIMIT 1)
                   UNION ALL
                   SELECT (SELECT writer FROM audit_batch WHERE writer > w.writer ORDER BY writer LIMIT 1)
                   FROM writers w WHERE w.writer IS NOT NULL
               ), newest AS (
                   SELECT w.writer, b.number, b.link, b.sealed, b.at FROM writers w CROSS JOIN LATERAL (
                       SELECT number, link, sealed, at FROM audit_batch WHERE writer = w.writer
                       ORDER BY number DESC LIMIT 1) AS b
                   ORDER BY b.sealed, b.at DESC, w.writer LIMIT $1
               )
               SELECT writer, number, link FROM newest ORDER BY sealed, at, writer";
    offline(target, async |link| {
        let rows = link.rows(sql, &[bind(PEER_HEADS_MAX as i64)]).await?;
        Ok(rows.iter().map(|row| head(row, 0)).collect::<Result<_, _>>()?)
    })
}

/// What is kept of others' chains.
pub(in crate::store) fn remembered(target: &Target) -> Result<Vec<Remembered>, Fault> {
    let sql = "SELECT writer, number, link, peer FROM remembered_head ORDER BY at, peer, writer LIMIT $1";
    offline(target, async |link| {
        let rows = link.rows(sql, &[bind((PEERS_MAX * PEER_HEADS_MAX) as i64)]).await?;
        let read =
            |row: &super::Row| Ok::<_, Fault>(Remembered { peer: row.try_get(3)?, head: head(row, 0)? });
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    })
}
