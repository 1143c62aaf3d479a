//! Services that work jobs as themselves, as the list says (DESIGN 14.7).

use interlock_proto::gateway::v1::{
    CreateSessionRequest, GetJobRequest, GetSessionRequest, JobState, ListFilesRequest, ListSessionsRequest,
    SetAgentRequest, event::Kind as EventKind, file_service_client::FileServiceClient,
    stream_events_response::Message, work_response::Message as Told,
};
use tonic::{Code, Status};

use crate::support::{
    Calls, PATIENCE, PROJECT, Served, WORKERS, internal_token, next, reason, worker::Worker,
};

const API: &str = "spiffe://test.example/api";
const LIST: &str = "# who works\nspiffe://test.example/api for builder primary-2\n";

/// The service `api`, with both factors, which names nobody.
async fn api(served: &Served) -> Calls {
    served.service("api").await.with("x-internal-token", &internal_token())
}

fn told(status: &Status) -> (Code, String) {
    (status.code(), reason(status))
}

fn identity_required() -> (Code, String) {
    (Code::InvalidArgument, "IDENTITY_REQUIRED".to_owned())
}

// DESIGN 8, 14.7, UA-17, I5
#[tokio::test(flavor = "multi_thread")]
async fn a_listed_service_works_jobs_as_itself_and_does_nothing_else() {
    let mut served = Served::start_working(LIST).await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let other = SetAgentRequest { agent_id: "other".to_owned(), ..SetAgentRequest::default() };
    alice.agents().set_agent(other).await.expect("registered");
    let (session, _) = alice.bound_session().await;
    let submitted = alice.submit(&session, "one").await.expect("queued");

    let api = api(&served).await;
    let mut worker = Worker::open(&api, Vec::new()).await.expect("welcome");
    assert_eq!(worker.welcome.expires_at, None, "there is no credential that ends");
    let assigned = worker.assignment().await;
    let held = assigned.held.expect("held");
    assert_eq!(held.job_id, submitted.job_id);
    // The job is what it was: alice's, in its session's project, under its binding.
    assert_eq!((assigned.session_id, assigned.binding), (session.clone(), submitted.binding.clone()));
    worker.progress(&held, 1, "half").await;
    assert!(matches!(worker.next().await, Ok(Some(Told::ProgressStored(_)))));
    worker.heartbeat(&held).await;
    assert!(
        matches!(worker.next().await, Ok(Some(Told::Renewed(renewed))) if renewed.held == [held.clone()])
    );
    // Its lease is its own: the owner's worker has no part in it.
    let mut hers = Worker::open(&alice, vec![held.clone()]).await.expect("welcome");
    assert!(hers.welcome.kept.is_empty());
    hers.finish(&held, JobState::Succeeded).await;
    assert!(matches!(hers.next().await, Ok(Some(Told::LeaseLost(_)))));
    drop(hers);
    // A worker that comes back keeps its job.
    drop(worker);
    let mut worker = Worker::open(&api, vec![held.clone()]).await.expect("welcome");
    assert_eq!(worker.welcome.kept, std::slice::from_ref(&held));

    // The files of the job by its lease, and in no other way.
    let mut files = FileServiceClient::new(api.line());
    let by_lease = ListFilesRequest {
        job_id: held.job_id.clone(),
        fencing_token: held.fencing_token,
        ..ListFilesRequest::default()
    };
    files.list_files(by_lease.clone()).await.expect("by its lease");
    let stale = ListFilesRequest { fencing_token: held.fencing_token + 1, ..by_lease };
    assert_eq!(reason(&files.list_files(stale).await.expect_err("another attempt's")), "LEASE_LOST");
    let by_session = ListFilesRequest { session_id: session.clone(), ..ListFilesRequest::default() };
    let refused = files.list_files(by_session).await.expect_err("nobody is named");
    assert_eq!(told(&refused), (Code::PermissionDenied, "FORBIDDEN".to_owned()));
    // Whatever else it calls, it must say for whom.
    let get = GetSessionRequest { session_id: session.clone() };
    assert_eq!(told(&api.sessions().get_session(get).await.expect_err("whose")), identity_required());
    let create = CreateSessionRequest { request_id: "one".to_owned(), ..CreateSessionRequest::default() };
    assert_eq!(told(&api.sessions().create_session(create).await.expect_err("whose")), identity_required());
    let list = api.sessions().list_sessions(ListSessionsRequest::default()).await;
    assert_eq!(told(&list.expect_err("whose")), identity_required());
    // Other agents, whether there are such or not: one answer.
    for agent in ["other", "primary", "primary-2", "none"] {
        let refused = Worker::open_for(&api, agent, Vec::new()).await.err().expect("not its agent");
        assert_eq!(told(&refused), (Code::PermissionDenied, "FORBIDDEN".to_owned()), "{agent}");
    }

    worker.finish(&held, JobState::Succeeded).await;
    assert!(matches!(worker.next().await, Ok(Some(Told::Finished(_)))));
    let get = GetJobRequest { job_id: submitted.job_id.clone() };
    let ended = alice.jobs().get_job(get).await.expect("hers").into_inner().job.expect("the job");
    assert_eq!(
        (ended.state(), ended.session_id, ended.binding),
        (JobState::Succeeded, session.clone(), submitted.binding)
    );
    let mut stream = alice.stream(&session, 0).await.expect("hers");
    let mut started = None;
    while started.is_none() {
        let message = next(&mut stream).await.expect("living").expect("a message").message;
        if let Some(Message::Event(event)) = message
            && let Some(EventKind::JobStarted(start)) = event.kind
        {
            started = Some((start.job_id, event.project_id));
        }
    }
    assert_eq!(started, Some((submitted.job_id.clone(), PROJECT.to_owned())), "as with any worker");
    // A call that names another project is given none of this one's jobs.
    worker.goodbye().await;
    assert!(matches!(worker.next().await, Ok(None)), "ended by the gateway");
    alice.submit(&session, "two").await.expect("queued");
    let elsewhere = Worker::open(&api.clone().with("x-interlock-project", "elsewhere"), Vec::new()).await;
    let mut elsewhere = elsewhere.expect("welcome");
    elsewhere.goodbye().await;
    assert!(matches!(elsewhere.next().await, Ok(None)), "nothing was assigned");

    served.stop().await;
    let rows = served.audit();
    for action in ["worker.claim", "worker.finish"] {
        let done = rows.iter().filter(|row| row.action == action && row.outcome == "done");
        let of_job = done.filter(|row| row.subject == submitted.job_id);
        let by: Vec<_> = of_job.map(|row| (&*row.origin.principal, &*row.origin.role)).collect();
        assert_eq!(by, [(API, "service")], "{action}");
    }
    let refused = rows.iter().filter(|row| row.origin.principal == API && row.reason == "FORBIDDEN");
    assert!(refused.count() >= 5, "each refusal has its row");
}

