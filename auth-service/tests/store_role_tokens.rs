//! Role tokens on every engine.

mod support;

use std::time::Duration;

use interlock_auth::{
    caller::Proof,
    elevation::Lock,
    ids::OwnerId,
    owner_session::Logout,
    revocation::Subject,
    role_token::{First, FirstTokens, PresentTokens, ResetTokens, Reveal, Role, Status},
    store::Signal,
    trust::Validation,
};
use interlock_kit::error::Reason;
use interlock_proto::credential::Kind;

use support::{Bench, ENGINES, Engine, host, reason, seconds};

#[tokio::test]
async fn first_tokens_are_stored_once() {
    // SW-13, SW-14
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, user) = bench.first_tokens().await;
        let again =
            FirstTokens { admin: bench.credential(Kind::Admin).1, user: bench.credential(Kind::User).1 };
        assert_eq!(bench.run(&host("start"), again).await.expect("answers"), First::Present);
        let principal = bench.valid(&admin).await.principal;
        assert_eq!(
            (principal.owner_id.clone(), principal.role, principal.session_root),
            (OwnerId::admin(), Role::Admin, true)
        );
        assert!(!bench.valid(&user).await.principal.is_administrator());
        let present = bench.ask(&host("start"), PresentTokens).await.expect("the host may");
        assert_eq!(present.iter().map(|t| t.hash).collect::<Vec<_>>(), [admin.hash(), user.hash()]);
        if bench.shows_audit() {
            assert_eq!(bench.audit().len(), 1, "one row for the tokens, none for the second start");
        }
    }
}

#[tokio::test]
async fn rotation_ends_the_old_one_and_leaves_the_other() {
    // SW-21, SW-22
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, user) = bench.first_tokens().await;
        let caller = bench.call(&admin, "role_token.rotate").await;
        bench.signals();
        let (next, rotated) = bench.rotate(&caller, Role::Admin, Duration::ZERO, "r1").await;
        let rotated = rotated.expect("the admin token may");
        assert_eq!((rotated.generation, rotated.in_grace, rotated.repeated), (2, false, false));
        assert_eq!(rotated.sealed, next.expose().as_bytes());
        assert_eq!(bench.validate(&admin).await, Validation::Refused, "{engine:?}");
        let verdict = bench.valid(&next).await;
        assert_eq!(
            (verdict.principal.proof.clone(), verdict.sequence),
            (Proof::RoleToken { generation: 2 }, rotated.revocation)
        );
        bench.valid(&user).await;
        let signals = bench.signals();
        let [Signal::Revoked(row), Signal::RoleTokensChanged(Role::Admin)] = &signals[..] else {
            panic!("{signals:?}")
        };
        assert_eq!((row.sequence, &row.subject), (rotated.revocation, &Subject::Role(Role::Admin)));
        assert!(row.issued_before <= verdict.principal.issuance, "the new token is not matched");
        if matches!(engine, Engine::File | Engine::Postgres) {
            let bench = bench.restarted().await;
            assert_eq!(bench.validate(&admin).await, Validation::Refused);
            bench.valid(&next).await;
        }
    }
}

#[tokio::test]
async fn grace_keeps_the_old_one_until_its_instant() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, user) = bench.first_tokens().await;
        let cached = bench.valid(&user).await;
        let caller = bench.call(&admin, "role_token.rotate").await;
        let (_, rotated) = bench.rotate(&caller, Role::User, seconds(60), "r1").await;
        let rotated = rotated.expect("rotated");
        // The verdict from before has no end, so verifiers must be told to ask again.
        assert!(rotated.in_grace && rotated.revocation > cached.sequence);
        assert_eq!(cached.principal.expires_at, None);
        let asked_again = bench.valid(&user).await;
        let end = bench.clock.now().after(seconds(60));
        assert_eq!((asked_again.principal.expires_at, asked_again.sequence), (Some(end), rotated.revocation));
        let status = bench.ask(&caller, Status).await.expect("the admin token may");
        let generations: Vec<_> = status
            .iter()
            .map(|found| &found.token)
            .filter(|t| t.role == Role::User)
            .map(|t| t.generation)
            .collect();
        assert_eq!(generations, [2, 1]);
        bench.clock.advance(seconds(60));
        assert!(matches!(bench.validate(&user).await, Validation::Expired(_)));
        assert_eq!(bench.ask(&caller, Status).await.expect("may").len(), 2, "only living ones");
    }
}

