//! Yardsticks: what our services cost beside bare programs that do the same.
//!
//! ```text
//! cargo bench -p interlock-tests --bench yardsticks            # all of it, about two minutes
//! cargo bench -p interlock-tests --bench yardsticks -- submit --pairs 10 --seconds 5
//! ```
//!
//! | yardstick | ours | bare |
//! |---|---|---|
//! | `validate` | `TrustService.Validate` of known tokens on auth's internal listener, mTLS | [`bare::echo`]: the same messages, no look-up |
//! | `submit` | `JobService.SubmitJob` on the gateway's public listener, durable | [`bare::write`]: the same rows through one grouped writer |
//! | `verify` | `Verifier::verify` of a cached credential, in this process | SHA-256 and a `HashMap` |
//!
//! Absolute figures move with the machine; so every figure of ours is a ratio to its yardstick, alternated
//! with it in the same run (ours, bare, ours, bare, ...), medians over the pairs. Both sides are processes
//! of their own, built by the same build from the same dependencies, with the same TLS, runtime layout and
//! windows, and the load is the same code. CPU is the server process's own, from `/proc`; the share of the
//! machine that none of our processes took is shown, since figures of a shared machine mean little where
//! it is large. The table goes to stdout, the whole to `bench/yardsticks-<time>.json` in the target folder.
//!
//! Nothing here promises or asserts a time. A call that fails ends the run: a refusal is no figure.
//!
//! The services run from this build, unless `INTERLOCK_PROGRAMS` names another folder: [`programs`] says how.

mod bare;
mod cpu;
mod duel;
mod load;
mod machine;
mod plan;
mod programs;
mod report;
mod submit;
mod validate;
mod verify;

use std::process::ExitCode;

use interlock_tests::{Pair, Setup};

use crate::{plan::Plan, report::Report};

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
    let accounts = submit::Accounts::new();
    let setup = Setup::default()
        .auth("accounts_json_file", &accounts.file().to_string_lossy())
        .auth("owner_session.access_ttl", "1h")
        .gateway("jobs_in_flight_per_owner", "1000000");
    let pair = Pair::start_with(setup).await;
    let owners = submit::owners(&pair, &accounts).await;
    let mut report = Report::new(plan);
    if plan.wants("validate") {
        report.add(validate::duel(plan, &pair, &owners).await);
    }
    if plan.wants("submit") {
        report.add(submit::duel(plan, &pair, &owners).await);
    }
    if plan.wants("verify") {
        verify::compare(plan, &pair, &owners).await.into_iter().for_each(|each| report.compare(each));
    }
    report
}
