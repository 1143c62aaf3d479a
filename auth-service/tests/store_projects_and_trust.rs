//! Projects, what verifiers ask, the revocation log, and sweeps, on every engine.

mod support;

use interlock_auth::{
    ids::{OwnerId, ProjectId, ProjectName, RequestId},
    limits,
    owner::{Edit, RemoveOwner, SetOwner},
    owner_session::Logout,
    project::{AddMember, CreateProject, ListProjects, RemoveMember},
    revocation::{Effect, RevocationsAfter, Subject},
    role_token::Role,
    sweep::{Clear, Due, FindDue},
    trust::{CheckMembership, DescribeOwner, Described, Validate, Validation},
};
use interlock_kit::error::Reason;
use interlock_proto::credential::Kind;

use support::{Bench, ENGINES, Engine, host, nobody, reason, seconds, service};

async fn enters(bench: &Bench, owner: &str, project: &ProjectId) -> bool {
    let check = CheckMembership { owner: OwnerId::made(owner), project: project.clone() };
    bench.ask(&service(), check).await.expect("services may").member
}

async fn names(bench: &Bench, call: &interlock_auth::caller::Call) -> Vec<String> {
    let page = bench.ask(call, ListProjects { after: None, limit: 0 }).await.expect("may");
    page.projects.into_iter().map(|project| project.name.to_string()).collect()
}

async fn described(bench: &Bench, owner: &str) -> Described {
    bench.ask(&service(), DescribeOwner { owner: OwnerId::made(owner) }).await.expect("services may")
}

// UA-17, UA-25, UA-26, UA-48
#[tokio::test]
async fn owners_are_described_to_services_and_each_change_of_the_answer_has_its_row() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, user) = bench.first_tokens().await;
        bench.owner("ann", &["user"]).await;
        bench.owner("rita", &["root", "ops"]).await;
        let (admin, user) = (bench.call(&admin, "owner").await, bench.call(&user, "owner").await);
        let before = described(&bench, "ann").await;
        assert!(before.known && before.active && before.role == Some(Role::User));
        let rita = described(&bench, "rita").await;
        assert_eq!((rita.role, rita.roles), (Some(Role::Admin), vec!["root".to_owned(), "ops".to_owned()]));
        for (builtin, role) in [("admin", Some(Role::Admin)), ("user", Some(Role::User)), ("local", None)] {
            let found = described(&bench, builtin).await;
            assert_eq!((found.known, found.role, found.active), (true, role, role.is_some()), "{builtin}");
        }
        let nobody = described(&bench, "nobody").await;
        assert_eq!((nobody.known, nobody.active, nobody.roles.len()), (false, false, 0));
        for call in [&admin, &user] {
            let ask = DescribeOwner { owner: OwnerId::made("ann") };
            assert_eq!(reason(bench.ask(call, ask).await), Reason::Forbidden, "services only");
        }

        let set = |edit: Edit| SetOwner {
            owner: OwnerId::made("ann"),
            edit,
            keep_sessions: false,
            expected: None,
            cancel_jobs: false,
        };
        // DESIGN 14.3: what only changes is told apart from what ends.
        let edits = [
            (Edit { roles: Some(vec!["owner".to_owned()]), ..Edit::default() }, Effect::Asks),
            (Edit { active: Some(false), ..Edit::default() }, Effect::Ends),
            (Edit { active: Some(true), ..Edit::default() }, Effect::Asks),
        ];
        let mut last = before;
        for (edit, effect) in edits {
            bench.run(&admin, set(edit.clone())).await.expect("administrators may");
            let now = described(&bench, "ann").await;
            assert_ne!((now.role, now.active), (last.role, last.active), "{edit:?}");
            let log = bench.ask(&service(), RevocationsAfter { after: last.sequence, limit: 10 }).await;
            let log = log.expect("may");
            let hers = Subject::Owner(OwnerId::made("ann"));
            let told: Vec<_> = log.rows.iter().map(|row| (&row.subject, row.effect)).collect();
            assert_eq!(told, [(&hers, effect)], "{edit:?}");
            last = now;
        }
        let remove = RemoveOwner { owner: OwnerId::made("ann"), expected: None, cancel_jobs: true };
        let row = bench.run(&admin, remove).await.expect("administrators may");
        let gone = described(&bench, "ann").await;
        assert_eq!((gone.known, gone.active, gone.sequence), (false, false, row));
        let log = bench.ask(&service(), RevocationsAfter { after: row - 1, limit: 1 }).await.expect("may");
        assert_eq!(log.rows[0].effect, Effect::EndsWork, "cancel_jobs goes with it");
    }
}

