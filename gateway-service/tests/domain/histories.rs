//! Random histories from a printed seed: `INTERLOCK_SEED` (64 hex digits) runs one again.

use std::{cell::Cell, fmt::Debug, sync::Arc};

use interlock_gateway::limits::Limits;
use interlock_kit::error::Error;
use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::{
    cluster::Cluster,
    world::{Database, Engine, World},
};

/// A step takes some ten times as long there.
const POSTGRES_EVERY: u32 = 4;

/// Runs `history` on so many cases. It gets worlds on SQLite, whose look-ups miss, and on PostgreSQL, as many of each as
/// it asks for; on the latter in each fourth case, unless a seed or the long form was asked for.
pub(crate) fn run<S>(
    cases: u32,
    strategy: &S,
    worlds: usize,
    history: &impl AsyncFn(&S::Value, Engine, &[World]),
) where
    S: Strategy<Value: Clone + Debug>,
{
    let seed: [u8; 32] = match std::env::var("INTERLOCK_SEED") {
        Ok(hex) => std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()),
        Err(_) => interlock_kit::random::bytes(),
    };
    let shown: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("INTERLOCK_SEED={shown}");
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (cluster, made, cases_run) = (Arc::new(Cluster::start()), Cell::new(0), Cell::new(0));
    let all = ["INTERLOCK_SEED", "INTERLOCK_LONG"].iter().any(|name| std::env::var_os(name).is_some());
    let ran = runner.run(strategy, |case| {
        cases_run.set(cases_run.get() + 1);
        let on_postgres = all || cases_run.get() % POSTGRES_EVERY == 1;
        let engines = [Engine::Missing, Engine::Postgres].into_iter().take(1 + usize::from(on_postgres));
        for engine in engines {
            let names: Vec<String> = (0..worlds)
                .map(|_| {
                    made.set(made.get() + 1);
                    format!("case_{}", made.get())
                })
                .collect();
            let open = |name: &String| {
                World::with_database(engine, Limits::default(), || Database::new(&cluster, name))
            };
            let all: Vec<World> = names.iter().map(open).collect();
            runtime.block_on(history(&case, engine, &all));
            drop(all);
            for name in names.iter().filter(|_| engine == Engine::Postgres) {
                cluster.sql("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
            }
        }
        Ok(())
    });
    if let Err(failure) = ran {
        panic!("INTERLOCK_SEED={shown}\n{failure}");
    }
}

/// An answer, whole.
pub(crate) fn text<T: Debug>(answer: &Result<T, Error>) -> String {
    match answer {
        Ok(out) => format!("{out:?}"),
        Err(error) => {
            let (reason, delay, detail) = (error.reason(), error.retry_delay(), format!("{error:?}"));
            format!("{reason}: {error} {delay:?} {detail}")
        }
    }
}
