//! Syncs that fail and syncs that are slow. What failed is never answered as done, whatever the same handle says
//! the next time; what is answered as not known is there once or not at all.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use interlock_tests::{
    Pair, Setup, audit, eventually,
    faults::{Fault, Faults},
    story::{read_log, tell},
    wire::Metadata,
};
use rand::RngExt as _;
use tokio::task::JoinSet;

use crate::{
    bare::{Bare, is_unavailable, login},
    load::{Accounts, Stage, tally},
    seeded,
};

const FAILURES: usize = 8;

// I6, I7, I11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_commit_of_the_gateways_rests_on_a_sync_that_failed() {
    let mut rng = seeded();
    let mut pair = Pair::stopped(Setup::default().gateway("jobs_in_flight_per_owner", "100000"));
    let faults = Faults::new(&pair.world.path("gateway"));
    faults.attach(&mut pair.gateway);
    pair.start_auth().await;
    pair.start_gateway().await;
    pair.serving().await;
    let (told, kept) = tally(|_| {});
    let stage = Arc::new(Stage::set(&pair, 4, told).await);
    for _ in 0..FAILURES {
        let before = faults.seen().syncs_failed;
        faults.set(Fault::SyncsFail(rng.random_range(0..6), Some(rng.random_range(1..4))));
        while faults.seen().syncs_failed == before {
            stage.run(&pair, 4).await;
        }
    }
    // For as long as none succeeds.
    faults.set(Fault::SyncsFail(0, None));
    let sdk = pair.sdk_gateway(&stage.alice.access_token);
    let bare = Bare::gateway(&pair, &stage.alice);
    is_unavailable(&bare.submit(&stage.sessions[0], "never", b"none").await.expect_err("unsynced"));
    eventually("NOT_SERVING", async || (Pair::readyz(&pair.gateway).await.0 == 503).then_some(())).await;
    sdk.jobs().list(&stage.sessions[0], true).await.expect("reads go on");
    faults.set(Fault::SyncsPass);
    eventually("SERVING", async || (Pair::readyz(&pair.gateway).await.0 == 200).then_some(())).await;
    stage.run(&pair, 4).await;
    let jobs: Vec<_> =
        kept.lock().expect("no load panics").iter().filter(|m| m[0] == "job").cloned().collect();
    let (channel, metadata) = (pair.gateway_public(), Metadata::bearer(&stage.alice.access_token));
    for session in &stage.sessions {
        let of_it: Vec<_> = jobs.iter().filter(|mark| mark[1] == *session).collect();
        let story = tell(session, &read_log(&channel, &metadata, session).await);
        let listed = sdk.jobs().list(session, false).await.expect("its jobs");
        let unknown = usize::from(*session == stage.sessions[0] && listed.len() > of_it.len());
        assert_eq!((listed.len(), story.jobs.len()), (of_it.len() + unknown, of_it.len() + unknown), "I7");
        for mark in of_it {
            let again = sdk.jobs().submit_as(session, &mark[2], mark[2].clone()).await.expect("a retry");
            assert_eq!(again.job_id, mark[3], "I6, I7: {mark:?}");
        }
    }
    assert!(pair.gateway.drain().await.success(), "it drains");
    let store = pair.world.path("gateway/gateway.db");
    let (damage, rows) = audit::damage(&store, &pair.world.path("gateway/gateway.chain-key"));
    assert!(damage.is_empty(), "I11: {damage:?}");
    println!(
        "gateway: {} syncs failed; {} jobs acknowledged, lost 0, twice 0; {} calls asked again; {rows} audit rows in whole chains",
        faults.seen().syncs_failed,
        jobs.len(),
        stage.again.load(Ordering::Relaxed)
    );
}

