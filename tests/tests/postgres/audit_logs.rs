//! The audit logs of the pair on PostgreSQL: what each service remembers of the other's, what retention leaves, and what
//! is accepted as lost.

use std::{collections::BTreeSet, process::Command};

use interlock_client::AuditFilter;
use interlock_tests::{Log, Pair, Setup, eventually, service::program};
use serde_json::json;

use super::cluster::Cluster;

const ROWS: usize = 150;

/// What the service's program says, and its exit code.
fn accept(log: Log, pair: &Pair) -> (Option<i32>, String) {
    let mut command = Command::new(program(&format!("interlock-{}", log.name())));
    command.args(["audit", "accept", "--yes", "--lost"]).arg(pair.world.path("lost.json"));
    let config = pair.world.path(&format!("{}.toml", log.name()));
    let output = command.arg("--config").arg(config).output().expect("runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

// Issue 6 line 8, DESIGN 11, 14.18
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_in_a_database_is_found_what_is_old_goes_and_what_is_lost_can_be_accepted() {
    let cluster = Cluster::start();
    let each = |setup: Setup, set: fn(Setup, &str, &str) -> Setup, store: &str| {
        let settings = [("audit.upkeep_every", "1s"), ("audit.rows_max", "100"), ("audit.age_min", "0s")];
        let setup = set(setup, "store", store);
        settings.into_iter().fold(setup, |setup, (key, value)| set(setup, key, value))
    };
    let setup = each(Setup::default(), Setup::auth, &cluster.database("auth"));
    let setup = each(setup, Setup::gateway, &cluster.database("gateway"));
    let mut pair = Pair::start_with(setup).await;
    for log in [Log::Gateway, Log::Auth] {
        trimmed(log, &pair).await;
        cut_and_accepted(log, &mut pair, &cluster).await;
    }
}

/// Retention: whole batches go, and what is left is whole.
async fn trimmed(log: Log, pair: &Pair) {
    log.grow(pair, ROWS).await;
    let (sdk, everything) = (log.sdk(pair), AuditFilter::default());
    eventually("a log that was trimmed", async || {
        let page = sdk.list(&everything, 0, 1_000).await.ok()?;
        page.gap.filter(|through| page.rows.iter().all(|row| row.id > *through))
    })
    .await;
    let report = log.verified(pair).await;
    assert!(report.damages.is_empty() && report.rows < ROWS as u64, "{log:?}: {report:#?}");
}

/// The end of its chain is cut off: the other service knows. Whoever knows why accepts it, on the host.
async fn cut_and_accepted(log: Log, pair: &mut Pair, cluster: &Cluster) {
    let (remembers, other) = (log.other().name(), log.other().known_as());
    let sdk = log.sdk(pair);
    let newest = eventually("a head that the other one remembers", async || {
        let newest = sdk.verify(&[]).await.ok()?.heads.into_iter().next()?;
        let sql = format!("SELECT number FROM remembered_head WHERE writer = '{}'", newest.writer);
        (cluster.sql(remembers, &sql) == newest.number.to_string()).then_some(newest)
    })
    .await;
    log.stop(pair).await;
    let (writer, number) = (&newest.writer, newest.number);
    for table in ["audit", "audit_batch"] {
        let sql = format!("DELETE FROM {table} WHERE writer = '{writer}' AND number >= {number}");
        cluster.sql(log.name(), &sql);
    }
    log.start(pair).await;
    let report = log.verified(pair).await;
    let cut = format!("of {writer} was there once, as {other} remembers");
    assert!(report.damages.iter().any(|damage| damage.contains(&cut)), "{log:?}: {:#?}", report.damages);
    assert_eq!(report.missing.len(), report.damages.len(), "nothing else is wrong: {report:#?}");

    let lost: BTreeSet<_> = report.missing.iter().map(|head| head.link.clone()).collect();
    let hex = |link: &[u8]| link.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let ends = report
        .missing
        .iter()
        .map(|head| json!({ "writer": head.writer, "number": head.number, "link": hex(&head.link) }));
    let file = pair.world.path("lost.json");
    std::fs::write(&file, json!({ (log.name()): ends.collect::<Vec<_>>() }).to_string()).expect("written");
    let (code, said) = accept(log, pair);
    assert!(code == Some(1) && !said.contains("accepted as lost"), "while a service has the store: {said}");
    log.stop(pair).await;
    let (code, said) = accept(log, pair);
    assert!(code == Some(0) && said.contains("accepted as lost: batch ") && said.contains(writer), "{said}");
    log.start(pair).await;
    let report = eventually("what is accepted", async || {
        let report = log.verified(pair).await;
        (!report.accepted.is_empty()).then_some(report)
    })
    .await;
    assert!(report.damages.is_empty() && report.missing.is_empty(), "{log:?}: {report:#?}");
    let accepted: BTreeSet<_> = report.accepted.iter().map(|head| head.link.clone()).collect();
    assert_eq!(accepted, lost, "each, and nothing else");
}
