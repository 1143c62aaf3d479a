//! Rows of programs that share the store, on every engine.

mod support;

use std::time::Duration;

use interlock_auth::{
    barrier::Reached,
    ids::ReplicaId,
    limits,
    replica::{Beat, Told},
    role_token::Role,
    store::Signal,
};
use interlock_kit::error::Reason;

use support::{Bench, ENGINES, host, nobody, reason, seconds};

fn beat(id: &str, reached: u64) -> Beat {
    let (id, told, over) = (ReplicaId::made(id), Vec::new(), Vec::new());
    Beat { id, promise: seconds(6), reached, holders: 3, told, over, uses_told: Duration::ZERO }
}

fn told(sequence: u64) -> Told {
    Told { sequence, reached: Reached { acknowledged: 2, fenced: 1, streams_closed: sequence } }
}

// I18, I8: what one program writes others read, and a beat knows of every revocation before it.
#[tokio::test]
async fn a_beat_renews_its_own_row_and_shows_those_of_others() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let run = async |beat: Beat| bench.run(&host("replica.beat"), beat).await;
        let joined = run(beat("epo_a", 0)).await.expect("room");
        assert_eq!((joined.newest, joined.others.len()), (0, 0), "{engine:?}");
        let (admin, _) = bench.first_tokens().await;
        let call = bench.call(&admin, "role_token.rotate").await;
        let (_, rotated) = bench.rotate(&call, Role::User, Duration::ZERO, "r").await;
        let rotated = rotated.expect("rotated");
        bench.signals();

        let second = run(Beat { told: vec![told(1)], ..beat("epo_b", 1) }).await.expect("room");
        assert_eq!(second.newest, rotated.revocation, "{engine:?}: it must be published before this counts");
        assert_eq!(bench.signals(), [Signal::Reached], "{engine:?}: those who wait look");
        let first = run(beat("epo_a", 0)).await.expect("renewed");
        let [other] = &first.others[..] else { panic!("{engine:?}: {first:?}") };
        assert_eq!((other.beat, other.reached, other.holders, other.promise), (1, 1, 3, seconds(6)));
        assert_eq!((other.told_of(1), other.told_of(2)), (told(1).reached, Reached::default()));
        assert_eq!(bench.signals(), [], "{engine:?}: nothing that others wait for");

        // It never goes back, and tells a bounded number of the last ones.
        let many = (2..=100).map(told).collect();
        run(Beat { told: many, ..beat("epo_b", 0) }).await.expect("renewed");
        let seen = run(beat("epo_a", 0)).await.expect("renewed").others.remove(0);
        assert_eq!((seen.beat, seen.reached, seen.told.len()), (2, 1, limits::TOLD_MAX), "{engine:?}");
        assert_eq!((seen.told_of(1), seen.told_of(100)), (Reached::default(), told(100).reached));
        if bench.shows_audit() {
            assert!(bench.audit().iter().all(|row| row.1 != "replica.beat"), "{engine:?}: no caller sees it");
        }
    }
}

#[tokio::test]
async fn a_row_goes_when_it_was_waited_out_at_the_beat_that_it_has() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let run = async |beat: Beat| bench.run(&host("replica.beat"), beat).await.expect("room");
        for id in ["epo_a", "epo_b", "epo_a"] {
            run(beat(id, 0)).await;
        }
        let over = |beat| vec![(ReplicaId::made("epo_a"), beat)];
        let kept = run(Beat { over: over(1), ..beat("epo_b", 0) }).await;
        assert_eq!(kept.others.len(), 1, "{engine:?}: it has beaten since");
        let gone = run(Beat { over: over(2), ..beat("epo_b", 0) }).await;
        assert_eq!(gone.others, [], "{engine:?}");
        // It wakes, and is as if it were new.
        run(beat("epo_a", 0)).await;
        assert_eq!(run(beat("epo_b", 0)).await.others[0].beat, 1, "{engine:?}");
    }
}

// I17
#[tokio::test]
async fn programs_are_bounded_and_the_host_alone_beats() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        for n in 0..limits::REPLICAS_MAX {
            bench.run(&host("replica.beat"), beat(&format!("epo_{n}"), 0)).await.expect("room");
        }
        let one_more = bench.run(&host("replica.beat"), beat("epo_more", 0)).await;
        assert_eq!(reason(one_more), Reason::LimitReached, "{engine:?}");
        bench.run(&host("replica.beat"), beat("epo_0", 0)).await.expect("it has its row");
        let stranger = bench.run(&nobody("replica.beat"), beat("epo_0", 0)).await;
        assert_eq!(reason(stranger), Reason::ProviderAuthFailed, "{engine:?}");
    }
}
