//! The attach guard over the wire: the ten cases of ACCEPTANCE.md, and the built-in agent and project.

use interlock_client::{BusyKind, Error, Gateway, Reason, SetAgent};
use interlock_tests::Pair;

/// A session of that caller's, bound or not.
async fn session(gateway: &Gateway, to: Option<(&str, &str)>) -> String {
    let id = gateway.sessions().create("").await.expect("a session").session.session_id;
    if let Some((agent, project)) = to {
        gateway.sessions().attach(&id, agent, project).await.expect("idle");
    }
    id
}

fn busy(refused: &Error, kind: BusyKind, agent: &str, job: &str) {
    assert_eq!(refused.reason(), Some(Reason::SessionBusy), "{refused}");
    let busy = refused.busy().expect("it explains itself");
    assert_eq!((busy.kind, busy.agent_id.as_str()), (kind, agent), "{refused}");
    assert_eq!((busy.queued, busy.running), (1, 0), "{refused}");
    assert!(refused.retry_after().is_some(), "{refused}");
    let named: Vec<_> = busy.jobs.iter().map(|j| j.job_id.as_str()).collect();
    // SW-33: the caller's own, in whichever of its projects they are.
    assert_eq!(named, [job]);
}

// SW-26, SW-27, SW-28, SW-30, SW-34: a queued job alone is busy; nobody works on it here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ten_cases() {
    let pair = Pair::start().await;
    let alice = pair.login("alice").await;
    let (p, q) = (pair.project(&alice, "p").await, pair.project(&alice, "q").await);
    let gateway = pair.sdk_gateway(&alice.access_token);
    for agent in ["a", "b"] {
        gateway.agents().set(agent, SetAgent::default()).await.expect("an agent");
    }
    let (sessions, jobs) = (gateway.sessions(), gateway.jobs());
    // First attach, agent idle.
    let busy_one = session(&gateway, Some(("a", &p))).await;
    // A second session of that agent in another project, while all is idle.
    let elsewhere = session(&gateway, Some(("a", &q))).await;
    let watcher = session(&gateway, Some(("b", &p))).await;
    let job = jobs.submit(&busy_one, "work").await.expect("a job").job_id;

    let fresh = session(&gateway, None).await;
    busy(&sessions.attach(&fresh, "a", &q).await.expect_err("busy in p"), BusyKind::Project, "a", &job);
    assert!(sessions.attach(&fresh, "a", &p).await.expect("a second session may watch").changed);
    assert!(!sessions.attach(&busy_one, "a", &p).await.expect("reconnect").changed);
    busy(
        &sessions.attach(&busy_one, "b", &p).await.expect_err("to another agent"),
        BusyKind::Rebind,
        "a",
        &job,
    );
    busy(
        &sessions.attach(&busy_one, "a", &q).await.expect_err("to another project"),
        BusyKind::Rebind,
        "a",
        &job,
    );
    busy(
        &sessions.attach(&watcher, "a", &q).await.expect_err("from an idle one"),
        BusyKind::Project,
        "a",
        &job,
    );
    assert!(sessions.attach(&watcher, "a", &p).await.expect("from an idle one, the same project").changed);
    busy(&jobs.submit(&elsewhere, "work").await.expect_err("busy in p"), BusyKind::Project, "a", &job);
    let bound = sessions.get(&busy_one).await.expect("hers").binding.expect("bound");
    assert_eq!(
        (bound.agent_id.as_str(), &bound.project_id, bound.epoch),
        ("a", &p, 1),
        "nothing has changed"
    );

    // SW-34, I4: terminal, and the next attach succeeds with no other action.
    jobs.cancel(&job).await.expect("a queued one is cancelled at once");
    assert!(sessions.attach(&busy_one, "b", &q).await.expect("everything idle").changed);
}

// SW-04, SW-05, SW-07, SW-08, SW-09, SW-31
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_built_in_agent_and_project() {
    let pair = Pair::start().await;
    let (alice, bob) = (pair.login("alice").await, pair.login("bob").await);
    let project = pair.project(&alice, "p").await;
    let admin = pair.sdk_gateway(&pair.admin());
    let of_admin = session(&admin, None).await;
    assert!(admin.sessions().attach(&of_admin, "primary", "system").await.expect("admin may").changed);
    let refused = admin.sessions().attach(&of_admin, "primary", &project).await.expect_err("only to system");
    assert_eq!(refused.reason(), Some(Reason::Forbidden), "SW-09: {refused}");

    for caller in [&alice.access_token, &pair.user()] {
        let gateway = pair.sdk_gateway(caller);
        let own = session(&gateway, None).await;
        for (agent, project) in [("primary", "system"), ("primary", project.as_str()), ("hers", "system")] {
            let refused = gateway.sessions().attach(&own, agent, project).await.expect_err("user may not");
            assert_eq!(refused.reason(), Some(Reason::Forbidden), "{agent} {project}: {refused}");
        }
    }
    // SW-31: who has no right to the project hears of that, not of what is busy in it.
    let gateway = pair.sdk_gateway(&alice.access_token);
    gateway.agents().set("hers", SetAgent::default()).await.expect("an agent");
    let hers = session(&gateway, Some(("hers", &project))).await;
    gateway.jobs().submit(&hers, "work").await.expect("a job");
    let as_bob = pair.sdk_gateway(&bob.access_token);
    as_bob.agents().set("his", SetAgent::default()).await.expect("an agent");
    let his = session(&as_bob, None).await;
    let refused = as_bob.sessions().attach(&his, "his", &project).await.expect_err("not a member");
    assert_eq!(refused.reason(), Some(Reason::ProjectMismatch), "{refused}");
    let refused = as_bob.sessions().attach(&his, "hers", &project).await.expect_err("not his agent");
    assert_eq!(refused.reason(), Some(Reason::Forbidden), "{refused}");
    // A new member is let in, without a restart.
    let auth = pair.sdk_auth_as(&alice.access_token);
    auth.add_member(&project, "bob").await.expect("members add members");
    assert!(as_bob.sessions().attach(&his, "his", &project).await.expect("a member").changed);
}
