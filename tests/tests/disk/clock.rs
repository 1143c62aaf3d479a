//! The wall clock of both services jumps a day, both ways, while they serve and while they are down. Nothing
//! that ends by time lives longer for it, nothing runs twice, and nothing stays busy or shut for ever.

use std::time::{Duration, Instant};

use interlock_client::{Code, Error, Gateway, JobState, Outcome, OwnerSession, Reason, SetAgent, Worker};
use interlock_tests::{
    Pair, Setup, audit, eventually,
    faults::{Fault, Faults},
    story::{read_log, tell},
    wire::Metadata,
};
use tokio_util::sync::CancellationToken;

const DAY: i64 = 86_400;
const AGENTS: [&str; 2] = ["a", "b"];

struct World {
    pair: Pair,
    faults: [Faults; 2],
    rounds: usize,
    free: Vec<Duration>,
}

impl World {
    async fn start() -> Self {
        let mut pair = Pair::stopped(Setup::default().root().gateway("lease_ttl", "1s").auth("lease", "1s"));
        let faults = ["auth", "gateway"].map(|name| Faults::new(&pair.world.path(name)));
        faults[0].attach(&mut pair.auth);
        faults[1].attach(&mut pair.gateway);
        pair.start_auth().await;
        pair.start_gateway().await;
        pair.serving().await;
        Self { pair, faults, rounds: 0, free: Vec::new() }
    }

    fn jump(&self, ahead: i64) {
        for faults in &self.faults {
            faults.set(Fault::ClockAhead(ahead));
        }
    }

    /// Whether root is unlocked for an owner session: auth and the gateway say the same.
    async fn is_raised(&self, session: &OwnerSession) -> bool {
        let status = self.pair.sdk_auth_as(&session.access_token).root_status().await.expect("public");
        let agents = self.pair.sdk_gateway(&session.access_token).agents();
        let described = SetAgent { description: Some("by an unlock".to_owned()), ..SetAgent::default() };
        let written = agents.set("primary", described).await;
        if let Err(refused) = &written {
            assert_eq!(refused.reason(), Some(Reason::RootRequired), "{refused}");
        }
        assert_eq!(status.unlocked_until.is_some(), written.is_ok(), "I10: {status:?}");
        written.is_ok()
    }

    /// Everything that rests on time works: a sign-in, its admission, a job that is done once, an agent that is
    /// free again after its worker has vanished (I4), a sign-out that holds at once (I8), a wrong password that
    /// does not lock anyone out.
    async fn works(&mut self) -> OwnerSession {
        self.rounds += 1;
        let pair = &self.pair;
        pair.serving().await;
        let wrong = pair.sdk_auth().login("bob", "not his password at all").await.expect_err("wrong");
        assert!(matches!(wrong.reason(), Some(Reason::InvalidCredentials | Reason::RateLimited)), "{wrong}");
        let bob = pair.login("bob").await;
        let project = pair.project(&bob, &format!("clock-{}", self.rounds)).await;
        let sdk = pair.sdk_gateway(&bob.access_token);
        for agent in AGENTS {
            sdk.agents().set(agent, SetAgent::default()).await.expect("an agent");
        }
        let session = sdk.sessions().create("").await.expect("a session").session.session_id;
        sdk.sessions().attach(&session, "a", &project).await.expect("idle");
        let job = sdk.jobs().submit(&session, "work").await.expect("a job").job_id;
        let done = self.run_once(&sdk, &job).await;
        assert_eq!(done, 1, "it ran once");
        // A worker that vanishes with its job: the lease ends, nobody else takes it, it can be cancelled.
        let lost = sdk.jobs().submit(&session, "work").await.expect("a job").job_id;
        self.vanish(&sdk, &lost).await;
        let began = Instant::now();
        eventually("the end of a lease", async || {
            let job = sdk.jobs().get(&lost).await.expect("the job");
            (job.state == JobState::Queued).then_some(())
        })
        .await;
        self.free.push(began.elapsed());
        sdk.jobs().cancel(&lost).await.expect("queued");
        sdk.sessions().attach(&session, "b", &project).await.expect("I4: nothing is in flight");
        let (channel, metadata) = (pair.gateway_public(), Metadata::bearer(&bob.access_token));
        let _ = tell(&session, &read_log(&channel, &metadata, &session).await);
        let gone = pair.login("w0").await;
        pair.sdk_gateway(&gone.access_token).sessions().list().await.expect("admitted");
        pair.sdk_auth().logout(&gone.access_token).await.expect("signed out");
        let refused = pair.sdk_gateway(&gone.access_token).sessions().list().await.expect_err("I8");
        assert_eq!(refused.reason(), Some(Reason::ProviderAuthFailed), "{refused}");
        bob
    }

