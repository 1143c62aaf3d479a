//! `burst`: events that are made as fast as they are taken, to many cursors of one log on four connections,
//! beside a fan-out over a ring. Counted are deliveries: every event to every cursor, from before the first line
//! is said until the last cursor has read the last event.

use bytes::Bytes;

use super::{
    reader::{self, Reader},
    stage::{Stage, Venue},
    voices::Voices,
};
use crate::{
    bare::{Bare, Kind},
    measured::{Measured, Meter, OURS_AND_BARE},
    plan::Plan,
};

const CONNECTIONS: usize = 4;
const VOICES: usize = 16;
/// Deliveries of one burst where a side is measured for a second.
const DELIVERIES: f64 = 300_000.0;
/// ... and the fewest events that are a burst.
const EVENTS_MIN: u64 = 50;
const DATA: &[u8] = b"twenty bytes of data";

struct Side {
    server: u32,
    readers: Vec<Reader>,
    voices: Voices,
}

/// What one burst came to.
struct Burst {
    per_second: f64,
    /// The server's, microseconds.
    cpu_a_delivery: f64,
    others: f64,
}

pub(super) async fn measure(plan: &Plan, stage: &Stage, cursors: usize) -> Measured {
    let bare = Bare::start(Kind::FanOut, &stage.pair.world);
    let household = stage.household(Some(&bare));
    let mut ours = Side::open(&stage.ours(&format!("burst-{cursors}"), VOICES).await, cursors).await;
    let mut ring = Side::open(&stage.bare(&bare), cursors).await;
    let events = ((DELIVERIES * plan.seconds.min(1.0) / cursors as f64) as u64).max(EVENTS_MIN);
    let mut measured = Measured::new(format!("burst, {cursors} cursors"), OURS_AND_BARE);
    measured.note = format!("{events} events to each of {cursors} cursors on {CONNECTIONS} connections");
    // What is allocated at the first burst is not at the next.
    ours.burst(EVENTS_MIN, &household).await;
    ring.burst(EVENTS_MIN, &household).await;
    for pair in 1..=plan.pairs {
        let (a, b) = (ours.burst(events, &household).await, ring.burst(events, &household).await);
        eprintln!(
            "{} {pair}/{}: ours {:.0}/s, bare {:.0}/s; server CPU {:.2} and {:.2} us",
            measured.name, plan.pairs, a.per_second, b.per_second, a.cpu_a_delivery, b.cpu_a_delivery
        );
        measured.pair("deliveries a second", 0, a.per_second, b.per_second);
        measured.pair("server CPU each, us", 2, a.cpu_a_delivery, b.cpu_a_delivery);
        measured.beside("CPU of others, %", 1, a.others, b.others);
    }
    measured
}

impl Side {
    async fn open(venue: &Venue, cursors: usize) -> Self {
        let voices = Voices::open(venue, VOICES).await;
        let channels: Vec<_> = (0..CONNECTIONS).map(|_| venue.connect()).collect();
        let readers = Reader::open_all(&channels, venue, cursors).await;
        Self { server: venue.server, readers, voices }
    }

    async fn burst(&mut self, events: u64, household: &[u32]) -> Burst {
        let deliveries = (events * self.readers.len() as u64) as f64;
        let meter = Meter::start(self.server, household);
        let reading = reader::read_all(&mut self.readers, events);
        self.voices.burst(events, &Bytes::from_static(DATA)).await;
        self.readers = reader::joined(reading).await;
        let used = meter.read();
        Burst {
            per_second: deliveries / used.seconds,
            cpu_a_delivery: used.server_cpu * 1e6 / deliveries,
            others: used.others,
        }
    }
}
