//! What held: in the store meanwhile, in the evidence of refusals, and in the logs afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use interlock_client::{Gateway, OwnerSession};
use interlock_tests::{
    PATIENCE, Pair, eventually,
    story::{check_together, read_log, tell},
    wire::Metadata,
};
use rusqlite::OpenFlags;

use crate::{AGENTS, track::Track};

/// Between two looks at the store.
const LOOK: Duration = Duration::from_micros(500);

/// How often the store was looked at, and how often it had jobs in flight.
#[derive(Clone, Copy)]
pub(crate) struct Looks {
    pub(crate) all: usize,
    pub(crate) busy: usize,
}

/// The race from outside.
pub(crate) struct Seen {
    pub(crate) took: Duration,
    pub(crate) looks: Looks,
}

/// I4: when nothing is in flight any more, the next attach succeeds.
pub(crate) async fn come_to_rest(gateway: &Gateway, track: &Track) {
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
pub(crate) fn watch_store(store: &Path, over: &AtomicBool) -> Looks {
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
    Looks { all: looks, busy }
}

pub(crate) async fn judge(pair: &Pair, alice: &OwnerSession, track: &Track, seed: u64, seen: &Seen) {
    let (took, Looks { all: snapshots, busy: busy_snapshots }) = (seen.took, seen.looks);
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
        assert!(!busy.jobs.is_empty() || busy.queued + busy.running > 0, "busy with nothing: {busy:?}");
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
