//! Sign in, refresh, sign out, and owners' edits, on every engine.

mod support;

use interlock_auth::{
    ids::{OwnerId, OwnerSessionId},
    limits,
    owner::{Applied, ReadApplied, ReadForLogin},
    owner_session::{Login, Logout, Refreshed, RefuseLogin, SessionStatus, WhoAmI},
    password::PasswordHash,
    role_token::Role,
    store::Signal,
    trust::Validation,
};
use interlock_kit::error::Reason;
use interlock_proto::credential::{Credential, Kind};

use support::{ACCESS_TTL, Bench, ENGINES, Engine, HASH, OTHER_HASH, Pair, host, nobody, reason, seconds};

async fn logout(bench: &Bench, kind: Kind, credential: &Credential) -> Option<u64> {
    let verb = Logout { kind, presented: credential.hash() };
    bench.run(&nobody("owner_session.logout"), verb).await.expect("idempotent").map(|ended| ended.revocation)
}

fn replayed(outcome: Result<Refreshed, interlock_kit::error::Error>) -> bool {
    matches!(outcome.expect("answers"), Refreshed::Replayed { .. })
}

#[tokio::test]
async fn sign_in_gives_a_role_and_bounded_ends() {
    // FN-03, UA-06, UA-39
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (ann, rita) = (bench.owner("ann", &["builder"]).await, bench.owner("rita", &["SuperUser"]).await);
        let session = bench.login(&ann).await.expect("signs in");
        let signed_in = &session.signed_in;
        assert_eq!((signed_in.role, signed_in.display_name.as_str()), (Role::User, "ann of Test"));
        assert_eq!(signed_in.access_expires_at, bench.clock.now().after(ACCESS_TTL));
        assert_eq!(bench.login(&rita).await.expect("signs in").signed_in.role, Role::Admin);
        let principal = bench.valid(&session.access).await.principal;
        assert_eq!((principal.owner_id.clone(), principal.session_root), (ann, false));
        assert_eq!(
            bench.validate(&session.refresh).await,
            Validation::Refused,
            "a refresh token proves nobody"
        );
        let call = bench.call(&session.access, "identity.whoami").await;
        assert_eq!(bench.ask(&call, WhoAmI).await.expect("anyone").display_name, "ann of Test");
        bench.clock.advance(ACCESS_TTL);
        assert!(matches!(bench.validate(&session.access).await, Validation::Expired(_)));
        if engine == Engine::File {
            let stored: String = bench
                .connection()
                .query_row("SELECT password FROM owner LIMIT 1", [], |row| row.get(0))
                .expect("a row");
            assert!(stored.starts_with("$argon2id$"), "{stored}");
        }
    }
}

#[tokio::test]
async fn a_refused_sign_in_is_audited_under_the_claimed_name() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let call = nobody("owner_session.login");
        let refused = bench.run(&call, RefuseLogin { claimed: OwnerId::made("mallory") }).await;
        assert_eq!(reason(refused), Reason::InvalidCredentials);
        assert_eq!(reason(bench.login(&OwnerId::made("nobody")).await), Reason::InvalidCredentials);
        if bench.shows_audit() {
            let row = |who: &str, about: &str| {
                [who, "owner_session.login", "refused", "INVALID_CREDENTIALS", about]
                    .map(str::to_owned)
                    .into()
            };
            assert_eq!(bench.audit(), [row("mallory", "mallory"), row("nobody", "")]);
        }
    }
}

#[tokio::test]
async fn sign_out_is_at_once_and_idempotent() {
    // FN-04, FN-23
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let ann = bench.owner("ann", &["user"]).await;
        for by_refresh in [false, true] {
            let (session, other) =
                (bench.login(&ann).await.expect("in"), bench.login(&ann).await.expect("in"));
            bench.signals();
            let (kind, credential) =
                if by_refresh { (Kind::Refresh, &session.refresh) } else { (Kind::Owner, &session.access) };
            let ended = logout(&bench, kind, credential).await.expect("was living");
            assert!(matches!(&bench.signals()[..], [Signal::Revoked(row)] if row.sequence == ended));
            assert_eq!(bench.validate(&session.access).await, Validation::Refused);
            assert_eq!(reason(bench.refresh(&session.refresh).await), Reason::InvalidCredentials);
            for (kind, credential) in [(Kind::Owner, &session.access), (Kind::Refresh, &session.refresh)] {
                assert_eq!(logout(&bench, kind, credential).await, None);
            }
            bench.valid(&other.access).await;
        }
        let (stranger, _) = bench.credential(Kind::Owner);
        assert_eq!(logout(&bench, Kind::Owner, &stranger).await, None);
        let wrong = bench.run(&nobody("x"), Logout { kind: Kind::Admin, presented: stranger.hash() }).await;
        assert_eq!(reason(wrong), Reason::LoginRequired);
    }
}

