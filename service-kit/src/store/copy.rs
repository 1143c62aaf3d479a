//! Moves a whole embedded store into a database, once: `store copy`.
//!
//! Both engines have the same tables with the same columns, so rows are copied as they are, audit rows and chains
//! included, in one transaction. Each table is read back in the order of its key and compared by count and hash
//! before the commit. The source is had alone meanwhile, and is left as it is but for the seals of its chains.

use std::{collections::BTreeMap, path::Path, pin::pin};

use futures_util::StreamExt as _;
use rusqlite::types::ValueRef;
use sha2::{Digest as _, Sha256};
use tokio_postgres::{
    Client, Row,
    binary_copy::BinaryCopyInWriter,
    types::{ToSql, Type},
};

use super::{
    StoreLock,
    audit::ChainKey,
    postgres::{OpenError as DatabaseError, PostgresDomain, Target, fill, told},
    sqlite::{self, OpenError, Options, Place, SqliteDomain},
    writer::QueueLimits,
};
use crate::clock::Clock;

/// Tables that are each engine's own.
const OWN: [&str; 3] = ["moment", "chain_key", "sqlite_sequence"];

/// Why a store was not copied. One line that says what to do; the target is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source is in use, or its folder cannot be used.
    #[error("{0}; nothing was copied")]
    Lock(std::io::Error),
    /// The source cannot be opened.
    #[error("{0}; nothing was copied")]
    From(#[from] OpenError),
    /// The target cannot be opened, is in use, or is not empty.
    #[error("{0}; nothing was copied")]
    To(#[from] DatabaseError),
    /// A row could not be read or written, or was not the same when it was read back.
    #[error("{table}: {why}; nothing was copied")]
    Table {
        /// Which table.
        table: String,
        /// Why.
        why: String,
    },
    /// The answer to the commit is lost.
    #[error(
        "the answer to the commit is lost: {0}; copy again: a target that says it is not empty has all of it"
    )]
    Commit(String),
}

/// A table that was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Its name.
    pub table: String,
    /// How many rows.
    pub rows: u64,
    /// SHA-256 over all of them in the order of their key: the same on both sides.
    pub hash: [u8; 32],
}

/// Copies the store in the file `from` into the database behind `to`, which must be empty.
///
/// # Errors
/// [`CopyError`]; the target is then as it was.
pub fn sqlite_to_postgres<D: SqliteDomain + PostgresDomain>(
    from: &Path,
    key: &ChainKey,
    to: &Target,
) -> Result<Vec<Copied>, CopyError> {
    let folder = from.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !from.is_file() {
        let missing =
            std::io::Error::new(std::io::ErrorKind::NotFound, format!("{}: no store", from.display()));
        return Err(CopyError::Lock(missing));
    }
    let _lock = StoreLock::take(folder).map_err(CopyError::Lock)?;
    let options = Options {
        place: Place::File(from.to_owned()),
        clock: Clock::system(),
        chain_key: key.clone(),
        limits: QueueLimits::default(),
        inline: true,
        inject_misses: false,
    };
    let source = sqlite::sealed::<D>(&options)?;
    fill::<D, _>(to, key, async move |client| copy(&source, client).await)
}

async fn copy(source: &rusqlite::Connection, client: &Client) -> Result<Vec<Copied>, CopyError> {
    let at = |table: &str| {
        let table = table.to_owned();
        move |why: String| CopyError::Table { table, why }
    };
    let tables = tables(client).await.map_err(at("the target's tables"))?;
    let theirs = names(source).map_err(|error| at("the source's tables")(error.to_string()))?;
    if let Some(unknown) = theirs.iter().find(|name| !tables.iter().any(|table| table.name == **name)) {
        return Err(at(unknown)("the target has no such table".to_owned()));
    }
    // What a new store begins with comes from the source, too.
    for table in tables.iter().rev() {
        let emptied = client.batch_execute(&format!("DELETE FROM {}", table.name)).await;
        emptied.map_err(|error| at(&table.name)(told(&error)))?;
    }
    let mut copied = Vec::new();
    for table in &tables {
        let written = table.write(source, client).await.map_err(at(&table.name))?;
        let read = table.read(client).await.map_err(at(&table.name))?;
        if written != read {
            let why =
                format!("{} rows were written, and {} read that are not the same", written.rows, read.rows);
            return Err(at(&table.name)(why));
        }
        copied.push(written);
    }
    let after =
        "SELECT setval(pg_get_serial_sequence('audit', 'id'), COALESCE(MAX(id), 0) + 1, FALSE) FROM audit";
    client.batch_execute(after).await.map_err(|error| at("audit")(told(&error)))?;
    let last: i64 = source
        .query_row("SELECT at FROM moment", [], |row| row.get(0))
        .map_err(|error| at("moment")(error.to_string()))?;
    // No instant in the target is before the last one of the source.
    let moment = "INSERT INTO moment (writer, batch, at, ended) VALUES ('copied', 0, $1, TRUE)";
    client.execute(moment, &[&last]).await.map_err(|error| at("moment")(told(&error)))?;
    // References are checked at the commit else, whose answer is not waited for as long as a large store takes.
    let checked = client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await;
    checked.map_err(|error| at("what rows refer to")(told(&error)))?;
    Ok(copied)
}

