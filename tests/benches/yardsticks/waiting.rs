//! `waiting`: from calling for the end of the last job until an attach that waits in line is answered, beside the
//! same two calls made one after the other by somebody who knows when to make them.

use std::time::{Duration, Instant};

use interlock_client::{Gateway, SetAgent};
use interlock_tests::Pair;

use crate::{
    measured::{self, Measured},
    owners::Owner,
    plan::Plan,
};

/// Of each kind in each pair, where a side is measured for a second.
const ROUNDS: f64 = 60.0;
const ROUNDS_MIN: usize = 8;
/// A waiter stands in line, and its commit is over.
const IN_LINE: Duration = Duration::from_millis(8);
/// It does not wait for as long.
const AT_MOST: Duration = Duration::from_secs(30);
const PAYLOAD: &[u8] = b"a job that nobody works on";

/// One session that goes between two agents.
struct Bound {
    gateway: Gateway,
    session: String,
    agents: [String; 2],
    project: String,
    moves: usize,
}

/// Alternates both, round by round.
pub(crate) async fn compare(plan: &Plan, pair: &Pair, owner: &Owner) -> Measured {
    let mut bound = Bound::of(pair, owner).await;
    let rounds = ((ROUNDS * plan.seconds.min(1.0)) as usize).max(ROUNDS_MIN);
    let mut measured = Measured::new("waiting", ["woken", "by hand"]);
    measured.note = format!(
        "{rounds} times each: the last job is cancelled, and an attach in line is answered; by hand: cancel, then attach"
    );
    for round in 0..=plan.pairs {
        let (mut woken, mut by_hand) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            woken.push(bound.woken().await.as_micros());
            by_hand.push(bound.by_hand().await.as_micros());
        }
        // The first one makes connections.
        if round > 0 {
            let mut ms = |share| {
                (measured::quantile(&mut woken, share) as f64, measured::quantile(&mut by_hand, share) as f64)
            };
            let ((p50, p50_by_hand), (p99, p99_by_hand)) = (ms(0.5), ms(0.99));
            measured.pair("answered, p50, ms", 2, p50 / 1e3, p50_by_hand / 1e3);
            measured.pair("answered, p99, ms", 2, p99 / 1e3, p99_by_hand / 1e3);
            eprintln!(
                "waiting {round}/{}: p50 {p50} and {p50_by_hand} us, p99 {p99} and {p99_by_hand} us",
                plan.pairs
            );
        }
    }
    measured
}

impl Bound {
    async fn of(pair: &Pair, owner: &Owner) -> Self {
        let gateway = pair.sdk_gateway(&owner.token).with_project(&owner.project);
        let agents = ["y", "z"].map(|agent| format!("{agent}-{}", owner.agent));
        for agent in &agents {
            gateway.agents().set(agent, SetAgent::default()).await.expect("an agent");
        }
        let session = gateway.sessions().create("waiting").await.expect("a session").session.session_id;
        gateway.sessions().attach(&session, &agents[0], &owner.project).await.expect("bound");
        Self { gateway, session, agents, project: owner.project.clone(), moves: 0 }
    }

    /// From the call that ends the last job until the waiter has its answer.
    async fn woken(&mut self) -> Duration {
        let (job, to) = self.busy().await;
        let sessions = self.gateway.sessions();
        let (session, project) = (self.session.clone(), self.project.clone());
        let waiting = tokio::spawn(async move {
            let attached = sessions.attach_when_free(&session, &to, &project, AT_MOST, false).await;
            assert!(attached.expect("attached").changed, "to another agent");
            Instant::now()
        });
        tokio::time::sleep(IN_LINE).await;
        let began = Instant::now();
        self.gateway.jobs().cancel(&job).await.expect("cancelled");
        waiting.await.expect("answered") - began
    }

    async fn by_hand(&mut self) -> Duration {
        let (job, to) = self.busy().await;
        tokio::time::sleep(IN_LINE).await;
        let began = Instant::now();
        self.gateway.jobs().cancel(&job).await.expect("cancelled");
        let attached = self.gateway.sessions().attach(&self.session, &to, &self.project).await;
        assert!(attached.expect("attached").changed, "to another agent");
        began.elapsed()
    }

    /// A job that keeps it where it is, and the agent that it is not bound to.
    async fn busy(&mut self) -> (String, String) {
        let job = self.gateway.jobs().submit(&self.session, PAYLOAD).await.expect("queued");
        self.moves += 1;
        (job.job_id, self.agents[self.moves % 2].clone())
    }
}
