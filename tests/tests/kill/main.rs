//! `kill -9` at random moments under load, of gateway, auth, both at once, worker, command line and the database's primary: what was
//! acknowledged is there afterwards, what was not is there once or not at all (I6, I7), each job ends once (I5)
//! and nothing stays busy (I4), who was signed out stays so (I8), each change has one row and the audit chains are
//! whole (I11).
//!
//! Each target is killed a few times; a hundred times where `INTERLOCK_LONG` is set. Figures are printed:
//! acknowledged writes, lost ones, the time to serving. `INTERLOCK_SEED` repeats the choices of a run.

mod both;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../../../service-kit/tests/store/cluster.rs"]
mod cluster;
mod commands;
mod drains;
mod ends;
mod load;
mod refreshes;
mod rows;
mod takeover;
mod uploads;
mod workers;

use std::{sync::Arc, time::Duration};

use interlock_client::SetAgent;
use interlock_tests::{Pair, Setup, audit, eventually};
use load::{auth::SignIns, gateway::Submits};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

const KILLS: usize = 10;
/// With `INTERLOCK_LONG`.
const KILLS_LONG: usize = 100;
/// Acknowledged writes between two kills.
const WRITES: std::ops::Range<usize> = 40..120;

/// How often this target is killed.
fn kills(usually: usize) -> usize {
    if std::env::var_os("INTERLOCK_LONG").is_some() { KILLS_LONG } else { usually }
}

/// A hundred kills may outlast the usual access token.
fn patient() -> Setup {
    Setup::default().auth("owner_session.access_ttl", "1h")
}

