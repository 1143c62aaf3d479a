//! What held: in the evidence of refusals, and in the logs afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use interlock_client::{Gateway, OwnerSession};
use interlock_tests::{
    Pair, eventually,
    story::{check_together, read_log, tell},
    wire::Metadata,
};

use crate::{AGENTS, look::Looks, track::Track};

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
