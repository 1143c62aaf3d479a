//! What the audit is told of a call: rows on the way, and the one of its refusal.

use std::sync::Arc;

use interlock_kit::{
    error::Reason,
    store::audit::{Entry, Outcome},
};

use super::View;
use crate::{
    caller::Principal,
    ids::{JobId, SessionId},
    session,
    store::Stop,
};

/// What the call is about: for the audit row of its refusal.
#[derive(Clone, Debug, Default)]
pub(super) struct Concerns {
    pub(super) subject: String,
    pub(super) scope: String,
    pub(super) detail: String,
    /// The session of a job that is the subject.
    pub(super) session: Option<SessionId>,
}

impl View<'_> {
    /// Whether the caller named no project where it should have; and the audit rows, with that of the
    /// refusal if there is one.
    pub(in crate::store) fn into_parts(self, stop: Option<&Stop>) -> (bool, Vec<Entry>) {
        let mut audit = self.audit;
        if let Some(Stop::Refused(error)) = stop {
            // What a refused verb did is undone; a refusal that it recorded on the way is not.
            audit.retain(|entry| entry.outcome != Outcome::Done);
            let Concerns { subject, scope, detail, session } = self.concerns;
            let detail = match session {
                Some(session) if detail.is_empty() => session::facts(&session, ""),
                _ => detail,
            };
            // Refusals of nobody are counted by the gate, not written one by one.
            let nobody =
                self.caller.principal == Principal::Client && error.reason() == Reason::ProviderAuthFailed;
            if !nobody {
                let row = Entry::new(self.origin, self.action, Outcome::Refused(error.reason()));
                audit.push(row.on(subject).within(scope).detailed(detail));
            }
        }
        (self.unscoped, audit)
    }

    /// What the call is about, for its audit row.
    pub(in crate::store) fn concern(&mut self, subject: &str) {
        subject.clone_into(&mut self.concerns.subject);
        self.concerns.session = None;
    }

    /// [`View::concern`] for a job: whoever looks for its session finds this row, too.
    pub(in crate::store) fn concern_job(&mut self, id: &JobId, session: Option<&SessionId>) {
        self.concern(id.as_str());
        self.concerns.session = session.cloned();
    }

    /// Facts for the audit row of a refusal.
    pub(crate) fn explain(&mut self, detail: &serde_json::Value) {
        self.concerns.detail = detail.to_string();
    }

    pub(in crate::store) fn record(&mut self, entry: Entry) {
        self.audit.push(entry);
    }

    pub(in crate::store) fn entry(&self, outcome: Outcome) -> Entry {
        Entry::new(Arc::clone(&self.origin), self.action, outcome)
    }

    pub(in crate::store) fn has_rows(&self) -> bool {
        !self.audit.is_empty()
    }
}
