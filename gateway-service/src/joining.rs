//! Passwords outside of transactions: they are hashed and verified on the hasher's threads, and what was found is
//! decided again by the verb.
//!
//! A retry of a join gets the first cookie again. It is kept sealed, under a key that is as hard to find as the
//! password itself: another argon2id hash of it, of which nothing is stored.

use interlock_kit::{
    authn::Call,
    error::{Error, Reason},
    random,
    seal::Seal,
};
use interlock_proto::credential::{Credential, Kind};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    admit::Admitted,
    client::ClientRole,
    grpc::Front,
    ids::{ClientId, RequestId, SessionId},
    join::{Join, Joined},
    password::{self, MaySetPassword, ReadForJoin, SessionPassword, SetSessionPassword, Target},
    store::Told,
};

/// What the sealed cookie of a join is for.
const SEAL_LABEL: &str = "join cookie";

/// The new password of a session.
pub(crate) struct NewPassword {
    pub(crate) session: SessionId,
    pub(crate) password: Zeroizing<Vec<u8>>,
    pub(crate) joiners: ClientRole,
    pub(crate) evict_others: bool,
}

/// What someone shows who wants to join.
pub(crate) struct Joining {
    pub(crate) target: Target,
    pub(crate) password: Zeroizing<Vec<u8>>,
    pub(crate) request: RequestId,
}

/// Sets a session's password. Answers how many clients were taken out.
///
/// # Errors
/// `MISSING_FIELD`, `WEAK_PASSWORD`, `INVALID_FIELD`; what the verb refuses; `LIMIT_REACHED` where the hasher is full.
pub(crate) async fn set_password(
    front: &Front,
    call: &Call,
    admitted: &Admitted,
    new: NewPassword,
) -> Result<Told<u32>, Error> {
    let NewPassword { session, password, joiners, evict_others } = new;
    let caller = admitted.for_session(&session);
    password::check(&password)?;
    front.ask(call, &caller, MaySetPassword { session: session.clone() }).await?;
    let hashed = front.hasher.hash(password, random::bytes()).await;
    let hash = recorded(front, call, admitted, hashed).await?;
    let set = SetSessionPassword { session: session.clone(), hash, joiners, evict_others };
    let told = front.run(call, &caller, set).await?;
    front.after_opening(admitted.verdict.as_ref(), &session).await?;
    Ok(told)
}

/// Makes a further client of a session, and its cookie.
///
/// # Errors
/// `RATE_LIMITED`; `INVALID_CREDENTIALS`, in the same time whatever is wrong; what the verb refuses.
pub(crate) async fn join(
    front: &Front,
    call: &Call,
    admitted: &Admitted,
    joining: Joining,
) -> Result<(Told<Joined>, Zeroizing<Vec<u8>>), Error> {
    let Joining { target, password, request } = joining;
    password::check_size(&password)?;
    let source = call.source();
    let spent = front.guesses.of_source(source);
    recorded(front, call, admitted, spent).await?;
    let stored = front.ask(call, &admitted.caller, ReadForJoin { target: target.clone() }).await?.out;
    let spent = front.guesses.at_target(source, &canonical(&target, stored.as_ref()));
    recorded(front, call, admitted, spent).await?;

    let target = canonical(&target, stored.as_ref());
    let priority = front.guesses.priority(source, &target);
    let verified = match &stored {
        Some(stored) => front.hasher.verify(password.clone(), stored.hash.clone(), priority).await,
        None => front.hasher.verify_nothing(password.clone(), priority).await,
    };
    let verified = recorded(front, call, admitted, verified).await?;
    let Some(stored) = stored.filter(|_| verified.ok) else {
        return recorded(front, call, admitted, Err(password::wrong())).await;
    };
    let key = sealing_key(front, password, &stored.session, &request).await;
    let key = recorded(front, call, admitted, key).await?;
    let seal = Seal::of(key.as_bytes(), SEAL_LABEL);
    let secret = Credential::new(Kind::Client, &random::bytes());
    let context = request.to_string();
    let join = Join {
        session: stored.session.clone(),
        version: stored.version,
        client: ClientId::new(),
        cookie: secret.hash(),
        sealed: seal.seal(random::bytes(), context.as_bytes(), secret.expose().as_bytes()),
        request,
    };
    let told = front.run(call, &admitted.caller, join).await?;
    front.guesses.succeeded(source, target);
    let secret = seal.open(context.as_bytes(), &told.out.sealed);
    // Another password since, and yet the same request id: that client is whoever knew the one before.
    let reused = || Error::new(Reason::RequestIdReused, "this request id came with another password");
    Ok((told, secret.ok_or_else(reused)?))
}

/// A session is one target, by whatever it was named.
fn canonical(target: &Target, stored: Option<&SessionPassword>) -> Target {
    stored.map_or_else(|| target.clone(), |stored| Target::Id(stored.session.clone()))
}

/// Records a refusal that no verb records, and hands it on. The same way whether there is such a session or not: a row
/// that only one of them has would tell in the time that it takes.
async fn recorded<T>(
    front: &Front,
    call: &Call,
    admitted: &Admitted,
    result: Result<T, Error>,
) -> Result<T, Error> {
    if let Err(error) = &result {
        front.gate.record_refusal(call, admitted, error).await;
    }
    result
}

async fn sealing_key(
    front: &Front,
    password: Zeroizing<Vec<u8>>,
    session: &SessionId,
    request: &RequestId,
) -> Result<Zeroizing<String>, Error> {
    let of = [SEAL_LABEL, session.as_str(), request.as_str()].join("\n");
    let digest = Sha256::digest(of.as_bytes());
    let salt = digest[..16].try_into().expect("half of 32 bytes");
    Ok(Zeroizing::new(front.hasher.hash(password, salt).await?))
}