fn seeded() -> StdRng {
    let given = std::env::var("INTERLOCK_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("seed {seed}: INTERLOCK_SEED={seed} repeats its choices");
    StdRng::seed_from_u64(seed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_loses_nothing_it_has_acknowledged() {
    let (mut rng, kills) = (seeded(), kills(KILLS));
    let setup = patient().gateway("jobs_in_flight_per_owner", "100000").gateway("lease_ttl", "1s");
    let mut pair = Pair::start_with(setup).await;
    let alice = pair.login("alice").await;
    let sdk = pair.sdk_gateway(&alice.access_token);
    for agent in load::gateway::AGENTS {
        sdk.agents().set(agent, SetAgent::default()).await.expect("an agent");
    }
    let project = pair.project(&alice, "kill").await;
    let load = Arc::new(Submits::begin(&pair, &alice, &project).await);
    let mut to_serving = Vec::new();
    for _ in 0..kills {
        let target = load.acknowledged() + rng.random_range(WRITES);
        eventually("acknowledged writes", async || (load.acknowledged() >= target).then_some(())).await;
        pair.gateway.kill();
        to_serving.push(pair.start_gateway().await);
        pair.serving().await;
        load.check_new().await;
    }
    load.end().await;
    let checked = load.check_all(&pair).await;
    let retried = load.retry_everything(&pair).await;
    assert!(pair.gateway.drain().await.success(), "it drains");
    let (rows, changes) = gateway_rows(&pair);
    println!(
        "gateway: {kills} kills; acknowledged {} ({checked}), lost 0; {retried} request ids retried, each with its first \
         answer; {} answers lost in a kill and asked again; {changes} changes with one row each; {rows} \
         audit rows in whole chains; to serving {}",
        load.acknowledged(),
        load.asked_again(),
        spans(&to_serving)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_loses_nothing_it_has_acknowledged() {
    let (mut rng, kills) = (seeded(), kills(KILLS));
    let mut pair = Pair::start_with(patient().auth("lease", "1s")).await;
    let load = Arc::new(SignIns::begin(&pair));
    let mut to_serving = Vec::new();
    for _ in 0..kills {
        let target = load.acknowledged() + rng.random_range(WRITES) / 2;
        eventually("acknowledged writes", async || (load.acknowledged() >= target).then_some(())).await;
        pair.auth.kill();
        to_serving.push(pair.start_auth().await);
        load.check_new().await;
    }
    load.end().await;
    let checked = load.check_all().await;
    // Nobody was signed out by it: the gateway admits what it admitted before.
    pair.serving().await;
    load.check_gateway(&pair).await;
    assert!(pair.auth.drain().await.success(), "it drains");
    let (rows, changes) = auth_rows(&pair);
    println!(
        "auth: {kills} kills; acknowledged {} ({checked}), lost 0; {} answers lost in a kill and asked again; {changes} changes \
         with one row each; {rows} audit rows in whole chains; to serving {}",
        load.acknowledged(),
        load.asked_again(),
        spans(&to_serving)
    );
}

// SW-15, SW-22
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_cut_short_leaves_store_and_copy_agreed() {
    let (mut rng, kills) = (seeded(), kills(KILLS));
    let mut pair = Pair::start_with(patient().auth("lease", "1s")).await;
    let (mut cut, mut took_effect) = (0, 0);
    for _ in 0..kills {
        let before = pair.user();
        let rotate = pair.sdk_auth_as(&pair.admin());
        let moment = Duration::from_micros(rng.random_range(0..30_000));
        let answered = tokio::time::timeout(moment, rotate.rotate_role_token("user", Duration::ZERO)).await;
        pair.auth.kill();
        pair.start_auth().await;
        cut += usize::from(answered.is_err());
        let after = pair.user();
        took_effect += usize::from(after != before);
        if let Ok(rotated) = answered {
            assert_eq!(rotated.expect("rotated").token, after, "I6: what was answered is kept");
        }
        // Both tokens of the copy are good, and of the other generation none is.
        let status = pair.sdk_auth_as(&pair.admin()).role_tokens(true).await.expect("admin's is good");
        assert!(status.recoverable, "store and copy agree");
        pair.sdk_auth_as(&after).whoami().await.expect("user's is good");
        if after != before {
            pair.sdk_auth_as(&before).whoami().await.expect_err("the replaced one is not");
        }
    }
    println!(
        "rotation: {kills} kills, {cut} before the answer; {took_effect} rotations took effect; store and copy agree after each"
    );
}

// SW-15, SW-22: the same of one in two phases, whichever step it was at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_in_two_phases_cut_short_is_open_or_ended_and_never_half() {
    let (mut rng, kills) = (seeded(), kills(KILLS));
    let mut pair = Pair::start_with(patient().auth("lease", "1s")).await;
    let (mut cut, mut took_effect) = (0, 0);
    for _ in 0..kills {
        let auth = pair.sdk_auth_as(&pair.admin());
        let before = shown(&auth).await;
        let moment = Duration::from_micros(rng.random_range(0..30_000));
        let commits: bool = rng.random();
        let step = async || match &before.candidate {
            None => auth.begin_rotation("user").await.map(|begun| Some(begun.token)),
            Some((id, _)) if commits => auth.commit_rotation("user", id, true).await.map(|_| None),
            Some((id, _)) => auth.abort_rotation("user", id).await.map(|_| None),
        };
        let answered = tokio::time::timeout(moment, step()).await;
        pair.auth.kill();
        pair.start_auth().await;
        cut += usize::from(answered.is_err());
        let after = shown(&pair.sdk_auth_as(&pair.admin())).await;
        let done = after != before;
        took_effect += usize::from(done);
        match (&before.candidate, answered) {
            (None, Ok(begun)) => {
                let token = begun.expect("begun");
                assert_eq!(after.candidate.as_ref().map(|(_, token)| token), token.as_ref(), "I6");
            }
            (Some(_), Ok(ended)) => {
                ended.expect("ended");
                assert!(after.candidate.is_none(), "I6: what was answered is kept");
            }
            (_, Err(_)) => {}
        }
        if let Some((_, next)) = before.candidate.as_ref().filter(|_| done) {
            let (dead, expected) = if commits { (&before.present, next) } else { (next, &before.present) };
            assert_eq!(&after.present, expected);
            pair.sdk_auth_as(dead).whoami().await.expect_err("it has ended");
        }
        for good in after.candidate.iter().map(|(_, token)| token).chain([&after.present, &pair.user()]) {
            pair.sdk_auth_as(good).whoami().await.expect("what the copy has is good");
        }
    }
    println!(
        "rotation in two phases: {kills} kills, {cut} before the answer; {took_effect} steps took effect"
    );
}

/// The tokens of the role `user`, as the copy has them.
#[derive(Debug, PartialEq)]
struct Shown {
    present: interlock_client::Credential,
    candidate: Option<(String, interlock_client::Credential)>,
}

async fn shown(auth: &interlock_client::Auth) -> Shown {
    let status = auth.role_tokens(true).await.expect("admin's is good");
    assert!(status.recoverable, "store and copy agree");
    let token = |candidate| {
        let of_user =
            |token: &&interlock_client::RoleToken| token.role == "user" && token.candidate == candidate;
        let found = status.tokens.iter().find(of_user)?;
        Some((found.credential_id.clone(), found.token.clone().expect("the copy has it")))
    };
    Shown { present: token(false).expect("always one").1, candidate: token(true) }
}

/// I11, at rest: how many audit rows the gateway has, in whole chains, and how many changes with one each.
fn gateway_rows(pair: &Pair) -> (usize, u64) {
    let store = pair.world.path("gateway/gateway.db");
    let (damage, rows) = audit::damage(&store, &pair.world.path("gateway/gateway.chain-key"));
    assert!(damage.is_empty(), "the audit chain is damaged: {damage:?}");
    (rows, rows::check_gateway(&store))
}

/// The same of auth.
fn auth_rows(pair: &Pair) -> (usize, u64) {
    let store = pair.world.path("auth/auth.db");
    let (damage, rows) = audit::damage(&store, &pair.world.path("auth/audit.key"));
    assert!(damage.is_empty(), "the audit chain is damaged: {damage:?}");
    (rows, rows::check_auth(&store))
}

fn spans(all: &[Duration]) -> String {
    let mut ms: Vec<_> = all.iter().map(Duration::as_millis).collect();
    ms.sort_unstable();
    format!("{} / {} / {} ms (least, median, most)", ms[0], ms[ms.len() / 2], ms[ms.len() - 1])
}
