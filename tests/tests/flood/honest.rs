//! An honest client: calls one after another, each of which must be answered.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use interlock_tests::{
    PATIENCE, Service, eventually,
    wire::{self, Metadata, Outcome},
    within,
};
use tokio::task::JoinHandle;

use crate::target::Target;

/// Between calls: many in each flood, and no flood of its own.
const PAUSE: Duration = Duration::from_millis(2);

/// Calls until it is asked how it went.
pub(crate) struct Honest {
    enough: Arc<AtomicBool>,
    calls: JoinHandle<Vec<Duration>>,
}

/// How long its calls took.
pub(crate) struct Figures(Vec<Duration>);

impl Honest {
    /// On one connection that is open already.
    pub(crate) async fn on_one_connection(target: &Target<'_>) -> Self {
        let channel = target.channel(1);
        target.served(&channel).await;
        Self::start(target, false, move |_| channel.clone())
    }

    /// On a new connection for each call; on another where one could not be made.
    pub(crate) fn on_new_connections(target: &Target<'_>) -> Self {
        Self::start(target, true, |way| way.channel(1))
    }

    fn start(
        target: &Target<'_>,
        again: bool,
        connect: impl Fn(&crate::target::Way) -> tonic::transport::Channel + Send + 'static,
    ) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let (way, done) = (target.way.clone(), Arc::clone(&enough));
        let calls = tokio::spawn(async move {
            let (mut took, mut connected) = (Vec::new(), Instant::now());
            while !done.load(Ordering::SeqCst) || took.is_empty() {
                let (channel, began) = (connect(&way), Instant::now());
                let answer = wire::call(&channel, way.path, Vec::new(), &way.metadata).await;
                let lost = answer.outcome.reason.is_empty() && answer.outcome != Outcome::ok();
                if again && lost && connected.elapsed() < PATIENCE {
                    // On a machine without a free processor a handshake may miss its deadline.
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                let so_far = took.len();
                assert_eq!(answer.outcome, Outcome::ok(), "an honest call at {} after {so_far}", way.name);
                connected = Instant::now();
                took.push(began.elapsed());
                tokio::time::sleep(PAUSE).await;
            }
            took
        });
        Self { enough, calls }
    }

    /// Waits until it has called so often while nobody else does.
    pub(crate) async fn unharmed(self) -> Figures {
        self.enough.store(true, Ordering::SeqCst);
        let mut took =
            within("the end of the honest client", self.calls).await.expect("every call was answered");
        took.sort_unstable();
        Figures(took)
    }
}

impl Figures {
    fn at(&self, share: f64) -> Duration {
        let place = (self.0.len() as f64 * share) as usize;
        self.0[place.min(self.0.len() - 1)]
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (middle, late) = (self.at(0.5), self.at(0.99));
        write!(f, "honest: {} calls, p50 {middle:.1?}, p99 {late:.1?}", self.0.len())
    }
}

/// Waits until a call is answered well.
pub(crate) async fn until_served(target: &Target<'_>) {
    eventually("a call that is answered on a new connection", async || {
        let answer = wire::call(&target.channel(1), target.way.path, Vec::new(), &target.way.metadata).await;
        (answer.outcome == Outcome::ok()).then_some(())
    })
    .await;
}

/// The health listener answers.
pub(crate) async fn healthy(service: &Service) {
    let channel = wire::connect_plain(service.address("health"));
    let answer = wire::call(&channel, "/grpc.health.v1.Health/Check", Vec::new(), &Metadata::none()).await;
    assert_eq!(answer.outcome, Outcome::ok(), "health has room of its own");
}
