//! Work that goes on while something is broken: one submits, the SDK's worker runs what was submitted, and a
//! stream of alice's delivers it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use interlock_client::{Error, Gateway, JobState, Outcome, OwnerSession, SetAgent, Task, Worker};
use interlock_tests::{
    Pair, eventually,
    history::Watch,
    story::{read_log, tell},
    wire::Metadata,
    within,
};
use tokio::{sync::watch, task::JoinSet};

const AGENT: &str = "shift";
const OUTSTANDING: usize = 4;
/// Before a call is made again that could not be made.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two jobs: the log is kept in memory here.
const PACE: Duration = Duration::from_millis(10);

struct Shared {
    gateway: Gateway,
    session: String,
    /// Request id and job id.
    queued: Mutex<Vec<(String, String)>>,
    ended: AtomicUsize,
    over: AtomicBool,
}

/// The work.
pub(crate) struct Shift {
    shared: Arc<Shared>,
    alice: OwnerSession,
    stream: Watch,
    tasks: JoinSet<()>,
    close: watch::Sender<bool>,
}

impl Shift {
    pub(crate) async fn begin(pair: &Pair, alice: &OwnerSession) -> Self {
        let project = pair.project(alice, AGENT).await;
        let gateway = pair.sdk_gateway(&alice.access_token);
        gateway.agents().set(AGENT, SetAgent::default()).await.expect("an agent");
        let session = gateway.sessions().create("").await.expect("a session").session.session_id;
        gateway.sessions().attach(&session, AGENT, &project).await.expect("idle");
        let metadata = Metadata::bearer(&alice.access_token);
        let stream = Watch::open(&pair.gateway_public(), &metadata, &session).await;
        let shared = Arc::new(Shared {
            gateway: gateway.clone(),
            session,
            queued: Mutex::default(),
            ended: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let (close, mut closed) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(submit(Arc::clone(&shared)));
        tasks.spawn(async move {
            let worker = Worker::new(gateway, vec![AGENT.to_owned()], 2, "shift");
            let asked = async move { drop(closed.wait_for(|close| *close).await) };
            worker.run(run, asked).await.expect("a worker survives what is not its fault");
        });
        let shift = Self { shared, alice: alice.clone(), stream, tasks, close };
        shift.goes_on().await;
        shift
    }

    /// How many jobs have ended.
    pub(crate) fn ended(&self) -> usize {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// Waits until another few jobs have ended.
    pub(crate) async fn goes_on(&self) {
        let target = self.ended() + 2 * OUTSTANDING;
        eventually("work that goes on", async || (self.ended() >= target).then_some(())).await;
    }

    /// Ends it, and judges it: each job there once, ended well once, and each event delivered once and in order.
    /// How many jobs there were, and attempts.
    pub(crate) async fn end(mut self, pair: &Pair) -> (usize, u32) {
        self.shared.over.store(true, Ordering::Relaxed);
        within("the last job", self.tasks.join_next()).await.expect("two tasks").expect("no panic");
        self.close.send_replace(true);
        within("the worker's end", self.tasks.join_next()).await.expect("one task").expect("no panic");
        let queued = self.shared.queued.lock().expect("no panic").clone();
        let (channel, metadata) = (pair.gateway_public(), Metadata::bearer(&self.alice.access_token));
        let log = read_log(&channel, &metadata, &self.shared.session).await;
        let story = tell(&self.shared.session, &log);
        assert_eq!(story.jobs.len(), queued.len(), "I7: one job for each request id");
        let mut attempts = 0;
        for (request_id, job_id) in &queued {
            let told = story.jobs.get(job_id).unwrap_or_else(|| panic!("I6: lost: {job_id}"));
            assert_eq!(told.ended.map(|(_, how)| how.as_str_name()), Some("JOB_STATE_SUCCEEDED"), "{told:?}");
            attempts += told.attempt;
            let jobs = self.shared.gateway.jobs();
            let again = jobs.submit_as(&self.shared.session, request_id, request_id.clone()).await;
            assert_eq!(&again.expect("a retry is answered").job_id, job_id, "I7: {request_id}");
        }
        eventually("the whole log on the stream", async || {
            (self.stream.seen().len() >= log.len()).then_some(())
        })
        .await;
        assert_eq!(self.stream.in_order(), log.len());
        assert!(!self.stream.has_ended(), "the stream went on all the time");
        (queued.len(), attempts)
    }
}

async fn run(task: Task) -> Outcome {
    // A lost lease is seen by the judge: such an attempt has no further say.
    let _ = task.progress("half").await;
    tokio::time::sleep(PACE).await;
    Outcome::Succeeded { result: task.payload().clone() }
}

async fn submit(shared: Arc<Shared>) {
    let jobs = shared.gateway.jobs();
    let mut outstanding = VecDeque::new();
    for i in 0.. {
        let over = shared.over.load(Ordering::Relaxed);
        if over && outstanding.is_empty() {
            return;
        }
        if over || outstanding.len() >= OUTSTANDING {
            let job: String = outstanding.pop_front().expect("there are some");
            let ended = answered(|| jobs.wait(&job)).await;
            assert_eq!(ended.state, JobState::Succeeded, "{ended:?}: {}", ended.cause);
            shared.ended.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let request_id = format!("shift-{i}");
        let submit = || jobs.submit_as(&shared.session, &request_id, request_id.clone());
        let job_id = answered(submit).await.job_id;
        shared.queued.lock().expect("no panic").push((request_id.clone(), job_id.clone()));
        outstanding.push_back(job_id);
        tokio::time::sleep(PACE).await;
    }
}

/// Makes the call until it is answered: what is away now is not gone, and signs nobody out.
async fn answered<T, F: Future<Output = Result<T, Error>>>(call: impl Fn() -> F) -> T {
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => {
                let away = error.is_transport() || error.is_unavailable();
                assert!(away, "refused for nothing: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
