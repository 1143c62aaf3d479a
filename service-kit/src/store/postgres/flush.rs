//! The writes of a batch, as data. The engine sends them in one flight, in order.
//!
//! New rows of a table go together in one statement of arrays, and so do changes of known ones: for the database a
//! statement costs more than a row. The statement stands where the first of its rows does. So what is written to a table
//! by other means ends its rows so far, and later ones begin anew behind that; between tables, rows may change places.

use std::{borrow::Cow, collections::HashSet};

use super::{Param, bind};

/// The writes of one batch.
#[derive(Default)]
pub struct Flush {
    pub(super) writes: Vec<Write>,
    /// Which of them further rows may join.
    open: Vec<usize>,
}

/// One statement.
pub(super) struct Write {
    /// Names the rows for people.
    pub(super) what: &'static str,
    pub(super) body: Body,
    /// How many rows it meets, or else the batch is undone.
    pub(super) meets: Option<u64>,
}

pub(super) enum Body {
    Statement { sql: Cow<'static, str>, params: Vec<Param> },
    Rows(Rows),
}

/// Rows of one table that are written alike.
pub(super) struct Rows {
    how: How,
    pub(super) rows: Vec<Vec<Param>>,
    /// Which known rows these are: each once, since a statement changes a row once.
    keys: HashSet<String>,
    /// For what follows them: behind the columns.
    pub(super) rest: Vec<Param>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    New(Columns),
    Known(Update),
}

impl How {
    fn table(self) -> &'static str {
        match self {
            Self::New(Columns { table, .. }) | Self::Known(Update { table, .. }) => table,
        }
    }
}

/// Where new rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    table: &'static str,
    columns: &'static str,
    tail: &'static str,
}

impl Columns {
    /// These columns, separated by commas, of a table that no row of another one refers to before the commit.
    #[must_use]
    pub const fn of(table: &'static str, columns: &'static str) -> Self {
        Self { table, columns, tail: "" }
    }

    /// What happens to a row that is there: `ON CONFLICT …`. Its own parameters are numbered behind the columns, and are
    /// the same for all rows of a batch.
    #[must_use]
    pub const fn or(self, tail: &'static str) -> Self {
        Self { tail, ..self }
    }
}

/// How a known row is changed, in terms of its parameters: `$1` is its key, which is a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    table: &'static str,
    set: &'static str,
    at: &'static str,
}

impl Update {
    /// Of this table: `SET` what, `WHERE` which. Columns go by their bare names; each parameter is named, at most 99.
    #[must_use]
    pub const fn of(table: &'static str, set: &'static str, at: &'static str) -> Self {
        Self { table, set, at }
    }
}

impl Flush {
    /// A write that meets exactly one row, or undoes the batch. `what` names the row for people.
    pub fn one(
        &mut self,
        what: &'static str,
        sql: impl Into<Cow<'static, str>>,
        params: impl IntoIterator<Item = Param>,
    ) {
        self.many(what, 1, sql, params);
    }

    /// A write that meets exactly so many rows, or undoes the batch.
    pub fn many(
        &mut self,
        what: &'static str,
        meets: usize,
        sql: impl Into<Cow<'static, str>>,
        params: impl IntoIterator<Item = Param>,
    ) {
        self.push(what, sql.into(), params.into_iter().collect(), Some(meets as u64));
    }

    /// A write that meets as many rows as there are.
    pub fn any(
        &mut self,
        what: &'static str,
        sql: impl Into<Cow<'static, str>>,
        params: impl IntoIterator<Item = Param>,
    ) {
        self.push(what, sql.into(), params.into_iter().collect(), None);
    }

    /// A new row, with a parameter for each column.
    pub fn row(&mut self, what: &'static str, into: Columns, columns: impl IntoIterator<Item = Param>) {
        self.row_or(what, into, columns, []);
    }

    /// The same with parameters for the tail.
    pub fn row_or(
        &mut self,
        what: &'static str,
        into: Columns,
        columns: impl IntoIterator<Item = Param>,
        rest: impl IntoIterator<Item = Param>,
    ) {
        self.join(what, How::New(into), None, columns.into_iter().collect(), rest.into_iter().collect());
    }

    /// A change of one known row, which meets it or undoes the batch; `params` are those from `$2` on.
    pub fn update(
        &mut self,
        what: &'static str,
        how: Update,
        key: &impl ToString,
        params: impl IntoIterator<Item = Param>,
    ) {
        let key = key.to_string();
        let row = [bind(key.clone())].into_iter().chain(params).collect();
        self.join(what, How::Known(how), Some(key), row, Vec::new());
    }

    /// The row goes with those that are written alike, or begins such a statement.
    fn join(&mut self, what: &'static str, how: How, key: Option<String>, row: Vec<Param>, rest: Vec<Param>) {
        for at in &self.open {
            let write = &mut self.writes[*at];
            if let Body::Rows(rows) = &mut write.body
                && rows.how == how
                && key.as_ref().is_none_or(|key| !rows.keys.contains(key))
            {
                rows.rows.push(row);
                rows.keys.extend(key);
                write.meets = Some(rows.rows.len() as u64);
                return;
            }
        }
        let writes = &self.writes;
        self.open
            .retain(|at| !matches!(&writes[*at].body, Body::Rows(rows) if rows.how.table() == how.table()));
        self.open.push(self.writes.len());
        let rows = Rows { how, rows: vec![row], keys: key.into_iter().collect(), rest };
        self.writes.push(Write { what, body: Body::Rows(rows), meets: Some(1) });
    }

