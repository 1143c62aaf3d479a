//! The settling of a doubtful commit: one whose sync failed, of which nobody knows whether it lasts.

use std::sync::atomic::Ordering;

use rusqlite::TransactionBehavior;

use super::{Place, Sqlite, SqliteDomain, audit, connect, instant};
use crate::{
    clock::Timestamp,
    store::{Domain, Fault, audit::Head},
};

/// Whether a commit that ended so has certainly not happened: it was refused before all of it was in the log.
fn undid(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{ConstraintViolation, DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly};
    matches!(
        error.sqlite_error_code(),
        Some(DiskFull | DatabaseBusy | DatabaseLocked | ConstraintViolation | ReadOnly)
    )
}

/// A commit that may have happened.
pub(super) struct Doubt<D: Domain> {
    /// The chain's end, if it has.
    pub(super) head: Head,
    /// Its instant.
    at: Timestamp,
    /// The instant before it.
    before: Timestamp,
    /// What it tells, if it has.
    signals: Vec<D::Signal>,
}

impl<D: SqliteDomain> Sqlite<D> {
    /// What became of a commit that failed: `Ok` where it has happened all the same.
    pub(super) fn undone(
        &mut self,
        error: rusqlite::Error,
        head: Head,
        at: Timestamp,
        signals: Vec<D::Signal>,
        on_full_disk: bool,
    ) -> Result<(), Fault> {
        if undid(&error) {
            return Err(error.into());
        }
        tracing::error!(%error, "a commit failed: the store is opened again");
        let before = Timestamp::from_micros(self.moment.load(Ordering::SeqCst));
        self.doubt = Some(Doubt { head, at, before, signals });
        match self.settle(on_full_disk) {
            Ok(true) => Ok(()),
            Ok(false) => Err(error.into()),
            Err(fault) => Err(Fault::Uncertain(format!("{error}; opened again: {fault}"))),
        }
    }

    /// Settles the doubt: whether that commit has happened. If it has not it never will.
    pub(super) fn settle(&mut self, on_full_disk: bool) -> Result<bool, Fault> {
        loop {
            match self.fence() {
                Err(Fault::Full(why)) => {
                    if !self.give_space(on_full_disk) {
                        return Err(Fault::Full(why));
                    }
                }
                settled => return settled,
            }
        }
    }

    fn fence(&mut self) -> Result<bool, Fault> {
        let Some(doubt) = &self.doubt else { return Ok(false) };
        if matches!(self.place, Place::File(_)) {
            // The handles under which a sync has failed are not asked again.
            self.connection = connect(&self.place)?;
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let stored: i64 = transaction.query_row("SELECT at FROM moment", [], |row| row.get(0))?;
        let happened = if doubt.head == self.head {
            doubt.at.as_micros() == stored && doubt.at > doubt.before
        } else {
            audit::holds(&transaction, &doubt.head)?
        };
        // Another instant than the stored one: an unchanged row is not written.
        let now = instant(&self.clock, &self.moment).as_micros().max(stored.saturating_add(1));
        let moved = transaction.execute("UPDATE moment SET at = ?1", [now])?;
        Fault::unless_one(moved, "moment")?;
        transaction.commit()?;
        self.readers.outdate();
        self.moment.store(now, Ordering::SeqCst);
        if let Some(doubt) = self.doubt.take().filter(|_| happened) {
            self.head = doubt.head;
            self.untold.extend(doubt.signals);
        }
        Ok(happened)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rusqlite::Connection;

    use super::*;
    use crate::{
        clock::Clock,
        home::Home,
        store::{
            audit::{ChainKey, Entry, Origin, Outcome},
            sqlite::{Options, engine},
            writer::{Command, Engine as _, QueueLimits, Step},
        },
    };

    /// Tells what it is told to.
    #[derive(Debug)]
    struct Told;

    impl Domain for Told {
        type Rows<'t> = ();
        type Key = u8;
        type Change = &'static str;
        type Signal = &'static str;
        type Question = ();
    }

    impl SqliteDomain for Told {
        fn migrations() -> refinery::Runner {
            refinery::Runner::new(&[])
        }

        fn rows(_: &Connection, _: Option<&BTreeSet<u8>>, work: &mut dyn FnMut(&mut ())) {
            work(&mut ());
        }

        fn apply(
            _: &Connection,
            change: &'static str,
            _: Timestamp,
            signals: &mut Vec<&'static str>,
        ) -> Result<(), Fault> {
            signals.push(change);
            Ok(())
        }
    }

    struct Tell(&'static str, Home);

    impl Command<Told> for Tell {
        fn run(&mut self, (): &mut (), _: Timestamp) -> Step<Told> {
            let row = Entry::new(std::sync::Arc::new(Origin::default()), "test", Outcome::Done);
            Step::Write(vec![self.0], vec![row])
        }

        fn goes_on_full_disk(&self) -> bool {
            false
        }

        fn home(&self) -> &Home {
            &self.1
        }

        fn answer(self: Box<Self>, _: Result<(), Fault>) {}
    }

    // I8: auth forgets its verdicts by these signals.
    #[test]
    fn a_commit_that_was_in_doubt_is_told_of_when_it_turns_out_to_have_happened() {
        let folder = tempfile::tempdir().expect("a folder");
        for happened in [true, false] {
            let options = Options {
                place: Place::File(folder.path().join(format!("{happened}.db"))),
                clock: Clock::system(),
                chain_key: ChainKey::new([7; 32]),
                limits: QueueLimits::default(),
                inline: true,
                inject_misses: false,
            };
            let mut engine = engine::<Told>(&options).expect("a store");
            let (before, head) = (engine.moment.load(Ordering::SeqCst), engine.head.clone());
            assert_eq!(
                engine.batch(&mut [Box::new(Tell("committed", Home::default()))]).expect("committed"),
                ["committed"]
            );
            // As if the answer to a commit had been lost: to this one, or to one that never was.
            let mut doubtful = engine.head.clone();
            let at = Timestamp::from_micros(engine.moment.load(Ordering::SeqCst));
            if happened {
                engine.head = head;
                engine.moment.store(before, Ordering::SeqCst);
            } else {
                doubtful.number += 1;
            }
            let before = Timestamp::from_micros(before);
            engine.doubt = Some(Doubt { head: doubtful, at, before, signals: vec!["doubtful"] });
            let told = engine.batch(&mut [Box::new(Tell("next", Home::default()))]).expect("committed");
            assert_eq!(told, if happened { vec!["doubtful", "next"] } else { vec!["next"] });
        }
    }
}
