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

/// What one bounded look at the rows found.
#[derive(Debug)]
pub struct Look {
    /// In the order they were stored.
    pub rows: Vec<Row>,
    /// All rows up to this id were looked at, or as many found as were asked for.
    pub through: i64,
    /// The id of the newest row; 0 where there is none.
    pub newest: i64,
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

    /// Looks at the next `window` ids after [`Filter::after`], on one connection; [`Filter::through`] is not looked at.
    ///
    /// # Errors
    /// What the store says.
    pub fn look(&self, filter: &Filter, window: i64) -> Result<Look, Fault> {
        let through = |newest: i64| filter.after.saturating_add(window).min(newest);
        let bounded = |newest: i64| {
            let some = newest > filter.after;
            some.then(|| Filter { through: Some(through(newest)), ..filter.clone() })
        };
        let (newest, rows) = match &self.place {
            Place::File(path) => {
                let connection = open(path)?;
                let newest = sqlite::newest(&connection)?;
                let rows = bounded(newest).map(|filter| sqlite::rows(&connection, &filter)).transpose()?;
                (newest, rows)
            }
            Place::Database(target) => postgres::look(target, bounded)?,
        };
        Ok(Look { rows: rows.unwrap_or_default(), through: through(newest), newest })
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
