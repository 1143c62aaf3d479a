//! `stuck`: one reader stops while small events are made for it, on a connection that it shares with readers and
//! callers; beside the same connection without it. Afterwards it reads all that it was made.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use interlock_proto::gateway::v1::{GetSessionRequest, session_service_client::SessionServiceClient};
use tokio::{task::JoinSet, time::timeout};
use tonic::transport::Channel;

use super::{
    reader::{self, PATIENCE, Reader},
    stage::{Stage, Venue},
    voices::Voices,
};
use crate::{
    measured::{self, Measured, Meter},
    plan::Plan,
};

const SIDES: [&str; 2] = ["beside a stuck reader", "without one"];
/// Events that the stuck reader gets in all, where a side is measured for a second.
const EVENTS: f64 = 40_000.0;
const VOICES: usize = 16;
const READERS: usize = 8;
const CALLERS: usize = 4;

/// One connection, and who is on it.
struct Line {
    venue: Venue,
    channel: Channel,
    readers: Vec<Reader>,
    voices: Voices,
}

/// What one slice came to.
struct Slice {
    delivered_per_second: f64,
    calls_per_second: f64,
    /// Milliseconds.
    calls_p99: f64,
    /// The server's, microseconds.
    cpu_a_delivery: f64,
    others: f64,
}

pub(super) async fn measure(plan: &Plan, stage: &Stage) -> Measured {
    let household = stage.household(None);
    let mut hurt = Line::open(stage.ours("stuck", VOICES).await).await;
    let mut free = Line::open(stage.ours("free", VOICES).await).await;
    let mut stopped = Reader::open(&hurt.channel, &hurt.venue).await;
    let began = stopped.last;
    let events = (EVENTS * plan.seconds.min(1.0) / plan.pairs as f64).ceil() as u64;
    let mut measured = Measured::new("stuck reader", SIDES);
    for pair in 1..=plan.pairs {
        let (a, b) = (hurt.slice(events, &household).await, free.slice(events, &household).await);
        eprintln!(
            "stuck {pair}/{}: {:.0} and {:.0} deliveries/s, {:.0} and {:.0} calls/s",
            plan.pairs,
            a.delivered_per_second,
            b.delivered_per_second,
            a.calls_per_second,
            b.calls_per_second
        );
        measured.pair("deliveries a second", 0, a.delivered_per_second, b.delivered_per_second);
        measured.pair("server CPU each, us", 1, a.cpu_a_delivery, b.cpu_a_delivery);
        measured.pair("calls a second", 0, a.calls_per_second, b.calls_per_second);
        measured.pair("calls, p99, ms", 2, a.calls_p99, b.calls_p99);
        measured.beside("CPU of others, %", 1, a.others, b.others);
    }
    let newest = hurt.readers.iter().map(|reader| reader.last).max().unwrap_or_default();
    // Each event once, in order, or this panics.
    let missed = stopped.catch_up(newest, &hurt.channel, &hurt.venue);
    let resumed = timeout(PATIENCE, missed).await.expect("what it missed, in time");
    measured.note = format!(
        "{READERS} readers and {CALLERS} callers on one connection; stopped for {} events, then read them all{}",
        newest - began,
        if resumed { ", resumed after a minute" } else { "" }
    );
    measured
}

impl Line {
    async fn open(venue: Venue) -> Self {
        let voices = Voices::open(&venue, VOICES).await;
        let channel = venue.connect();
        let readers = Reader::open_all(std::slice::from_ref(&channel), &venue, READERS).await;
        Self { venue, channel, readers, voices }
    }

    async fn slice(&mut self, events: u64, household: &[u32]) -> Slice {
        let over = Arc::new(AtomicBool::new(false));
        let meter = Meter::start(self.venue.server, household);
        let reading = reader::read_all(&mut self.readers, events);
        let mut calling = JoinSet::new();
        for _ in 0..CALLERS {
            calling.spawn(call(self.channel.clone(), self.venue.clone(), Arc::clone(&over)));
        }
        self.voices.burst(events, &Bytes::from_static(b".")).await;
        self.readers = reader::joined(reading).await;
        let used = meter.read();
        over.store(true, Ordering::Relaxed);
        let mut calls = reader::joined(calling).await.concat();
        let deliveries = (events * READERS as u64) as f64;
        Slice {
            delivered_per_second: deliveries / used.seconds,
            calls_per_second: calls.len() as f64 / used.seconds,
            calls_p99: measured::quantile(&mut calls, 0.99) as f64 / 1e3,
            cpu_a_delivery: used.server_cpu * 1e6 / deliveries,
            others: used.others,
        }
    }
}

/// Calls until it is over; how long each call took, microseconds.
async fn call(channel: Channel, venue: Venue, over: Arc<AtomicBool>) -> Vec<u64> {
    let mut client = SessionServiceClient::new(channel);
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let request = GetSessionRequest { session_id: venue.session.clone() };
        client.get_session(venue.metadata.on(request)).await.expect("a call beside the streams");
        took.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    took
}
