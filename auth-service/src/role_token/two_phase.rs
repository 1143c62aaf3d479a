//! A rotation in two phases: begun, and committed when the old token is not in use any more, or aborted.
//!
//! # In use
//!
//! A generation is in use where a use of it is known that is younger than the *window* (`rotation.in_use_window`). What
//! verifiers admit is known here some seconds later (`census.rs`), so a commit also wants to know that nobody is far
//! behind: each verifier with a stream or a lease, and each auth-service that shares the store, must have told what it
//! knows within [`limits::unheard_max`], half of the window at most. So what is certain when a commit was not forced:
//! nobody used an earlier token between the window's begin and that; and what was used since and told was not either.
//!
//! Only the earlier generations are asked about, with those in grace: a commit ends them all. The call that commits is
//! a use like any other: whoever still has the old admin token is not done with it.

use std::time::Duration;

use interlock_kit::{
    error::{Error, Reason},
    store::audit::Outcome,
};

use super::{
    Next, Role, RoleToken,
    rotate::{Answer, Asker, Step, next_generation, refuse_while_open, reused},
    store_new,
};
use crate::{
    ids::{CredentialId, ReplicaId, RequestId},
    limits,
    policy::Act,
    revocation::Subject,
    store::{Stop, Tx, Verb},
    trust::{self, NewCredential},
};

/// Users that one refusal names.
const NAMED_MAX: usize = 4;

/// Begins a rotation: makes the role's next token, beside the present one.
#[derive(Clone, Debug)]
pub struct Begin {
    /// Which role.
    pub role: Role,
    /// Its next token.
    pub new: NewCredential,
    /// The caller's id of this request.
    pub request: RequestId,
    /// The answer, sealed by the shell under the presented credential and the request id.
    pub sealed: Vec<u8>,
}

/// A rotation that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// As of [`super::Rotated`].
    pub sealed: Vec<u8>,
    /// Of the next token.
    pub generation: u64,
    /// The same request came before; the given credential was not stored.
    pub repeated: bool,
}

impl Verb for Begin {
    type Out = Begun;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Begun, Stop> {
        tx.concerning(self.role.text());
        let permit = tx.authorize_role_tokens(Act::RotateRoleTokens)?;
        let asker = Asker::of(&tx.call().caller)?;
        let answered = tx.answer(&asker.owner, &self.request)?;
        if let Some(first) = answered.as_ref().filter(|answer| !answer.ends_at.is_over(tx.now())) {
            first.is_for(&asker, Step::Begin, self.role)?;
            return Ok(Begun { sealed: first.sealed.clone(), generation: first.generation, repeated: true });
        }
        trust::admit_again(tx)?;
        let stored = tx.role_tokens(self.role)?;
        refuse_while_open(&stored)?;
        let generation = next_generation(&stored);
        // Nobody can have asked about it before: there is nothing to be forgotten, so no row of the log.
        store_new(tx, &permit, self.role, &self.new, Next { generation, candidate: true })?;
        let answer = Answer {
            owner: asker.owner,
            request: self.request.clone(),
            credential: asker.credential,
            step: Step::Begin,
            role: self.role,
            grace: Duration::ZERO,
            sealed: self.sealed.clone(),
            generation,
            revocation: 0,
            ends_at: tx.now().after(limits::SEALED_ANSWER_TTL),
        };
        tx.put_answer(&permit, answered.is_some(), answer);
        tx.audit(Outcome::Done, format!(r#"{{"generation":{generation}}}"#));
        Ok(Begun { sealed: self.sealed.clone(), generation, repeated: false })
    }
}

/// Makes the next token the present one, and ends all earlier ones, unless one is in use.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Which role.
    pub role: Role,
    /// Of the next token.
    pub candidate: CredentialId,
    /// Also while an earlier one is in use.
    pub force: bool,
    /// The caller's id of this request.
    pub request: RequestId,
    /// How long after a use a token counts as in use; within [`limits::IN_USE_WINDOW`].
    pub window: Duration,
    /// Who has not told what they know, as far as this program knows.
    pub unheard: Unheard,
}

/// Who has not told of uses for so long that nobody knows whether there were any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unheard {
    /// Verifiers of this program.
    pub verifiers: Vec<String>,
    /// This program among those that share the store, where it is one of them: all its uses have just been stored.
    pub own: Option<ReplicaId>,
}

