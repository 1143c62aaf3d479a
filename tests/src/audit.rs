//! The audit chain of a store at rest.

use std::path::Path;

use interlock_kit::store::{
    audit::ChainKey,
    sqlite::{Damage, Filter, Place, connect, rows, verify},
};

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
