//! Gate 1 of the gateway: a bearer credential becomes a verdict of the verifier's, a cookie stays what it is
//! until the transaction that it acts in looks it up.
//!
//! Calls by cookie alone need no lease from auth. On the internal listener a service forwards the credential
//! of whom it acts for, or names an owner that it is listed for ([`crate::on_behalf`]); naming nobody is
//! `IDENTITY_REQUIRED`. Who is named is judged as a plain owner: an administrator cannot be, and root is never
//! unlocked.

use std::{collections::HashSet, fmt, net::SocketAddr, sync::Arc, time::Duration};

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
use zeroize::Zeroizing;

use crate::{
    caller::{Caller, Cookie, Principal, Unscoped},
    ids::{OwnerId, ProjectId, SessionId},
    on_behalf::OnBehalf,
    standing::Standing,
    store::Shell,
};

mod identity;

use identity::{client_principal, cookies, counted_row, nobody, origin, principal};

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
    denials: Denials,
    garbage: GarbageLimit,
    known: Mutex<HashSet<Hash>>,
}

/// Who calls, as the handlers get it.
#[derive(Clone)]
pub(crate) struct Admitted {
    /// As the domain sees it.
    pub(crate) caller: Arc<Caller>,
    /// What auth said of the bearer; `None` for a cookie alone.
    pub(crate) verdict: Option<Arc<Verdict>>,
    /// The bearer itself.
    bearer: Option<Credential>,
    /// All cookies that came along, one a session.
    cookies: Arc<[Cookie]>,
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

    /// Asks again whether a call that lasts may go on: the calling service, and the owner that it has named.
    ///
    /// # Errors
    /// As [`Call::recheck_service`]; `FORBIDDEN` where it is not listed for that owner any more.
    pub(crate) fn recheck(&self, call: &Call) -> Result<(), Error> {
        call.recheck_service(self.clock.wall())?;
        match &call.on_behalf_of {
            Some(named) => self.may_name(call, &OwnerId::parse_as(metadata::ON_BEHALF_OF, named)?),
            None => Ok(()),
        }
    }

