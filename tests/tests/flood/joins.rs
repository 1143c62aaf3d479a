//! What a refused join costs is the same, whatever is wrong with it: its time tells nobody that there is a session, or
//! that a password is set (NC-14). Told by the processor's time, which a busy machine stretches less than the clock's.

use std::time::Duration;

use interlock_client::ClientRole;
use interlock_proto::gateway::v1::JoinSessionRequest;
use interlock_tests::{
    Pair, Setup,
    wire::{self, Metadata},
};

use crate::process;

const JOIN: &str = "/interlock.gateway.v1.SessionService/JoinSession";
/// So dear that all else a join costs is nothing beside it.
const PASSES: &str = "4";
/// Of each kind.
const TRIES: usize = 3;
const PASSWORD: &str = "correct horse";

// NC-14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_join_costs_the_same_whatever_is_wrong() {
    let setup = Setup::default().gateway("join_tries", "100").gateway("argon2.t", PASSES);
    let pair = Pair::start_with(setup).await;
    let alice = pair.login("alice").await;
    let sessions = pair.sdk_gateway(&alice.access_token).sessions();
    let made = async |name: &str| sessions.create(name).await.expect("a session").session.session_id;
    let (with, without) = (made("with").await, made("without").await);
    sessions.set_password(&with, PASSWORD, ClientRole::Operator, false).await.expect("set");
    let channel = pair.gateway_public();
    let join = |session_id: &str, owner_id: &str, name: &str| JoinSessionRequest {
        session_id: session_id.to_owned(),
        owner_id: owner_id.to_owned(),
        name: name.to_owned(),
        password: "wrong horse".to_owned(),
        request_id: "r".to_owned(),
    };
    let kinds = [
        ("a wrong password", join(&with, "", "")),
        ("no password set", join(&without, "", "")),
        ("no such session", join("ses_1", "", "")),
        ("no such name", join("", "alice", "desk")),
        ("no such owner", join("", "nobody", "with")),
    ];
    let mut costs = [Duration::ZERO; 5];
    // Taken in turns: what else the gateway does meanwhile is in each of them.
    for _ in 0..TRIES {
        for ((what, request), cost) in kinds.iter().zip(&mut costs) {
            let before = process::cpu(&pair.gateway);
            let refused = wire::ask(&channel, JOIN, request, &Metadata::none()).await.outcome;
            assert_eq!(refused.reason, "INVALID_CREDENTIALS", "{what}: {refused}");
            *cost += process::cpu(&pair.gateway) - before;
        }
    }
    for ((what, _), cost) in kinds.iter().zip(costs) {
        println!("{TRIES} joins, {what}: {} ms of the processor", cost.as_millis());
        assert!(
            cost * 2 >= costs[0] && cost <= costs[0] * 2,
            "{what}: {cost:?}, a wrong password {:?}",
            costs[0]
        );
    }
}
