//! Project tokens, from issue to end, on every engine.

mod support;

use std::time::Duration;

use interlock_auth::{
    caller::{Call, Proof},
    ids::{CredentialId, OwnerId, ProjectId, RequestId},
    limits,
    owner_session::WhoAmI,
    project::{AddMember, ListProjects, RemoveMember},
    project_token::{Grant, IssueToken, Issued, ListTokens, RevokeToken, RotateToken},
    sweep::{Clear, FindDue},
    trust::Validation,
};
use interlock_kit::{
    error::{Error, Reason},
    unscoped::Unscoped,
};
use interlock_proto::credential::{Credential, Kind};

use support::{Bench, ENGINES, HASH, OTHER_HASH, host, reason, seconds};

fn grant(ttl: Option<Duration>) -> Grant {
    Grant::new("ci", vec!["jobs:work".to_owned()], vec!["builder".to_owned()], ttl).expect("good")
}

async fn issue(
    bench: &Bench,
    call: &Call,
    project: &ProjectId,
    ttl: Option<Duration>,
) -> Result<(Credential, Issued), Error> {
    let (secret, new) = bench.credential(Kind::Project);
    let request = RequestId::made(format!("r{}", bench.number()));
    let sealed = secret.expose().as_bytes().to_vec();
    let verb = IssueToken { project: project.clone(), grant: grant(ttl), new, request, sealed };
    Ok((secret, bench.run(call, verb).await?))
}

fn rotation(
    bench: &Bench,
    project: &ProjectId,
    token: &CredentialId,
    grace: Duration,
) -> (Credential, RotateToken) {
    let (secret, new) = bench.credential(Kind::Project);
    let request = RequestId::made(format!("r{}", bench.number()));
    let sealed = secret.expose().as_bytes().to_vec();
    let (project, token) = (project.clone(), token.clone());
    (secret, RotateToken { project, token, grace, ttl: None, new, request, sealed })
}

async fn is_valid(bench: &Bench, secret: &Credential) -> bool {
    matches!(bench.validate(secret).await, Validation::Valid(_))
}

async fn is_expired(bench: &Bench, secret: &Credential) -> bool {
    matches!(bench.validate(secret).await, Validation::Expired(_))
}

/// The calls of `ann`, a member of `demo`, of `bob`, who is none, and of the role token `admin`.
struct Cast {
    bench: Bench,
    ann: Call,
    bob: Call,
    admin: Call,
    demo: ProjectId,
}

async fn cast(engine: support::Engine) -> Cast {
    let bench = Bench::open(engine);
    let (admin, _) = bench.first_tokens().await;
    let mut calls = Vec::new();
    for owner in ["ann", "bob"] {
        let owner = bench.owner(owner, &["user"]).await;
        let session = bench.login(&owner).await.expect("in");
        calls.push(bench.call(&session.access, "project.token").await);
    }
    let admin = bench.call(&admin, "project.token").await;
    let (bob, ann) = (calls.pop().expect("two"), calls.pop().expect("two"));
    let demo = bench.project(&ann, "demo").await.expect("made").id;
    Cast { bench, ann, bob, admin, demo }
}