    async fn verdict(&self, call: &Call, credential: &Credential) -> Result<Arc<Verdict>, Error> {
        let takes = matches!(credential.kind(), Kind::Admin | Kind::User | Kind::Owner | Kind::Project);
        if !takes {
            return Err(login_required());
        }
        let hash = credential.hash();
        let was_known = self.spend(call, &hash)?;
        let verdict = self.verifier.verify(credential).await.map_err(|error| {
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

    /// Records a refusal: its own row, or counted with others of its kind.
    async fn record(&self, call: &Call, caller: Option<&Admitted>, error: &Error) {
        let origin = caller.map_or_else(|| Arc::new(nobody(call)), |known| Arc::clone(&known.caller.origin));
        // A cookie has proved nothing yet: whoever makes them up is counted by source, not by what they made up.
        let proven = caller.is_some_and(|known| known.verdict.is_some());
        let key = if proven { origin.principal.clone() } else { call.source().to_string() };
        if self.denials.note(&key, error.reason(), self.clock.now()) == Noted::Counted {
            return;
        }
        let entry = Entry::new(origin, call.policy.audit.as_str(), Outcome::Refused(error.reason()));
        // Whom a service wanted to act for stands beside it.
        let named = call.on_behalf_of.as_deref().filter(|_| caller.is_none()).unwrap_or_default();
        self.commit(vec![entry.on(named)]).await;
    }

    /// A cookie that was not good in its transaction: nobody is known by it, so the gate counts it.
    pub(crate) async fn record_unknown_cookie(&self, call: &Call, error: &Error) {
        self.record(call, None, error).await;
    }

    /// A refusal of a known caller that no verb records.
    pub(crate) async fn record_refusal(&self, call: &Call, caller: &Admitted, error: &Error) {
        self.record(call, Some(caller), error).await;
    }

    /// Writes the rows of what was counted; all of it at a shutdown.
    pub(crate) async fn flush(&self, all: bool) {
        let counted = if all { self.denials.rest() } else { self.denials.due(self.clock.now()) };
        if !counted.is_empty() {
            self.commit(counted.into_iter().map(counted_row).collect()).await;
        }
    }

    async fn commit(&self, entries: Vec<Entry>) {
        if let Err(error) = self.shell.record(entries).await {
            // The refusal stands: what cannot be recorded is not admitted either.
            tracing::error!(reason = %error.reason(), "a refusal could not be recorded");
        }
    }

    /// The last question of gate 1.
    #[expect(clippy::result_large_err, reason = "a refusal that knows its caller goes on to the audit")]
    fn let_in(
        &self,
        call: &Call,
        verdict: Option<(Arc<Verdict>, Option<Credential>)>,
        cookies: Vec<Cookie>,
    ) -> Result<Admitted, Refused<Admitted>> {
        let admitted = self.admitted(call, verdict, cookies)?;
        match gate_one(call, &admitted) {
            Ok(()) => Ok(admitted),
            Err(error) => Err(Refused { caller: Some(admitted), error }),
        }
    }

    fn admitted(
        &self,
        call: &Call,
        verdict: Option<(Arc<Verdict>, Option<Credential>)>,
        cookies: Vec<Cookie>,
    ) -> Result<Admitted, Error> {
        let named = call.named_project.clone();
        let named = named.map(|text| ProjectId::parse_as(metadata::PROJECT, text)).transpose()?;
        let principal = match &verdict {
            Some((verdict, _)) => principal(verdict, call.cert_fingerprint)?,
            None => Principal::Client,
        };
        let caller = Caller {
            principal,
            cookie: cookies.first().cloned(),
            named,
            unscoped: self.unscoped,
            origin: Arc::new(origin(call, verdict.as_ref().map(|(verdict, _)| &**verdict), cookies.first())),
        };
        tracing::Span::current().record("principal", &*caller.origin.principal);
        let (verdict, bearer) = verdict.unzip();
        let bearer = bearer.flatten();
        Ok(Admitted { caller: Arc::new(caller), verdict, bearer, cookies: cookies.into() })
    }
}

impl Admit for Gate {
    type Caller = Admitted;

    async fn admit(&self, call: &Call, presented: Presented) -> Result<Admitted, Refused<Admitted>> {
        if call.policy.public() {
            return Ok(self.admitted(call, None, Vec::new())?);
        }
        if let Some(named) = &presented.on_behalf_of {
            let alone = matches!(presented.bearer, Bearer::Missing) && presented.cookies.is_empty();
            let verdict = self.named(call, named, alone).await?;
            return self.let_in(call, Some((verdict, None)), Vec::new());
        }
        let cookies = cookies(presented.cookies)?;
        let verdict = match presented.bearer {
            Bearer::Credential(credential) => {
                Some((self.verdict(call, &credential).await?, Some(credential)))
            }
            Bearer::Malformed => return Err(login_required().into()),
            Bearer::Missing if !cookies.is_empty() => None,
            Bearer::Missing if call.listener == Listener::Internal => {
                let message = "a service must say whom it acts for: forward their credential, or name them";
                return Err(Error::new(Reason::IdentityRequired, message).into());
            }
            Bearer::Missing => return Err(login_required().into()),
        };
        self.let_in(call, verdict, cookies)
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

impl Admitted {
    /// What only this caller can show again: the bearer, or what the service that named it stands on. None for a
    /// cookie alone. Answers that hold a secret are sealed under it.
    pub(crate) fn sealing_secret(&self, call: &Call) -> Option<Zeroizing<String>> {
        match &self.bearer {
            Some(bearer) => Some(Zeroizing::new(bearer.expose().to_owned())),
            None => self.verdict.as_ref().and_then(|_| call.service_secret()),
        }
    }

    /// The caller for a call that names its session: with that session's cookie, where several came.
    pub(crate) fn for_session(&self, session: &SessionId) -> Arc<Caller> {
        let fits = |cookie: &&Cookie| cookie.session == *session;
        match self.cookies.iter().find(fits) {
            Some(cookie) if self.caller.cookie.as_ref() != Some(cookie) => {
                Arc::new(Caller { cookie: Some(cookie.clone()), ..(*self.caller).clone() })
            }
            _ => Arc::clone(&self.caller),
        }
    }

    /// Who opened a stream, for whoever wants to renew it.
    pub(crate) fn principal(&self) -> String {
        match (&self.verdict, &self.caller.cookie) {
            (Some(verdict), _) => format!("owner {}", verdict.owner_id),
            (None, Some(cookie)) => client_principal(cookie),
            (None, None) => "nobody".to_owned(),
        }
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").field("principal", &self.caller.principal).finish_non_exhaustive()
    }
}

/// The caller of a stream, after it was moved over to another credential of the same principal: what that one
/// may do, and no longer what the first one might. The same while it stands on the first.
///
/// # Errors
/// `PROVIDER_AUTH_FAILED` where the credential names nobody.
pub(crate) fn following(caller: &Arc<Caller>, standing: &Standing) -> Result<Arc<Caller>, Error> {
    let Some(verdict) = standing.verdict() else { return Ok(Arc::clone(caller)) };
    if caller.origin.credential_id == verdict.credential_id {
        return Ok(Arc::clone(caller));
    }
    let (role, credential_id) = (verdict.role.clone(), verdict.credential_id.clone());
    let origin = Arc::new(Origin { role, credential_id, ..(*caller.origin).clone() });
    // On which connection it came is not known any more: an unlock that is bound to a certificate does not go along.
    Ok(Arc::new(Caller { principal: principal(&verdict, None)?, origin, ..(**caller).clone() }))
}

fn not_listed() -> Error {
    Error::new(Reason::Forbidden, "this service may not act for that owner here; forward their credential")
}

/// Gate 1. Whoever shows a session's cookie beside a bearer may be let in as either; the verb asks that both
/// lead to the same owner.
fn gate_one(call: &Call, admitted: &Admitted) -> Result<(), Error> {
    let as_client = policy::Presented { caller: CallerKind::Client, administrator: false, scopes: &[] };
    let Some(verdict) = &admitted.verdict else {
        return call.policy.admit(as_client).map_err(|reason| not_through(Reason::from_wire(reason)));
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
