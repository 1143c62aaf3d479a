//! Role tokens: one living token for each of the roles `admin` and `user`, and replaced ones in grace.
//!
//! # The recoverable copy
//!
//! The store has hashes only; `auth_tokens.json` has the tokens themselves. The store's commit decides;
//! the file is made ready before it and tidied after it, so that **the file never knows less than the
//! store**:
//!
//! 1. The shell makes the new credential and writes the file (temporary file, sync, rename, sync of the
//!    folder) with the token as *pending* beside the present one. If this fails: `STORAGE_ERROR`, and
//!    the old token is valid, since nothing else has happened.
//! 2. The verb ([`FirstTokens`], [`Rotate`], [`ResetTokens`]) commits the hash.
//! 3. The shell writes the file again: what was pending is present. If this fails, the copy is still
//!    complete: the token stands in it as pending.
//!
//! At each start the shell asks [`PresentTokens`] and looks in the file, present and pending alike, for
//! the token of each present hash. Found: the file is written as after step 3. A pending token that the
//! store does not know (a crash between 1 and 2, or a refused verb) is dropped then. So after a crash at
//! any point the next start has store and file agree. A shell runs one of these at a time.
//!
//! # Rotation with grace
//!
//! Verifiers hold verdicts on role tokens that never expire. So a rotation always writes a revocation row
//! for the role, issued before the new token: verifiers forget what they know and ask again. Without
//! grace the old generations are then gone. With grace the one that was present lives until
//! `valid_until`, and the new verdict says so (`expires_at`), so that it ends at each verifier by
//! itself. A stream that stood on it is closed once and may be opened again with the same token.

use std::time::Duration;

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::audit::Outcome,
};
use interlock_proto::credential::{Hash, Kind};

use crate::{
    caller::Caller,
    ids::{CredentialId, OwnerId, RequestId},
    limits,
    policy::{Act, RoleTokenPermit},
    revocation::Subject,
    store::{Query, Stop, Tx, Verb, View},
    trust::NewCredential,
};

/// What a role token is for. The wire's `admin` and `user`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Full control.
    Admin,
    /// Reduced privileges.
    User,
}

impl Role {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Admin, Self::User];

    /// `admin` or `user`.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
        }
    }

    /// Reads one that a caller sent in `field`.
    ///
    /// # Errors
    /// `MISSING_FIELD` where it is empty, `INVALID_FIELD` where it is no role.
    pub fn parse(field: &str, text: &str) -> Result<Self, Error> {
        match text {
            "" => Err(Error::missing_field(field)),
            "admin" => Ok(Self::Admin),
            "user" => Ok(Self::User),
            _ => Err(Error::invalid_field(field, "admin or user")),
        }
    }

    /// The kind of its tokens.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Admin => Kind::Admin,
            Self::User => Kind::User,
        }
    }

    /// The built-in owner whom its tokens act as.
    #[must_use]
    pub fn owner(self) -> OwnerId {
        match self {
            Self::Admin => OwnerId::admin(),
            Self::User => OwnerId::user(),
        }
    }
}

/// One generation of one role's token, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleToken {
    /// SHA-256 of the token.
    pub hash: Hash,
    /// Its public handle.
    pub id: CredentialId,
    /// Of which role.
    pub role: Role,
    /// Grows with each rotation of this role.
    pub generation: u64,
    /// Grows with each credential of this service.
    pub issuance: u64,
    /// First and last four characters.
    pub masked: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when a replaced one is admitted; `None` for the present one.
    pub valid_until: Option<Timestamp>,
}

impl RoleToken {
    /// Whether it has been over for so long that nobody is told so any more.
    pub(crate) fn is_clearable(&self, now: Timestamp) -> bool {
        self.valid_until.is_some_and(|end| end.after(limits::ENDED_KEPT).is_over(now))
    }
}

/// Stores the first tokens, where the store has none. By the host only.
#[derive(Clone, Debug)]
pub struct FirstTokens {
    /// For role `admin`.
    pub admin: NewCredential,
    /// For role `user`.
    pub user: NewCredential,
}

/// What [`FirstTokens`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// The tokens are stored.
    Stored,
    /// The store has tokens; nothing was changed.
    Present,
}

impl Verb for FirstTokens {
    type Out = First;

