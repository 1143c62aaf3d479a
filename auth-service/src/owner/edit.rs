//! Changes of owners at run time: by administrators, on the host, and by owners themselves.

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::audit::Outcome,
};

use super::Owner;
use crate::{
    caller::Proof,
    ids::OwnerId,
    limits,
    password::PasswordHash,
    policy::{self, Act, OwnerPermit},
    revocation::{Effect, Subject},
    store::{Stop, Tx, Verb},
    trust,
};

/// What is to become of an owner; `None` leaves it. A new owner is `user`, active and shown by its id where nothing
/// else is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// What people see.
    pub display_name: Option<String>,
    /// All of them.
    pub roles: Option<Vec<String>>,
    /// Whether it may sign in.
    pub active: Option<bool>,
    /// The hash of another password than the present one.
    pub password: Option<PasswordHash>,
}

/// Adds an owner, or changes one.
#[derive(Clone, Debug)]
pub struct SetOwner {
    /// Whose.
    pub owner: OwnerId,
    /// What to change.
    pub edit: Edit,
    /// Another password leaves the owner's sessions alive.
    pub keep_sessions: bool,
    /// The version that the change was made for.
    pub expected: Option<u64>,
    /// Where it ends the owner's sessions: work that was begun for them is to stop.
    pub cancel_jobs: bool,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerStored {
    /// The owner as it is now.
    pub owner: Owner,
    /// It is new.
    pub created: bool,
    /// The row of the revocation log, where sessions ended or verdicts changed.
    pub revocation: Option<u64>,
}

impl Verb for SetOwner {
    type Out = OwnerStored;

    fn run(&self, tx: &mut Tx<'_>) -> Result<OwnerStored, Stop> {
        tx.concerning(self.owner.as_str());
        let permit = tx.authorize_owners(Act::EditOwners)?;
        trust::admit_again(tx)?;
        if self.owner.is_reserved() {
            return Err(Error::invalid_field("owner_id", "admin, user, local and system are reserved").into());
        }
        let before = tx.owner(&self.owner)?;
        let living = before.as_ref().filter(|owner| !owner.is_removed());
        expect(self.expected, living)?;
        let after = self.edited(before.as_ref(), tx.now())?;
        if let Some(living) = living {
            let untouched = Owner { version: living.version, changed_at: living.changed_at, ..after.clone() };
            if untouched == *living {
                return Ok(OwnerStored { owner: untouched, created: false, revocation: None });
            }
            keep_an_administrator(tx, living, &after)?;
        } else if before.is_none() && tx.owners_stored()? >= limits::OWNERS_MAX {
            return Err(Error::new(Reason::LimitReached, "too many owners").into());
        }
        let end = (!self.keep_sessions, Effect::of_end(self.cancel_jobs));
        store(tx, &permit, before, after, self.edit.password.is_some(), end)
    }
}

impl SetOwner {
    fn edited(&self, before: Option<&Owner>, now: Timestamp) -> Result<Owner, Error> {
        let (living, edit) = (before.filter(|owner| !owner.is_removed()), self.edit.clone());
        let password = edit.password.or_else(|| living.map(|owner| owner.password.clone()));
        let password = password.ok_or_else(|| Error::missing_field("password"))?;
        let display_name = edit.display_name.or_else(|| living.map(|owner| owner.display_name.clone()));
        let roles = edit.roles.or_else(|| living.map(|owner| owner.roles.clone()));
        Ok(Owner {
            id: self.owner.clone(),
            display_name: display_name.unwrap_or_else(|| self.owner.to_string()),
            roles: roles.unwrap_or_else(|| vec!["user".to_owned()]),
            active: edit.active.unwrap_or_else(|| living.is_none_or(|owner| owner.active)),
            password,
            version: before.map_or(1, |owner| owner.version + 1),
            sessions_from: before.map_or(0, |owner| owner.sessions_from),
            changed_at: now,
            removed_at: None,
        })
    }
}

/// Removes an owner. A tombstone stays: of its sessions none lives again, whoever has the id later.
#[derive(Clone, Debug)]
pub struct RemoveOwner {
    /// Whom.
    pub owner: OwnerId,
    /// The version that was seen.
    pub expected: Option<u64>,
    /// Work that was begun for it is to stop.
    pub cancel_jobs: bool,
}

impl Verb for RemoveOwner {
    /// The row of the revocation log.
    type Out = u64;
    const REVOKES: bool = true;

