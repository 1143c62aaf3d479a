//! Faults of running processes and of the link between them: SIGSTOP of gateway, auth and worker beyond their
//! leases, and a link that is cut, refused, half-open, slow, that flips bits and cuts records short. A revocation
//! made meanwhile holds (I8), nobody is signed out, each job runs and ends once (I5, I7), each event is delivered
//! once and in order (I15), nothing grows (I17), and readiness tells the truth. The time to healthy is printed.
//!
//! SIGKILL has tests of its own (`kill`); the barrier at its finest, too (`barrier`). `INTERLOCK_SEED` repeats the
//! choices of a run; `INTERLOCK_LONG` makes more of them.

mod freeze;
mod link;
mod shift;
mod storm;

use std::time::Duration;

use interlock_client::OwnerSession;
use interlock_tests::{Pair, Setup, history::Watch, wire::Metadata};

const LEASE: Duration = Duration::from_secs(1);

/// Leases as short as they may be.
fn short() -> Setup {
    Setup::default().auth("lease", "1s")
}

fn seed() -> u64 {
    let given = std::env::var("INTERLOCK_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("seed {seed}: INTERLOCK_SEED={seed} repeats its choices");
    seed
}

/// How often something is tried.
fn rounds(usually: usize, long: usize) -> usize {
    if std::env::var_os("INTERLOCK_LONG").is_some() { long } else { usually }
}

/// Somebody who is to be signed out, with an open stream.
struct Victim {
    owner: OwnerSession,
    stream: Watch,
}

impl Victim {
    async fn sign_in(pair: &Pair, name: &str) -> Self {
        let owner = pair.login(name).await;
        let sessions = pair.sdk_gateway(&owner.access_token).sessions();
        let session = sessions.create("").await.expect("a session").session.session_id;
        let metadata = Metadata::bearer(&owner.access_token);
        let stream = Watch::open(&pair.gateway_public(), &metadata, &session).await;
        Self { owner, stream }
    }

    /// I8: the stream was closed, for this reason and no other.
    async fn sees_its_end(mut self) {
        assert_eq!(self.stream.end().await.reason, "REVOKED", "I8");
    }
}
