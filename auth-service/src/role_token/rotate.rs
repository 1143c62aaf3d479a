//! Rotation of one role's token, and the stored answer that a repeated request gets.

use std::time::Duration;

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::audit::Outcome,
};

use super::{Next, Role, RoleToken, store_new};
use crate::{
    caller::Caller,
    ids::{CredentialId, OwnerId, RequestId},
    limits,
    policy::{Act, RoleTokenPermit},
    revocation::Subject,
    store::{Stop, Tx, Verb},
    trust::{self, NewCredential},
};

/// Replaces one role's token.
#[derive(Clone, Debug)]
pub struct Rotate {
    /// Which role.
    pub role: Role,
    /// Its next token.
    pub new: NewCredential,
    /// How long the present one stays valid; at most [`limits::ROTATION_GRACE`].
    pub grace: Duration,
    /// The caller's id of this request.
    pub request: RequestId,
    /// The answer, sealed by the shell under the presented credential and the request id.
    pub sealed: Vec<u8>,
}

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The answer that counts: the given one, or that of the first request with this id. Open it with
    /// the presented credential and the request id.
    pub sealed: Vec<u8>,
    /// The generation of the token in the answer.
    pub generation: u64,
    /// Its row in the revocation log: the barrier to wait for.
    pub revocation: u64,
    /// The old one goes on for a while: the answer says nothing of what was reached.
    pub in_grace: bool,
    /// The same request came before; the given credential was not stored.
    pub repeated: bool,
}

impl Verb for Rotate {
    type Out = Rotated;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Rotated, Stop> {
        tx.concerning(self.role.text());
        let permit = tx.authorize_role_tokens(Act::RotateRoleTokens)?;
        if !limits::ROTATION_GRACE.allows(self.grace) {
            return Err(Error::invalid_field("grace", "0 to 24 h").into());
        }
        let asker = Asker::of(&tx.call().caller)?;
        let stored = tx.answer(&asker.owner, &self.request)?;
        if let Some(answer) = stored.as_ref().filter(|answer| !answer.ends_at.is_over(tx.now())) {
            return self.again(&asker, answer);
        }
        trust::admit_again(tx)?;
        refuse_while_open(&tx.role_tokens(self.role)?)?;
        let (generation, revocation) = replace(tx, &permit, self.role, &self.new, self.grace)?;
        let answer = Answer {
            owner: asker.owner,
            request: self.request.clone(),
            credential: asker.credential,
            step: Step::Rotate,
            role: self.role,
            grace: self.grace,
            sealed: self.sealed.clone(),
            generation,
            revocation,
            ends_at: tx.now().after(limits::SEALED_ANSWER_TTL),
        };
        tx.put_answer(&permit, stored.is_some(), answer);
        tx.audit(
            Outcome::Done,
            format!(r#"{{"generation":{generation},"grace_s":{}}}"#, self.grace.as_secs()),
        );
        Ok(Rotated {
            sealed: self.sealed.clone(),
            generation,
            revocation,
            in_grace: !self.grace.is_zero(),
            repeated: false,
        })
    }
}

impl Rotate {
    fn again(&self, asker: &Asker, first: &Answer) -> Result<Rotated, Stop> {
        first.is_for(asker, Step::Rotate, self.role)?;
        if first.grace != self.grace {
            return Err(reused());
        }
        Ok(Rotated {
            sealed: first.sealed.clone(),
            generation: first.generation,
            revocation: first.revocation,
            in_grace: !first.grace.is_zero(),
            repeated: true,
        })
    }
}

/// Who may ask for the same answer again.
pub(super) struct Asker {
    pub(super) owner: OwnerId,
    pub(super) credential: CredentialId,
}

impl Asker {
    pub(super) fn of(caller: &Caller) -> Result<Self, Stop> {
        let principal =
            caller.principal().ok_or_else(|| Error::new(Reason::Forbidden, "only principals rotate"))?;
        Ok(Self { owner: principal.owner_id.clone(), credential: principal.credential_id.clone() })
    }
}

/// Which request of a rotation was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A rotation at once.
    Rotate,
    /// The begin of one in two phases.
    Begin,
    /// Its commit.
    Commit,
    /// Its end without a commit.
    Abort,
}

impl Step {
    /// As it is stored.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Rotate => "rotate",
            Self::Begin => "begin",
            Self::Commit => "commit",
            Self::Abort => "abort",
        }
    }

    /// The one that is stored so.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        [Self::Rotate, Self::Begin, Self::Commit, Self::Abort].into_iter().find(|step| step.text() == text)
    }
}

/// The stored answer to a rotation. The secret in it is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who asked.
    pub owner: OwnerId,
    /// By which id.
    pub request: RequestId,
    /// With which credential.
    pub credential: CredentialId,
    /// What was asked.
    pub step: Step,
    /// What was asked.
    pub role: Role,
    /// What was asked; none for all but a rotation at once.
    pub grace: Duration,
    /// Sealed by the shell; nothing where the answer has no secret.
    pub sealed: Vec<u8>,
    /// Of the new token, or of the one that was given up.
    pub generation: u64,
    /// In the log; 0 where nothing was revoked.
    pub revocation: u64,
    /// Until when it is given again.
    pub ends_at: Timestamp,
}

impl Answer {
    /// Whether it answers this request.
    ///
    /// # Errors
    /// `REQUEST_ID_REUSED`
    pub(super) fn is_for(&self, asker: &Asker, step: Step, role: Role) -> Result<(), Stop> {
        // Sealed under another credential: nobody could open it for this one.
        let same = self.step == step && self.role == role && self.credential == asker.credential;
        if same { Ok(()) } else { Err(reused()) }
    }
}

pub(super) fn reused() -> Stop {
    let text = "this request id was used for another rotation, or with another credential";
    Error::new(Reason::RequestIdReused, text).into()
}

/// Only one rotation of a role at a time.
///
/// # Errors
/// `ROTATION_OPEN`
pub(super) fn refuse_while_open(stored: &[RoleToken]) -> Result<(), Stop> {
    let Some(open) = stored.iter().find(|token| token.candidate) else { return Ok(()) };
    let text = format!(
        "a rotation of {} is open since {}, to generation {}: commit or abort it first",
        open.role.text(),
        open.created_at,
        open.generation
    );
    Err(Error::new(Reason::RotationOpen, text).into())
}

pub(super) fn next_generation(stored: &[RoleToken]) -> u64 {
    stored.iter().map(|token| token.generation).max().unwrap_or(0) + 1
}

/// Stores the next generation and ends the others, at once or at the end of the grace. Gives the
/// generation and the row of the revocation log.
pub(super) fn replace(
    tx: &mut Tx<'_>,
    permit: &RoleTokenPermit,
    role: Role,
    new: &NewCredential,
    grace: Duration,
) -> Result<(u64, u64), Stop> {
    let stored = tx.role_tokens(role)?;
    let generation = next_generation(&stored);
    let valid_until = tx.now().after(grace);
    // Newest first: those that are over the bound are the oldest in grace.
    for (place, token) in stored.iter().enumerate() {
        let ends_now = grace.is_zero() || place + 1 >= limits::GENERATIONS_MAX;
        match token.valid_until {
            _ if ends_now => tx.end_role_token(permit, token),
            None => tx.limit_role_token(permit, token, valid_until),
            Some(_) => {}
        }
    }
    let revocation = tx.revoke(Subject::Role(role))?;
    store_new(tx, permit, role, new, Next { generation, candidate: false })?;
    Ok((generation, revocation.sequence))
}
