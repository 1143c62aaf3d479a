//! An owner's end reaches the cookies of the owner's sessions before auth hears that it has taken effect.

use interlock_proto::gateway::v1::{
    GetJobRequest, GetSessionRequest, JoinSessionRequest, SetSessionPasswordRequest,
};
use tonic::Status;

use crate::support::{Calls, PROJECT, Served, cookie_of, next, reason};

async fn get(calls: &Calls, session: &str) -> Result<(), Status> {
    let get = GetSessionRequest { session_id: session.to_owned() };
    calls.sessions().get_session(get).await.map(drop)
}

/// The bearer of a cookie alone.
async fn client(served: &Served, cookie: &str) -> Calls {
    served.nobody().await.with("cookie", cookie).with("x-interlock-project", PROJECT)
}

// DESIGN 14.3, UA-25, UA-56, NC-24
#[tokio::test(flavor = "multi_thread")]
async fn the_cookies_of_an_owner_end_with_the_owner_and_sessions_and_jobs_stay() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, cookie) = alice.bound_session().await;
    let job = alice.submit(&session, "one").await.expect("queued").job_id;
    let password = "correct horse".to_owned();
    let set = SetSessionPasswordRequest {
        session_id: session.clone(),
        password: password.clone(),
        ..Default::default()
    };
    alice.sessions().set_session_password(set).await.expect("set");
    let join = |request: &str| JoinSessionRequest {
        session_id: session.clone(),
        password: password.clone(),
        request_id: request.to_owned(),
        ..Default::default()
    };
    let joined = served.nobody().await.sessions().join_session(join("first")).await.expect("joined");
    let (host, second) = (client(&served, &cookie).await, client(&served, &cookie_of(&joined)).await);
    let mut stream = second.stream(&session, 0).await.expect("a stream");
    let (_, bob) = served.owner("bob").await;
    let bobs = bob.create("bobs").await;
    let (bobs, bobs_cookie) = (bobs.get_ref().session.clone().expect("made").session_id, cookie_of(&bobs));

    // A mere change ends nothing.
    served.trust.change("alice").await;
    get(&host, &session).await.expect("as before");

    served.trust.forget("alice").await;
    for calls in [&host, &second] {
        assert_eq!(reason(&get(calls, &session).await.expect_err("over")), "PROVIDER_AUTH_FAILED");
    }
    let ended = async {
        while next(&mut stream).await?.is_some() {}
        Ok::<(), Status>(())
    };
    assert_eq!(reason(&ended.await.expect_err("an end with its reason")), "EVICTED");
    let refused = served.nobody().await.sessions().join_session(join("second")).await.expect_err("closed");
    assert_eq!(reason(&refused), "INVALID_CREDENTIALS");
    get(&client(&served, &bobs_cookie).await, &bobs).await.expect("none of hers");
    // For an administrator it is all there.
    let admin = served.calls(&served.trust.admin()).await;
    served.trust.enter("admin", PROJECT);
    get(&admin, &session).await.expect("it stays");
    let got = admin.jobs().get_job(GetJobRequest { job_id: job }).await.expect("it stays").into_inner();
    assert_eq!(got.job.expect("a job").state, 1, "queued still");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_membership_that_ends_takes_the_cookies_in_its_project() {
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let (session, cookie) = alice.bound_session().await;
    let elsewhere = alice.create("elsewhere").await;
    let elsewhere_cookie = cookie_of(&elsewhere);
    let elsewhere = elsewhere.into_inner().session.expect("made").session_id;
    served.trust.leave("alice", PROJECT).await;
    let refused = get(&client(&served, &cookie).await, &session).await.expect_err("over");
    assert_eq!(reason(&refused), "PROVIDER_AUTH_FAILED");
    get(&client(&served, &elsewhere_cookie).await, &elsewhere).await.expect("in no project");
}

// An owner that ends while the gateway is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_comes_back_ends_what_ended_meanwhile() {
    let mut served = Served::start().await;
    served.trust.name("alice", "user");
    let (_, alice) = served.owner("alice").await;
    let created = alice.create("first").await;
    let cookie = cookie_of(&created);
    let session = created.into_inner().session.expect("made").session_id;
    served.stop().await;
    served.trust.forget_unheard("alice");
    served.start_again().await;
    // It holds its lease by now, so it has heard; what auth could not tell it, it asks for.
    let over = async {
        let calls = client(&served, &cookie).await;
        while get(&calls, &session).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        get(&calls, &session).await.expect_err("over")
    };
    let refused = tokio::time::timeout(crate::support::PATIENCE, over).await.expect("in time");
    assert_eq!(reason(&refused), "PROVIDER_AUTH_FAILED");
}