/// A rotation that was committed or aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The present generation, or the one that was given up.
    pub generation: u64,
    /// Its row in the revocation log: the barrier to wait for.
    pub revocation: u64,
    /// The same request came before.
    pub repeated: bool,
}

/// Why a generation counts as in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// Of which role.
    pub role: Role,
    /// The window.
    pub window: Duration,
    /// Who used it within that, latest first; at most [`limits::USES_MAX`].
    pub users: Vec<User>,
    /// Who has not told; at most [`limits::USES_MAX`].
    pub silent: Vec<String>,
}

/// Somebody who used a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Which.
    pub generation: u64,
    /// Who admitted it.
    pub service: String,
    /// Where from; empty where that is not known.
    pub source: String,
    /// How long ago.
    pub ago: Duration,
}

impl Verb for Commit {
    type Out = Ended;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Ended, Stop> {
        let ending = Ending { step: Step::Commit, role: self.role, request: &self.request };
        let (ready, stored) = match ending.begin(tx, &self.candidate)? {
            Begins::Again(ended) => return Ok(ended),
            Begins::Now(ready, stored) => (ready, stored),
        };
        let candidate = ready.candidate.clone();
        let earlier: Vec<_> = stored.into_iter().filter(|token| token.id != candidate.id).collect();
        let in_use = self.in_use(tx, &earlier)?;
        if let Some(in_use) = in_use.as_ref().filter(|_| !self.force) {
            return Err(in_use.refusal(candidate.generation).into());
        }
        for token in &earlier {
            tx.end_role_token(&ready.permit, token);
        }
        tx.promote_role_token(&ready.permit, &candidate);
        // Of what was issued before the next token: streams that stand on that one go on.
        let revocation = tx.revoke_issued_before(Subject::Role(self.role), candidate.issuance)?.sequence;
        let (users, silent) = in_use.map_or((0, 0), |in_use| (in_use.users.len(), in_use.silent.len()));
        let (generation, force) = (candidate.generation, self.force);
        let detail =
            format!(r#"{{"generation":{generation},"force":{force},"users":{users},"silent":{silent}}}"#);
        Ok(ending.end(tx, ready, revocation, detail))
    }
}

impl Commit {
    fn in_use(&self, tx: &Tx<'_>, earlier: &[RoleToken]) -> Result<Option<InUse>, Stop> {
        let now = tx.now();
        let generation = |hash| earlier.iter().find(|token| token.hash == hash).map(|token| token.generation);
        let mut users: Vec<_> = tx
            .role_token_uses(self.role)?
            .into_iter()
            .filter(|used| !used.last_at.after(self.window).is_over(now))
            .filter_map(|used| {
                let generation = generation(used.token)?;
                let ago = now.since(used.last_at);
                Some(User { generation, service: used.service, source: used.source, ago })
            })
            .collect();
        users.sort_by_key(|user| user.ago);
        let mut silent = self.unheard.verifiers.clone();
        if let Some(own) = &self.unheard.own {
            let behind = |told: interlock_kit::clock::Timestamp| {
                told.after(limits::unheard_max(self.window)).is_over(now)
            };
            let others = tx.replicas()?.into_iter().filter(|other| other.id != *own);
            let others = others.filter(|other| behind(other.uses_told_at));
            silent.extend(others.map(|other| format!("auth-service {}", other.id)));
        }
        users.truncate(limits::USES_MAX);
        silent.truncate(limits::USES_MAX);
        let some = !users.is_empty() || !silent.is_empty();
        Ok(some.then_some(InUse { role: self.role, window: self.window, users, silent }))
    }
}

impl InUse {
    fn refusal(&self, next: u64) -> Error {
        let of = |user: &User| {
            let from = if user.source.is_empty() { "a source unknown" } else { &user.source };
            format!(
                "generation {} by {} from {from}, {} s ago",
                user.generation,
                user.service,
                user.ago.as_secs()
            )
        };
        let mut named: Vec<_> = self.users.iter().map(of).collect();
        named.extend(self.silent.iter().map(|who| format!("{who} has not told whether it does")));
        let more = named.len().saturating_sub(NAMED_MAX);
        named.truncate(NAMED_MAX);
        if more > 0 {
            named.push(format!("{more} more"));
        }
        let text = format!(
            "an earlier token of {} is in use (within {} s): {}; bring generation {next} to them and commit again, or force it",
            self.role.text(),
            self.window.as_secs(),
            named.join("; ")
        );
        let until = |user: &User| self.window.saturating_sub(user.ago);
        let used_until = self.users.iter().map(until).max().unwrap_or_default();
        let told_until =
            if self.silent.is_empty() { Duration::ZERO } else { limits::unheard_max(self.window) };
        Error::new(Reason::TokenInUse, text)
            .retry_after(used_until.max(told_until))
            .with_detail(std::sync::Arc::new(self.clone()))
    }
}

/// Ends the next token; the present one stays.
#[derive(Clone, Debug)]
pub struct Abort {
    /// Which role.
    pub role: Role,
    /// Of the next token.
    pub candidate: CredentialId,
    /// The caller's id of this request.
    pub request: RequestId,
}

impl Verb for Abort {
    type Out = Ended;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Ended, Stop> {
        let ending = Ending { step: Step::Abort, role: self.role, request: &self.request };
        let ready = match ending.begin(tx, &self.candidate)? {
            Begins::Again(ended) => return Ok(ended),
            Begins::Now(ready, _) => ready,
        };
        tx.end_role_token(&ready.permit, &ready.candidate);
        let revocation = tx.revoke(Subject::Credential(ready.candidate.id.clone()))?.sequence;
        let detail = format!(r#"{{"generation":{}}}"#, ready.candidate.generation);
        Ok(ending.end(tx, ready, revocation, detail))
    }
}

/// What the two ways to end an open rotation have in common.
struct Ending<'v> {
    step: Step,
    role: Role,
    request: &'v RequestId,
}

/// Whether there is something to end.
enum Begins {
    /// It was done before, by the same request.
    Again(Ended),
    /// There is, beside these generations.
    Now(Ready, Vec<RoleToken>),
}

/// What an end needs.
struct Ready {
    permit: crate::policy::RoleTokenPermit,
    asker: Asker,
    /// An old answer stands under this request id.
    replaces: bool,
    candidate: RoleToken,
}

impl Ending<'_> {
    fn begin(&self, tx: &mut Tx<'_>, named: &CredentialId) -> Result<Begins, Stop> {
        tx.concerning(self.role.text());
        let permit = tx.authorize_role_tokens(Act::RotateRoleTokens)?;
        let asker = Asker::of(&tx.call().caller)?;
        let answered = tx.answer(&asker.owner, self.request)?;
        if let Some(first) = answered.as_ref().filter(|answer| !answer.ends_at.is_over(tx.now())) {
            first.is_for(&asker, self.step, self.role)?;
            if first.sealed != named.as_str().as_bytes() {
                return Err(reused());
            }
            let Answer { generation, revocation, .. } = *first;
            return Ok(Begins::Again(Ended { generation, revocation, repeated: true }));
        }
        trust::admit_again(tx)?;
        let stored = tx.role_tokens(self.role)?;
        let role = self.role.text();
        let candidate = stored.iter().find(|token| token.candidate).cloned().ok_or_else(|| {
            Error::new(Reason::NotFound, format!("no rotation of {role} is open: begin one"))
        })?;
        if candidate.id != *named {
            let text = format!("the open rotation of {role} is another one: look at the status again");
            return Err(Error::new(Reason::Conflict, text).into());
        }
        Ok(Begins::Now(Ready { permit, asker, replaces: answered.is_some(), candidate }, stored))
    }

    /// Keeps the answer and the audit row of what was planned.
    fn end(&self, tx: &mut Tx<'_>, ready: Ready, revocation: u64, detail: String) -> Ended {
        let Ready { permit, asker, replaces, candidate } = ready;
        let answer = Answer {
            owner: asker.owner,
            request: self.request.clone(),
            credential: asker.credential,
            step: self.step,
            role: self.role,
            grace: Duration::ZERO,
            // No secret: what was asked, to know the same request by.
            sealed: candidate.id.as_str().as_bytes().to_vec(),
            generation: candidate.generation,
            revocation,
            ends_at: tx.now().after(limits::SEALED_ANSWER_TTL),
        };
        tx.put_answer(&permit, replaces, answer);
        tx.audit(Outcome::Done, detail);
        Ended { generation: candidate.generation, revocation, repeated: false }
    }
}
