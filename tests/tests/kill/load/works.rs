//! Jobs that real workers run: `interlock worker run` with a program that writes real files.
//!
//! Each attempt leaves its fencing token in the job's file and its payload as the job's result.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use interlock_client::{Gateway, Job, JobState, OwnerSession, SetAgent};
use interlock_tests::{
    Pair, eventually,
    home::{Hand, Home},
    story::{Story, read_log, tell},
    wire::Metadata,
    within,
};
use tokio::{sync::Mutex as AsyncMutex, task::JoinSet};

use super::{again_after, was_away};

const AGENT: &str = "works";
const ELSEWHERE: &str = "elsewhere";
const HANDS: usize = 2;
const CAPACITY: u32 = 3;
/// Jobs that wait or run at once.
const OUTSTANDING: usize = 8;

struct Shared {
    gateway: Gateway,
    session: String,
    /// Request id and job id.
    queued: Mutex<Vec<(String, String)>>,
    ended: AtomicUsize,
    over: AtomicBool,
}

/// The load.
pub(crate) struct Works {
    shared: Arc<Shared>,
    alice: OwnerSession,
    project: String,
    home: Home,
    /// The files of the jobs.
    files: PathBuf,
    hands: Vec<Hand>,
    task: AsyncMutex<JoinSet<()>>,
}