// DESIGN 5, 14.2
#[tokio::test]
async fn a_token_acts_for_its_issuer_in_one_project() {
    for engine in ENGINES {
        let Cast { bench, ann, bob, admin, demo } = cast(engine).await;
        let (secret, issued) = issue(&bench, &ann, &demo, None).await.expect("members may");
        let verdict = bench.valid(&secret).await;
        let principal = &verdict.principal;
        assert_eq!((principal.owner_id.as_str(), principal.is_administrator()), ("ann", false));
        let Proof::ProjectToken { project, scopes, agents } = &principal.proof else {
            panic!("{principal:?}")
        };
        assert_eq!(
            (project, &scopes[..], &agents[..]),
            (&demo, &["jobs:work".to_owned()][..], &["builder".to_owned()][..])
        );
        // It lists its own project and knows itself; it makes, adds and issues nothing.
        let other = bench.project(&ann, "other").await.expect("made");
        let mine = support::as_principal(verdict, "project.token");
        let page = bench.ask(&mine, ListProjects { after: None, limit: 0 }).await.expect("may");
        assert_eq!(page.projects.iter().map(|p| &p.id).collect::<Vec<_>>(), [&demo]);
        assert_eq!(bench.ask(&mine, WhoAmI).await.expect("may").project_name.as_deref(), Some("demo"));
        assert_eq!(reason(issue(&bench, &mine, &demo, None).await), Reason::Forbidden);
        assert_eq!(reason(bench.project(&mine, "more").await), Reason::Forbidden);
        // Strangers hear the same of a foreign project and of none; administrators may.
        let unknown = ProjectId::made("prj_none");
        for project in [&demo, &unknown] {
            assert_eq!(reason(issue(&bench, &bob, project, None).await), Reason::Forbidden);
            let list = ListTokens { project: project.clone(), after: 0, limit: 0 };
            assert_eq!(reason(bench.ask(&bob, list).await), Reason::Forbidden);
        }
        assert_eq!(reason(issue(&bench, &admin, &unknown, None).await), Reason::NotFound);
        assert_eq!(reason(issue(&bench, &admin, &ProjectId::system(), None).await), Reason::Forbidden);
        let (by_admin, _) = issue(&bench, &admin, &demo, None).await.expect("administrators may");
        assert!(!bench.valid(&by_admin).await.principal.is_administrator());
        let list = ListTokens { project: demo.clone(), after: 0, limit: 1 };
        let first = bench.ask(&ann, list).await.expect("members see");
        assert_eq!((first.tokens.len(), &first.tokens[0].id), (1, &issued.token.id));
        let next = ListTokens { project: demo.clone(), after: first.next.expect("more"), limit: 1 };
        let second = bench.ask(&ann, next).await.expect("members see");
        assert_eq!((second.tokens[0].issuer.as_str(), second.next), ("admin", None));
        let elsewhere = ListTokens { project: other.id, after: 0, limit: 0 };
        assert!(bench.ask(&ann, elsewhere).await.expect("may").tokens.is_empty());
    }
}

// SQ-33: expired and revoked are told apart.
#[tokio::test]
async fn a_token_expires_or_is_revoked_and_is_forgotten_a_day_later() {
    for engine in ENGINES {
        let Cast { bench, ann, bob, demo, .. } = cast(engine).await;
        let (short, _) = issue(&bench, &ann, &demo, Some(seconds(60))).await.expect("issued");
        let (long, issued) = issue(&bench, &ann, &demo, None).await.expect("issued");
        let revoke = RevokeToken { project: demo.clone(), token: issued.token.id.clone() };
        assert_eq!(reason(bench.run(&bob, revoke.clone()).await), Reason::Forbidden);
        bench.clock.advance(seconds(59));
        assert!(is_valid(&bench, &short).await);
        bench.clock.advance(seconds(1));
        assert!(is_expired(&bench, &short).await, "at its instant");
        assert!(is_valid(&bench, &long).await);
        let row = bench.run(&ann, revoke.clone()).await.expect("members may");
        assert_eq!(bench.validate(&long).await, Validation::Refused, "revoked is not expired");
        assert_eq!(bench.run(&ann, revoke.clone()).await.expect("again"), row, "the same barrier");
        let unknown = RevokeToken { token: CredentialId::made("crd_none"), ..revoke };
        assert_eq!(reason(bench.run(&ann, unknown).await), Reason::NotFound);
        bench.clock.advance(limits::ENDED_KEPT);
        for due in bench.ask(&host("sweep"), FindDue).await.expect("may") {
            bench.run(&host("sweep"), Clear { due }).await.expect("may");
        }
        assert_eq!(bench.validate(&short).await, Validation::Refused, "nobody remembers it");
        let list = ListTokens { project: demo.clone(), after: 0, limit: 0 };
        assert!(bench.ask(&ann, list).await.expect("may").tokens.is_empty());
    }
}

