//! Credentials that look good and are not, at speed.

use interlock_kit::random;
use interlock_proto::credential::{Credential, Kind};
use interlock_tests::{
    Pair, eventually,
    wire::{self, Metadata, Outcome},
};

use crate::{
    honest::Honest,
    process,
    target::{FLOODER, Target, auth_public, gateway_public, patient},
};

const TRIES: usize = 320;
const AT_ONCE: usize = 8;

// NC-23 for bearers: one constant text, then RATE_LIMITED for the source that does it, and for nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_refused_at_speed_and_costs_nobody_else() {
    // So few that a slow machine's flood is one.
    let few = "2";
    let setup = patient().gateway("limits.unknown_credentials", few).auth("limits.unknown_credentials", few);
    let pair = Pair::start_with(setup).await;
    for target in [gateway_public(&pair), auth_public(&pair)] {
        let before = process::memory_kib(target.service);
        let honest = Honest::on_one_connection(&target).await;
        let calls = try_all(&target).await;
        let figures = honest.unharmed().await;
        let growth = process::memory_kib(target.service) - before;
        println!("{:<17} garbage {calls:?} {growth:>+6} KiB  {figures}", target.name);
        assert!(calls.limited > 0 && calls.unknown > 0, "{calls:?}");
        assert!(growth < 8 * 1024, "{growth} KiB stay");
        // A caller whose credential nobody has seen yet gets through: it is another source.
        let alice = pair.login("alice").await;
        let metadata = Metadata::bearer(&alice.access_token);
        eventually("a new caller elsewhere", async || {
            let answer = wire::call(&target.channel(1), target.path, Vec::new(), &metadata).await;
            (answer.outcome == Outcome::ok()).then_some(())
        })
        .await;
    }
}

#[derive(Debug, Default)]
struct Calls {
    unknown: usize,
    limited: usize,
}

async fn try_all(target: &Target<'_>) -> Calls {
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (channel, path) = (target.channel(FLOODER), target.path);
        tries.spawn(async move {
            let mut calls = Calls::default();
            for _ in 0..TRIES / AT_ONCE {
                let garbage = Credential::new(Kind::Owner, &random::bytes());
                let outcome =
                    wire::call(&channel, path, Vec::new(), &Metadata::bearer(&garbage)).await.outcome;
                match (outcome.code.as_str(), outcome.reason.as_str()) {
                    ("UNAUTHENTICATED", "PROVIDER_AUTH_FAILED") => {
                        assert_eq!(outcome.message, "login required", "one text");
                        calls.unknown += 1;
                    }
                    ("RESOURCE_EXHAUSTED", "RATE_LIMITED") => calls.limited += 1,
                    _ => panic!("{outcome}"),
                }
            }
            calls
        });
    }
    let all = tries.join_all().await.into_iter();
    all.fold(Calls::default(), |a, b| Calls {
        unknown: a.unknown + b.unknown,
        limited: a.limited + b.limited,
    })
}
