//! Growth: what the services' rates, start-up and memory come to in stores with 10^3, 10^5 and 10^6 rows of each
//! kind, what a client costs that is so many events behind, and what a sweep that has 10^5 rows to remove costs those who call meanwhile.
//!
//! ```text
//! cargo bench -p interlock-tests --bench growth             # 10^3 and 10^5, some minutes
//! cargo bench -p interlock-tests --bench growth -- --all    # 10^6 and PostgreSQL, too
//! cargo bench -p interlock-tests --bench growth -- postgres --all    # PostgreSQL alone
//! cargo bench -p interlock-tests --bench growth -- postgres --rows 1000000 --pairs 10 --seconds 2
//! ```
//!
//! A real first start makes each store; then it is filled through SQL ([`fill`]), and the real services are
//! started on it again; for PostgreSQL `store copy` moves it there before, and the servers are of this machine, with fsync. Each rate is measured beside the one at 10^3 rows, alternated with it in the same run
//! (large, small, large, small, ...), with the same load on rows that lie spread over the whole store; the figure
//! is the ratio. So it says what growth costs, whatever the machine does.
//!
//! `INTERLOCK_BENCH_POSTGRES=full_page_writes=off,shared_buffers=2GB` adds settings to its servers, to find what limits.
//!
//! Nothing here promises or asserts a time. A call that fails ends the run: a refusal is no figure. The table goes
//! to stdout, the whole to `bench/growth-<time>.json` in the target folder.

#[allow(dead_code, reason = "tests use more of it")]
#[path = "../../../service-kit/tests/store/cluster.rs"]
mod cluster;
#[path = "../yardsticks/cpu.rs"]
mod cpu;
#[path = "../yardsticks/database.rs"]
mod database;
mod engine;
mod fill;
#[path = "../yardsticks/load.rs"]
mod load;
mod logs;
#[path = "../yardsticks/machine.rs"]
mod machine;
#[path = "../yardsticks/owners.rs"]
mod owners;
mod plan;
#[path = "../yardsticks/programs.rs"]
mod programs;
mod report;
mod sizes;
mod stage;
mod sweeps;
mod works;

use std::process::ExitCode;

use crate::{engine::Engine, plan::Plan, report::Report};

fn main() -> ExitCode {
    if let Some(ended) = programs::hidden() {
        return ended;
    }
    let plan = match Plan::read(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    if let Some(ended) = programs::again_with_services() {
        return ended;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(run(&plan));
    print!("{report}");
    println!("{}", report.save().display());
    ExitCode::SUCCESS
}

async fn run(plan: &Plan) -> Report {
    let mut report = Report::new(plan);
    if plan.wants("sizes") {
        sizes::measure(plan, Engine::Sqlite, &mut report).await;
    }
    if plan.wants("postgres") {
        sizes::measure(plan, Engine::Postgres, &mut report).await;
    }
    if plan.wants("logs") {
        logs::measure(plan, &mut report).await;
    }
    if plan.wants("sweeps") {
        sweeps::measure(plan, &mut report).await;
    }
    report
}
