//! A binding changes only with proof that the session may be bound so.

use interlock_gateway::{binding::Binding, policy::Permit, session::Session, store::Tx};

fn rebind(tx: &mut Tx<'_>, permit: &Permit, binding: &Binding, session: &Session) {
    let _ = tx.rebind(permit, binding, session); //~ E0308
}

fn main() {}
