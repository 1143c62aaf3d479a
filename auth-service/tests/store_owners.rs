//! Owners changed at run time, on every engine.

mod support;

use interlock_auth::{
    accounts::Source,
    caller::Call,
    ids::OwnerId,
    owner::{
        ChangePassword, Edit, GetOwner, ListOwners, OwnerStored, ReadApplied, ReadForEdit, ReadForLogin,
        RemoveOwner, SetOwner,
    },
    password::PasswordHash,
    role_token::Role,
    store::Signal,
    trust::Validation,
};
use interlock_kit::error::{Error, Reason};

use support::{Bench, ENGINES, HASH, OTHER_HASH, host, nobody, reason};

fn hash(text: &str) -> Option<PasswordHash> {
    Some(PasswordHash::parse(text).expect("a hash"))
}

fn roles(roles: &[&str]) -> Option<Vec<String>> {
    Some(roles.iter().map(|role| (*role).to_owned()).collect())
}

fn set_verb(owner: &str, edit: Edit) -> SetOwner {
    SetOwner { owner: OwnerId::made(owner), edit, keep_sessions: false, expected: None, cancel_jobs: false }
}

async fn set(bench: &Bench, call: &Call, owner: &str, edit: Edit) -> Result<OwnerStored, Error> {
    bench.run(call, set_verb(owner, edit)).await
}

async fn remove(bench: &Bench, call: &Call, owner: &str) -> Result<u64, Error> {
    bench.run(call, RemoveOwner { owner: OwnerId::made(owner), expected: None, cancel_jobs: false }).await
}

fn with_password() -> Edit {
    Edit { password: hash(HASH), ..Edit::default() }
}

// UA-13, UA-26, UA-36, UA-51
#[tokio::test]
async fn administrators_add_owners_at_run_time_and_nobody_else_does() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, user) = bench.first_tokens().await;
        let call = bench.call(&admin, "owner.set").await;
        assert_eq!(reason(set(&bench, &call, "ann", Edit::default()).await), Reason::MissingField);
        assert_eq!(reason(set(&bench, &call, "admin", with_password()).await), Reason::InvalidField);
        let made = set(&bench, &call, "ann", with_password()).await.expect("made");
        assert!(made.created && made.revocation.is_none());
        assert_eq!((made.owner.roles.as_slice(), made.owner.active), (&["user".to_owned()][..], true));
        assert_eq!(made.owner.display_name, "ann");
        let ann = bench.login(&OwnerId::made("ann")).await.expect("no restart is needed");
        // Again changes nothing, and leaves no row.
        let rows = bench.audit().len();
        let again = set(&bench, &call, "ann", with_password()).await.expect("the same");
        assert_eq!(again, OwnerStored { created: false, ..made.clone() });
        assert_eq!(bench.audit().len(), rows, "{engine:?}");
        // New roles: verifiers ask again, and the session goes on as another.
        let edit = Edit { roles: roles(&["SuperUser"]), ..Edit::default() };
        let promoted = set(&bench, &call, "ann", edit).await.expect("changed");
        let verdict = bench.valid(&ann.access).await;
        assert_eq!((Some(verdict.sequence), verdict.principal.role), (promoted.revocation, Role::Admin));
        let by_ann = bench.call(&ann.access, "owner.set").await;
        set(&bench, &by_ann, "bob", with_password()).await.expect("session-root is an administrator");

        let bob = bench.login(&OwnerId::made("bob")).await.expect("in");
        let rows = bench.audit().len();
        for credential in [&user, &bob.access] {
            let call = bench.call(credential, "owner.set").await;
            assert_eq!(reason(set(&bench, &call, "eve", with_password()).await), Reason::Forbidden);
            assert_eq!(reason(remove(&bench, &call, "ann").await), Reason::Forbidden);
            let owner = OwnerId::made("ann");
            assert_eq!(reason(bench.ask(&call, GetOwner { owner: owner.clone() }).await), Reason::Forbidden);
            assert_eq!(reason(bench.ask(&call, ReadForEdit { owner }).await), Reason::Forbidden);
            let list = ListOwners { after: None, limit: 0 };
            assert_eq!(reason(bench.ask(&call, list).await), Reason::Forbidden);
        }
        if bench.shows_audit() {
            assert_eq!(bench.audit().len() - rows, 10, "{engine:?}: one row for each refusal");
        }
        let page = |after: Option<&str>| ListOwners { after: after.map(OwnerId::made), limit: 1 };
        let first = bench.ask(&call, page(None)).await.expect("may");
        assert_eq!(
            (first.owners[0].id.as_str(), first.next.as_ref().map(OwnerId::as_str)),
            ("ann", Some("ann"))
        );
        let second = bench.ask(&call, page(Some("ann"))).await.expect("may");
        assert_eq!((second.owners[0].id.as_str(), second.next), ("bob", None));
    }
}

