//! Many verbs at once: they share batches, and each sees what the ones before it in its batch have done.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use interlock_gateway::{
    binding::Attach,
    event::{From, ReadEvents},
    ids::JobId,
    job::{Job, ListJobs, Outcome},
    lease::{Held, Renew},
    limits::Limits,
    session::{CloseSession, ListSessions},
    store::Signal,
    sweep::{Duty, Sweep, Swept},
    worker::Claim,
};
use interlock_kit::error::Reason;

use crate::{
    on_every_engine,
    world::{CallerExt as _, Database, World, agent, attach, claim, finish, owner},
};

on_every_engine!(
    a_queue_is_handed_out_once_and_in_order,
    attaches_and_submits_at_once_keep_the_guard,
    attaches_of_one_session_at_once_each_count,
    a_worker_may_hold_and_serve_as_much_as_it_may,
    pages_are_whole,
    what_has_ended_is_swept_at_once,
);

// More than any part of a queue that is loaded at once.
async fn a_queue_is_handed_out_once_and_in_order(world: World) {
    const JOBS: usize = 100;
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let submitted = join_all((0..JOBS).map(|_| world.submit(&ann, &session))).await;
    let submitted: Vec<JobId> = submitted.into_iter().map(|job| job.id).collect();
    let claimed = join_all((0..JOBS + 1).map(|_| world.claim(&ann, "a"))).await;
    assert!(claimed[JOBS].is_none(), "there were no more");
    let held: Vec<Held> = claimed.into_iter().flatten().map(|assigned| assigned.held).collect();
    let order: Vec<JobId> = held.iter().map(|held| held.job.clone()).collect();
    assert_eq!(order, submitted);
    // The last one to end frees the agent, also within the batch.
    let verbs = held.iter().map(|held| world.ok(&ann, finish(held, Outcome::Succeeded)));
    let caller = ann.clone().naming("q");
    let (ended, attached) =
        futures_util::join!(join_all(verbs), world.run(&caller, attach(&session, ("a", "q"))));
    assert_eq!(ended.len(), JOBS);
    assert!(attached.unwrap().changed);
    let events = ReadEvents { session: session.clone(), from: From::After(0), limit: 512 };
    let events = world.ask(&ann, events).await.unwrap();
    assert_eq!(events.last, 3 + 3 * JOBS as u64);
    logs_have_no_gaps(&world);
    if let Some(database) = world.database() {
        books_agree(database);
    }
}

// I1, I2, I3
async fn attaches_and_submits_at_once_keep_the_guard(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let mut sessions = Vec::new();
    for project in ["p", "q", "p", "q"] {
        let session = world.session(&ann).await;
        world.attach(&ann, &session, ("a", project)).await;
        sessions.push(session);
    }
    let (mut done, mut busy) = (0, 0);
    for round in 0..12 {
        let submits = sessions.iter().map(|session| world.run(&ann, world.submission(session)));
        let to = ["p", "q"][round % 2];
        let caller = ann.clone().naming(to);
        let attaches = sessions.iter().map(|session| world.run(&caller, attach(session, ("a", to))));
        let (submitted, attached) = futures_util::join!(join_all(submits), join_all(attaches));
        let jobs: Vec<&Job> = submitted.iter().flatten().collect();
        let projects: BTreeSet<_> = jobs.iter().map(|job| job.binding.project.clone()).collect();
        assert!(projects.len() <= 1, "I1: {projects:?}");
        let refused = submitted
            .iter()
            .filter_map(|answer| answer.as_ref().err().map(interlock_kit::error::Error::reason));
        let refused = refused.chain(
            attached
                .iter()
                .filter_map(|answer| answer.as_ref().err().map(interlock_kit::error::Error::reason)),
        );
        for reason in refused {
            assert_eq!(reason, Reason::SessionBusy);
            busy += 1;
        }
        done += jobs.len();
        let held = world.ok(&ann, claim("a", 64)).await.jobs;
        assert_eq!(held.len(), jobs.len());
        let bound: BTreeMap<_, _> = jobs.iter().map(|job| (job.id.clone(), job.binding.clone())).collect();
        assert!(held.iter().all(|assigned| assigned.binding == bound[&assigned.held.job]), "I3");
        join_all(held.iter().map(|assigned| world.ok(&ann, finish(&assigned.held, Outcome::Succeeded))))
            .await;
    }
    assert!(done > 0 && busy > 0, "{done} submitted, {busy} refused");
    logs_have_no_gaps(&world);
    if let Some(database) = world.database() {
        books_agree(database);
    }
    assert_eq!(*world.heard.faults.lock(), Vec::<String>::new());
}

async fn attaches_of_one_session_at_once_each_count(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    let attach = |number: usize| {
        let project = ["p", "q"][number % 2];
        let verb = Attach {
            session: session.clone(),
            agent: agent("a"),
            project: crate::world::project(project),
            keep_clients: false,
        };
        let caller = ann.clone().naming(project);
        async { world.ok(&{ caller }, verb).await }
    };
    let attached = join_all((0..10).map(attach)).await;
    // They came in any order, and one that finds its own binding there changes nothing.
    let changed = attached.iter().filter(|answer| answer.changed);
    let mut epochs: Vec<u64> =
        changed.map(|answer| answer.seen.session.binding.as_ref().unwrap().epoch).collect();
    epochs.sort_unstable();
    assert!(epochs.len() >= 2, "{epochs:?}");
    assert_eq!(epochs, (1..=epochs.len() as u64).collect::<Vec<_>>());
    logs_have_no_gaps(&world);
}

