//! Calls of services that name the owner whom they act for.

use interlock_proto::gateway::v1::{
    ForceFailJobRequest, GetSessionRequest, ListFilesRequest, ListSessionsRequest, SetAgentRequest,
    file_service_client::FileServiceClient, stream_events_response::Message,
};
use tonic::{Code, Status};

use crate::support::{Calls, ON_BEHALF, PATIENCE, PROJECT, Served, cookie_of, internal_token, next, reason};

const GRANTS: &str = "# who acts for whom\n\
    spiffe://test.example/api /interlock.gateway.v1.SessionService/ /interlock.gateway.v1.JobService/ \
    /interlock.gateway.v1.AgentService/ for alice bob inert root nobody\n";

/// The service `api`, with both factors.
async fn api(served: &Served) -> Calls {
    let api = served.service("api").await.with("x-interlock-project", PROJECT);
    api.with("x-internal-token", &internal_token())
}

async fn list(calls: &Calls) -> Result<usize, Status> {
    let listed = calls.sessions().list_sessions(ListSessionsRequest::default()).await?;
    Ok(listed.into_inner().sessions.len())
}

fn told(status: &Status) -> (Code, String, String) {
    (status.code(), reason(status), status.message().to_owned())
}

// UA-17, UA-18, UA-22, UA-23, DESIGN 14.7: unary and stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_listed_service_acts_for_the_owner_that_it_names_and_for_nobody_else() {
    let mut served = Served::start_listing(GRANTS).await;
    for owner in ["alice", "bob", "carol"] {
        served.trust.name(owner, "user");
        served.trust.enter(owner, PROJECT);
    }
    served.trust.name("root", "admin");
    served.trust.name_inactive("inert");
    let api = api(&served).await;
    let named = |owner: &str| api.clone().with("x-on-behalf-of", owner);

    // Named: hers in every way.
    let alice = named("alice");
    alice.set_agent().await;
    let created = alice.create("first").await;
    let cookie = cookie_of(&created);
    assert_eq!(cookie_of(&alice.create("first").await), cookie, "a retry gets the first answer");
    let session = created.into_inner().session.expect("made");
    assert_eq!(session.owner_id, "alice");
    let session = session.session_id;
    assert!(alice.attach(&session).await.expect("attached"));
    let job = alice.submit(&session, "one").await.expect("queued").job_id;
    let (known, own) = served.owner("alice").await;
    assert_eq!(list(&own).await.expect("hers"), 1);
    let mut stream = alice.stream(&session, 0).await.expect("a stream");
    let opened = next(&mut stream).await.expect("open").expect("a message").message;
    assert!(matches!(opened, Some(Message::Opened(_))), "{opened:?}");

    // Nobody named, and names that are none: no default owner anywhere.
    let refused = list(&api).await.expect_err("nobody");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "IDENTITY_REQUIRED"));
    for empty in ["", "no one", "Alice!"] {
        let refused = list(&named(empty)).await.expect_err("no owner id");
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    }
    // Never beside a second credential, whosever it is.
    let bearer = format!("Bearer {}", known.credential.expose());
    for beside in [alice.clone().with("authorization", &bearer), alice.clone().with("cookie", &cookie)] {
        let refused = list(&beside).await.expect_err("two");
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "FORBIDDEN"));
    }
    // Not listed, unknown, inactive, an administrator: one answer.
    let refusals = ["carol", "nobody", "inert", "root", "admin"].map(|owner| {
        let calls = named(owner);
        async move { told(&list(&calls).await.expect_err("not for this owner")) }
    });
    let refusals = futures_util::future::join_all(refusals).await;
    assert_eq!((refusals[0].0, refusals[0].1.as_str()), (Code::PermissionDenied, "FORBIDDEN"));
    assert!(refusals.iter().all(|refusal| *refusal == refusals[0]), "{refusals:?}");
    // Another method than those of the list, and whoever is no listed service.
    let mut files = FileServiceClient::new(alice.line());
    let of_session = ListFilesRequest { session_id: session.clone(), ..ListFilesRequest::default() };
    assert_eq!(told(&files.list_files(of_session).await.expect_err("not listed")), refusals[0]);
    let public = served.nobody().await.with("x-on-behalf-of", "alice");
    assert_eq!(reason(&list(&public).await.expect_err("public")), "FORBIDDEN");
    let stranger = served.service("stranger").await.with("x-internal-token", &internal_token());
    let refused = list(&stranger.with("x-on-behalf-of", "alice")).await.expect_err("a stranger");
    assert_eq!(reason(&refused), "FORBIDDEN");
    // Neither an administrator nor anybody else's.
    let share = SetAgentRequest { agent_id: "mine".to_owned(), shared: Some(true), description: None };
    assert_eq!(reason(&alice.agents().set_agent(share).await.expect_err("no administrator")), "FORBIDDEN");
    let force = ForceFailJobRequest { job_id: job, cause: String::new() };
    let refused = alice.jobs().force_fail_job(force).await.expect_err("no root");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let foreign = GetSessionRequest { session_id: session.clone() };
    let refused = named("bob").sessions().get_session(foreign).await.expect_err("hers");
    assert_eq!(reason(&refused), "OWNER_MISMATCH");

    // Revoked: streams end before it is acknowledged, and calls are refused.
    assert!(served.trust.forget("alice").await >= 1);
    let ended = async {
        while next(&mut stream).await?.is_some() {}
        Ok::<(), Status>(())
    };
    assert_eq!(reason(&ended.await.expect_err("an end with its reason")), "REVOKED");
    assert_eq!(told(&list(&alice).await.expect_err("she is none any more")), refusals[0]);

    served.stop().await;
    let rows = served.audit();
    let service = "spiffe://test.example/api";
    let made = rows.iter().find(|row| row.action == "session.create").expect("a row");
    assert_eq!((made.origin.principal.as_str(), made.origin.role.as_str()), ("alice", "user"));
    assert!(made.origin.peer.ends_with(service), "{:?}", made.origin);
    let refused = rows.iter().find(|row| row.subject == "carol").expect("a row");
    assert_eq!((refused.origin.principal.as_str(), refused.reason.as_str()), (service, "FORBIDDEN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_read_again_and_ends_what_it_no_longer_gives() {
    let served = Served::start_listing(GRANTS).await;
    for owner in ["alice", "bob"] {
        served.trust.name(owner, "user");
        served.trust.enter(owner, PROJECT);
    }
    let api = api(&served).await;
    let (alice, bob) = (api.clone().with("x-on-behalf-of", "alice"), api.with("x-on-behalf-of", "bob"));
    alice.set_agent().await;
    let (session, _) = alice.bound_session().await;
    let mut stream = alice.stream(&session, 0).await.expect("a stream");
    let list_file = served.folder().join(ON_BEHALF);
    // What is no list leaves the last good one.
    std::fs::write(&list_file, "nonsense").expect("written");
    list(&alice).await.expect("as before");
    std::fs::write(&list_file, GRANTS.replace("alice ", "")).expect("written");
    let refused = async {
        loop {
            match list(&alice).await {
                Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                Err(status) => return status,
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("read again");
    assert_eq!(reason(&refused), "FORBIDDEN");
    list(&bob).await.expect("listed still");
    // The stream is looked at again with the next event.
    let (_, own) = served.owner("alice").await;
    own.submit(&session, "one").await.expect("queued");
    let ended = async {
        while next(&mut stream).await?.is_some() {}
        Ok::<(), Status>(())
    };
    assert_eq!(reason(&ended.await.expect_err("an end with its reason")), "FORBIDDEN");
}
