//! Submits with request ids, attaches and new sessions, as fast as they are answered.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures_util::{StreamExt as _, stream};
use interlock_client::{Error, Gateway, OwnerSession};
use interlock_tests::{
    Pair,
    story::{read_log, tell},
    wire::Metadata,
};
use tokio::{sync::Mutex as AsyncMutex, task::JoinSet};

use super::{again_after, was_away};

/// The first one has a queue that nobody works on; a session moves between the others.
pub(crate) const AGENTS: [&str; 3] = ["steady", "east", "west"];
const SUBMITTERS: usize = 4;
/// Looks at once.
const LOOKS: usize = 32;

/// An answer to a submit.
#[derive(Clone, Debug)]
struct Queued {
    session: String,
    request_id: String,
    job_id: String,
}

#[derive(Default)]
struct Record {
    queued: Vec<Queued>,
    /// Session and epoch, with the agent.
    attached: Vec<(String, u64, String)>,
    created: Vec<String>,
    /// So many of each were looked at.
    seen: [usize; 3],
}

struct Shared {
    gateway: Gateway,
    project: String,
    record: Mutex<Record>,
    acknowledged: AtomicUsize,
    asked_again: AtomicUsize,
    over: AtomicBool,
}

/// The load.
pub(crate) struct Submits {
    shared: Arc<Shared>,
    alice: OwnerSession,
    tasks: AsyncMutex<JoinSet<()>>,
}

