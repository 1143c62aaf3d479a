//! The audit logs of the pair on PostgreSQL: what each service remembers of the other's, what retention leaves, and what
//! is accepted as lost.

use std::{collections::BTreeSet, process::Command};

use interlock_client::{AuditFilter, AuditReport};
use interlock_tests::{Pair, Setup, eventually, service::program};
use serde_json::json;

use super::cluster::Cluster;

const ROWS: usize = 150;

/// Once the other service has told what it remembers.
async fn verified(pair: &Pair) -> AuditReport {
    eventually("a verification that compares", async || {
        let log = pair.sdk_gateway(&pair.admin()).audit();
        let report = log.verify(&[]).await.ok()?;
        report.peers.iter().any(|peer| peer.name == "auth").then_some(report)
    })
    .await
}

/// What the gateway's program says, and its exit code.
fn accept(pair: &Pair) -> (Option<i32>, String) {
    let mut command = Command::new(program("interlock-gateway"));
    command.args(["audit", "accept", "--yes", "--lost"]).arg(pair.world.path("lost.json"));
    let output = command.arg("--config").arg(pair.world.path("gateway.toml")).output().expect("runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

// Issue 6 line 8, DESIGN 11, 14.18
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_in_a_database_is_found_what_is_old_goes_and_what_is_lost_can_be_accepted() {
    let cluster = Cluster::start();
    let setup = Setup::default()
        .auth("store", &cluster.database("auth"))
        .auth("audit.upkeep_every", "1s")
        .gateway("store", &cluster.database("gateway"))
        .gateway("audit.upkeep_every", "1s")
        .gateway("audit.rows_max", "100")
        .gateway("audit.age_min", "0s");
    let mut pair = Pair::start_with(setup).await;
    let sdk = pair.sdk_gateway(&pair.world.role_token("user"));
    for _ in 0..ROWS {
        sdk.sessions().create("").await.expect("a session");
    }
    // Retention: whole batches go, and what is left is whole.
    let log = pair.sdk_gateway(&pair.admin()).audit();
    let everything = AuditFilter::default();
    eventually("a log that was trimmed", async || {
        let page = log.list(&everything, 0, 1_000).await.ok()?;
        page.gap.filter(|through| page.rows.iter().all(|row| row.id > *through))
    })
    .await;
    let report = verified(&pair).await;
    assert!(report.damages.is_empty() && report.rows < ROWS as u64, "{report:#?}");

    // Auth has stored how far the gateway's chain has come; then its end is cut off.
    let newest = eventually("a head that auth remembers", async || {
        let newest = log.verify(&[]).await.ok()?.heads.into_iter().next()?;
        let sql = format!("SELECT number FROM remembered_head WHERE writer = '{}'", newest.writer);
        (cluster.sql("auth", &sql) == newest.number.to_string()).then_some(newest)
    })
    .await;
    assert!(pair.gateway.drain().await.success(), "it drains");
    let (writer, number) = (&newest.writer, newest.number);
    for table in ["audit", "audit_batch"] {
        cluster
            .sql("gateway", &format!("DELETE FROM {table} WHERE writer = '{writer}' AND number >= {number}"));
    }
    pair.start_gateway().await;
    pair.serving().await;
    let report = verified(&pair).await;
    let cut = format!("of {writer} was there once, as auth remembers");
    assert!(report.damages.iter().any(|damage| damage.contains(&cut)), "{:#?}", report.damages);
    assert_eq!(report.missing.len(), report.damages.len(), "nothing else is wrong: {report:#?}");

    // Whoever knows why accepts it, on the host, while no gateway runs.
    let lost: BTreeSet<_> = report.missing.iter().map(|head| head.link.clone()).collect();
    let hex = |link: &[u8]| link.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let ends = report
        .missing
        .iter()
        .map(|head| json!({ "writer": head.writer, "number": head.number, "link": hex(&head.link) }));
    let file = pair.world.path("lost.json");
    std::fs::write(&file, json!({ "gateway": ends.collect::<Vec<_>>() }).to_string()).expect("written");
    let (code, said) = accept(&pair);
    assert!(code == Some(1) && !said.contains("accepted as lost"), "while a gateway has the store: {said}");
    assert!(pair.gateway.drain().await.success(), "it drains");
    let (code, said) = accept(&pair);
    assert!(code == Some(0) && said.contains("accepted as lost: batch ") && said.contains(writer), "{said}");
    pair.start_gateway().await;
    pair.serving().await;
    let report = eventually("what is accepted", async || {
        let report = verified(&pair).await;
        (!report.accepted.is_empty()).then_some(report)
    })
    .await;
    assert!(report.damages.is_empty() && report.missing.is_empty(), "{report:#?}");
    let accepted: BTreeSet<_> = report.accepted.iter().map(|head| head.link.clone()).collect();
    assert_eq!(accepted, lost, "each, and nothing else");
}
