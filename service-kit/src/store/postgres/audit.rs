//! Audit rows and chain links in PostgreSQL.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio_postgres::Row as SqlRow;

use super::{
    Flush, Lane, Param, bind,
    link::{Kind, Link},
    retention,
    target::Target,
    trouble::Trouble,
};
use crate::{
    clock::{Clock, Timestamp},
    store::{
        Fault,
        audit::{
            ChainKey, Damage, Entry, Filter, Head, Known, Link as ChainLink, Origin, Report, Row, Span, Walk,
        },
    },
};

/// Plans the batch's entries and its link; without entries there is nothing to link, unless the chain is to be
/// sealed.
pub(super) fn append(
    flush: &mut Flush,
    key: &ChainKey,
    head: &Head,
    now: Timestamp,
    entries: &[Entry],
    sealed: bool,
) -> Head {
    if entries.is_empty() && !sealed {
        return head.clone();
    }
    let rows: Vec<Row> = entries.iter().map(|entry| Row::of(0, now, entry)).collect();
    let next = head.linked(key, now, &rows, sealed);
    let number = i64::try_from(next.number).expect("a chain of 2^63 batches");
    flush.one(
        "audit batch",
        "INSERT INTO audit_batch (writer, number, at, entries, sealed, link) VALUES ($1, $2, $3, $4, $5, $6)",
        [
            bind(next.writer.clone()),
            bind(number),
            bind(now.as_micros()),
            bind(rows.len() as i64),
            bind(sealed),
            bind(next.link.to_vec()),
        ],
    );
    if !rows.is_empty() {
        flush.any("audit rows", INSERT, columns(&next.writer, number, now, rows));
    }
    next
}

/// All rows of a batch in one statement. Ids are given in the order of the entries.
const INSERT: &str = "INSERT INTO audit (writer, number, at, principal, role, credential_id, peer, request_id, rpc, action,
                    outcome, reason, subject, scope, detail, count)
SELECT $1, $2, $3, principal, role, credential_id, peer, request_id, rpc, action, outcome, reason, subject, scope,
       detail, count
FROM unnest($4::TEXT[], $5::TEXT[], $6::TEXT[], $7::TEXT[], $8::TEXT[], $9::TEXT[], $10::TEXT[], $11::TEXT[],
            $12::TEXT[], $13::TEXT[], $14::TEXT[], $15::TEXT[], $16::BIGINT[])
     WITH ORDINALITY AS entry (principal, role, credential_id, peer, request_id, rpc, action, outcome, reason,
                               subject, scope, detail, count, place)
ORDER BY place";

fn columns(writer: &str, number: i64, now: Timestamp, rows: Vec<Row>) -> Vec<Param> {
    let mut texts: [Vec<String>; 12] = std::array::from_fn(|_| Vec::with_capacity(rows.len()));
    let mut counts = Vec::with_capacity(rows.len());
    for row in rows {
        let o = row.origin;
        let values = [
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
        ];
        for (column, value) in texts.iter_mut().zip(values) {
            column.push(value);
        }
        counts.push(row.count as i64);
    }
    let mut params = vec![bind(writer.to_owned()), bind(number), bind(now.as_micros())];
    params.extend(texts.into_iter().map(bind));
    params.push(bind(counts));
    params
}

/// The heads of those of these writers' chains that have a link, and no seal.
pub(super) async fn open_heads(link: &mut Link, writers: &[String]) -> Result<Vec<Head>, Trouble> {
    let sql = "SELECT asked.writer, last.number, last.link
               FROM unnest($1::TEXT[]) AS asked (writer) CROSS JOIN LATERAL (
                   SELECT number, link, sealed FROM audit_batch b WHERE b.writer = asked.writer
                   ORDER BY number DESC LIMIT 1) AS last
               WHERE NOT last.sealed";
    let rows = link.rows(sql, &[bind(writers.to_vec())]).await?;
    Ok(rows.iter().map(|row| head(row, 0)).collect::<Result<_, _>>()?)
}

/// Rows in the order they were stored.
///
/// # Errors
/// What the store says.
pub fn rows(target: &Target, filter: &Filter) -> Result<Vec<Row>, Fault> {
    offline(target, async |link| read(link, filter).await)
}

