//! What an owner's end, or a membership's, reaches beside credentials: the cookies of the owner's sessions, and calls that
//! services make for the owner by name.

use std::fs;

use interlock_client::{Cookie, Credentials, JobState, OwnerSession, Reason, SetAgent, SetOwner};
use interlock_proto::gateway::v1::ListSessionsRequest;
use interlock_tests::{
    Pair, Setup,
    pair::Peer,
    wire::{self, Metadata},
};
use prost::Message as _;

const LIST_SESSIONS: &str = "/interlock.gateway.v1.SessionService/ListSessions";
const PASSWORD: &str = "longer than twelve";

/// An owner with a session that has a job in its queue.
struct Owned {
    name: String,
    signed_in: OwnerSession,
    project: String,
    session: String,
    job: String,
    cookie: Cookie,
}

async fn made(pair: &Pair, name: &str) -> Owned {
    let owners = pair.sdk_auth_as(&pair.admin()).owners();
    owners.set(name, Some(PASSWORD), SetOwner::default()).await.expect("an owner");
    let signed_in = pair.sdk_auth().login(name, PASSWORD).await.expect("signed in");
    let project = pair.project(&signed_in, &format!("of-{name}")).await;
    let gateway = pair.sdk_gateway(&signed_in.access_token).with_project(project.clone());
    gateway.agents().set(&format!("{name}-agent"), SetAgent::default()).await.expect("an agent");
    let created = gateway.sessions().create("").await.expect("a session");
    let session = created.session.session_id;
    gateway.sessions().attach(&session, &format!("{name}-agent"), &project).await.expect("attached");
    let job = gateway.jobs().submit(&session, "work").await.expect("a job").job_id;
    let cookie = created.cookie.expect("the first answer has it");
    Owned { name: name.to_owned(), signed_in, project, session, job, cookie }
}

/// Whether the cookie alone gets in.
async fn is_in(pair: &Pair, owned: &Owned) -> bool {
    let client = pair.sdk_gateway_as(Credentials::none()).with_cookie(owned.cookie.clone());
    match client.with_project(owned.project.clone()).sessions().get(&owned.session).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.reason(), Some(Reason::ProviderAuthFailed), "{error}");
            false
        }
    }
}

/// The session is there for an administrator; the state of its job.
async fn left(pair: &Pair, owned: &Owned) -> JobState {
    let admin = pair.sdk_gateway(&pair.admin()).with_project(owned.project.clone());
    let session = admin.sessions().get(&owned.session).await.expect("it stays");
    assert_eq!(session.owner_id, owned.name);
    admin.jobs().get(&owned.job).await.expect("it stays").state
}

// DESIGN 14.3, UA-25, UA-38, UA-56: when the call has returned, no cookie of the owner's sessions is admitted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cookies_of_an_owners_sessions_end_with_the_owner() {
    let mut pair = Pair::start().await;
    let admin = pair.sdk_auth_as(&pair.admin());
    let owners = admin.owners();
    let kept = made(&pair, "kept").await;
    // What only changes ends nothing.
    let roles = SetOwner { roles: Some(vec!["user".to_owned(), "ops".to_owned()]), ..SetOwner::default() };
    owners.set("kept", None, roles).await.expect("changed").reached.expect("verifiers were told");
    let keep = SetOwner { keep_sessions: true, ..SetOwner::default() };
    owners.set("kept", Some("another one, and longer"), keep).await.expect("changed");
    assert!(is_in(&pair, &kept).await);

    let removed = made(&pair, "removed").await;
    owners.remove("removed", false).await.expect("removed");
    assert!(!is_in(&pair, &removed).await);
    assert_eq!(left(&pair, &removed).await, JobState::Queued);

    let inactive = made(&pair, "inactive").await;
    let set = SetOwner { active: Some(false), cancel_jobs: true, ..SetOwner::default() };
    owners.set("inactive", None, set).await.expect("deactivated");
    assert!(!is_in(&pair, &inactive).await);
    assert_eq!(left(&pair, &inactive).await, JobState::Cancelled, "the call said so");

    let anew = made(&pair, "anew").await;
    let own = pair.sdk_auth_as(&anew.signed_in.access_token);
    own.change_password(PASSWORD, "another one, and longer", false).await.expect("hers").expect("told");
    assert!(!is_in(&pair, &anew).await);
    assert_eq!(left(&pair, &anew).await, JobState::Queued);

    let member = made(&pair, "member").await;
    admin.remove_member(&member.project, "member", false).await.expect("may").expect("was one");
    assert!(!is_in(&pair, &member).await);
    assert_eq!(left(&pair, &member).await, JobState::Queued);
    assert!(is_in(&pair, &kept).await, "none of theirs");

    // While the gateway is away: it hears of it before it holds a lease again.
    let away = made(&pair, "away").await;
    assert!(is_in(&pair, &away).await);
    pair.gateway.kill();
    owners.remove("away", false).await.expect("removed, once its lease was over");
    pair.start_gateway().await;
    pair.serving().await;
    assert!(!is_in(&pair, &away).await);
    assert!(is_in(&pair, &kept).await);
    assert_eq!(left(&pair, &away).await, JobState::Queued);
}

// UA-17, UA-22, DESIGN 14.7: the real pair, from the list to the revocation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_acts_for_an_owner_by_name_until_the_owner_ends() {
    let mut pair = Pair::stopped(Setup::default().gateway("on_behalf_file", "on-behalf.list"));
    let grant = format!("spiffe://interlock.test/tester {LIST_SESSIONS} for named root\n");
    fs::write(pair.world.path("on-behalf.list"), grant).expect("written");
    pair.start_auth().await;
    pair.start_gateway().await;
    pair.serving().await;
    let named = made(&pair, "named").await;
    let channel = pair.gateway_internal(Peer::Listed);
    let call = async |owner: Option<&str>| {
        let metadata = Metadata::none().with("x-internal-token", pair.world.internal_token());
        let metadata = match owner {
            Some(owner) => metadata.with("x-on-behalf-of", owner),
            None => metadata,
        };
        let list = ListSessionsRequest::default().encode_to_vec();
        wire::call(&channel, LIST_SESSIONS, list, &metadata).await.outcome
    };
    assert_eq!(call(Some("named")).await.code, "OK");
    assert_eq!(call(None).await.reason, "IDENTITY_REQUIRED");
    let refused = call(Some("alice")).await;
    assert_eq!((refused.code.as_str(), refused.reason.as_str()), ("PERMISSION_DENIED", "FORBIDDEN"));
    assert_eq!(call(Some("root")).await, refused, "listed, and an administrator");
    let owners = pair.sdk_auth_as(&pair.admin()).owners();
    owners.remove(&named.name, false).await.expect("removed").expect("told");
    assert_eq!(call(Some("named")).await, refused, "at once");
}
