//! What holds after each step, whatever was done.

use std::collections::{BTreeMap, BTreeSet};

use interlock_gateway::{
    event::{Entry, EventKind},
    file,
    ids::{AgentId, JobId, ProjectId},
    job::{Job, Phase},
    session,
    store::Model,
};

/// What audit rows must tell of.
pub(super) fn states(model: &Model) -> Vec<String> {
    let sessions = model.sessions.values().filter(|session| session.phase != session::Phase::Gone);
    let mut states: Vec<String> =
        sessions.map(|s| format!("{} {:?} {:?}", s.id, s.phase, s.binding)).collect();
    let jobs = model.jobs.values().filter(|job| job.is_in_flight());
    states.extend(jobs.map(|j| format!("{} {} {:?}", j.id, j.fencing, j.cancel_requested_at)));
    // Those of a session that is gone went with it.
    let lives = |id| model.sessions.get(id).is_some_and(|session| session.phase != session::Phase::Gone);
    let files = model.files.values().filter(|f| f.phase == file::Phase::Kept && lives(&f.session));
    states.extend(files.map(|f| f.id.to_string()));
    states
}

// I1
pub(super) fn one_project_per_agent(model: &Model) {
    let mut projects: BTreeMap<&str, BTreeSet<&ProjectId>> = BTreeMap::new();
    for job in model.jobs.values().filter(|job| job.is_in_flight()) {
        projects.entry(job.binding.agent.as_str()).or_default().insert(&job.binding.project);
    }
    assert!(projects.values().all(|projects| projects.len() == 1), "I1: {projects:?}");
}

/// Whether nothing of an agent is in flight.
pub(super) fn idle(model: &Model, agent: &AgentId) -> bool {
    !model.jobs.values().any(|job| job.is_in_flight() && job.binding.agent == *agent)
}

/// A job in flight is always of an agent that there is: somebody may run it.
pub(super) fn agents_outlive_their_jobs(model: &Model) {
    let mut in_flight = model.jobs.values().filter(|job| job.is_in_flight());
    let orphan = in_flight.find(|job| !model.agents.contains_key(&job.binding.agent));
    assert!(orphan.is_none(), "{orphan:?}");
}

// I2
pub(super) fn bindings_hold(before: &Model, after: &Model) {
    for (id, session) in &before.sessions {
        let (Some(was), Some(is)) = (&session.binding, after.sessions.get(id).map(|s| &s.binding)) else {
            continue;
        };
        if is.as_ref() != Some(was) {
            let busy = before.jobs.values().any(|job| job.is_in_flight() && job.binding.agent == was.agent);
            assert!(!busy, "I2: {id} left a busy agent");
            assert_eq!(is.as_ref().map(|is| is.epoch), Some(was.epoch + 1), "the epoch grows by one");
        }
    }
}

// I3
pub(super) fn jobs_are_their_sessions(model: &Model) {
    for job in model.jobs.values().filter(|job| job.is_in_flight()) {
        let session = model.sessions.get(&job.session).expect("a job in flight has its session");
        assert_eq!(session.binding.as_ref(), Some(&job.binding), "I3");
        assert_ne!(session.phase, session::Phase::Gone, "a session is gone after its jobs");
    }
}

// I5
pub(super) fn ends_are_final(before: &Model, after: &Model) {
    for (id, was) in &before.jobs {
        let Some(is) = after.jobs.get(id) else { continue };
        if matches!(was.phase, Phase::Ended(_)) {
            assert_eq!(was, is, "I5: an end is final");
        }
        assert!(is.fencing >= was.fencing && is.lost >= was.lost, "I5: fencing only grows");
        if let (Phase::Running(_), Phase::Running(_)) = (&was.phase, &is.phase) {
            let same = |job: &Job| (job.fencing, job.holder.clone());
            assert_eq!(same(was), same(is), "I5: a lease is not taken over");
        }
    }
}

// I5
pub(super) fn ends_once(entries: &[Entry]) {
    let mut ended = BTreeSet::new();
    let mut attempts: BTreeMap<&JobId, u32> = BTreeMap::new();
    for entry in entries {
        let Entry::Event(event) = entry else { continue };
        match &event.kind {
            EventKind::JobEnded { job, .. } => assert!(ended.insert(job), "I5: {job} ended twice"),
            EventKind::JobStarted { job, attempt, .. } => drop(attempts.insert(job, *attempt)),
            EventKind::JobProgress { job, attempt, .. } => {
                assert_eq!(attempts.get(job), Some(attempt), "I5: an event of a fenced attempt");
                assert!(!ended.contains(job), "I5: an event after the end");
            }
            _ => {}
        }
    }
}
