//! Rotations in two phases, and who uses which token, on every engine.

mod support;

use std::time::Duration;

use interlock_auth::{
    caller::{Call, Proof},
    ids::{CredentialId, ReplicaId, RequestId},
    limits,
    replica::Beat,
    revocation::{Revocation, RevocationsAfter, Subject},
    role_token::{
        Abort, Begin, Begun, Commit, Ended, Generation, PresentTokens, RecordUses, ResetTokens, Role, Seen,
        Status, Unheard,
    },
    store::Signal,
    trust::Validation,
};
use interlock_kit::error::{Error, Reason};
use interlock_proto::credential::{Credential, Kind};

use support::{Bench, ENGINES, Engine, host, nobody, reason, seconds};

const WINDOW: Duration = Duration::from_secs(60);

async fn begin(bench: &Bench, call: &Call, role: Role, request: &str) -> (Credential, Result<Begun, Error>) {
    let (credential, new) = bench.credential(role.kind());
    let sealed = credential.expose().as_bytes().to_vec();
    let verb = Begin { role, new, request: RequestId::made(request), sealed };
    (credential, bench.run(call, verb).await)
}

/// A begun rotation of `user`: the old token, the next one, and its handle.
struct Open {
    bench: Bench,
    call: Call,
    admin: Credential,
    old: Credential,
    next: Credential,
    id: CredentialId,
}

async fn open(engine: Engine) -> Open {
    let bench = Bench::open(engine);
    let (admin, old) = bench.first_tokens().await;
    let call = bench.call(&admin, "role_token.rotate").await;
    let (next, begun) = begin(&bench, &call, Role::User, "begin").await;
    begun.expect("the admin token may");
    let id = bench.valid(&next).await.principal.credential_id.clone();
    Open { bench, call, admin, old, next, id }
}

impl Open {
    fn verb(&self) -> Commit {
        Commit {
            role: Role::User,
            candidate: self.id.clone(),
            force: false,
            request: RequestId::made("commit"),
            window: WINDOW,
            unheard: Unheard::default(),
        }
    }

    async fn commit(&self) -> Result<Ended, Error> {
        self.bench.run(&self.call, self.verb()).await
    }

    async fn abort(&self, request: &str) -> Result<Ended, Error> {
        let (candidate, request) = (self.id.clone(), RequestId::made(request));
        self.bench.run(&self.call, Abort { role: Role::User, candidate, request }).await
    }

    async fn id_of(&self, token: &Credential) -> CredentialId {
        self.bench.valid(token).await.principal.credential_id.clone()
    }

    async fn record(&self, seen: Vec<Seen>) {
        self.bench.run(&host("role_token.census"), RecordUses { seen }).await.expect("the host may");
    }

    async fn used(&self, token: &Credential, source: &str, ago: Duration) {
        self.record(vec![seen(self.id_of(token).await, source, ago)]).await;
    }

    async fn of_user(&self) -> Vec<Generation> {
        let mut all = self.bench.ask(&self.call, Status).await.expect("the admin token may");
        all.retain(|found| found.token.role == Role::User);
        all
    }

    async fn rows(&self) -> Vec<Revocation> {
        let after = RevocationsAfter { after: 0, limit: 10 };
        self.bench.ask(&support::service(), after).await.expect("services may").rows
    }
}

fn seen(credential: CredentialId, source: &str, ago: Duration) -> Seen {
    Seen { credential, service: "spiffe://t/gateway".to_owned(), source: source.to_owned(), ago, noted: 1 }
}