#[tokio::test]
async fn status_is_public() {
    // FN-05
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let ask =
            |credential: Option<&Credential>| SessionStatus { presented: credential.map(Credential::hash) };
        let call = nobody("owner_session.status");
        let none = bench.ask(&call, ask(None)).await.expect("public");
        assert!(!none.enabled && none.signed_in.is_none());
        let ann = bench.owner("ann", &["user"]).await;
        let session = bench.login(&ann).await.expect("in");
        let status = bench.ask(&call, ask(Some(&session.access))).await.expect("public");
        assert!(status.enabled);
        let who = status.signed_in.expect("signed in");
        assert_eq!((who.owner, who.expires_at), (ann, session.signed_in.expires_at));
        logout(&bench, Kind::Owner, &session.access).await;
        let after = bench.ask(&call, ask(Some(&session.access))).await.expect("public");
        assert!(after.enabled && after.signed_in.is_none());
    }
}

#[tokio::test]
async fn refresh_gives_one_successor_and_a_replay_ends_the_family() {
    // I9
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let ann = bench.owner("ann", &["user"]).await;
        let session = bench.login(&ann).await.expect("in");
        let second = bench.refreshed(&session.refresh).await;
        bench.clock.advance(seconds(29));
        assert_eq!(bench.refreshed(&session.refresh).await, second, "the same inside the window");
        // An access token lives until its own end, also beside its successor.
        bench.valid(&session.access).await;
        let third = bench.refreshed(&second.refresh).await;
        bench.valid(&third.access).await;
        let rows = bench.audit().len();
        bench.signals();
        // Inside the window, but the successor was used.
        assert!(replayed(bench.refresh(&session.refresh).await), "{engine:?}");
        assert!(matches!(&bench.signals()[..], [Signal::Revoked(_)]));
        for access in [&session.access, &second.access, &third.access] {
            assert_eq!(bench.validate(access).await, Validation::Refused);
        }
        for refresh in [&session.refresh, &second.refresh, &third.refresh] {
            assert_eq!(reason(bench.refresh(refresh).await), Reason::InvalidCredentials);
        }
        if bench.shows_audit() {
            let new = bench.audit().split_off(rows);
            assert_eq!(new.len(), 4, "one row for the replay, one for each refusal: {new:?}");
            assert!(new.iter().all(|row| row.0 == "ann" && row.3 == "INVALID_CREDENTIALS"));
        }
    }
}

#[tokio::test]
async fn the_window_ends_at_its_instant() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let ann = bench.owner("ann", &["user"]).await;
        let session = bench.login(&ann).await.expect("in");
        bench.refreshed(&session.refresh).await;
        bench.clock.advance(limits::REFRESH_WINDOW);
        assert!(replayed(bench.refresh(&session.refresh).await));
    }
}

#[tokio::test]
async fn a_refresh_never_passes_the_absolute_end() {
    // FN-18
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let ann = bench.owner("ann", &["user"]).await;
        let session = bench.login(&ann).await.expect("in");
        let end = session.signed_in.expires_at;
        bench.clock.advance(support::SESSION_TTL - seconds(60));
        let Refreshed::Issued(answer) = bench.refresh(&session.refresh).await.expect("refreshed") else {
            panic!("no replay")
        };
        assert_eq!((answer.access_expires_at, answer.expires_at), (end, end));
        bench.clock.advance(seconds(60));
        let next = Pair::open(&answer.sealed);
        assert_eq!(reason(bench.refresh(&next.refresh).await), Reason::TokenExpired);
        assert!(matches!(bench.validate(&next.access).await, Validation::Expired(_)));
        assert_eq!(logout(&bench, Kind::Refresh, &next.refresh).await, None);
    }
}