    fn run(&self, tx: &mut Tx<'_>) -> Result<u64, Stop> {
        tx.concerning(self.owner.as_str());
        let permit = tx.authorize_owners(Act::EditOwners)?;
        trust::admit_again(tx)?;
        let living = tx.owner(&self.owner)?.filter(|owner| !owner.is_removed());
        let living = living.ok_or_else(|| Error::new(Reason::NotFound, "no such owner"))?;
        expect(self.expected, Some(&living))?;
        let gone = Owner {
            id: living.id.clone(),
            display_name: living.id.to_string(),
            roles: Vec::new(),
            active: false,
            password: PasswordHash::nobodys(),
            version: living.version + 1,
            sessions_from: living.sessions_from,
            changed_at: tx.now(),
            removed_at: Some(tx.now()),
        };
        keep_an_administrator(tx, &living, &gone)?;
        let revocation = tx.end(Subject::Owner(living.id.clone()), Effect::of_end(self.cancel_jobs))?;
        let gone = Owner { sessions_from: revocation.issued_before, ..gone };
        tx.update_owner(&permit, living.version, gone);
        tx.audit(Outcome::Done, r#"{"owner":"removed","sessions":"ended"}"#);
        Ok(revocation.sequence)
    }
}

/// Changes the caller's own password. The present one was verified outside.
#[derive(Clone, Debug)]
pub struct ChangePassword {
    /// The version whose password was verified; `None` where it was none.
    pub verified: Option<u64>,
    /// The hash of the new one.
    pub password: PasswordHash,
    /// The owner's sessions stay alive.
    pub keep_sessions: bool,
}

impl Verb for ChangePassword {
    /// The row of the revocation log, where sessions ended.
    type Out = Option<u64>;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Option<u64>, Stop> {
        let caller = tx.call().caller.principal().ok_or_else(policy::login_required)?;
        let Proof::OwnerSession { session } = &caller.proof else {
            return Err(policy::of_another_kind().into());
        };
        let found = tx.session_and_owner(&session.clone())?;
        let (session, owner) = found.ok_or_else(policy::login_required)?;
        tx.concerning(owner.id.as_str());
        let permit = policy::own_password(&session, &owner, tx.now())?;
        let verified = self.verified.ok_or_else(policy::wrong_credentials)?;
        expect(Some(verified), Some(&owner))?;
        let after = Owner {
            password: self.password.clone(),
            version: owner.version + 1,
            changed_at: tx.now(),
            ..owner.clone()
        };
        Ok(store(tx, &permit, Some(owner), after, true, (!self.keep_sessions, Effect::Ends))?.revocation)
    }
}

/// Two who change the same owner at once do not undo each other's change unseen.
fn expect(expected: Option<u64>, living: Option<&Owner>) -> Result<(), Error> {
    match expected {
        Some(version) if living.is_none_or(|owner| owner.version != version) => {
            Err(Error::new(Reason::Conflict, "the owner has changed meanwhile; look again"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Somebody among the owners stays an administrator who can sign in.
fn keep_an_administrator(tx: &Tx<'_>, before: &Owner, after: &Owner) -> Result<(), Stop> {
    if before.is_administrator() && !after.is_administrator() && !tx.another_administrator(&before.id)? {
        return Err(Error::new(Reason::Forbidden, "the last active administrator stays one").into());
    }
    Ok(())
}

/// Writes an owner, and what follows from the change for its sessions and for verifiers: whether another password ends
/// them, and what that end means.
pub(super) fn store(
    tx: &mut Tx<'_>,
    permit: &OwnerPermit,
    before: Option<Owner>,
    after: Owner,
    password_changed: bool,
    (password_ends, end): (bool, Effect),
) -> Result<OwnerStored, Stop> {
    let Some(before) = before else {
        let owner = tx.insert_owner(permit, after)?;
        tx.audit(Outcome::Done, r#"{"owner":"created"}"#);
        return Ok(OwnerStored { owner, created: true, revocation: None });
    };
    let created = before.is_removed();
    // Of an owner who was not active no session lives; one that is not active any more keeps none.
    let ends = before.active && (!after.active || (password_changed && password_ends));
    let asks_again = ends || before.roles != after.roles || before.active != after.active;
    let subject = Subject::Owner(before.id.clone());
    let effect = if ends { end } else { Effect::Asks };
    let revocation = asks_again.then(|| tx.end(subject, effect)).transpose()?;
    let from = revocation.as_ref().filter(|_| ends).map(|revocation| revocation.issued_before);
    let after = Owner { sessions_from: from.unwrap_or(before.sessions_from), ..after };
    tx.update_owner(permit, before.version, after.clone());
    let detail = match (created, ends) {
        (true, _) => r#"{"owner":"created"}"#,
        (false, true) => r#"{"owner":"changed","sessions":"ended"}"#,
        (false, false) => r#"{"owner":"changed"}"#,
    };
    tx.audit(Outcome::Done, detail);
    Ok(OwnerStored { owner: after, created, revocation: revocation.map(|r| r.sequence) })
}
