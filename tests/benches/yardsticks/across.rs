//! `across`, a part of `postgres`: from the answer to a submit until a worker of another gateway has the job, beside
//! a worker of the same gateway. One job at a time, on services that do nothing else.

use std::time::{Duration, Instant};

use interlock_client::{Gateway, Outcome, SetAgent, Worker};
use interlock_tests::within;
use tokio::sync::mpsc;

use crate::{
    measured::{self, Measured},
    owners::Owner,
    plan::Plan,
};

/// Of each kind in each pair, where a side is measured for a second.
const ROUNDS: f64 = 100.0;
const ROUNDS_MIN: usize = 8;
const SLOTS: u32 = 4;
const PAYLOAD: &[u8] = b"a job that ends at once";

/// An agent with a worker, and a session that is bound to it.
struct Place {
    session: String,
    began: mpsc::UnboundedReceiver<Instant>,
    worker: tokio::task::JoinHandle<()>,
}

/// Alternates both, job by job. `near` takes all submits; `far` is another gateway on the same store.
pub(crate) async fn compare(plan: &Plan, owner: &Owner, near: &Gateway, far: &Gateway) -> Measured {
    let [near, far] = [near, far].map(|gateway| gateway.clone().with_project(&owner.project));
    let mut across = Place::with_worker(owner, &near, &far, "across").await;
    let mut within = Place::with_worker(owner, &near, &near, "within").await;
    let rounds = ((ROUNDS * plan.seconds.min(1.0)) as usize).max(ROUNDS_MIN);
    let mut measured = Measured::new("across", ["across", "within"]);
    measured.note =
        format!("{rounds} jobs each, one at a time: from the submit's answer until the worker has the job");
    for round in 0..=plan.pairs {
        let (mut there, mut here) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            there.push(across.handed(&near).await.as_micros());
            here.push(within.handed(&near).await.as_micros());
        }
        // The first one makes connections.
        if round > 0 {
            let mut us = |share| {
                (measured::quantile(&mut there, share) as f64, measured::quantile(&mut here, share) as f64)
            };
            let ((p50, p50_here), (p99, p99_here)) = (us(0.5), us(0.99));
            measured.pair("handed over, p50, ms", 2, p50 / 1e3, p50_here / 1e3);
            measured.pair("handed over, p99, ms", 2, p99 / 1e3, p99_here / 1e3);
            eprintln!(
                "across {round}/{}: p50 {p50} and {p50_here} us, p99 {p99} and {p99_here} us",
                plan.pairs
            );
        }
    }
    across.worker.abort();
    within.worker.abort();
    measured
}

impl Place {
    async fn with_worker(owner: &Owner, near: &Gateway, works_at: &Gateway, name: &str) -> Self {
        let agent = format!("{name}-{}", owner.agent);
        near.agents().set(&agent, SetAgent::default()).await.expect("an agent");
        let session = near.sessions().create(name).await.expect("a session").session.session_id;
        near.sessions().attach(&session, &agent, &owner.project).await.expect("bound");
        let (tell, began) = mpsc::unbounded_channel();
        let worker = Worker::new(works_at.clone(), vec![agent], SLOTS, name);
        let work = move |_| {
            // Nobody waits for it once all was measured.
            let _ = tell.send(Instant::now());
            async { Outcome::Succeeded { result: Vec::new().into() } }
        };
        let running = async move { worker.run(work, std::future::pending()).await.expect("it works") };
        Self { session, began, worker: tokio::spawn(running) }
    }

    /// From the answer to a submit until the worker has the job; nothing where it had it before. The job has ended.
    async fn handed(&mut self, near: &Gateway) -> Duration {
        let job = near.jobs().submit(&self.session, PAYLOAD).await.expect("queued").job_id;
        let queued = Instant::now();
        let began = within("the job's worker", self.began.recv()).await.expect("a worker");
        within("the job's end", near.jobs().wait(&job)).await.expect("ended");
        began.saturating_duration_since(queued)
    }
}