#[tokio::test]
async fn a_rotation_without_grace_also_ends_those_in_grace() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, user) = bench.first_tokens().await;
        let caller = bench.call(&admin, "role_token.rotate").await;
        let (second, rotated) = bench.rotate(&caller, Role::User, seconds(3600), "r1").await;
        rotated.expect("rotated");
        bench.valid(&user).await;
        for n in 2..5 {
            bench.rotate(&caller, Role::User, seconds(3600), &format!("r{n}")).await.1.expect("rotated");
        }
        assert_eq!(bench.validate(&user).await, Validation::Refused, "generations in grace are bounded");
        bench.valid(&second).await;
        bench.rotate(&caller, Role::User, Duration::ZERO, "last").await.1.expect("rotated");
        assert_eq!(bench.validate(&second).await, Validation::Refused);
        assert_eq!(bench.ask(&caller, Status).await.expect("may").len(), 2);
    }
}

#[tokio::test]
async fn a_repeated_rotation_gets_the_same_answer_for_ten_minutes() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, _) = bench.first_tokens().await;
        let caller = bench.call(&admin, "role_token.rotate").await;
        let (next, first) = bench.rotate(&caller, Role::User, Duration::ZERO, "r1").await;
        let first = first.expect("rotated");
        bench.clock.advance(seconds(599));
        let (lost, again) = bench.rotate(&caller, Role::User, Duration::ZERO, "r1").await;
        let again = again.expect("the same");
        assert_eq!((&again.sealed, again.generation, again.repeated), (&first.sealed, 2, true));
        assert_eq!(bench.validate(&lost).await, Validation::Refused);
        let other = bench.rotate(&caller, Role::Admin, Duration::ZERO, "r1").await.1;
        assert_eq!(reason(other), Reason::RequestIdReused);
        bench.clock.advance(seconds(1));
        let new = bench.rotate(&caller, Role::User, Duration::ZERO, "r1").await.1.expect("a new one");
        assert_eq!(new.generation, 3);
        assert_eq!(bench.validate(&next).await, Validation::Refused);
    }
}

#[tokio::test]
async fn too_low_a_caller_changes_nothing_and_is_audited() {
    // SW-23, SW-24, SW-25
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, user) = bench.first_tokens().await;
        let root = bench.owner("rita", &["root"]).await;
        let session = bench.login(&root).await.expect("signs in");
        let rows = bench.audit().len();
        let user_call = bench.call(&user, "role_token.rotate").await;
        assert_eq!(reason(bench.ask(&user_call, Status).await), Reason::Forbidden);
        assert_eq!(reason(bench.run(&user_call, Reveal).await), Reason::Forbidden);
        let rotated = bench.rotate(&user_call, Role::User, Duration::ZERO, "a").await.1;
        assert_eq!(reason(rotated), Reason::Forbidden);
        // A session-root owner sees the masked status, and needs root unlocked for more.
        let root_call = bench.call(&session.access, "role_token.rotate").await;
        bench.ask(&root_call, Status).await.expect("masked");
        assert_eq!(reason(bench.run(&root_call, Reveal).await), Reason::RootRequired);
        let rotated = bench.rotate(&root_call, Role::Admin, Duration::ZERO, "b").await.1;
        assert_eq!(reason(rotated), Reason::RootRequired);
        let admin_call = bench.call(&admin, "role_token.rotate").await;
        let long = bench.rotate(&admin_call, Role::User, seconds(24 * 3600 + 1), "c").await.1;
        assert_eq!(reason(long), Reason::InvalidField);
        let nobody = support::nobody("role_token.rotate");
        let rotated = bench.rotate(&nobody, Role::User, Duration::ZERO, "d").await.1;
        assert_eq!(reason(rotated), Reason::ProviderAuthFailed);
        bench.valid(&admin).await;
        bench.valid(&user).await;
        if bench.shows_audit() {
            let refusals: Vec<_> = bench.audit().split_off(rows);
            assert_eq!(refusals.len(), 6, "{refusals:?}");
            assert!(refusals.iter().all(|row| row.2 == "refused"));
            assert_eq!(refusals[0].3, "FORBIDDEN");
        }
        assert_eq!(reason(Role::parse("role", "").map(|_| ())), Reason::MissingField);
        assert_eq!(reason(Role::parse("role", "root").map(|_| ())), Reason::InvalidField);
    }
}

