//! Gate 1 of this service: from the presented credential to the caller, by its hash, in the store.
//!
//! What is malformed is refused without touching the store; what looks valid is limited by source before it
//! does. Methods that anyone may call are judged in their verbs: they tell [`Gate`] of strangers they refuse.

use std::{net::SocketAddr, sync::Arc};

use interlock_kit::{
    authn::{self, Admit, Bearer, Presented, Refused},
    clock::{Clock, Timestamp},
    denials::{Counted, Denials, GarbageLimit, Noted},
    error::{Error, Reason},
    serve::{self, Source},
    store::{
        Store,
        audit::{Entry, Origin, Outcome},
    },
    unscoped::Unscoped,
};
use interlock_proto::{
    credential::{Credential, Hash, Kind},
    options::v1::{Caller as CallerKind, Listener},
    policy::Presented as Shown,
};

use crate::{
    caller::{Call, Caller, Principal, Proof},
    census::Census,
    parts::host_call,
    policy::{self, Act},
    root::Root,
    store::{Auth, Query, Shell},
    trust::{Authenticate, Validate, Validation},
    verdicts::Verdicts,
};

const SOURCES_MAX: usize = 16_384;
/// How often a credential is looked up again because of what was revoked meanwhile.
const LOOKS_MAX: usize = 3;
const COUNTED: &str = "denials.counted";
const HANDSHAKE: &str = "tls.handshake";

/// Gate 1, and the record of what it refuses.
#[derive(Debug)]
pub struct Gate {
    shell: Shell,
    store: Store<Auth>,
    clock: Clock,
    denials: Arc<Denials>,
    lookups: GarbageLimit,
    verdicts: Arc<Verdicts>,
    census: Arc<Census>,
}

impl Gate {
    /// Over this store. `verdicts` hear of its revocations, `census` of uses of role tokens; verbs know this `root`
    /// secret; one source may have so many unknown credentials looked up in a second.
    #[must_use]
    pub fn new(
        store: Store<Auth>,
        clock: Clock,
        verdicts: Arc<Verdicts>,
        census: Arc<Census>,
        root: Arc<Root>,
        unknown: u32,
    ) -> Self {
        let denials = Arc::new(Denials::default());
        Self {
            shell: Shell::counting(store.clone(), Arc::clone(&denials)).with_root(root),
            store,
            clock,
            denials,
            lookups: GarbageLimit::new(unknown, unknown, SOURCES_MAX),
            verdicts,
            census,
        }
    }

    /// Records refusals that were only counted: those of ended windows, or all at the end.
    ///
    /// # Errors
    /// What the store says; the counts are in the log then.
    pub async fn record_counted(&self, ending: bool) -> Result<(), Error> {
        let counted = if ending { self.denials.rest() } else { self.denials.due(self.clock.now()) };
        if counted.is_empty() {
            return Ok(());
        }
        let entries = counted.iter().map(row_of).collect();
        let recorded = self.store.record(entries).await;
        recorded.inspect_err(|_| tracing::error!(?counted, "refusals that could not be recorded"))
    }

    /// Runs verbs for calls that passed: what those refuse counts with what is refused here.
    #[must_use]
    pub fn shell(&self) -> Shell {
        self.shell.clone()
    }

    /// Whether the refusal of a stranger by a method that anyone may call gets a row of its own. If not it is
    /// counted by source: a flood of guesses must not fill the log.
    #[must_use]
    pub fn has_row(&self, source: Source, reason: Reason) -> bool {
        self.denials.note(&source.to_string(), reason, self.clock.now()) == Noted::Row
    }

    /// The refusal of a stranger whom a method for anyone turned away before it looked at what was shown: a row, or
    /// counted by source.
    pub async fn turned_away(&self, call: &Call, source: Source, refusal: &Error) {
        let outcome = Outcome::Refused(refusal.reason());
        self.note(source.to_string(), Entry::new(call.origin.clone(), call.action.clone(), outcome)).await;
    }

    /// Writes one row, to see whether a store that failed can be written again.
    ///
    /// # Errors
    /// What the store says.
    pub async fn probe_store(&self) -> Result<(), Error> {
        let call = host_call("store.probe");
        self.store.record(vec![Entry::new(call.origin, call.action, Outcome::Done)]).await
    }

