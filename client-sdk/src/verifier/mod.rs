//! The verifier: admits calls on a credential without asking auth each time, and never on one that a
//! finished revocation has reached.
//!
//! It is one half of the barrier (the other is in the auth service; `trust.proto` is the contract):
//! *it admits nothing while it holds no lease, and nothing that a revocation it has acknowledged
//! matches.*
//!
//! - `lease`: counted from before each renewal was sent, by whichever clock moved further;
//! - `log`: the newest applied revocations; whatever was verified before one is held against it
//!   before it is used again, and what is older than the log is asked again;
//! - `cache`: verdicts and memberships, bounded; a known credential costs a hash, a look-up and a
//!   look at the clocks;
//! - `flight`: one question to auth for any number of callers with the same unknown credential;
//! - `registry`: streams and parked calls, ended and counted *before* a revocation is acknowledged;
//! - `follow`: what the service itself ends with an owner or a membership, before that is acknowledged;
//! - `uses`: which role tokens were admitted, for auth to know who still uses an old one;
//! - `hold`: the stream to auth that all of this lives on;
//! - [`VerifierLayer`] and [`guard`]: the same for another tonic service.

mod cache;
mod flight;
mod follow;
mod heads;
mod hold;
mod layer;
mod lease;
mod log;
mod membership;
mod owner;
mod registry;
mod uses;
mod verdict;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use interlock_proto::credential::{Credential, Hash, Kind};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use cache::Cache;
use flight::Flights;
use lease::{Lease, Stamp};
use log::{Log, Standing};
use membership::Member;
use registry::Registry;
use uses::Uses;

pub use crate::clock::Clock;
use crate::{connect::Connection, error::Reason, random};
pub use follow::{Ended, Ending, Follower, Place};
pub use heads::{HeadExchange, HeadNews};
pub use layer::{VerifierLayer, VerifierService, guard};
pub use lease::LeaseState;
pub use owner::OwnerFacts;
pub use registry::{Delivery, End, Registration, RenewError};
use verdict::Asked;
pub use verdict::{CredentialKind, Verdict};

/// A verdict that turns out older than an applied revocation is asked for again; so often at most.
const ASKS_MAX: u32 = 5;

/// Checks credentials for a service. Cheap to clone; stops holding its lease when the last clone is
/// dropped.
#[derive(Clone)]
pub struct Verifier {
    core: Arc<Core>,
    _hold: Arc<AbortOnDropHandle<()>>,
}

/// What a verifier is started with.
#[derive(Clone, Debug)]
pub struct VerifierOptions {
    /// Unique for each start of a verifier, 16 to 64 characters.
    pub verifier_id: String,
    /// The clocks that leases and expiries are judged by.
    pub clock: Clock,
    /// How many verdicts are kept. 65,536 by default; the same number of memberships, and of named owners.
    pub cache_capacity: usize,
    /// How many applied revocations are remembered. 4,096 by default.
    pub log_capacity: usize,
    /// How often the lease is renewed. Each second by default.
    pub renew_every: Duration,
    /// What the service ends by itself; nothing by default.
    pub follower: Option<Arc<dyn Follower>>,
    /// The last sequence that the follower has seen to, in an earlier life too; 0: none that is known of.
    pub followed: u64,
    /// What is exchanged with auth about audit logs; none by default.
    pub heads: Option<Arc<dyn HeadExchange>>,
}

impl VerifierOptions {
    /// The defaults, under this id.
    #[must_use]
    pub fn new(verifier_id: impl Into<String>) -> Self {
        Self {
            verifier_id: verifier_id.into(),
            clock: Clock::system(),
            cache_capacity: 65_536,
            log_capacity: 4_096,
            renew_every: Duration::from_secs(1),
            follower: None,
            followed: 0,
            heads: None,
        }
    }

    /// The defaults, under an id made from `name` (at most 31 characters are used) and randomness.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let name: String = name.chars().take(31).collect();
        Self::new(format!("{name}-{}", random::id()))
    }
}

/// Why a credential is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Auth knows no such living credential, or it has expired.
    #[error("not authenticated ({})", .0.text())]
    Unauthenticated(Reason),
    /// Auth cannot be asked, or the lease has lapsed. Nobody is signed out by this.
    #[error("auth cannot be asked now")]
    AuthUnavailable,
}

impl VerifyError {
    /// The reason to refuse with.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Unauthenticated(reason) => reason,
            Self::AuthUnavailable => Reason::AuthUnavailable,
        }
    }
}

