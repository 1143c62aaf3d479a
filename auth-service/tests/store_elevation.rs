//! Root unlock, lock and lapse, on every engine.

mod support;

use std::time::Duration;

use interlock_auth::{
    elevation::{
        ElevationStatus, EndElevation, Lock, OnAnotherSecret, RootSalt, StatusOfElevation, Unlock, Why,
    },
    owner_session::Logout,
    role_token::Role,
    store::Signal,
    sweep::{Clear, Due, FindDue},
    trust::Validation,
};
use interlock_kit::error::Reason;
use interlock_proto::credential::{Credential, Kind};

use support::{Bench, ENGINES, Engine, HASH, OTHER_HASH, host, nobody, reason, seconds};

async fn status(bench: &Bench, access: Option<&Credential>) -> StatusOfElevation {
    let query = ElevationStatus { presented: access.map(Credential::hash), certificate: None };
    bench.ask(&nobody("elevation.status"), query).await.expect("public")
}

async fn elevated(bench: &Bench, access: &Credential) -> bool {
    bench.valid(access).await.principal.is_elevated(bench.clock.now())
}

// FN-08, FN-10, FN-11, I8: what verifiers are told changes with the row of the log.
#[tokio::test]
async fn an_unlock_raises_this_owner_session_and_no_other() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        bench.root_secret(HASH);
        let ann = bench.owner("ann", &["user"]).await;
        let (session, other) = (bench.login(&ann).await.expect("in"), bench.login(&ann).await.expect("in"));
        assert_eq!(
            status(&bench, None).await,
            StatusOfElevation { enabled: true, ..StatusOfElevation::default() }
        );
        bench.signals();
        let unlocked = bench.unlock(&session.access, seconds(900)).await.expect("unlocked");
        assert_eq!(unlocked.until, bench.clock.now().after(seconds(900)));
        assert!(
            matches!(&bench.signals()[..], [Signal::Revoked(row)] if row.sequence == unlocked.revocation)
        );
        let verdict = bench.valid(&session.access).await;
        assert_eq!(verdict.principal.elevated_until, Some(unlocked.until));
        assert_eq!(verdict.sequence, unlocked.revocation);
        assert_eq!(status(&bench, Some(&session.access)).await.until, Some(unlocked.until));
        assert!(!elevated(&bench, &other.access).await, "{engine:?}: another session of the same owner");
        // A later access token of the same owner session is as high.
        let next = bench.refreshed(&session.refresh).await;
        assert!(elevated(&bench, &next.access).await);
        // Again sets a new end, sooner or later.
        let sooner = bench.unlock(&next.access, seconds(60)).await.expect("again");
        assert_eq!(status(&bench, Some(&session.access)).await.until, Some(sooner.until));
        // FN-09, FN-25
        bench.signals();
        let lock = async |access: &Credential| {
            bench.run(&bench.call(access, "elevation.lock").await, Lock).await.expect("idempotent")
        };
        let ended = lock(&session.access).await.expect("was unlocked");
        assert!(matches!(&bench.signals()[..], [Signal::Revoked(row)] if row.sequence == ended));
        assert!(!elevated(&bench, &session.access).await && !elevated(&bench, &next.access).await);
        assert_eq!(lock(&next.access).await, None);
        assert!(bench.signals().is_empty());
        // FN-33, I11
        if bench.shows_audit() {
            let rows = bench.audit();
            let of = |action: &str| rows.iter().filter(|row| row.1 == action).count();
            assert_eq!((of("elevation.unlock"), of("elevation.lock")), (2, 1));
            let row = rows.iter().find(|row| row.1 == "elevation.unlock").expect("there");
            assert_eq!((row.0.as_str(), row.4.as_str()), ("ann", session.signed_in.session.as_str()));
        }
    }
}

