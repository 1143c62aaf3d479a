//! Gate 1 of the gateway: a bearer credential becomes a verdict of the verifier's, a cookie stays what it is
//! until the transaction that it acts in looks it up.
//!
//! Calls by cookie alone need no lease from auth. On the internal listener a service forwards the credential
//! of whom it acts for, or names an owner that it is listed for ([`crate::on_behalf`]); naming nobody is
//! `IDENTITY_REQUIRED`, but for a service that is listed to work jobs as itself ([`crate::service_workers`]). Who is
//! named is judged as a plain owner: an administrator cannot be, and root is never unlocked.
//!
//! A call with no credential at all is nobody's, and refused, but where the configuration lets such callers make sessions
//! ([`crate::anonymous`]). What is presented and not good never counts as none.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use interlock_client::verifier::{CredentialKind, Verdict, Verifier, VerifyError};
use interlock_kit::{
    authn::{Admit, Bearer, Call, Presented, Refused, login_required},
    clock::Clock,
    denials::{Denials, GarbageLimit, Noted},
    error::{Error, Reason},
    store::audit::{Entry, Origin, Outcome},
};
use interlock_proto::{
    credential::{Credential, Hash, Kind},
    metadata,
    options::v1::{Caller as CallerKind, Listener},
    policy,
};
use parking_lot::Mutex;

use crate::{
    anonymous::Anonymous,
    caller::{Caller, Cookie, Principal, ServiceWorker, Unscoped},
    ids::{OwnerId, ProjectId},
    on_behalf::OnBehalf,
    service_workers::ServiceWorkers,
    store::Shell,
};

mod admitted;
mod denied;
mod identity;

pub(crate) use admitted::{Admitted, following};
use identity::{cookies, origin, principal};

/// Of how many seconds a source may spend the budget for unknown credentials at once.
const UNKNOWN_BURST_S: u32 = 5;
const SOURCES_MAX: usize = 4_096;
/// Credentials remembered as once good: those cost their source nothing.
const KNOWN_MAX: usize = 65_536;

/// Decides gate 1, and records its refusals.
pub(crate) struct Gate {
    verifier: Verifier,
    shell: Shell,
    clock: Clock,
    unscoped: Unscoped,
    on_behalf: Option<OnBehalf>,
    service_workers: Option<ServiceWorkers>,
    anonymous: Option<Anonymous>,
    denials: Denials,
    garbage: GarbageLimit,
    known: Mutex<HashSet<Hash>>,
}

/// What gate 1 has found out about who calls.
enum Known {
    /// Auth has said who it is; with the bearer, unless a service named the owner.
    Verdict(Arc<Verdict>, Option<Credential>),
    /// A service, as itself.
    Service(ServiceWorker),
    /// Whoever holds the cookies that came along; nobody, on a public method.
    Cookie,
    /// Nobody, and that is enough.
    Nobody,
}

impl Gate {
    pub(crate) fn new(
        verifier: Verifier,
        shell: Shell,
        clock: Clock,
        unscoped: Unscoped,
        unknown_per_s: u32,
    ) -> Self {
        Self {
            verifier,
            shell,
            clock,
            unscoped,
            on_behalf: None,
            service_workers: None,
            anonymous: None,
            denials: Denials::default(),
            garbage: GarbageLimit::new(
                unknown_per_s,
                unknown_per_s.saturating_mul(UNKNOWN_BURST_S),
                SOURCES_MAX,
            ),
            known: Mutex::default(),
        }
    }

    /// The same, for services that act for owners by name.
    pub(crate) fn with_on_behalf(self, on_behalf: Option<OnBehalf>) -> Self {
        Self { on_behalf, ..self }
    }

    /// The same, for services that work jobs as themselves.
    pub(crate) fn with_service_workers(self, service_workers: Option<ServiceWorkers>) -> Self {
        Self { service_workers, ..self }
    }

