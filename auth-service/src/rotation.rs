//! Around the verbs that rotate a role token: the recoverable copy before and after them, and the barrier.
//!
//! `role_token.rs` has the protocol. One change of the copy at a time: whoever holds its lock.

use std::{sync::Arc, time::Duration};

use interlock_kit::{
    error::{Error, Reason},
    random,
    seal::Seal,
};
use interlock_proto::credential::Credential;
use tracing::Instrument as _;
use zeroize::Zeroizing;

use crate::{
    barrier::Reached,
    caller::Call,
    ids::{CredentialId, RequestId},
    parts::{Parts, host_call},
    policy::{self, Act},
    role_token::{Abort, Begin, Commit, Ended, Generation, PresentTokens, Role, RoleToken, Rotate, Unheard},
    sign_in::stored_form,
    store::{Shell, Verb},
    token_file::{TokenFile, TokenFileError, Tokens},
};

/// Keeps the seal of a rotation apart from any other under the same credential.
const LABEL: &str = "role_token.rotate";
/// The same for the begin of one in two phases.
const LABEL_OF_BEGIN: &str = "role_token.begin_rotation";

/// What is asked.
#[derive(Debug)]
pub struct Ask {
    /// Which role.
    pub role: Role,
    /// How long the old one stays valid.
    pub grace: Duration,
    /// The caller's id of this request.
    pub request: RequestId,
    /// The caller's own credential: its secret seals the answer for a retry.
    pub presented: Credential,
}

/// What the caller is told.
#[derive(Debug)]
pub struct Answer {
    /// The new token, or that of the first call with the same request id.
    pub token: Credential,
    /// Its generation.
    pub generation: u64,
    /// Where the recoverable copy is.
    pub path: String,
    /// What the end of the old one reached; `None` where a grace was asked for.
    pub reached: Option<Reached>,
}

/// Rotates. Returns when no verifier admits the old token, unless a grace was asked for.
///
/// # Errors
/// The verb's; `STORAGE_ERROR` where the copy cannot be written: the old token is valid then.
pub async fn rotate(parts: &Arc<Parts>, call: &Call, ask: Ask) -> Result<Answer, Error> {
    let token = Credential::new(ask.role.kind(), &random::bytes());
    let seal = Seal::of(ask.presented.expose().as_bytes(), LABEL);
    let context = ask.request.as_str().as_bytes();
    let verb = Rotate {
        role: ask.role,
        new: stored_form(&token),
        grace: ask.grace,
        request: ask.request.clone(),
        sealed: seal.seal(random::bytes(), context, token.expose().as_bytes()),
    };
    let (rotated, path) = changed(parts, call, verb, Some((ask.role, token))).await?;
    let reached = parts.wait_for(rotated.revocation).await;
    let token = opened(&seal, &ask.request, &rotated.sealed)?;
    Ok(Answer {
        token: Credential::parse(&token).map_err(|_| unopened())?,
        generation: rotated.generation,
        path,
        reached: (!rotated.in_grace).then_some(reached),
    })
}

/// What is asked of the begin of a rotation in two phases.
#[derive(Debug)]
pub struct AskBegin {
    /// Which role.
    pub role: Role,
    /// The caller's id of this request.
    pub request: RequestId,
    /// As of [`Ask::presented`].
    pub presented: Credential,
}

/// What the caller is told of it.
#[derive(Debug)]
pub struct Opened {
    /// The next token, or that of the first call with the same request id.
    pub token: Credential,
    /// Its public handle.
    pub id: CredentialId,
    /// Its generation.
    pub generation: u64,
    /// Where the recoverable copy is.
    pub path: String,
}