/// The tables of the source that hold rows of the service, and audit.
fn names(source: &rusqlite::Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    let mut statement = source.prepare(sql)?;
    let all: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(all.into_iter().filter(|name| !is_own(name)).collect())
}

fn is_own(table: &str) -> bool {
    OWN.contains(&table) || table.ends_with("_migrations") || table.starts_with("refinery")
}

/// One table of the target.
struct Table {
    name: String,
    columns: Vec<(String, Type)>,
    /// The columns of its key, in order.
    key: Vec<String>,
}

/// One value, as both engines have it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Null,
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// All tables, those that others refer to first.
async fn tables(client: &Client) -> Result<Vec<Table>, String> {
    const COLUMNS: &str =
        "SELECT table_name::TEXT, column_name::TEXT, udt_name::TEXT FROM information_schema.columns
                           WHERE table_schema = 'public' ORDER BY table_name, ordinal_position";
    const KEYS: &str = "SELECT i.indrelid::regclass::TEXT, a.attname::TEXT FROM pg_index i
                        JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = 'public'::regnamespace
                        CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (number, place)
                        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
                        WHERE i.indisprimary ORDER BY 1, k.place";
    const REFERENCES: &str = "SELECT conrelid::regclass::TEXT, confrelid::regclass::TEXT FROM pg_constraint
                              WHERE contype = 'f' AND conrelid <> confrelid";
    let rows = async |sql| client.query(sql, &[]).await.map_err(|error| told(&error));
    let mut found: BTreeMap<String, Table> = BTreeMap::new();
    for row in rows(COLUMNS).await? {
        let (name, column, kind): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        if is_own(&name) {
            continue;
        }
        let kind = match kind.as_str() {
            "int2" => Type::INT2,
            "int4" => Type::INT4,
            "int8" => Type::INT8,
            "bool" => Type::BOOL,
            "text" => Type::TEXT,
            "bytea" => Type::BYTEA,
            _ => return Err(format!("{name}.{column} is of an unknown type")),
        };
        let new = || Table { name: name.clone(), columns: Vec::new(), key: Vec::new() };
        found.entry(name.clone()).or_insert_with(new).columns.push((column, kind));
    }
    for row in rows(KEYS).await? {
        let (name, column): (String, String) = (row.get(0), row.get(1));
        if let Some(table) = found.get_mut(&name) {
            table.key.push(column);
        }
    }
    let references: Vec<(String, String)> =
        rows(REFERENCES).await?.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut sorted: Vec<Table> = Vec::new();
    while !found.is_empty() {
        let waits =
            |name: &String| references.iter().any(|(from, to)| from == name && found.contains_key(to));
        let next = found.keys().find(|name| !waits(name)).cloned();
        let next = next.ok_or_else(|| "they refer to each other in circles".to_owned())?;
        sorted.extend(found.remove(&next));
    }
    Ok(sorted)
}

impl Table {
    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The same columns, as the source calls them: `one` is a word of its own there.
    fn source_names(&self) -> String {
        let name = |name: &str| if name == "one" { "\"only\"".to_owned() } else { format!("\"{name}\"") };
        self.columns.iter().map(|(column, _)| name(column)).collect::<Vec<_>>().join(", ")
    }

    /// In the order of the key, texts by their bytes, as the source has it.
    fn order(&self) -> String {
        let is_text = |name: &String| self.columns.iter().any(|(of, kind)| of == name && *kind == Type::TEXT);
        let by = |name: &String| if is_text(name) { format!("{name} COLLATE \"C\"") } else { name.clone() };
        self.key.iter().map(by).collect::<Vec<_>>().join(", ")
    }