#[tokio::test]
async fn members_and_administrators_enter_and_add() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, user) = bench.first_tokens().await;
        let (ann, bob) = (bench.owner("ann", &["user"]).await, bench.owner("bob", &["user"]).await);
        bench.owner("rita", &["root"]).await;
        let (ann, bob) = (bench.login(&ann).await.expect("in"), bench.login(&bob).await.expect("in"));
        let (ann, bob) = (bench.call(&ann.access, "project").await, bench.call(&bob.access, "project").await);
        let admin = bench.call(&admin, "project").await;
        let user = bench.call(&user, "project").await;
        let demo = bench.project(&ann, "demo").await.expect("made");
        assert!(enters(&bench, "ann", &demo.id).await && !enters(&bench, "bob", &demo.id).await);
        assert!(enters(&bench, "rita", &demo.id).await && enters(&bench, "admin", &demo.id).await);
        assert!(!enters(&bench, "user", &demo.id).await && !enters(&bench, "local", &demo.id).await);

        let add = |owner: &str, project: &ProjectId| AddMember {
            project: project.clone(),
            owner: OwnerId::made(owner),
        };
        // Foreign and unknown: the same answer.
        let unknown = ProjectId::made("prj_none");
        for project in [&demo.id, &unknown] {
            assert_eq!(reason(bench.run(&bob, add("bob", project)).await), Reason::Forbidden);
        }
        assert_eq!(reason(bench.run(&admin, add("bob", &unknown)).await), Reason::NotFound);
        assert_eq!(reason(bench.run(&ann, add("carol", &demo.id)).await), Reason::NotFound);
        let row = bench.run(&ann, add("bob", &demo.id)).await.expect("members may").expect("is new");
        assert_eq!(bench.run(&ann, add("bob", &demo.id)).await.expect("no error"), None);
        assert!(enters(&bench, "bob", &demo.id).await);
        let log = bench.ask(&service(), RevocationsAfter { after: row - 1, limit: 10 }).await.expect("may");
        assert_eq!(log.rows[0].subject, Subject::Membership(OwnerId::made("bob"), demo.id.clone()));
        bench.run(&bob, add("user", &demo.id)).await.expect("the built-in owner may be a member");
        assert_eq!(names(&bench, &user).await, ["demo"]);
        // `local`, as whom nobody signs in, enters what it was let into, until it is put out again; `system` nothing.
        let row = bench.run(&bob, add("local", &demo.id)).await.expect("let in").expect("is new");
        assert!(enters(&bench, "local", &demo.id).await);
        assert!(!described(&bench, "local").await.active, "and is as inactive as before");
        assert_eq!(reason(bench.run(&bob, add("system", &demo.id)).await), Reason::NotFound);
        let remove =
            RemoveMember { project: demo.id.clone(), owner: OwnerId::made("local"), cancel_jobs: false };
        assert!(bench.run(&bob, remove).await.expect("members may").is_some_and(|ended| ended > row));
        assert!(!enters(&bench, "local", &demo.id).await);

        // The built-in project: administrators only, and no members.
        let system = ProjectId::system();
        assert!(enters(&bench, "admin", &system).await && enters(&bench, "rita", &system).await);
        assert!(!enters(&bench, "ann", &system).await);
        assert_eq!(reason(bench.run(&admin, add("ann", &system)).await), Reason::Forbidden);
        assert_eq!(names(&bench, &admin).await, ["demo", "system"]);
    }
}

