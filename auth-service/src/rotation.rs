//! Around the verb that rotates a role token: the recoverable copy before and after it, and the barrier.
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

use crate::{
    barrier::Reached,
    caller::Call,
    ids::RequestId,
    parts::{Parts, host_call},
    policy::{self, Act},
    role_token::{PresentTokens, Role, RoleToken, Rotate, Rotated},
    sign_in::stored_form,
    store::Shell,
    token_file::{TokenFile, TokenFileError, Tokens},
};

/// Keeps the seal of a rotation apart from any other under the same credential.
const LABEL: &str = "role_token.rotate";

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
    // A task of its own: a caller that goes away must not leave the copy between its steps, nor its lock to
    // the next change while a write of this one is still on its way.
    let (parts_of_it, call) = (Arc::clone(parts), call.clone());
    let change = async move { commit(&parts_of_it, &call, verb, token).await };
    let changed = tokio::spawn(change.instrument(tracing::Span::current())).await;
    let (rotated, path) = changed.map_err(Error::internal)??;
    let reached = parts.wait_for(rotated.revocation).await;
    let text = seal.open(context, &rotated.sealed);
    let token = text.and_then(|text| Credential::parse(std::str::from_utf8(&text).ok()?).ok());
    Ok(Answer {
        token: token.ok_or_else(|| Error::internal("a sealed answer does not open"))?,
        generation: rotated.generation,
        path,
        reached: (!rotated.in_grace).then_some(reached),
    })
}

/// Copy, store, copy. The copy is settled whatever became of the verb, if that is known.
async fn commit(
    parts: &Parts,
    call: &Call,
    verb: Rotate,
    token: Credential,
) -> Result<(Rotated, String), Error> {
    let copy = parts.copy.lock().await;
    let path = copy.path().display().to_string();
    // Who may not rotate leaves the copy alone: the verb says why, and records it.
    if policy::decide(&call.caller, Act::RotateRoleTokens, parts.clock.now()).is_err() {
        return parts.shell.run(call, verb).await.map(|rotated| (rotated, path));
    }
    let kept = read(&copy).await.map_err(|e| not_stored(&e))?.unwrap_or_default();
    // What an earlier change left pending may be the present one by now.
    let stored = parts.shell.ask(&host_call("role_token.settle"), PresentTokens).await?;
    let pending = kept.settled(&stored).with_pending(verb.role, token);
    write(&copy, pending.clone()).await.map_err(|e| not_stored(&e))?;
    let rotated = parts.shell.run(call, verb).await;
    if rotated.as_ref().is_err_and(|error| error.reason() == Reason::StoreUnavailable) {
        // It may yet turn out to have happened: then nobody else knows the token.
        return rotated.map(|rotated| (rotated, path));
    }
    if let Err(error) = settle(&parts.shell, &copy, &pending).await {
        // The copy is complete all the same: the next change or start settles it.
        tracing::warn!(%error, "the recoverable copy of the role tokens is not settled yet");
    }
    Ok((rotated?, path))
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
pub async fn known(parts: &Parts, stored: &[RoleToken]) -> (Tokens, bool) {
    let copy = parts.copy.lock().await;
    let kept = read(&copy).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the recoverable copy of the role tokens cannot be read");
        None
    });
    let present: Vec<_> = stored.iter().filter(|token| token.valid_until.is_none()).cloned().collect();
    let recoverable = kept.as_ref().is_some_and(|kept| kept.has_all(&present));
    (kept.unwrap_or_default(), recoverable)
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
