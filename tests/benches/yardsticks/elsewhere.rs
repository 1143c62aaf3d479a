//! `postgres`: submit and attach on PostgreSQL, beside a handler that only writes the same rows there, and what a second
//! gateway on the same database adds. The server is this machine's own, with fsync, and its processes are in no CPU column.

use std::cell::Cell;

use interlock_tests::{
    Pair, Service, Setup,
    wire::{self, Shows},
};

use crate::{
    across, attach, cluster::Cluster, duel::Duel, load::Side, owners, plan::Plan, programs, report::Report,
    submit,
};

/// What tests do without.
const SETTINGS: [&str; 4] = ["fsync=on", "max_connections=60", "shared_buffers=128MB", "max_wal_size=2GB"];

/// All of it, where it is wanted.
pub(crate) async fn measure(plan: &Plan, report: &mut Report) {
    if !plan.wants("postgres") {
        return;
    }
    let cluster = Cluster::start_with(&SETTINGS);
    let accounts = owners::Accounts::new();
    let setup = Setup::default()
        .auth("accounts_json_file", &accounts.file().to_string_lossy())
        .auth("owner_session.access_ttl", "1h")
        .gateway("store", &cluster.database("ours"))
        .gateway("store_sharing", "shared")
        .gateway("chain_key_file", "gateway.chain-key")
        .gateway("jobs_in_flight_per_owner", "1000000");
    let pair = Pair::start_with(setup).await;
    let owners = owners::sign_in(&pair, &accounts).await;
    let url = |name: &str| cluster.database(name);
    let attached =
        attach::duel("attach, 64 callers, PostgreSQL", &plan.of(64), &pair, &owners, &url("bare_attach"))
            .await;
    report.add(attached);
    let submitted =
        submit::duel("submit, 64 callers, PostgreSQL", &plan.of(64), &pair, &owners, &url("bare_submit"))
            .await;
    report.add(submitted);
    let name = "submit, 64 callers, PostgreSQL, each";
    report.add(submit::one_by_one(name, &plan.of(64), &pair, &owners, &url("bare_each")).await);
    let mut second = Service::another("gateway", "gateway-2", &pair.world.path(""));
    pair.start_another_gateway(&mut second, "gateway-2").await;
    let near = pair.sdk_gateway(&owners[0].token);
    let far = pair.sdk_gateways(&[&second], &owners[0].token);
    report.take(across::compare(plan, &owners[0], &near, &far).await);
    report.add(two_gateways(plan, &pair, &second, &owners).await);
}

/// The same callers on the connections of both, beside those of the first alone.
async fn two_gateways(plan: &Plan, pair: &Pair, second: &Service, owners: &[owners::Owner]) -> Duel {
    let shows = Shows { ca: pair.world.ca(), leaf: None };
    let (plan, turn) = (&plan.of(64), Cell::new(0_usize));
    let either = || {
        let both = [pair.gateway.address("public"), second.address("public")];
        wire::connect(both[turn.replace(turn.get() + 1) % 2], &shows)
    };
    let server = programs::pid(&pair.world, "gateway");
    let mut two = Side { server, callers: submit::callers(plan, owners, "two", &either) };
    let mut one = Side { server, callers: submit::callers(plan, owners, "one", &|| pair.gateway_public()) };
    let others = ["auth", "gateway-2"].map(|name| programs::pid(&pair.world, name));
    let name = "submit, 64 callers, two gateways";
    let duel = Duel::fight(name, plan, &mut two, &mut one, &others).await;
    let note = "; CPU of the first gateway alone".to_owned();
    Duel { sides: ["two", "one"], note, ..duel }
}
