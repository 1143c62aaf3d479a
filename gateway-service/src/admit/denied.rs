//! Refusals at gate 1, and those that no verb records: each its own row, or counted with others of its kind.

use std::sync::Arc;

use interlock_kit::{
    authn::Call,
    denials::Noted,
    error::Error,
    store::audit::{Entry, Outcome},
};

use super::{
    Admitted, Gate,
    identity::{counted_row, nobody},
};
use crate::caller::Principal;

impl Gate {
    /// Records a refusal: its own row, or counted with others of its kind.
    pub(super) async fn record(&self, call: &Call, caller: Option<&Admitted>, error: &Error) {
        let origin = caller.map_or_else(|| Arc::new(nobody(call)), |known| Arc::clone(&known.caller.origin));
        // A cookie has proved nothing yet: whoever makes them up is counted by source, not by what they made up.
        let proven = caller.is_some_and(|known| match known.caller.principal {
            Principal::Client | Principal::Anonymous => false,
            Principal::Admin
            | Principal::User
            | Principal::Owner(_)
            | Principal::Project(_)
            | Principal::Service(_)
            | Principal::Gateway => true,
        });
        let key = if proven { origin.principal.clone() } else { call.source().to_string() };
        if self.denials.note(&key, error.reason(), self.clock.now()) == Noted::Counted {
            return;
        }
        let entry = Entry::new(origin, call.policy.audit.as_str(), Outcome::Refused(error.reason()));
        // Whom a service wanted to act for stands beside it.
        let named = call.on_behalf_of.as_deref().filter(|_| caller.is_none()).unwrap_or_default();
        self.commit(vec![entry.on(named)]).await;
    }

    /// A cookie that was not good in its transaction: nobody is known by it, so the gate counts it.
    pub(crate) async fn record_unknown_cookie(&self, call: &Call, error: &Error) {
        self.record(call, None, error).await;
    }

    /// A refusal of a known caller that no verb records.
    pub(crate) async fn record_refusal(&self, call: &Call, caller: &Admitted, error: &Error) {
        self.record(call, Some(caller), error).await;
    }

    /// Writes the rows of what was counted; all of it at a shutdown.
    pub(crate) async fn flush(&self, all: bool) {
        let counted = if all { self.denials.rest() } else { self.denials.due(self.clock.now()) };
        if !counted.is_empty() {
            self.commit(counted.into_iter().map(counted_row).collect()).await;
        }
    }

    pub(super) async fn commit(&self, entries: Vec<Entry>) {
        if let Err(error) = self.shell.record(entries).await {
            // The refusal stands: what cannot be recorded is not admitted either.
            tracing::error!(reason = %error.reason(), "a refusal could not be recorded");
        }
    }
}
