//! Those who submit, attach and work, all at once.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use interlock_client::{BusyKind, Gateway, Reason};
use interlock_proto::gateway::v1::{
    JobState, WorkRequest, WorkResponse,
    work_request::{Finish, Goodbye, Hello, Message as Ask, Progress},
    work_response::Message as Say,
    worker_service_client::WorkerServiceClient,
};
use interlock_tests::wire::Metadata;
use rand::{RngExt as _, rngs::StdRng};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::{AGENTS, track::Track};

/// Submits of one submitter at most.
const SUBMITS_MAX: usize = 2_000;
/// How far one outcome of an attach may be ahead of the other.
const AHEAD: usize = 8;
const QUIET: Duration = Duration::from_millis(200);

pub(crate) async fn submit(gateway: Gateway, mut rng: StdRng, session: String, track: Arc<Track>) {
    let jobs = gateway.jobs();
    let tally = &track.tally;
    for _ in 0..SUBMITS_MAX {
        // Where refusals are ahead, jobs come to an end until attaches have caught up.
        let mut attached = track.attached.subscribe();
        while !track.over() && tally.busy() > tally.changed() + AHEAD {
            let _ = tokio::time::timeout(QUIET, attached.changed()).await;
        }
        if track.over() {
            return;
        }
        let to = if rng.random_bool(0.9) { &track.sessions[track.hot()] } else { &session };
        match jobs.submit(to, "race").await {
            Ok(job) => {
                tally.submitted.fetch_add(1, Ordering::Relaxed);
                track.queued.send_modify(|n| *n += 1);
                if rng.random_bool(0.5) {
                    jobs.wait(&job.job_id).await.expect("an own job can be waited for");
                }
            }
            Err(refused) => {
                let busy = refused
                    .busy()
                    .unwrap_or_else(|| panic!("a submit is refused for nothing else: {refused}"));
                assert_eq!(busy.kind, BusyKind::Project, "{refused}");
                tally.submit_busy.fetch_add(1, Ordering::Relaxed);
                track.evidence.lock().expect("no racer panics").push(busy.clone());
            }
        }
    }
}

pub(crate) async fn attach(gateway: Gateway, mut rng: StdRng, track: Arc<Track>) {
    let sessions = gateway.sessions();
    let tally = &track.tally;
    while !track.over() {
        // Where successes are ahead, the next one meets a job that was just queued.
        if tally.changed() > tally.busy() + AHEAD {
            let mut queued = track.queued.subscribe();
            let _ = tokio::time::timeout(QUIET, queued.changed()).await;
        }
        let (session, agent, project) = track.target(&mut rng);
        match sessions.attach(session, agent, project).await {
            Ok(attached) => {
                let binding = attached.session.binding.expect("it is bound");
                assert_eq!((binding.agent_id.as_str(), binding.project_id.as_str()), (agent, project));
                track.note(session, agent, project);
                let which = if attached.changed { &tally.changed } else { &tally.same };
                which.fetch_add(1, Ordering::Relaxed);
            }
            Err(refused) => {
                assert_eq!(refused.reason(), Some(Reason::SessionBusy), "{refused}");
                let busy = refused.busy().expect("SESSION_BUSY explains itself");
                let which = match busy.kind {
                    BusyKind::Rebind => &tally.rebind,
                    BusyKind::Project => &tally.project,
                    BusyKind::Agent | BusyKind::Unknown => panic!("{refused}"),
                };
                which.fetch_add(1, Ordering::Relaxed);
                assert!(busy.queued + busy.running > 0, "busy with nothing: {busy:?}");
                assert!(refused.retry_after().is_some(), "{refused}");
                track.evidence.lock().expect("no racer panics").push(busy.clone());
            }
        }
        track.attached.send_modify(|n| *n += 1);
    }
}

/// A worker on the bare wire: takes, tells, finishes, and at times gives all back and comes again.
pub(crate) async fn work(
    channel: Channel,
    metadata: Metadata,
    mut rng: StdRng,
    track: Arc<Track>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let (asks, mut says) = hello(&channel, &metadata, &mut rng).await;
        loop {
            let said = tokio::select! {
                said = says.message() => said.expect("a worker's stream lives"),
                _ = stopped.wait_for(|stop| *stop) => {
                    // The stream may be ending already, after a goodbye before.
                    let _ = asks.send(ask(Ask::Goodbye(Goodbye {})));
                    return;
                }
            };
            match said.and_then(|said| said.message) {
                None => break,
                Some(Say::Assignment(assignment)) => {
                    let held = assignment.held;
                    if rng.random_bool(0.03) {
                        track.tally.goodbyes.fetch_add(1, Ordering::Relaxed);
                        let _ = asks.send(ask(Ask::Goodbye(Goodbye {})));
                        continue;
                    }
                    if rng.random_bool(0.2) {
                        let progress = Progress { held: held.clone(), number: 1, data: "half".into() };
                        let _ = asks.send(ask(Ask::Progress(progress)));
                    }
                    let state = if rng.random_bool(0.9) { JobState::Succeeded } else { JobState::Failed };
                    let finish =
                        Finish { held, state: state.into(), result: "done".into(), cause: String::new() };
                    // After a goodbye the stream is closing: those jobs go back.
                    let _ = asks.send(ask(Ask::Finish(finish)));
                }
                Some(Say::Finished(_)) => {
                    track.tally.finished.fetch_add(1, Ordering::Relaxed);
                }
                Some(Say::Draining(_)) => panic!("nobody drains"),
                Some(_) => {}
            }
        }
    }
}

type Asks = mpsc::UnboundedSender<WorkRequest>;

async fn hello(channel: &Channel, metadata: &Metadata, rng: &mut StdRng) -> (Asks, Streaming<WorkResponse>) {
    let (asks, out) = mpsc::unbounded_channel();
    let agent_ids = AGENTS.map(str::to_owned).to_vec();
    let capacity = rng.random_range(1..=4);
    let hello = Hello { worker: "racer".to_owned(), agent_ids, capacity, held: Vec::new() };
    asks.send(ask(Ask::Hello(hello))).expect("open");
    let request = metadata.on(UnboundedReceiverStream::new(out));
    let says = WorkerServiceClient::new(channel.clone()).work(request).await;
    (asks, says.expect("alice serves her agents").into_inner())
}

fn ask(message: Ask) -> WorkRequest {
    WorkRequest { message: Some(message) }
}
