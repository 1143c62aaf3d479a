//! Sign-ins, refreshes, sign-outs and new projects, as fast as they are answered. Each owner has a budget of
//! tries, so several take turns.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use interlock_client::{Auth, Code, Credentials, Error, OwnerSession, Reason};
use interlock_tests::Pair;
use tokio::{sync::Mutex as AsyncMutex, task::JoinSet};

use super::{again_after, was_away};

const OWNERS: [&str; 4] = ["w0", "w1", "w2", "w3"];
/// Refreshes of one owner session before the next sign-in.
const REFRESHES: usize = 6;
/// Projects of one owner: fewer than the quota.
const PROJECTS_MAX: usize = 300;

/// What was acknowledged.
#[derive(Default)]
struct Record {
    /// The newest pair of each owner session that lives.
    living: Vec<Kept<OwnerSession>>,
    /// The newest access token of each one that was signed out.
    ended: Vec<Kept<OwnerSession>>,
    /// Owner and id.
    projects: Vec<Kept<(String, String)>>,
    /// How many acknowledgements there were.
    count: usize,
    /// So many of them were looked at.
    seen: usize,
}

/// Something, and which acknowledgement it came with.
#[derive(Clone)]
struct Kept<T> {
    at: usize,
    what: T,
}

struct Shared {
    auth: Auth,
    passwords: Vec<String>,
    record: Mutex<Record>,
    asked_again: AtomicUsize,
    over: AtomicBool,
}

/// The load.
pub(crate) struct SignIns {
    shared: Arc<Shared>,
    tasks: AsyncMutex<JoinSet<()>>,
}

