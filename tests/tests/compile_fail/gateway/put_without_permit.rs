//! A write takes the permit of the decision that allowed it.

use interlock_gateway::{
    session::{Phase, Session},
    store::Tx,
};

fn close(tx: &mut Tx<'_>, session: &Session) {
    tx.set_phase(session, Phase::Gone); //~ E0061
}

fn main() {}
