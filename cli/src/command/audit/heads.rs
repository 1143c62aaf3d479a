//! `audit verify`, and what it remembers: the ends of both services' chains, in a file beside the context. A log
//! that was cut, or an older copy that was put back, no longer has them.

use std::{collections::BTreeMap, io, path::Path, process::ExitCode};

use interlock_client::{AuditHead, AuditPeer, AuditReport};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Service;
use crate::{args::Common, context::Caller, failure::Failure, keep::write_private, output::instant};

/// What the last verification saw, by service.
type Seen = BTreeMap<String, Vec<Head>>;

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Head {
    writer: String,
    number: u64,
    /// In hexadecimal.
    link: String,
}

/// Compares. The ends that are missing go to `lost`, where it is named and there are some.
pub(super) async fn verify(
    caller: &Caller,
    common: &Common,
    lost: Option<&Path>,
) -> Result<ExitCode, Failure> {
    let file = caller.beside("audit-heads.json");
    let seen = read(&file)?;
    let (mut now, mut lines, mut told, mut whole) = (Seen::new(), Vec::new(), Vec::new(), true);
    let mut missing = Seen::new();
    for service in Service::ALL {
        let name = service.text();
        let known: Option<Vec<_>> = seen.get(name).into_iter().flatten().map(known).collect();
        let known = known.ok_or_else(|| damaged(&file, "a link is not hexadecimal"))?;
        let report = service.log(caller).verify(&known).await?;
        whole &= report.damages.is_empty();
        lines.push(line(name, &report, known.len()));
        lines.extend(report.peers.iter().map(|peer| {
            let (name, heads, at) = (&peer.name, peer.heads, instant(peer.told_at));
            format!("  compared with {heads} chains that {name} remembers, as it told at {at}")
        }));
        if report.peers.is_empty() {
            lines.push("  no other service has told what it remembers of this log".to_owned());
        }
        lines.extend(report.damages.iter().map(|damage| format!("  {damage}")));
        if !report.accepted.is_empty() {
            let count = report.accepted.len();
            lines.push(format!(
                "  {count} ends of chains were lost with a backup that was put back: accepted"
            ));
        }
        if !report.missing.is_empty() {
            missing.insert(name.to_owned(), report.missing.iter().map(kept).collect());
        }
        told.push(json!({
            "service": name, "rows": report.rows, "batches": report.batches, "compared": known.len(),
            "damages": report.damages, "peers": peers(&report), "accepted": report.accepted.len(),
        }));
        now.insert(name.to_owned(), report.heads.iter().map(kept).collect());
    }
    if let Some(file) = lost.filter(|_| !missing.is_empty()) {
        write_private(file, &serde_json::to_vec_pretty(&missing).map_err(io::Error::other)?)?;
    }
    common.output.print(&lines.join("\n"), &json!({ "whole": whole, "services": Value::Array(told) }))?;
    if !whole {
        return Ok(ExitCode::FAILURE);
    }
    let text = serde_json::to_vec(&now).map_err(io::Error::other)?;
    write_private(&file, &text)?;
    Ok(ExitCode::SUCCESS)
}

fn peers(report: &AuditReport) -> Value {
    let shown = |peer: &AuditPeer| json!({ "name": peer.name, "chains": peer.heads, "told_at": instant(peer.told_at) });
    report.peers.iter().map(shown).collect()
}

fn line(name: &str, report: &AuditReport, compared: usize) -> String {
    let state = if report.damages.is_empty() { "whole" } else { "DAMAGED" };
    let before = match compared {
        0 => "nothing to compare with from before".to_owned(),
        compared => format!("{compared} chains compared with the last time"),
    };
    format!("{name}: {state}: {} rows in {} batches, {before}", report.rows, report.batches)
}

fn read(file: &Path) -> Result<Seen, Failure> {
    match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| damaged(file, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Seen::new()),
        Err(error) => Err(error.into()),
    }
}

fn damaged(file: &Path, why: impl std::fmt::Display) -> Failure {
    let next = "delete it, if you know why it is so: nothing is then compared with the last time";
    Failure::local(format!("{} is damaged: {why}", file.display())).next(next)
}

fn kept(head: &AuditHead) -> Head {
    let link = head.link.iter().map(|byte| format!("{byte:02x}")).collect();
    Head { writer: head.writer.clone(), number: head.number, link }
}

fn known(head: &Head) -> Option<AuditHead> {
    let digits = head.link.as_bytes().chunks(2).map(std::str::from_utf8);
    let link: Result<Vec<u8>, ()> =
        digits.map(|two| u8::from_str_radix(two.map_err(|_| ())?, 16).map_err(|_| ())).collect();
    Some(AuditHead { writer: head.writer.clone(), number: head.number, link: link.ok()? })
}