// SW-21, SW-22, SW-36: both are good until the commit; then the old one is dead, and what stands on the next one is
// not touched.
#[tokio::test]
async fn both_tokens_are_good_until_one_is_chosen() {
    for engine in ENGINES {
        let open = open(engine).await;
        let bench = &open.bench;
        assert_eq!(bench.valid(&open.old).await.principal.proof, Proof::RoleToken { generation: 1 });
        let verdict = bench.valid(&open.next).await;
        assert_eq!(
            (verdict.principal.proof.clone(), verdict.sequence),
            (Proof::RoleToken { generation: 2 }, 0)
        );
        let found: Vec<_> =
            open.of_user().await.iter().map(|g| (g.token.generation, g.token.candidate)).collect();
        assert_eq!(found, [(2, true), (1, false)], "{engine:?}");
        let kept = bench.ask(&host("start"), PresentTokens).await.expect("the host may");
        assert_eq!(kept.iter().filter(|token| token.is_present()).count(), 2);
        assert_eq!(kept.iter().filter(|token| token.candidate).count(), 1);
        bench.signals();

        let ended = open.commit().await.expect("nobody uses the old one");
        assert_eq!((ended.generation, ended.revocation, ended.repeated), (2, 1, false));
        assert_eq!(bench.validate(&open.old).await, Validation::Refused, "{engine:?}");
        let after = bench.valid(&open.next).await;
        assert_eq!(after.principal, verdict.principal);
        bench.valid(&open.admin).await;
        let signals = bench.signals();
        let [Signal::Revoked(row)] = &signals[..] else { panic!("{engine:?}: {signals:?}") };
        assert_eq!(row.subject, Subject::Role(Role::User));
        assert_eq!(row.issued_before, verdict.principal.issuance, "streams on the next one go on");
        let repeated = open.commit().await.expect("the same");
        assert_eq!(repeated, Ended { repeated: true, ..ended });
        assert_eq!(open.rows().await.len(), 1, "{engine:?}: nothing was revoked again");
        if bench.shows_audit() {
            let rows: Vec<_> = bench.audit().into_iter().map(|row| (row.2, row.3, row.4)).collect();
            assert_eq!(rows.len(), 3, "first tokens, begin, commit: {rows:?}");
            assert!(rows[1..].iter().all(|row| row.0 == "done" && row.2 == "user"));
        }
        if matches!(engine, Engine::File | Engine::Postgres) {
            let bench = open.bench.restarted().await;
            assert_eq!(bench.validate(&open.old).await, Validation::Refused);
            bench.valid(&open.next).await;
        }
    }
}

#[tokio::test]
async fn an_aborted_one_leaves_the_present_token_as_it_was() {
    for engine in ENGINES {
        let open = open(engine).await;
        open.bench.signals();
        open.used(&open.next, "192.0.2.1", Duration::ZERO).await;
        let ended = open.abort("a").await.expect("open");
        assert_eq!((ended.generation, ended.revocation), (2, 1));
        assert_eq!(open.bench.validate(&open.next).await, Validation::Refused, "{engine:?}");
        open.bench.valid(&open.old).await;
        let signals = open.bench.signals();
        let [Signal::Revoked(row)] = &signals[..] else { panic!("{engine:?}: {signals:?}") };
        assert_eq!(row.subject, Subject::Credential(open.id.clone()), "{engine:?}: of nobody else");
        assert!(open.abort("a").await.expect("the same").repeated);
        assert_eq!(reason(open.abort("b").await), Reason::NotFound, "{engine:?}");
        assert_eq!(reason(open.commit().await), Reason::NotFound, "{engine:?}");
        let status = open.of_user().await;
        assert_eq!((status.len(), status[0].uses.len()), (1, 0), "{engine:?}: its uses are gone with it");
        // The next one is another one, whatever its number.
        let (_, again) = begin(&open.bench, &open.call, Role::User, "again").await;
        assert!(!again.expect("none is open").repeated);
        assert_eq!(reason(open.commit().await), Reason::Conflict, "{engine:?}: a handle of the one before");
    }
}