/// Two programs that hold the same refresh token, and one that goes on: every order of their calls.
#[tokio::test]
async fn every_order_of_concurrent_refreshes_keeps_one_chain() {
    // I9: steps are "present token 0" three times and "present the newest token" twice.
    for engine in [Engine::Memory, Engine::Model, Engine::Missing] {
        for order in orders(3, 2) {
            let bench = Bench::open(engine);
            let ann = bench.owner("ann", &["user"]).await;
            let session = bench.login(&ann).await.expect("in");
            let (mut newest, mut used, mut ended) = (session.refresh.clone(), 0, false);
            let mut successor_of_first: Option<Pair> = None;
            for newest_one in &order {
                let presented = if *newest_one { newest.clone() } else { session.refresh.clone() };
                let first_again = presented == session.refresh;
                let outcome = bench.refresh(&presented).await;
                if ended {
                    assert_eq!(reason(outcome), Reason::InvalidCredentials, "{order:?}");
                    continue;
                }
                match outcome.expect("answers") {
                    Refreshed::Unknown => panic!("{engine:?} {order:?}: nothing was swept"),
                    Refreshed::Replayed { .. } => {
                        assert!(first_again && used > 1, "{engine:?} {order:?}: no replay yet");
                        ended = true;
                    }
                    Refreshed::Issued(answer) => {
                        assert!(!first_again || used < 2, "{engine:?} {order:?}: a replay went unseen");
                        let pair = Pair::open(&answer.sealed);
                        if first_again {
                            let first = successor_of_first.get_or_insert(pair.clone());
                            assert_eq!(*first, pair, "{engine:?} {order:?}: a second successor");
                            used = used.max(1);
                        } else {
                            used += 1;
                        }
                        newest = pair.refresh;
                    }
                }
            }
        }
    }
}

/// All orders of `a` times false and `b` times true.
fn orders(a: usize, b: usize) -> Vec<Vec<bool>> {
    let all = (0_u32..1 << (a + b)).filter(|bits| bits.count_ones() as usize == b);
    all.map(|bits| (0..a + b).map(|at| bits & (1 << at) != 0).collect()).collect()
}

// Issue 6 line 1: a thousand callers at once. I9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truly_concurrent_refreshes_get_the_same_successor() {
    for engine in [Engine::File, Engine::Postgres] {
        let bench = Bench::open(engine);
        let ann = bench.owner("ann", &["user"]).await;
        let session = bench.login(&ann).await.expect("in");
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            let (verb, _) = bench.refresh_verb(&session.refresh);
            let shell = bench.shell.clone();
            calls.spawn(async move { shell.run(&nobody("owner_session.refresh"), verb).await });
        }
        let answers = calls.join_all().await;
        let mut sealed: Vec<_> = answers
            .into_iter()
            .map(|answer| match answer.expect("answers") {
                Refreshed::Issued(answer) => answer.sealed,
                other @ (Refreshed::Unknown | Refreshed::Replayed { .. }) => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sealed.len(), 1_000);
        sealed.dedup();
        assert_eq!(sealed.len(), 1, "{engine:?}");
    }
}

#[tokio::test]
async fn an_edited_password_or_an_inactive_owner_ends_sessions() {
    // FN-24, UA-13, UA-25
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let ann = bench.owner("ann", &["user"]).await;
        let first = bench.login(&ann).await.expect("in");
        let edited = bench.apply("ann", &["user"], true, OTHER_HASH, true).await.expect("applied");
        assert!(!edited.created && edited.revocation.is_some());
        assert_eq!(bench.validate(&first.access).await, Validation::Refused);
        assert_eq!(reason(bench.refresh(&first.refresh).await), Reason::InvalidCredentials);
        assert_eq!(
            reason(bench.login_of_version(&ann, 1).await),
            Reason::Conflict,
            "verified the older password"
        );
        let second = bench.login(&ann).await.expect("in");
        // New roles: verifiers ask again, the session goes on.
        let promoted = bench.apply("ann", &["root"], true, OTHER_HASH, false).await.expect("applied");
        let verdict = bench.valid(&second.access).await;
        assert_eq!((Some(verdict.sequence), verdict.principal.role), (promoted.revocation, Role::Admin));
        bench.apply("ann", &["root"], false, OTHER_HASH, false).await.expect("applied");
        assert_eq!(bench.validate(&second.access).await, Validation::Refused);
        assert_eq!(reason(bench.login(&ann).await), Reason::InvalidCredentials);
        // Active again: what had ended stays ended.
        bench.apply("ann", &["root"], true, OTHER_HASH, false).await.expect("applied");
        assert_eq!(bench.validate(&second.access).await, Validation::Refused);
        bench.owner("bob", &["user"]).await;
        bench.login(&OwnerId::made("bob")).await.expect("a second owner, added at run time");
    }
}

