//! A count with two bounds: in all, and from one source.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::peer::Source;

/// Counts what is open, in all and by source. The map holds only sources that have something open,
/// so it is bounded by the total.
#[derive(Debug)]
pub(super) struct Caps {
    total: usize,
    per_source: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_source: HashMap<Source, usize>,
}

/// One of what is counted, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    caps: Arc<Caps>,
    source: Source,
}

impl Caps {
    pub(super) fn new(total: usize, per_source: usize) -> Arc<Self> {
        Arc::new(Self { total, per_source, open: Mutex::default() })
    }

    /// One more from `source`; `None` where a bound is reached.
    pub(super) fn admit(self: &Arc<Self>, source: Source) -> Option<Permit> {
        let mut open = self.open.lock();
        let here = open.by_source.get(&source).copied().unwrap_or(0);
        if open.total >= self.total || here >= self.per_source {
            return None;
        }
        open.total += 1;
        open.by_source.insert(source, here + 1);
        Some(Permit { caps: Arc::clone(self), source })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.caps.open.lock();
        open.total -= 1;
        if let Some(here) = open.by_source.get_mut(&self.source) {
            *here -= 1;
            if *here == 0 {
                open.by_source.remove(&self.source);
            }
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
    fn nothing_is_remembered_of_who_left() {
        let caps = Caps::new(3, 2);
        drop(caps.admit(source(1)));
        assert!(caps.open.lock().by_source.is_empty());
    }
}
