//! Rows are the store's own.

use interlock_gateway::{ids::SessionId, store::Tx};

fn look(tx: &mut Tx<'_>, id: &SessionId) -> bool {
    matches!(tx.rows().session(id), Ok(Some(_))) //~ E0624
}

fn main() {}
