//! The reading side: groups of reads, each group on one snapshot.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicI64},
};

use rusqlite::{Connection, TransactionBehavior};

use super::{SqliteDomain, instant, log::Turn, run_one};
use crate::{
    clock::Clock,
    store::{
        Fault,
        writer::{Command, Engine, Step},
    },
};

/// Reads what the writer has committed.
pub(super) struct Snapshot<D> {
    pub(super) connection: Connection,
    pub(super) clock: Clock,
    pub(super) moment: Arc<AtomicI64>,
    pub(super) inject_misses: bool,
    /// Taken for each group, so that the log can be cut between two.
    pub(super) turn: Turn,
    pub(super) _domain: std::marker::PhantomData<fn() -> D>,
}

impl<D: SqliteDomain> Engine<D> for Snapshot<D> {
    fn batch(&mut self, commands: &mut [Box<dyn Command<D>>]) -> Result<Vec<D::Signal>, Fault> {
        let _turn = self.turn.lock();
        let mut loaded = BTreeSet::new();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        for command in commands {
            loop {
                let now = instant(&self.clock, &self.moment);
                let known = self.inject_misses.then_some(&loaded);
                match run_one::<D>(&transaction, known, command.as_mut(), now) {
                    Step::Write(changes, audit) if changes.is_empty() && audit.is_empty() => break,
                    Step::Write(..) => return Err(Fault::Broken("a read planned a write".to_owned())),
                    Step::Miss(keys) => loaded.extend(keys),
                    Step::Fault(fault) => return Err(fault),
                }
            }
        }
        transaction.finish()?;
        Ok(Vec::new())
    }
}