// UA-12, UA-17, UA-18: one factor is none, and who is not listed must say for whom.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_listed_works_for_nobody_and_the_list_is_read_again() {
    let served = Served::start_working(LIST).await;
    let (_, alice) = served.owner("alice").await;
    alice.set_agent().await;
    let bare = served.service("api").await;
    let refused = Worker::open(&bare, Vec::new()).await.err().expect("no token");
    assert_eq!(reason(&refused), "INTERNAL_TOKEN_REQUIRED");
    let stranger = served.service("stranger").await.with("x-internal-token", &internal_token());
    assert_eq!(reason(&Worker::open(&stranger, Vec::new()).await.err().expect("not allowed")), "FORBIDDEN");
    let public = Worker::open(&served.nobody().await, Vec::new()).await.err().expect("public");
    assert_eq!(reason(&public), "PROVIDER_AUTH_FAILED");

    let api = api(&served).await;
    let mut worker = Worker::open(&api, Vec::new()).await.expect("welcome");
    let list = served.folder().join(WORKERS);
    // Another agent beside it changes nothing for this worker.
    std::fs::write(&list, "spiffe://test.example/api for builder painter").expect("written");
    let (session, _) = alice.bound_session().await;
    alice.submit(&session, "zero").await.expect("queued");
    let held = worker.assignment().await.held.expect("held");
    worker.finish(&held, JobState::Succeeded).await;
    assert!(matches!(worker.next().await, Ok(Some(Told::Finished(_)))));
    // What is no list leaves the last good one.
    std::fs::write(&list, "nonsense").expect("written");
    drop(Worker::open(&api, Vec::new()).await.expect("as before"));
    std::fs::write(&list, "spiffe://test.example/other for builder").expect("written");
    let refused = async {
        loop {
            match Worker::open(&api, Vec::new()).await {
                Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                Err(status) => return status,
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("read again");
    assert_eq!(told(&refused), identity_required());
    // The stream that it had is looked at before it is given a job.
    alice.submit(&session, "one").await.expect("queued");
    let ended = worker.next().await.expect_err("not listed any more");
    assert_eq!(told(&ended), (Code::PermissionDenied, "FORBIDDEN".to_owned()));
}