    /// The same, for callers with no credential, where they are taken.
    pub(crate) fn with_anonymous(self, anonymous: Option<Anonymous>) -> Self {
        Self { anonymous, ..self }
    }

    /// Who calls that shows no credential: a service that is listed for this, or nobody where that is taken.
    fn bare(&self, call: &Call) -> Result<Known, Error> {
        if call.listener == Listener::Internal {
            let takes = call.policy.who.contains(&CallerKind::Service);
            return self.service_worker(call).filter(|_| takes).map(Known::Service).ok_or_else(|| {
                let message = "a service must say whom it acts for: forward their credential, or name them";
                Error::new(Reason::IdentityRequired, message)
            });
        }
        let takes = call.listener == Listener::Public && call.policy.who.contains(&CallerKind::Anonymous);
        let anonymous = self.anonymous.as_ref().filter(|_| takes).ok_or_else(login_required)?;
        anonymous.spend(call.source())?;
        Ok(Known::Nobody)
    }

    /// The calling service, as it is listed at this moment to work jobs as itself.
    fn service_worker(&self, call: &Call) -> Option<ServiceWorker> {
        self.service_workers.as_ref()?.of(call.service.as_ref()?)
    }

    /// The verdict on the owner that a service names. Whatever is wrong with the name has one answer: it tells a
    /// service nothing of owners that it is not listed for, and nothing of administrators.
    async fn named(&self, call: &Call, named: &str, alone: bool) -> Result<Arc<Verdict>, Error> {
        if !alone {
            let message = "x-on-behalf-of stands in place of a credential, never beside one";
            return Err(Error::new(Reason::Forbidden, message));
        }
        let owner = OwnerId::parse_as(metadata::ON_BEHALF_OF, named)?;
        self.may_name(call, &owner)?;
        let verdict = self.verifier.on_behalf_of(owner.as_str()).await.map_err(|error| match error {
            VerifyError::Unauthenticated(_) => not_listed(),
            VerifyError::AuthUnavailable => auth_unavailable(),
        })?;
        if verdict.session_root || verdict.role != "user" {
            return Err(not_listed());
        }
        Ok(verdict)
    }

    /// Asks whether the calling service is listed to act for an owner: once more by calls that last.
    ///
    /// # Errors
    /// `FORBIDDEN`
    pub(crate) fn may_name(&self, call: &Call, owner: &OwnerId) -> Result<(), Error> {
        let listed = self.on_behalf.as_ref().zip(call.service.as_ref());
        match listed.is_some_and(|(list, service)| list.allows(service, &call.policy.path, owner)) {
            true => Ok(()),
            false => Err(not_listed()),
        }
    }

    /// Asks again whether a call that lasts may go on: the calling service, and the owner that it has named. Answers
    /// with the caller as it is now: a service that works as itself has the agents that it is listed for at this moment.
    ///
    /// # Errors
    /// As [`Call::recheck_service`]; `FORBIDDEN` where it is not listed any more, or not for that owner.
    pub(crate) fn recheck(&self, call: &Call, caller: &Arc<Caller>) -> Result<Arc<Caller>, Error> {
        call.recheck_service(self.clock.wall())?;
        if let Some(named) = &call.on_behalf_of {
            self.may_name(call, &OwnerId::parse_as(metadata::ON_BEHALF_OF, named)?)?;
        }
        let Principal::Service(before) = &caller.principal else { return Ok(Arc::clone(caller)) };
        match self.service_worker(call) {
            Some(now) if now == *before => Ok(Arc::clone(caller)),
            Some(now) => Ok(Arc::new(Caller { principal: Principal::Service(now), ..(**caller).clone() })),
            None => Err(Error::new(Reason::Forbidden, "this service is not listed to work jobs any more")),
        }
    }

