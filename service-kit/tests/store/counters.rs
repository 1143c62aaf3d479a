//! The smallest domain: named counters, on every engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::{
        Domain, Fault, Observer, Ran, Stop,
        audit::{Entry, Keeping, Origin, Outcome},
        model::ModelDomain,
        postgres::{self, Access, Ask, Out, PostgresDomain, Unmet, bind},
        sqlite::{self, SqliteDomain},
    },
};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _};

/// What verbs read.
pub(crate) trait Rows {
    fn value(&mut self, name: &str) -> Result<i64, Stop<Counters>>;
}

#[derive(Debug)]
pub(crate) struct Counters;

#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// What a verb plans.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Set(Set),
    Keep(Keeping),
}

impl From<Set> for Change {
    fn from(set: Set) -> Self {
        Self::Set(set)
    }
}

impl Domain for Counters {
    type Rows<'t> = dyn Rows + 't;
    type Key = String;
    type Change = Change;
    type Signal = &'static str;
    type Question = String;
}

struct InSqlite<'c> {
    connection: &'c Connection,
    misses: Option<&'c BTreeSet<String>>,
}

impl Rows for InSqlite<'_> {
    fn value(&mut self, name: &str) -> Result<i64, Stop<Counters>> {
        if self.misses.is_some_and(|loaded| !loaded.contains(name)) {
            return Err(Stop::Miss(vec![name.to_owned()]));
        }
        let mut statement = self
            .connection
            .prepare_cached("SELECT value FROM counter WHERE name = ?1")
            .map_err(Fault::from)?;
        let value = statement.query_row([name], |row| row.get(0)).optional().map_err(Fault::from)?;
        Ok(value.unwrap_or(0))
    }
}

impl SqliteDomain for Counters {
    fn migrations() -> refinery::Runner {
        mod counter {
            refinery::embed_migrations!("tests/counter_migrations/sqlite");
        }
        counter::migrations::runner()
    }

    fn rows(
        connection: &Connection,
        misses: Option<&BTreeSet<String>>,
        work: &mut dyn FnMut(&mut Self::Rows<'_>),
    ) {
        work(&mut InSqlite { connection, misses });
    }

    fn apply(
        connection: &Connection,
        change: Change,
        _: Timestamp,
        signals: &mut Vec<&'static str>,
    ) -> Result<(), Fault> {
        let change = match change {
            Change::Set(set) => set,
            Change::Keep(keeping) => return sqlite::keep(connection, &keeping),
        };
        let met = connection.execute(
            "INSERT INTO counter (name, value) VALUES (?1, ?3)
             ON CONFLICT (name) DO UPDATE SET value = ?3 WHERE value = ?2",
            (change.name, change.from, change.to),
        )?;
        signals.push(change.name);
        Fault::unless_one(met, "counter")
    }
}

struct InModel<'m>(&'m mut BTreeMap<String, i64>);

impl Rows for InModel<'_> {
    fn value(&mut self, name: &str) -> Result<i64, Stop<Counters>> {
        Ok(self.0.get(name).copied().unwrap_or(0))
    }
}

impl ModelDomain for Counters {
    type Model = BTreeMap<String, i64>;

    fn model_rows(model: &mut Self::Model, work: &mut dyn FnMut(&mut Self::Rows<'_>)) {
        work(&mut InModel(model));
    }

    fn model_apply(
        model: &mut Self::Model,
        change: Change,
        _: Timestamp,
        signals: &mut Vec<&'static str>,
    ) -> Result<(), Fault> {
        let Change::Set(change) = change else { return Ok(()) };
        let value = model.entry(change.name.to_owned()).or_default();
        Fault::unless_one(usize::from(*value == change.from), "counter")?;
        *value = change.to;
        signals.push(change.name);
        Ok(())
    }
}

/// What a batch has loaded, and what it has planned since.
type Working = BTreeMap<String, i64>;

struct InWorking<'w>(&'w Working, &'w BTreeSet<String>);

impl Rows for InWorking<'_> {
    fn value(&mut self, name: &str) -> Result<i64, Stop<Counters>> {
        if !self.1.contains(name) {
            return Err(Stop::Miss(vec![name.to_owned()]));
        }
        Ok(self.0.get(name).copied().unwrap_or(0))
    }
}

