//! The domain through its public door, on every engine: SQLite in a file and in memory, SQLite whose
//! first look-ups miss, PostgreSQL, and the plain model.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../../service-kit/tests/store/cluster.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod cluster;
mod world;

mod apart;
mod attach;
mod audit;
mod batches;
mod endings;
mod events;
mod files;
mod histories;
mod jobs;
mod leases;
mod machine;
mod matrix;
mod members;
mod owners;
mod projects;
mod scopes;
mod sessions;
mod waiters;

/// Runs each test function on each engine.
macro_rules! on_every_engine {
    ($($test:ident),* $(,)?) => {
        on_every_engine!(@ file File, $($test),*);
        on_every_engine!(@ memory Memory, $($test),*);
        on_every_engine!(@ missing Missing, $($test),*);
        on_every_engine!(@ model Model, $($test),*);
        on_every_engine!(@ postgres Postgres, $($test),*);
    };
    (@ $module:ident $engine:ident, $($test:ident),*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(crate::world::World::new(crate::world::Engine::$engine)).await;
                }
            )*
        }
    };
}
pub(crate) use on_every_engine;
