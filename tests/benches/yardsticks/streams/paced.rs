//! `paced`: twenty events a second to many clients, each on an mTLS connection of its own, beside a fan-out over a
//! ring. How late a delivery is counts from before its line is said, so ours has its commit in it.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use interlock_proto::gateway::v1::{
    StreamEventsResponse, event::Kind as Happened, stream_events_response::Message,
};
use prost::Message as _;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{
    reader::{self, Reader},
    stage::{Stage, Venue},
    voices::Voices,
};
use crate::{
    bare::{Bare, Kind},
    measured::{self, Measured, Meter, OURS_AND_BARE},
    plan::Plan,
};

const PACE: Duration = Duration::from_millis(50);
/// Lines before the first that counts.
const WARM_UP: u64 = 10;
/// What the times in lines count from.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

struct Side {
    server: u32,
    readers: Vec<Reader>,
    voices: Voices,
}

/// What one slice came to.
struct Slice {
    /// The server's, microseconds.
    cpu_a_delivery: f64,
    /// Milliseconds.
    p50: f64,
    p99: f64,
    others: f64,
}

pub(super) async fn measure(plan: &Plan, stage: &Stage) -> Measured {
    let bare = Bare::start(Kind::FanOut, &stage.pair.world);
    let household = stage.household(Some(&bare));
    let mut ours = Side::open(&stage.ours("paced", 1).await, plan.clients).await;
    let mut ring = Side::open(&stage.bare(&bare), plan.clients).await;
    let events = ((plan.seconds / PACE.as_secs_f64()) as u64).max(WARM_UP);
    let mut measured = Measured::new("paced", OURS_AND_BARE);
    measured.note =
        format!("{events} events, one each {} ms, to {} connections", PACE.as_millis(), plan.clients);
    ours.slice(WARM_UP, &household).await;
    ring.slice(WARM_UP, &household).await;
    for pair in 1..=plan.pairs {
        let (a, b) = (ours.slice(events, &household).await, ring.slice(events, &household).await);
        eprintln!(
            "paced {pair}/{}: server CPU ours {:.1}, bare {:.1} us; p99 {:.1} and {:.1} ms",
            plan.pairs, a.cpu_a_delivery, b.cpu_a_delivery, a.p99, b.p99
        );
        measured.pair("server CPU each, us", 1, a.cpu_a_delivery, b.cpu_a_delivery);
        measured.pair("delivered, p50, ms", 2, a.p50, b.p50);
        measured.pair("delivered, p99, ms", 2, a.p99, b.p99);
        measured.beside("CPU of others, %", 1, a.others, b.others);
    }
    measured
}

impl Side {
    async fn open(venue: &Venue, clients: usize) -> Self {
        let voices = Voices::open(venue, 1).await;
        let channels: Vec<_> = (0..clients).map(|_| venue.connect()).collect();
        let readers = Reader::open_all(&channels, venue, clients).await;
        Self { server: venue.server, readers, voices }
    }

    async fn slice(&mut self, events: u64, household: &[u32]) -> Slice {
        LazyLock::force(&BEGAN);
        let meter = Meter::start(self.server, household);
        let mut reading = JoinSet::new();
        for mut reader in self.readers.drain(..) {
            reading.spawn(async move {
                let mut late = Vec::new();
                for _ in 0..events {
                    let message = reader.event().await;
                    late.push(lateness_us(message));
                }
                (reader, late)
            });
        }
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..events {
            ticks.tick().await;
            let now = u64::try_from(BEGAN.elapsed().as_micros()).expect("a run is shorter");
            self.voices.one().say(Bytes::copy_from_slice(&now.to_le_bytes())).await;
        }
        let (readers, late): (Vec<_>, Vec<_>) = reader::joined(reading).await.into_iter().unzip();
        self.readers = readers;
        self.voices.one().quiet().await;
        let used = meter.read();
        let mut late = late.concat();
        Slice {
            cpu_a_delivery: used.server_cpu * 1e6 / late.len() as f64,
            p50: measured::quantile(&mut late, 0.5) as f64 / 1e3,
            p99: measured::quantile(&mut late, 0.99) as f64 / 1e3,
            others: used.others,
        }
    }
}

/// How long ago its line was said.
fn lateness_us(message: Bytes) -> u64 {
    let now = u64::try_from(BEGAN.elapsed().as_micros()).expect("a run is shorter");
    let told = StreamEventsResponse::decode(message).expect("a message of the stream").message;
    let Some(Message::Event(event)) = told else { panic!("no event: {told:?}") };
    let Some(Happened::JobProgress(line)) = event.kind else { panic!("no line of progress: {event:?}") };
    let said = line.data[..].try_into().expect("eight bytes");
    now.saturating_sub(u64::from_le_bytes(said))
}