/// Begins a rotation in two phases.
///
/// # Errors
/// The verb's; `STORAGE_ERROR` where the copy cannot be written: nothing was begun then.
pub async fn begin(parts: &Arc<Parts>, call: &Call, ask: AskBegin) -> Result<Opened, Error> {
    let token = Credential::new(ask.role.kind(), &random::bytes());
    let seal = Seal::of(ask.presented.expose().as_bytes(), LABEL_OF_BEGIN);
    let new = stored_form(&token);
    // With its handle, which a retry is told as well.
    let told = Zeroizing::new(format!("{} {}", new.id, token.expose()));
    let sealed = seal.seal(random::bytes(), ask.request.as_str().as_bytes(), told.as_bytes());
    let verb = Begin { role: ask.role, new, request: ask.request.clone(), sealed };
    let (begun, path) = changed(parts, call, verb, Some((ask.role, token))).await?;
    let told = opened(&seal, &ask.request, &begun.sealed)?;
    let (id, token) = told.split_once(' ').ok_or_else(unopened)?;
    Ok(Opened {
        token: Credential::parse(token).map_err(|_| unopened())?,
        id: CredentialId::made(id),
        generation: begun.generation,
        path,
    })
}

/// Which open rotation is to end.
#[derive(Clone, Debug)]
pub struct AskEnd {
    /// Which role.
    pub role: Role,
    /// Of the next token.
    pub candidate: CredentialId,
    /// The caller's id of this request.
    pub request: RequestId,
}

/// Commits a rotation. Returns when no verifier admits an earlier token.
///
/// # Errors
/// The verb's: `TOKEN_IN_USE` where one is in use, unless `force` is set.
pub async fn commit(
    parts: &Arc<Parts>,
    call: &Call,
    ask: AskEnd,
    force: bool,
) -> Result<(Ended, Reached), Error> {
    // What is known here is to be decided on. Who may not commit has nothing stored for.
    if policy::decide(&call.caller, Act::RotateRoleTokens, parts.clock.now()).is_ok() {
        parts.census.store().await?;
    }
    let AskEnd { role, candidate, request } = ask;
    let own = parts.replicas.as_ref().map(|replicas| replicas.own().clone());
    let unheard = Unheard { verifiers: parts.census.unheard(), own };
    let window = parts.census.window();
    let verb = Commit { role, candidate, force, request, window, unheard };
    let (ended, _) = changed(parts, call, verb, None).await?;
    Ok((ended, parts.wait_for(ended.revocation).await))
}

/// Gives a rotation up. Returns when no verifier admits the next token.
///
/// # Errors
/// The verb's.
pub async fn abort(parts: &Arc<Parts>, call: &Call, ask: AskEnd) -> Result<(Ended, Reached), Error> {
    let AskEnd { role, candidate, request } = ask;
    let (ended, _) = changed(parts, call, Abort { role, candidate, request }, None).await?;
    Ok((ended, parts.wait_for(ended.revocation).await))
}

fn opened(seal: &Seal, request: &RequestId, sealed: &[u8]) -> Result<Zeroizing<String>, Error> {
    let text = seal.open(request.as_str().as_bytes(), sealed).ok_or_else(unopened)?;
    Ok(Zeroizing::new(std::str::from_utf8(&text).map_err(|_| unopened())?.to_owned()))
}

fn unopened() -> Error {
    Error::internal("a sealed answer does not open")
}

/// Runs a verb and brings the copy into step; gives its answer, and where the copy is. `new` is the token that the verb
/// stores, if it does.
async fn changed<V: Verb>(
    parts: &Arc<Parts>,
    call: &Call,
    verb: V,
    new: Option<(Role, Credential)>,
) -> Result<(V::Out, String), Error> {
    // A task of its own: a caller that goes away must not leave the copy between its steps, nor its lock to
    // the next change while a write of this one is still on its way.
    let (parts, call) = (Arc::clone(parts), call.clone());
    let change = async move { change(&parts, &call, verb, new).await };
    tokio::spawn(change.instrument(tracing::Span::current())).await.map_err(Error::internal)?
}

