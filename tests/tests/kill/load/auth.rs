//! Sign-ins, refreshes, sign-outs and new projects, as fast as they are answered. Each owner has a budget of
//! tries, so several take turns.

use std::sync::{
    Arc, Mutex,
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

#[derive(Default)]
struct Record {
    /// The newest pair of each owner session that lives.
    living: Vec<OwnerSession>,
    /// The newest access token of each one that was signed out.
    ended: Vec<OwnerSession>,
    /// Owner and id.
    projects: Vec<(String, String)>,
}

struct Shared {
    auth: Auth,
    passwords: Vec<String>,
    record: Mutex<Record>,
    acknowledged: AtomicUsize,
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
            acknowledged: AtomicUsize::new(0),
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

    /// Everything that was acknowledged before this call is there: who was signed in is, who was signed out
    /// is not, and each project exists.
    pub(crate) async fn check(&self, pair: &Pair) -> String {
        let (living, ended, projects) = {
            let record = self.shared.record.lock().expect("no load panics");
            (record.living.clone(), record.ended.clone(), record.projects.clone())
        };
        for session in &living {
            match pair.sdk_auth_as(&session.access_token).whoami().await {
                Ok(known) => assert_eq!(known.owner_session_id.as_ref(), Some(&session.owner_session_id)),
                Err(error) => {
                    let (id, owner) = (&session.owner_session_id, &session.username);
                    assert!(!self.shared.still_lives(session), "lost: {id} of {owner}: {error}");
                }
            }
        }
        for session in &ended {
            let refused = pair.sdk_auth_as(&session.access_token).whoami().await.expect_err("signed out");
            assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        }
        for (n, owner) in OWNERS.iter().enumerate() {
            let Some(session) = living.iter().find(|s| s.username == *owner) else { continue };
            let there = pair.sdk_auth_as(&session.access_token).list_projects().await.expect("projects");
            for (_, project) in projects.iter().filter(|(of, _)| of == OWNERS[n]) {
                assert!(there.iter().any(|p| p.project_id == *project), "lost: project {project} of {owner}");
            }
        }
        format!(
            "{} sign-ins that live, {} that ended, {} projects",
            living.len(),
            ended.len(),
            projects.len()
        )
    }

    /// The gateway admits who is signed in, and nobody who was signed out.
    pub(crate) async fn check_gateway(&self, pair: &Pair) {
        let (living, ended) = {
            let record = self.shared.record.lock().expect("no load panics");
            (record.living.clone(), record.ended.clone())
        };
        for session in &living {
            pair.sdk_gateway(&session.access_token).sessions().list().await.expect("admitted");
        }
        for session in &ended {
            let refused =
                pair.sdk_gateway(&session.access_token).sessions().list().await.expect_err("signed out");
            assert_eq!(refused.reason(), Some(Reason::ProviderAuthFailed), "{refused}");
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
        shared.keep(|record| record.living.push(session.clone()));
        for i in 0..REFRESHES {
            if shared.over.load(Ordering::Relaxed) {
                return;
            }
            // I9: the same refresh token again has the same successor.
            let refreshed = answered(&shared, || shared.auth.refresh(&session)).await;
            session = refreshed.expect("a refresh is refused for nothing");
            shared.keep(|record| {
                let kept = record.living.iter_mut().find(|kept| kept.owner_session_id == id);
                *kept.expect("it lives") = session.clone();
            });
            project(&shared, &session, owner, round * REFRESHES + i).await;
        }
        if round % 2 == 1 {
            // Under way: neither living nor ended, until it is answered.
            shared.record.lock().expect("no load panics").living.retain(|kept| kept.owner_session_id != id);
            let gone = answered(&shared, || shared.auth.logout(&session.access_token)).await;
            gone.expect("a sign-out is refused for nothing");
            shared.keep(|record| record.ended.push(session.clone()));
        }
    }
}

async fn project(shared: &Shared, session: &OwnerSession, owner: &str, number: usize) {
    if number >= PROJECTS_MAX {
        return;
    }
    let auth = shared.auth.clone().with_credentials(Credentials::bearer(session.access_token.clone()));
    let name = format!("{owner}-{number}");
    match answered(shared, || auth.create_project(&name)).await {
        Ok(project) => {
            shared.keep(|record| record.projects.push((owner.to_owned(), project.project_id.clone())));
        }
        // Made by a call whose answer was lost, under a request id that is not repeated here.
        Err(error) if error.reason() == Some(Reason::NameTaken) => {}
        Err(error) => panic!("a project is refused for nothing: {error}"),
    }
}

impl Shared {
    /// Whether nobody has begun to sign it out, or refreshed it, since it was looked at.
    fn still_lives(&self, session: &OwnerSession) -> bool {
        let record = self.record.lock().expect("no load panics");
        record.living.iter().any(|kept| kept.access_token == session.access_token)
    }

    /// Records an acknowledged write.
    fn keep(&self, write: impl FnOnce(&mut Record)) {
        write(&mut self.record.lock().expect("no load panics"));
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}