    fn run(&self, tx: &mut Tx<'_>) -> Result<First, Stop> {
        let permit = tx.authorize_role_tokens(Act::ResetRoleTokens)?;
        for role in Role::ALL {
            if !tx.role_tokens(role)?.is_empty() {
                return Ok(First::Present);
            }
        }
        for (role, new) in [(Role::Admin, &self.admin), (Role::User, &self.user)] {
            store_new(tx, &permit, role, new, 1)?;
        }
        tx.audit(Outcome::Done, r#"{"tokens":"first"}"#);
        Ok(First::Stored)
    }
}

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
        let (generation, revocation) = replace(tx, &permit, self.role, &self.new, self.grace)?;
        let answer = Answer {
            owner: asker.owner,
            request: self.request.clone(),
            credential: asker.credential,
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
        // Sealed under another credential: nobody could open it for this one.
        if first.role != self.role || first.grace != self.grace || first.credential != asker.credential {
            let text = "this request id was used for another rotation, or with another credential";
            return Err(Error::new(Reason::RequestIdReused, text).into());
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
struct Asker {
    owner: OwnerId,
    credential: CredentialId,
}

impl Asker {
    fn of(caller: &Caller) -> Result<Self, Stop> {
        let principal =
            caller.principal().ok_or_else(|| Error::new(Reason::Forbidden, "only principals rotate"))?;
        Ok(Self { owner: principal.owner_id.clone(), credential: principal.credential_id.clone() })
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
    pub role: Role,
    /// What was asked.
    pub grace: Duration,
    /// Sealed by the shell.
    pub sealed: Vec<u8>,
    /// Of the new token.
    pub generation: u64,
    /// In the log.
    pub revocation: u64,
    /// Until when it is given again.
    pub ends_at: Timestamp,
}

/// Replaces both tokens at once, without grace. By the host only (`auth reset --yes`).
#[derive(Clone, Debug)]
pub struct ResetTokens {
    /// For role `admin`.
    pub admin: NewCredential,
    /// For role `user`.
    pub user: NewCredential,
}

impl Verb for ResetTokens {
    /// The last row in the revocation log.
    type Out = u64;

    fn run(&self, tx: &mut Tx<'_>) -> Result<u64, Stop> {
        let permit = tx.authorize_role_tokens(Act::ResetRoleTokens)?;
        replace(tx, &permit, Role::Admin, &self.admin, Duration::ZERO)?;
        let (_, last) = replace(tx, &permit, Role::User, &self.user, Duration::ZERO)?;
        tx.audit(Outcome::Done, r#"{"tokens":"reset"}"#);
        Ok(last)
    }
}

/// The living generations of both roles, newest first: `admin`, then `user`.
#[derive(Clone, Copy, Debug)]
pub struct Status;

impl Query for Status {
    type Out = Vec<RoleToken>;

    fn run(&self, view: &mut View<'_>) -> Result<Self::Out, Stop> {
        view.authorize(Act::ReadRoleTokens)?;
        living(view)
    }
}

/// The same for a caller who is to see the tokens themselves: a verb, since its audit row must be
/// durable before anything is shown.
#[derive(Clone, Copy, Debug)]
pub struct Reveal;

impl Verb for Reveal {
    type Out = Vec<RoleToken>;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Stop> {
        tx.authorize(Act::RevealRoleTokens)?;
        let tokens = living(tx)?;
        tx.audit(Outcome::Done, r#"{"revealed":true}"#);
        Ok(tokens)
    }
}

/// The present generation of each role that has one: what the recoverable copy must agree with. By the
/// host only.
#[derive(Clone, Copy, Debug)]
pub struct PresentTokens;

impl Query for PresentTokens {
    type Out = Vec<RoleToken>;

    fn run(&self, view: &mut View<'_>) -> Result<Self::Out, Stop> {
        view.authorize(Act::ResetRoleTokens)?;
        Ok(living(view)?.into_iter().filter(|token| token.valid_until.is_none()).collect())
    }
}

fn living(view: &View<'_>) -> Result<Vec<RoleToken>, Stop> {
    let now = view.now();
    let mut all = view.role_tokens(Role::Admin)?;
    all.extend(view.role_tokens(Role::User)?);
    all.retain(|token| !token.valid_until.is_some_and(|end| end.is_over(now)));
    Ok(all)
}

/// Stores the next generation and ends the others, at once or at the end of the grace. Gives the
/// generation and the row of the revocation log.
fn replace(
    tx: &mut Tx<'_>,
    permit: &RoleTokenPermit,
    role: Role,
    new: &NewCredential,
    grace: Duration,
) -> Result<(u64, u64), Stop> {
    let stored = tx.role_tokens(role)?;
    let generation = stored.iter().map(|token| token.generation).max().unwrap_or(0) + 1;
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
    store_new(tx, permit, role, new, generation)?;
    Ok((generation, revocation.sequence))
}

fn store_new(
    tx: &mut Tx<'_>,
    permit: &RoleTokenPermit,
    role: Role,
    new: &NewCredential,
    generation: u64,
) -> Result<(), Stop> {
    assert!(new.kind == role.kind(), "a role token of another kind");
    let issuance = tx.issue()?;
    let token = RoleToken {
        hash: new.hash,
        id: new.id.clone(),
        role,
        generation,
        issuance,
        masked: new.masked.clone(),
        created_at: tx.now(),
        valid_until: None,
    };
    tx.insert_role_token(permit, token);
    Ok(())
}