#[tokio::test]
async fn a_name_is_taken_once_and_a_request_is_done_once() {
    // I7
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, user) = bench.first_tokens().await;
        let (admin, user) =
            (bench.call(&admin, "project.create").await, bench.call(&user, "project.create").await);
        let create = |id: &str, name: &str, request: &str| CreateProject {
            project: ProjectId::made(id),
            name: ProjectName::made(name),
            request: RequestId::made(request),
        };
        let first = bench.run(&admin, create("prj_1", "demo", "r1")).await.expect("made");
        assert_eq!(bench.run(&admin, create("prj_2", "demo", "r1")).await.expect("the same"), first);
        assert_eq!(reason(bench.run(&admin, create("prj_3", "other", "r1")).await), Reason::RequestIdReused);
        assert_eq!(reason(bench.run(&user, create("prj_4", "demo", "r1")).await), Reason::NameTaken);
        assert_eq!(
            reason(bench.run(&nobody("x"), create("prj_5", "x", "r")).await),
            Reason::ProviderAuthFailed
        );
        if bench.shows_audit() {
            let outcomes: Vec<_> = bench.audit().into_iter().skip(1).map(|row| row.3).collect();
            assert_eq!(outcomes, ["", "REQUEST_ID_REUSED", "NAME_TAKEN"], "I11, I12");
        }
    }
}

#[tokio::test]
async fn pages_follow_each_other_by_name() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (_, user) = bench.first_tokens().await;
        let call = bench.call(&user, "project").await;
        for name in ["c", "a", "d", "b"] {
            bench.project(&call, name).await.expect("made");
        }
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let page = bench.ask(&call, ListProjects { after, limit: 3 }).await.expect("may");
            assert!(page.projects.len() <= 3);
            seen.extend(page.projects.into_iter().map(|project| project.name.to_string()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, ["a", "b", "c", "d"]);
    }
}

#[tokio::test]
async fn only_services_validate() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, _) = bench.first_tokens().await;
        let call = bench.call(&admin, "trust.validate").await;
        let validate = Validate { hash: admin.hash() };
        assert_eq!(reason(bench.ask(&call, validate.clone()).await), Reason::Forbidden);
        assert!(matches!(bench.ask(&service(), validate).await, Ok(Validation::Valid(_))));
        let garbage = Validate { hash: [9; 32] };
        assert_eq!(bench.ask(&service(), garbage).await.expect("an answer"), Validation::Refused);
        if bench.shows_audit() {
            assert_eq!(
                bench.audit().len(),
                2,
                "an unknown credential is an answer, not a denial of the service"
            );
        }
    }
}

#[tokio::test]
async fn the_log_has_no_gaps_and_says_when_it_was_cut() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let (admin, _) = bench.first_tokens().await;
        let call = bench.call(&admin, "role_token.rotate").await;
        for n in 0..5 {
            bench.rotate(&call, Role::User, seconds(0), &format!("r{n}")).await.1.expect("rotated");
        }
        let read = |after, limit| RevocationsAfter { after, limit };
        let page = bench.ask(&service(), read(1, 3)).await.expect("may");
        assert_eq!(page.rows.iter().map(|row| row.sequence).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!((page.newest, page.reset), (5, false));
        let foreign = bench.ask(&service(), read(6, 3)).await.expect("may");
        assert!(foreign.reset && foreign.rows.is_empty(), "of another store");

        bench.clock.advance(limits::REVOCATION_AGE + seconds(1));
        bench.rotate(&call, Role::User, seconds(0), "young").await.1.expect("rotated");
        let due = bench.ask(&host("sweep"), FindDue).await.expect("the host may");
        assert!(due.contains(&Due::Revocations(5)), "{due:?}");
        for due in due {
            assert!(bench.run(&host("sweep"), Clear { due: due.clone() }).await.expect("cleared"), "{due:?}");
            assert!(
                !bench.run(&host("sweep"), Clear { due: due.clone() }).await.expect("answers"),
                "{due:?}"
            );
        }
        assert_eq!(bench.ask(&host("sweep"), FindDue).await.expect("may"), []);
        assert!(bench.ask(&service(), read(4, 10)).await.expect("may").reset);
        let page = bench.ask(&service(), read(5, 10)).await.expect("may");
        assert_eq!((page.rows.len(), page.newest, page.reset), (1, 6, false));
        assert_eq!(reason(bench.ask(&call, FindDue).await), Reason::Forbidden);
    }
}

