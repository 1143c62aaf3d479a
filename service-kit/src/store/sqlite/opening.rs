//! Opening a store's file: what must hold before a byte of it may change.
//!
//! A store that is damaged, of another program or of a newer version is refused as it lies. So everything is
//! read first, on a connection that writes nothing back; only then come the write-ahead log, migrations and the
//! start of the audit chain. A new store is made under another name and renamed: a file of no length is
//! always a loss, never a beginning.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use refinery::Runner;
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use super::{Place, SqliteDomain, log};
use crate::{
    clock::Clock,
    random,
    store::{
        Fault,
        migrations::{self, Applied, OURS, THEIRS, Unlike},
    },
};

/// A larger store is checked page by page only after an end that was none: it would keep each start waiting for
/// seconds. A page that is damaged is found when it is read.
const CHECKED_BYTES_MAX: u64 = 128 << 20;
/// How long another program's lock is waited for: a write that fails for it still fails in its deadline.
pub(in crate::store) const BUSY_WITHIN: Duration = Duration::from_secs(2);
/// A check that takes longer is told: it is a part of the time to healthy.
const CHECK_LONG: Duration = Duration::from_secs(1);

/// Why a store cannot be opened. One line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be reached.
    #[error("cannot read the store {place}: {source}; it must be a file that this user can read and write")]
    Read {
        /// Which.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// It cannot be opened.
    #[error("cannot open the store {place}: {source}; it was left as it is")]
    Open {
        /// Which.
        place: String,
        /// Why.
        source: rusqlite::Error,
    },
    /// It is not whole.
    #[error(
        "the store {place} is damaged: {why}; it was left as it is: restore it from a backup, or move it away to begin with an empty one"
    )]
    Damaged {
        /// Which, or its log.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is something else.
    #[error(
        "{place} is not a store of this program: {why}; it was left as it is: set data_dir to this service's own folder"
    )]
    Foreign {
        /// Which.
        place: String,
        /// How that is seen.
        why: String,
    },
    /// A newer program wrote it.
    #[error(
        "the store {place} is of a newer version (it has {migration}); it was left as it is: use the program that last wrote it, or a newer one"
    )]
    Newer {
        /// Which.
        place: String,
        /// What this program does not know.
        migration: String,
    },
    /// A program with other migrations wrote it.
    #[error(
        "the store {place} is of another build ({migration} is not the one of this program); it was left as it is: use the program that last wrote it"
    )]
    Changed {
        /// Which.
        place: String,
        /// Which of the two differ.
        migration: String,
    },
    /// A migration failed.
    #[error("cannot bring the store {place} to this version: {source}; it is as it was")]
    Migrate {
        /// Which.
        place: String,
        /// Why.
        source: Box<refinery::Error>,
    },
    /// No thread to run it.
    #[error("cannot start the store's thread: {0}")]
    Thread(#[from] io::Error),
    /// The chain's start could not be written.
    #[error("cannot write to the store {place}: {source}; nothing was lost: make room, or make it writable")]
    Write {
        /// Which.
        place: String,
        /// Why.
        source: Fault,
    },
}

impl OpenError {
    fn unlike(place: &str, unlike: Unlike) -> Self {
        let place = place.to_owned();
        match unlike {
            Unlike::Newer(migration) => Self::Newer { place, migration },
            Unlike::Foreign(why) => Self::Foreign { place, why },
            Unlike::Changed(migration) => Self::Changed { place, migration },
            Unlike::Damaged(why) => Self::Damaged { place, why },
        }
    }
}

/// Opens a connection as every part of ours does. Makes the file where it is missing.
///
/// # Errors
/// What SQLite says.
pub fn connect(place: &Place) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match place {
        Place::File(path) => {
            if matches!(path.try_exists(), Ok(false)) {
                create(path)?;
            }
            Connection::open_with_flags(path, flags)?
        }
        Place::Memory => Connection::open_in_memory_with_flags(flags)?,
    };
    connection.busy_timeout(BUSY_WITHIN)?;
    connection.set_prepared_statement_cache_capacity(128);
    // Plans do not look at what is bound: else a statement over a partial index is compiled again for each new
    // value, an eighth of all the writer's time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Fewer checkpoints: measured 15 % faster, at 40 MB of log, and `log::BYTES_MAX` beside busy readers. Up to
    // 32 MiB of pages a connection: what a batch touches does not fit into SQLite's 2.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 10000;
         PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;
         PRAGMA cache_size = -32768;",
    )?;
    Ok(connection)
}

