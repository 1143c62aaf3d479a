//! Audit entries, and the hash chain that shows edits, holes and cut tails.
//!
//! Each writer (one process's use of a store) has a chain of its own: one link per batch that has
//! entries. A link is HMAC-SHA256 (RFC 2104) over the link before, the batch's place and time, and
//! each entry; the key is a file outside the store. The batch row, the link and the witness that the
//! batch was committed are one row. A writer that starts seals the chains of writers that ended.

use std::{borrow::Cow, fmt, sync::Arc};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::{clock::Timestamp, error::Reason};

mod accepted;
mod chain;
mod keeping;
mod retention;
mod trail;

pub use accepted::{ACCEPT, ACCEPTED_MAX, Lost, accepting};
pub use chain::{DAMAGES_MAX, Damage, Filter, HEADS_MAX, Known, Report};
pub(in crate::store) use chain::{Link, Walk};
pub use keeping::{Keeping, PEER_HEADS_MAX, PEERS_MAX, Remembered};
pub(in crate::store) use retention::{Chain, Checkpoint, Oldest, PARTS, Plan, plan};
pub use retention::{REMOVED_CHAINS_MAX, Retention, Trim};
pub(in crate::store) use trail::Span;
pub use trail::{Look, Trail};

/// Who asked for what, from where: the same for each entry of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The principal: an owner id, a service's SPIFFE id, a client id; empty where nobody is known.
    pub principal: String,
    /// The role it acted with.
    pub role: String,
    /// The public handle of its credential, never the credential.
    pub credential_id: String,
    /// The peer's address.
    pub peer: String,
    /// The id of the call.
    pub request_id: String,
    /// The method's path; empty for what no call asked for.
    pub rpc: String,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused.
    Refused(Reason),
}

impl Outcome {
    /// `done` or `refused`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused(_) => "refused",
        }
    }

    /// The reason of a refusal; empty otherwise.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Done => "",
            Self::Refused(reason) => reason.wire().text(),
        }
    }
}

/// One audit entry, as a verb plans it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who asked.
    pub origin: Arc<Origin>,
    /// What was asked: the action of the method's policy, or of a sweep.
    pub action: Cow<'static, str>,
    /// How it ended.
    pub outcome: Outcome,
    /// The resource's id; empty where there is none.
    pub subject: String,
    /// The project it belongs to; empty where there is none.
    pub scope: String,
    /// Further facts for people, as JSON or empty. Never a secret.
    pub detail: String,
    /// How many equal events this row stands for.
    pub count: u64,
}

impl Entry {
    /// An entry of one event without subject, scope or detail.
    #[must_use]
    pub fn new(origin: Arc<Origin>, action: impl Into<Cow<'static, str>>, outcome: Outcome) -> Self {
        Self {
            origin,
            action: action.into(),
            outcome,
            subject: String::new(),
            scope: String::new(),
            detail: String::new(),
            count: 1,
        }
    }

    /// About this resource.
    #[must_use]
    pub fn on(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// In this project.
    #[must_use]
    pub fn within(mut self, scope: impl Into<String>) -> Self {
        self.scope = scope.into();
        self
    }

    /// With these facts.
    #[must_use]
    pub fn detailed(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

/// One stored entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place in the store; later rows are larger.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// As [`Origin`].
    pub origin: Origin,
    /// As [`Entry::action`].
    pub action: String,
    /// As [`Outcome::text`].
    pub outcome: String,
    /// As [`Outcome::reason`].
    pub reason: String,
    /// As [`Entry::subject`].
    pub subject: String,
    /// As [`Entry::scope`].
    pub scope: String,
    /// As [`Entry::detail`].
    pub detail: String,
    /// As [`Entry::count`].
    pub count: u64,
}

impl Row {
    /// The row that `entry` becomes.
    #[must_use]
    pub fn of(id: i64, at: Timestamp, entry: &Entry) -> Self {
        Self {
            id,
            at,
            origin: (*entry.origin).clone(),
            action: entry.action.clone().into_owned(),
            outcome: entry.outcome.text().to_owned(),
            reason: entry.outcome.reason().to_owned(),
            subject: entry.subject.clone(),
            scope: entry.scope.clone(),
            detail: entry.detail.clone(),
            count: entry.count,
        }
    }

    fn feed(&self, mac: &mut Hmac<Sha256>) {
        let o = &self.origin;
        let texts = [
            &o.principal,
            &o.role,
            &o.credential_id,
            &o.peer,
            &o.request_id,
            &o.rpc,
            &self.action,
            &self.outcome,
            &self.reason,
            &self.subject,
            &self.scope,
            &self.detail,
        ];
        for text in texts {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text.as_bytes());
        }
        mac.update(&self.count.to_be_bytes());
    }
}

/// The key of the chain: from a file outside the store.
#[derive(Clone)]
pub struct ChainKey([u8; 32]);

impl ChainKey {
    /// From 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What shows that two programs have the same key, and nothing of the key.
    pub(in crate::store) fn mark(&self) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        // No link is over these bytes: a link's first ones are the link before.
        mac.update(b"the key of this store's chains");
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainKey")
    }
}

/// The end of one writer's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The writer.
    pub writer: String,
    /// How many batches it has linked.
    pub number: u64,
    /// The last link.
    pub link: [u8; 32],
}

impl Head {
    /// The start of a writer's chain.
    #[must_use]
    pub fn start(writer: String) -> Self {
        Self { writer, number: 0, link: [0; 32] }
    }

    /// The head after one more batch. `sealed` marks a chain's last link.
    #[must_use]
    pub fn linked(&self, key: &ChainKey, at: Timestamp, rows: &[Row], sealed: bool) -> Self {
        let number = self.number + 1;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).expect("HMAC takes keys of any length");
        mac.update(&self.link);
        mac.update(self.writer.as_bytes());
        mac.update(&number.to_be_bytes());
        mac.update(&at.as_micros().to_be_bytes());
        mac.update(&[u8::from(sealed)]);
        mac.update(&(rows.len() as u64).to_be_bytes());
        for row in rows {
            row.feed(&mut mac);
        }
        Self { writer: self.writer.clone(), number, link: mac.finalize().into_bytes().into() }
    }
}
