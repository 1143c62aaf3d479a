//! SIGSTOP beyond leases: who sleeps through its lease has lost it, and says nothing any more when it wakes.

use std::time::{Duration, Instant};

use interlock_client::{Credentials, JobState, MemoryStore, SetAgent};
use interlock_proto::gateway::v1::{
    self as wire,
    work_request::{Heartbeat, Message as Ask, Progress},
    work_response::Message as Say,
};
use interlock_tests::{
    Pair, eventually,
    history::{Callers, Watch},
    home::{Hand, Home},
    line::Line,
    story::{read_log, tell},
    wire::Metadata,
    within,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{LEASE, Victim, rounds, shift::Shift, short};

const ROUNDS: usize = 2;
/// A worker beyond its lease: issue 7 line 8.
const WORKERS_LONG: usize = 100;
const ROUNDS_LONG: usize = 20;

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("a process of ours");
}

/// Two workers wait for jobs; the one that gets it is stopped. Its program ends while it sleeps, and what it has to
/// say of that comes too late.
// Issue 7 line 8, SW-35+, I3 to I5, I15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_worker_loses_its_job_to_the_other_one() {
    // A hundred may outlast the usual access token; and of pauses there is enough here.
    let setup = short().auth("owner_session.access_ttl", "1h").gateway("retry_backoff", "100ms");
    let pair = Pair::start_with(setup.gateway("lease_ttl", "1s")).await;
    let alice = pair.login("alice").await;
    let project = pair.project(&alice, "p").await;
    let gateway = pair.sdk_gateway(&alice.access_token);
    for agent in ["a", "b"] {
        gateway.agents().set(agent, SetAgent::default()).await.expect("an agent");
    }
    let session = gateway.sessions().create("").await.expect("a session").session.session_id;
    gateway.sessions().attach(&session, "a", &project).await.expect("idle");
    let metadata = Metadata::bearer(&alice.access_token);
    let stream = Watch::open(&pair.gateway_public(), &metadata, &session).await;
    let home = Home::of(&pair);
    home.keep(&alice);
    let script = format!(
        "read -r go; while [ ! -e '{}'/$go ]; do sleep 0.02; done; echo \"late $INTERLOCK_FENCING_TOKEN\"",
        home.path("").display()
    );
    let hands = ["left", "right"].map(|name| Hand::start(&home, "a", name, 1, &script));
    let rounds = rounds(ROUNDS, WORKERS_LONG);
    for round in 0..rounds {
        let go = format!("go-{round}");
        let job = gateway.jobs().submit(&session, format!("{go}\n")).await.expect("a job").job_id;
        let first = started(&stream, &job, 1).await;
        let (frozen, other) = if first == "left" { (&hands[0], &hands[1]) } else { (&hands[1], &hands[0]) };
        signal(frozen.pid(), Signal::STOP);
        let began = Instant::now();
        let second = started(&stream, &job, 2).await;
        let took = began.elapsed();
        assert_eq!(second, other.name(), "the sleeper was given its own job again");
        std::fs::write(home.path(&go), "").expect("written");
        let ended = within("its end", gateway.jobs().wait(&job)).await.expect("the job");
        assert_eq!((ended.state, ended.attempt), (JobState::Succeeded, 2), "{ended:?}");
        assert_eq!(&ended.result[..], b"late 2\n");
        // I4: nothing is in flight, whatever the sleeper holds.
        for agent in ["b", "a"] {
            gateway.sessions().attach(&session, agent, &project).await.expect("I4");
        }

        signal(frozen.pid(), Signal::CONT);
        let end = format!("{job} attempt 1: ");
        eventually("the sleeper's own end of it", async || {
            let said = frozen.said(&home);
            said.lines().filter(|line| line.starts_with(&end)).count().ge(&2).then_some(())
        })
        .await;
        // It is awake, and gets jobs again as before: each of them has one at once.
        let go = format!("both-{round}");
        let mut both = Vec::new();
        for _ in 0..hands.len() {
            let payload = format!("{go}\n");
            both.push(gateway.jobs().submit(&session, payload).await.expect("a job").job_id);
        }
        let (one, two) = (started(&stream, &both[0], 1).await, started(&stream, &both[1], 1).await);
        assert_ne!(one, two, "each has room for one");
        std::fs::write(home.path(&go), "").expect("written");
        for job in both {
            let ended = within("its end", gateway.jobs().wait(&job)).await.expect("the job");
            assert_eq!((ended.state, ended.attempt), (JobState::Succeeded, 1), "{ended:?}");
        }
        let told = gateway.jobs().get(&job).await.expect("the job");
        assert_eq!(told, ended, "I5: what the sleeper said has changed nothing");
        println!("worker frozen: the other one had its job after {} ms, on leases of 1 s", took.as_millis());
    }
    let log = read_log(&pair.gateway_public(), &metadata, &session).await;
    let story = tell(&session, &log);
    let late = log.iter().filter(|event| format!("{:?}", event.kind).contains("late 1")).count();
    assert_eq!(late, 0, "I5: a line of an attempt that had lost its lease");
    let once = story.jobs.values().filter(|job| job.attempt == 1).count();
    assert_eq!((story.jobs.len(), once), (3 * rounds, 2 * rounds), "each sleeper lost one job, once");
    eventually("the whole log on the stream", async || (stream.seen().len() >= log.len()).then_some(()))
        .await;
    assert_eq!(stream.in_order(), log.len(), "I15");
    println!(
        "worker frozen: {rounds} times beyond its lease; {} jobs, {once} in one attempt; lines and ends of lost attempts 0; \
         {} events delivered once",
        story.jobs.len(),
        log.len()
    );
}

