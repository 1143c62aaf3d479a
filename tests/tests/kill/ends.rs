//! Sessions that end while the gateway is killed: what they had goes, all of it, whoever has begun with that.

use std::{path::Path, time::Duration};

use interlock_client::{Credentials, FilesOf, Gateway, PostTo, PutFile, Reason, SetAgent};
use interlock_tests::{Pair, audit, eventually};
use rand::RngExt as _;
use rusqlite::{Connection, OpenFlags};
use tokio::task::JoinSet;

use crate::{kills, patient, seeded};

const KILLS: usize = 3;
/// More than a sweep takes away at once (256), of both.
const EVENTS: usize = 300;
const JOBS: usize = 300;
/// The store takes those that come together in one commit.
const AT_ONCE: usize = 50;
const FILES: [&str; 2] = ["in/a", "out/b"];
/// The gateway is killed within so many microseconds after the first part went, or after the end was acknowledged: a part
/// takes some milliseconds.
const SOON: std::ops::Range<u64> = 0..3_000;

/// Does something so often, a number at once.
async fn often<F: Future<Output = ()> + Send + 'static>(times: usize, act: impl Fn(usize) -> F) {
    for from in (0..times).step_by(AT_ONCE) {
        let all: JoinSet<()> = (from..times.min(from + AT_ONCE)).map(&act).collect();
        all.join_all().await;
    }
}

/// A session with everything that one may have.
async fn furnish(pair: &Pair, gateway: &Gateway, project: &str) -> (String, Gateway) {
    let created = gateway.sessions().create("desk").await.expect("the name is free");
    let (session, cookie) = (created.session.session_id, created.cookie.expect("its host's"));
    gateway.sessions().attach(&session, "a", project).await.expect("idle");
    let files = gateway.files();
    for name in FILES {
        let put = files.put(FilesOf::Session(&session), name, PutFile::default(), name.as_bytes());
        put.await.expect("stored");
    }
    often(EVENTS, |n| {
        let (sessions, session) = (gateway.sessions(), session.clone());
        async move {
            sessions.post(&session, PostTo::All, format!("{n}")).await.expect("said");
        }
    })
    .await;
    often(JOBS, |n| {
        let (jobs, session) = (gateway.jobs(), session.clone());
        async move {
            jobs.submit(&session, format!("{n}")).await.expect("queued");
        }
    })
    .await;
    (session, pair.sdk_gateway_as(Credentials::none()).with_cookie(cookie))
}

/// What there is of a session but for its own row, which says for ten minutes to whoever asks again that it is gone, and
/// those of its clients, which go with it and open nothing meanwhile.
fn left(store: &Path, session: &str) -> u64 {
    let store = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the store");
    store.busy_timeout(Duration::from_secs(10)).expect("a time-out");
    let count = "SELECT (SELECT COUNT(*) FROM event WHERE session = ?1) + (SELECT COUNT(*) FROM job WHERE session = ?1)
                      + (SELECT COUNT(*) FROM file WHERE session = ?1)
                      + (SELECT COUNT(*) FROM payload WHERE job NOT IN (SELECT id FROM job))";
    store.query_row(count, [session], |row| row.get(0)).expect("a count")
}

// Issue 7 line 3, DESIGN 9, NC-15, NC-18, NC-19, I6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_goes_whole_although_the_gateway_is_killed_meanwhile() {
    let (mut rng, kills) = (seeded(), kills(KILLS));
    let mut pair = Pair::start_with(patient()).await;
    let alice = pair.login("alice").await;
    let gateway = pair.sdk_gateway(&alice.access_token);
    gateway.agents().set("a", SetAgent::default()).await.expect("an agent");
    let project = pair.project(&alice, "kill").await;
    let store = pair.world.path("gateway/gateway.db");
    let (mut rows, mut in_the_middle) = (0, 0);
    for round in 0..kills {
        let (session, host) = furnish(&pair, &gateway, &project).await;
        let all = left(&store, &session);
        // By its last client, or by force.
        let gone = if round % 2 == 0 {
            host.sessions().quit(&session).await.expect("the last one").session_ends
        } else {
            gateway.sessions().close(&session, true).await.expect("by force").gone
        };
        assert!(gone, "nothing of it runs");
        if round % 3 < 2 {
            let begun = async || (left(&store, &session) < all).then_some(());
            eventually("a part that is gone", begun).await;
        }
        tokio::time::sleep(Duration::from_micros(rng.random_range(SOON))).await;
        pair.gateway.kill();
        let at_death = left(&store, &session);
        in_the_middle += usize::from(at_death > 0 && at_death < all);
        rows += all;
        pair.start_gateway().await;
        pair.serving().await;
        // What was acknowledged holds from the first moment on: the name is free, the cookie is nothing.
        let refused = gateway.sessions().get(&session).await.expect_err("gone");
        assert_eq!(refused.reason(), Some(Reason::OwnerMismatch), "{refused}");
        let refused = host.sessions().get(&session).await.expect_err("gone");
        assert_eq!(refused.reason(), Some(Reason::ProviderAuthFailed), "{refused}");
        let files = pair.world.path("gateway/files");
        eventually("nothing that is left of it", async || {
            let contents = std::fs::read_dir(&files).expect("a folder").count();
            (left(&store, &session) == 0 && contents == 0).then_some(())
        })
        .await;
    }
    assert!(pair.gateway.drain().await.success(), "it drains");
    let (damage, audited) = audit::damage(&store, &pair.world.path("gateway/gateway.chain-key"));
    assert!(damage.is_empty(), "the audit chain is damaged: {damage:?}");
    println!(
        "ends: {kills} sessions ended with {rows} rows, the gateway killed after each; {in_the_middle} times among the parts; \
         left of them 0; {audited} audit rows in whole chains"
    );
}
