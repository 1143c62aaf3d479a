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
//! # Rotation in two phases
//!
//! [`Begin`] stores the next token as a *candidate*: a generation of its own, admitted beside the present one. In the
//! copy it has a place of its own, where it goes by the same three steps: pending, the commit, settled. [`Commit`] makes
//! it the present one and [`Abort`] ends it; neither makes a token, so for them the copy is only tidied behind the
//! commit. One rotation of a role may be open; it stays so until it is committed or aborted, or both tokens are reset.
//! `uses.rs` has who uses which generation, and `two_phase.rs` when one is in use.
//!
//! # Rotation with grace
//!
//! Verifiers hold verdicts on role tokens that never expire. So a rotation always writes a revocation row
//! for the role, issued before the new token: verifiers forget what they know and ask again. Without
//! grace the old generations are then gone. With grace the one that was present lives until
//! `valid_until`, and the new verdict says so (`expires_at`), so that it ends at each verifier by
//! itself. A stream that stood on it is closed once and may be opened again with the same token.

use std::time::Duration;

use interlock_kit::{clock::Timestamp, error::Error, store::audit::Outcome};
use interlock_proto::credential::{Hash, Kind};

use self::rotate::replace;
pub use self::{
    rotate::{Answer, Rotate, Rotated, Step},
    two_phase::{Abort, Begin, Begun, Commit, Ended, InUse, Unheard, User},
    uses::{RecordUses, Seen, TokenUse},
};
use crate::{
    ids::{CredentialId, OwnerId},
    limits,
    policy::{Act, RoleTokenPermit},
    store::{Query, Stop, Tx, Verb, View},
    trust::{self, NewCredential},
};

mod rotate;
mod two_phase;
mod uses;

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
    /// Until when a replaced one is admitted; `None` for the present one and for a candidate.
    pub valid_until: Option<Timestamp>,
    /// It is the next one of an open rotation.
    pub candidate: bool,
}

impl RoleToken {
    /// Whether it is the role's own one: neither replaced nor a candidate.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.valid_until.is_none() && !self.candidate
    }

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
            store_new(tx, &permit, role, new, Next { generation: 1, candidate: false })?;
        }
        tx.audit(Outcome::Done, r#"{"tokens":"first"}"#);
        Ok(First::Stored)
    }
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

/// A living generation, and who used it lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// As stored.
    pub token: RoleToken,
    /// The latest use of each service and source, newest first; at most [`limits::USES_MAX`].
    pub uses: Vec<TokenUse>,
}

/// The living generations of both roles, newest first: `admin`, then `user`.
#[derive(Clone, Copy, Debug)]
pub struct Status;

impl Query for Status {
    type Out = Vec<Generation>;

    fn run(&self, view: &mut View<'_>) -> Result<Self::Out, Stop> {
        view.authorize(Act::ReadRoleTokens)?;
        generations(view)
    }
}

/// The same for a caller who is to see the tokens themselves: a verb, since its audit row must be
/// durable before anything is shown.
#[derive(Clone, Copy, Debug)]
pub struct Reveal;

impl Verb for Reveal {
    type Out = Vec<Generation>;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Stop> {
        tx.authorize(Act::RevealRoleTokens)?;
        trust::admit_again(tx)?;
        let tokens = generations(tx)?;
        tx.audit(Outcome::Done, r#"{"revealed":true}"#);
        Ok(tokens)
    }
}

/// The present generation of each role that has one, and the candidates: what the recoverable copy must agree with. By
/// the host only.
#[derive(Clone, Copy, Debug)]
pub struct PresentTokens;

impl Query for PresentTokens {
    type Out = Vec<RoleToken>;

    fn run(&self, view: &mut View<'_>) -> Result<Self::Out, Stop> {
        view.authorize(Act::ResetRoleTokens)?;
        let mut all = living(view)?;
        all.retain(|token| token.is_present() || token.candidate);
        Ok(all)
    }
}

fn generations(view: &View<'_>) -> Result<Vec<Generation>, Stop> {
    let mut uses = view.role_token_uses(Role::Admin)?;
    uses.extend(view.role_token_uses(Role::User)?);
    uses.sort_by_key(|used| std::cmp::Reverse(used.last_at));
    let of = |token: RoleToken| {
        let uses = uses.iter().filter(|used| used.token == token.hash).cloned().collect();
        Generation { token, uses }
    };
    Ok(living(view)?.into_iter().map(of).collect())
}

fn living(view: &View<'_>) -> Result<Vec<RoleToken>, Stop> {
    let now = view.now();
    let mut all = view.role_tokens(Role::Admin)?;
    all.extend(view.role_tokens(Role::User)?);
    all.retain(|token| !token.valid_until.is_some_and(|end| end.is_over(now)));
    Ok(all)
}

/// As what a new token is stored.
#[derive(Clone, Copy, Debug)]
struct Next {
    generation: u64,
    candidate: bool,
}

fn store_new(
    tx: &mut Tx<'_>,
    permit: &RoleTokenPermit,
    role: Role,
    new: &NewCredential,
    Next { generation, candidate }: Next,
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
        candidate,
    };
    tx.insert_role_token(permit, token);
    Ok(())
}
