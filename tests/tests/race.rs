//! Submits, attaches, claims and finishes at once, against the real gateway, over two sessions that share
//! two agents and two projects. What held is read back from the logs of both sessions, and from the
//! evidence that each refusal carries, and from the store itself meanwhile, each of one instant.
//!
//! SW-26 to SW-29: I1, I2, I3, I5 hold in a race of submits against attaches. A run counts only where at
//! least a fifth of the attaches changed a binding and a fifth were refused as busy: an unbalanced load
//! finds nothing. `INTERLOCK_SEED` repeats the choices of a run; `INTERLOCK_LONG=1` makes it ten times as long.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use interlock_client::{Busy, BusyKind, Gateway, Reason, SetAgent};
use interlock_proto::gateway::v1::{
    JobState, WorkRequest, WorkResponse,
    work_request::{Finish, Goodbye, Hello, Message as Ask, Progress},
    work_response::Message as Say,
    worker_service_client::WorkerServiceClient,
};
use interlock_tests::{
    PATIENCE, Pair, Setup, eventually,
    story::{check_together, read_log, tell},
    wire::Metadata,
    within,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rusqlite::OpenFlags;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Streaming, transport::Channel};

const AGENTS: [&str; 2] = ["racer-a", "racer-b"];
const SUBMITTERS: u64 = 4;
const ATTACHERS: u64 = 4;
const WORKERS: u64 = 3;
/// Attaches in all, and submits of one submitter at most.
const ATTACHES: usize = 400;
const SUBMITS_MAX: usize = 2_000;
/// How far one outcome of an attach may be ahead of the other.
const AHEAD: usize = 8;
const QUIET: Duration = Duration::from_millis(200);
/// Between two looks at the store.
const LOOK: Duration = Duration::from_micros(500);
/// After so many submits the other session gets most of them: the one that is left alone can move, and
/// meets the agent of the busy one.
const HOT_SUBMITS: usize = 25;

#[derive(Default)]
struct Tally {
    changed: AtomicUsize,
    same: AtomicUsize,
    rebind: AtomicUsize,
    project: AtomicUsize,
    submitted: AtomicUsize,
    submit_busy: AtomicUsize,
    finished: AtomicUsize,
    goodbyes: AtomicUsize,
}

impl Tally {
    fn busy(&self) -> usize {
        self.rebind.load(Ordering::Relaxed) + self.project.load(Ordering::Relaxed)
    }

    fn changed(&self) -> usize {
        self.changed.load(Ordering::Relaxed)
    }

    fn attaches(&self) -> usize {
        self.changed() + self.same.load(Ordering::Relaxed) + self.busy()
    }
}

/// What all racers share.
struct Track {
    sessions: [String; 2],
    projects: [String; 2],
    tally: Tally,
    attaches: usize,
    /// Moves with each attach that was answered, and with each submit.
    attached: watch::Sender<usize>,
    queued: watch::Sender<usize>,
    evidence: Mutex<Vec<Busy>>,
    /// Agent and project of each session, by their places here.
    last: Mutex<[(usize, usize); 2]>,
}

impl Track {
    fn over(&self) -> bool {
        self.tally.attaches() >= self.attaches
    }

    /// The session that gets most submits now.
    fn hot(&self) -> usize {
        self.tally.submitted.load(Ordering::Relaxed) / HOT_SUBMITS % 2
    }

    /// Where to attach which session. At times the quiet one to the agent of the busy one, in the other
    /// project; seldom to where it is already.
    fn target(&self, rng: &mut StdRng) -> (&str, &'static str, &str) {
        let last = *self.last.lock().expect("no racer panics");
        let hot = self.hot();
        let (session, place) = match rng.random_range(0..10) {
            0..4 => (1 - hot, (last[hot].0, 1 - last[hot].1)),
            _ => (rng.random_range(0..2), (rng.random_range(0..2), rng.random_range(0..2))),
        };
        let stays = place == last[session] && rng.random_bool(0.8);
        let (agent, project) = if stays { (place.0, 1 - place.1) } else { place };
        (&self.sessions[session], AGENTS[agent], &self.projects[project])
    }