    /// What a verifier asks: what is known of a credential, else what the store says of it.
    ///
    /// # Errors
    /// `FORBIDDEN` for whoever is no service; what the store says.
    pub async fn validate(
        &self,
        call: &serve::Call,
        caller: &Caller,
        hash: Hash,
        now: Timestamp,
    ) -> Result<Validation, Error> {
        // Whoever may not ask is refused by the verb, which leaves the row.
        if policy::decide(caller, Act::Verify, now).is_ok()
            && let Some(verdict) = self.verdicts.find(&hash, now)
        {
            return Ok(Validation::Valid(verdict));
        }
        Box::pin(self.look_up(&call_of(call, caller.clone()), hash, Validate { hash })).await
    }

    async fn look_up(
        &self,
        call: &Call,
        hash: Hash,
        query: impl Query<Out = Validation>,
    ) -> Result<Validation, Error> {
        let found = self.shell.ask(call, query).await?;
        if let Validation::Valid(verdict) = &found {
            self.verdicts.keep(hash, verdict);
        }
        Ok(found)
    }

    async fn known(
        &self,
        call: &serve::Call,
        credential: &Credential,
    ) -> Result<Arc<Principal>, Refused<Caller>> {
        match credential.kind() {
            Kind::Admin | Kind::User | Kind::Owner | Kind::Project => {}
            // These admit nobody here, so that there is nothing to look up.
            Kind::Refresh | Kind::Client | Kind::Internal => return Err(authn::login_required().into()),
        }
        let hash = credential.hash();
        if let Some(verdict) = self.verdicts.find(&hash, self.clock.now()) {
            return Ok(verdict.principal);
        }
        // In a box: what most calls do not need makes theirs no larger.
        Box::pin(self.found(call, hash)).await
    }

    async fn found(&self, call: &serve::Call, hash: Hash) -> Result<Arc<Principal>, Refused<Caller>> {
        self.lookups.check(call.source())?;
        for _ in 0..LOOKS_MAX {
            match self.look_up(&call_of(call, Caller::Nobody), hash, Authenticate { hash }).await? {
                // What was read may have been revoked while this one slept: then it is asked again.
                Validation::Valid(verdict) if self.verdicts.stands(&verdict).await => {
                    return Ok(verdict.principal);
                }
                Validation::Valid(_) => {}
                Validation::Expired(principal) => {
                    return Err(Refused {
                        caller: Some(Caller::Principal(principal)),
                        error: Error::new(Reason::TokenExpired, "the credential has expired"),
                    });
                }
                Validation::Refused => return Err(authn::login_required().into()),
            }
        }
        Err(Error::new(Reason::StoreUnavailable, "what is revoked cannot be followed now").into())
    }

    /// Gives a refusal its row, or counts it; says which.
    async fn note(&self, key: String, entry: Entry) -> Noted {
        let Outcome::Refused(reason) = entry.outcome else { return Noted::Counted };
        if self.denials.note(&key, reason, self.clock.now()) == Noted::Counted {
            return Noted::Counted;
        }
        if let Err(error) = self.store.record(vec![entry]).await {
            tracing::error!(%error, "a refusal could not be recorded");
        }
        Noted::Row
    }
}

impl Admit for Gate {
    type Caller = Caller;

    async fn admit(&self, call: &serve::Call, presented: Presented) -> Result<Caller, Refused<Caller>> {
        if call.policy.public() {
            // Its verb looks the credential up: what only looks valid costs a look-up there, too.
            if matches!(presented.bearer, Bearer::Credential(_)) {
                self.lookups.check(call.source())?;
            }
            return Ok(Caller::Nobody);
        }
        let services_only = call.policy.who == [CallerKind::Service];
        if let (true, Some(service)) = (services_only, &call.service) {
            let caller = Caller::Service(service.clone());
            return if matches!(presented.bearer, Bearer::Missing) && presented.on_behalf_of.is_none() {
                Ok(caller)
            } else {
                let text = "a service shows no other credential here, and acts for nobody";
                Err(Refused { caller: Some(caller), error: Error::new(Reason::Forbidden, text) })
            };
        }
        let Bearer::Credential(credential) = presented.bearer else {
            return Err(authn::login_required().into());
        };
        let known = self.known(call, &credential).await?;
        if matches!(known.proof, Proof::RoleToken { .. }) {
            self.census.note(&known.credential_id, call.source());
        }
        let principal = on_its_connection(known, call.cert_fingerprint);
        let admitted = call.policy.admit(presented_as(&principal));
        let caller = Caller::Principal(principal);
        match admitted {
            Ok(()) => Ok(caller),
            Err(reason) => {
                let error = Error::new(Reason::from_wire(reason), "this principal may not call this method");
                Err(Refused { caller: Some(caller), error })
            }
        }
    }

