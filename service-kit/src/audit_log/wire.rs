//! Rows, heads and damages, to the wire and back.

use interlock_proto::audit::v1 as wire;

use crate::{
    audit_heads::{Peer, to_wire},
    store::audit::{Damage, Report, Row},
};

/// Places are never negative.
pub(super) fn place(id: i64) -> u64 {
    u64::try_from(id).unwrap_or(0)
}

pub(super) fn gap(through: i64) -> wire::Gap {
    wire::Gap { through: place(through) }
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

pub(super) fn report(report: Report, peers: Vec<Peer>) -> wire::VerifyResponse {
    wire::VerifyResponse {
        batches: report.batches,
        rows: report.rows,
        damages: report.damages.into_iter().map(damage).collect(),
        heads: report.heads.into_iter().map(to_wire).collect(),
        peers: peers.into_iter().map(peer).collect(),
        missing: report.missing.into_iter().map(to_wire).collect(),
        accepted: report.accepted.into_iter().map(to_wire).collect(),
    }
}

fn peer(peer: Peer) -> wire::Peer {
    let heads = u32::try_from(peer.heads).unwrap_or(u32::MAX);
    wire::Peer { name: peer.name, heads, told_at: Some(peer.told_at.to_wire()) }
}

fn damage(damage: Damage) -> wire::Damage {
    use wire::DamageKind as Kind;
    let of = |kind: Kind, writer, number| {
        let kind = kind.into();
        wire::Damage { kind, writer, number, ..wire::Damage::default() }
    };
    match damage {
        Damage::Edited { writer, number } => of(Kind::Edited, writer, number),
        Damage::Hole { writer, number } => of(Kind::Hole, writer, number),
        Damage::AfterSeal { writer, number } => of(Kind::AfterSeal, writer, number),
        Damage::Checkpoint { writer, number } => of(Kind::Checkpoint, writer, number),
        Damage::Strays { rows } => wire::Damage { rows, ..of(Kind::Strays, String::new(), 0) },
        Damage::Cut { writer, number, by, last } => {
            wire::Damage { known_by: by, last, ..of(Kind::Cut, writer, number) }
        }
    }
}
