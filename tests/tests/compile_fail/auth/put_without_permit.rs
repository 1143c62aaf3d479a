use interlock_auth::{role_token::RoleToken, store::Tx};

fn write(tx: &mut Tx<'_>, token: RoleToken) {
    tx.insert_role_token(token); //~ E0061
}

fn main() {}
