//! Jobs that real workers run: `interlock worker run` with a program that writes real files.
//!
//! Each attempt leaves its fencing token in the job's file and its payload as the job's result. A client follows the
//! session's log all the time, and when all is over everything that was ever said of an end is said again.

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
use interlock_proto::gateway::v1::{
    self as proto, Event, Held,
    work_request::{Message as Ask, Progress},
    work_response::Message as Say,
};
use interlock_tests::{
    Pair, eventually,
    follow::Follower,
    home::{Hand, Home},
    line::Line,
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
/// What the program of a worker that may drain takes: long enough for a drain to find it at work.
const AT_WORK: &str = "sleep 0.05; ";
/// Longer than that program takes.
const DRAIN: &str = "30s";

/// How the workers end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// At once, with whatever they hold.
    Killed,
    /// When what they have begun is done.
    Drained,
}

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
    ends: Ends,
    follower: Follower,
    /// The files of the jobs.
    files: PathBuf,
    hands: Vec<Hand>,
    task: AsyncMutex<JoinSet<()>>,
}

impl Works {
    pub(crate) async fn begin(pair: &Pair, alice: &OwnerSession, project: &str, ends: Ends) -> Self {
        let gateway = pair.sdk_gateway(&alice.access_token);
        for agent in [AGENT, ELSEWHERE] {
            gateway.agents().set(agent, SetAgent::default()).await.expect("an agent");
        }
        let created = gateway.sessions().create("").await.expect("a session");
        let (session, cookie) = (created.session.session_id, created.cookie.expect("its host's"));
        gateway.sessions().attach(&session, AGENT, project).await.expect("idle");
        let follower = Follower::begin(pair.gateway_public(), cookie.expose(), &session);
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
        let (hands, task) = (Vec::new(), AsyncMutex::new(task));
        let mut works = Self { shared, alice, project, home, ends, follower, files, hands, task };
        for n in 0..HANDS {
            works.hands.push(works.hand(n));
        }
        works
    }

