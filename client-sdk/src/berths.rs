//! Where parked calls and streams go, so that they never take up all streams of the connection that ordinary
//! calls are made on.
//!
//! A server lets a connection have 64 or 128 streams, and what is beyond waits in the client until one ends:
//! behind parked calls an ordinary one would wait for ever. So the first few of those share the connection with
//! ordinary calls, and the others have connections of their own.

use std::sync::Arc;

use parking_lot::Mutex;
use tonic::transport::Channel;

/// Parked calls and streams on one connection: half of what the stricter of our servers allows.
const PARKED_MAX: usize = 32;
/// Connections of one line. Beyond it they are shared evenly.
const CHANNELS_MAX: usize = 16;

/// The connections of one line, by what is parked on them. The first is that of ordinary calls.
#[derive(Debug, Default)]
pub(crate) struct Berths(Mutex<Vec<Anchorage>>);

#[derive(Debug)]
struct Anchorage {
    channel: Channel,
    /// Held once by this table and once by each call that is parked here.
    taken: Arc<()>,
}

/// A parked call's place. Given back on drop.
#[derive(Debug)]
pub(crate) struct Berth(#[expect(dead_code, reason = "held for its count")] Arc<()>);

impl Anchorage {
    fn new(channel: Channel) -> Self {
        Self { channel, taken: Arc::default() }
    }

    fn parked(&self) -> usize {
        Arc::strong_count(&self.taken) - 1
    }
}

impl Berths {
    /// A place on the first connection that has one; `connect` makes another where none has.
    pub(crate) fn take(&self, first: &Channel, connect: impl FnOnce() -> Channel) -> (Channel, Berth) {
        let mut all = self.0.lock();
        if all.is_empty() {
            all.push(Anchorage::new(first.clone()));
        }
        // Connections that nothing is parked on any more are let go, from the end.
        while all.len() > 1 && all.last().is_some_and(|last| last.parked() == 0) {
            all.pop();
        }
        if all.len() < CHANNELS_MAX && all.iter().all(|one| one.parked() >= PARKED_MAX) {
            all.push(Anchorage::new(connect()));
        }
        let free = all.iter().find(|one| one.parked() < PARKED_MAX);
        let one = free.or_else(|| all.iter().min_by_key(|one| one.parked())).expect("there is a first");
        (one.channel.clone(), Berth(Arc::clone(&one.taken)))
    }
}

#[cfg(test)]
mod tests {
    use tonic::transport::Endpoint;

    use super::*;

    fn nowhere() -> Channel {
        Endpoint::from_static("http://127.0.0.1:1").connect_lazy()
    }

    #[tokio::test]
    async fn parked_calls_spread_over_connections_and_give_them_back() {
        let (berths, first) = (Berths::default(), nowhere());
        let take = || berths.take(&first, nowhere).1;
        let mut held: Vec<_> = (0..PARKED_MAX).map(|_| take()).collect();
        assert_eq!(berths.0.lock().len(), 1, "few share the first");
        held.push(take());
        assert_eq!(berths.0.lock().len(), 2);
        held.extend((0..PARKED_MAX * CHANNELS_MAX).map(|_| take()));
        let all: Vec<_> = berths.0.lock().iter().map(Anchorage::parked).collect();
        assert_eq!(all.len(), CHANNELS_MAX, "{all:?}");
        assert!(all.iter().max() <= all.iter().min().map(|least| least + 1).as_ref(), "evenly: {all:?}");
        drop(held);
        drop(take());
        assert_eq!(berths.0.lock().len(), 1, "the others are gone");
    }
}