#[tokio::test]
async fn one_rotation_of_a_role_is_open_and_rotating_at_once_is_refused_meanwhile() {
    for engine in ENGINES {
        let open = open(engine).await;
        let (bench, call) = (&open.bench, &open.call);
        let again = begin(bench, call, Role::User, "begin").await.1.expect("the same request");
        assert!(again.repeated && again.sealed == open.next.expose().as_bytes() && again.generation == 2);
        let (lost, other) = begin(bench, call, Role::User, "other").await;
        let refused = other.expect_err("one is open");
        assert_eq!(refused.reason(), Reason::RotationOpen);
        assert!(refused.to_string().contains("commit or abort it first"), "{refused}");
        assert_eq!(bench.validate(&lost).await, Validation::Refused);
        let (_, rotated) = bench.rotate(call, Role::User, Duration::ZERO, "at-once").await;
        assert_eq!(reason(rotated), Reason::RotationOpen, "{engine:?}");
        // Request ids are one name space, of the owner.
        let (_, rotated) = bench.rotate(call, Role::User, Duration::ZERO, "begin").await;
        assert_eq!(reason(rotated), Reason::RequestIdReused);
        assert_eq!(reason(open.abort("begin").await), Reason::RequestIdReused);
        let (_, of_admin) = begin(bench, call, Role::Admin, "begin").await;
        assert_eq!(reason(of_admin), Reason::RequestIdReused);
        // The other role is untouched.
        begin(bench, call, Role::Admin, "admin").await.1.expect("none is open");
        let another = Commit { candidate: CredentialId::made("crd_none"), ..open.verb() };
        assert_eq!(reason(bench.run(call, another).await), Reason::Conflict);
        bench.valid(&open.old).await;
        bench.valid(&open.next).await;
        bench.clock.advance(limits::SEALED_ANSWER_TTL);
        let (_, anew) = begin(bench, call, Role::User, "begin").await;
        assert_eq!(
            reason(anew),
            Reason::RotationOpen,
            "{engine:?}: it is open for as long as nobody ends it"
        );
    }
}

#[tokio::test]
async fn a_commit_is_refused_while_an_earlier_token_is_in_use() {
    for engine in ENGINES {
        let open = open(engine).await;
        let bench = &open.bench;
        open.used(&open.next, "192.0.2.1", Duration::ZERO).await;
        open.used(&open.admin, "192.0.2.2", Duration::ZERO).await;
        open.used(&open.old, "192.0.2.7", seconds(20)).await;
        let rows = bench.audit().len();
        let refused = open.commit().await.expect_err("used 20 s ago");
        assert_eq!(refused.reason(), Reason::TokenInUse);
        let told = refused.to_string();
        assert!(told.contains("generation 1 by spiffe://t/gateway from 192.0.2.7, 20 s ago"), "{told}");
        assert!(!told.contains("192.0.2.1") && !told.contains("192.0.2.2"), "{told}");
        assert_eq!(refused.retry_delay(), Some(seconds(40)));
        bench.valid(&open.old).await;
        if bench.shows_audit() {
            let row = bench.audit().split_off(rows);
            assert_eq!((row.len(), row[0].2.as_str(), row[0].3.as_str()), (1, "refused", "TOKEN_IN_USE"));
        }
        bench.clock.advance(seconds(39));
        assert_eq!(reason(open.commit().await), Reason::TokenInUse, "{engine:?}");
        bench.clock.advance(seconds(1));
        open.commit().await.expect("nobody has used it for the window");
        assert_eq!(bench.validate(&open.old).await, Validation::Refused, "{engine:?}");
    }
}

