//! A full disk: what is new is refused in time and changes nothing, what is known goes on, rights can be taken
//! away all the same, and everything is served again once there is space. Nothing is started anew for it.

use std::time::{Duration, Instant};

use interlock_client::{Code, OwnerSession, Reason};
use interlock_tests::{
    Pair, Setup, audit, eventually,
    faults::{Fault, Faults},
    story::{read_log, tell},
    wire::Metadata,
};
use rand::RngExt as _;

use crate::{
    bare::{Bare, is_unavailable, login},
    load::{Accounts, Stage, answered, tally},
    seeded,
};

const ROUNDS: usize = 3;
/// Calls until the disk must have been full.
const CALLS_MAX: usize = 90;
const PAYLOAD: [u8; 2_000] = [7; 2_000];
/// Sign-outs on a full disk: each alone, as large as it gets.
const SIGN_OUTS: usize = 12;

// I6, I7, I11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_lives_through_a_full_disk() {
    let mut rng = seeded();
    let setup = Setup::default().gateway("jobs_in_flight_per_owner", "100000");
    let mut pair = Pair::stopped(setup);
    let faults = Faults::new(&pair.world.path("gateway"));
    faults.attach(&mut pair.gateway);
    pair.start_auth().await;
    pair.start_gateway().await;
    pair.serving().await;
    let (told, kept) = tally(|_| {});
    let stage = Stage::set(&pair, 3, told).await;
    stage.run(&pair, 4).await;
    let pid = pair.gateway.pid();
    let sdk = pair.sdk_gateway(&stage.alice.access_token);
    let bare = Bare::gateway(&pair, &stage.alice);
    let session = &stage.sessions[0];
    let (mut refused, mut back, mut made, mut longest) = (Vec::new(), Vec::new(), Vec::new(), Duration::ZERO);
    for round in 0..ROUNDS {
        // In the middle of whatever comes then: the log, its index, the file.
        faults.set(Fault::SpaceLeft(if round == 0 { 0 } else { rng.random_range(0..100_000) }));
        for n in 0.. {
            assert!(n < CALLS_MAX, "the disk never fills");
            let (request, began) = (format!("full-{round}-{n}"), Instant::now());
            match bare.submit(session, &request, &PAYLOAD).await {
                Ok(job) => made.push((request, job)),
                Err(told) => {
                    is_unavailable(&told);
                    longest = longest.max(began.elapsed());
                    refused.push(request);
                    break;
                }
            }
        }
        eventually("NOT_SERVING", async || (Pair::readyz(&pair.gateway).await.0 == 503).then_some(())).await;
        // Reads go on, and so does what is known of credentials.
        sdk.sessions().get(session).await.expect("a read");
        assert!(sdk.jobs().list(session, true).await.expect("a read").len() >= 4);
        let (channel, metadata) = (pair.gateway_public(), Metadata::bearer(&stage.alice.access_token));
        let _ = tell(session, &read_log(&channel, &metadata, session).await);
        let moved = bare.attach(&stage.mover, ["east", "west"][round % 2], &stage.project).await;
        is_unavailable(&moved.expect_err("full"));
        let began = Instant::now();
        faults.set(Fault::SpaceBack);
        eventually("SERVING", async || (Pair::readyz(&pair.gateway).await.0 == 200).then_some(())).await;
        back.push(began.elapsed());
        stage.run(&pair, 2).await;
    }
    assert_eq!(pair.gateway.pid(), pid, "it was never started anew");
    // What was refused has not happened: now it does, once.
    let jobs = sdk.jobs();
    for request in &refused {
        let job = answered(&stage.again, || jobs.submit_as(session, request, PAYLOAD.to_vec())).await;
        made.push((request.clone(), job.job_id));
    }
    for (request, job) in &made {
        let again =
            sdk.jobs().submit_as(session, request, PAYLOAD.to_vec()).await.expect("a retry is answered");
        assert_eq!(again.job_id, *job, "I7: {request}");
    }
    let there = sdk.jobs().list(session, false).await.expect("its jobs");
    let told: Vec<_> = kept.lock().expect("no load panics").clone();
    let on_it = told.iter().filter(|mark| mark[0] == "job" && mark[1] == *session).count();
    assert_eq!(there.len(), on_it + made.len(), "one job for each request id");
    assert!(faults.seen().writes_refused > 0, "the disk was full");
    assert!(pair.gateway.drain().await.success(), "it drains");
    let store = pair.world.path("gateway/gateway.db");
    let (damage, rows) = audit::damage(&store, &pair.world.path("gateway/gateway.chain-key"));
    assert!(damage.is_empty(), "I11: {damage:?}");
    println!(
        "gateway: full {ROUNDS} times, {} writes found no space; {} acknowledged, lost 0; refused within {longest:?}; serving {:?} after space was back; \
         {rows} audit rows in whole chains",
        faults.seen().writes_refused,
        told.len() + made.len(),
        back
    );
}