// FN-07, FN-08, FN-17, FN-22, FN-32
#[tokio::test]
async fn who_may_not_unlock_is_told_why_and_leaves_a_row() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, _) = bench.first_tokens().await;
        let ann = bench.owner("ann", &["user"]).await;
        let session = bench.login(&ann).await.expect("in");
        assert_eq!(reason(bench.unlock(&session.access, seconds(60)).await), Reason::RootDisabled);
        assert!(!status(&bench, Some(&session.access)).await.enabled);
        bench.root_secret(HASH);
        let rows = bench.audit().len();
        let call = bench.call(&session.access, "elevation.unlock").await;
        let unlock = |verified, ttl: u64| Unlock { verified, ttl: seconds(ttl), certificate: None };
        let root = bench.root.fingerprint();
        assert_eq!(reason(bench.run(&call, unlock(None, 60)).await), Reason::InvalidCredentials);
        bench.root_secret(OTHER_HASH);
        assert_eq!(
            reason(bench.run(&call, unlock(root, 60)).await),
            Reason::Conflict,
            "verified an older one"
        );
        let root = bench.root.fingerprint();
        for ttl in [0, 59, 3_601] {
            assert_eq!(reason(bench.run(&call, unlock(root, ttl)).await), Reason::InvalidField);
        }
        let by_token = bench.call(&admin, "elevation.unlock").await;
        assert_eq!(reason(bench.run(&by_token, unlock(root, 60)).await), Reason::LoginRequired);
        assert_eq!(reason(bench.run(&by_token, Lock).await), Reason::LoginRequired);
        assert_eq!(
            reason(bench.run(&nobody("elevation.unlock"), unlock(root, 60)).await),
            Reason::ProviderAuthFailed
        );
        let out = Logout { kind: Kind::Owner, presented: session.access.hash() };
        bench.run(&nobody("owner_session.logout"), out).await.expect("out");
        assert_eq!(
            reason(bench.run(&call, unlock(root, 60)).await),
            Reason::ProviderAuthFailed,
            "{engine:?}: it has ended between gate and verb"
        );
        assert_eq!(reason(bench.run(&call, Lock).await), Reason::ProviderAuthFailed);
        if bench.shows_audit() {
            let new = bench.audit().split_off(rows);
            let refused = new.iter().filter(|row| row.2 == "refused").count();
            assert_eq!(refused, 9, "one row for each refusal of somebody: {new:?}");
        }
    }
}

// FN-16, FN-33: it ends at its instant, and the sweep says so once.
#[tokio::test]
async fn a_lapse_is_at_its_instant_and_is_told_by_the_sweep() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        bench.root_secret(HASH);
        let ann = bench.owner("ann", &["user"]).await;
        let session = bench.login(&ann).await.expect("in");
        bench.unlock(&session.access, seconds(60)).await.expect("unlocked");
        bench.clock.advance(seconds(59));
        assert!(elevated(&bench, &session.access).await);
        let due = Due::Elevation(session.signed_in.session.clone());
        let clear = async || bench.run(&host(due.action()), Clear { due: due.clone() }).await.expect("may");
        assert!(!clear().await, "{engine:?}: not yet");
        bench.clock.advance(seconds(1));
        assert!(
            !elevated(&bench, &session.access).await
                && status(&bench, Some(&session.access)).await.until.is_none()
        );
        assert_eq!(bench.ask(&host("sweep"), FindDue).await.expect("may"), std::slice::from_ref(&due));
        bench.signals();
        assert!(clear().await && !clear().await);
        assert!(matches!(&bench.signals()[..], [Signal::Revoked(_)]), "streams that stood on it are closed");
        assert!(bench.ask(&host("sweep"), FindDue).await.expect("may").is_empty());
        bench.valid(&session.access).await;
        if bench.shows_audit() {
            let lapses: Vec<_> = bench.audit().into_iter().filter(|row| row.1 == "elevation.lapse").collect();
            assert_eq!(lapses.len(), 1);
            assert_eq!((lapses[0].0.as_str(), lapses[0].2.as_str()), ("ann", "done"));
        }
    }
}