/// The state that calls, the stream to auth and registrations share.
pub(crate) struct Core {
    trust: Connection,
    clock: Clock,
    lease: Lease,
    log: Log,
    verdicts: Cache<Hash, Arc<Verdict>>,
    members: Cache<String, Arc<Member>>,
    /// Of owners that were named, by their ids.
    named: Cache<String, Arc<Verdict>>,
    flights: Flights,
    registry: Registry,
    uses: Uses,
}

impl Verifier {
    /// Starts holding a lease over `trust`: a connection to auth's internal listener, with client
    /// certificate and internal token. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(trust: Connection, options: VerifierOptions) -> Self {
        let core = Arc::new(Core {
            trust,
            clock: options.clock,
            lease: Lease::default(),
            log: Log::new(options.log_capacity),
            verdicts: Cache::new(options.cache_capacity),
            members: Cache::new(options.cache_capacity),
            named: Cache::new(options.cache_capacity),
            flights: Flights::default(),
            registry: Registry::default(),
            uses: Uses::default(),
        });
        let following = follow::Following::new(options.follower, options.followed);
        let (id, every, heads) = (options.verifier_id, options.renew_every, options.heads);
        let holding = hold::run(Arc::clone(&core), id, every, following, heads);
        let hold = Arc::new(AbortOnDropHandle::new(tokio::spawn(holding)));
        Self { core, _hold: hold }
    }

    /// As [`Verifier::verify_from`], where nobody knows who presents it.
    ///
    /// # Errors
    /// [`VerifyError`]. Negative answers are not kept.
    pub async fn verify(&self, credential: &Credential) -> Result<Arc<Verdict>, VerifyError> {
        self.verify_from(credential, None).await
    }

    /// Checks a credential: from the cache under the lease, else by asking auth, once for all callers
    /// that present the same one. Auth is told within a renewal of the lease which role tokens were presented, and
    /// from which address (IPv6 by /64).
    ///
    /// # Errors
    /// [`VerifyError`]. Negative answers are not kept.
    pub async fn verify_from(
        &self,
        credential: &Credential,
        address: Option<IpAddr>,
    ) -> Result<Arc<Verdict>, VerifyError> {
        match credential.kind() {
            Kind::Admin | Kind::User | Kind::Owner | Kind::Project => {}
            // No bearer of calls, by its own word: not worth a question.
            Kind::Refresh | Kind::Client | Kind::Internal => {
                return Err(VerifyError::Unauthenticated(Reason::ProviderAuthFailed));
            }
        }
        let verdict = self.core.verify(credential.hash()).await?;
        self.core.note(&verdict, address);
        Ok(verdict)
    }

    /// The verdict on a credential that is known to be good, under a living lease: asks nobody. None says nothing of
    /// the credential. What is found counts as [`Verifier::verify_from`] counts it.
    #[must_use]
    pub fn known_from(&self, credential: &Credential, address: Option<IpAddr>) -> Option<Arc<Verdict>> {
        let verdict = self.core.verdicts.find(&credential.hash())?;
        if self.core.standing(&verdict) != Standing::Good {
            return None;
        }
        let verdict = self.core.admit(verdict).ok()?;
        self.core.note(&verdict, address);
        Some(verdict)
    }

    /// The verdict on an owner that a caller has named instead of showing a credential of theirs: kept like another
    /// one, and ended by whatever is revoked of that owner. It is of kind [`CredentialKind::Named`], never elevated
    /// and never that of an administrator, whatever [`Verdict::session_root`] says. That the caller may name this
    /// owner is for the service to know.
    ///
    /// # Errors
    /// [`VerifyError`]: unauthenticated where the owner may not act, or is none.
    pub async fn on_behalf_of(&self, owner_id: &str) -> Result<Arc<Verdict>, VerifyError> {
        self.core.on_behalf_of(owner_id).await
    }

    /// What auth knows of an owner, asked anew.
    ///
    /// # Errors
    /// [`VerifyError::AuthUnavailable`].
    pub async fn describe_owner(&self, owner_id: &str) -> Result<OwnerFacts, VerifyError> {
        self.core.describe_owner(owner_id).await
    }

    /// Whether an owner may enter a project. A yes is kept like a verdict and ends like one; a no is
    /// not kept.
    ///
    /// # Errors
    /// [`VerifyError::AuthUnavailable`].
    pub async fn may_enter(&self, owner_id: &str, project_id: &str) -> Result<bool, VerifyError> {
        self.core.may_enter(owner_id, project_id).await
    }

    /// Whether it is known already, under a living lease, that an owner may enter a project: asks
    /// nobody. `false` says nothing about the owner.
    #[must_use]
    pub fn is_known_member(&self, owner_id: &str, project_id: &str) -> bool {
        self.core.is_known_member(owner_id, project_id)
    }

    /// Whether nothing that was revoked since `verdict` was given concerns it: asks nobody, and says nothing of the
    /// lease. For a call that has made something which outlives it.
    #[must_use]
    pub fn stands(&self, verdict: &Verdict) -> bool {
        self.core.standing(verdict) == Standing::Good
    }

    /// Whether the lease lives, now.
    #[must_use]
    pub fn holds_lease(&self) -> bool {
        self.core.lease.holds(&self.core.clock)
    }

    /// The lease as it changes. A lapse shows here within 50 ms; [`Verifier::holds_lease`] knows at
    /// once.
    #[must_use]
    pub fn lease_state(&self) -> watch::Receiver<LeaseState> {
        self.core.lease.watch()
    }

    /// Waits until the lease is held.
    pub async fn ready(&self) {
        self.core.lease.held(&self.core.clock).await;
    }

    /// Registers a stream or a parked call that stands on `verdict`: it is told when the credential is
    /// revoked or expires. One that was revoked since it was verified is ended from the start.
    #[must_use]
    pub fn register(&self, verdict: &Arc<Verdict>) -> Registration {
        self.register_from(verdict, None, None)
    }

    /// As [`Verifier::register`], for something inside a project: ended also when the owner's
    /// membership in `project_id` ends. Register first and ask [`Verifier::may_enter`] then: so an end
    /// of the membership is seen by one of the two.
    #[must_use]
    pub fn register_in(&self, verdict: &Arc<Verdict>, project_id: &str) -> Registration {
        self.register_from(verdict, Some(project_id), None)
    }

    /// As [`Verifier::register`], or [`Verifier::register_in`] where there is a project, for a caller at this address:
    /// as long as it is open it uses what it stands on, which auth is told of a role token.
    #[must_use]
    pub fn register_from(
        &self,
        verdict: &Arc<Verdict>,
        project_id: Option<&str>,
        address: Option<IpAddr>,
    ) -> Registration {
        Registration::new(&self.core, verdict, project_id, uses::source(address))
    }

    /// How many streams and parked calls are registered.
    #[must_use]
    pub fn registered(&self) -> usize {
        self.core.registry.len()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("holds_lease", &self.holds_lease()).finish_non_exhaustive()
    }
}