/// Who started that attempt.
async fn started(stream: &Watch, job: &str, attempt: u32) -> String {
    let text = format!("JobStarted(JobStarted {{ job_id: \"{job}\", attempt: {attempt}, ");
    let seen = stream.shows(&text).await;
    let name = seen.text.split("worker: \"").nth(1).and_then(|rest| rest.split('"').next());
    name.expect("a worker").to_owned()
}

/// Beyond the verifier's lease and beyond those of its jobs.
// I5, I7, I8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_gateway_wakes_to_what_is_true_by_then() {
    let pair = short().gateway("lease_ttl", "1s").gateway("max_attempts", "100");
    let pair = Pair::start_with(pair.gateway("retry_backoff", "50ms")).await;
    let alice = pair.login("alice").await;
    let shift = Shift::begin(&pair, &alice).await;
    for round in 0..rounds(1, ROUNDS_LONG) {
        let victim = Victim::sign_in(&pair, &format!("w{}", round % 6)).await;
        let credentials = [("alice", &alice.access_token), ("victim", &victim.owner.access_token)];
        let callers = Callers::begin(&pair, &credentials, 4).await;
        pair.gateway.freeze();
        let began = Instant::now();
        let token = &victim.owner.access_token;
        let reached = pair.sdk_auth().logout(token).await.expect("signed out").expect("it was alive");
        let returned = Instant::now();
        assert_eq!(reached.acknowledged, 0, "{reached:?}");
        // Its jobs' leases run out, too.
        tokio::time::sleep_until((began + 2 * LEASE).into()).await;
        pair.gateway.wake();
        let woken = Instant::now();
        let healthy = callers.answered("alice", "OK", Duration::ZERO).await - woken;
        callers.answered("victim", "PROVIDER_AUTH_FAILED", Duration::ZERO).await;
        victim.sees_its_end().await;
        shift.goes_on().await;
        let history = callers.end().await;
        let after = history.none_admitted_after("victim", returned);
        history.only("alice", &["OK", "AUTH_UNAVAILABLE"]);
        println!(
            "gateway frozen: revocation returned after {} ms on leases of 1 s, fenced {}; {after} calls after it, 0 admitted; \
             healthy {} ms after waking",
            (returned - began).as_millis(),
            reached.fenced,
            healthy.as_millis()
        );
    }
    let (jobs, attempts) = shift.end(&pair).await;
    println!("gateway frozen: {jobs} jobs in {attempts} attempts, each ended once");
}

