//! What administrators and the host read of owners.

use interlock_kit::error::{Error, Reason};

use super::{LoginFacts, Owner};
use crate::{
    ids::OwnerId,
    limits,
    policy::Act,
    store::{Query, Stop, View},
};

/// Reads one owner.
#[derive(Clone, Debug)]
pub struct GetOwner {
    /// Which.
    pub owner: OwnerId,
}

impl Query for GetOwner {
    type Out = Owner;

    fn run(&self, view: &mut View<'_>) -> Result<Owner, Stop> {
        view.authorize(Act::ReadOwners)?;
        let living = view.owner(&self.owner)?.filter(|owner| !owner.is_removed());
        living.ok_or_else(|| Error::new(Reason::NotFound, "no such owner").into())
    }
}

/// Lists the owners, by id.
#[derive(Clone, Debug)]
pub struct ListOwners {
    /// Those after this id; from the first where it is `None`.
    pub after: Option<OwnerId>,
    /// At most so many; 0: [`limits::PAGE_DEFAULT`].
    pub limit: u32,
}

/// A page of owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerPage {
    /// By id.
    pub owners: Vec<Owner>,
    /// The last id, where there are more.
    pub next: Option<OwnerId>,
}

impl Query for ListOwners {
    type Out = OwnerPage;

    fn run(&self, view: &mut View<'_>) -> Result<OwnerPage, Stop> {
        view.authorize(Act::ReadOwners)?;
        let limit = if self.limit == 0 { limits::PAGE_DEFAULT } else { self.limit.min(limits::PAGE_MAX) };
        let mut owners = view.owners(self.after.as_ref(), limit + 1)?;
        let more = owners.len() > limit as usize;
        owners.truncate(limit as usize);
        let next = owners.last().filter(|_| more).map(|owner| owner.id.clone());
        Ok(OwnerPage { owners, next })
    }
}

/// What a password is held against before an owner is changed: the same one again is no change.
#[derive(Clone, Debug)]
pub struct ReadForEdit {
    /// Which.
    pub owner: OwnerId,
}

impl Query for ReadForEdit {
    type Out = Option<LoginFacts>;

    fn run(&self, view: &mut View<'_>) -> Result<Self::Out, Stop> {
        view.authorize(Act::EditOwners)?;
        let living = view.owner(&self.owner)?.filter(|owner| !owner.is_removed());
        Ok(living.map(|owner| LoginFacts { password: owner.password, version: owner.version }))
    }
}