    async fn verdict(&self, call: &Call, credential: &Credential) -> Result<Arc<Verdict>, Error> {
        let takes = matches!(credential.kind(), Kind::Admin | Kind::User | Kind::Owner | Kind::Project);
        if !takes {
            return Err(login_required());
        }
        // Whom the verifier knows costs nothing, and asks nobody.
        if let Some(verdict) = self.verifier.known_from(credential, Some(call.peer.ip())) {
            return Ok(verdict);
        }
        Box::pin(self.looked_up(call, credential)).await
    }

    async fn looked_up(&self, call: &Call, credential: &Credential) -> Result<Arc<Verdict>, Error> {
        let hash = credential.hash();
        let was_known = self.spend(call, &hash)?;
        let verified = self.verifier.verify_from(credential, Some(call.peer.ip())).await;
        let verdict = verified.map_err(|error| {
            if matches!(error, VerifyError::Unauthenticated(_)) {
                self.forget(&hash);
            }
            unverified(error)
        })?;
        if !was_known {
            self.remember(hash);
        }
        Ok(verdict)
    }

    /// Before a credential is looked up: one that was never good costs its source. Whether it was good before.
    ///
    /// # Errors
    /// `RATE_LIMITED`
    pub(crate) fn spend(&self, call: &Call, hash: &Hash) -> Result<bool, Error> {
        if self.known.lock().contains(hash) {
            return Ok(true);
        }
        self.garbage.check(call.source()).map(|()| false)
    }

    /// A credential was good.
    pub(crate) fn remember(&self, hash: Hash) {
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX && !known.contains(&hash) {
            known.clear();
        }
        known.insert(hash);
    }

    /// It is good no longer, or never was.
    pub(crate) fn forget(&self, hash: &Hash) {
        self.known.lock().remove(hash);
    }

    /// The last question of gate 1.
    #[expect(clippy::result_large_err, reason = "a refusal that knows its caller goes on to the audit")]
    fn let_in(&self, call: &Call, known: Known, cookies: Vec<Cookie>) -> Result<Admitted, Refused<Admitted>> {
        let admitted = self.admitted(call, known, cookies)?;
        match gate_one(call, &admitted) {
            Ok(()) => Ok(admitted),
            Err(error) => Err(Refused { caller: Some(admitted), error }),
        }
    }

    fn admitted(&self, call: &Call, known: Known, cookies: Vec<Cookie>) -> Result<Admitted, Error> {
        let named = call.named_project.clone();
        let named = named.map(|text| ProjectId::parse_as(metadata::PROJECT, text)).transpose()?;
        let origin = Arc::new(origin(call, &known, cookies.first()));
        let (principal, verdict, bearer) = match known {
            Known::Verdict(verdict, bearer) => {
                (principal(&verdict, call.cert_fingerprint)?, Some(verdict), bearer)
            }
            Known::Service(worker) => (Principal::Service(worker), None, None),
            Known::Cookie => (Principal::Client, None, None),
            Known::Nobody => (Principal::Anonymous, None, None),
        };
        tracing::Span::current().record("principal", &*origin.principal);
        let (cookie, unscoped) = (cookies.first().cloned(), self.unscoped);
        let caller = Arc::new(Caller { principal, cookie, named, unscoped, origin });
        let (cookies, address) = (cookies.into(), call.peer.ip());
        Ok(Admitted { caller, verdict, bearer, cookies, address })
    }
}

impl Admit for Gate {
    type Caller = Admitted;

    async fn admit(&self, call: &Call, presented: Presented) -> Result<Admitted, Refused<Admitted>> {
        if call.policy.public() {
            return Ok(self.admitted(call, Known::Cookie, Vec::new())?);
        }
        if let Some(named) = &presented.on_behalf_of {
            let alone = matches!(presented.bearer, Bearer::Missing) && presented.cookies.is_empty();
            let verdict = Box::pin(self.named(call, named, alone)).await?;
            return self.let_in(call, Known::Verdict(verdict, None), Vec::new());
        }
        let cookies = cookies(presented.cookies)?;
        let known = match presented.bearer {
            Bearer::Credential(credential) => {
                Known::Verdict(self.verdict(call, &credential).await?, Some(credential))
            }
            Bearer::Malformed => return Err(login_required().into()),
            Bearer::Missing if !cookies.is_empty() => Known::Cookie,
            Bearer::Missing => self.bare(call)?,
        };
        self.let_in(call, known, cookies)
    }

