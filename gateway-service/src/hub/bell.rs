//! A wake-up for any number of topics, and what whoever is woken finds with it.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use interlock_kit::home::Home;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Hub, Note, Topic, ring::Ring};
use crate::event::SharedEvent;

/// Notes that a bell keeps; what does not fit, a heartbeat finds.
const NOTES_MAX: usize = 256;

/// A wake-up for its topics. Dropped: no longer rung.
pub struct Bell {
    hub: Hub,
    id: u64,
    clapper: Arc<Clapper>,
    topics: Vec<Topic>,
    ring: Option<Arc<Mutex<Ring>>>,
}

#[derive(Default)]
pub(super) struct Clapper {
    pub(super) home: Home,
    notify: Notify,
    notes: Mutex<Vec<Note>>,
    pub(super) gone: OnceLock<Arc<[SharedEvent]>>,
}

impl Bell {
    /// One of no topic yet.
    pub(super) fn new(hub: &Hub, id: u64) -> Self {
        let clapper = Arc::new(Clapper { home: Home::here(), ..Clapper::default() });
        Self { hub: hub.clone(), id, clapper, topics: Vec::new(), ring: None }
    }

    /// Rings for one more topic.
    pub fn add(&mut self, topic: Topic) {
        let mut lines = self.hub.0.lines.lock();
        let line = lines.entry(topic.clone()).or_default();
        line.bells.insert(self.id, Arc::clone(&self.clapper));
        if matches!(topic, Topic::Session(_)) {
            self.ring = Some(Arc::clone(line.ring.get_or_insert_default()));
        }
        drop(lines);
        self.topics.push(topic);
    }

    /// Events of the session of its topics that have been committed, from the one after this number on, without a
    /// hole and at most so many. None where that one is not kept: the store has it.
    #[must_use]
    pub(crate) fn kept_after(&self, sequence: u64, most: usize) -> Vec<SharedEvent> {
        self.ring.as_ref().map(|ring| ring.lock().after(sequence, most)).unwrap_or_default()
    }

    /// Rings no longer for a topic.
    pub fn remove(&mut self, topic: &Topic) {
        self.topics.retain(|mine| mine != topic);
        self.hub.forget(topic, self.id);
    }

    /// Waits for the next change. Cancel-safe.
    pub async fn rung(&self) {
        self.clapper.notify.notified().await;
    }

    /// What was noted since this was last asked.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        std::mem::take(&mut *self.clapper.notes.lock())
    }

    /// Whether a session of its topics is gone, or is heard to be so in a moment: the store may show it first.
    pub async fn goes_within(&self, moment: Duration) -> bool {
        let heard = async {
            while self.gone().is_none() {
                self.rung().await;
            }
        };
        tokio::time::timeout(moment, heard).await.is_ok()
    }

    /// Where a session of its topics has gone: the newest events before that, at most 64.
    #[must_use]
    pub fn gone(&self) -> Option<&[SharedEvent]> {
        self.clapper.gone.get().map(|last| &**last)
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        for topic in std::mem::take(&mut self.topics) {
            self.hub.forget(&topic, self.id);
        }
    }
}

impl Clapper {
    /// Leaves a note for whoever is woken.
    pub(super) fn leave(&self, note: &Note) {
        let mut notes = self.notes.lock();
        if notes.len() < NOTES_MAX && !notes.contains(note) {
            notes.push(note.clone());
        }
    }

    pub(super) fn strike(&self) {
        self.notify.notify_one();
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("topics", &self.topics).finish_non_exhaustive()
    }
}
