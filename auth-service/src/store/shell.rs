//! [`Shell`]: runs verbs and queries for calls, and keeps refusals from filling the audit.

use std::sync::Arc;

use interlock_kit::{
    clock::Timestamp,
    denials::{Denials, Noted},
    error::Error,
    store::{
        Halt, Ran, Store,
        audit::{Entry, Outcome},
    },
};

use super::{Auth, Query, Rows, Stop, Verb, tx};
use crate::{caller::Call, root::Root};

/// Runs verbs for calls. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shell {
    store: Store<Auth>,
    denials: Option<Arc<Denials>>,
    root: Arc<Root>,
}

impl Shell {
    /// Over an opened store. Each refusal of a known principal has a row.
    #[must_use]
    pub fn new(store: Store<Auth>) -> Self {
        Self { store, denials: None, root: Arc::default() }
    }

    /// The same, with refusals of one principal beyond a rate counted here instead (DESIGN 14.18). Whoever
    /// gave `denials` records the counts.
    #[must_use]
    pub fn counting(store: Store<Auth>, denials: Arc<Denials>) -> Self {
        Self { store, denials: Some(denials), root: Arc::default() }
    }

    /// The same, where verbs know this root secret.
    #[must_use]
    pub fn with_root(self, root: Arc<Root>) -> Self {
        Self { root, ..self }
    }

    /// Runs a verb; answers when it is durable.
    ///
    /// # Errors
    /// The verb's refusal, or what the store says.
    pub async fn run<V: Verb>(&self, call: &Call, verb: V) -> Result<V::Out, Error> {
        let (call, mut rate, root) = (call.clone(), self.rate(), self.root.fingerprint());
        let run = move |rows: &mut (dyn Rows + '_), now: Timestamp| {
            rate.bound(tx::run(rows, &call, now, root, &verb), now)
        };
        let ran =
            if V::REVOKES { self.store.write_on_full_disk(run).await } else { self.store.write(run).await };
        ran.map_err(refusal)
    }

    /// Runs a query. A refusal is durable in the audit log before it is answered.
    ///
    /// # Errors
    /// The query's refusal, or what the store says.
    pub async fn ask<Q: Query>(&self, call: &Call, query: Q) -> Result<Q::Out, Error> {
        let (call, mut rate, root) = (call.clone(), self.rate(), self.root.fingerprint());
        let run = move |rows: &mut (dyn Rows + '_), now: Timestamp| {
            rate.bound(tx::ask(rows, &call, now, root, &query), now)
        };
        self.store.read(run).await.map_err(refusal)
    }

    /// Records the refusal of a known principal before any verb (gate 1).
    ///
    /// # Errors
    /// What the store says: then the call fails so.
    pub async fn record_refusal(&self, call: &Call, refusal: &Error) -> Result<(), Error> {
        let outcome = Outcome::Refused(refusal.reason());
        self.store.record(vec![Entry::new(call.origin.clone(), call.action.clone(), outcome)]).await
    }

    /// Finishes what is queued and ends the store's threads.
    pub async fn close(&self) {
        self.store.close().await;
    }

    fn rate(&self) -> Rate {
        Rate { denials: self.denials.clone(), noted: None }
    }
}

/// What becomes of the row of one call's refusal. A verb may run several times; it is noted once.
struct Rate {
    denials: Option<Arc<Denials>>,
    noted: Option<Noted>,
}

impl Rate {
    fn bound<T>(&mut self, mut ran: Ran<Auth, T>, now: Timestamp) -> Ran<Auth, T> {
        let (Some(denials), Err(Stop::Refused(error)), Some(entry)) =
            (&self.denials, &ran.result, ran.audit.first())
        else {
            return ran;
        };
        let note = || denials.note(&entry.origin.principal, error.reason(), now);
        if *self.noted.get_or_insert_with(note) == Noted::Counted {
            ran.audit.clear();
        }
        ran
    }
}

fn refusal(halt: Halt<Auth>) -> Error {
    match halt {
        Halt::Refused(error) => error,
        Halt::Unresolved(never) => match never {},
    }
}