#[tokio::test]
async fn a_forced_commit_ends_what_is_in_use_and_tokens_in_grace_count_too() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, first) = bench.first_tokens().await;
        let call = bench.call(&admin, "role_token.rotate").await;
        let (second, rotated) = bench.rotate(&call, Role::User, seconds(3_600), "grace").await;
        rotated.expect("rotated");
        let (next, begun) = begin(&bench, &call, Role::User, "begin").await;
        assert_eq!(begun.expect("begun").generation, 3);
        let id = bench.valid(&next).await.principal.credential_id.clone();
        let old = second.clone();
        let open = Open { bench, call, admin, old, next, id };
        open.used(&first, "", seconds(1)).await;
        let refused = open.commit().await.expect_err("the first one is in use");
        assert!(refused.to_string().contains("generation 1 by spiffe://t/gateway from a source unknown"));
        let forced = Commit { force: true, ..open.verb() };
        assert_eq!(open.bench.run(&open.call, forced).await.expect("forced").generation, 3);
        for dead in [&first, &second] {
            assert_eq!(open.bench.validate(dead).await, Validation::Refused, "{engine:?}");
        }
        open.bench.valid(&open.next).await;
        assert_eq!(open.of_user().await.len(), 1, "{engine:?}");
    }
}

#[tokio::test]
async fn who_has_not_told_counts_as_a_user() {
    for engine in ENGINES {
        let open = open(engine).await;
        let unheard = Unheard { verifiers: vec!["spiffe://t/gateway gw-1".to_owned()], own: None };
        let refused = open.bench.run(&open.call, Commit { unheard, ..open.verb() }).await;
        let refused = refused.expect_err("it may have let it in");
        assert_eq!(refused.reason(), Reason::TokenInUse);
        assert!(refused.to_string().contains("spiffe://t/gateway gw-1 has not told"), "{refused}");
        assert!(refused.retry_delay().is_some());

        // Other auth-services that share the store, by their rows; the own one is asked by another way.
        let beat = async |id: &str, behind: Duration| {
            let (id, told, over) = (ReplicaId::made(id), Vec::new(), Vec::new());
            let beat =
                Beat { id, promise: seconds(6), reached: 0, holders: 0, told, over, uses_told: behind };
            open.bench.run(&host("replica.beat"), beat).await.expect("room");
        };
        beat("epo_own", seconds(3_600)).await;
        beat("epo_b", seconds(9)).await;
        let own = Some(ReplicaId::made("epo_own"));
        let commit = Commit { unheard: Unheard { verifiers: Vec::new(), own }, ..open.verb() };
        open.bench.clock.advance(seconds(1));
        let refused = open.bench.run(&open.call, commit.clone()).await.expect_err("10 s ago is too long");
        assert!(refused.to_string().contains("auth-service epo_b has not told"), "{refused}");
        beat("epo_b", seconds(9)).await;
        open.bench.run(&open.call, commit).await.expect("nobody uses the old one");
        assert_eq!(open.bench.validate(&open.old).await, Validation::Refused, "{engine:?}");
    }
}

#[tokio::test]
async fn of_each_token_the_latest_uses_are_kept_and_counted() {
    for engine in ENGINES {
        let open = open(engine).await;
        let id = open.id_of(&open.old).await;
        let many: Vec<_> = (0..limits::USES_MAX as u64 + 8)
            .map(|n| seen(id.clone(), &format!("10.0.0.{n}"), seconds(100 - n)))
            .chain([seen(CredentialId::made("crd_unknown"), "10.0.0.1", Duration::ZERO)])
            .collect();
        open.record(many).await;
        let uses = open.of_user().await.remove(1).uses;
        assert_eq!(uses.len(), limits::USES_MAX, "{engine:?}");
        assert_eq!((uses[0].source.as_str(), uses[31].source.as_str()), ("10.0.0.39", "10.0.0.8"));
        assert_eq!(uses[0].last_at, open.bench.clock.now().before(seconds(61)));
        // The same again is counted, an older instant changes nothing, and a new source takes the oldest one's place.
        open.bench.clock.advance(seconds(5));
        open.record(vec![
            seen(id.clone(), "10.0.0.39", seconds(2)),
            seen(id.clone(), "10.0.0.39", seconds(200)),
            seen(id.clone(), "2001:db8::/64", seconds(1)),
        ])
        .await;
        let uses = open.of_user().await.remove(1).uses;
        let latest: Vec<_> = uses.iter().take(2).map(|used| (used.source.as_str(), used.noted)).collect();
        assert_eq!(latest, [("2001:db8::/64", 1), ("10.0.0.39", 3)], "{engine:?}");
        assert_eq!(uses[1].last_at, open.bench.clock.now().before(seconds(2)));
        assert!(uses.len() == limits::USES_MAX && uses.iter().all(|used| used.source != "10.0.0.8"));
        if open.bench.shows_audit() {
            assert!(open.bench.audit().iter().all(|row| row.1 != "role_token.census"), "{engine:?}");
        }
        let verb = RecordUses { seen: vec![seen(id, "10.0.0.1", Duration::ZERO)] };
        assert_eq!(reason(open.bench.run(&open.call, verb).await), Reason::Forbidden);
        if matches!(engine, Engine::File | Engine::Postgres) {
            let bench = open.bench.restarted().await;
            let status = bench.ask(&host("status"), Status).await.expect("the host may");
            let kept = status.iter().find(|g| g.token.role == Role::User && !g.token.candidate);
            assert_eq!(kept.expect("there").uses, uses, "{engine:?}");
        }
    }
}

