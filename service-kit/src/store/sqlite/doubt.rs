//! The settling of a doubtful commit: one whose sync failed, of which nobody knows whether it lasts.

use std::sync::atomic::Ordering;

use rusqlite::TransactionBehavior;

use super::{Place, Sqlite, SqliteDomain, audit, connect, instant};
use crate::{
    clock::Timestamp,
    store::{Fault, audit::Head},
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
pub(super) struct Doubt {
    /// The chain's end, if it has.
    pub(super) head: Head,
    /// Its instant.
    at: Timestamp,
    /// The instant before it.
    before: Timestamp,
}

impl<D: SqliteDomain> Sqlite<D> {
    /// What became of a commit that failed: `Ok` where it has happened all the same.
    pub(super) fn undone(
        &mut self,
        error: rusqlite::Error,
        head: Head,
        at: Timestamp,
        on_full_disk: bool,
    ) -> Result<(), Fault> {
        if undid(&error) {
            return Err(error.into());
        }
        tracing::error!(%error, "a commit failed: the store is opened again");
        let before = Timestamp::from_micros(self.moment.load(Ordering::SeqCst));
        self.doubt = Some(Doubt { head, at, before });
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
        self.moment.store(now, Ordering::SeqCst);
        if let Some(doubt) = self.doubt.take().filter(|_| happened) {
            self.head = doubt.head;
        }
        Ok(happened)
    }
}
