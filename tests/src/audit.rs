//! The audit rows of a store, and its chain at rest.

use std::{net::SocketAddr, path::Path};

use interlock_kit::store::{
    audit::{ChainKey, Row},
    sqlite::{Damage, Filter, Place, connect, rows, verify},
};

use rusqlite::OpenFlags;

use crate::patience::PATIENCE;

/// What is wrong with the chains of a store, and how many rows it has. The service must not run.
///
/// # Panics
/// Where store or key cannot be read.
#[must_use]
pub fn damage(store: &Path, key: &Path) -> (Vec<Damage>, usize) {
    let key = std::fs::read(key).expect("the key of the chain");
    let key: [u8; 32] = key.try_into().expect("32 bytes");
    let connection = connect(&Place::File(store.to_owned())).expect("the store");
    let damage = verify(&connection, &ChainKey::new(key)).expect("a chain that can be read");
    let all = rows(&connection, &Filter { limit: u32::MAX, ..Filter::default() }).expect("audit rows");
    (damage, all.len())
}

/// The rows of one call, by the request id that it carried. The service may run meanwhile: what it has
/// answered is there.
///
/// # Panics
/// Where the store cannot be read.
#[must_use]
pub fn of_call(store: &Path, request_id: &str) -> Vec<Row> {
    all(store).into_iter().filter(|row| row.origin.request_id == request_id).collect()
}

/// The rows of what one end of a connection did, by its address. The service may run meanwhile.
///
/// # Panics
/// Where the store cannot be read.
#[must_use]
pub fn of_peer(store: &Path, peer: SocketAddr) -> Vec<Row> {
    let peer = peer.to_string();
    all(store).into_iter().filter(|row| row.origin.peer == peer).collect()
}

/// Every row, up to 100,000. The service may run meanwhile.
///
/// # Panics
/// Where the store cannot be read.
#[must_use]
pub fn all(store: &Path) -> Vec<Row> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(store, flags).expect("the store");
    connection.busy_timeout(PATIENCE).expect("a time-out");
    let filter = Filter { limit: 100_000, ..Filter::default() };
    rows(&connection, &filter).expect("audit rows")
}
