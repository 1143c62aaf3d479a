//! A batch on its working set: run it, gather what it misses, load that, run it again.

use std::collections::BTreeSet;

use super::{Access, Flush, Out, PostgresDomain, Unmet, link::Link, moment::Stamp, trouble::Trouble};
use crate::{
    clock::Timestamp,
    store::{
        Fault,
        audit::Entry,
        writer::{Command, Step},
    },
};

/// How often a batch may miss more rows. A verb's rows are a few steps deep; one that looks up a list one by one is slow,
/// and not broken.
const ROUNDS_MAX: usize = 1_024;
/// How often a batch lets go of its locks, to take them and what it misses in one order. Then it goes on with what it
/// holds: another one may be in its way, and the database ends that.
const STARTS_MAX: usize = 3;

/// The rows of one transaction that have been loaded, as the database has them.
pub(super) struct Loaded<D: PostgresDomain> {
    rows: D::Working,
    keys: BTreeSet<D::Key>,
    rounds: usize,
    /// How often they were let go and loaded anew.
    starts: usize,
}

/// What a batch wants done.
pub(super) struct Planned<D: PostgresDomain> {
    pub(super) audit: Vec<Entry>,
    pub(super) signals: Vec<D::Signal>,
    pub(super) flush: Flush,
    /// Whether there is anything to be kept.
    pub(super) wrote: bool,
}

impl<D: PostgresDomain> Loaded<D> {
    pub(super) fn nothing() -> Self {
        Self { rows: D::Working::default(), keys: BTreeSet::new(), rounds: 0, starts: 0 }
    }

    /// Loads these in one flight.
    pub(super) async fn load(
        &mut self,
        link: &mut Link,
        mut keys: BTreeSet<D::Key>,
        access: Access,
    ) -> Result<Stamp, Trouble> {
        self.rounds += 1;
        keys.retain(|key| !self.keys.contains(key));
        if self.rounds > ROUNDS_MAX || keys.is_empty() {
            return Err(Fault::Broken("rows are missed though they are loaded".to_owned()).into());
        }
        let stamp = link.load(D::ask(&keys, access), &mut self.rows).await?;
        self.keys.extend(keys);
        Ok(stamp)
    }

    /// Whether the locks of these come before some that are held.
    pub(super) fn is_past(&self, missed: &BTreeSet<D::Key>) -> bool {
        let held = self.keys.iter().filter_map(D::place).max();
        let next = missed.iter().filter_map(D::place).min();
        self.starts < STARTS_MAX && next.zip(held).is_some_and(|(next, held)| next <= held)
    }

    /// Forgets what is loaded: all of it is to be loaded again.
    pub(super) fn start_over(&mut self) {
        (self.rows, self.keys) = (D::Working::default(), BTreeSet::new());
        self.starts += 1;
    }

    /// Runs all of them once, each on what the ones before it have planned. Where one misses rows the others
    /// run all the same, so that one flight loads for all; but then nothing of it counts.
    pub(super) fn run(
        &self,
        commands: &mut [Box<dyn Command<D>>],
        now: Timestamp,
    ) -> Result<Result<Planned<D>, BTreeSet<D::Key>>, Fault> {
        let mut rows = self.rows.clone();
        let mut missed = BTreeSet::new();
        let (mut audit, mut signals, mut flush) = (Vec::new(), Vec::new(), Flush::default());
        let mut wrote = false;
        for command in commands {
            match self.run_one(&rows, command.as_mut(), now) {
                Step::Write(changes, entries) => {
                    wrote |= !changes.is_empty() || !entries.is_empty();
                    audit.extend(entries);
                    for change in changes {
                        let mut out = Out { signals: &mut signals, flush: &mut flush };
                        match D::working_apply(&mut rows, &self.keys, change, now, &mut out) {
                            Ok(()) => {}
                            Err(Unmet::Miss(keys)) => missed.extend(keys),
                            Err(Unmet::Fault(fault)) => return Err(fault),
                        }
                    }
                }
                Step::Miss(keys) => missed.extend(keys),
                Step::Fault(fault) => return Err(fault),
            }
        }
        if !missed.is_empty() {
            return Ok(Err(missed));
        }
        D::finish(&rows, &mut flush);
        Ok(Ok(Planned { audit, signals, flush, wrote }))
    }

    /// Runs one that reads only, on what was loaded.
    pub(super) fn read(&self, command: &mut dyn Command<D>, now: Timestamp) -> Step<D> {
        self.run_one(&self.rows, command, now)
    }

    fn run_one(&self, rows: &D::Working, command: &mut dyn Command<D>, now: Timestamp) -> Step<D> {
        let mut step = None;
        D::working_rows(rows, &self.keys, &mut |rows| step = Some(command.run(rows, now)));
        step.unwrap_or_else(|| Step::Fault(Fault::Broken("rows were never handed over".to_owned())))
    }
}
