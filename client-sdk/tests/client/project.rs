//! The project that calls name: that of the folder's project file, as it is when the call is made.

use std::{
    sync::{Arc, Mutex},
    time::SystemTime,
};

use interlock_client::{
    Credentials, Gateway, Outcome, PROJECT_FILE, Project, ProjectFile, StreamFrom, Task, Worker,
};
use tonic::{service::Routes, transport::Server};

use crate::{connection, soon};

/// Path and named project of each call, which then is refused: nothing is served.
type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;

async fn listen() -> (Seen, std::net::SocketAddr) {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let note = tower::layer::layer_fn(move |inner: Routes| {
        let noted = Arc::clone(&noted);
        tower::ServiceBuilder::new()
            .map_request(move |request: http::Request<tonic::body::Body>| {
                let named = request.headers().get("x-interlock-project");
                let named = named.map(|value| value.to_str().unwrap().to_owned());
                noted.lock().unwrap().push((request.uri().path().to_owned(), named));
                request
            })
            .service(inner)
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Server::builder().layer(note).add_routes(Routes::default());
    tokio::spawn(router.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
    (seen, address)
}

fn bind(folder: &std::path::Path, id: &str) {
    let (project_id, name, created_by) = (id.to_owned(), "demo".to_owned(), "ann".to_owned());
    let project = Project { project_id, name, created_by, created_at: None };
    ProjectFile::of(&project, "http://127.0.0.1:1", SystemTime::now()).write(folder).unwrap();
}

/// Every call on a project's resource that the SDK can make.
async fn call_everything(gateway: &Gateway) {
    let (sessions, jobs) = (gateway.sessions(), gateway.jobs());
    sessions.create("s").await.unwrap_err();
    sessions.get("ses_1").await.unwrap_err();
    sessions.list().await.unwrap_err();
    sessions.attach("ses_1", "a", "prj_1").await.unwrap_err();
    sessions.close("ses_1", false).await.unwrap_err();
    sessions.ack("ses_1", 1).await.unwrap_err();
    soon("the end of a stream", sessions.stream("ses_1", StreamFrom::Start).next())
        .await
        .unwrap()
        .unwrap_err();
    jobs.submit("ses_1", "x").await.unwrap_err();
    jobs.get("job_1").await.unwrap_err();
    jobs.list("ses_1", false).await.unwrap_err();
    jobs.wait("job_1").await.unwrap_err();
    jobs.cancel("job_1").await.unwrap_err();
    let worker = Worker::new(gateway.clone(), vec!["a".to_owned()], 1, "w");
    let idle = |_: Task| async { Outcome::Succeeded { result: Default::default() } };
    soon("the end of a worker", worker.run(idle, std::future::pending())).await.unwrap_err();
}

// SQ-04, SQ-16: no call on a project's resource leaves without the bound project.
#[tokio::test]
async fn every_scoped_call_names_the_project_of_the_folder() {
    let (seen, address) = listen().await;
    let folder = tempfile::tempdir().unwrap();
    let nested = folder.path().join("a/b");
    std::fs::create_dir_all(&nested).unwrap();
    bind(folder.path(), "prj_1");
    call_everything(&Gateway::new(connection(address), Credentials::none()).in_folder(&nested)).await;
    let seen = seen.lock().unwrap();
    for method in [
        "SessionService/CreateSession",
        "SessionService/GetSession",
        "SessionService/ListSessions",
        "SessionService/AttachSession",
        "SessionService/CloseSession",
        "SessionService/Ack",
        "SessionService/StreamEvents",
        "JobService/SubmitJob",
        "JobService/GetJob",
        "JobService/ListJobs",
        "JobService/WaitJob",
        "JobService/CancelJob",
        "WorkerService/Work",
    ] {
        assert!(seen.iter().any(|(path, _)| path.ends_with(method)), "{method} was not called");
    }
    for (path, named) in seen.iter() {
        assert_eq!(named.as_deref(), Some("prj_1"), "{path}");
    }
}

// SQ-14, SQ-23, SQ-28
#[tokio::test]
async fn a_changed_file_counts_from_the_next_call_on() {
    let (seen, address) = listen().await;
    let folder = tempfile::tempdir().unwrap();
    let plain = Gateway::new(connection(address), Credentials::none());
    let gateway = plain.clone().in_folder(folder.path());
    let named = async |gateway: &Gateway| {
        gateway.sessions().get("ses_1").await.unwrap_err();
        seen.lock().unwrap().last().unwrap().1.clone()
    };
    assert_eq!(named(&gateway).await, None, "no project file: the call names none");
    bind(folder.path(), "prj_1");
    assert_eq!(named(&gateway).await.as_deref(), Some("prj_1"));
    bind(folder.path(), "prj_2");
    assert_eq!(named(&gateway).await.as_deref(), Some("prj_2"));
    // Another project only where the program asks for it by name.
    assert_eq!(named(&gateway.clone().with_project("prj_3")).await.as_deref(), Some("prj_3"));
    assert_eq!(named(&plain).await, None);
    let calls = seen.lock().unwrap().len();
    std::fs::write(folder.path().join(PROJECT_FILE), "{").unwrap();
    let refused = gateway.sessions().get("ses_1").await.unwrap_err();
    assert!(refused.to_string().contains(PROJECT_FILE), "{refused}");
    assert_eq!(seen.lock().unwrap().len(), calls, "a broken file is not none: nothing was sent");
}