// DESIGN 14.2, 14.3
#[tokio::test]
async fn a_token_ends_with_its_issuer_and_does_not_come_back() {
    for engine in ENGINES {
        let Cast { bench, ann, admin, demo, .. } = cast(engine).await;
        let member = |owner: &str| (demo.clone(), OwnerId::made(owner));
        let (project, owner) = member("bob");
        bench.run(&ann, AddMember { project, owner }).await.expect("added");
        let bob = bench.login(&OwnerId::made("bob")).await.expect("in");
        let bob = bench.call(&bob.access, "project.token").await;
        let (first, _) = issue(&bench, &bob, &demo, None).await.expect("a member may");
        // No longer a member; a member again.
        let (project, owner) = member("bob");
        let remove = RemoveMember { project, owner, cancel_jobs: false };
        bench.run(&ann, remove.clone()).await.expect("may").expect("was one");
        assert_eq!(bench.run(&ann, remove).await.expect("again"), None);
        assert_eq!(bench.validate(&first).await, Validation::Refused);
        let (project, owner) = member("bob");
        bench.run(&ann, AddMember { project, owner }).await.expect("added");
        assert_eq!(bench.validate(&first).await, Validation::Refused, "of the earlier membership");
        let (second, _) = issue(&bench, &bob, &demo, None).await.expect("a member may");
        assert!(is_valid(&bench, &second).await);
        // Another password; inactive and active again.
        bench.apply("bob", &["user"], true, OTHER_HASH, true).await.expect("changed");
        assert_eq!(bench.validate(&second).await, Validation::Refused);
        assert_eq!(
            reason(issue(&bench, &bob, &demo, None).await),
            Reason::ProviderAuthFailed,
            "its session has ended"
        );
        let (third, _) = issue(&bench, &ann, &demo, None).await.expect("a member may");
        bench.apply("ann", &["user"], false, HASH, false).await.expect("changed");
        assert_eq!(bench.validate(&third).await, Validation::Refused);
        bench.apply("ann", &["user"], true, HASH, false).await.expect("changed");
        assert_eq!(bench.validate(&third).await, Validation::Refused, "it stays ended");
        // Issued as an administrator: while that is what the issuer is.
        bench.owner("rita", &["root"]).await;
        let rita = bench.login(&OwnerId::made("rita")).await.expect("in");
        let rita = bench.call(&rita.access, "project.token").await;
        let (fourth, _) = issue(&bench, &rita, &demo, None).await.expect("administrators may");
        assert!(is_valid(&bench, &fourth).await);
        bench.apply("rita", &["user"], true, HASH, false).await.expect("changed");
        assert_eq!(bench.validate(&fourth).await, Validation::Refused);
        bench.apply("rita", &["root"], true, HASH, false).await.expect("changed");
        assert_eq!(bench.validate(&fourth).await, Validation::Refused, "it stays ended");
        assert!(issue(&bench, &admin, &demo, None).await.is_ok());
    }
}

#[tokio::test]
async fn a_rotation_is_the_issuers_and_has_one_answer() {
    for engine in ENGINES {
        let Cast { bench, ann, admin, demo, .. } = cast(engine).await;
        let (old, issued) = issue(&bench, &ann, &demo, Some(seconds(600))).await.expect("issued");
        let (_, verb) = rotation(&bench, &demo, &issued.token.id, seconds(0));
        // The answer acts for the issuer: no administrator gets it.
        assert_eq!(reason(bench.run(&admin, verb).await), Reason::Forbidden);
        let (new, verb) = rotation(&bench, &demo, &issued.token.id, seconds(30));
        let made = bench.run(&ann, verb.clone()).await.expect("the issuer may");
        assert!(is_valid(&bench, &old).await && is_valid(&bench, &new).await, "a grace was asked for");
        let again = bench.run(&ann, verb.clone()).await.expect("the same request");
        assert!(again.repeated && again.sealed == made.sealed && again.token.id == made.token.id);
        let other = RotateToken { grace: seconds(1), ..verb.clone() };
        assert_eq!(reason(bench.run(&ann, other).await), Reason::RequestIdReused);
        let (_, twice) = rotation(&bench, &demo, &issued.token.id, seconds(0));
        assert_eq!(reason(bench.run(&ann, twice).await), Reason::Conflict, "it has a successor");
        bench.clock.advance(seconds(30));
        assert!(is_expired(&bench, &old).await && is_valid(&bench, &new).await);
        let successor = bench.valid(&new).await.principal.expires_at;
        assert_eq!(
            successor,
            Some(made.token.created_at.after(seconds(600))),
            "it lives as long as the first did"
        );
        let (newest, verb) = rotation(&bench, &demo, &made.token.id, seconds(0));
        bench.run(&ann, verb).await.expect("the issuer may");
        assert_eq!(bench.validate(&new).await, Validation::Refused, "without grace it is revoked");
        assert!(is_valid(&bench, &newest).await);
    }
}

