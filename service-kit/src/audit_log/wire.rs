//! Rows, heads and damages, to the wire and back.

use interlock_proto::audit::v1 as wire;

use crate::{
    error::Error,
    store::audit::{Damage, HEADS_MAX, Head, Report, Row},
};

/// Bytes of a writer's name.
const WRITER_BYTES_MAX: usize = 128;

/// Places are never negative.
pub(super) fn place(id: i64) -> u64 {
    u64::try_from(id).unwrap_or(0)
}

pub(super) fn row(row: Row) -> wire::Row {
    let origin = row.origin;
    wire::Row {
        id: place(row.id),
        at: Some(row.at.to_wire()),
        principal: origin.principal,
        role: origin.role,
        credential_id: origin.credential_id,
        peer: origin.peer,
        request_id: origin.request_id,
        rpc: origin.rpc,
        action: row.action,
        outcome: row.outcome,
        reason: row.reason,
        subject: row.subject,
        project_id: row.scope,
        detail: row.detail,
        count: row.count,
    }
}

pub(super) fn heads(given: Vec<wire::Head>) -> Result<Vec<Head>, Error> {
    if given.len() > HEADS_MAX {
        return Err(Error::invalid_field("known", format!("0 to {HEADS_MAX} heads")));
    }
    let read = |(at, head): (usize, wire::Head)| {
        let refused =
            |field: &str, accepted: &str| Error::invalid_field(format!("known[{at}].{field}"), accepted);
        if !interlock_proto::text::is_label(&head.writer, WRITER_BYTES_MAX) {
            return Err(refused("writer", "from an earlier answer"));
        }
        let link = <[u8; 32]>::try_from(&head.link[..]).map_err(|_| refused("link", "32 bytes"))?;
        if head.number == 0 || i64::try_from(head.number).is_err() {
            return Err(refused("number", "from an earlier answer"));
        }
        Ok(Head { writer: head.writer, number: head.number, link })
    };
    given.into_iter().enumerate().map(read).collect()
}

pub(super) fn report(report: Report) -> wire::VerifyResponse {
    wire::VerifyResponse {
        batches: report.batches,
        rows: report.rows,
        damages: report.damages.into_iter().map(damage).collect(),
        heads: report.heads.into_iter().map(head).collect(),
    }
}

fn head(head: Head) -> wire::Head {
    wire::Head { writer: head.writer, number: head.number, link: head.link.to_vec().into() }
}

fn damage(damage: Damage) -> wire::Damage {
    use wire::DamageKind as Kind;
    let (kind, writer, number, rows) = match damage {
        Damage::Edited { writer, number } => (Kind::Edited, writer, number, 0),
        Damage::Hole { writer, number } => (Kind::Hole, writer, number, 0),
        Damage::AfterSeal { writer, number } => (Kind::AfterSeal, writer, number, 0),
        Damage::Strays { rows } => (Kind::Strays, String::new(), 0, rows),
        Damage::Cut { writer, number } => (Kind::Cut, writer, number, 0),
    };
    wire::Damage { kind: kind.into(), writer, number, rows }
}