// FN-24, UA-25
#[tokio::test]
async fn a_new_password_and_an_end_of_active_end_the_sessions() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, _) = bench.first_tokens().await;
        let call = bench.call(&admin, "owner.set").await;
        set(&bench, &call, "ann", with_password()).await.expect("made");
        let ann = OwnerId::made("ann");
        let (other, first) = (Edit { password: hash(OTHER_HASH), ..Edit::default() }, with_password());
        let session = bench.login(&ann).await.expect("in");
        bench.signals();
        let kept = SetOwner { keep_sessions: true, ..set_verb("ann", other) };
        assert_eq!(bench.run(&call, kept).await.expect("changed").revocation, None);
        bench.valid(&session.access).await;
        let changed = set(&bench, &call, "ann", first).await.expect("changed");
        assert!(
            matches!(&bench.signals()[..], [Signal::Revoked(row)] if Some(row.sequence) == changed.revocation)
        );
        assert_eq!(bench.validate(&session.access).await, Validation::Refused);
        assert_eq!(reason(bench.refresh(&session.refresh).await), Reason::InvalidCredentials);
        // That the sessions are kept is about passwords: an inactive owner has none.
        let session = bench.login(&ann).await.expect("in");
        let inactive = Edit { active: Some(false), ..Edit::default() };
        let verb = SetOwner { keep_sessions: true, ..set_verb("ann", inactive) };
        bench.run(&call, verb).await.expect("changed");
        assert_eq!(bench.validate(&session.access).await, Validation::Refused);
        assert_eq!(reason(bench.login(&ann).await), Reason::InvalidCredentials);
        let active = Edit { active: Some(true), ..Edit::default() };
        set(&bench, &call, "ann", active).await.expect("changed");
        assert_eq!(bench.validate(&session.access).await, Validation::Refused, "{engine:?}: it stays ended");
        bench.login(&ann).await.expect("in again");
    }
}

// UA-38
#[tokio::test]
async fn the_last_active_administrator_stays() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, _) = bench.first_tokens().await;
        let call = bench.call(&admin, "owner.set").await;
        let root = |name: &str| Edit { roles: roles(&[name]), ..with_password() };
        for (owner, role) in [("ann", "Root"), ("bob", "owner"), ("carl", "roots")] {
            set(&bench, &call, owner, root(role)).await.expect("made");
        }
        let inactive = Edit { active: Some(false), roles: roles(&["admin"]), ..with_password() };
        set(&bench, &call, "dora", inactive).await.expect("made");
        remove(&bench, &call, "ann").await.expect("bob is another");
        let demoted = Edit { roles: roles(&["user"]), ..Edit::default() };
        let shut_out = Edit { active: Some(false), ..Edit::default() };
        for edit in [demoted, shut_out] {
            assert_eq!(reason(set(&bench, &call, "bob", edit).await), Reason::Forbidden, "{engine:?}");
        }
        assert_eq!(reason(remove(&bench, &call, "bob").await), Reason::Forbidden);
        set(&bench, &call, "bob", Edit { display_name: Some("Bob".to_owned()), ..Edit::default() })
            .await
            .expect("anything else");
        set(&bench, &call, "carl", root("SUPERUSER")).await.expect("another one");
        remove(&bench, &call, "bob").await.expect("now");
        remove(&bench, &host("owner.remove"), "dora").await.expect("was not active");
    }
}

// UA-38, UA-56, DESIGN 14.16
#[tokio::test]
async fn a_removed_owner_stays_removed_and_its_sessions_dead() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, _) = bench.first_tokens().await;
        let call = bench.call(&admin, "owner.remove").await;
        let ann = bench.owner("ann", &["user"]).await;
        let session = bench.login(&ann).await.expect("in");
        bench.signals();
        let revocation = remove(&bench, &call, "ann").await.expect("removed");
        assert!(matches!(&bench.signals()[..], [Signal::Revoked(row)] if row.sequence == revocation));
        assert_eq!(bench.validate(&session.access).await, Validation::Refused);
        assert_eq!(reason(remove(&bench, &call, "ann").await), Reason::NotFound);
        assert_eq!(reason(bench.ask(&call, GetOwner { owner: ann.clone() }).await), Reason::NotFound);
        assert!(bench.ask(&call, ListOwners { after: None, limit: 0 }).await.expect("may").owners.is_empty());
        let login = bench.ask(&nobody("owner_session.login"), ReadForLogin { owner: ann.clone() }).await;
        assert!(login.expect("anyone").is_none(), "as if there had never been one");
        // Its source says what it said before: that is no change, and a start applies nothing.
        let applied = ReadApplied { of: vec![(Source::Environment, ann.clone())] };
        assert!(bench.ask(&host("accounts.apply"), applied).await.expect("may")[0].is_some());
        // Who has the id later begins anew, but for what was made under it.
        assert_eq!(reason(set(&bench, &call, "ann", Edit::default()).await), Reason::MissingField);
        let made = set(&bench, &call, "ann", with_password()).await.expect("made");
        assert!(made.created && made.owner.roles == ["user"] && made.owner.version == 3);
        assert_eq!(bench.validate(&session.access).await, Validation::Refused, "{engine:?}");
        bench.valid(&bench.login(&ann).await.expect("in").access).await;
        // A record of a source that did change makes an owner again, too, with the record's password.
        remove(&bench, &call, "ann").await.expect("removed");
        let applied = bench.apply("ann", &["builder"], true, OTHER_HASH, false).await.expect("applied");
        assert!(applied.created);
        let facts =
            bench.ask(&nobody("x"), ReadForLogin { owner: ann }).await.expect("anyone").expect("there");
        assert_eq!(facts.password.expose(), OTHER_HASH);
    }
}