impl Submits {
    pub(crate) async fn begin(pair: &Pair, alice: &OwnerSession, project: &str) -> Self {
        let gateway = pair.sdk_gateway(&alice.access_token);
        let shared = Arc::new(Shared {
            gateway: gateway.clone(),
            project: project.to_owned(),
            record: Mutex::default(),
            acknowledged: AtomicUsize::new(0),
            asked_again: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for n in 0..SUBMITTERS {
            let session = gateway.sessions().create("").await.expect("a session").session.session_id;
            gateway.sessions().attach(&session, AGENTS[0], project).await.expect("attached");
            tasks.spawn(submit(Arc::clone(&shared), session, n));
        }
        let mover = gateway.sessions().create("").await.expect("a session").session.session_id;
        tasks.spawn(attach(Arc::clone(&shared), mover));
        tasks.spawn(create(Arc::clone(&shared)));
        Self { shared, alice: alice.clone(), tasks: AsyncMutex::new(tasks) }
    }

    /// Who submits.
    pub(crate) fn alice(&self) -> &OwnerSession {
        &self.alice
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    pub(crate) fn asked_again(&self) -> usize {
        self.shared.asked_again.load(Ordering::Relaxed)
    }

    pub(crate) async fn end(&self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let mut tasks = self.tasks.lock().await;
        while let Some(task) = tasks.join_next().await {
            task.expect("no load panics");
        }
    }

    /// What was acknowledged since this was last asked is there, so that a look after each kill does not grow
    /// with the run.
    pub(crate) async fn check_new(&self) {
        let shared = &self.shared;
        let (queued, attached, created) = {
            let mut record = shared.record.lock().expect("no load panics");
            let [queued, attached, created] = record.seen;
            record.seen = [record.queued.len(), record.attached.len(), record.created.len()];
            (
                record.queued[queued..].to_vec(),
                record.attached[attached..].to_vec(),
                record.created[created..].to_vec(),
            )
        };
        let (jobs, sessions) = (shared.gateway.jobs(), shared.gateway.sessions());
        // Faster than jobs are submitted meanwhile, or each look would be longer than the one before.
        let looks = stream::iter(&queued).for_each_concurrent(LOOKS, async |job| {
            let found = answered(shared, || jobs.get(&job.job_id)).await;
            assert_eq!(found.expect("I6: an acknowledged job").session_id, job.session, "{job:?}");
        });
        looks.await;
        for session in created {
            answered(shared, || sessions.get(&session)).await.expect("I6: an acknowledged session");
        }
        if let Some((session, epoch, _)) = attached.last() {
            let found = answered(shared, || sessions.get(session)).await.expect("a session");
            let bound = found.binding.expect("it is bound").epoch;
            assert!(bound >= *epoch, "I6: epoch {epoch} was acknowledged, {bound} is there");
        }
    }

    /// Everything that was acknowledged before this call is there, in the rows and in the logs.
    pub(crate) async fn check_all(&self, pair: &Pair) -> String {
        let (queued, attached, created) = {
            let record = self.shared.record.lock().expect("no load panics");
            (record.queued.clone(), record.attached.clone(), record.created.clone())
        };
        let gateway = pair.sdk_gateway(&self.alice.access_token);
        let sessions = gateway.sessions().list().await.expect("her sessions");
        for session in &created {
            assert!(sessions.iter().any(|s| s.session_id == *session), "lost: session {session}");
        }
        let mut by_session: BTreeMap<&str, Vec<&Queued>> = BTreeMap::new();
        for job in &queued {
            by_session.entry(&job.session).or_default().push(job);
        }
        let (channel, metadata) = (pair.gateway_public(), Metadata::bearer(&self.alice.access_token));
        for (session, jobs) in by_session {
            let story = tell(session, &read_log(&channel, &metadata, session).await);
            let listed = gateway.jobs().list(session, false).await.expect("its jobs");
            for job in jobs {
                assert!(story.jobs.contains_key(&job.job_id), "lost: the event of {job:?}");
                assert!(listed.iter().any(|l| l.job_id == job.job_id), "lost: {job:?}");
            }
            // I7: nothing twice: every job of the log was acknowledged, or was under way.
            let known = queued.iter().filter(|job| job.session == session).count();
            assert!(story.jobs.len() >= known, "{session}: {} jobs, {known} acknowledged", story.jobs.len());
        }
        if let Some((session, ..)) = attached.first() {
            let story = tell(session, &read_log(&channel, &metadata, session).await);
            for (_, epoch, agent) in &attached {
                let binding = story.bindings.iter().find(|b| b.binding.epoch == *epoch);
                assert_eq!(
                    binding.map(|b| b.binding.agent_id.as_str()),
                    Some(agent.as_str()),
                    "lost: epoch {epoch}"
                );
            }
        }
        format!("{} jobs, {} attaches, {} sessions", queued.len(), attached.len(), created.len())
    }

    /// I7: each request id again gets the job that it got first, and no further job is made.
    pub(crate) async fn retry_everything(&self, pair: &Pair) -> usize {
        let queued = self.shared.record.lock().expect("no load panics").queued.clone();
        let gateway = pair.sdk_gateway(&self.alice.access_token);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for job in &queued {
            let again = gateway.jobs().submit_as(&job.session, &job.request_id, job.request_id.clone()).await;
            assert_eq!(again.expect("a retry is answered").job_id, job.job_id, "{job:?}");
            *counts.entry(job.session.clone()).or_default() += 1;
        }
        for (session, count) in counts {
            let listed = gateway.jobs().list(&session, false).await.expect("its jobs");
            assert_eq!(listed.len(), count, "one job for each request id");
        }
        queued.len()
    }
}

/// Makes the call until it is answered.
async fn answered<T, F: Future<Output = Result<T, Error>>>(
    shared: &Shared,
    call: impl Fn() -> F,
) -> Result<T, Error> {
    loop {
        match call().await {
            Err(error) if was_away(&error) => {
                shared.asked_again.fetch_add(1, Ordering::Relaxed);
                again_after(&error).await;
            }
            other => return other,
        }
    }
}

async fn submit(shared: Arc<Shared>, session: String, n: usize) {
    let jobs = shared.gateway.jobs();
    for i in 0.. {
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        let request_id = format!("s{n}-{i}");
        let job = answered(&shared, || jobs.submit_as(&session, &request_id, request_id.clone())).await;
        let job_id = job.expect("a submit is refused for nothing").job_id;
        let queued = Queued { session: session.clone(), request_id, job_id };
        shared.record.lock().expect("no load panics").queued.push(queued);
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

async fn attach(shared: Arc<Shared>, session: String) {
    let sessions = shared.gateway.sessions();
    for i in 0.. {
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        let agent = AGENTS[1 + i % 2];
        let attached = answered(&shared, || sessions.attach(&session, agent, &shared.project)).await;
        let session_now = attached.expect("nothing is in flight there").session;
        let epoch = session_now.binding.expect("it is bound").epoch;
        let entry = (session.clone(), epoch, agent.to_owned());
        shared.record.lock().expect("no load panics").attached.push(entry);
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

async fn create(shared: Arc<Shared>) {
    let sessions = shared.gateway.sessions();
    // Fewer than the quota.
    for _ in 0..500 {
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        let created = answered(&shared, || sessions.create("")).await;
        let session = created.expect("a session is refused for nothing").session.session_id;
        shared.record.lock().expect("no load panics").created.push(session);
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}
