//! Owners: who signs in with a password.
//!
//! Owners are changed at run time (`edit.rs`), and come from accounts sources (`accounts.rs` reads them). [`ApplyAccount`] writes those records
//! that differ from what the same source said when it was last applied; the row that remembers this
//! outlives the owner. So a restart neither revives a removed owner nor undoes an edit made at run time
//! (DESIGN 14.16). A record that is gone from its source changes nothing. Where two sources know an owner, only
//! what the one that was followed last said is remembered: each change from one to the other is applied.

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::all,
};

use crate::{
    accounts::{Facts, Source},
    ids::OwnerId,
    password::PasswordHash,
    policy::{self, Act},
    revocation::Effect,
    role_token::Role,
    store::{Query, Stop, Tx, Verb, View},
};

mod edit;
mod list;

pub use self::{
    edit::{ChangePassword, Edit, OwnerStored, RemoveOwner, SetOwner},
    list::{GetOwner, ListOwners, OwnerPage, ReadForEdit},
};

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub id: OwnerId,
    /// What people see.
    pub display_name: String,
    /// As configured; `policy` knows which of them matter.
    pub roles: Vec<String>,
    /// An inactive owner cannot sign in, and has no living session.
    pub active: bool,
    /// Never the password.
    pub password: PasswordHash,
    /// Changes with each edit: a login that verified an older password is refused.
    pub version: u64,
    /// Owner sessions with a smaller issuance number have ended.
    pub sessions_from: u64,
    /// When it was last edited.
    pub changed_at: Timestamp,
    /// When it was removed: of such an owner only this tombstone is left.
    pub removed_at: Option<Timestamp>,
}

impl Owner {
    /// The role on the wire: `admin` if session-root, else `user`.
    #[must_use]
    pub fn role(&self) -> Role {
        if policy::is_session_root(&self.roles) { Role::Admin } else { Role::User }
    }

    /// Whether only a tombstone is left of it.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed_at.is_some()
    }

    /// Whether it is an administrator who can sign in.
    #[must_use]
    pub fn is_administrator(&self) -> bool {
        self.active && policy::is_session_root(&self.roles)
    }
}

/// What is known of whoever an owner id names, built-in owners included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The id.
    pub id: OwnerId,
    /// It exists and may act.
    pub active: bool,
    /// It is the built-in `admin`, or session-root.
    pub administrator: bool,
}

/// What the hasher threads need to check a password. Anyone may ask: the answer of Login tells nothing.
#[derive(Clone, Debug)]
pub struct ReadForLogin {
    /// The claimed owner.
    pub owner: OwnerId,
}

/// What a login is checked against.
#[derive(Clone, Debug)]
pub struct LoginFacts {
    /// The stored hash.
    pub password: PasswordHash,
    /// To be given to [`crate::owner_session::Login`].
    pub version: u64,
}

impl Query for ReadForLogin {
    type Out = Option<LoginFacts>;

    fn run(&self, view: &mut View<'_>) -> Result<Self::Out, Stop> {
        let owner = view.owner(&self.owner)?.filter(|owner| !owner.is_removed());
        Ok(owner.map(|o| LoginFacts { password: o.password, version: o.version }))
    }
}

/// What a source said of an owner when it was last applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Which source.
    pub source: Source,
    /// Of whom.
    pub owner: OwnerId,
    /// All but the password.
    pub facts: Facts,
    /// The hash that was made of, or given as, its password. A fast fingerprint of a password would be
    /// easier to guess than the hash, so there is none.
    pub password: PasswordHash,
}

/// Reads what was last applied of these.
#[derive(Clone, Debug)]
pub struct ReadApplied {
    /// Source and owner of each.
    pub of: Vec<(Source, OwnerId)>,
}

impl Query for ReadApplied {
    type Out = Vec<Option<Applied>>;

    fn run(&self, view: &mut View<'_>) -> Result<Self::Out, Stop> {
        view.authorize(Act::ApplyAccounts)?;
        all(&self.of, |(source, owner)| view.applied(*source, owner))
    }
}

/// One record that differs from what its source said before.
#[derive(Clone, Debug)]
pub struct ChangedAccount {
    /// Source, owner, facts, and the hash made of the password.
    pub record: Applied,
    /// Whether the password is another one than the source gave before. If not, the owner's present
    /// password stays, whoever set it.
    pub password_changed: bool,
}

/// Writes one changed record. A changed password and an end of `active` end the owner's sessions.
#[derive(Clone, Debug)]
pub struct ApplyAccount {
    /// The record.
    pub account: ChangedAccount,
}

/// What applying a record did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountApplied {
    /// The owner is new.
    pub created: bool,
    /// The row of the revocation log, where sessions ended or verdicts changed.
    pub revocation: Option<u64>,
}

impl Verb for ApplyAccount {
    type Out = AccountApplied;

    fn run(&self, tx: &mut Tx<'_>) -> Result<AccountApplied, Stop> {
        let record = &self.account.record;
        tx.concerning(record.owner.as_str());
        let permit = tx.authorize_owners(Act::ApplyAccounts)?;
        if record.owner.is_reserved() {
            return Err(Error::new(Reason::InvalidField, "a reserved owner id").into());
        }
        let known = tx.applied(record.source, &record.owner)?;
        let before = tx.owner(&record.owner)?;
        let after = self.edited(before.as_ref(), tx.now());
        tx.put_applied(&permit, known.is_some(), record.clone());
        // The owner follows this source now. Were the other's word remembered, its unchanged record would not be
        // applied when it speaks again.
        for other in Source::ALL.into_iter().filter(|other| *other != record.source) {
            if tx.applied(other, &record.owner)?.is_some() {
                tx.forget_applied(&permit, other, &record.owner);
            }
        }
        let end = (true, Effect::Ends);
        let stored = edit::store(tx, &permit, before, after, self.account.password_changed, end)?;
        Ok(AccountApplied { created: stored.created, revocation: stored.revocation })
    }
}

impl ApplyAccount {
    fn edited(&self, before: Option<&Owner>, now: Timestamp) -> Owner {
        let Applied { owner, facts, password, .. } = &self.account.record;
        let kept = before.filter(|b| !self.account.password_changed && !b.is_removed());
        let kept = kept.map(|b| b.password.clone());
        Owner {
            id: owner.clone(),
            display_name: facts.display_name.clone(),
            roles: facts.roles.clone(),
            active: facts.active,
            password: kept.unwrap_or_else(|| password.clone()),
            version: before.map_or(1, |b| b.version + 1),
            sessions_from: before.map_or(0, |b| b.sessions_from),
            changed_at: now,
            removed_at: None,
        }
    }
}