    async fn write(&self, source: &rusqlite::Connection, client: &Client) -> Result<Copied, String> {
        let kinds: Vec<Type> = self.columns.iter().map(|(_, kind)| kind.clone()).collect();
        let into = format!("COPY {} ({}) FROM STDIN BINARY", self.name, self.names());
        let sink = client.copy_in(&into).await.map_err(|error| told(&error))?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &kinds));
        let key: Vec<_> = self
            .key
            .iter()
            .map(|name| if name == "one" { "\"only\"".to_owned() } else { format!("\"{name}\"") })
            .collect();
        let sql =
            format!("SELECT {} FROM \"{}\" ORDER BY {}", self.source_names(), self.name, key.join(", "));
        let of_source = |error: rusqlite::Error| format!("the source: {error}");
        let mut statement = source.prepare(&sql).map_err(of_source)?;
        let mut rows = statement.query([]).map_err(of_source)?;
        let mut sum = Sum::default();
        while let Some(row) = rows.next().map_err(of_source)? {
            let mut values = Vec::with_capacity(kinds.len());
            for at in 0..kinds.len() {
                values.push(Value::of_source(row.get_ref(at).map_err(of_source)?)?);
            }
            sum.add(&values);
            let sent: Vec<_> = values
                .into_iter()
                .zip(&kinds)
                .map(|(value, kind)| value.bind(kind))
                .collect::<Result<_, _>>()?;
            let sent: Vec<&(dyn ToSql + Sync)> = sent.iter().map(|value| &**value as _).collect();
            writer.as_mut().write(&sent).await.map_err(|error| told(&error))?;
        }
        writer.finish().await.map_err(|error| told(&error))?;
        Ok(sum.of(&self.name))
    }

    async fn read(&self, client: &Client) -> Result<Copied, String> {
        let sql = format!("SELECT {} FROM {} ORDER BY {}", self.names(), self.name, self.order());
        let nothing: [i64; 0] = [];
        let mut rows = pin!(client.query_raw(&sql, nothing).await.map_err(|error| told(&error))?);
        let mut sum = Sum::default();
        while let Some(row) = rows.next().await {
            let row = row.map_err(|error| told(&error))?;
            let columns = self.columns.iter().enumerate();
            let values: Result<Vec<_>, _> =
                columns.map(|(at, (_, kind))| Value::of_target(&row, at, kind)).collect();
            sum.add(&values?);
        }
        Ok(sum.of(&self.name))
    }
}

impl Value {
    fn of_source(value: ValueRef<'_>) -> Result<Self, String> {
        Ok(match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Number(number),
            ValueRef::Text(text) => {
                Self::Text(String::from_utf8(text.to_vec()).map_err(|_| "a text that is none".to_owned())?)
            }
            ValueRef::Blob(bytes) => Self::Bytes(bytes.to_vec()),
            ValueRef::Real(_) => return Err("a number that is not whole".to_owned()),
        })
    }

    fn of_target(row: &Row, at: usize, kind: &Type) -> Result<Self, String> {
        let value = match *kind {
            Type::INT2 => row.try_get::<_, Option<i16>>(at).map(|n| n.map(|n| Self::Number(n.into()))),
            Type::INT4 => row.try_get::<_, Option<i32>>(at).map(|n| n.map(|n| Self::Number(n.into()))),
            Type::INT8 => row.try_get::<_, Option<i64>>(at).map(|n| n.map(Self::Number)),
            Type::BOOL => row.try_get::<_, Option<bool>>(at).map(|b| b.map(|b| Self::Number(b.into()))),
            Type::TEXT => row.try_get::<_, Option<String>>(at).map(|text| text.map(Self::Text)),
            _ => row.try_get::<_, Option<Vec<u8>>>(at).map(|bytes| bytes.map(Self::Bytes)),
        };
        value.map(|value| value.unwrap_or(Self::Null)).map_err(|error| told(&error))
    }

    fn bind(self, kind: &Type) -> Result<Box<dyn ToSql + Sync + Send>, String> {
        let unfit = || format!("a value does not fit a column of {kind}");
        Ok(match (self, kind) {
            (Self::Null, &Type::INT2) => Box::new(None::<i16>),
            (Self::Null, &Type::INT4) => Box::new(None::<i32>),
            (Self::Null, &Type::INT8) => Box::new(None::<i64>),
            (Self::Null, &Type::BOOL) => Box::new(None::<bool>),
            (Self::Null, &Type::TEXT) => Box::new(None::<String>),
            (Self::Null, _) => Box::new(None::<Vec<u8>>),
            (Self::Number(n), &Type::INT2) => Box::new(i16::try_from(n).map_err(|_| unfit())?),
            (Self::Number(n), &Type::INT4) => Box::new(i32::try_from(n).map_err(|_| unfit())?),
            (Self::Number(n), &Type::INT8) => Box::new(n),
            (Self::Number(n @ (0 | 1)), &Type::BOOL) => Box::new(n == 1),
            (Self::Text(text), &Type::TEXT) => Box::new(text),
            (Self::Bytes(bytes), &Type::BYTEA) => Box::new(bytes),
            (Self::Number(_) | Self::Text(_) | Self::Bytes(_), _) => return Err(unfit()),
        })
    }
}

/// Counts and hashes rows.
#[derive(Default)]
struct Sum {
    rows: u64,
    hash: Sha256,
}

impl Sum {
    fn add(&mut self, values: &[Value]) {
        self.rows += 1;
        for value in values {
            let (kind, bytes): (u8, &[u8]) = match value {
                Value::Null => (0, &[]),
                Value::Number(number) => (1, &number.to_be_bytes()),
                Value::Text(text) => (2, text.as_bytes()),
                Value::Bytes(bytes) => (3, bytes),
            };
            self.hash.update([kind]);
            self.hash.update((bytes.len() as u64).to_be_bytes());
            self.hash.update(bytes);
        }
    }

    fn of(self, table: &str) -> Copied {
        Copied { table: table.to_owned(), rows: self.rows, hash: self.hash.finalize().into() }
    }
}
