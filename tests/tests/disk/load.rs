//! Small loads that know what was acknowledged. Each call is made until it is answered: with the same request
//! id, so that whatever became of the first, it is done once (I7).

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use interlock_client::{Code, Credentials, Error, OwnerSession, Reason, SetAgent};
use interlock_tests::{PATIENCE, Pair};
use tokio::task::JoinSet;

/// What was acknowledged: a kind, and what it takes to find it again.
pub(crate) type Mark = Vec<String>;

/// Where acknowledgements go.
pub(crate) type Told = Arc<dyn Fn(&[&str]) + Send + Sync>;

/// An answer that may be another one if it is asked for again.
pub(crate) fn is_passing(error: &Error) -> bool {
    error.is_transport()
        || matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
        || error.reason() == Some(Reason::RateLimited)
}

/// Makes the call until it is answered; how often it had to be made again is counted.
pub(crate) async fn answered<T, F: Future<Output = Result<T, Error>>>(
    again: &AtomicUsize,
    call: impl Fn() -> F,
) -> T {
    let asking = async {
        loop {
            match call().await {
                Ok(out) => return out,
                Err(error) if is_passing(&error) => {
                    again.fetch_add(1, Ordering::Relaxed);
                    match error.retry_after() {
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => tokio::task::yield_now().await,
                    }
                }
                Err(error) => panic!("refused for nothing: {error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("an answer within the bound")
}

/// A tally of marks beside what else is done with them.
pub(crate) fn tally(also: impl Fn(&[&str]) + Send + Sync + 'static) -> (Told, Arc<Mutex<Vec<Mark>>>) {
    let kept: Arc<Mutex<Vec<Mark>>> = Arc::default();
    let keep = Arc::clone(&kept);
    let told = move |mark: &[&str]| {
        keep.lock().expect("no load panics").push(mark.iter().map(|&word| word.to_owned()).collect());
        also(mark);
    };
    (Arc::new(told), kept)
}

/// The gateway's stage: an owner with a project, a session for each submitter and one that moves.
pub(crate) struct Stage {
    pub(crate) alice: OwnerSession,
    pub(crate) project: String,
    pub(crate) sessions: Vec<String>,
    pub(crate) mover: String,
    told: Told,
    pub(crate) again: Arc<AtomicUsize>,
    jobs: AtomicUsize,
}

pub(crate) const AGENTS: [&str; 3] = ["steady", "east", "west"];

impl Stage {
    pub(crate) async fn set(pair: &Pair, submitters: usize, told: Told) -> Self {
        let alice = pair.login("alice").await;
        let project = pair.project(&alice, "disk").await;
        let sdk = pair.sdk_gateway(&alice.access_token);
        for agent in AGENTS {
            sdk.agents().set(agent, SetAgent::default()).await.expect("an agent");
        }
        let mut sessions = Vec::new();
        for _ in 0..=submitters {
            let session = sdk.sessions().create("").await.expect("a session").session.session_id;
            told(&["session", &session]);
            sessions.push(session);
        }
        let mover = sessions.pop().expect("one more");
        for session in &sessions {
            sdk.sessions().attach(session, AGENTS[0], &project).await.expect("attached");
            told(&["attach", session, "1", AGENTS[0]]);
        }
        let (again, jobs) = (Arc::default(), AtomicUsize::new(0));
        Self { alice, project, sessions, mover, told, again, jobs }
    }

    /// So many jobs on each session at once, and as many moves of the one that moves.
    pub(crate) async fn run(&self, pair: &Pair, each: usize) {
        let sdk = pair.sdk_gateway(&self.alice.access_token);
        let first = self.jobs.fetch_add(each, Ordering::Relaxed);
        let mut tasks = JoinSet::new();
        for session in self.sessions.clone() {
            let (jobs, told, again) = (sdk.jobs(), Arc::clone(&self.told), Arc::clone(&self.again));
            tasks.spawn(async move {
                for n in first..first + each {
                    let request = format!("r{n}");
                    let job = answered(&again, || jobs.submit_as(&session, &request, request.clone())).await;
                    told(&["job", &session, &request, &job.job_id]);
                }
            });
        }
        let (sessions, told, again) = (sdk.sessions(), Arc::clone(&self.told), Arc::clone(&self.again));
        let (mover, project) = (self.mover.clone(), self.project.clone());
        tasks.spawn(async move {
            for n in first..first + each {
                let agent = AGENTS[1 + n % 2];
                let moved = answered(&again, || sessions.attach(&mover, agent, &project)).await;
                let epoch = moved.session.binding.expect("bound").epoch.to_string();
                told(&["attach", &mover, &epoch, agent]);
            }
        });
        while let Some(task) = tasks.join_next().await {
            task.expect("no load panics");
        }
    }
}

const OWNERS: [&str; 3] = ["w0", "w1", "w2"];

/// Auth's load: sign-ins, refreshes, projects, every second time a sign-out; and rotations.
pub(crate) struct Accounts {
    told: Told,
    pub(crate) again: Arc<AtomicUsize>,
    projects: AtomicUsize,
}

impl Accounts {
    pub(crate) fn new(told: Told) -> Self {
        Self { told, again: Arc::default(), projects: AtomicUsize::new(0) }
    }

    /// So many sign-ins of each owner, at once, and a rotation of the role `user`.
    pub(crate) async fn run(&self, pair: &Pair, each: usize) {
        let first = self.projects.fetch_add(each, Ordering::Relaxed);
        let mut tasks = JoinSet::new();
        for owner in OWNERS {
            let (auth, password) = (pair.sdk_auth(), pair.world.password(owner).to_owned());
            let (told, again) = (Arc::clone(&self.told), Arc::clone(&self.again));
            tasks.spawn(async move {
                for n in first..first + each {
                    let mut session = answered(&again, || auth.login(owner, &password)).await;
                    let id = session.owner_session_id.clone();
                    told(&["login", &id]);
                    for times in 1..=2 {
                        session = answered(&again, || auth.refresh(&session)).await;
                        told(&["refresh", &id, &times.to_string()]);
                    }
                    let as_owner =
                        auth.clone().with_credentials(Credentials::bearer(session.access_token.clone()));
                    make_project(&as_owner, &format!("{owner}-{n}"), &told, &again).await;
                    if n % 2 == 1 {
                        answered(&again, || auth.logout(&session.access_token)).await;
                        told(&["logout", &id]);
                    }
                }
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.expect("no load panics");
        }
    }

    /// A new token for the role `user`, at once.
    pub(crate) async fn rotate(&self, pair: &Pair) {
        let auth = pair.sdk_auth_as(&pair.admin());
        let rotated =
            answered(&self.again, || auth.rotate_role_token("user", std::time::Duration::ZERO)).await;
        (self.told)(&["rotated", &rotated.generation.to_string()]);
    }
}

/// A retry here has a request id of its own: so the name may be taken by a try whose answer was lost.
async fn make_project(auth: &interlock_client::Auth, name: &str, told: &Told, again: &AtomicUsize) {
    let made = answered(again, || async {
        match auth.create_project(name).await {
            Err(error) if error.reason() == Some(Reason::NameTaken) => Ok(None),
            other => other.map(Some),
        }
    });
    if let Some(project) = made.await {
        told(&["project", &project.project_id]);
    }
}