/// Copy, store, copy. The copy is settled whatever became of the verb, if that is known.
async fn change<V: Verb>(
    parts: &Parts,
    call: &Call,
    verb: V,
    new: Option<(Role, Credential)>,
) -> Result<(V::Out, String), Error> {
    let copy = parts.copy.lock().await;
    let path = copy.path().display().to_string();
    // Who may not rotate leaves the copy alone: the verb says why, and records it.
    if policy::decide(&call.caller, Act::RotateRoleTokens, parts.clock.now()).is_err() {
        return parts.shell.run(call, verb).await.map(|done| (done, path));
    }
    let kept = read(&copy).await.map_err(|e| not_stored(&e))?.unwrap_or_default();
    // What an earlier change left pending may be the present one by now.
    let stored = parts.shell.ask(&host_call("role_token.settle"), PresentTokens).await?;
    let mut pending = kept.settled(&stored);
    if let Some((role, token)) = new {
        pending = pending.with_pending(role, token);
        write(&copy, pending.clone()).await.map_err(|e| not_stored(&e))?;
    }
    let done = parts.shell.run(call, verb).await;
    if done.as_ref().is_err_and(|error| error.reason() == Reason::StoreUnavailable) {
        // It may yet turn out to have happened: then nobody else knows the token.
        return done.map(|done| (done, path));
    }
    if let Err(error) = settle(&parts.shell, &copy, &pending).await {
        // The copy is complete all the same: the next change or start settles it.
        tracing::warn!(%error, "the recoverable copy of the role tokens is not settled yet");
    }
    Ok((done?, path))
}

async fn settle(shell: &Shell, copy: &TokenFile, pending: &Tokens) -> Result<(), Error> {
    let stored = shell.ask(&host_call("role_token.settle"), PresentTokens).await?;
    write(copy, pending.settled(&stored)).await.map_err(|e| not_stored(&e))
}

/// Another program has replaced tokens: the copy here gives up what it has of them (DESIGN 5).
pub async fn forget_replaced(shell: &Shell, copy: &tokio::sync::Mutex<TokenFile>) {
    let copy = copy.lock().await;
    let forgotten = async {
        let Some(kept) = read(&copy).await.map_err(|e| not_stored(&e))? else { return Ok(()) };
        let stored = shell.ask(&host_call("role_token.settle"), PresentTokens).await?;
        let settled = kept.settled(&stored);
        if settled == kept { Ok(()) } else { write(&copy, settled).await.map_err(|e| not_stored(&e)) }
    };
    if let Err(error) = forgotten.await {
        let error: Error = error;
        tracing::warn!(%error, "the recoverable copy may have replaced role tokens; the next change or start settles it");
    }
}

/// What of the stored tokens the copy knows; and whether it knows every present one.
pub async fn known(parts: &Parts, stored: &[Generation]) -> (Tokens, bool) {
    let copy = parts.copy.lock().await;
    let kept = read(&copy).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the recoverable copy of the role tokens cannot be read");
        None
    });
    let present = present(stored);
    let recoverable = kept.as_ref().is_some_and(|kept| kept.has_all(&present));
    (kept.unwrap_or_default(), recoverable)
}

/// The tokens that the recoverable copy must have to be one: those of open rotations are on the host that began them.
#[must_use]
pub fn present(stored: &[Generation]) -> Vec<RoleToken> {
    stored.iter().map(|generation| &generation.token).filter(|token| token.is_present()).cloned().collect()
}

async fn read(copy: &TokenFile) -> Result<Option<Tokens>, TokenFileError> {
    let copy = copy.clone();
    blocking(move || copy.read()).await
}

async fn write(copy: &TokenFile, tokens: Tokens) -> Result<(), TokenFileError> {
    let copy = copy.clone();
    blocking(move || copy.write(&tokens)).await
}

/// A sync takes its time: not on a thread that serves calls.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("reading and writing a file does not panic")
}

fn not_stored(error: &TokenFileError) -> Error {
    let text = "the recoverable copy of the role tokens could not be written; the old token is valid";
    Error::new(Reason::StorageError, text).caused_by(error.to_string())
}

#[cfg(test)]
mod tests;