/// A new store, nobody else's to read: whole under another name first.
fn create(path: &Path) -> rusqlite::Result<()> {
    let unopened = |error: io::Error| {
        let code = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => rusqlite::ffi::SQLITE_FULL,
            io::ErrorKind::PermissionDenied => rusqlite::ffi::SQLITE_PERM,
            _ => rusqlite::ffi::SQLITE_CANTOPEN,
        };
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(error.to_string()))
    };
    let named = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
    let name = path.file_name().ok_or_else(|| unopened(named()))?.to_string_lossy().into_owned();
    let unique = u64::from_le_bytes(random::bytes());
    let new = path.with_file_name(format!(".{name}.{unique:016x}.tmp"));
    let make = || -> rusqlite::Result<()> {
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(unopened)?;
        let connection = Connection::open_with_flags(&new, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // Writes the first page, so that the file has a header.
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
        connection.close().map_err(|(_, error)| error)?;
        let settle = || -> io::Result<()> {
            fs::File::open(&new)?.sync_all()?;
            fs::rename(&new, path)?;
            let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
            fs::File::open(folder)?.sync_all()
        };
        settle().map_err(unopened)
    };
    make().inspect_err(|_| {
        // What is left of it is in nobody's way; a failure here has nobody left to tell.
        for left in [&new, &beside(&new, "-wal"), &beside(&new, "-shm")] {
            let _ = fs::remove_file(left);
        }
    })
}

/// The store's name with an ending of SQLite's.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(ending);
    name.into()
}

/// Refuses what is there and must not be touched. Writes nothing.
pub(super) fn check<D: SqliteDomain>(path: &Path) -> Result<(), OpenError> {
    let place = path.display().to_string();
    let unreadable = |source| OpenError::Read { place: place.clone(), source };
    let damaged = |why: &str| OpenError::Damaged { place: place.clone(), why: why.to_owned() };
    let path_of_log = beside(path, "-wal");
    let log_bytes = fs::metadata(&path_of_log).map_or(0, |found| found.len());
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && log_bytes == 0 => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(&format!("it is missing beside its log {}", path_of_log.display())));
        }
        Err(error) => return Err(unreadable(error)),
        Ok(found) if !found.is_file() => {
            return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        Ok(found) if found.len() == 0 => return Err(damaged("it is empty")),
        // Where there is a log, a power cut may have torn the first page, and the log has it whole.
        Ok(_) if log_bytes == 0 && !is_of_whole_pages(path).map_err(unreadable)? => {
            return Err(damaged("it is not a database of whole pages"));
        }
        Ok(_) => {}
    }
    if log_bytes > log::HEADER_BYTES as u64 && !log::begins_well(&path_of_log).map_err(unreadable)? {
        return Err(OpenError::Damaged {
            place: path_of_log.display().to_string(),
            why: "its log has no valid beginning, and what was last written stands there".to_owned(),
        });
    }
    let began = Clock::instant();
    let is_new = examine::<D>(path, &place, log_bytes > 0)?;
    // A first commit may be torn; a second one is begun only when the first is there to stay.
    if is_new && log_bytes > 0 && log::commits(&path_of_log).map_err(unreadable)? > 1 {
        return Err(damaged("its log is cut off by damage, and nothing is left of what stands there"));
    }
    let took = Clock::instant().duration_since(began);
    if took > CHECK_LONG {
        tracing::info!(store = %place, ms = took.as_millis(), "the store was checked");
    }
    Ok(())
}

