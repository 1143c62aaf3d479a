//! The writing side: one connection, one batch at a time.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Access, Flush, Lane, Options, PostgresDomain, Sharing, audit, bind,
    doubt::Doubt,
    hosts::Watch,
    link::{Link, taken_over},
    moment::Moment,
    trouble::Trouble,
    working::{Loaded, Planned},
};
use crate::{
    clock::Timestamp,
    store::{
        Fault,
        audit::Head,
        writer::{Command, Engine},
    },
};

/// How often a batch is run again because another transaction was preferred to it.
const CONTENDED_MAX: usize = 8;
/// How often a batch is run again on a new connection.
const LOST_MAX: usize = 3;

/// The writing side of a store.
pub(super) struct Postgres<D: PostgresDomain> {
    desk: Desk,
    lane: Lane,
    late: Late<D>,
    /// Ends with the writer.
    _watch: Option<Watch>,
}

/// Signals of commits whose end was not known when their callers were answered.
struct Late<D: PostgresDomain> {
    /// Of the commit in doubt.
    doubted: Vec<D::Signal>,
    /// Of those that have happened: told with the next batch.
    owed: Vec<D::Signal>,
}

/// How many migrations there are: the kit's, the service's.
pub(super) type Schema = (i64, i64);

/// What outlives a batch.
pub(super) struct Desk {
    pub(super) options: Options,
    /// None after it was lost.
    pub(super) link: Option<Link>,
    /// The database's time.
    pub(super) moment: Arc<Moment>,
    /// How many migrations the store had when it was opened.
    pub(super) schema: Schema,
    pub(super) head: Head,
    /// How many batches this writer has committed: the number in its row of `moment`.
    pub(super) batch: i64,
    pub(super) doubt: Option<Doubt>,
}

impl<D: PostgresDomain> Postgres<D> {
    /// Takes over a desk and what drives its connection.
    pub(super) fn new(desk: Desk, lane: Lane, watch: Option<Watch>) -> Self {
        Self { desk, lane, late: Late { doubted: Vec::new(), owed: Vec::new() }, _watch: watch }
    }
}

impl<D: PostgresDomain> Engine<D> for Postgres<D> {
    fn batch(&mut self, commands: &mut [Box<dyn Command<D>>]) -> Result<Vec<D::Signal>, Fault> {
        self.lane.wait(self.desk.batch(commands, &mut self.late))
    }
}

impl Desk {
    async fn batch<D: PostgresDomain>(
        &mut self,
        commands: &mut [Box<dyn Command<D>>],
        late: &mut Late<D>,
    ) -> Result<Vec<D::Signal>, Fault> {
        // What earlier attempts came to need is loaded in one flight.
        let mut wanted = BTreeSet::new();
        let (mut contended, mut lost) = (0, 0);
        loop {
            if self.resume().await? {
                late.owed.append(&mut late.doubted);
            }
            late.doubted.clear();
            let (count, max, why) = match self.attempt(commands, &mut wanted, late).await {
                Ok(signals) => {
                    let mut told = std::mem::take(&mut late.owed);
                    told.extend(signals);
                    return Ok(told);
                }
                Err(Trouble::Fault(fault)) => {
                    self.undo().await;
                    return Err(fault);
                }
                Err(Trouble::Unmet(fault)) if contended >= CONTENDED_MAX => {
                    self.undo().await;
                    return Err(fault);
                }
                Err(Trouble::Unmet(fault)) => {
                    self.undo().await;
                    contended += 1;
                    (contended, CONTENDED_MAX, fault.to_string())
                }
                Err(Trouble::Again(why)) => {
                    self.undo().await;
                    contended += 1;
                    (contended, CONTENDED_MAX, why)
                }
                Err(Trouble::Lost(why)) => {
                    self.link = None;
                    lost += 1;
                    (lost, LOST_MAX, why)
                }
            };
            tracing::warn!(why, "a batch is run again");
            if count > max {
                return Err(Fault::Unavailable(why));
            }
        }
    }

    async fn attempt<D: PostgresDomain>(
        &mut self,
        commands: &mut [Box<dyn Command<D>>],
        wanted: &mut BTreeSet<D::Key>,
        late: &mut Late<D>,
    ) -> Result<Vec<D::Signal>, Trouble> {
        let shared = self.options.sharing == Sharing::Shared;
        let moment = Arc::clone(&self.moment);
        let link = self.link.as_mut().ok_or_else(|| Trouble::Lost("there is no connection".to_owned()))?;
        if link.is_behind() {
            return Err(taken_over());
        }
        link.undo().await?;
        let mut loaded = Loaded::<D>::nothing();
        // What rests on nothing that is stored may have an instant that was carried on.
        let mut now = match moment.carried() {
            _ if !wanted.is_empty() => moment.heard(loaded.load(link, wanted.clone(), Access::Locked).await?),
            Some(now) => now,
            None => moment.heard(link.stamp().await?),
        };
        let planned = loop {
            let missed = match loaded.run(commands, now)? {
                Ok(planned) => break planned,
                Err(missed) => missed,
            };
            wanted.extend(missed.iter().cloned());
            let next = if shared && loaded.is_past(&missed) {
                link.start_over();
                loaded.start_over();
                wanted.clone()
            } else {
                missed
            };
            now = moment.heard(loaded.load(link, next, Access::Locked).await?);
        };
        if !planned.wrote {
            // What was decided was decided on locked rows; nothing is left to do with them.
            link.undo().await?;
            return Ok(planned.signals);
        }
        self.keep(planned, now, late).await
    }

    /// Writes and commits what a batch has planned.
    async fn keep<D: PostgresDomain>(
        &mut self,
        planned: Planned<D>,
        now: Timestamp,
        late: &mut Late<D>,
    ) -> Result<Vec<D::Signal>, Trouble> {
        let Planned { audit, signals, mut flush, .. } = planned;
        witness(&mut flush, &self.head.writer, self.batch, now);
        let head = audit::append(&mut flush, &self.options.chain_key, &self.head, now, &audit, false);
        let link = self.link.as_mut().ok_or_else(|| Trouble::Lost("there is no connection".to_owned()))?;
        link.write(&flush).await?;
        match link.commit().await {
            Ok(()) => self.committed(head),
            Err(Trouble::Lost(why)) => {
                tracing::error!(why, "the answer to a commit is lost");
                self.link = None;
                self.doubt = Some(Doubt { head });
                match self.resume().await {
                    Ok(true) => {}
                    Ok(false) => return Err(Trouble::Again(why)),
                    Err(fault) => {
                        late.doubted = signals;
                        return Err(Fault::Uncertain(format!("{why}; asked again: {fault}")).into());
                    }
                }
            }
            Err(trouble) => return Err(trouble),
        }
        Ok(signals)
    }

    pub(super) fn committed(&mut self, head: Head) {
        self.batch += 1;
        self.head = head;
    }

    /// Lets go of what a batch that failed has locked.
    async fn undo(&mut self) {
        let Some(link) = &mut self.link else { return };
        if link.undo().await.is_err() {
            self.link = None;
        }
    }
}

/// The write that every batch has: it follows the last one, or another program has been here.
fn witness(flush: &mut Flush, writer: &str, after: i64, at: Timestamp) {
    flush.one(
        "moment of this writer",
        "UPDATE moment SET batch = batch + 1, at = GREATEST(at, $3) WHERE writer = $1 AND batch = $2",
        [bind(writer.to_owned()), bind(after), bind(at.as_micros())],
    );
}