/// The newest place and how far rows were removed, then the rows that those bound: of one snapshot.
pub(in crate::store) fn look(
    target: &Target,
    bounded: impl Fn(Span) -> Option<Filter> + Send + Sync,
) -> Result<(Span, Vec<Row>), Fault> {
    offline(target, async |link| {
        let newest = settled(link).await?;
        link.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let sql = "SELECT COALESCE(MIN(id), 0) FROM audit";
        let first = link.client().query_one(sql, &[]).await?.try_get(0)?;
        let span = Span { first, newest, removed: retention::removed(link).await? };
        let rows = match bounded(span) {
            Some(filter) => read(link, &filter).await?,
            None => Vec::new(),
        };
        Ok((span, rows))
    })
}

pub(super) const NEWEST: &str = "SELECT COALESCE(MAX(id), 0) FROM audit";
/// Transactions that have written to a table, and have not ended: they hold this lock of it from before their rows get
/// their places until they have committed. No writer has to do anything for it.
const WRITING: &str = "SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = 'audit'::regclass AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
/// For how long those are waited for. The database itself ends one that stands still.
const SETTLE_WITHIN: Duration = Duration::from_secs(3);
const SETTLE_PAUSE: Duration = Duration::from_millis(2);

/// A place up to which no row will come any more: with several writers one may commit a smaller place after another has
/// committed a larger one. Whoever read on from the larger one would pass over it.
///
/// The newest place is read first, and then who is writing: whoever has a smaller one had begun by then. When all of
/// those have ended, their rows are there, or never will be.
async fn settled(link: &mut Link) -> Result<i64, Trouble> {
    let newest: i64 = link.client().query_one(NEWEST, &[]).await?.try_get(0)?;
    let mut before = writing(link).await?;
    let began = Clock::instant();
    while !before.is_empty() {
        if Clock::instant().duration_since(began) >= SETTLE_WITHIN {
            return Err(Fault::Unavailable("a writer of the audit log stands still".to_owned()).into());
        }
        tokio::time::sleep(SETTLE_PAUSE).await;
        let still = writing(link).await?;
        before.retain(|writer| still.contains(writer));
    }
    Ok(newest)
}

