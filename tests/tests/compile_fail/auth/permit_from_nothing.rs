use interlock_auth::policy::RoleTokenPermit;

fn main() {
    let _ = RoleTokenPermit(()); //~ E0423
}
