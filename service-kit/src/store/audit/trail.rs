//! The audit rows of a store and its chains, for whoever may look at them while the service runs.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{ChainKey, Filter, Head, Report, Row};
use crate::store::{
    Fault,
    postgres::{self, Target},
    sqlite,
};

/// Where the rows are. Reads on connections of its own, beside the service's; each call waits for the store, so
/// it belongs on a thread that may wait.
#[derive(Clone, Debug)]
pub struct Trail {
    place: Place,
    key: ChainKey,
}

#[derive(Clone, Debug)]
enum Place {
    File(PathBuf),
    Database(Box<Target>),
}

impl Trail {
    /// Of the embedded store in this file.
    #[must_use]
    pub fn in_file(path: PathBuf, key: ChainKey) -> Self {
        Self { place: Place::File(path), key }
    }

    /// Of the store in this database.
    #[must_use]
    pub fn in_database(target: Target, key: ChainKey) -> Self {
        Self { place: Place::Database(Box::new(target)), key }
    }

    /// Rows in the order they were stored.
    ///
    /// # Errors
    /// What the store says.
    pub fn rows(&self, filter: &Filter) -> Result<Vec<Row>, Fault> {
        match &self.place {
            Place::File(path) => sqlite::rows(&open(path)?, filter),
            Place::Database(target) => postgres::rows(target, filter),
        }
    }

    /// The id of the newest row; 0 where there is none.
    ///
    /// # Errors
    /// What the store says.
    pub fn newest(&self) -> Result<i64, Fault> {
        match &self.place {
            Place::File(path) => sqlite::newest(&open(path)?),
            Place::Database(target) => postgres::newest(target),
        }
    }

    /// Reads every chain and compares each link with its rows. `known` are heads that must still be there. Takes
    /// the longer, the longer the log is.
    ///
    /// # Errors
    /// What the store says.
    pub fn verify(&self, known: &[Head]) -> Result<Report, Fault> {
        match &self.place {
            Place::File(path) => sqlite::report(&open(path)?, &self.key, known),
            Place::Database(target) => postgres::report(target, &self.key, known),
        }
    }
}

/// A connection that cannot write, whatever it is asked.
fn open(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(sqlite::BUSY_WITHIN)?;
    connection.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF")?;
    Ok(connection)
}
