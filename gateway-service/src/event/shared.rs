//! An event that many read.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::Event;

/// An event as all its readers share it, and with it what it is on the wire: the first of them encodes it.
#[derive(Clone)]
pub struct SharedEvent(Arc<Encoded>);

struct Encoded {
    event: Event,
    wire: OnceLock<Bytes>,
}

impl SharedEvent {
    /// What it is on the wire, encoded by now or before.
    pub(crate) fn wire(&self, encode: impl FnOnce() -> Bytes) -> &Bytes {
        self.0.wire.get_or_init(encode)
    }

    /// About how many bytes it takes in memory, once it is encoded.
    pub(crate) fn held(&self) -> usize {
        2 * self.weight()
    }
}

impl From<Event> for SharedEvent {
    fn from(event: Event) -> Self {
        Self(Arc::new(Encoded { event, wire: OnceLock::new() }))
    }
}

impl Deref for SharedEvent {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.0.event
    }
}

impl PartialEq for SharedEvent {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SharedEvent {}

impl fmt::Debug for SharedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
