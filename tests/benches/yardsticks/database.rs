//! The PostgreSQL server of a run: this machine's own, with what tests do without.

use std::env;

use crate::cluster::Cluster;

const SETTINGS: [&str; 4] = ["fsync=on", "max_connections=60", "shared_buffers=128MB", "max_wal_size=2GB"];
/// More settings, or others: `NAME=VALUE,NAME=VALUE`. To find what limits a figure.
const MORE: &str = "INTERLOCK_BENCH_POSTGRES";

/// A new one.
pub(crate) fn start() -> Cluster {
    let more = env::var(MORE).unwrap_or_default();
    let more: Vec<&str> = more.split(',').filter(|setting| !setting.is_empty()).collect();
    if !more.is_empty() {
        eprintln!("PostgreSQL with {}", more.join(", "));
    }
    // The last one of a name counts.
    Cluster::start_with(&[&SETTINGS[..], &more].concat())
}
