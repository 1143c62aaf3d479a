//! What all racers share: where they race, and how it goes.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use interlock_client::Busy;
use rand::{RngExt as _, rngs::StdRng};
use tokio::sync::watch;

use crate::AGENTS;

/// After so many submits the other session gets most of them: the one that is left alone can move, and
/// meets the agent of the busy one.
const HOT_SUBMITS: usize = 25;

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) changed: AtomicUsize,
    pub(crate) same: AtomicUsize,
    pub(crate) rebind: AtomicUsize,
    pub(crate) project: AtomicUsize,
    pub(crate) submitted: AtomicUsize,
    pub(crate) submit_busy: AtomicUsize,
    pub(crate) finished: AtomicUsize,
    pub(crate) goodbyes: AtomicUsize,
}

impl Tally {
    pub(crate) fn busy(&self) -> usize {
        self.rebind.load(Ordering::Relaxed) + self.project.load(Ordering::Relaxed)
    }

    pub(crate) fn changed(&self) -> usize {
        self.changed.load(Ordering::Relaxed)
    }

    pub(crate) fn attaches(&self) -> usize {
        self.changed() + self.same.load(Ordering::Relaxed) + self.busy()
    }
}

/// What all racers share.
pub(crate) struct Track {
    pub(crate) sessions: [String; 2],
    pub(crate) projects: [String; 2],
    pub(crate) tally: Tally,
    pub(crate) attaches: usize,
    /// Moves with each attach that was answered, and with each submit.
    pub(crate) attached: watch::Sender<usize>,
    pub(crate) queued: watch::Sender<usize>,
    pub(crate) evidence: Mutex<Vec<Busy>>,
    /// Agent and project of each session, by their places here.
    pub(crate) last: Mutex<[(usize, usize); 2]>,
}

impl Track {
    pub(crate) fn over(&self) -> bool {
        self.tally.attaches() >= self.attaches
    }

    /// The session that gets most submits now.
    pub(crate) fn hot(&self) -> usize {
        self.tally.submitted.load(Ordering::Relaxed) / HOT_SUBMITS % 2
    }

    /// Where to attach which session. At times the quiet one to the agent of the busy one, in the other
    /// project; seldom to where it is already.
    pub(crate) fn target(&self, rng: &mut StdRng) -> (&str, &'static str, &str) {
        let last = *self.last.lock().expect("no racer panics");
        let hot = self.hot();
        let (session, place) = match rng.random_range(0..10) {
            0..4 => (1 - hot, (last[hot].0, 1 - last[hot].1)),
            _ => (rng.random_range(0..2), (rng.random_range(0..2), rng.random_range(0..2))),
        };
        let stays = place == last[session] && rng.random_bool(0.8);
        let (agent, project) = if stays { (place.0, 1 - place.1) } else { place };
        (&self.sessions[session], AGENTS[agent], &self.projects[project])
    }

    /// Where a session was last attached to, as far as one answer can tell.
    pub(crate) fn note(&self, session: &str, agent: &str, project: &str) {
        let place = |all: &[String; 2], one: &str| usize::from(all[1] == one);
        let to = (usize::from(AGENTS[1] == agent), place(&self.projects, project));
        self.last.lock().expect("no racer panics")[place(&self.sessions, session)] = to;
    }
}
