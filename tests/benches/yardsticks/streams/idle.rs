//! `idle`: what the server keeps resident for a client on whose stream nothing happens: one on an mTLS connection
//! of its own, and a further stream on a shared one. Each pair has fresh processes, since memory that was used
//! once is used again.

use super::{
    reader::Reader,
    stage::{Stage, Venue},
};
use crate::{
    bare::{Bare, Kind},
    measured::{Measured, OURS_AND_BARE},
    memory,
    plan::Plan,
};

/// Connections before the first that counts: what a server makes once is made by then.
const WARM_UP: usize = 32;
/// Connections that count, where there are as many clients.
const CONNECTIONS: usize = 400;
/// Streams that count, on one connection.
const STREAMS: usize = 1_000;

/// KiB of resident memory.
struct Weight {
    /// Of a connection with one stream.
    connection: f64,
    /// Of a stream more on one.
    stream: f64,
    /// Of the whole process at the end.
    whole: f64,
}

pub(super) async fn measure(plan: &Plan, stage: &mut Stage) -> Measured {
    let connections = CONNECTIONS.min(plan.clients);
    let mut measured = Measured::new("idle", OURS_AND_BARE);
    measured.note =
        format!("{connections} connections, then {STREAMS} streams on one; fresh processes each time");
    let session = stage.ours("idle", 0).await;
    for pair in 1..=plan.pairs {
        stage.restart_gateway().await;
        let a = weigh(&session.again(stage), connections).await;
        let bare = Bare::start(Kind::FanOut, &stage.pair.world);
        let b = weigh(&stage.bare(&bare), connections).await;
        eprintln!(
            "idle {pair}/{}: ours {:.1} and {:.1} KiB, bare {:.1} and {:.1} KiB",
            plan.pairs, a.connection, a.stream, b.connection, b.stream
        );
        measured.pair("KiB, own connection", 1, a.connection, b.connection);
        measured.pair("KiB, shared, a stream", 1, a.stream, b.stream);
        measured.beside("the process, MiB", 1, a.whole / 1024.0, b.whole / 1024.0);
    }
    measured
}

async fn weigh(venue: &Venue, connections: usize) -> Weight {
    let connect = |count: usize| -> Vec<_> { (0..count).map(|_| venue.connect()).collect() };
    let _warm = Reader::open_all(&connect(WARM_UP), venue, WARM_UP).await;
    let before = memory::settled_kib(venue.server).await;
    let _own = Reader::open_all(&connect(connections), venue, connections).await;
    let connected = memory::settled_kib(venue.server).await;
    let _shared = Reader::open_all(&connect(1), venue, STREAMS).await;
    let after = memory::settled_kib(venue.server).await;
    let each = |from: u64, to: u64, count: usize| to.saturating_sub(from) as f64 / count as f64;
    Weight {
        connection: each(before, connected, connections),
        stream: each(connected, after, STREAMS),
        whole: after as f64,
    }
}