/// While auth sleeps, nothing new is admitted and nothing is delivered on its word, nobody is signed out, and an
/// attempt that was admitted before goes on to its end.
// DESIGN 14.4, 14.11; I8, I15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_auth_holds_up_what_stands_on_it_and_nothing_else() {
    // The job's lease is none of auth's, and outlives this.
    let pair = Pair::start_with(short().gateway("lease_ttl", "300s")).await;
    let alice = pair.login("alice").await;
    let project = pair.project(&alice, "p").await;
    let refreshing =
        Credentials::owner_session(pair.sdk_auth(), std::sync::Arc::new(MemoryStore::new(alice.clone())));
    let gateway = pair.sdk_gateway_as(refreshing);
    gateway.agents().set("a", SetAgent::default()).await.expect("an agent");
    let created = gateway.sessions().create("").await.expect("a session");
    let (session, cookie) = (created.session.session_id, created.cookie.expect("a cookie"));
    gateway.sessions().attach(&session, "a", &project).await.expect("idle");
    let jobs = [gateway.jobs().submit(&session, "one").await, gateway.jobs().submit(&session, "two").await];
    let jobs = jobs.map(|job| job.expect("a job").job_id);
    let bearer = Metadata::bearer(&alice.access_token);
    let channel = pair.gateway_public();
    let paused = Watch::open(&channel, &bearer, &session).await;
    let by_cookie = Metadata::none().with("cookie", cookie.expose());
    let unpaused = Watch::open(&channel, &by_cookie, &session).await;
    let mut line = Line::open(pair.gateway_public(), &bearer, "a", Vec::new()).await;
    let held = line.assignment().await.held.expect("held");
    assert_eq!(held.job_id, jobs[0]);
    let callers = Callers::begin(&pair, &[("alice", &alice.access_token)], 2).await;

    pair.auth.freeze();
    let frozen = Instant::now();
    let lapsed = callers.answered("alice", "AUTH_UNAVAILABLE", Duration::ZERO).await - frozen;
    paused.silence(true);
    eventually("readiness that tells the truth", async || {
        (Pair::readyz(&pair.gateway).await.0 == 503).then_some(())
    })
    .await;
    // The SDK waits for it as long as a call may take, and takes nobody for signed out.
    let waiting = tokio::spawn({
        let sessions = gateway.sessions();
        async move { sessions.list().await }
    });
    line.ask(Ask::Heartbeat(Heartbeat { held: vec![held.clone()] }));
    let renewed =
        line.hears(|said| if let Say::Renewed(renewed) = said { Some(renewed) } else { None }).await;
    assert_eq!(renewed.held, std::slice::from_ref(&held), "14.11");
    line.ask(Ask::Progress(Progress { held: Some(held.clone()), number: 1, data: "meanwhile".into() }));
    line.hears(|said| if let Say::ProgressStored(stored) = said { Some(stored) } else { None }).await;
    line.finish(&held, wire::JobState::Succeeded, "done");
    let end = |said| match said {
        Say::Finished(finished) => Some(finished),
        Say::Assignment(new) => panic!("a new job while nothing is admitted: {new:?}"),
        _ => None,
    };
    line.hears(end).await;
    // DESIGN 14.4: who came by cookie needs no word of auth's.
    unpaused.shows("JobEnded").await;

    paused.silence(false);
    let woken = std::time::SystemTime::now();
    pair.auth.wake();
    let wakes = Instant::now();
    let healthy = callers.answered("alice", "OK", Duration::ZERO).await - wakes;
    if let Err(error) = within("an answer", waiting).await.expect("no panic") {
        assert!(error.is_unavailable(), "signed out by an outage: {error}");
    }
    let second = line.assignment().await.held.expect("held");
    assert_eq!(second.job_id, jobs[1]);
    paused.shows("JobEnded").await;
    let told_in_silence: Vec<_> = paused.seen().into_iter().filter(|seen| seen.silenced).collect();
    assert!(told_in_silence.is_empty(), "delivered while the lease was lapsed: {told_in_silence:?}");
    let started = gateway.jobs().get(&jobs[1]).await.expect("signed in as before").started_at;
    assert!(started.expect("it runs") >= woken, "claimed while the lease was lapsed");
    paused.in_order();
    assert!(!paused.has_ended() && !unpaused.has_ended(), "streams pause, and go on");
    callers.end().await.only("alice", &["OK", "AUTH_UNAVAILABLE"]);
    pair.sdk_auth_as(&alice.access_token).whoami().await.expect("nobody was signed out");
    println!(
        "auth frozen: AUTH_UNAVAILABLE after {} ms on leases of 1 s; heartbeat, progress and finish went on; signed out 0; \
         healthy {} ms after waking",
        lapsed.as_millis(),
        healthy.as_millis()
    );
}
