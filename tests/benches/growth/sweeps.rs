//! Calls while a sweep has much to remove, beside the same calls while it has nothing.
//!
//! The gateway: first answers that are kept no longer, and logs beyond their retention. Auth, last, since it is at it
//! for longest: access tokens that ended long ago. Both sweep in rounds, so a side is measured in a row of slices
//! that is longer than a round, and the worst slice counts, too.

use std::{path::Path, time::Duration};

use interlock_tests::Setup;
use serde::Serialize;

use crate::{
    engine::Engine,
    fill,
    load::Slice,
    plan::{Plan, SMALL},
    report::Report,
    stage::Stage,
    works::Work,
};

const WARM_UP: Duration = Duration::from_millis(700);
/// Slices of a second in a row: auth's sweeps come every ten seconds.
const IN_A_ROW: usize = 12;
const SLICE: Duration = Duration::from_secs(1);
/// Events of one session that are kept, in both stores.
const EVENTS_KEPT: u64 = 1_000;
/// Logs that are too long.
const LOGS: u64 = 20;

const STALE: &str = "SELECT COUNT(*) FROM request WHERE id LIKE 'stale%'";
/// Those beyond what is kept, of logs that were filled far beyond it.
const LONG: &str = "SELECT COALESCE(SUM(last + 1 - first - 1000), 0) FROM log_head WHERE last > 3000";
const _: () = assert!(EVENTS_KEPT == 1_000, "as the statement says");
const ENDED: &str = "SELECT COUNT(*) FROM access_token WHERE id LIKE 'crd\\_e%' ESCAPE '\\'";

/// One work beside a sweep, and without.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Swept {
    /// Which.
    pub(crate) work: Work,
    /// What there was to remove, before and after the slices.
    pub(crate) due: Vec<Due>,
    /// In order.
    pub(crate) sweeping: Vec<Slice>,
    /// In order.
    pub(crate) idle: Vec<Slice>,
}

/// Rows that a sweep had to remove.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Due {
    /// Of which kind.
    pub(crate) what: &'static str,
    /// When the slices began.
    pub(crate) before: u64,
    /// When they ended.
    pub(crate) after: u64,
}

/// Both works.
pub(crate) async fn measure(plan: &Plan, report: &mut Report) {
    let setup = || Setup::default().gateway("retention.events", &EVENTS_KEPT.to_string());
    let idle = Stage::grown(SMALL, Engine::Sqlite, setup(), |_, _| (), 1).await;
    let due = plan.due;
    let much = move |auth: &std::path::PathBuf, gateway: &std::path::PathBuf| {
        fill::ended_tokens(auth, due);
        fill::stale_requests(gateway, due);
        // Ten times as many: they go as fast as that, and some are to be left when the slices begin.
        fill::long_logs(gateway, LOGS, 10 * due + LOGS * EVENTS_KEPT);
    };
    let sweeping = Stage::grown(SMALL, Engine::Sqlite, setup(), much, 1).await;
    let world = &sweeping.pair.world;
    let (auth, gateway) = (world.path("auth/auth.db"), world.path("gateway/gateway.db"));
    for (work, store, kinds) in [
        (Work::Submit, &gateway, &[("first answers", STALE), ("events", LONG)][..]),
        (Work::Validate, &auth, &[("access tokens", ENDED)][..]),
    ] {
        report.swept.push(compare(plan, work, (&sweeping, &idle), store, kinds).await);
    }
}

async fn compare(
    plan: &Plan,
    work: Work,
    (sweeping, idle): (&Stage, &Stage),
    store: &Path,
    kinds: &[(&'static str, &str)],
) -> Swept {
    let household = [&[std::process::id()][..], &sweeping.pids(), &idle.pids()].concat();
    let (mut with, mut without) = (work.side(plan, sweeping), work.side(plan, idle));
    without.measure(WARM_UP, &household).await;
    with.measure(WARM_UP, &household).await;
    let mut swept = Swept { work, due: Vec::new(), sweeping: Vec::new(), idle: Vec::new() };
    let before: Vec<u64> = kinds.iter().map(|(_, sql)| fill::count(store, sql)).collect();
    for slice in 1..=IN_A_ROW {
        swept.sweeping.push(with.measure(SLICE, &household).await);
        eprintln!("{} beside a sweep {slice}/{IN_A_ROW}", work.name());
    }
    for ((what, sql), before) in kinds.iter().zip(before) {
        swept.due.push(Due { what, before, after: fill::count(store, sql) });
    }
    for slice in 1..=IN_A_ROW {
        swept.idle.push(without.measure(SLICE, &household).await);
        eprintln!("{} without one {slice}/{IN_A_ROW}", work.name());
    }
    swept
}
