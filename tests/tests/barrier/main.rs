//! The revocation barrier with the real gateway: what a revocation has answered, holds (I8); and what is cut
//! off admits nothing, but signs nobody out.
//!
//! SW-36, FN-04, FN-23, UA-56: `a_logout_…`, `a_rotation_…`.

mod crowd;

use std::time::{Duration, Instant};

use crowd::{Crowd, Watched};
use interlock_client::Reason;
use interlock_proto::credential::Credential;
use interlock_tests::{
    Pair, Setup, eventually,
    wire::{self, Metadata, Outcome},
    within,
};
use tokio::task::JoinSet;
use tonic::transport::Channel;

const LIST_SESSIONS: &str = "/interlock.gateway.v1.SessionService/ListSessions";
const GET_SESSION: &str = "/interlock.gateway.v1.SessionService/GetSession";
const CALLERS: usize = 100;
const STREAMS: usize = 5;
const LEASE: Duration = Duration::from_secs(2);

/// The limit of unknown credentials is out of the way: it would refuse a fast crowd before the barrier does.
async fn pair() -> Pair {
    let setup = Setup::default().auth("lease", "2s").gateway("limits.unknown_credentials", "1000000");
    Pair::start_with(setup).await
}

/// A session of that credential's; its id.
async fn session(pair: &Pair, credential: &Credential) -> String {
    let sessions = pair.sdk_gateway(credential).sessions();
    sessions.create("").await.expect("a session").session.session_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_holds_at_the_gateway_when_it_has_returned() {
    let pair = pair().await;
    let alice = pair.login("alice").await;
    let id = session(&pair, &alice.access_token).await;
    let streams = Watched::open(&pair, &alice.access_token, &id, STREAMS).await;
    let crowd = Crowd::gather(&pair, &alice.access_token, CALLERS).await;

    let began = Instant::now();
    let reached =
        pair.sdk_auth().logout(&alice.access_token).await.expect("signed out").expect("it was alive");
    let returned = Instant::now();
    let calls = crowd.end_after(returned).await;

    assert_eq!((reached.acknowledged, reached.fenced), (1, 0), "{reached:?}");
    assert!(reached.streams_closed >= STREAMS as u64, "{reached:?}");
    streams.all_end_with("REVOKED").await;
    println!(
        "logout: {:.1} ms; {} calls before it, {} after it of which 0 were admitted; {STREAMS} streams ended with REVOKED",
        (returned - began).as_secs_f64() * 1e3,
        calls.before,
        calls.after
    );
    // It is repeated without harm, and stays so after a restart of the gateway's cache.
    let again = pair.sdk_auth().logout(&alice.access_token).await.expect("no error");
    assert!(again.is_none(), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_holds_at_the_gateway_when_it_has_returned() {
    let pair = pair().await;
    let (old, admin) = (pair.user(), pair.admin());
    let id = session(&pair, &old).await;
    let streams = Watched::open(&pair, &old, &id, STREAMS).await;
    let crowd = Crowd::gather(&pair, &old, CALLERS).await;

    let rotated = pair.sdk_auth_as(&admin).rotate_role_token("user", Duration::ZERO).await.expect("rotated");
    let returned = Instant::now();
    let calls = crowd.end_after(returned).await;

    let reached = rotated.reached.expect("without a grace it reached somebody");
    assert_eq!((reached.acknowledged, reached.fenced), (1, 0), "{reached:?}");
    streams.all_end_with("REVOKED").await;
    // SW-21: the other role is untouched, and the new token is good.
    for token in [&admin, &rotated.token] {
        pair.sdk_gateway(token).sessions().list().await.expect("admitted");
    }
    assert_eq!(pair.user(), rotated.token, "the recoverable copy has the new token");
    println!("rotation: {} calls before it, {} after it of which 0 were admitted", calls.before, calls.after);
}

/// Auth is gone: nothing new is admitted after the lease, nobody is signed out, and it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_from_auth_the_gateway_waits_and_signs_nobody_out() {
    let pair = pair().await;
    let alice = pair.login("alice").await;
    let created = pair.sdk_gateway(&alice.access_token).sessions().create("").await.expect("a session");
    let (id, cookie) = (created.session.session_id, created.cookie.expect("a cookie"));
    let bearer = Metadata::bearer(&alice.access_token);
    let channel = pair.gateway_public();
    let get = async |metadata: &Metadata| get_session(&channel, &id, metadata).await;
    assert_eq!(get(&bearer).await, Outcome::ok());
    let mut streams = Watched::open(&pair, &alice.access_token, &id, STREAMS).await;

    pair.auth.freeze();
    let frozen = Instant::now();
    let lapsed = eventually("the end of the lease", async || {
        let outcome = get(&bearer).await;
        (outcome != Outcome::ok()).then_some(outcome)
    })
    .await;
    let after = frozen.elapsed();
    assert_eq!((lapsed.code.as_str(), lapsed.reason.as_str()), ("UNAVAILABLE", "AUTH_UNAVAILABLE"));
    assert!(after <= LEASE + Duration::from_millis(500), "admitted for {after:?} on a lease of {LEASE:?}");
    // DESIGN 14.4: a client of the session needs no lease of auth's.
    assert_eq!(get(&Metadata::none().with("cookie", cookie.expose())).await, Outcome::ok());
    assert_eq!(streams.ended(), 0, "open streams pause");

    pair.auth.wake();
    eventually("the lease back", async || (get(&bearer).await == Outcome::ok()).then_some(())).await;
    assert_eq!(streams.ended(), 0, "and go on");
    pair.sdk_auth_as(&alice.access_token).whoami().await.expect("nobody was signed out");
    println!(
        "auth frozen: AUTH_UNAVAILABLE after {:.2} s, on a lease of {} s",
        after.as_secs_f64(),
        LEASE.as_secs()
    );
}

/// A gateway that hears nothing is waited out, and admits nothing when it wakes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_gateway_is_fenced_and_admits_nothing_when_it_wakes() {
    let pair = pair().await;
    let alice = pair.login("alice").await;
    let id = session(&pair, &alice.access_token).await;
    let bearer = Metadata::bearer(&alice.access_token);
    let streams = Watched::open(&pair, &alice.access_token, &id, STREAMS).await;
    // Connected before: their calls lie in its sockets while it sleeps.
    let channels: Vec<_> = (0..4).map(|_| pair.gateway_public()).collect();
    for channel in &channels {
        assert_eq!(get_session(channel, &id, &bearer).await, Outcome::ok());
    }

    pair.gateway.freeze();
    let began = Instant::now();
    let reached =
        pair.sdk_auth().logout(&alice.access_token).await.expect("signed out").expect("it was alive");
    let took = began.elapsed();
    assert_eq!((reached.acknowledged, reached.fenced), (0, 1), "{reached:?}");
    assert!(took <= LEASE + Duration::from_secs(2), "{took:?} for a lease of {LEASE:?}");

    let mut sleepers = JoinSet::new();
    for n in 0..CALLERS {
        let (channel, id, bearer) = (channels[n % channels.len()].clone(), id.clone(), bearer.clone());
        sleepers.spawn(async move { get_session(&channel, &id, &bearer).await });
    }
    pair.gateway.wake();
    let outcomes = within("the answers of the woken gateway", sleepers.join_all()).await;
    for outcome in &outcomes {
        let fits = matches!(outcome.short(), "AUTH_UNAVAILABLE" | "PROVIDER_AUTH_FAILED" | "LIMIT_REACHED");
        assert!(fits, "I8: after the logout had returned: {outcome}");
    }
    eventually("the lease back", async || {
        let outcome = get_session(&channels[0], &id, &bearer).await;
        assert_ne!(outcome, Outcome::ok(), "I8");
        (outcome.reason == Reason::ProviderAuthFailed.text()).then_some(())
    })
    .await;
    streams.all_end_with("REVOKED").await;
    println!(
        "gateway frozen: logout returned after {:.2} s, fenced 1; {} calls lay waiting, 0 admitted",
        took.as_secs_f64(),
        outcomes.len()
    );
}

/// A restarted auth knows of no lease; it waits as long as one could be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_auth_waits_one_lease_before_it_answers_a_revocation() {
    let mut pair = pair().await;
    let alice = pair.login("alice").await;
    let bearer = Metadata::bearer(&alice.access_token);
    let id = session(&pair, &alice.access_token).await;
    let channel = pair.gateway_public();
    pair.gateway.freeze();
    pair.auth.kill();
    let killed = Instant::now();
    pair.start_auth().await;
    let reached = pair.sdk_auth().logout(&alice.access_token).await.expect("signed out");
    let took = killed.elapsed();
    // The gateway's lease had been granted before the kill.
    assert!(took >= LEASE, "{reached:?} after {took:?} on leases of {LEASE:?}");
    pair.gateway.wake();
    let outcome = get_session(&channel, &id, &bearer).await;
    assert_ne!(outcome, Outcome::ok(), "I8: after the logout had returned");
    let list = wire::call(&channel, LIST_SESSIONS, Vec::new(), &bearer).await.outcome;
    assert_ne!(list, Outcome::ok(), "I8");
}

async fn get_session(channel: &Channel, id: &str, metadata: &Metadata) -> Outcome {
    let request = interlock_proto::gateway::v1::GetSessionRequest { session_id: id.to_owned() };
    wire::ask(channel, GET_SESSION, &request, metadata).await.outcome
}
