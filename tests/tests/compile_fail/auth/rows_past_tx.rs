use interlock_auth::store::{Tx, View};

fn past_the_view(view: &View<'_>) {
    let _ = view.rows; //~ E0616
}

fn past_the_tx(tx: &mut Tx<'_>) {
    tx.changes.clear(); //~ E0616
}

fn main() {}
