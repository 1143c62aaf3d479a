//! Each work in a large store beside the same in a small one.

use std::time::Duration;

use serde::Serialize;

use crate::{
    engine::Engine,
    load::Slice,
    plan::{Plan, SMALL},
    report::Report,
    stage::Stage,
    works::Work,
};

/// Connections, statement caches and allocators are warm after it.
const WARM_UP: Duration = Duration::from_millis(700);

/// One work in two stores.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Grown {
    /// Which.
    pub(crate) work: Work,
    /// What the stores are in.
    pub(crate) engine: Engine,
    /// Rows of each kind in the large store.
    pub(crate) rows: u64,
    /// One for each pair.
    pub(crate) large: Vec<Slice>,
    /// One for each pair, with [`SMALL`] rows.
    pub(crate) small: Vec<Slice>,
}

/// All sizes, each beside a small store of its own: both are new to all calls.
pub(crate) async fn measure(plan: &Plan, engine: Engine, report: &mut Report) {
    for (nth, rows) in plan.sizes.iter().enumerate() {
        let small = Stage::of(SMALL, engine).await;
        let large = Stage::of(*rows, engine).await;
        for work in Work::ALL {
            report.grown.push(compare(plan, (work, engine), *rows, &large, &small).await);
        }
        if nth == 0 {
            report.standing.extend(small.standing());
        }
        report.standing.extend(large.standing());
    }
}

async fn compare(
    plan: &Plan,
    (work, engine): (Work, Engine),
    rows: u64,
    large: &Stage,
    small: &Stage,
) -> Grown {
    let household = [&[std::process::id()][..], &large.pids(), &small.pids()].concat();
    let (mut big, mut little) = (work.side(plan, large), work.side(plan, small));
    big.measure(WARM_UP, &household).await;
    little.measure(WARM_UP, &household).await;
    let mut grown = Grown { work, engine, rows, large: Vec::new(), small: Vec::new() };
    for pair in 1..=plan.pairs {
        let a = big.measure(plan.slice(), &household).await;
        let b = little.measure(plan.slice(), &household).await;
        eprintln!(
            "{}{} {pair}/{}: {rows} rows {:.0}/s, {SMALL} rows {:.0}/s",
            work.name(),
            engine.suffix(),
            plan.pairs,
            a.per_second,
            b.per_second
        );
        grown.large.push(a);
        grown.small.push(b);
    }
    grown
}
