//! What the stores of a stage are in.

use std::{fs, path::Path, process::Command};

use interlock_tests::{Pair, service::program};
use serde::Serialize;

use crate::{cluster::Cluster, database};

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Engine {
    /// Embedded.
    Sqlite,
    /// A server of the stage's own.
    Postgres,
}

impl Engine {
    /// As tables show it, behind a name.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => ", PG",
        }
    }
}

/// The databases of a stopped pair.
#[derive(Debug)]
pub(crate) struct Databases(Cluster);

impl Databases {
    /// Moves the embedded stores of a stopped pair into databases, as its operator would, and has it start there from now on.
    pub(crate) fn take(pair: &mut Pair) -> Self {
        let cluster = database::start();
        for service in ["auth", "gateway"] {
            let url = cluster.database(service);
            eprintln!("copying the store of {service} into PostgreSQL");
            let copied = Command::new(program(&format!("interlock-{service}")))
                .env_clear()
                .current_dir(pair.world.path(""))
                .args(["store", "copy", "--config", &format!("{service}.toml"), "--to", &url])
                .args(["--from", &format!("sqlite:{service}/{service}.db")])
                .output()
                .expect("it runs");
            assert!(copied.status.success(), "{service}: {}", String::from_utf8_lossy(&copied.stderr));
            // As a store is that has lived: with statistics, and nothing left to write.
            cluster.sql(service, "VACUUM ANALYZE");
            fs::remove_file(pair.world.path(&format!("{service}/{service}.db"))).expect("its old store");
        }
        cluster.sql("postgres", "CHECKPOINT");
        pair.auth.env("INTERLOCK_AUTH_STORE", &cluster.url("auth"));
        pair.gateway.env("INTERLOCK_GATEWAY_STORE", &cluster.url("gateway"));
        Self(cluster)
    }

    fn mib(&self, service: &str) -> f64 {
        let bytes = self.0.sql("postgres", &format!("SELECT pg_database_size('{service}')"));
        bytes.parse::<f64>().expect("a number") / f64::from(1 << 20)
    }
}

/// How large a service's store is, MiB: its database, or its file.
pub(crate) fn store_mib(databases: Option<&Databases>, service: &str, file: &Path) -> f64 {
    match databases {
        Some(databases) => databases.mib(service),
        None => fs::metadata(file).expect("a store").len() as f64 / f64::from(1 << 20),
    }
}
