//! Random verbs in random batches on every engine, compared with the model that runs them one by one.

use std::sync::Arc;

use interlock_kit::{
    clock::{Clock, Timestamp},
    error::{Error, Reason},
    store::{Halt, Ran, Stop, Store, audit::Outcome, model},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    cluster::Cluster,
    counters::{Change, Counters, Ear, Rows, Set, entry, read},
    engines,
};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// One verb: moves an amount, if there is enough and room; now and then it is broken, or asks.
#[derive(Clone, Copy, Debug)]
struct Move {
    from: &'static str,
    to: &'static str,
    amount: i64,
    whim: u8,
}

impl Move {
    fn random(random: &mut StdRng) -> Self {
        let name = |random: &mut StdRng| NAMES[random.random_range(0..NAMES.len())];
        Self {
            from: name(random),
            to: name(random),
            amount: random.random_range(-2..4),
            whim: random.random_range(0..32),
        }
    }

    fn run(self, rows: &mut dyn Rows, _: Timestamp) -> Ran<Counters, i64> {
        let mut ran = Ran { result: Ok(0), changes: vec![], audit: vec![entry(Outcome::Done, self.from)] };
        ran.result = self.plan(rows, &mut ran.changes);
        if let Err(Stop::Refused(error)) = &ran.result {
            ran.audit = vec![entry(Outcome::Refused(error.reason()), self.to)];
        }
        ran
    }

    fn plan(self, rows: &mut dyn Rows, changes: &mut Vec<Change>) -> Result<i64, Stop<Counters>> {
        let from = rows.value(self.from)?;
        changes.push(Set { name: self.from, from, to: from - self.amount }.into());
        // What is read depends on what was found, and on what was planned before.
        let first = if self.from == self.to { from - self.amount } else { rows.value(self.to)? };
        if first + self.amount > 40 {
            return Err(Error::new(Reason::LimitReached, "full").into());
        }
        changes.push(Set { name: self.to, from: first, to: first + self.amount }.into());
        match self.whim {
            0 => panic!("as told"),
            1 => changes.push(Set { name: self.to, from: 1_000_000, to: 0 }.into()),
            2 => return Err(Stop::Unresolved(format!("{first}"))),
            _ => {}
        }
        Ok(first + self.amount)
    }
}

fn told(answer: Result<i64, Halt<Counters>>) -> String {
    match answer {
        Ok(value) => format!("{value}"),
        Err(Halt::Refused(error)) => format!("{:?}", error.reason()),
        Err(Halt::Unresolved(question)) => format!("{question}?"),
    }
}

async fn all(store: &Store<Counters>, moves: &[Move]) -> Vec<String> {
    let all = moves.iter().map(|one| {
        let one = *one;
        store.write(move |rows: &mut (dyn Rows + '_), now| one.run(rows, now))
    });
    futures_util::future::join_all(all).await.into_iter().map(told).collect()
}

#[tokio::test]
async fn every_engine_answers_random_batches_as_the_model_does_one_by_one() {
    let (folder, cluster) = (tempfile::tempdir().expect("a folder"), Cluster::start());
    let stores = engines(folder.path(), &cluster, &Arc::new(Ear::default()));
    let (plain, rows) = model::open::<Counters>(Clock::system(), Arc::new(Ear::default()));
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..40 {
        let size = random.random_range(1..24);
        let moves: Vec<Move> = (0..size).map(|_| Move::random(&mut random)).collect();
        let expected = all(&plain, &moves).await;
        for (name, store) in &stores {
            assert_eq!(all(store, &moves).await, expected, "{name}, round {round} of seed {seed}: {moves:?}");
        }
        for counter in NAMES {
            let expected = plain.read(read(counter)).await.expect("a value");
            for (name, store) in &stores {
                let found = store.read(read(counter)).await.expect("a value");
                let looked = store.look(read(counter)).await.expect("a value");
                assert_eq!([found, looked], [expected; 2], "{name}: {counter}, round {round} of seed {seed}");
            }
        }
    }
    let expected = rows.lock().audit.iter().map(|row| format!("{} {}", row.subject, row.reason)).collect();
    let found = cluster.sql("store", "SELECT subject || ' ' || reason FROM audit ORDER BY id");
    let found: Vec<String> = found.lines().map(ToOwned::to_owned).collect();
    let expected: Vec<String> = expected;
    assert_eq!(found.len(), expected.len(), "audit rows, seed {seed}");
    let trimmed = |rows: &[String]| rows.iter().map(|row| row.trim().to_owned()).collect::<Vec<_>>();
    assert_eq!(trimmed(&found), trimmed(&expected), "seed {seed}");
}