impl PostgresDomain for Counters {
    type Working = Working;

    fn postgres_migrations() -> refinery::Runner {
        mod counter {
            refinery::embed_migrations!("tests/counter_migrations/postgres");
        }
        counter::migrations::runner()
    }

    fn ask(keys: &BTreeSet<String>, access: Access) -> Vec<Ask<Working>> {
        let names: Vec<String> = keys.iter().cloned().collect();
        let sql =
            format!("SELECT name, value FROM counter WHERE name = ANY($1) ORDER BY name{}", access.clause());
        vec![Ask::new(sql, [bind(names)], |working: &mut Working, rows| {
            for row in rows {
                working.insert(row.try_get(0)?, row.try_get(1)?);
            }
            Ok(())
        })]
    }

    fn place(_: &String) -> Option<u8> {
        Some(0)
    }

    fn tell(signal: &&'static str) -> Option<String> {
        Some((*signal).to_owned())
    }

    fn hear(told: &str) -> Option<&'static str> {
        ["a", "b"].into_iter().find(|known| *known == told)
    }

    fn working_rows(working: &Working, loaded: &BTreeSet<String>, work: &mut dyn FnMut(&mut Self::Rows<'_>)) {
        work(&mut InWorking(working, loaded));
    }

    fn working_apply(
        working: &mut Working,
        _: &BTreeSet<String>,
        change: Change,
        now: Timestamp,
        out: &mut Out<'_, Self>,
    ) -> Result<(), Unmet<Self>> {
        let set = match &change {
            Change::Set(set) => set,
            Change::Keep(keeping) => {
                postgres::keep(out.flush, keeping);
                return Ok(());
            }
        };
        out.flush.one(
            "counter",
            "INSERT INTO counter (name, value) VALUES ($1, $3)
             ON CONFLICT (name) DO UPDATE SET value = $3 WHERE counter.value = $2",
            [bind(set.name), bind(set.from), bind(set.to)],
        );
        Ok(Self::model_apply(working, change, now, out.signals)?)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Ear {
    pub(crate) signals: Mutex<Vec<&'static str>>,
    pub(crate) failures: AtomicUsize,
    pub(crate) last: Mutex<String>,
    pub(crate) heard: Mutex<Vec<&'static str>>,
    pub(crate) breaks: AtomicUsize,
}

impl Observer<Counters> for Ear {
    fn committed(&self, signals: Vec<&'static str>) {
        self.signals.lock().extend(signals);
    }

    fn failed(&self, fault: &Fault) {
        self.failures.fetch_add(1, Ordering::SeqCst);
        *self.last.lock() = fault.to_string();
    }

    fn heard(&self, signals: Vec<&'static str>) {
        self.heard.lock().extend(signals);
    }

    fn missed(&self) {
        self.breaks.fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) fn entry(outcome: Outcome, subject: &str) -> Entry {
    let origin = Origin { principal: "someone".to_owned(), ..Origin::default() };
    Entry::new(Arc::new(origin), "counter.add", outcome).on(subject)
}

pub(crate) type Verb = dyn for<'a, 't> FnMut(&'a mut (dyn Rows + 't), Timestamp) -> Ran<Counters, i64> + Send;

/// Adds one, and refuses to go beyond `most`.
pub(crate) fn add(name: &'static str, most: i64) -> Box<Verb> {
    Box::new(move |rows, _| {
        let from = match rows.value(name) {
            Ok(value) => value,
            Err(stop) => return Ran { result: Err(stop), changes: vec![], audit: vec![] },
        };
        let to = from + 1;
        if to > most {
            let error = Error::new(Reason::LimitReached, "the counter is full");
            let audit = vec![entry(Outcome::Refused(Reason::LimitReached), name)];
            return Ran {
                result: Err(Stop::Refused(error)),
                changes: vec![Set { name, from, to }.into()],
                audit,
            };
        }
        Ran {
            result: Ok(to),
            changes: vec![Set { name, from, to }.into()],
            audit: vec![entry(Outcome::Done, name)],
        }
    })
}

pub(crate) fn read(name: &'static str) -> Box<Verb> {
    Box::new(move |rows, _| Ran { result: rows.value(name), changes: vec![], audit: vec![] })
}
