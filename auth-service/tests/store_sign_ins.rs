//! Owner sessions looked over and ended by their owner and by administrators, on every engine.

mod support;

use std::time::Duration;

use interlock_auth::{
    caller::Call,
    ids::{OwnerId, OwnerSessionId},
    owner_session::{ListSessions, RevokeAll, RevokeSession, SessionPlace, Whose},
    revocation::{Revocation, Subject},
    store::Signal,
    trust::Validation,
};
use interlock_kit::error::{Error, Reason};
use interlock_proto::credential::Credential;

use support::{Bench, ENGINES, host, reason};

async fn listed(bench: &Bench, call: &Call, whose: Whose) -> Result<Vec<String>, Error> {
    let (mut ids, mut after) = (Vec::new(), SessionPlace::default());
    loop {
        let query = ListSessions { whose: whose.clone(), after: after.clone(), limit: 1 };
        let page = bench.ask(call, query).await?;
        ids.extend(page.sessions.iter().map(|session| session.id.to_string()));
        match page.next {
            Some(next) => after = next,
            None => return Ok(ids),
        }
    }
}

fn of(owner: &str) -> Whose {
    Whose::Owner(OwnerId::made(owner))
}

fn one(session: &OwnerSessionId) -> RevokeSession {
    RevokeSession { session: session.clone() }
}

fn all(owner: &str) -> RevokeAll {
    RevokeAll { owner: Some(OwnerId::made(owner)), issued_before: None }
}

/// The one row of the log since the last time.
fn row(bench: &Bench) -> Revocation {
    match &bench.signals()[..] {
        [Signal::Revoked(row)] => row.clone(),
        other => panic!("one row: {other:?}"),
    }
}

async fn lives(bench: &Bench, access: &Credential) -> bool {
    matches!(bench.validate(access).await, Validation::Valid(_))
}

// Issue 6 line 1, UA-56
#[tokio::test]
async fn owners_look_over_and_end_their_own_sessions_and_nobody_elses() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (_, user) = bench.first_tokens().await;
        let (ann, bob) = (bench.owner("ann", &["user"]).await, bench.owner("bob", &["user"]).await);
        let first = bench.login(&ann).await.expect("in");
        let second = bench.login(&ann).await.expect("in");
        let other = bench.login(&bob).await.expect("in");
        let call = bench.call(&first.access, "owner_session.list").await;
        let (first_id, second_id) = (&first.signed_in.session, &second.signed_in.session);
        let own = listed(&bench, &call, Whose::Own).await.expect("hers");
        assert_eq!(own, [first_id.to_string(), second_id.to_string()], "{engine:?}");
        assert_eq!(listed(&bench, &call, of("ann")).await.expect("hers"), own);

        let rows = bench.audit().len();
        for whose in [of("bob"), of("nobody"), Whose::Everybody] {
            assert_eq!(reason(listed(&bench, &call, whose).await), Reason::Forbidden);
        }
        let by_token = bench.call(&user, "owner_session.revoke").await;
        for call in [&call, &by_token] {
            let foreign = reason(bench.run(call, one(&other.signed_in.session)).await);
            assert_eq!(foreign, Reason::Forbidden);
            let unknown = reason(bench.run(call, one(&OwnerSessionId::made("ows_x"))).await);
            assert_eq!(unknown, foreign, "one cannot tell whether there is one");
            assert_eq!(reason(bench.run(call, all("bob")).await), Reason::Forbidden);
            let everybody = RevokeAll { owner: None, issued_before: None };
            assert_eq!(reason(bench.run(call, everybody).await), Reason::Forbidden);
        }
        if bench.shows_audit() {
            assert_eq!(bench.audit().len() - rows, 11, "{engine:?}: one row for each refusal");
        }
        bench.signals();
        let ended = bench.run(&call, one(second_id)).await.expect("hers").expect("it lived");
        let told = row(&bench);
        assert_eq!((told.sequence, told.subject), (ended, Subject::OwnerSession(second_id.clone())));
        assert!(!lives(&bench, &second.access).await && lives(&bench, &first.access).await);
        assert_eq!(reason(bench.refresh(&second.refresh).await), Reason::InvalidCredentials);
        assert_eq!(listed(&bench, &call, Whose::Own).await.expect("hers"), [first_id.to_string()]);
        assert_eq!(bench.run(&call, one(second_id)).await.expect("again"), None);

        // All of hers, the calling one too.
        bench.run(&call, all("ann")).await.expect("hers");
        assert_eq!(row(&bench).subject, Subject::Owner(ann.clone()));
        assert!(!lives(&bench, &first.access).await && lives(&bench, &other.access).await);
        assert_eq!(reason(bench.run(&call, all("ann")).await), Reason::ProviderAuthFailed, "{engine:?}");
        assert!(lives(&bench, &bench.login(&ann).await.expect("in again").access).await);
    }
}