#[tokio::test]
async fn a_sweep_clears_what_has_ended_and_nothing_else() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        bench.first_tokens().await;
        let ann = bench.owner("ann", &["user"]).await;
        let (gone, stays) = (bench.login(&ann).await.expect("in"), bench.login(&ann).await.expect("in"));
        bench.refreshed(&stays.refresh).await;
        let out = Logout { kind: Kind::Owner, presented: gone.access.hash() };
        bench.run(&nobody("owner_session.logout"), out).await.expect("out");
        bench.clock.advance(limits::REFRESH_WINDOW);
        let due = bench.ask(&host("sweep"), FindDue).await.expect("may");
        assert_eq!(
            due,
            [Due::Successor(stays.refresh.hash()), Due::OwnerSession(gone.signed_in.session.clone())],
            "{engine:?}: sealed secrets first"
        );
        for due in due {
            bench.run(&host("sweep"), Clear { due }).await.expect("cleared");
        }
        bench.valid(&stays.access).await;
        assert_eq!(bench.validate(&gone.access).await, Validation::Refused);
        // The sealed answer is gone; that it was used is still known.
        let outcome = bench.refresh(&stays.refresh).await.expect("answers");
        assert!(matches!(outcome, interlock_auth::owner_session::Refreshed::Replayed { .. }));
    }
}

#[tokio::test]
async fn the_log_is_cut_a_bounded_part_at_a_time() {
    for engine in [Engine::Memory, Engine::Model] {
        let bench = Bench::open(engine);
        let (admin, _) = bench.first_tokens().await;
        let call = bench.call(&admin, "role_token.rotate").await;
        let part = limits::REVOCATIONS_CLEARED_MAX;
        for n in 0..part + 3 {
            bench.rotate(&call, Role::User, seconds(0), &format!("r{n}")).await.1.expect("rotated");
        }
        bench.clock.advance(limits::REVOCATION_AGE + seconds(1));
        let mut cut = Vec::new();
        for _ in 0..3 {
            for due in bench.ask(&host("sweep"), FindDue).await.expect("the host may") {
                if let Due::Revocations(through) = due {
                    cut.push(through);
                    assert!(bench.run(&host("sweep"), Clear { due }).await.expect("cleared"), "{engine:?}");
                }
            }
        }
        assert_eq!(cut, [part, part + 3], "{engine:?}");
        let page = bench.ask(&service(), RevocationsAfter { after: part + 3, limit: 1 }).await.expect("may");
        assert!(!page.reset && page.rows.is_empty() && page.newest == part + 3);
        // What is young is not cut, whoever asks for it.
        bench.rotate(&call, Role::User, seconds(0), "young").await.1.expect("rotated");
        let young = Clear { due: Due::Revocations(part + 4) };
        assert!(!bench.run(&host("sweep"), young).await.expect("answers"), "{engine:?}");
    }
}

#[tokio::test]
async fn sessions_that_ended_together_are_swept() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let ann = bench.owner("ann", &["user"]).await;
        let first = bench.login(&ann).await.expect("in").signed_in.session;
        let second = bench.login(&ann).await.expect("in").signed_in.session;
        bench.apply("ann", &["user"], false, support::HASH, false).await.expect("applied");
        let mut due = bench.ask(&host("sweep"), FindDue).await.expect("may");
        due.sort_by_key(|due| format!("{due:?}"));
        let mut expected = [Due::OwnerSession(first), Due::OwnerSession(second)];
        expected.sort_by_key(|due| format!("{due:?}"));
        assert_eq!(due, expected, "{engine:?}: of an inactive owner");
        for due in due {
            assert!(bench.run(&host("sweep"), Clear { due }).await.expect("cleared"), "{engine:?}");
        }
        assert_eq!(bench.ask(&host("sweep"), FindDue).await.expect("may"), [], "{engine:?}");
    }
}