impl Works {
    pub(crate) async fn begin(pair: &Pair, alice: &OwnerSession, project: &str) -> Self {
        let gateway = pair.sdk_gateway(&alice.access_token);
        for agent in [AGENT, ELSEWHERE] {
            gateway.agents().set(agent, SetAgent::default()).await.expect("an agent");
        }
        let session = gateway.sessions().create("").await.expect("a session").session.session_id;
        gateway.sessions().attach(&session, AGENT, project).await.expect("idle");
        let home = Home::of(pair);
        home.keep(alice);
        let files = home.path("files");
        std::fs::create_dir(&files).expect("a folder");
        let shared = Arc::new(Shared {
            gateway,
            session,
            queued: Mutex::default(),
            ended: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let mut task = JoinSet::new();
        task.spawn(submit(Arc::clone(&shared)));
        let (alice, project) = (alice.clone(), project.to_owned());
        let mut works =
            Self { shared, alice, project, home, files, hands: Vec::new(), task: AsyncMutex::new(task) };
        for n in 0..HANDS {
            works.hands.push(works.hand(n));
        }
        works
    }

    fn hand(&self, n: usize) -> Hand {
        let script = format!(
            "read -r it; echo \"$INTERLOCK_FENCING_TOKEN\" >> '{}'/\"$INTERLOCK_JOB_ID\"; echo \"$it\"",
            self.files.display()
        );
        Hand::start(&self.home, AGENT, &format!("hand-{n}"), CAPACITY, &script)
    }

    /// How many jobs have ended.
    pub(crate) fn ended(&self) -> usize {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// Kills a worker and starts another in its place.
    pub(crate) fn kill(&mut self, n: usize) {
        self.hands[n % HANDS].kill();
        self.hands[n % HANDS] = self.hand(n % HANDS);
    }

    /// Submits no more, and waits until every job has ended.
    pub(crate) async fn end(&self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let mut task = self.task.lock().await;
        while let Some(ended) = within("the last job", task.join_next()).await {
            ended.expect("no load panics");
        }
    }

    /// I5, I6, I7: each acknowledged job is there once, ended once, by its last attempt; no attempt's program
    /// ran twice. What there was.
    pub(crate) async fn check(&self, pair: &Pair) -> String {
        let queued = self.shared.queued.lock().expect("no load panics").clone();
        let story = self.story(pair).await;
        assert_eq!(story.jobs.len(), queued.len(), "I7: one job for each request id");
        let (mut attempts, mut programs) = (0, 0);
        for (request_id, job_id) in &queued {
            let jobs = self.shared.gateway.jobs();
            let again = jobs.submit_as(&self.shared.session, request_id, request_id.clone()).await;
            assert_eq!(&again.expect("a retry is answered").job_id, job_id, "I7: {request_id}");
            let job = jobs.get(job_id).await.expect("I6: an acknowledged job");
            let told = &story.jobs[job_id];
            assert_eq!((told.attempt, told.ended.is_some()), (job.attempt, true), "{job:?}: {told:?}");
            attempts += job.attempt;
            programs += self.check_files(&job, request_id);
        }
        let listed = self.shared.gateway.jobs().list(&self.shared.session, false).await.expect("its jobs");
        assert_eq!(listed.len(), queued.len(), "I7");
        format!("{} jobs in {attempts} attempts, {programs} programs run", queued.len())
    }

    async fn story(&self, pair: &Pair) -> Story {
        let (channel, metadata) = (pair.gateway_public(), Metadata::bearer(&self.alice.access_token));
        tell(&self.shared.session, &read_log(&channel, &metadata, &self.shared.session).await)
    }

    /// The job succeeded by its last attempt, and each attempt's program ran at most once, in their order.
    fn check_files(&self, job: &Job, payload: &str) -> u32 {
        assert_eq!(job.state, JobState::Succeeded, "{job:?}: {}", job.cause);
        assert_eq!(&job.result[..], format!("{payload}\n").as_bytes(), "{job:?}");
        let text = std::fs::read_to_string(self.files.join(&job.job_id)).expect("its program ran");
        let tokens: Vec<u32> = text.lines().map(|line| line.parse().expect("a token")).collect();
        assert!(tokens.windows(2).all(|two| two[0] < two[1]), "{job:?}: an attempt ran twice: {tokens:?}");
        assert_eq!(tokens.last(), Some(&job.attempt), "{job:?}: {tokens:?}");
        u32::try_from(tokens.len()).expect("few")
    }

    /// I4: every worker is killed with a job in its hands; the job is cancelled, and as soon as its lease is over
    /// the session can be attached elsewhere. How long that took, from the kill on.
    pub(crate) async fn attachable_after_the_death_of_all(&mut self, pair: &Pair) -> Duration {
        let gateway = pair.sdk_gateway(&self.alice.access_token);
        let held = self.home.path("held");
        let script = format!("touch '{}'; exec sleep 600", held.display());
        for hand in &mut self.hands {
            hand.kill();
        }
        self.hands = vec![Hand::start(&self.home, AGENT, "last", 1, &script)];
        let job = gateway.jobs().submit(&self.shared.session, "hold").await.expect("a job").job_id;
        eventually("a running program", async || held.exists().then_some(())).await;
        let died = Instant::now();
        self.hands[0].kill();
        gateway.jobs().cancel(&job).await.expect("asked");
        let session = &self.shared.session;
        eventually("an attach after the last job", async || {
            match gateway.sessions().attach(session, ELSEWHERE, &self.project).await {
                Ok(attached) => {
                    assert!(attached.changed);
                    Some(())
                }
                Err(refused) => {
                    assert!(refused.is_busy(), "{refused}");
                    None
                }
            }
        })
        .await;
        let took = died.elapsed();
        let ended = gateway.jobs().get(&job).await.expect("it was acknowledged");
        assert_eq!(ended.state, JobState::Cancelled, "{ended:?}");
        let _ = self.story(pair).await;
        took
    }
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
            loop {
                match jobs.wait(&job).await {
                    Ok(_) => break,
                    Err(error) if was_away(&error) => again_after(&error).await,
                    Err(error) => panic!("a wait is refused for nothing: {error}"),
                }
            }
            shared.ended.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let request_id = format!("work-{i}");
        let job = loop {
            match jobs.submit_as(&shared.session, &request_id, request_id.clone()).await {
                Err(error) if was_away(&error) => again_after(&error).await,
                job => break job.expect("a submit is refused for nothing"),
            }
        };
        shared.queued.lock().expect("nobody panics with it").push((request_id, job.job_id.clone()));
        outstanding.push_back(job.job_id);
    }
}