#[tokio::test]
async fn it_never_outlives_its_owner_session() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        bench.root_secret(HASH);
        let ann = bench.owner("ann", &["user"]).await;
        let session = bench.login(&ann).await.expect("in");
        bench.clock.advance(support::SESSION_TTL - seconds(1_200));
        let next = bench.refreshed(&session.refresh).await;
        let unlocked = bench.unlock(&next.access, seconds(3_600)).await.expect("unlocked");
        assert_eq!(unlocked.until, session.signed_in.expires_at);
        let out = Logout { kind: Kind::Owner, presented: next.access.hash() };
        bench.run(&nobody("owner_session.logout"), out).await.expect("out");
        assert_eq!(bench.validate(&next.access).await, Validation::Refused);
        assert_eq!(status(&bench, Some(&next.access)).await.until, None);
    }
}

// FN-26, FN-27, DESIGN 14.14
#[tokio::test]
async fn another_root_secret_honours_nothing_and_ends_it() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        bench.root_secret(HASH);
        let ann = bench.owner("ann", &["root"]).await;
        let mut sessions = Vec::new();
        for _ in 0..3 {
            let session = bench.login(&ann).await.expect("in");
            bench.unlock(&session.access, seconds(900)).await.expect("unlocked");
            sessions.push(session);
        }
        bench.root_secret(OTHER_HASH);
        for session in &sessions {
            assert!(!elevated(&bench, &session.access).await, "{engine:?}: before it is ended");
        }
        bench.unlock(&sessions[0].access, seconds(900)).await.expect("with the new one");
        let others = bench.ask(&host("elevation.end"), OnAnotherSecret).await.expect("may");
        assert_eq!(others.len(), 2);
        bench.signals();
        for session in others {
            let end = EndElevation { session, why: Why::Secret };
            assert!(bench.run(&host("elevation.end"), end).await.expect("may"));
        }
        assert_eq!(bench.signals().len(), 2, "verifiers ask again");
        let end = EndElevation { session: sessions[0].signed_in.session.clone(), why: Why::Secret };
        assert!(!bench.run(&host("elevation.end"), end.clone()).await.expect("may"), "of the present one");
        // The old secret again: what was ended does not come back.
        bench.root_secret(HASH);
        for session in &sessions {
            assert!(!elevated(&bench, &session.access).await);
        }
        // None at all: every one is of another.
        bench.root.set(None);
        assert_eq!(bench.ask(&host("elevation.end"), OnAnotherSecret).await.expect("may").len(), 1);
        let call = bench.call(&sessions[1].access, "elevation.end").await;
        assert_eq!(reason(bench.run(&call, end).await), Reason::Forbidden);
        assert_eq!(reason(bench.ask(&call, RootSalt).await), Reason::Forbidden);
    }
}

// DESIGN 14.14
#[tokio::test]
async fn an_unlock_with_a_certificate_holds_with_that_one_only() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        bench.root_secret(HASH);
        let ann = bench.owner("ann", &["user"]).await;
        let session = bench.login(&ann).await.expect("in");
        let call = bench.call(&session.access, "elevation.unlock").await;
        let verb =
            Unlock { verified: bench.root.fingerprint(), ttl: seconds(60), certificate: Some([7; 32]) };
        let unlocked = bench.run(&call, verb).await.expect("unlocked");
        let principal = bench.valid(&session.access).await.principal;
        assert_eq!(principal.elevation_on(Some([7; 32])), Some(unlocked.until));
        assert_eq!((principal.elevation_on(None), principal.elevation_on(Some([8; 32]))), (None, None));
        assert_eq!(status(&bench, Some(&session.access)).await.until, None, "{engine:?}");
    }
}

#[tokio::test]
async fn the_salt_is_the_stores_own_and_stays() {
    for engine in [Engine::File, Engine::Postgres] {
        let bench = Bench::open(engine);
        bench.root_secret(HASH);
        let salt = bench.ask(&host("start"), RootSalt).await.expect("may");
        assert_ne!(salt, [0; 16]);
        let ann = bench.owner("ann", &["user"]).await;
        let session = bench.login(&ann).await.expect("in");
        bench.unlock(&session.access, Duration::from_secs(900)).await.expect("unlocked");
        let bench = bench.restarted().await;
        assert_eq!(bench.ask(&host("start"), RootSalt).await.expect("may"), salt);
        let principal = bench.valid(&session.access).await.principal;
        assert!(principal.is_elevated(bench.clock.now()) && principal.role == Role::User);
    }
}