impl SignIns {
    pub(crate) fn begin(pair: &Pair) -> Self {
        let shared = Arc::new(Shared {
            auth: pair.sdk_auth(),
            passwords: OWNERS.map(|owner| pair.world.password(owner).to_owned()).to_vec(),
            record: Mutex::default(),
            asked_again: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for n in 0..OWNERS.len() {
            tasks.spawn(live(Arc::clone(&shared), n));
        }
        Self { shared, tasks: AsyncMutex::new(tasks) }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.shared.record().count
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
    /// with the run: who was signed in is, who was signed out is not, and each project exists.
    pub(crate) async fn check_new(&self) {
        let news = {
            let mut record = self.shared.record();
            let news = record.since(record.seen);
            record.seen = record.count;
            news
        };
        self.check(news).await;
    }

    /// The same of everything that was acknowledged before this call.
    pub(crate) async fn check_all(&self) -> String {
        let all = self.shared.record().since(0);
        let (living, ended, projects) = (all.living.len(), all.ended.len(), all.projects.len());
        self.check(all).await;
        format!("{living} sign-ins that live, {ended} that ended, {projects} projects")
    }

    async fn check(&self, told: News) {
        let shared = &self.shared;
        for session in &told.living {
            let auth = shared.auth_as(session);
            match answered(shared, || auth.whoami()).await {
                Ok(known) => assert_eq!(known.owner_session_id.as_ref(), Some(&session.owner_session_id)),
                Err(error) => {
                    let (id, owner) = (&session.owner_session_id, &session.username);
                    assert!(!shared.still_lives(session), "lost: {id} of {owner}: {error}");
                }
            }
        }
        for session in &told.ended {
            let auth = shared.auth_as(session);
            let refused = answered(shared, || auth.whoami()).await.expect_err("signed out");
            assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        }
        for owner in OWNERS {
            let projects: Vec<_> = told.projects.iter().filter(|(of, _)| of == owner).collect();
            if projects.is_empty() {
                continue;
            }
            // The first sign-in of each is never signed out.
            let first = shared.record().living.iter().find(|kept| kept.what.username == owner).cloned();
            let auth = shared.auth_as(&first.expect("who has projects has signed in").what);
            let there = answered(shared, || auth.list_projects()).await.expect("projects");
            for (_, project) in projects {
                assert!(there.iter().any(|p| p.project_id == *project), "lost: project {project} of {owner}");
            }
        }
    }

    /// The gateway admits who is signed in, and nobody who was signed out.
    pub(crate) async fn check_gateway(&self, pair: &Pair) {
        let told = self.shared.record().since(0);
        for session in &told.living {
            pair.sdk_gateway(&session.access_token).sessions().list().await.expect("admitted");
        }
        for session in &told.ended {
            let refused =
                pair.sdk_gateway(&session.access_token).sessions().list().await.expect_err("signed out");
            assert_eq!(refused.reason(), Some(Reason::ProviderAuthFailed), "{refused}");
        }
    }
}

/// What was acknowledged in a part of the run.
struct News {
    living: Vec<OwnerSession>,
    ended: Vec<OwnerSession>,
    projects: Vec<(String, String)>,
}

impl Record {
    /// What came after so many acknowledgements.
    fn since(&self, seen: usize) -> News {
        fn after<T: Clone>(seen: usize, all: &[Kept<T>]) -> Vec<T> {
            all.iter().filter(|kept| kept.at > seen).map(|kept| kept.what.clone()).collect()
        }
        News {
            living: after(seen, &self.living),
            ended: after(seen, &self.ended),
            projects: after(seen, &self.projects),
        }
    }
}

/// Makes the call until it is answered.
async fn answered<T, F: Future<Output = Result<T, Error>>>(
    shared: &Shared,
    call: impl Fn() -> F,
) -> Result<T, Error> {
    loop {
        match call().await {
            Err(error) if was_away(&error) || error.reason() == Some(Reason::RateLimited) => {
                if error.reason() != Some(Reason::RateLimited) {
                    shared.asked_again.fetch_add(1, Ordering::Relaxed);
                }
                again_after(&error).await;
            }
            other => return other,
        }
    }
}

async fn live(shared: Arc<Shared>, n: usize) {
    let (owner, password) = (OWNERS[n], &shared.passwords[n]);
    for round in 0.. {
        // The sign-in that was under way in a kill may have begun a session that nobody knows of: that is
        // all or nothing, not a loss.
        let signed_in = answered(&shared, || shared.auth.login(owner, password)).await;
        let mut session = signed_in.expect("a sign-in is refused for nothing");
        let id = session.owner_session_id.clone();
        shared.keep(|record, at| record.living.push(Kept { at, what: session.clone() }));
        for i in 0..REFRESHES {
            if shared.over.load(Ordering::Relaxed) {
                return;
            }
            // I9: the same refresh token again has the same successor.
            let refreshed = answered(&shared, || shared.auth.refresh(&session)).await;
            session = refreshed.expect("a refresh is refused for nothing");
            shared.keep(|record, at| {
                let kept = record.living.iter_mut().find(|kept| kept.what.owner_session_id == id);
                *kept.expect("it lives") = Kept { at, what: session.clone() };
            });
            project(&shared, &session, owner, round * REFRESHES + i).await;
        }
        if round % 2 == 1 {
            // Under way: neither living nor ended, until it is answered.
            shared.record().living.retain(|kept| kept.what.owner_session_id != id);
            let gone = answered(&shared, || shared.auth.logout(&session.access_token)).await;
            gone.expect("a sign-out is refused for nothing");
            shared.keep(|record, at| record.ended.push(Kept { at, what: session.clone() }));
        }
    }
}

async fn project(shared: &Shared, session: &OwnerSession, owner: &str, number: usize) {
    if number >= PROJECTS_MAX {
        return;
    }
    let auth = shared.auth_as(session);
    let name = format!("{owner}-{number}");
    match answered(shared, || auth.create_project(&name)).await {
        Ok(project) => {
            let what = (owner.to_owned(), project.project_id.clone());
            shared.keep(|record, at| record.projects.push(Kept { at, what }));
        }
        // Made by a call whose answer was lost, under a request id that is not repeated here.
        Err(error) if error.reason() == Some(Reason::NameTaken) => {}
        Err(error) => panic!("a project is refused for nothing: {error}"),
    }
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no load panics")
    }

    fn auth_as(&self, session: &OwnerSession) -> Auth {
        self.auth.clone().with_credentials(Credentials::bearer(session.access_token.clone()))
    }

    /// Whether nobody has begun to sign it out, or refreshed it, since it was looked at.
    fn still_lives(&self, session: &OwnerSession) -> bool {
        self.record().living.iter().any(|kept| kept.what.access_token == session.access_token)
    }

    /// Records an acknowledged write, with its number.
    fn keep(&self, write: impl FnOnce(&mut Record, usize)) {
        let mut record = self.record();
        record.count += 1;
        let at = record.count;
        write(&mut record, at);
    }
}