// I6, I8, I11: DESIGN 14.18
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_takes_rights_away_on_a_full_disk_and_gives_none() {
    let mut rng = seeded();
    let mut pair = Pair::stopped(Setup::default().auth("lease", "1s"));
    let faults = Faults::new(&pair.world.path("auth"));
    faults.attach(&mut pair.auth);
    pair.start_auth().await;
    pair.start_gateway().await;
    pair.serving().await;
    let (told, kept) = tally(|_| {});
    let accounts = Accounts::new(told);
    let alice = pair.login("alice").await;
    let as_alice = pair.sdk_auth_as(&alice.access_token);
    let pid = pair.auth.pid();
    let bare = Bare::auth(&pair, &alice.access_token);
    let (mut signed_out, mut projects, mut back, mut longest) = (0, 0, Vec::new(), Duration::ZERO);
    for round in 0..ROUNDS {
        accounts.run(&pair, 1).await;
        let mut leaving: Vec<OwnerSession> = Vec::new();
        for n in 0..SIGN_OUTS {
            leaving.push(pair.login(["w3", "w4", "w5"][n % 3]).await);
        }
        // The gateway knows them all.
        for session in leaving.iter().chain([&alice]) {
            pair.sdk_gateway(&session.access_token).sessions().list().await.expect("admitted");
        }
        faults.set(Fault::SpaceLeft(if round == 0 { 0 } else { rng.random_range(0..100_000) }));
        for n in 0.. {
            assert!(n < CALLS_MAX, "the disk never fills");
            let began = Instant::now();
            if let Err(told) = bare.project(&format!("full-{round}-{n}")).await {
                is_unavailable(&told);
                longest = longest.max(began.elapsed());
                break;
            }
            projects += 1;
        }
        eventually("NOT_SERVING", async || (Pair::readyz(&pair.auth).await.0 == 503).then_some(())).await;
        is_unavailable(&login(&pair, "bob").await.expect_err("no row, no answer"));
        // Known credentials are good, here and there.
        as_alice.whoami().await.expect("known");
        pair.sdk_gateway(&alice.access_token).sessions().list().await.expect("known");
        // Rights are taken away, durably, and everywhere.
        for session in &leaving {
            let reached = pair.sdk_auth().logout(&session.access_token).await.expect("revocations go on");
            assert!(reached.is_some(), "it ended now");
            signed_out += 1;
            let refused =
                pair.sdk_gateway(&session.access_token).sessions().list().await.expect_err("signed out");
            assert_eq!(refused.reason(), Some(Reason::ProviderAuthFailed), "I8: {refused}");
        }
        let refused = pair.sdk_auth_as(&leaving[0].access_token).whoami().await.expect_err("signed out");
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        is_unavailable(&bare.project(&format!("still-{round}")).await.expect_err("full"));
        let began = Instant::now();
        faults.set(Fault::SpaceBack);
        eventually("SERVING", async || (Pair::readyz(&pair.auth).await.0 == 200).then_some(())).await;
        back.push(began.elapsed());
        as_alice.create_project(&format!("back-{round}")).await.expect("there is space");
        projects += 1;
    }
    assert_eq!(pair.auth.pid(), pid, "it was never started anew");
    assert!(faults.seen().writes_refused > 0, "the disk was full");
    assert_eq!(as_alice.list_projects().await.expect("hers").len(), projects, "I6");
    assert!(pair.auth.drain().await.success(), "it drains");
    let store = pair.world.path("auth/auth.db");
    let (damage, rows) = audit::damage(&store, &pair.world.path("auth/audit.key"));
    assert!(damage.is_empty(), "I11: {damage:?}");
    let marks = kept.lock().expect("no load panics").iter().filter(|mark| mark[0] == "logout").count();
    let ended = rusqlite::Connection::open(&store).expect("the store").query_row(
        "SELECT COUNT(*) FROM audit WHERE action = 'owner_session.logout' AND outcome = 'done'",
        [],
        |row| row.get::<_, i64>(0),
    );
    assert_eq!(ended.expect("a count"), i64::try_from(signed_out + marks).expect("few"), "I11");
    println!(
        "auth: full {ROUNDS} times, {} writes found no space; {signed_out} sign-outs on the full disk, each with its row and \
         admitted nowhere after; others refused within {longest:?}; serving {back:?} after space was back; {rows} audit rows in whole chains",
        faults.seen().writes_refused
    );
}
