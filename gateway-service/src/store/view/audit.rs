//! What the audit is told of a call: rows on the way, and the one of its refusal.

use std::sync::Arc;

use interlock_kit::{
    error::Reason,
    store::audit::{Entry, Outcome},
};
use serde_json::{Map, Value};

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
    /// What else its row says.
    pub(super) facts: Map<String, Value>,
}

impl View<'_> {
    /// Whether the caller named no project where it should have; and the audit rows, with that of the
    /// refusal if there is one.
    pub(in crate::store) fn into_parts(self, stop: Option<&Stop>) -> (bool, Vec<Entry>) {
        let mut audit = self.audit;
        if let Some(Stop::Refused(error)) = stop {
            // What a refused verb did is undone; a refusal that it recorded on the way is not.
            audit.retain(|entry| entry.outcome != Outcome::Done);
            let Concerns { subject, scope, facts } = self.concerns;
            let detail = if facts.is_empty() { String::new() } else { Value::Object(facts).to_string() };
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
    }

    /// [`View::concern`] for a job: whoever looks for its session finds this row, too.
    pub(in crate::store) fn concern_job(&mut self, id: &JobId, session: Option<&SessionId>) {
        self.concern(id.as_str());
        if let Some(session) = session {
            self.explain([(session::FACT, session.as_str().into())]);
        }
    }

    /// Facts for the audit row of a refusal.
    pub(crate) fn explain<const N: usize>(&mut self, facts: [(&'static str, Value); N]) {
        self.concerns.facts.extend(facts.map(|(name, fact)| (name.to_owned(), fact)));
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