// SW-39, SW-40
#[tokio::test]
async fn a_reset_ends_an_open_rotation_and_what_it_made() {
    for engine in ENGINES {
        let open = open(engine).await;
        open.used(&open.old, "192.0.2.1", Duration::ZERO).await;
        let (admin, user) = (open.bench.credential(Kind::Admin), open.bench.credential(Kind::User));
        let reset = ResetTokens { admin: admin.1, user: user.1 };
        open.bench.run(&host("auth.reset"), reset).await.expect("the host may");
        for dead in [&open.admin, &open.old, &open.next] {
            assert_eq!(open.bench.validate(dead).await, Validation::Refused, "{engine:?}");
        }
        let call = open.bench.call(&admin.0, "role_token.rotate").await;
        begin(&open.bench, &call, Role::User, "anew").await.1.expect("none is open");
    }
}

// SW-23, SW-24, SW-25, I11, I12
#[tokio::test]
async fn too_low_and_stale_callers_change_nothing_and_are_audited() {
    for engine in ENGINES {
        let open = open(engine).await;
        let bench = &open.bench;
        let root = bench.owner("rita", &["root"]).await;
        let session = bench.login(&root).await.expect("signs in");
        let rows = bench.audit().len();
        let user = bench.call(&open.old, "role_token.rotate").await;
        let locked = bench.call(&session.access, "role_token.rotate").await;
        for (call, expected) in [(user, Reason::Forbidden), (locked, Reason::RootRequired)] {
            assert_eq!(reason(begin(bench, &call, Role::Admin, "r").await.1), expected, "{engine:?}");
            assert_eq!(reason(bench.run(&call, open.verb()).await), expected);
            let (candidate, request) = (open.id.clone(), RequestId::made("r"));
            let abort = Abort { role: Role::User, candidate, request };
            assert_eq!(reason(bench.run(&call, abort).await), expected);
        }
        let anyone = nobody("role_token.rotate");
        assert_eq!(reason(bench.run(&anyone, open.verb()).await), Reason::ProviderAuthFailed);
        if bench.shows_audit() {
            let refusals = bench.audit().split_off(rows);
            assert_eq!(refusals.len(), 6, "{refusals:?}");
        }
        // A call that was let in before its token ended, and waited.
        bench.rotate(&open.call, Role::Admin, Duration::ZERO, "now").await.1.expect("rotated");
        assert_eq!(reason(open.commit().await), Reason::ProviderAuthFailed, "{engine:?}");
        assert_eq!(reason(open.abort("late").await), Reason::ProviderAuthFailed);
        assert_eq!(reason(begin(bench, &open.call, Role::Admin, "late").await.1), Reason::ProviderAuthFailed);
        bench.valid(&open.old).await;
        bench.valid(&open.next).await;
    }
}
