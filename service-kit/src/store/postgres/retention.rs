//! What is removed of an audit log, in PostgreSQL, and the checkpoints that stand for it.

use std::collections::BTreeMap;

use tokio_postgres::Row as SqlRow;

use super::{
    Flush,
    audit::{NEWEST, ROW, head, offline, row},
    bind,
    link::Link,
    target::Target,
    trouble::Trouble,
};
use crate::{
    clock::Timestamp,
    store::{
        Fault,
        audit::{Chain, Checkpoint, Link as ChainLink, Oldest, REMOVED_CHAINS_MAX, Trim},
    },
};

/// Plans the removal. Once done it meets nothing more: several programs may have planned the same.
pub(super) fn trim(flush: &mut Flush, trim: &Trim) {
    for cleared in &trim.chains {
        let (c, writer) = (&cleared.checkpoint, &cleared.checkpoint.head.writer);
        let number = c.head.number as i64;
        flush.any(
            "removed audit rows",
            "DELETE FROM audit WHERE id BETWEEN $1 AND $2 AND writer = $3 AND number <= $4",
            [bind(cleared.from), bind(c.through), bind(writer.clone()), bind(number)],
        );
        flush.any(
            "removed audit batches",
            "DELETE FROM audit_batch WHERE writer = $1 AND number <= $2",
            [bind(writer.clone()), bind(number)],
        );
        flush.any(
            "checkpoint",
            "INSERT INTO audit_checkpoint AS kept (writer, number, link, sealed, through, damaged, mark)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (writer) DO UPDATE SET number = excluded.number, link = excluded.link,
                 sealed = excluded.sealed, through = excluded.through, damaged = excluded.damaged,
                 mark = excluded.mark
             WHERE excluded.number > kept.number",
            [
                bind(writer.clone()),
                bind(number),
                bind(c.head.link.to_vec()),
                bind(c.sealed),
                bind(c.through),
                bind(c.damaged as i64),
                bind(c.mark.to_vec()),
            ],
        );
    }
    flush.any(
        "checkpoints",
        "DELETE FROM audit_checkpoint WHERE writer IN (
             SELECT writer FROM audit_checkpoint WHERE sealed ORDER BY through DESC, writer OFFSET $1)",
        [bind(REMOVED_CHAINS_MAX as i64)],
    );
}

/// What stands for the removed beginnings of chains.
pub(super) async fn checkpoints(link: &mut Link) -> Result<Vec<Checkpoint>, Trouble> {
    let found = link.client().query(&format!("{CHECKPOINT} ORDER BY writer"), &[]).await?;
    Ok(found.iter().map(checkpoint).collect::<Result<_, _>>()?)
}

/// No row up to this place is there any more of those that were removed; 0 where none was.
pub(super) async fn removed(link: &mut Link) -> Result<i64, Trouble> {
    let sql = "SELECT COALESCE(MAX(through), 0) FROM audit_checkpoint";
    Ok(link.client().query_one(sql, &[]).await?.try_get(0)?)
}

/// The place and the instant of the first row, and the place of the newest one.
pub(in crate::store) fn first(target: &Target) -> Result<(Option<(i64, Timestamp)>, i64), Fault> {
    offline(target, async |link| {
        let found = link.client().query_opt("SELECT id, at FROM audit ORDER BY id LIMIT 1", &[]).await?;
        let read = |row: SqlRow| {
            Ok::<_, tokio_postgres::Error>((row.try_get(0)?, Timestamp::from_micros(row.try_get(1)?)))
        };
        let newest = link.client().query_one(NEWEST, &[]).await?.try_get(0)?;
        Ok((found.map(read).transpose()?, newest))
    })
}

/// So many of the oldest rows, and their chains.
pub(in crate::store) fn oldest(target: &Target, limit: usize) -> Result<Oldest, Fault> {
    offline(target, async |link| {
        link.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let sql = format!("SELECT {ROW}, writer, number FROM audit ORDER BY id LIMIT $1");
        let found = link.client().query(&sql, &[&(limit as i64)]).await?;
        let mut rows = Vec::with_capacity(found.len());
        let mut lasts: BTreeMap<String, u64> = BTreeMap::new();
        for found in &found {
            let (writer, number): (String, i64) = (found.try_get(15)?, found.try_get(16)?);
            let last = lasts.entry(writer.clone()).or_default();
            *last = (*last).max(number.unsigned_abs());
            rows.push((writer, number.unsigned_abs(), row(found, 0)?));
        }
        let mut chains = Vec::with_capacity(lasts.len());
        for (writer, upto) in lasts {
            chains.push(chain(link, &writer, upto).await?);
        }
        let newest = link.client().query_one(NEWEST, &[]).await?.try_get(0)?;
        Ok(Oldest { all: rows.len() < limit, rows, newest, chains })
    })
}

/// The batches of one chain up to the one behind `upto`.
async fn chain(link: &mut Link, writer: &str, upto: u64) -> Result<Chain, Trouble> {
    let upto = i64::try_from(upto.saturating_add(1)).unwrap_or(i64::MAX);
    let sql = "SELECT writer, number, link, at, sealed, entries FROM audit_batch
               WHERE writer = $1 AND number <= $2 ORDER BY number";
    let read = |found: &SqlRow| {
        let (head, at) = (head(found, 0)?, Timestamp::from_micros(found.try_get(3)?));
        let link = ChainLink { head, at, sealed: found.try_get(4)?, rows: Vec::new() };
        Ok::<_, Fault>((link, found.try_get::<_, i64>(5)?.unsigned_abs()))
    };
    let client = link.client();
    let batches = client.query(sql, &[&writer, &upto]).await?.iter().map(read).collect::<Result<_, _>>()?;
    let found = client.query_opt(&format!("{CHECKPOINT} WHERE writer = $1"), &[&writer]).await?;
    let checkpoint = found.as_ref().map(checkpoint).transpose()?;
    let last = "SELECT COALESCE(MAX(number), 0) FROM audit_batch WHERE writer = $1";
    let last: i64 = client.query_one(last, &[&writer]).await?.try_get(0)?;
    Ok(Chain { batches, checkpoint, last: last.unsigned_abs() })
}

const CHECKPOINT: &str = "SELECT writer, number, link, sealed, through, damaged, mark FROM audit_checkpoint";

fn checkpoint(row: &SqlRow) -> Result<Checkpoint, Fault> {
    let mark: &[u8] = row.try_get(6)?;
    let mark = mark.try_into().map_err(|_| Fault::Broken("a mark of another length".to_owned()))?;
    Ok(Checkpoint {
        head: head(row, 0)?,
        sealed: row.try_get(3)?,
        through: row.try_get(4)?,
        damaged: row.try_get::<_, i64>(5)?.unsigned_abs(),
        mark,
    })
}