    async fn refused(&self, call: &serve::Call, caller: Option<&Caller>, error: &Error) {
        let call = call_of(call, caller.cloned().unwrap_or(Caller::Nobody));
        let key = match call.origin.principal.as_str() {
            "" => source_of(&call.origin.peer),
            known => known.to_owned(),
        };
        self.note(key, Entry::new(Arc::clone(&call.origin), call.action, Outcome::Refused(error.reason())))
            .await;
    }

    async fn handshake_refused(&self, listener: Listener, peer: SocketAddr, why: &str) {
        let origin = Origin { peer: peer.to_string(), ..Origin::default() };
        let entry = Entry::new(Arc::new(origin), HANDSHAKE, Outcome::Refused(Reason::Forbidden));
        let entry = entry.on(listener.as_str_name()).detailed(serde_json::json!({ "why": why }).to_string());
        // What is only counted is no line of the log either: strangers must not fill it.
        if self.note(Source::of(peer.ip()).to_string(), entry).await == Noted::Row {
            tracing::warn!(listener = listener.as_str_name(), %peer, why, "certificate refused");
        }
    }
}

/// Without the elevation that is bound to another client certificate than the connection's (DESIGN 14.14).
fn on_its_connection(principal: Arc<Principal>, certificate: Option<[u8; 32]>) -> Arc<Principal> {
    if principal.elevated_until == principal.elevation_on(certificate) {
        return principal;
    }
    Arc::new(Principal { elevated_until: None, elevated_for: None, ..(*principal).clone() })
}

fn source_of(peer: &str) -> String {
    peer.parse::<SocketAddr>().map_or_else(|_| peer.to_owned(), |peer| Source::of(peer.ip()).to_string())
}

fn row_of(counted: &Counted) -> Entry {
    let origin = Origin { principal: counted.key.clone(), ..Origin::default() };
    let span = format!(r#"{{"first":"{}","last":"{}"}}"#, counted.first, counted.last);
    let entry = Entry::new(Arc::new(origin), COUNTED, Outcome::Refused(counted.reason)).detailed(span);
    Entry { count: counted.count, ..entry }
}

fn presented_as(principal: &Principal) -> Shown<'_> {
    let (caller, scopes): (_, &[String]) = match &principal.proof {
        Proof::RoleToken { .. } => (CallerKind::RoleToken, &[]),
        Proof::OwnerSession { .. } => (CallerKind::OwnerSession, &[]),
        Proof::ProjectToken { scopes, .. } => (CallerKind::ProjectToken, scopes),
    };
    Shown { caller, administrator: principal.is_administrator(), scopes }
}

/// The call as its verb sees it.
#[must_use]
pub fn call_of(call: &serve::Call, caller: Caller) -> Call {
    let (principal, role, credential_id) = match &caller {
        Caller::Nobody => Default::default(),
        Caller::Principal(p) => {
            (p.owner_id.to_string(), p.role.text().to_owned(), p.credential_id.to_string())
        }
        Caller::Service(id) => (id.to_string(), "service".to_owned(), String::new()),
        Caller::Host => ("host".to_owned(), "host".to_owned(), String::new()),
    };
    let origin = Origin {
        principal,
        role,
        credential_id,
        peer: call.peer.to_string(),
        request_id: call.request_id.clone(),
        rpc: call.policy.path.clone(),
    };
    // Methods on one project say more: see `grpc/project.rs`.
    let unscoped = Unscoped::Warn { sunset: None };
    Call {
        caller,
        origin: Arc::new(origin),
        action: call.policy.audit.as_str().into(),
        named: None,
        unscoped,
    }
}