// SQ-02, SQ-05, SQ-18, SQ-20, SQ-22: lock 2 at auth, after the reach, before any write, with one row.
#[tokio::test]
async fn a_call_in_a_project_names_that_project() {
    for engine in ENGINES {
        let Cast { bench, ann, bob, demo, .. } = cast(engine).await;
        let (_, issued) = issue(&bench, &ann, &demo, None).await.expect("issued");
        let naming =
            |call: &Call, project: &str| Call { named: Some(ProjectId::made(project)), ..call.clone() };
        let (right, wrong) = (naming(&ann, demo.as_str()), naming(&ann, "prj_other"));
        let revoke = RevokeToken { project: demo.clone(), token: issued.token.id.clone() };
        let before = (bench.state(), bench.audit().len());
        assert_eq!(reason(bench.run(&wrong, revoke.clone()).await), Reason::ProjectMismatch);
        assert_eq!(bench.state(), before.0, "nothing is written");
        if bench.shows_audit() {
            assert_eq!(bench.audit().len(), before.1 + 1, "exactly one row");
        }
        let list = ListTokens { project: demo.clone(), after: 0, limit: 0 };
        assert_eq!(reason(bench.ask(&wrong, list.clone()).await), Reason::ProjectMismatch);
        bench.ask(&right, list.clone()).await.expect("the right one");
        // The reach is decided first: a stranger hears nothing of locks.
        assert_eq!(reason(bench.ask(&naming(&bob, "prj_other"), list.clone()).await), Reason::Forbidden);
        // SQ-17, SQ-28
        let deny = Call { unscoped: Unscoped::Deny, ..ann.clone() };
        assert_eq!(reason(bench.ask(&deny, list.clone()).await), Reason::ProjectRequired);
        let sunset = Some(bench.clock.now().after(seconds(5)));
        let warn = Call { unscoped: Unscoped::Warn { sunset }, ..ann.clone() };
        bench.ask(&warn, list.clone()).await.expect("not yet");
        bench.clock.advance(seconds(5));
        assert_eq!(reason(bench.run(&warn, revoke.clone()).await), Reason::UnscopedSunset);
        bench.run(&right, revoke).await.expect("the right one");
    }
}

#[test]
fn a_grant_is_bounded() {
    let grant = |label: &str, scopes: &[&str], agents: &[&str], ttl: Option<u64>| {
        let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Grant::new(label, all(scopes), all(agents), ttl.map(seconds))
    };
    grant("", &["jobs:work", "jobs:read", "jobs:work"], &["b", "a"], Some(1)).expect("good");
    for (bad, why) in [
        (grant("", &[], &[], None), Reason::MissingField),
        (grant("", &["admin"], &[], None), Reason::InvalidField),
        (grant("", &["jobs:read"], &["a"], None), Reason::InvalidField),
        (grant("", &["jobs:work"], &["A b"], None), Reason::InvalidField),
        (grant("\u{202e}", &["jobs:work"], &[], None), Reason::InvalidField),
        (grant("", &["jobs:work"], &[], Some(0)), Reason::InvalidField),
        (grant("", &["jobs:work"], &[], Some(400 * 24 * 3600)), Reason::InvalidField),
        (grant("", &["jobs:work"; 17], &[], None), Reason::InvalidField),
        (grant("", &["jobs:work"], &["a"; 33], None), Reason::InvalidField),
    ] {
        assert_eq!(bad.expect_err("out of bounds").reason(), why);
    }
}
