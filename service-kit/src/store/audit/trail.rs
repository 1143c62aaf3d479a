//! The audit rows of a store and its chains, for whoever may look at them while the service runs.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{ChainKey, Filter, Head, Known, PARTS, Plan, Remembered, Report, Retention, Row, Trim, plan};
use crate::clock::Timestamp;
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
    /// Rows up to this one were removed; 0 where none was.
    pub removed: i64,
}

/// From where to where there are rows.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Span {
    /// The place of the oldest row; 0 where there is none.
    pub(in crate::store) first: i64,
    /// A place up to which all rows that there will be are there.
    pub(in crate::store) newest: i64,
    /// The place of the last row that was removed; 0 where none was.
    pub(in crate::store) removed: i64,
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
        // What is no longer there need not be looked through.
        let after = |span: Span| filter.after.max(span.first - 1);
        let through = |span: Span| after(span).saturating_add(window).min(span.newest);
        let bounded = |span: Span| {
            let some = span.newest > after(span);
            some.then(|| Filter { after: after(span), through: Some(through(span)), ..filter.clone() })
        };
        let (span, rows) = match &self.place {
            Place::File(path) => sqlite::look(&open(path)?, bounded)?,
            Place::Database(target) => postgres::look(target, bounded)?,
        };
        Ok(Look { rows, through: through(span), newest: span.newest, removed: span.removed })
    }

    /// The next part that retention removes; none where nothing goes now.
    ///
    /// # Errors
    /// What the store says.
    pub fn due(&self, retention: &Retention, now: Timestamp) -> Result<Option<Trim>, Fault> {
        let (first, newest) = match &self.place {
            Place::File(path) => {
                let connection = open(path)?;
                (sqlite::first(&connection)?, sqlite::newest(&connection)?)
            }
            Place::Database(target) => postgres::first(target)?,
        };
        if !first.is_some_and(|first| retention.is_due(now, first, newest)) {
            return Ok(None);
        }
        for limit in PARTS {
            let oldest = match &self.place {
                Place::File(path) => sqlite::oldest(&open(path)?, limit)?,
                Place::Database(target) => postgres::oldest(target, limit)?,
            };
            match plan(&self.key, retention, now, oldest) {
                Plan::Trim(trim) => return Ok(Some(trim)),
                Plan::Nothing => return Ok(None),
                Plan::LookFurther => {}
            }
        }
        Ok(None)
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

    /// The ends of this log's chains, at most [`super::PEER_HEADS_MAX`]: those that are not sealed, and then those that
    /// were sealed last, the latest of them at the end. As they are stored; nothing is compared.
    ///
    /// # Errors
    /// What the store says.
    pub fn heads(&self) -> Result<Vec<Head>, Fault> {
        match &self.place {
            Place::File(path) => sqlite::heads(&open(path)?),
            Place::Database(target) => postgres::heads(target),
        }
    }

    /// What is kept of other services' chains, in the order in which it was stored.
    ///
    /// # Errors
    /// What the store says.
    pub fn remembered(&self) -> Result<Vec<Remembered>, Fault> {
        match &self.place {
            Place::File(path) => sqlite::remembered(&open(path)?),
            Place::Database(target) => postgres::remembered(target),
        }
    }

    /// Reads every chain and compares each link with its rows. `known` are heads that must still be there. Takes
    /// the longer, the longer the log is.
    ///
    /// # Errors
    /// What the store says.
    pub fn verify(&self, known: &[Known]) -> Result<Report, Fault> {
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