/// As many as an accounts source may well have: an engine that loads rows loads these together.
#[tokio::test]
async fn the_applied_records_of_many_owners_are_read_at_once() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        for n in (0..1_200).step_by(400) {
            bench.apply(&format!("o{n}"), &["user"], true, HASH, true).await.expect("applied");
        }
        let of = (0..1_200).map(|n| (Source::Environment, OwnerId::made(format!("o{n}")))).collect();
        let applied = bench.ask(&host("accounts.apply"), ReadApplied { of }).await.expect("may");
        let known: Vec<usize> = (0..applied.len()).filter(|n| applied[*n].is_some()).collect();
        assert_eq!((applied.len(), known), (1_200, vec![0, 400, 800]), "{engine:?}");
    }
}

#[tokio::test]
async fn of_two_who_change_one_owner_at_once_one_is_told() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, _) = bench.first_tokens().await;
        let call = bench.call(&admin, "owner.set").await;
        let seen = set(&bench, &call, "ann", with_password()).await.expect("made").owner.version;
        let verb = |name: &str| SetOwner {
            expected: Some(seen),
            ..set_verb("ann", Edit { display_name: Some(name.to_owned()), ..Edit::default() })
        };
        bench.run(&call, verb("one")).await.expect("changed");
        assert_eq!(reason(bench.run(&call, verb("two")).await), Reason::Conflict, "{engine:?}");
        let remove = |expected| RemoveOwner { owner: OwnerId::made("ann"), expected, cancel_jobs: false };
        assert_eq!(reason(bench.run(&call, remove(Some(seen))).await), Reason::Conflict);
        let nobody = SetOwner { expected: Some(1), ..set_verb("eve", with_password()) };
        assert_eq!(reason(bench.run(&call, nobody).await), Reason::Conflict);
        bench.run(&call, remove(Some(seen + 1))).await.expect("removed");
    }
}

// DESIGN 14.8: what was let in before its credential ended makes no new one.
#[tokio::test]
async fn a_credential_that_has_ended_sets_no_password() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, _) = bench.first_tokens().await;
        let call = bench.call(&admin, "owner.set").await;
        let rotated = bench.rotate(&call, Role::Admin, support::seconds(0), "r").await.1;
        rotated.expect("rotated");
        assert_eq!(reason(set(&bench, &call, "eve", with_password()).await), Reason::ProviderAuthFailed);
        assert_eq!(reason(remove(&bench, &call, "eve").await), Reason::ProviderAuthFailed, "{engine:?}");
    }
}

// FN-24
#[tokio::test]
async fn owners_change_their_own_password() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, _) = bench.first_tokens().await;
        let ann = bench.owner("ann", &["user"]).await;
        let (session, other) = (bench.login(&ann).await.expect("in"), bench.login(&ann).await.expect("in"));
        let call = bench.call(&session.access, "owner.change_password").await;
        let change = |verified, keep_sessions| ChangePassword {
            verified,
            password: hash(OTHER_HASH).expect("a hash"),
            keep_sessions,
        };
        let rows = bench.audit().len();
        assert_eq!(reason(bench.run(&call, change(None, false)).await), Reason::InvalidCredentials);
        assert_eq!(reason(bench.run(&call, change(Some(7), false)).await), Reason::Conflict);
        let by_token = bench.call(&admin, "owner.change_password").await;
        assert_eq!(reason(bench.run(&by_token, change(Some(1), false)).await), Reason::LoginRequired);
        assert_eq!(bench.run(&call, change(Some(1), true)).await.expect("changed"), None);
        bench.valid(&other.access).await;
        let ended = bench.run(&call, change(Some(2), false)).await.expect("changed");
        assert!(ended.is_some());
        for access in [&session.access, &other.access] {
            assert_eq!(bench.validate(access).await, Validation::Refused, "{engine:?}");
        }
        assert_eq!(reason(bench.run(&call, change(Some(3), false)).await), Reason::ProviderAuthFailed);
        if bench.shows_audit() {
            assert_eq!(bench.audit().len() - rows, 6, "one row each");
        }
    }
}