    fn hand(&self, n: usize) -> Hand {
        let (work, drain) = match self.ends {
            Ends::Killed => ("", "0s"),
            Ends::Drained => (AT_WORK, DRAIN),
        };
        let script = format!(
            "read -r it; {work}echo \"$INTERLOCK_FENCING_TOKEN\" >> '{}'/\"$INTERLOCK_JOB_ID\"; echo \"$it\"",
            self.files.display()
        );
        Hand::start_with(&self.home, AGENT, &format!("hand-{n}"), CAPACITY, drain, &script)
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

    /// Kills all workers.
    pub(crate) fn kill_all(&mut self) {
        self.hands.iter_mut().for_each(Hand::kill);
    }

    /// Starts all of them anew.
    pub(crate) fn start_all(&mut self) {
        self.hands = (0..HANDS).map(|n| self.hand(n)).collect();
    }

    /// Asks a worker to end, and starts another in its place.
    pub(crate) async fn drain(&mut self, n: usize) {
        self.hands[n % HANDS].drain().await;
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

    /// I3, I5, I6, I7, I15: each acknowledged job is there once, ended once, by its last attempt; no attempt's program
    /// ran twice, and of workers that were let end none was begun that did not end; the client that followed has seen
    /// each event once; and what is said again changes nothing. What there was.
    pub(crate) async fn check(&mut self, pair: &Pair) -> String {
        let queued = self.shared.queued.lock().expect("no load panics").clone();
        let story = self.story(pair).await;
        let breaks = self.follower.reaches(story.events as u64).await;
        assert_eq!(story.jobs.len(), queued.len(), "I7: one job for each request id");
        let (mut attempts, mut programs, mut ended) = (0, 0, Vec::new());
        for (request_id, job_id) in &queued {
            let jobs = self.shared.gateway.jobs();
            let again = jobs.submit_as(&self.shared.session, request_id, request_id.clone()).await;
            assert_eq!(&again.expect("a retry is answered").job_id, job_id, "I7: {request_id}");
            let job = jobs.get(job_id).await.expect("I6: an acknowledged job");
            let told = &story.jobs[job_id];
            assert_eq!((told.attempt, told.ended.is_some()), (job.attempt, true), "{job:?}: {told:?}");
            attempts += job.attempt;
            programs += self.check_files(&job, request_id);
            ended.push(job);
        }
        let listed = self.shared.gateway.jobs().list(&self.shared.session, false).await.expect("its jobs");
        assert_eq!(listed.len(), queued.len(), "I7");
        let said_again = self.say_all_again(pair, &ended).await;
        format!(
            "{} jobs in {attempts} attempts, {programs} programs run; {} events followed over {} broken streams, {} of \
             them read on from the cursor; {said_again}",
            queued.len(),
            story.events,
            breaks.ended,
            breaks.by_cursor
        )
    }

    /// I5: all that may ever be said of these jobs comes again, late: from each attempt's worker, and from somebody else's.
    /// The last word of the attempt that ended a job is answered as it was; all else has lost its lease. Nothing changes.
    async fn say_all_again(&self, pair: &Pair, jobs: &[Job]) -> String {
        let before = self.log(pair).await;
        let bob = pair.login("bob").await;
        let his = pair.sdk_gateway(&bob.access_token).agents().set("his", SetAgent::default()).await;
        his.expect("an agent");
        let (alice, bob) = (&self.alice.access_token, &bob.access_token);
        let mut own = Line::open(pair.gateway_public(), &Metadata::bearer(alice), AGENT, Vec::new()).await;
        let mut foreign = Line::open(pair.gateway_public(), &Metadata::bearer(bob), "his", Vec::new()).await;
        let (mut as_before, mut lost) = (0, 0);
        for job in jobs {
            let held = |attempt: u32| Held { job_id: job.job_id.clone(), fencing_token: attempt.into() };
            let last = held(job.attempt);
            own.finish(&last, proto::JobState::Succeeded, &String::from_utf8_lossy(&job.result));
            assert!(matches!(own.said().await, Say::Finished(_)), "{job:?}: the same again");
            as_before += 1;
            own.finish(&last, proto::JobState::Failed, "otherwise");
            own.finish(&last, proto::JobState::Succeeded, "another result");
            let line = Progress { held: Some(last.clone()), number: 1, data: "late".into() };
            own.ask(Ask::Progress(line));
            foreign.finish(&last, proto::JobState::Succeeded, "foreign");
            let mut answers =
                vec![own.said().await, own.said().await, own.said().await, foreign.said().await];
            for earlier in 1..job.attempt {
                own.finish(&held(earlier), proto::JobState::Succeeded, "stale");
                answers.push(own.said().await);
            }
            let refused = answers.iter().filter(|said| matches!(said, Say::LeaseLost(_))).count();
            assert_eq!(refused, answers.len(), "I5: {job:?}: {answers:?}");
            lost += refused;
            let now = self.shared.gateway.jobs().get(&job.job_id).await.expect("the job");
            assert_eq!(&now, job, "I5: an end is final");
        }
        assert_eq!(self.log(pair).await, before, "I5: what was said late is in the log");
        format!("{as_before} ends said again and answered as before, {lost} stale or foreign ones refused")
    }

    async fn story(&self, pair: &Pair) -> Story {
        tell(&self.shared.session, &self.log(pair).await)
    }

    async fn log(&self, pair: &Pair) -> Vec<Event> {
        let (channel, metadata) = (pair.gateway_public(), Metadata::bearer(&self.alice.access_token));
        read_log(&channel, &metadata, &self.shared.session).await
    }

    /// The job succeeded by its last attempt, and each attempt's program ran at most once, in their order; where no worker
    /// died, once in all.
    fn check_files(&self, job: &Job, payload: &str) -> u32 {
        assert_eq!(job.state, JobState::Succeeded, "{job:?}: {}", job.cause);
        assert_eq!(&job.result[..], format!("{payload}\n").as_bytes(), "{job:?}");
        let text = std::fs::read_to_string(self.files.join(&job.job_id)).expect("its program ran");
        let tokens: Vec<u32> = text.lines().map(|line| line.parse().expect("a token")).collect();
        assert!(tokens.windows(2).all(|two| two[0] < two[1]), "{job:?}: an attempt ran twice: {tokens:?}");
        assert_eq!(tokens.last(), Some(&job.attempt), "{job:?}: {tokens:?}");
        if self.ends == Ends::Drained {
            assert_eq!(tokens.len(), 1, "{job:?}: work that was done is done again: {tokens:?}");
        }
        u32::try_from(tokens.len()).expect("few")
    }

    /// I4: every worker is killed with a job in its hands; the job is cancelled, and as soon as its lease is over
    /// the session can be attached elsewhere. How long that took, from the kill on.
    pub(crate) async fn attachable_after_the_death_of_all(&mut self, pair: &Pair) -> Duration {
        let gateway = pair.sdk_gateway(&self.alice.access_token);
        let held = self.home.path("held");
        let script = format!("touch '{}'; exec sleep 600", held.display());
        self.kill_all();
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
