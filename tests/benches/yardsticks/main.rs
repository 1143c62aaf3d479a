//! Yardsticks: what our services cost beside bare programs that do the same.
//!
//! ```text
//! cargo bench -p interlock-tests --bench yardsticks            # all of it, about five minutes
//! cargo bench -p interlock-tests --bench yardsticks -- submit --pairs 10 --seconds 5
//! cargo bench -p interlock-tests --bench yardsticks -- --against target/bench/yardsticks-<time>.json
//! ```
//!
//! | yardstick | ours | bare |
//! |---|---|---|
//! | `validate` | `TrustService.Validate` of known tokens on auth's internal listener, mTLS | [`bare::echo`]: the same messages, no look-up |
//! | `refresh` | `OwnerSessionService.Refresh`, durable | [`bare::write`]: as much as a submit, through one grouped writer |
//! | `read` | `SessionService.GetSession` on the gateway's public listener | [`bare::session`]: a session of the usual size, no look-up |
//! | `attach` | `SessionService.AttachSession` that changes the binding, durable; 1, 64 and 256 callers | [`bare::session`]: the same rows through one grouped writer |
//! | `waiting` | an attach in line, answered when the last job ends | cancel and attach, called one after the other |
//! | `job` | submit, lease over a worker's stream, finish, each durable; full load, and half of it paced | [`bare::cycle`]: three grouped transactions with the same rows |
//! | `submit` | `JobService.SubmitJob` on the gateway's public listener, durable; 1, 64 and 256 callers | [`bare::write`]: the same rows through one grouped writer; at 64 a transaction for each, too |
//! | `verify` | `Verifier::verify` of a cached credential, in this process | SHA-256 and a `HashMap` |
//! | `peers` | `validate` and `submit` | etcd's authenticated read, Redis with each write synced: where Debian's are installed |
//! | `postgres`, where it is named, and with `--all` | `submit` and `attach` at 64 callers with the gateway's store on a PostgreSQL of this machine; `submit` through two gateways, also with each held to a share of a core; a job that goes to a worker of the other one | the same rows through one grouped writer to the same server, for `submit` a transaction for each, too; through one gateway; a worker of the same one |
//! | `burst` | `StreamEvents` to 1,000 cursors on 4 mTLS connections; with `--all` to 10,000, too | [`bare::fan_out`]: cursors over a ring in memory |
//! | `paced` | 20 events a second to 1,000 mTLS connections, or `--clients N` | the same |
//! | `stuck` | readers and callers beside a stream that nobody reads | the same without it |
//! | `idle` | resident memory of a client on whose stream nothing happens | the same memory of [`bare::fan_out`] |
//! | `storm` | sign-ins with argon2id of the default cost, and `Validate` beside them | the same hashing on each core; `Validate` without |
//! | `joins` | `JoinSession` by a password with argon2id of the default cost, and `Quit`; two hashes each, one to verify and one to seal the answer | the same hashing on each core |
//! | `barrier` | a revocation that reaches 3 and 100 verifiers (with `--all` 1 and 10, too), and one that waits for a frozen one | [`bare::push`]: pushed and acknowledged; the lease |
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

mod across;
mod against;
mod attach;
mod bare;
mod barrier;
#[allow(dead_code, reason = "tests use more of it")]
#[path = "../../../service-kit/tests/store/cluster.rs"]
mod cluster;
mod cpu;
mod database;
mod duel;
mod elsewhere;
mod held;
mod job;
mod joins;
mod load;
mod machine;
mod measured;
mod memory;
mod owners;
mod peers;
mod plan;
mod programs;
mod read;
mod refresh;
mod report;
mod sign_ins;
mod storm;
mod streams;
mod submit;
mod validate;
mod verify;
mod waiting;

use std::process::ExitCode;

use interlock_tests::{Pair, Setup};

use crate::{plan::Plan, report::Report};

fn main() -> ExitCode {
    if let Some(ended) = programs::hidden().or_else(bare::hidden) {
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
    let earlier = match plan.against.as_deref().map(against::read).transpose() {
        Ok(earlier) => earlier,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(run(&plan));
    print!("{report}");
    if let Some(earlier) = earlier {
        print!("{}", against::Against::of(&earlier, &report));
    }
    println!("{}", report.save().display());
    ExitCode::SUCCESS
}

/// The yardsticks that share one pair of services.
const SHARED: [&str; 9] =
    ["validate", "refresh", "read", "attach", "waiting", "job", "submit", "verify", "peers"];

async fn run(plan: &Plan) -> Report {
    let mut report = Report::new(plan);
    if SHARED.iter().any(|name| plan.wants(name)) {
        shared(plan, &mut report).await;
    }
    elsewhere::measure(plan, &mut report).await;
    streams::measure(plan, &mut report).await;
    storm::measure(plan, &mut report).await;
    joins::measure(plan, &mut report).await;
    barrier::measure(plan, &mut report).await;
    report
}

async fn shared(plan: &Plan, report: &mut Report) {
    let accounts = owners::Accounts::new();
    let setup = Setup::default()
        .auth("accounts_json_file", &accounts.file().to_string_lossy())
        .auth("owner_session.access_ttl", "1h")
        // Each refresh looks a credential up that no verifier knows.
        .auth("limits.unknown_credentials", "1000000")
        .gateway("jobs_in_flight_per_owner", "1000000");
    let pair = Pair::start_with(setup).await;
    let owners = owners::sign_in(&pair, &accounts).await;
    if plan.wants("validate") {
        report.add(validate::duel(plan, &pair, &owners).await);
    }
    if plan.wants("refresh") {
        report.add(refresh::duel(plan, &pair, &accounts, &owners).await);
    }
    if plan.wants("read") {
        report.add(read::duel(plan, &pair, &owners).await);
    }
    if plan.wants("attach") {
        attach::duels(plan, &pair, &owners).await.into_iter().for_each(|duel| report.add(duel));
    }
    if plan.wants("waiting") {
        report.take(waiting::compare(plan, &pair, &owners[0]).await);
    }
    if plan.wants("job") {
        job::duels(plan, &pair, &owners).await.into_iter().for_each(|duel| report.add(duel));
    }
    // Leaves its jobs queued: what comes after it counts more of them.
    if plan.wants("submit") {
        submit::duels(plan, &pair, &owners).await.into_iter().for_each(|duel| report.add(duel));
    }
    if plan.wants("verify") {
        verify::compare(plan, &pair, &owners).await.into_iter().for_each(|each| report.compare(each));
    }
    if plan.wants("peers") {
        peers::measure(plan, &pair, &owners, report).await;
    }
}