impl Core {
    async fn verify(self: &Arc<Self>, hash: Hash) -> Result<Arc<Verdict>, VerifyError> {
        for _ in 0..ASKS_MAX {
            let verdict = match self.verdicts.find(&hash) {
                Some(verdict) => verdict,
                None if !self.lease.holds(&self.clock) => return Err(VerifyError::AuthUnavailable),
                None => self.flights.ask(self, hash).await?,
            };
            match self.standing(&verdict) {
                Standing::Good => return self.admit(verdict),
                // The same credential may have been admitted anew since: auth says.
                Standing::Matched | Standing::Forgotten => self.verdicts.remove(&hash),
            }
        }
        Err(VerifyError::AuthUnavailable)
    }

    /// Who was verified before, once more.
    async fn verify_again(self: &Arc<Self>, asked: &Asked) -> Result<Arc<Verdict>, VerifyError> {
        match asked {
            Asked::Credential(hash) => self.verify(*hash).await,
            Asked::Owner(owner_id) => self.on_behalf_of(owner_id).await,
        }
    }

    /// The last look, after the one at the revocations: the lease and the expiry, at one instant.
    fn admit(&self, verdict: Arc<Verdict>) -> Result<Arc<Verdict>, VerifyError> {
        let now = Stamp::of(&self.clock);
        if !self.lease.holds_at(now) {
            return Err(VerifyError::AuthUnavailable);
        }
        if now.wall_us() >= verdict.expires_us() {
            return Err(VerifyError::Unauthenticated(Reason::TokenExpired));
        }
        Ok(verdict)
    }

    /// Auth is told of uses of role tokens.
    fn note(&self, verdict: &Verdict, address: Option<IpAddr>) {
        if verdict.kind == CredentialKind::RoleToken {
            self.uses.note(verdict, uses::source(address), self.clock.monotonic_ns());
        }
    }

    fn standing(&self, verdict: &Verdict) -> Standing {
        self.log.standing(verdict.checked(), |row| verdict.matched_by(row))
    }
}
