//! What a service asks of the database: loads, as data. The engine sends them. What it has it write: [`super::flush`].

use std::borrow::Cow;

use tokio_postgres::{Row, types::ToSql};

use crate::store::Fault;

/// A value in a statement.
pub type Param = Box<dyn ToSql + Sync + Send>;

/// A value for a statement.
#[must_use]
pub fn bind(value: impl ToSql + Sync + Send + 'static) -> Param {
    Box::new(value)
}

/// Rows to be loaded, and what becomes of them.
pub struct Ask<W> {
    pub(super) sql: Cow<'static, str>,
    pub(super) params: Vec<Param>,
    pub(super) take: Take<W>,
}

type Take<W> = Box<dyn FnOnce(&mut W, &[Row]) -> Result<(), Fault> + Send>;

impl<W> Ask<W> {
    /// Asks; what is found goes to `take`.
    #[must_use]
    pub fn new(
        sql: impl Into<Cow<'static, str>>,
        params: impl IntoIterator<Item = Param>,
        take: impl FnOnce(&mut W, &[Row]) -> Result<(), Fault> + Send + 'static,
    ) -> Self {
        Self { sql: sql.into(), params: params.into_iter().collect(), take: Box::new(take) }
    }
}

/// Asks for the rows of these keys, which are the statement's `$1`, if there are any. Each is read and kept.
pub fn rows_of<W, K, T>(
    asks: &mut Vec<Ask<W>>,
    keys: &[K],
    sql: impl Into<Cow<'static, str>>,
    read: impl Fn(&Row) -> Result<T, Fault> + Send + 'static,
    keep: impl Fn(&mut W, T) + Send + 'static,
) where
    K: Clone + Send,
    Vec<K>: ToSql + Sync + 'static,
{
    if !keys.is_empty() {
        asks.push(found(sql, [bind(keys.to_vec())], read, keep));
    }
}

/// The same for keys of two parts: `$1` and `$2`.
pub fn pairs_of<W, T>(
    asks: &mut Vec<Ask<W>>,
    keys: &[Vec<String>; 2],
    sql: impl Into<Cow<'static, str>>,
    read: impl Fn(&Row) -> Result<T, Fault> + Send + 'static,
    keep: impl Fn(&mut W, T) + Send + 'static,
) {
    if !keys[0].is_empty() {
        asks.push(found(sql, keys.clone().map(bind), read, keep));
    }
}

/// Asks for rows; each is read and kept.
pub fn found<W, T>(
    sql: impl Into<Cow<'static, str>>,
    params: impl IntoIterator<Item = Param>,
    read: impl Fn(&Row) -> Result<T, Fault> + Send + 'static,
    keep: impl Fn(&mut W, T) + Send + 'static,
) -> Ask<W> {
    Ask::new(sql, params, move |working: &mut W, rows| {
        for row in rows {
            keep(working, read(row)?);
        }
        Ok(())
    })
}

/// All of these rows, read.
///
/// # Errors
/// That of the first row that cannot be read.
pub fn each<T>(rows: &[Row], read: impl Fn(&Row) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    rows.iter().map(read).collect()
}

impl<W> std::fmt::Debug for Ask<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ask").field("sql", &self.sql).finish_non_exhaustive()
    }
}