    async fn run_once(&self, sdk: &Gateway, job: &str) -> usize {
        let runs = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (stop, counted) = (CancellationToken::new(), runs.clone());
        let worker = Worker::new(sdk.clone(), vec!["a".to_owned()], 1, "w");
        let stopped = stop.clone();
        let working = tokio::spawn(async move {
            let handler = move |_| {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                async { Outcome::Succeeded { result: "done".into() } }
            };
            worker.run(handler, stopped.cancelled_owned()).await
        });
        let ended = sdk.jobs().wait(job).await.expect("it ends");
        assert_eq!(ended.state, JobState::Succeeded);
        stop.cancel();
        working.await.expect("no panic").expect("a worker that stops");
        runs.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// A worker takes the job and is gone without a word.
    async fn vanish(&self, sdk: &Gateway, job: &str) {
        let worker = Worker::new(sdk.clone(), vec!["a".to_owned()], 1, "w");
        let working = tokio::spawn(worker.run(|_| std::future::pending(), std::future::pending()));
        eventually("a running job", async || {
            let job = sdk.jobs().get(job).await.expect("the job");
            (job.state == JobState::Running).then_some(())
        })
        .await;
        working.abort();
        let _ = working.await;
    }
}

/// What an expired credential is told; and nothing else is.
fn is_over(refused: Result<impl std::fmt::Debug, Error>) {
    let refused = refused.expect_err("a day is longer than it lives");
    assert_eq!(
        (refused.code(), refused.reason()),
        (Code::Unauthenticated, Some(Reason::TokenExpired)),
        "{refused}"
    );
}

// I4, I5, I8, I10, I11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_a_day_prolongs_nothing_and_wedges_nothing() {
    let mut world = World::start().await;
    let first = world.works().await;

    // FN-16: a quarter of an hour, for which its access token lives, too.
    let raised = world.pair.login("alice").await;
    let auth = world.pair.sdk_auth_as(&raised.access_token);
    let unlocked = auth.unlock_root(world.pair.world.root_password(), None).await.expect("unlocked");
    assert!(world.is_raised(&raised).await);

    // Back: nothing has ended, and nothing lives longer.
    world.jump(-DAY);
    assert!(world.is_raised(&raised).await, "it has not ended");
    let status = auth.root_status().await.expect("public");
    assert_eq!(status.unlocked_until, Some(unlocked.expires_at), "I10: nor is it any longer");
    world.pair.sdk_gateway(&first.access_token).sessions().list().await.expect("still admitted");
    let second = world.works().await;

    // An hour on from where it was: the unlock is over and its access token is; the owner session goes on, as low as
    // it began, and the refresh token is good once more.
    world.jump(3_600);
    world.pair.serving().await;
    is_over(world.pair.sdk_auth_as(&raised.access_token).whoami().await);
    let lowered = world.pair.sdk_auth().refresh(&raised).await.expect("12 h are not over");
    assert_eq!(lowered.expires_at, raised.expires_at, "a refresh prolongs no owner session");
    assert!(!world.is_raised(&lowered).await, "I10: an hour is longer than it was unlocked for");
    // And back: what has ended has ended.
    world.jump(-DAY);
    assert!(!world.is_raised(&lowered).await, "I10: it came back");

    // To where it was, and a day on: what a day ends has ended.
    world.jump(DAY);
    world.pair.serving().await;
    for session in [&first, &second] {
        is_over(world.pair.sdk_auth_as(&session.access_token).whoami().await);
        is_over(world.pair.sdk_gateway(&session.access_token).sessions().list().await);
        world.pair.sdk_auth().refresh(session).await.expect_err("12 h are over");
    }
    let third = world.works().await;

    // Back again: the store's time goes on from there. What has ended has ended.
    world.jump(0);
    is_over(world.pair.sdk_auth_as(&second.access_token).whoami().await);
    is_over(world.pair.sdk_gateway(&second.access_token).sessions().list().await);
    world.pair.sdk_gateway(&third.access_token).sessions().list().await.expect("still admitted");
    let fourth = world.works().await;

    // And so it does in a process that never saw the jump.
    assert!(world.pair.gateway.drain().await.success(), "it drains");
    assert!(world.pair.auth.drain().await.success(), "it drains");
    world.pair.start_auth().await;
    world.pair.start_gateway().await;
    world.pair.serving().await;
    is_over(world.pair.sdk_gateway(&second.access_token).sessions().list().await);
    let fifth = world.works().await;
    // An hour of the store's, which stands a day ahead: both access tokens are over, at auth and at the gateway,
    // whose own clock has never been there.
    world.jump(DAY + 3_600);
    world.pair.serving().await;
    for session in [&fourth, &fifth] {
        is_over(world.pair.sdk_auth_as(&session.access_token).whoami().await);
        is_over(world.pair.sdk_gateway(&session.access_token).sessions().list().await);
    }
    world.works().await;

    assert!(world.pair.gateway.drain().await.success(), "it drains");
    assert!(world.pair.auth.drain().await.success(), "it drains");
    for (store, key) in
        [("gateway/gateway.db", "gateway/gateway.chain-key"), ("auth/auth.db", "auth/audit.key")]
    {
        let (damage, _) = audit::damage(&world.pair.world.path(store), &world.pair.world.path(key));
        assert!(damage.is_empty(), "I11: {damage:?}");
    }
    println!(
        "clock: 5 jumps of a day and two of an hour, a restart between; {} rounds of everything; agents free {:?} after \
         their worker had vanished (lease 1 s)",
        world.rounds, world.free
    );
}
