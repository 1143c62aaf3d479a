//! What every handler stands on.

use std::{fmt, sync::Arc, time::Duration};

use interlock_kit::{
    audit_heads::AuditHeads, clock::Clock, hasher::Hasher, store::audit::Origin, unscoped::Unscoped,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admit::Gate,
    barrier::{Barrier, Reached},
    caller::{Call, Caller},
    census::Census,
    guesses::GuessLimit,
    replicas::Replicas,
    root::Root,
    store::Shell,
    token_file::TokenFile,
};

/// The parts of a running auth.
pub struct Parts {
    /// Gate 1: it records whom it refuses, and strangers whom methods for anyone refuse.
    pub gate: Arc<Gate>,
    /// Where verbs are run.
    pub shell: Shell,
    /// The account of this program's verifiers. [`Parts::wait_for`] waits for those of all.
    pub barrier: Barrier,
    /// What other services remember of this one's audit log, and this one of theirs.
    pub heads: Arc<AuditHeads>,
    /// The programs that share the store, where it is in a database.
    pub replicas: Option<Replicas>,
    /// Who uses role tokens, as far as it is known here.
    pub census: Arc<Census>,
    /// Where passwords are hashed.
    pub hasher: Hasher,
    /// The recoverable copy of the role tokens. Locked while one is changed: one change at a time.
    pub copy: Arc<tokio::sync::Mutex<TokenFile>>,
    /// How often passwords may be tried.
    pub guesses: GuessLimit,
    /// The root secret.
    pub root: Arc<Root>,
    /// How often the root password may be tried.
    pub root_guesses: GuessLimit,
    /// How long root stays unlocked, at most.
    pub root_ttl: Duration,
    /// The clock that leases of certificates are judged by; stored instants come from the store.
    pub clock: Clock,
    /// Names this start to verifiers.
    pub epoch: String,
    /// How long an access token lives.
    pub access_ttl: Duration,
    /// How long an owner session lives.
    pub session_ttl: Duration,
    /// What calls on a project get that name none.
    pub unscoped: Unscoped,
    /// Streams end when this does.
    pub shutdown: CancellationToken,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Parts {
    /// Returns when no verifier of any program on the store admits what the revocation `sequence`, or one before it,
    /// matches.
    pub async fn wait_for(&self, sequence: u64) -> Reached {
        let Some(replicas) = &self.replicas else { return self.barrier.wait_for(sequence).await };
        let (here, elsewhere) = tokio::join!(self.barrier.wait_for(sequence), replicas.wait_for(sequence));
        here.and(elsewhere)
    }

    /// As [`Parts::wait_for`], for everything that has been published here.
    pub async fn wait_for_all(&self) {
        self.wait_for(self.barrier.newest()).await;
    }
}

/// A call of this program itself: at its start, in its sweeps, or by an offline command.
#[must_use]
pub fn host_call(action: &'static str) -> Call {
    let origin = Origin { principal: "host".to_owned(), role: "host".to_owned(), ..Origin::default() };
    let unscoped = Unscoped::Warn { sunset: None };
    Call { caller: Caller::Host, origin: Arc::new(origin), action: action.into(), named: None, unscoped }
}