/// Whether it is new: as `create` leaves it.
fn examine<D: SqliteDomain>(path: &Path, place: &str, has_log: bool) -> Result<bool, OpenError> {
    let unusable = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            OpenError::Damaged { place: place.to_owned(), why: source.to_string() }
        }
        _ => OpenError::Open { place: place.to_owned(), source },
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(unusable)?;
    if has_log {
        // The last connection to close would write the log back into a store that may have to be left as it is.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(unusable)?;
    }
    connection.busy_timeout(BUSY_WITHIN).map_err(unusable)?;
    let tables = tables(&connection).map_err(unusable)?;
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).map_err(unusable)?;
    if tables.is_empty() && pages <= 1 {
        return Ok(true);
    }
    let foreign = |why: String| OpenError::Foreign { place: place.to_owned(), why };
    if !tables.iter().any(|table| table == OURS) {
        return Err(foreign(format!("it has no table {OURS}")));
    }
    for (table, runner) in [(OURS, kit_migrations()), (THEIRS, D::migrations())] {
        if tables.iter().any(|found| found == table) {
            let applied = applied(&connection, table).map_err(unusable)?;
            migrations::compare(&applied, &runner).map_err(|unlike| OpenError::unlike(place, unlike))?;
        }
    }
    let bytes = std::fs::metadata(path).map_or(0, |store| store.len());
    if bytes > CHECKED_BYTES_MAX && !has_log {
        tracing::info!(bytes, "the store was closed well, and is too large to be checked whole at a start");
        return Ok(false);
    }
    let said: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(unusable)?;
    if said != "ok" {
        let why = said.split_whitespace().collect::<Vec<_>>().join(" ");
        return Err(OpenError::Damaged { place: place.to_owned(), why });
    }
    Ok(false)
}

fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut names = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let names = names.query_map([], |row| row.get(0))?;
    names.collect()
}

fn applied(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Applied>> {
    let sql = format!("SELECT version, name, checksum, applied_on FROM {table} ORDER BY version");
    let mut rows = connection.prepare(&sql)?;
    let rows = rows.query_map([], |row| {
        Ok(Applied {
            version: row.get(0)?,
            name: row.get(1)?,
            checksum: row.get::<_, String>(2)?.parse().ok(),
            dated: row.get::<_, String>(3)?.parse::<jiff::Timestamp>().is_ok(),
        })
    })?;
    rows.collect()
}

/// Brings a store that [`check`] has let pass to this version.
pub(super) fn migrate<D: SqliteDomain>(connection: &mut Connection, place: &str) -> Result<(), OpenError> {
    for runner in [kit_migrations(), D::migrations()] {
        runner
            .set_grouped(true)
            .run(connection)
            .map_err(|source| OpenError::Migrate { place: place.to_owned(), source: Box::new(source) })?;
    }
    Ok(())
}

fn kit_migrations() -> Runner {
    mod kit {
        refinery::embed_migrations!("migrations/sqlite");
    }
    let mut ours = kit::migrations::runner();
    ours.set_migration_table_name(OURS);
    ours
}

/// The first bytes of a database, up to its page size: <https://www.sqlite.org/fileformat2.html>.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const BEGINNING_BYTES: usize = 18;

/// Whether the file is that of a database, and of whole pages.
fn is_of_whole_pages(path: &Path) -> io::Result<bool> {
    use std::io::Read as _;
    let mut file = fs::File::open(path)?;
    let mut beginning = [0; BEGINNING_BYTES];
    let length = file.metadata()?.len();
    if length < BEGINNING_BYTES as u64 {
        return Ok(false);
    }
    file.read_exact(&mut beginning)?;
    // One stands for 65,536.
    let page = match u16::from_be_bytes([beginning[16], beginning[17]]) {
        1 => 1 << 16,
        bytes => u64::from(bytes),
    };
    Ok(beginning.starts_with(MAGIC) && page >= 512 && length % page == 0)
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_statement_over_a_partial_index_is_compiled_once() {
        let connection = connect(&Place::Memory).expect("a store");
        connection
            .execute_batch(
                "CREATE TABLE job (id, agent, state); CREATE INDEX queued ON job (agent) WHERE state = 0",
            )
            .expect("a table");
        let sql = "SELECT MIN(id) FROM job INDEXED BY queued WHERE agent = ?1 AND state = 0 AND id < ?2";
        let mut statement = connection.prepare(sql).expect("a statement");
        for agent in 0..16 {
            let found: Option<i64> =
                statement.query_row([agent, 2 * agent], |row| row.get(0)).expect("a row");
            assert_eq!(found, None);
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }
}
