//! I16: no secret in logs, errors, audit, metrics, `Debug` output, stores, the process list or the environment of
//! children that do not need it.
//!
//! - [`stage`]: a pair whose secrets are all planted as canaries, with both logs at level trace;
//! - [`day`]: everything that is done with them, well and badly: sign-in to rotation, jobs, the command line;
//! - [`drive`]: every RPC as many callers, with credentials in every place where they do not belong;
//! - [`places`]: where canaries are looked for;
//! - [`terminal`]: a password typed at a terminal;
//! - [`shapes`]: the types that can hold a secret, and what their `Debug` and `Display` show.

mod day;
mod drive;
mod places;
mod shapes;
mod stage;
mod terminal;

use stage::Stage;

// SW-18, FN-02, UA-06, UA-39, NC-24
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_canary_is_found_anywhere() {
    let mut stage = Stage::make().await;
    day::pass(&mut stage).await;
    let calls = drive::every_rpc(&mut stage).await;
    assert!(stage.canaries.count() >= 20, "{} canaries", stage.canaries.count());
    let seen = places::while_running(&stage).await;
    stage.end().await;
    let left = places::at_rest(&stage);
    println!(
        "{} canaries planted; {calls} calls of {} methods; none found in {} bytes of answers, {} bytes of probes and \
         processes, {} bytes of logs at level trace, {} bytes of stores and other files",
        stage.canaries.count(),
        drive::methods(),
        stage.answers.len(),
        seen,
        left.logs,
        left.files,
    );
}
