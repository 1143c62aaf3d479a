//! How an event is stored: its facts as JSON of a numbered shape, a worker's bytes beside them.

use interlock_kit::store::Fault;

use crate::event::EventKind;

/// The shape of the facts that this version writes.
pub(super) const FORMAT: i64 = 1;

/// Facts and data.
pub(super) fn write(kind: &EventKind) -> Result<(String, &[u8]), Fault> {
    let facts = serde_json::to_string(kind).map_err(|error| Fault::Broken(error.to_string()))?;
    Ok((facts, kind.data()))
}

/// How much a stored event weighs, bytes.
pub(super) fn weight(facts: &str, data: &[u8]) -> u64 {
    (facts.len() + data.len()) as u64
}

/// Reads an event's facts back.
pub(super) fn read(format: i64, facts: &str, stored: Vec<u8>) -> Result<EventKind, Fault> {
    if format != FORMAT {
        return Err(Fault::Broken(format!("an event of the unknown format {format}")));
    }
    let mut kind = serde_json::from_str(facts).map_err(|error| Fault::Broken(error.to_string()))?;
    if let EventKind::JobProgress { data, .. } | EventKind::Message { data, .. } = &mut kind {
        *data = stored.into();
    }
    Ok(kind)
}
