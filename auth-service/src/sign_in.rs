//! Around the verbs of an owner session: hashing before them, sealing, and the barrier after them.

use interlock_kit::{
    error::{Error, Reason},
    hasher::Verified,
    random,
    seal::Seal,
    serve::Source,
};
use interlock_proto::credential::{Credential, Kind, TEXT_LEN};
use zeroize::Zeroizing;

use crate::{
    barrier::Reached,
    caller::Call,
    ids::{CredentialId, OwnerId, OwnerSessionId},
    owner::{LoginFacts, ReadForLogin},
    owner_session::{LoggedOut, Login, Logout, Refresh, Refreshed, RefuseLogin, SignedIn, Successors},
    parts::Parts,
    password::PasswordHash,
    policy,
    trust::NewCredential,
};

/// Keeps the seal of a refresh apart from any other under the same token.
const REFRESH_LABEL: &str = "owner_session.refresh";

/// Access token and refresh token of one answer.
#[derive(Debug)]
pub struct Pair {
    /// Bearer for calls.
    pub access: Credential,
    /// Bearer for the next refresh.
    pub refresh: Credential,
}

/// Signs in. Unknown owner and wrong password take the same path and time: one verification and one write.
///
/// # Errors
/// `INVALID_CREDENTIALS`, `RATE_LIMITED`, `LIMIT_REACHED` where too many wait for the hasher.
pub async fn login(
    parts: &Parts,
    call: &Call,
    source: Source,
    owner: OwnerId,
    password: Zeroizing<Vec<u8>>,
) -> Result<(SignedIn, Pair), Error> {
    let tried = tried(parts, call, source, &owner, password.clone()).await;
    if let Err(refusal) = &tried
        && matches!(refusal.reason(), Reason::RateLimited | Reason::LimitReached)
    {
        // Before anybody was looked at: counted by source, whatever names are tried.
        parts.gate.turned_away(call, source, refusal).await;
    }
    let (facts, verified) = tried?;
    let known = facts.is_some();
    let Some(LoginFacts { version, .. }) = facts.filter(|_| verified.ok) else {
        // By source, whatever names are tried.
        if parts.gate.has_row(source, Reason::InvalidCredentials) {
            match known {
                true => parts.shell.run(call, RefuseLogin { claimed: owner }).await?,
                false => parts.shell.record_refusal(call, &policy::wrong_credentials()).await?,
            }
        }
        return Err(policy::wrong_credentials());
    };
    let rehashed = match verified.needs_rehash {
        true => rehashed(parts, password).await?,
        false => None,
    };
    let pair = Pair::new();
    let signing_in = owner.clone();
    let verb = Login {
        owner,
        version,
        session: OwnerSessionId::made(random::id("ows")),
        access: stored_form(&pair.access),
        refresh: stored_form(&pair.refresh),
        access_ttl: parts.access_ttl,
        session_ttl: parts.session_ttl,
        rehashed,
    };
    let signed_in = parts.shell.run(call, verb).await?;
    parts.guesses.succeeded(source, &signing_in);
    Ok((signed_in, pair))
}

/// Spends a try, and verifies the password on the hasher's threads. One path for owners that there are and are not.
async fn tried(
    parts: &Parts,
    call: &Call,
    source: Source,
    owner: &OwnerId,
    password: Zeroizing<Vec<u8>>,
) -> Result<(Option<LoginFacts>, Verified), Error> {
    parts.guesses.check(source, owner)?;
    let priority = parts.guesses.priority(source, owner);
    let facts = parts.shell.ask(call, ReadForLogin { owner: owner.clone() }).await?;
    let stored = facts.as_ref().map(|facts| facts.password.expose().to_owned());
    let verified = match stored {
        Some(stored) => parts.hasher.verify(password, stored, priority).await?,
        None => parts.hasher.verify_nothing(password, priority).await?,
    };
    Ok((facts, verified))
}

/// The password as we hash it. `None` where too many wait for the hasher: the next sign-in tries again, and this one
/// is good without it.
async fn rehashed(parts: &Parts, password: Zeroizing<Vec<u8>>) -> Result<Option<PasswordHash>, Error> {
    match parts.hasher.hash(password, random::bytes()).await {
        Ok(hash) => PasswordHash::parse(&hash).map(Some).map_err(Error::internal),
        Err(full) if full.reason() == Reason::LimitReached => Ok(None),
        Err(error) => Err(error),
    }
}

/// Trades a refresh token. Everyone who presents it within its window gets the same pair, and the owner is known where
/// they do. `None`: nobody's token, or another kind of credential; the caller is a stranger, to be refused as one.
///
/// # Errors
/// `INVALID_CREDENTIALS`; after a replay, only when no verifier admits the ended owner session.
pub async fn refresh(
    parts: &Parts,
    call: &Call,
    source: Source,
    presented: &Credential,
) -> Result<Option<(Successors, Pair)>, Error> {
    if presented.kind() != Kind::Refresh {
        return Ok(None);
    }
    let pair = Pair::new();
    let seal = Seal::of(presented.expose().as_bytes(), REFRESH_LABEL);
    let verb = Refresh {
        presented: presented.hash(),
        access: stored_form(&pair.access),
        refresh: stored_form(&pair.refresh),
        sealed: seal.seal(random::bytes(), &presented.hash(), &pair.text()),
        access_ttl: parts.access_ttl,
    };
    match parts.shell.run(call, verb).await? {
        Refreshed::Issued(successors) => {
            let text = seal.open(&presented.hash(), &successors.sealed);
            let pair = text.and_then(|text| Pair::of_text(&text));
            let pair = pair.ok_or_else(|| Error::internal("a sealed answer does not open"))?;
            parts.guesses.seen(source, &successors.owner);
            Ok(Some((successors, pair)))
        }
        Refreshed::Unknown => Ok(None),
        Refreshed::Replayed { session, revocation } => {
            let reached = parts.wait_for(revocation).await;
            tracing::warn!(%session, ?reached, "a refresh token was replayed; its owner session was ended");
            Err(policy::wrong_credentials())
        }
    }
}

/// Signs out. Returns when no verifier admits the owner session; `None` where it had ended before.
///
/// # Errors
/// `LOGIN_REQUIRED` for a credential of another kind.
pub async fn logout(parts: &Parts, call: &Call, presented: &Credential) -> Result<Option<Reached>, Error> {
    let verb = Logout { kind: presented.kind(), presented: presented.hash() };
    match parts.shell.run(call, verb).await? {
        Some(LoggedOut { revocation, .. }) => Ok(Some(parts.wait_for(revocation).await)),
        None => {
            // An earlier call has ended it, and may still wait: its repetition promises the same.
            parts.wait_for_all().await;
            Ok(None)
        }
    }
}

/// What may be stored of a credential.
pub fn stored_form(credential: &Credential) -> NewCredential {
    NewCredential::of(credential, CredentialId::made(random::id("crd")))
}

impl Pair {
    fn new() -> Self {
        let new = |kind| Credential::new(kind, &random::bytes());
        Self { access: new(Kind::Owner), refresh: new(Kind::Refresh) }
    }

    fn text(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.access.expose().as_bytes(), self.refresh.expose().as_bytes()].concat())
    }

    fn of_text(text: &[u8]) -> Option<Self> {
        let (access, refresh) = text.split_at_checked(TEXT_LEN)?;
        let read = |bytes, kind| {
            let credential = Credential::parse(std::str::from_utf8(bytes).ok()?).ok()?;
            (credential.kind() == kind).then_some(credential)
        };
        Some(Self { access: read(access, Kind::Owner)?, refresh: read(refresh, Kind::Refresh)? })
    }
}
