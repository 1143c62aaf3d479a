//! Ends of chains that were lost with a backup that was put back, and accepted.
//!
//! A store that is restored has lost rows, and what others remember of them shows it for as long as they do. Somebody who
//! knows why says so on the host (`audit accept`): a row in the log itself, so under the key of its chain, names each lost
//! end. A verification tells those apart from then on. It names them by their links: nothing else that is missing is
//! covered, before or after, and what is damaged in itself cannot be accepted.

use serde::{Deserialize, Serialize};

use super::{Head, Outcome, Row};

/// The action of such a row.
pub const ACCEPT: &str = "audit.accept";
/// The action of a row that says what retention has removed; it takes up what was accepted in the rows that went.
pub(in crate::store) const TRIM: &str = "audit.trim";
/// Ends that one row accepts. More than [`super::PEER_HEADS_MAX`], which one service remembers of another.
pub const ACCEPTED_MAX: usize = 1_024;

/// In the detail of a row.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Detail {
    lost: Vec<Lost>,
}

/// One end, for files and rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Whose chain.
    pub writer: String,
    /// The batch.
    pub number: u64,
    /// Its link, in hexadecimal.
    pub link: String,
}

impl From<&Head> for Lost {
    fn from(head: &Head) -> Self {
        let link = head.link.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { writer: head.writer.clone(), number: head.number, link }
    }
}

impl Lost {
    /// The end that it names; `None` where the link is none.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        let mut link = [0; 32];
        if self.link.len() != 2 * link.len() || !self.link.is_ascii() {
            return None;
        }
        for (at, byte) in link.iter_mut().enumerate() {
            *byte = u8::from_str_radix(self.link.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Head { writer: self.writer.clone(), number: self.number, link })
    }
}

/// The detail of a row that accepts these.
#[must_use]
pub fn accepting(lost: &[Head]) -> String {
    let lost: Vec<_> = lost.iter().take(ACCEPTED_MAX).map(Lost::from).collect();
    serde_json::json!({ "lost": lost }).to_string()
}

/// What a row accepts; for one whose batch fits its link only.
pub(in crate::store) fn accepted_by(row: &Row) -> Vec<Head> {
    if ![ACCEPT, TRIM].contains(&row.action.as_str()) || row.outcome != Outcome::Done.text() {
        return Vec::new();
    }
    let detail: Detail = serde_json::from_str(&row.detail).unwrap_or_default();
    detail.lost.iter().filter_map(Lost::head).take(ACCEPTED_MAX).collect()
}