// Issue 6 line 1, DESIGN 14.10: "issued before" compares numbers, and an access token of a later refresh is of its session.
#[tokio::test]
async fn all_issued_before_an_instant_end_by_one_row() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, _) = bench.first_tokens().await;
        let (ann, bob) = (bench.owner("ann", &["user"]).await, bench.owner("bob", &["user"]).await);
        let old = [bench.login(&ann).await.expect("in"), bench.login(&bob).await.expect("in")];
        bench.clock.advance(Duration::from_secs(60));
        let young = [bench.login(&ann).await.expect("in"), bench.login(&bob).await.expect("in")];
        // Began before, and refreshed after.
        let refreshed = bench.refreshed(&old[0].refresh).await;
        let call = bench.call(&admin, "owner_session.revoke").await;
        let everybody = listed(&bench, &call, Whose::Everybody).await.expect("may");
        assert_eq!(everybody.len(), 4);
        let before = Some(bench.clock.now());
        bench.signals();
        let rows = bench.audit().len();

        bench.run(&call, RevokeAll { owner: Some(ann.clone()), issued_before: before }).await.expect("may");
        assert_eq!(row(&bench).subject, Subject::Owner(ann.clone()));
        assert!(
            !lives(&bench, &old[0].access).await && !lives(&bench, &refreshed.access).await,
            "{engine:?}"
        );
        assert!(lives(&bench, &young[0].access).await && lives(&bench, &old[1].access).await);

        bench.run(&call, RevokeAll { owner: None, issued_before: before }).await.expect("may");
        let told = row(&bench);
        assert_eq!(told.subject, Subject::EveryOwnerSession);
        assert!(
            told.issued_before > bench.valid(&young[1].access).await.principal.issuance,
            "all are asked again"
        );
        assert!(!lives(&bench, &old[1].access).await, "{engine:?}");
        assert!(lives(&bench, &young[0].access).await && lives(&bench, &young[1].access).await);
        assert_eq!(listed(&bench, &call, Whose::Everybody).await.expect("may").len(), 2);
        // Again changes nothing, and an instant before all of them neither.
        let long_ago = Some(bench.clock.now().before(Duration::from_secs(1_000_000)));
        for issued_before in [before, long_ago] {
            bench.run(&call, RevokeAll { owner: None, issued_before }).await.expect("may");
            assert!(lives(&bench, &young[0].access).await && lives(&bench, &young[1].access).await);
        }
        bench.signals();
        bench
            .run(&host("owner_session.revoke"), RevokeAll { owner: None, issued_before: None })
            .await
            .expect("the host");
        row(&bench);
        assert!(!lives(&bench, &young[0].access).await && !lives(&bench, &young[1].access).await);
        assert!(lives(&bench, &admin).await, "a role token is no owner session");
        assert!(listed(&bench, &call, Whose::Everybody).await.expect("may").is_empty());
        if bench.shows_audit() {
            assert_eq!(bench.audit().len() - rows, 5, "{engine:?}: one row each");
        }
        let nobody = RevokeAll { owner: Some(OwnerId::made("nobody")), issued_before: None };
        assert_eq!(reason(bench.run(&call, nobody).await), Reason::NotFound);
        // A new one of everybody's lives, over a sweep too.
        bench.login(&bob).await.expect("in again");
    }
}