async fn writing(link: &mut Link) -> Result<Vec<String>, Trouble> {
    let found = link.client().query(WRITING, &[]).await?;
    Ok(found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

async fn read(link: &mut Link, filter: &Filter) -> Result<Vec<Row>, Trouble> {
    let sql = format!(
        "SELECT {ROW} FROM audit
               WHERE id > $1 AND id <= $2 AND at >= $3 AND at < $4
               AND ($5 = '' OR principal = $5) AND ($6 = '' OR action = $6) AND ($7 = '' OR reason = $7)
               AND ($8 = '' OR rpc = $8) AND ($9 = '' OR subject = $9) AND ($10 = '' OR scope = $10)
               AND ($11 = '' OR subject = $11 OR strpos(detail, '\"' || $11 || '\"') > 0)
               ORDER BY id LIMIT $12"
    );
    let params = [
        bind(filter.after),
        bind(filter.through.unwrap_or(i64::MAX)),
        bind(filter.since.map_or(i64::MIN, Timestamp::as_micros)),
        bind(filter.until.map_or(i64::MAX, Timestamp::as_micros)),
        bind(filter.principal.clone()),
        bind(filter.action.clone()),
        bind(filter.reason.clone()),
        bind(filter.rpc.clone()),
        bind(filter.subject.clone()),
        bind(filter.scope.clone()),
        bind(filter.mentions.clone()),
        bind(i64::from(filter.limit)),
    ];
    let found = link.rows(&sql, &params).await?;
    Ok(found.iter().map(|found| row(found, 0)).collect::<Result<_, _>>()?)
}

/// A place up to which all rows that there will be are there; 0 where there is none.
pub(in crate::store) fn newest(target: &Target) -> Result<i64, Fault> {
    offline(target, settled)
}

/// Reads every chain and compares each link with its rows.
///
/// # Errors
/// What the store says.
pub fn verify(target: &Target, key: &ChainKey) -> Result<Vec<Damage>, Fault> {
    Ok(report(target, key, &[])?.damages)
}

/// The same, with what else there is to say of it; `known` are heads that must still be there. Memory holds one
/// batch at a time. All of it is one snapshot: a writer may be at work.
pub(in crate::store) fn report(target: &Target, key: &ChainKey, known: &[Known]) -> Result<Report, Fault> {
    offline(target, async |link| walk(link, key, known).await)
}

/// Whole tables are read, for as long as it takes.
const OFFLINE: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
                       SET enable_seqscan = on; SET enable_mergejoin = on";

/// Works on a connection of its own, without a lock, for as long as it takes.
pub(super) fn offline<T: Send>(
    target: &Target,
    work: impl AsyncFnOnce(&mut Link) -> Result<T, Trouble> + Send,
) -> Result<T, Fault> {
    let lane = Lane::new().map_err(|error| Fault::Unavailable(error.to_string()))?;
    let worked = lane.apart(move |lane| {
        lane.wait(async {
            let mut link = Link::connect(target, Kind::Read).await?;
            link.run(OFFLINE).await?;
            work(&mut link).await
        })
    });
    worked.map_err(|trouble| match trouble {
        Trouble::Fault(fault) | Trouble::Unmet(fault) => fault,
        Trouble::Again(why) | Trouble::Lost(why) => Fault::Unavailable(why),
    })
}

/// A batch's columns come first, then those of one of its rows, which are null where it has none.
const CHAINS: &str = "SELECT b.writer, b.number, b.link, b.at, b.sealed, a.id, a.at, a.principal, a.role,
       a.credential_id, a.peer, a.request_id, a.rpc, a.action, a.outcome, a.reason, a.subject, a.scope, a.detail,
       a.count
FROM audit_batch b LEFT JOIN audit a ON a.writer = b.writer AND a.number = b.number
ORDER BY b.writer, b.number, a.id";
const STRAYS: &str = "SELECT COUNT(*) FROM audit a
WHERE NOT EXISTS (SELECT FROM audit_batch b WHERE b.writer = a.writer AND b.number = a.number)";

async fn walk(link: &mut Link, key: &ChainKey, known: &[Known]) -> Result<Report, Trouble> {
    link.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut walk = Walk::new(key, known, retention::checkpoints(link).await?);
    let mut batch: Option<ChainLink> = None;
    let nothing: [i64; 0] = [];
    let mut found = Box::pin(link.client().query_raw(CHAINS, nothing).await?);
    while let Some(found) = found.next().await.transpose()? {
        let next = head(&found, 0)?;
        if batch.as_ref().is_none_or(|batch| batch.head != next) {
            let at = Timestamp::from_micros(found.try_get(3)?);
            let begun = ChainLink { head: next, at, sealed: found.try_get(4)?, rows: Vec::new() };
            if let Some(whole) = batch.replace(begun) {
                walk.next(whole);
            }
        }
        if let (Some(batch), Some(_)) = (&mut batch, found.try_get::<_, Option<i64>>(5)?) {
            batch.rows.push(row(&found, 5)?);
        }
    }
    drop(found);
    if let Some(whole) = batch {
        walk.next(whole);
    }
    let strays: i64 = link.client().query_one(STRAYS, &[]).await?.try_get(0)?;
    Ok(walk.finish(strays as u64))
}

pub(super) fn head(row: &SqlRow, from: usize) -> Result<Head, Fault> {
    let link: &[u8] = row.try_get(from + 2)?;
    let link = link.try_into().map_err(|_| Fault::Broken("a link of another length".to_owned()))?;
    let number: i64 = row.try_get(from + 1)?;
    Ok(Head { writer: row.try_get(from)?, number: number as u64, link })
}

/// The columns of [`row`].
pub(super) const ROW: &str = "id, at, principal, role, credential_id, peer, request_id, rpc, action, outcome, reason, \
                               subject, scope, detail, count";

pub(super) fn row(row: &SqlRow, from: usize) -> Result<Row, Fault> {
    let text = |at: usize| row.try_get::<_, String>(from + at);
    Ok(Row {
        id: row.try_get(from)?,
        at: Timestamp::from_micros(row.try_get(from + 1)?),
        origin: Origin {
            principal: text(2)?,
            role: text(3)?,
            credential_id: text(4)?,
            peer: text(5)?,
            request_id: text(6)?,
            rpc: text(7)?,
        },
        action: text(8)?,
        outcome: text(9)?,
        reason: text(10)?,
        subject: text(11)?,
        scope: text(12)?,
        detail: text(13)?,
        count: row.try_get::<_, i64>(from + 14)? as u64,
    })
}