    fn push(&mut self, what: &'static str, sql: Cow<'static, str>, params: Vec<Param>, meets: Option<u64>) {
        let writes = &self.writes;
        // Whatever names the table may be about its rows.
        self.open.retain(|at| match &writes[*at].body {
            Body::Rows(rows) => !sql.contains(rows.how.table()),
            Body::Statement { .. } => false,
        });
        self.writes.push(Write { what, body: Body::Statement { sql, params }, meets });
    }
}

impl Rows {
    /// The statement for one row.
    pub(super) fn one(&self) -> String {
        match self.how {
            How::New(Columns { table, columns, tail }) => {
                let values: Vec<String> = (1..=self.width()).map(|nth| format!("${nth}")).collect();
                format!("INSERT INTO {table} ({columns}) VALUES ({}) {tail}", values.join(", "))
            }
            How::Known(Update { table, set, at }) => format!("UPDATE {table} SET {set} WHERE {at}"),
        }
    }

    /// The statement for any number of rows: an array for each column, whose types are these.
    pub(super) fn all<'a>(&self, types: impl Iterator<Item = &'a str>) -> String {
        let arrays: Vec<String> =
            (1..=self.width()).zip(types).map(|(nth, kind)| format!("${nth}::{kind}[]")).collect();
        let arrays = arrays.join(", ");
        match self.how {
            How::New(Columns { table, columns, tail }) => {
                format!("INSERT INTO {table} ({columns}) SELECT * FROM unnest({arrays}) {tail}")
            }
            How::Known(Update { table, set, at }) => {
                let names: Vec<String> = (1..=self.width()).map(|nth| format!("p{nth}")).collect();
                // No column has such a name, and a parameter's number ends where its digits do.
                let [set, at] = [set, at].map(|text| text.replace('$', "new.p"));
                let names = names.join(", ");
                format!("UPDATE {table} SET {set} FROM unnest({arrays}) AS new ({names}) WHERE {at}")
            }
        }
    }

    /// How many columns a row has.
    pub(super) fn width(&self) -> usize {
        self.rows.first().map_or(0, Vec::len)
    }
}

impl std::fmt::Debug for Flush {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.writes.iter().map(|write| write.what)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAF: Columns = Columns::of("leaf", "id, tree");
    const TREE: Columns = Columns::of("tree", "id").or("ON CONFLICT (id) DO UPDATE SET seen = $2");

    const BUSH: Update = Update::of("bush", "height = $2", "id = $1 AND height < $2");

    fn statements(flush: &Flush) -> Vec<String> {
        let text = |write: &Write| match &write.body {
            Body::Statement { sql, .. } => sql.to_string(),
            Body::Rows(rows) if rows.rows.len() == 1 => rows.one(),
            Body::Rows(rows) => rows.all(["int8", "text"].into_iter()),
        };
        flush.writes.iter().map(|write| format!("{}: {:?}", text(write).trim_end(), write.meets)).collect()
    }

    #[test]
    fn rows_of_a_table_go_together_where_the_first_of_them_stands() {
        let mut flush = Flush::default();
        for id in 1..=2_i64 {
            flush.row_or("tree", TREE, [bind(id)], [bind(9_i64)]);
            flush.row("leaf", LEAF, [bind(id), bind("oak")]);
            flush.update("bush", BUSH, &id, [bind(3_i64)]);
            flush.any("bird", "DELETE FROM bird", []);
        }
        assert_eq!(
            statements(&flush),
            [
                "INSERT INTO tree (id) SELECT * FROM unnest($1::int8[]) ON CONFLICT (id) DO UPDATE SET seen = $2: Some(2)",
                "INSERT INTO leaf (id, tree) SELECT * FROM unnest($1::int8[], $2::text[]): Some(2)",
                "UPDATE bush SET height = new.p2 FROM unnest($1::int8[], $2::text[]) AS new (p1, p2) WHERE id = new.p1 AND height < new.p2: Some(2)",
                "DELETE FROM bird: None",
                "DELETE FROM bird: None",
            ]
        );
    }

    #[test]
    fn a_row_that_is_changed_twice_is_changed_in_turn() {
        const LEAF_SEEN: Update = Update::of("leaf", "seen = $2", "id = $1");
        let mut flush = Flush::default();
        for (id, seen) in [("1", 5_i64), ("2", 5), ("1", 6), ("2", 6)] {
            flush.update("leaf", LEAF_SEEN, &id, [bind(seen)]);
        }
        flush.row("leaf", LEAF, [bind(3_i64), bind("oak")]);
        flush.update("leaf", LEAF_SEEN, &"3", [bind(7_i64)]);
        let twice = "UPDATE leaf SET seen = new.p2 FROM unnest($1::int8[], $2::text[]) AS new (p1, p2) WHERE id = new.p1: Some(2)";
        assert_eq!(
            statements(&flush),
            [
                twice,
                twice,
                "INSERT INTO leaf (id, tree) VALUES ($1, $2): Some(1)",
                "UPDATE leaf SET seen = $2 WHERE id = $1: Some(1)",
            ]
        );
    }

    #[test]
    fn what_is_written_to_a_table_by_other_means_ends_its_rows() {
        let mut flush = Flush::default();
        flush.row("leaf", LEAF, [bind(1_i64), bind("oak")]);
        flush.one("leaf", "DELETE FROM leaf WHERE id = $1", [bind(1_i64)]);
        flush.row("leaf", LEAF, [bind(1_i64), bind("elm")]);
        flush.row("leaf", LEAF, [bind(2_i64), bind("elm")]);
        assert_eq!(
            statements(&flush),
            [
                "INSERT INTO leaf (id, tree) VALUES ($1, $2): Some(1)",
                "DELETE FROM leaf WHERE id = $1: Some(1)",
                "INSERT INTO leaf (id, tree) SELECT * FROM unnest($1::int8[], $2::text[]): Some(2)",
            ]
        );
    }
}