#[tokio::test]
async fn sources_are_applied_by_the_host_only_and_remembered() {
    // FN-02, UA-34
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, _) = bench.first_tokens().await;
        let call = bench.call(&admin, "account.apply").await;
        let refused = bench.run(&call, support::account("ann", &[], true, HASH, true)).await;
        assert_eq!(reason(refused), Reason::Forbidden);
        assert_eq!(reason(bench.apply("admin", &[], true, HASH, true).await), Reason::InvalidField);
        bench.owner("ann", &["user"]).await;
        let of = |source| vec![(source, OwnerId::made("ann"))];
        use interlock_auth::accounts::Source;
        let read = bench
            .ask(&host("account.apply"), ReadApplied { of: of(Source::Environment) })
            .await
            .expect("may");
        let expected: Applied = support::account("ann", &["user"], true, HASH, true).account.record;
        assert_eq!(read, [Some(expected)]);
        let read =
            bench.ask(&host("account.apply"), ReadApplied { of: of(Source::File) }).await.expect("may");
        assert_eq!(read, [None]);
    }
}

#[tokio::test]
async fn a_source_that_did_not_change_the_password_leaves_a_later_one() {
    // DESIGN 14.16
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let ann = bench.owner("ann", &["user"]).await;
        let mut at_run_time = support::account("ann", &["user"], true, OTHER_HASH, true);
        at_run_time.account.record.source = interlock_auth::accounts::Source::File;
        bench.run(&host("account.apply"), at_run_time).await.expect("applied");
        let session = bench.login(&ann).await.expect("in");
        bench.apply("ann", &["builder"], true, HASH, false).await.expect("only the roles");
        let facts =
            bench.ask(&nobody("x"), ReadForLogin { owner: ann }).await.expect("anyone").expect("exists");
        assert_eq!((facts.password.expose(), facts.version), (OTHER_HASH, 3));
        bench.valid(&session.access).await;
    }
}

#[tokio::test]
async fn an_imported_hash_becomes_ours_at_the_first_sign_in() {
    // UA-24
    const IMPORTED: &str =
        "pbkdf2_sha256$310000$AAECAwQFBgcICQoLDA0ODw==$e4rSQ5KQXKoMyeu1tFpEU3HMo6tplYmG7eJ280WPc/o=";
    for engine in ENGINES {
        let bench = Bench::open(engine);
        bench.apply("ann", &["user"], true, IMPORTED, true).await.expect("applied");
        let ann = OwnerId::made("ann");
        let verb = |n: u64| Login {
            owner: ann.clone(),
            version: 1,
            session: OwnerSessionId::made(format!("ows_{n}")),
            access: support::credential(Kind::Owner, n).1,
            refresh: support::credential(Kind::Refresh, n).1,
            access_ttl: ACCESS_TTL,
            session_ttl: support::SESSION_TTL,
            rehashed: Some(PasswordHash::parse(HASH).expect("a hash")),
        };
        // Two at once have both verified version 1: neither is refused.
        bench.run(&nobody("owner_session.login"), verb(1)).await.expect("signs in");
        bench.run(&nobody("owner_session.login"), verb(2)).await.expect("signs in");
        let facts =
            bench.ask(&nobody("x"), ReadForLogin { owner: ann }).await.expect("anyone").expect("exists");
        assert_eq!((facts.password.expose(), facts.version), (HASH, 1));
    }
}

#[tokio::test]
async fn sessions_of_one_owner_are_bounded() {
    let bench = Bench::open(Engine::Memory);
    let ann = bench.owner("ann", &["user"]).await;
    for _ in 0..limits::OWNER_SESSIONS_MAX {
        bench.login(&ann).await.expect("in");
    }
    assert_eq!(reason(bench.login(&ann).await), Reason::LimitReached);
    bench.clock.advance(support::SESSION_TTL);
    bench.login(&ann).await.expect("the others have ended");
}

#[tokio::test]
async fn an_owner_follows_the_source_that_speaks_now() {
    // UA-34: the variable is taken away, the file speaks, the variable comes back as it was.
    use interlock_auth::accounts::Source;
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let of = |source| ReadApplied { of: vec![(source, OwnerId::made("ann"))] };
        let call = host("account.apply");
        for (source, other, hash) in [
            (Source::Environment, Source::File, HASH),
            (Source::File, Source::Environment, OTHER_HASH),
            (Source::Environment, Source::File, HASH),
        ] {
            let before = bench.ask(&call, of(source)).await.expect("may");
            assert_eq!(before, [None], "{engine:?}: so it is a change");
            let mut verb = support::account("ann", &["user"], true, hash, true);
            verb.account.record.source = source;
            bench.run(&call, verb).await.expect("applied");
            let facts = bench
                .ask(&nobody("x"), ReadForLogin { owner: OwnerId::made("ann") })
                .await
                .expect("anyone")
                .expect("exists");
            assert_eq!(facts.password.expose(), hash, "{engine:?}");
            assert!(bench.ask(&call, of(source)).await.expect("may")[0].is_some());
            assert_eq!(bench.ask(&call, of(other)).await.expect("may"), [None], "{engine:?}");
        }
    }
}