// As many round trips as there are rows would be too many.
async fn a_worker_may_hold_and_serve_as_much_as_it_may(world: World) {
    let ann = owner("ann");
    let limits = Limits::default();
    let names: Vec<String> = (0..limits.served_agents_max).map(|number| format!("a{number:02}")).collect();
    for name in &names {
        world.agent(&ann, name, false).await;
        let session = world.session(&ann).await;
        world.attach(&ann, &session, (name, "p")).await;
        for _ in 0..3 {
            world.submit(&ann, &session).await;
        }
    }
    let up_to = limits.capacity_max;
    let agents = names.iter().map(|name| agent(name)).collect();
    let verb = Claim { agents, worker: claim("a", 1).worker, up_to };
    let held: Vec<Held> = world.ok(&ann, verb).await.jobs.into_iter().map(|assigned| assigned.held).collect();
    assert_eq!(held.len(), usize::try_from(up_to).unwrap());
    let kept = world.ok(&ann, Renew { held: held.clone() }).await;
    assert_eq!((kept.kept.len(), kept.lost.len()), (held.len(), 0));
    let released = world.ok(&ann, interlock_gateway::lease::Release { held }).await;
    assert_eq!(released.len(), usize::try_from(up_to).unwrap());
}

async fn pages_are_whole(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let sessions = join_all((0..70).map(|_| world.session(&ann))).await;
    for number in 0..70 {
        world.agent(&ann, &format!("b{number}"), false).await;
    }
    world.attach(&ann, &sessions[0], ("a", "p")).await;
    join_all((0..20).map(|_| world.submit(&ann, &sessions[0]))).await;
    let list = ListSessions { page_size: 100, page_token: String::new(), owner: None };
    let page = world.ask(&ann, list).await.unwrap();
    let shown: Vec<_> = page.sessions.iter().rev().map(|seen| seen.session.id.clone()).collect();
    assert_eq!(shown, sessions);
    assert_eq!(page.sessions.last().unwrap().jobs_in_flight, 20);
    let list =
        ListJobs { session: sessions[0].clone(), in_flight: true, page_size: 7, page_token: String::new() };
    assert_eq!(world.ask(&ann.clone().naming("p"), list).await.unwrap().jobs.len(), 7);
    let list = interlock_gateway::agent::ListAgents { page_size: 100, page_token: String::new() };
    let agents = world.ask(&ann, list).await.unwrap().agents;
    assert!(agents.len() >= 71 && agents.iter().any(|seen| seen.queued == 20), "{}", agents.len());
}

// Two sweeps of one gone session at once: what the first leaves the second takes, and nothing of it is left.
async fn what_has_ended_is_swept_at_once(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    let jobs = Limits::default().sweep_rows_max + 40;
    join_all((0..jobs).map(|_| world.submit(&ann, &session))).await;
    world.ok(&ann, CloseSession { session: session.clone(), force: true }).await;
    world.advance(Limits::default().creation_kept);
    let gateway = interlock_gateway::caller::Caller::gateway();
    for _ in 0..4 {
        let sweep = || world.ok(&gateway, Sweep(Duty::Session(session.clone())));
        let swept = futures_util::join!(sweep(), sweep(), sweep());
        if swept.2 == Swept::Nothing {
            break;
        }
    }
    if let Some(model) = world.is_model().then(|| world.model()) {
        assert!(model.sessions.is_empty() && model.jobs.is_empty() && model.payloads.is_empty());
    } else if let Some(database) = world.database() {
        let left = "SELECT (SELECT COUNT(*) FROM session) + (SELECT COUNT(*) FROM job) + (SELECT COUNT(*) FROM event)
                         + (SELECT COUNT(*) FROM payload) + (SELECT COUNT(*) FROM client) + (SELECT COUNT(*) FROM log_head)";
        assert_eq!(database.sql(left), "0");
        books_agree(database);
    }
    assert_eq!(*world.heard.faults.lock(), Vec::<String>::new());
}

/// What was told of each log after the commits is what is in it: from 1, without gaps, in order.
fn logs_have_no_gaps(world: &World) {
    let mut last = BTreeMap::new();
    for signal in world.heard.signals.lock().iter() {
        if let Signal::Logged { session, event } = signal {
            let before = last.insert(session.clone(), event.sequence).unwrap_or_default();
            assert_eq!(event.sequence, before + 1, "{session}");
        }
    }
    assert!(!last.is_empty());
}

/// What is counted apart agrees with the rows.
pub(crate) fn books_agree(database: &Database) {
    let loads = "SELECT owner, in_flight FROM owner_load
                 WHERE in_flight <> (SELECT COUNT(*) FROM job WHERE job.owner = owner_load.owner AND state < 2)";
    assert_eq!(database.sql(loads), "", "owners' loads");
    let unloaded = "SELECT owner FROM job WHERE state < 2 AND owner NOT IN (SELECT owner FROM owner_load)";
    assert_eq!(database.sql(unloaded), "", "owners without a load");
    let heads = "SELECT l.*, e.* FROM log_head l LEFT JOIN LATERAL (
                     SELECT COUNT(*) AS events, MIN(sequence) AS oldest, MAX(sequence) AS newest,
                            SUM(octet_length(facts) + octet_length(data)) AS weight
                     FROM event WHERE event.session = l.session) e ON TRUE
                 WHERE e.events <> l.last + 1 - l.first OR COALESCE(e.weight, 0) <> l.bytes
                    OR e.oldest <> l.first OR e.newest <> l.last";
    assert_eq!(database.sql(heads), "", "heads of logs");
    let strays = "SELECT job FROM payload WHERE NOT EXISTS (SELECT FROM job WHERE job.id = payload.job)";
    assert_eq!(database.sql(strays), "", "payloads of no job");
}
