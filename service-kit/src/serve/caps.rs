//! A count with two bounds: in all, and from one source.
//!
//! Every call is counted, on all cores at once: so a connection looks its source up once, and its calls only add.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use super::peer::Source;

/// Counts what is open, in all and by source. The map holds only sources that have a seat, so it is bounded by the
/// connections.
#[derive(Debug)]
pub(super) struct Caps {
    all: Count,
    per_source: usize,
    sources: Mutex<HashMap<Source, Weak<Here>>>,
}

/// A number that stays within its bound.
#[derive(Debug)]
pub(super) struct Count {
    open: AtomicUsize,
    max: usize,
}

/// What one source has open.
#[derive(Debug)]
struct Here {
    open: Count,
    caps: Arc<Caps>,
    source: Source,
}

/// Where a connection takes its permits.
#[derive(Debug)]
pub(super) struct Seat(Arc<Here>);

/// One of what is counted, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<Seat>);

impl Count {
    pub(super) const fn up_to(max: usize) -> Self {
        Self { open: AtomicUsize::new(0), max }
    }

    /// One more; `false` at the bound.
    pub(super) fn take(&self) -> bool {
        let more = |open| (open < self.max).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give_back(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Caps {
    pub(super) fn new(total: usize, per_source: usize) -> Arc<Self> {
        Arc::new(Self { all: Count::up_to(total), per_source, sources: Mutex::default() })
    }

    /// A seat of `source`. Takes nothing yet.
    pub(super) fn seat(self: &Arc<Self>, source: Source) -> Arc<Seat> {
        let mut sources = self.sources.lock();
        let known = sources.get(&source).and_then(Weak::upgrade);
        let here = known.unwrap_or_else(|| {
            let open = Count::up_to(self.per_source);
            let here = Arc::new(Here { open, caps: Arc::clone(self), source });
            sources.insert(source, Arc::downgrade(&here));
            here
        });
        Arc::new(Seat(here))
    }

    /// One more from `source`; `None` where a bound is reached.
    pub(super) fn admit(self: &Arc<Self>, source: Source) -> Option<Permit> {
        self.seat(source).admit()
    }
}

impl Seat {
    /// One more; `None` where a bound is reached.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Permit> {
        let Here { open, caps, .. } = &*self.0;
        if !open.take() {
            return None;
        }
        if !caps.all.take() {
            open.give_back();
            return None;
        }
        Some(Permit(Arc::clone(self)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Here { open, caps, .. } = &*self.0.0;
        caps.all.give_back();
        open.give_back();
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut sources = self.caps.sources.lock();
        // Another one may have come in the meantime.
        if sources.get(&self.source).is_some_and(|here| here.strong_count() == 0) {
            sources.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn source(last: u8) -> Source {
        Source::of(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
    }

    #[test]
    fn a_source_and_the_whole_are_bounded_apart() {
        let caps = Caps::new(3, 2);
        let first = caps.admit(source(1)).expect("room");
        let _second = caps.admit(source(1)).expect("room");
        assert!(caps.admit(source(1)).is_none(), "per source");
        let _third = caps.admit(source(2)).expect("others are unharmed");
        assert!(caps.admit(source(3)).is_none(), "in all");
        drop(first);
        assert!(caps.admit(source(3)).is_some());
    }

    #[test]
    fn connections_of_one_source_share_its_bound_and_who_is_refused_takes_nothing() {
        let caps = Caps::new(3, 2);
        let (one, another) = (caps.seat(source(1)), caps.seat(source(1)));
        let held = [one.admit().expect("room"), another.admit().expect("room")];
        assert!(one.admit().is_none() && another.admit().is_none());
        let other = caps.seat(source(2));
        let last = other.admit().expect("room in all");
        assert!(other.admit().is_none(), "in all");
        drop((one, another, held));
        let again = [caps.admit(source(1)).expect("given back"), caps.admit(source(1)).expect("given back")];
        assert!(other.admit().is_none(), "in all");
        drop((again, last));
        assert!(other.admit().is_some());
    }

    #[test]
    fn nothing_is_remembered_of_who_left() {
        let caps = Caps::new(3, 2);
        let seat = caps.seat(source(1));
        let permit = seat.admit().expect("room");
        drop(seat);
        assert_eq!(caps.sources.lock().len(), 1, "its permit counts");
        drop(permit);
        assert!(caps.sources.lock().is_empty());
    }
}
