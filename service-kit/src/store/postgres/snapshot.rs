//! The reading side: groups of reads, each group on one snapshot, with no locks.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::{
    Access, Lane, Options, PostgresDomain,
    doubt::{RESUME_PAUSE, RESUME_WITHIN},
    link::{Kind, Link},
    moment::Moment,
    trouble::Trouble,
    working::Loaded,
};
use crate::{
    clock::Clock,
    store::{
        Fault,
        writer::{Command, Engine, Step},
    },
};

/// Reads what the writer has committed.
pub(super) struct Snapshot<D> {
    desk: Desk,
    lane: Lane,
    _domain: std::marker::PhantomData<fn() -> D>,
}

struct Desk {
    options: Options,
    moment: Arc<Moment>,
    /// None before the first read, and after it was lost.
    link: Option<Link>,
}

impl<D: PostgresDomain> Snapshot<D> {
    pub(super) fn new(options: &Options, moment: Arc<Moment>) -> std::io::Result<Self> {
        let desk = Desk { options: options.clone(), moment, link: None };
        Ok(Self { desk, lane: Lane::new()?, _domain: std::marker::PhantomData })
    }
}

impl<D: PostgresDomain> Engine<D> for Snapshot<D> {
    fn batch(&mut self, commands: &mut [Box<dyn Command<D>>]) -> Result<Vec<D::Signal>, Fault> {
        self.lane.wait(self.desk.batch::<D>(commands))?;
        Ok(Vec::new())
    }
}

impl Desk {
    async fn batch<D: PostgresDomain>(&mut self, commands: &mut [Box<dyn Command<D>>]) -> Result<(), Fault> {
        let began: Instant = Clock::instant();
        loop {
            let why = match self.attempt(commands).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Fault(fault) | Trouble::Unmet(fault)) => {
                    self.undo().await;
                    return Err(fault);
                }
                // Nothing was changed, so nothing is in doubt.
                Err(Trouble::Lost(why) | Trouble::Again(why)) => why,
            };
            self.link = None;
            if Clock::instant().duration_since(began) >= RESUME_WITHIN {
                return Err(Fault::Unavailable(why));
            }
            tokio::time::sleep(RESUME_PAUSE).await;
        }
    }

    async fn attempt<D: PostgresDomain>(
        &mut self,
        commands: &mut [Box<dyn Command<D>>],
    ) -> Result<(), Trouble> {
        if self.link.as_ref().is_none_or(Link::is_behind) {
            self.link = None;
            self.link = Some(Link::connect(&self.options.target, Kind::Read).await?);
        }
        let link = self.link.as_mut().ok_or_else(|| Trouble::Lost("there is no connection".to_owned()))?;
        link.undo().await?;
        // One instant for all of them: what is asked of an instant must not be asked of the next one again.
        let now = match self.moment.carried() {
            Some(now) => now,
            None => self.moment.heard(link.stamp().await?),
        };
        let mut loaded = Loaded::<D>::nothing();
        let mut waiting: Vec<_> = commands.iter_mut().collect();
        loop {
            let mut missed = BTreeSet::new();
            let mut unread = Vec::new();
            for command in waiting {
                match loaded.read(command.as_mut(), now) {
                    Step::Write(changes, audit) if changes.is_empty() && audit.is_empty() => {}
                    Step::Write(..) => return Err(Fault::Broken("a read planned a write".to_owned()).into()),
                    Step::Miss(keys) => {
                        missed.extend(keys);
                        unread.push(command);
                    }
                    Step::Fault(fault) => return Err(fault.into()),
                }
            }
            if unread.is_empty() {
                break;
            }
            self.moment.heard(loaded.load(link, missed, Access::Snapshot).await?);
            waiting = unread;
        }
        link.undo().await
    }

    async fn undo(&mut self) {
        let Some(link) = &mut self.link else { return };
        if link.undo().await.is_err() {
            self.link = None;
        }
    }
}
