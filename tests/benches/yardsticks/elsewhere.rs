//! `postgres`: submit and attach on PostgreSQL, beside a handler that only writes the same rows there, and what a second
//! gateway on the same database adds. The server is this machine's own, with fsync, and its processes are in no CPU column.

use std::cell::Cell;

use interlock_tests::{
    Pair, Service, Setup,
    wire::{self, Shows},
};

use crate::{
    across, attach, database, duel::Duel, held::Held, load::Side, owners, plan::Plan, programs,
    report::Report, submit,
};

/// Of one core, per cent: the callers and the database then have most of two.
const HELD: u64 = 20;

/// All of it, where it is wanted.
pub(crate) async fn measure(plan: &Plan, report: &mut Report) {
    if !plan.wants("postgres") {
        return;
    }
    let cluster = database::start();
    let accounts = owners::Accounts::new();
    let setup = Setup::default()
        .auth("accounts_json_file", &accounts.file().to_string_lossy())
        .auth("owner_session.access_ttl", "1h")
        .gateway_in(&cluster.database("ours"))
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
    let name = "submit, 64 callers, two gateways";
    report.add(two_gateways(name, "", plan, &pair, &second, &owners).await);
    // On a machine whose cores are all busy a second gateway adds nothing; so both are held to what leaves room.
    match ["gateway", "gateway-2"].map(|name| Held::to(HELD, programs::pid(&pair.world, name))) {
        [Ok(_first), Ok(_second)] => {
            let name = "submit, 64 callers, two gateways, held";
            let mut duel = two_gateways(name, "held", plan, &pair, &second, &owners).await;
            duel.note += &format!("; each gateway held to {HELD} % of a core");
            report.add(duel);
        }
        [Err(error), _] | [_, Err(error)] => eprintln!("no gateway is held to a share of a core: {error}"),
    }
}

/// The same callers on the connections of both, beside those of the first alone. `run` is part of the request ids.
async fn two_gateways(
    name: &'static str,
    run: &str,
    plan: &Plan,
    pair: &Pair,
    second: &Service,
    owners: &[owners::Owner],
) -> Duel {
    let shows = Shows { ca: pair.world.ca(), leaf: None };
    let (plan, turn) = (&plan.of(64), Cell::new(0_usize));
    let either = || {
        let both = [pair.gateway.address("public"), second.address("public")];
        wire::connect(both[turn.replace(turn.get() + 1) % 2], &shows)
    };
    let server = programs::pid(&pair.world, "gateway");
    let [run_of_two, run_of_one] = ["two", "one"].map(|side| format!("{run}{side}"));
    let mut two = Side { server, callers: submit::callers(plan, owners, &run_of_two, &either) };
    let mut one =
        Side { server, callers: submit::callers(plan, owners, &run_of_one, &|| pair.gateway_public()) };
    let others = ["auth", "gateway-2"].map(|name| programs::pid(&pair.world, name));
    let duel = Duel::fight(name, plan, &mut two, &mut one, &others).await;
    let note = "; CPU of the first gateway alone".to_owned();
    Duel { sides: ["two", "one"], note, ..duel }
}
