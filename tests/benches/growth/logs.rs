//! Catching up: one reader reads a whole log from its first event, in a store where that log has 10^3 events, and in
//! one where it has more.

use interlock_proto::gateway::v1::StreamEventsRequest;
use interlock_tests::{
    Setup,
    wire::{self, Metadata},
};
use prost::Message as _;
use serde::Serialize;
use tonic::{Status, transport::Channel};

use crate::{
    engine::Engine,
    fill,
    load::{Caller, Side, Slice},
    plan::{Plan, SMALL},
    programs,
    report::Report,
    stage::Stage,
};

const STREAM_EVENTS: &str = "/interlock.gateway.v1.SessionService/StreamEvents";
/// Fields of `StreamEventsResponse`: `event`, `caught_up`.
const EVENT: u8 = 0x12;
const CAUGHT_UP: u8 = 0x22;

/// Whose log it is: the first one of those who call.
const FIRST: &str = "o0";

/// Two readers, each as often as there are pairs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CaughtUp {
    /// Events that the one is behind.
    pub(crate) behind: u64,
    /// Whole logs read; one for each pair.
    pub(crate) far: Vec<Slice>,
    /// One for each pair, with [`SMALL`] events.
    pub(crate) near: Vec<Slice>,
}

/// Reads the log from its beginning, over and over.
struct Reader {
    channel: Channel,
    request: Vec<u8>,
    metadata: Metadata,
    events: u64,
}

impl Caller for Reader {
    async fn call(&mut self) -> Result<(), Status> {
        let (_, mut stream) =
            wire::open(&self.channel, STREAM_EVENTS, self.request.clone(), &self.metadata).await?;
        let mut read = 0;
        while let Some(message) = stream.message().await? {
            match message.first() {
                Some(&EVENT) => read += 1,
                Some(&CAUGHT_UP) if read >= self.events => return Ok(()),
                Some(&CAUGHT_UP) => break,
                _ => {}
            }
        }
        Err(Status::data_loss(format!("{read} events of {}", self.events)))
    }
}

/// All sizes, each beside a small store of its own.
pub(crate) async fn measure(plan: &Plan, report: &mut Report) {
    for behind in &plan.sizes {
        let (far, near) = (with_log(*behind).await, with_log(SMALL).await);
        let household = [&[std::process::id()][..], &far.pids(), &near.pids()].concat();
        let (mut long, mut short) = (reader(&far, *behind), reader(&near, SMALL));
        let mut caught_up = CaughtUp { behind: *behind, far: Vec::new(), near: Vec::new() };
        for pair in 1..=plan.pairs {
            let a = long.measure(plan.slice(), &household).await;
            let b = short.measure(plan.slice(), &household).await;
            eprintln!(
                "catching up {pair}/{}: {behind} events in {} ms, {SMALL} in {} ms",
                plan.pairs,
                a.p50_us / 1_000,
                b.p50_us / 1_000
            );
            caught_up.far.push(a);
            caught_up.near.push(b);
        }
        report.caught_up.push(caught_up);
        // The gateway's, with the most memory that it ever took for it.
        report.standing.extend(far.standing().into_iter().skip(1));
    }
}

/// A store where the log of the first owner's session has so many events.
async fn with_log(events: u64) -> Stage {
    let setup = Setup::default().gateway("retention.events", "10000000").gateway("retention.size", "4GiB");
    Stage::grown(SMALL, Engine::Sqlite, setup, move |_, gateway| fill::log(gateway, FIRST, events), 1).await
}

fn reader(stage: &Stage, events: u64) -> Side<Reader> {
    let owner = &stage.owners[0];
    let request = StreamEventsRequest { session_id: owner.session.clone(), after: 0, from_cursor: false }
        .encode_to_vec();
    let reader = Reader { channel: stage.pair.gateway_public(), request, metadata: owner.metadata(), events };
    Side { server: programs::pid(&stage.pair.world, "gateway"), callers: vec![reader] }
}