    async fn refused(&self, call: &Call, caller: Option<&Admitted>, error: &Error) {
        self.record(call, caller, error).await;
    }

    async fn handshake_refused(&self, listener: Listener, peer: SocketAddr, why: &str) {
        let key = interlock_kit::authn::Source::of(peer.ip()).to_string();
        if self.denials.note(&key, Reason::Forbidden, self.clock.now()) == Noted::Counted {
            return;
        }
        // What is only counted is no line of the log either: strangers must not fill it.
        tracing::warn!(listener = listener.as_str_name(), %peer, why, "certificate refused");
        let origin = Arc::new(Origin { peer: peer.to_string(), ..Origin::default() });
        let entry = Entry::new(origin, "tls.handshake", Outcome::Refused(Reason::Forbidden));
        let entry = entry.on(listener.as_str_name()).detailed(serde_json::json!({ "why": why }).to_string());
        self.commit(vec![entry]).await;
    }
}

fn not_listed() -> Error {
    Error::new(Reason::Forbidden, "this service may not act for that owner here; forward their credential")
}

/// Gate 1. Whoever shows a session's cookie beside a bearer may be let in as either; the verb asks that both
/// lead to the same owner.
fn gate_one(call: &Call, admitted: &Admitted) -> Result<(), Error> {
    let plain = |caller| policy::Presented { caller, administrator: false, scopes: &[] };
    let as_client = plain(CallerKind::Client);
    let Some(verdict) = &admitted.verdict else {
        let as_itself = match admitted.caller.principal {
            Principal::Service(_) => plain(CallerKind::Service),
            Principal::Anonymous => plain(CallerKind::Anonymous),
            Principal::Admin
            | Principal::User
            | Principal::Owner(_)
            | Principal::Project(_)
            | Principal::Client
            | Principal::Gateway => as_client,
        };
        return call.policy.admit(as_itself).map_err(|reason| not_through(Reason::from_wire(reason)));
    };
    let by_bearer = call.policy.admit(policy::Presented {
        caller: verdict.caller(),
        administrator: verdict.administrator(),
        scopes: &verdict.scopes,
    });
    let by_cookie = || {
        !admitted.cookies.is_empty() && !verdict_is_scoped(verdict) && call.policy.admit(as_client).is_ok()
    };
    match by_bearer {
        Err(_) if by_cookie() => Ok(()),
        decided => decided.map_err(|reason| not_through(Reason::from_wire(reason))),
    }
}

/// A project token's missing scope is not made up for by a cookie.
fn verdict_is_scoped(verdict: &Verdict) -> bool {
    verdict.kind == CredentialKind::ProjectToken
}

fn not_through(reason: Reason) -> Error {
    let message = match reason {
        Reason::LoginRequired => "login required: this needs an owner session",
        Reason::ScopeRequired => "the project token lacks the scope of this method",
        _ => "not allowed with this kind of credential or role",
    };
    Error::new(reason, message)
}

fn unverified(error: VerifyError) -> Error {
    match error {
        VerifyError::Unauthenticated(reason) => match Reason::from_wire(reason) {
            Reason::TokenExpired => Error::new(Reason::TokenExpired, "the credential has expired"),
            _ => login_required(),
        },
        VerifyError::AuthUnavailable => auth_unavailable(),
    }
}

/// Nobody is signed out by this.
pub(crate) fn auth_unavailable() -> Error {
    Error::new(Reason::AuthUnavailable, "auth cannot be asked now; try again")
        .retry_after(Duration::from_secs(1))
}