    /// Where a session was last attached to, as far as one answer can tell.
    fn note(&self, session: &str, agent: &str, project: &str) {
        let place = |all: &[String; 2], one: &str| usize::from(all[1] == one);
        let to = (usize::from(AGENTS[1] == agent), place(&self.projects, project));
        self.last.lock().expect("no racer panics")[place(&self.sessions, session)] = to;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_never_changes_under_a_job() {
    let given = std::env::var("INTERLOCK_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("seed {seed}: INTERLOCK_SEED={seed} repeats its choices");
    let setup = Setup::default().gateway("jobs_in_flight_per_owner", "100000");
    let pair = Pair::start_with(setup).await;
    let alice = pair.login("alice").await;
    let gateway = pair.sdk_gateway(&alice.access_token);
    let track = Arc::new(lay(&pair, &gateway, &alice).await);
    let began = Instant::now();

    let mut workers = JoinSet::new();
    let (stop, stopped) = watch::channel(false);
    for n in 0..WORKERS {
        let rng = StdRng::seed_from_u64(seed ^ (300 + n));
        let metadata = Metadata::bearer(&alice.access_token);
        workers.spawn(work(pair.gateway_public(), metadata, rng, Arc::clone(&track), stopped.clone()));
    }
    let over = Arc::new(AtomicBool::new(false));
    let looking = tokio::task::spawn_blocking({
        let (store, over) = (pair.world.path("gateway/gateway.db"), Arc::clone(&over));
        move || watch_store(&store, &over)
    });
    let mut racers = JoinSet::new();
    for n in 0..SUBMITTERS {
        let rng = StdRng::seed_from_u64(seed ^ (100 + n));
        let session = track.sessions[n as usize % 2].clone();
        racers.spawn(submit(pair.sdk_gateway(&alice.access_token), rng, session, Arc::clone(&track)));
    }
    for n in 0..ATTACHERS {
        let rng = StdRng::seed_from_u64(seed ^ (200 + n));
        racers.spawn(attach(pair.sdk_gateway(&alice.access_token), rng, Arc::clone(&track)));
    }
    within("the end of the race", async {
        while let Some(racer) = racers.join_next().await {
            racer.expect("no racer panics");
        }
    })
    .await;
    come_to_rest(&gateway, &track).await;
    let took = began.elapsed();
    stop.send_replace(true);
    within("the end of the workers", async {
        while let Some(worker) = workers.join_next().await {
            worker.expect("no worker panics");
        }
    })
    .await;
    over.store(true, Ordering::Relaxed);
    let seen = looking.await.expect("I1 and I3 hold in the store");
    judge(&pair, &alice, &track, seed, (took, seen)).await;
}

async fn lay(pair: &Pair, gateway: &Gateway, alice: &interlock_client::OwnerSession) -> Track {
    for agent in AGENTS {
        gateway.agents().set(agent, SetAgent::default()).await.expect("an agent");
    }
    let projects = [pair.project(alice, "left").await, pair.project(alice, "right").await];
    let mut sessions = Vec::new();
    for (n, project) in projects.iter().enumerate() {
        let session = gateway.sessions().create("").await.expect("a session").session.session_id;
        gateway.sessions().attach(&session, AGENTS[n], project).await.expect("all is idle");
        sessions.push(session);
    }
    let times = if std::env::var_os("INTERLOCK_LONG").is_some() { 10 } else { 1 };
    Track {
        sessions: sessions.try_into().expect("two"),
        projects,
        tally: Tally::default(),
        attaches: ATTACHES * times,
        attached: watch::Sender::new(0),
        queued: watch::Sender::new(0),
        evidence: Mutex::default(),
        last: Mutex::new([(0, 0), (1, 1)]),
    }
}

async fn submit(gateway: Gateway, mut rng: StdRng, session: String, track: Arc<Track>) {
    let jobs = gateway.jobs();
    let tally = &track.tally;
    for _ in 0..SUBMITS_MAX {
        // Where refusals are ahead, jobs come to an end until attaches have caught up.
        let mut attached = track.attached.subscribe();
        while !track.over() && tally.busy() > tally.changed() + AHEAD {
            let _ = tokio::time::timeout(QUIET, attached.changed()).await;
        }
        if track.over() {
            return;
        }
        let to = if rng.random_bool(0.9) { &track.sessions[track.hot()] } else { &session };
        match jobs.submit(to, "race").await {
            Ok(job) => {
                tally.submitted.fetch_add(1, Ordering::Relaxed);
                track.queued.send_modify(|n| *n += 1);
                if rng.random_bool(0.5) {
                    jobs.wait(&job.job_id).await.expect("an own job can be waited for");
                }
            }
            Err(refused) => {
                let busy = refused
                    .busy()
                    .unwrap_or_else(|| panic!("a submit is refused for nothing else: {refused}"));
                assert_eq!(busy.kind, BusyKind::Project, "{refused}");
                tally.submit_busy.fetch_add(1, Ordering::Relaxed);
                track.evidence.lock().expect("no racer panics").push(busy.clone());
            }
        }
    }
}

async fn attach(gateway: Gateway, mut rng: StdRng, track: Arc<Track>) {
    let sessions = gateway.sessions();
    let tally = &track.tally;
    while !track.over() {
        // Where successes are ahead, the next one meets a job that was just queued.
        if tally.changed() > tally.busy() + AHEAD {
            let mut queued = track.queued.subscribe();
            let _ = tokio::time::timeout(QUIET, queued.changed()).await;
        }
        let (session, agent, project) = track.target(&mut rng);
        match sessions.attach(session, agent, project).await {
            Ok(attached) => {
                let binding = attached.session.binding.expect("it is bound");
                assert_eq!((binding.agent_id.as_str(), binding.project_id.as_str()), (agent, project));
                track.note(session, agent, project);
                let which = if attached.changed { &tally.changed } else { &tally.same };
                which.fetch_add(1, Ordering::Relaxed);
            }
            Err(refused) => {
                assert_eq!(refused.reason(), Some(Reason::SessionBusy), "{refused}");
                let busy = refused.busy().expect("SESSION_BUSY explains itself");
                let which = match busy.kind {
                    BusyKind::Rebind => &tally.rebind,
                    BusyKind::Project => &tally.project,
                    BusyKind::Unknown => panic!("{refused}"),
                };
                which.fetch_add(1, Ordering::Relaxed);
                assert!(busy.queued + busy.running > 0, "busy with nothing: {busy:?}");
                assert!(refused.retry_after().is_some(), "{refused}");
                track.evidence.lock().expect("no racer panics").push(busy.clone());
            }
        }
        track.attached.send_modify(|n| *n += 1);
    }
}

/// A worker on the bare wire: takes, tells, finishes, and at times gives all back and comes again.
async fn work(
    channel: Channel,
    metadata: Metadata,
    mut rng: StdRng,
    track: Arc<Track>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let (asks, mut says) = hello(&channel, &metadata, &mut rng).await;
        loop {
            let said = tokio::select! {
                said = says.message() => said.expect("a worker's stream lives"),
                _ = stopped.wait_for(|stop| *stop) => {
                    asks.send(ask(Ask::Goodbye(Goodbye {}))).expect("open");
                    return;
                }
            };
            match said.and_then(|said| said.message) {
                None => break,
                Some(Say::Assignment(assignment)) => {
                    let held = assignment.held;
                    if rng.random_bool(0.03) {
                        track.tally.goodbyes.fetch_add(1, Ordering::Relaxed);
                        asks.send(ask(Ask::Goodbye(Goodbye {}))).expect("open");
                        continue;
                    }
                    if rng.random_bool(0.2) {
                        let progress = Progress { held: held.clone(), number: 1, data: "half".into() };
                        asks.send(ask(Ask::Progress(progress))).expect("open");
                    }
                    let state = if rng.random_bool(0.9) { JobState::Succeeded } else { JobState::Failed };
                    let finish =
                        Finish { held, state: state.into(), result: "done".into(), cause: String::new() };
                    // After a goodbye the stream is closing: those jobs go back.
                    let _ = asks.send(ask(Ask::Finish(finish)));
                }
                Some(Say::Finished(_)) => {
                    track.tally.finished.fetch_add(1, Ordering::Relaxed);
                }
                Some(Say::Draining(_)) => panic!("nobody drains"),
                Some(_) => {}
            }
        }
    }
}

type Asks = mpsc::UnboundedSender<WorkRequest>;

async fn hello(channel: &Channel, metadata: &Metadata, rng: &mut StdRng) -> (Asks, Streaming<WorkResponse>) {
    let (asks, out) = mpsc::unbounded_channel();
    let agent_ids = AGENTS.map(str::to_owned).to_vec();
    let capacity = rng.random_range(1..=4);
    let hello = Hello { worker: "racer".to_owned(), agent_ids, capacity, held: Vec::new() };
    asks.send(ask(Ask::Hello(hello))).expect("open");
    let request = metadata.on(UnboundedReceiverStream::new(out));
    let says = WorkerServiceClient::new(channel.clone()).work(request).await;
    (asks, says.expect("alice serves her agents").into_inner())
}

fn ask(message: Ask) -> WorkRequest {
    WorkRequest { message: Some(message) }
}

/// I4: when nothing is in flight any more, the next attach succeeds.
async fn come_to_rest(gateway: &Gateway, track: &Track) {
    for session in &track.sessions {
        eventually("the end of the last job", async || {
            gateway.jobs().list(session, true).await.expect("its jobs").is_empty().then_some(())
        })
        .await;
    }
    for session in &track.sessions {
        for (agent, project) in [(AGENTS[0], &track.projects[1]), (AGENTS[1], &track.projects[0])] {
            gateway.sessions().attach(session, agent, project).await.expect("I4: nothing is in flight");
        }
    }
}

/// Looks at the store itself while they race, as another process may: each look is of one instant. I1: no
/// agent has jobs in flight in two projects. I3: every job in flight is under its session's binding. How many
/// looks there were, and how many saw a job in flight.
fn watch_store(store: &Path, over: &AtomicBool) -> (usize, usize) {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let store = rusqlite::Connection::open_with_flags(store, flags).expect("the store");
    store.busy_timeout(PATIENCE).expect("a time-out");
    let mut look = store
        .prepare(
            "SELECT (SELECT COUNT(*) FROM job WHERE state < 2),
                    (SELECT COUNT(*) FROM (SELECT agent FROM job WHERE state < 2
                                           GROUP BY agent HAVING COUNT(DISTINCT project) > 1)),
                    (SELECT COUNT(*) FROM job JOIN session ON session.id = job.session
                     WHERE job.state < 2 AND (job.agent, job.project, job.epoch)
                           IS NOT (session.agent, session.project, session.epoch))",
        )
        .expect("the tables of the store");
    let (mut looks, mut busy) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        let seen = look.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let (in_flight, torn, strayed): (i64, i64, i64) = seen.expect("a look");
        assert_eq!(torn, 0, "I1: agents with jobs in flight in two projects");
        assert_eq!(strayed, 0, "I3: jobs in flight under another binding than their session's");
        looks += 1;
        busy += usize::from(in_flight > 0);
        // Not all of a processor: they race meanwhile.
        std::thread::sleep(LOOK);
    }
    (looks, busy)
}

async fn judge(
    pair: &Pair,
    alice: &interlock_client::OwnerSession,
    track: &Track,
    seed: u64,
    (took, (snapshots, busy_snapshots)): (Duration, (usize, usize)),
) {
    let (channel, metadata) = (pair.gateway_public(), Metadata::bearer(&alice.access_token));
    let mut stories = Vec::new();
    for session in &track.sessions {
        stories.push(tell(session, &read_log(&channel, &metadata, session).await));
    }
    check_together(&stories);
    let project_of: BTreeMap<&str, &str> = stories
        .iter()
        .flat_map(|story| story.jobs.values())
        .map(|job| (job.job_id.as_str(), job.binding.project_id.as_str()))
        .collect();
    let evidence = track.evidence.lock().expect("no racer panics");
    let mut named = 0;
    for busy in evidence.iter() {
        let projects: BTreeSet<_> = busy.jobs.iter().map(|job| project_of[job.job_id.as_str()]).collect();
        assert!(projects.len() <= 1, "I1: at one instant in {projects:?}: {busy:?}");
        named += busy.jobs.len();
    }
    let tally = &track.tally;
    let count = |n: &AtomicUsize| n.load(Ordering::Relaxed);
    let jobs: usize = stories.iter().map(|story| story.jobs.len()).sum();
    assert_eq!(jobs, count(&tally.submitted), "what was acknowledged is in the logs, and nothing else");
    assert!(stories.iter().all(|s| s.jobs.values().all(|job| job.ended.is_some())), "every job has ended");
    let (attaches, changed, busy) = (tally.attaches(), tally.changed(), tally.busy());
    println!(
        "seed {seed}, {:.1} s: {attaches} attaches ({changed} changed, {} the same, {} REBIND, {} PROJECT), {jobs} jobs \
         ({} submits refused, {} finishes, {} goodbyes), {} events, {} pieces of evidence that name {named} jobs, \
         {snapshots} snapshots of the store ({busy_snapshots} of them with jobs in flight), 0 violations",
        took.as_secs_f64(),
        count(&tally.same),
        count(&tally.rebind),
        count(&tally.project),
        count(&tally.submit_busy),
        count(&tally.finished),
        count(&tally.goodbyes),
        stories.iter().map(|story| story.events).sum::<usize>(),
        evidence.len(),
    );
    assert!(busy_snapshots > 0, "the store was never seen with a job in flight");
    assert!(5 * changed >= attaches, "unbalanced: too few attaches succeeded; the run finds nothing");
    assert!(count(&tally.rebind) > 0 && count(&tally.project) > 0, "unbalanced: one kind of refusal only");
    assert!(5 * busy >= attaches, "unbalanced: too few attaches were busy; the run finds nothing");
}