#[tokio::test]
async fn revealing_is_audited_and_reset_replaces_both() {
    // SW-20, SW-39
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, user) = bench.first_tokens().await;
        let caller = bench.call(&admin, "role_token.status").await;
        let shown = bench.run(&caller, Reveal).await.expect("the admin token may");
        assert_eq!(shown[0].token.masked, admin.masked());
        let (new_admin, new_user) = (bench.credential(Kind::Admin), bench.credential(Kind::User));
        let reset = ResetTokens { admin: new_admin.1.clone(), user: new_user.1.clone() };
        assert_eq!(reason(bench.run(&caller, reset.clone()).await), Reason::Forbidden);
        assert_eq!(bench.run(&host("auth.reset"), reset).await.expect("the host may"), 2);
        for old in [&admin, &user] {
            assert_eq!(bench.validate(old).await, Validation::Refused);
        }
        bench.valid(&new_admin.0).await;
        bench.valid(&new_user.0).await;
        if bench.shows_audit() {
            let actions: Vec<_> = bench.audit().into_iter().map(|row| (row.1, row.2)).collect();
            let expected = [
                ("start", "done"),
                ("role_token.status", "done"),
                ("role_token.status", "refused"),
                ("auth.reset", "done"),
            ];
            assert_eq!(actions, expected.map(|(a, o)| (a.to_owned(), o.to_owned())));
        }
    }
}

/// A call that has passed gate 1 may wait for its turn: what it was admitted on is asked again where it would
/// make or show a secret. Else a stolen token with calls waiting would survive its own rotation.
#[tokio::test]
async fn a_waiting_rotation_does_not_outlive_its_credential() {
    // SW-36
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, user) = bench.first_tokens().await;
        let waiting = bench.call(&admin, "role_token.rotate").await;
        let (graced, rotated) = bench.rotate(&waiting, Role::Admin, seconds(60), "grace").await;
        rotated.expect("rotated");
        bench.run(&waiting, Reveal).await.expect("it is in grace");
        let caller = bench.call(&graced, "role_token.rotate").await;
        let (next, rotated) = bench.rotate(&caller, Role::Admin, Duration::ZERO, "now").await;
        rotated.expect("rotated");
        let rows = bench.audit().len();
        for stale in [&waiting, &caller] {
            for role in Role::ALL {
                let refused = bench.rotate(stale, role, Duration::ZERO, "late").await.1;
                assert_eq!(reason(refused), Reason::ProviderAuthFailed, "{engine:?}");
            }
            assert_eq!(reason(bench.run(stale, Reveal).await), Reason::ProviderAuthFailed, "{engine:?}");
        }
        // The same request again is the same answer, and makes nothing.
        let again = bench.rotate(&caller, Role::Admin, Duration::ZERO, "now").await.1.expect("the same");
        assert!(again.repeated && again.sealed == next.expose().as_bytes());
        bench.valid(&next).await;
        bench.valid(&user).await;
        if bench.shows_audit() {
            assert_eq!(bench.audit().len() - rows, 6, "one row for each refusal");
        }
    }
}

#[tokio::test]
async fn nor_does_that_of_an_unlocked_owner() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        bench.first_tokens().await;
        let root = bench.owner("rita", &["root"]).await;
        let unlocked = async || {
            let session = bench.login(&root).await.expect("in");
            bench.unlock(&session.access, seconds(900)).await.expect("unlocked");
            let call = bench.call(&session.access, "role_token.rotate").await;
            (session, call)
        };
        bench.root_secret(support::HASH);
        let (session, call) = unlocked().await;
        bench.run(&bench.call(&session.access, "elevation.lock").await, Lock).await.expect("locked");
        let refused = bench.rotate(&call, Role::User, Duration::ZERO, "locked").await.1;
        assert_eq!(
            reason(refused),
            Reason::RootRequired,
            "{engine:?}: it was let in while root was unlocked"
        );
        let (session, call) = unlocked().await;
        bench.rotate(&call, Role::User, Duration::ZERO, "a").await.1.expect("unlocked");
        let out = Logout { kind: Kind::Owner, presented: session.access.hash() };
        bench.run(&support::nobody("owner_session.logout"), out).await.expect("out");
        let refused = bench.rotate(&call, Role::User, Duration::ZERO, "b").await.1;
        assert_eq!(reason(refused), Reason::ProviderAuthFailed, "{engine:?}");
        let (_, call) = unlocked().await;
        bench.apply("rita", &["user"], true, support::HASH, false).await.expect("applied");
        let refused = bench.rotate(&call, Role::User, Duration::ZERO, "c").await.1;
        assert_eq!(reason(refused), Reason::ProviderAuthFailed, "{engine:?}: no administrator any more");
    }
}
