//! Whether a service can do its work: a set of named conditions, ready if all hold.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

/// What each condition says: it holds, or why not. The reasons are ours, and hold no secret.
pub type Conditions = BTreeMap<&'static str, Result<(), String>>;

/// The shared state of health. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health(Arc<watch::Sender<Conditions>>);

impl Health {
    /// None of these conditions holds yet.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        let starting = |name| (name, Err("starting".to_owned()));
        Self(Arc::new(watch::Sender::new(names.into_iter().map(starting).collect())))
    }

    /// Says how a condition stands; a new name is a new condition.
    pub fn set(&self, name: &'static str, state: Result<(), String>) {
        self.0.send_if_modified(|conditions| {
            let changed = conditions.get(name) != Some(&state);
            if let (true, Err(why)) = (changed, &state) {
                tracing::warn!(condition = name, why, "not ready");
            }
            conditions.insert(name, state);
            changed
        });
    }

    /// Whether all conditions hold.
    #[must_use]
    pub fn ready(&self) -> bool {
        all_hold(&self.0.borrow())
    }

    /// The conditions as they stand.
    #[must_use]
    pub fn conditions(&self) -> Conditions {
        self.0.borrow().clone()
    }

    /// Follows the conditions; wakes only when one changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Conditions> {
        self.0.subscribe()
    }
}

/// Whether all conditions hold.
#[must_use]
pub fn all_hold(conditions: &Conditions) -> bool {
    conditions.values().all(Result::is_ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_all_conditions_hold() {
        let health = Health::new(["store", "auth"]);
        let mut seen = health.subscribe();
        assert!(!health.ready());
        health.set("store", Ok(()));
        assert!(!health.ready());
        health.set("auth", Ok(()));
        assert!(health.ready() && seen.has_changed().expect("open"));
        seen.mark_unchanged();
        health.set("auth", Ok(()));
        assert!(!seen.has_changed().expect("open"));
        health.set("draining", Err("shutting down".to_owned()));
        assert!(!health.ready() && seen.has_changed().expect("open"));
    }
}