// I6, I7, I11, SW-15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_commit_of_auths_rests_on_a_sync_that_failed() {
    let mut rng = seeded();
    let mut pair = Pair::stopped(Setup::default().auth("lease", "1s"));
    let faults = Faults::new(&pair.world.path("auth"));
    faults.attach(&mut pair.auth);
    pair.start_auth().await;
    let (told, kept) = tally(|_| {});
    let accounts = Accounts::new(told);
    for _ in 0..FAILURES / 2 {
        let before = faults.seen().syncs_failed;
        faults.set(Fault::SyncsFail(rng.random_range(0..6), Some(rng.random_range(1..4))));
        while faults.seen().syncs_failed == before {
            accounts.run(&pair, 1).await;
        }
    }
    faults.set(Fault::SyncsFail(0, None));
    is_unavailable(&login(&pair, "w3").await.expect_err("unsynced"));
    eventually("NOT_SERVING", async || (Pair::readyz(&pair.auth).await.0 == 503).then_some(())).await;
    // The copy of the role tokens cannot be kept either: the old token stays good.
    let (admin, user) = (pair.admin(), pair.user());
    let refused = Bare::auth(&pair, &admin).rotate("user", "unsynced").await.expect_err("unsynced");
    assert_eq!(refused.short(), "STORAGE_ERROR");
    pair.sdk_auth_as(&user).whoami().await.expect("the old one is good");
    faults.set(Fault::SyncsPass);
    eventually("SERVING", async || (Pair::readyz(&pair.auth).await.0 == 200).then_some(())).await;
    accounts.run(&pair, 1).await;
    let status = pair.sdk_auth_as(&pair.admin()).role_tokens(true).await.expect("admin's is good");
    assert!(status.recoverable, "store and copy agree");
    assert!(pair.auth.drain().await.success(), "it drains");
    let store = pair.world.path("auth/auth.db");
    let connection = rusqlite::Connection::open(&store).expect("the store");
    let kept = kept.lock().expect("no load panics").clone();
    for mark in kept.iter().filter(|mark| mark[0] == "login" || mark[0] == "project") {
        // A sign-in by its row in the audit: what was signed out may have been cleared away.
        let sql = match mark[0].as_str() {
            "login" => "SELECT 1 FROM audit WHERE subject = ?1 AND outcome = 'done'",
            _ => "SELECT 1 FROM project WHERE id = ?1",
        };
        let mut there = connection.prepare_cached(sql).expect("a statement");
        assert!(there.exists([&mark[1]]).expect("an answer"), "I6: lost: {mark:?}");
    }
    let (damage, rows) = audit::damage(&store, &pair.world.path("auth/audit.key"));
    assert!(damage.is_empty(), "I11: {damage:?}");
    println!(
        "auth: {} syncs failed; {} acknowledged, lost 0; {} calls asked again; {rows} audit rows in whole chains",
        faults.seen().syncs_failed,
        kept.len(),
        accounts.again.load(Ordering::Relaxed)
    );
}

const CALLERS: usize = 32;
const EACH: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_sync_is_shared_by_those_who_wait_for_it() {
    let mut pair = Pair::stopped(Setup::default().gateway("jobs_in_flight_per_owner", "100000"));
    let faults = Faults::new(&pair.world.path("gateway"));
    faults.attach(&mut pair.gateway);
    pair.start_auth().await;
    pair.start_gateway().await;
    pair.serving().await;
    let stage = Stage::set(&pair, 1, tally(|_| {}).0).await;
    let (sdk, session) = (pair.sdk_gateway(&stage.alice.access_token), stage.sessions[0].clone());
    faults.set(Fault::SyncsTake(Duration::from_millis(50)));
    let (before, began) = (faults.seen().syncs, Instant::now());
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (jobs, session) = (sdk.jobs(), session.clone());
        callers.spawn(async move {
            for n in 0..EACH {
                let request = format!("slow-{caller}-{n}");
                jobs.submit_as(&session, &request, "slow").await.expect("slow is no failure");
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("no caller panics");
    }
    let (syncs, took) = (faults.seen().syncs - before, began.elapsed());
    assert_eq!(Pair::readyz(&pair.gateway).await.0, 200, "slow is no failure");
    let jobs = (CALLERS * EACH) as u64;
    assert!(syncs * 2 < jobs, "{syncs} syncs of 50 ms for {jobs} jobs: they are not shared");
    println!(
        "syncs of 50 ms: {jobs} jobs of {CALLERS} callers in {:.2} s, {:.0} a second, {:.1} on each sync",
        took.as_secs_f64(),
        jobs as f64 / took.as_secs_f64(),
        jobs as f64 / syncs as f64
    );
}
