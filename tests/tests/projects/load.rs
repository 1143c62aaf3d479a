//! Two folders side by side, under load.

use std::time::SystemTime;

use interlock_client::{Gateway, Job, Project, ProjectFile, Reason, SetAgent};
use interlock_tests::Pair;
use tempfile::TempDir;

const CALLS: usize = 60;

struct Side {
    folder: TempDir,
    project: String,
    gateway: Gateway,
    session: String,
}

async fn side(pair: &Pair, alice: &interlock_client::OwnerSession, name: &str) -> Side {
    let project = pair.project(alice, name).await;
    let folder = tempfile::tempdir().expect("a folder");
    let found = Project {
        project_id: project.clone(),
        name: name.to_owned(),
        created_by: "alice".to_owned(),
        created_at: None,
    };
    let url = format!("https://{}", pair.gateway.address("public"));
    ProjectFile::of(&found, url, SystemTime::now()).write(folder.path()).expect("written");
    let gateway = pair.sdk_gateway(&alice.access_token).in_folder(folder.path());
    let agent = format!("agent-{name}");
    gateway.agents().set(&agent, SetAgent { shared: None, description: None }).await.expect("an agent");
    let session = gateway.sessions().create(name).await.expect("a session").session.session_id;
    gateway.sessions().attach(&session, &agent, &project).await.expect("attached");
    Side { folder, project, gateway, session }
}

/// Submits to its own session and tries the other's, many times.
async fn drive(own: &Side, other: &str) -> usize {
    let mut refused = 0;
    for number in 0..CALLS {
        own.gateway.jobs().submit(&own.session, format!("{number}")).await.expect("its own project");
        let crossed = own.gateway.jobs().submit(other, "crossed").await.expect_err("another project");
        assert_eq!(crossed.reason(), Some(Reason::ProjectMismatch), "{crossed}");
        refused += 1;
    }
    refused
}

// SQ-01, SQ-02, SQ-03, SQ-21
#[tokio::test(flavor = "multi_thread")]
async fn two_folders_side_by_side_never_cross() {
    let pair = Pair::start().await;
    let alice = pair.login("alice").await;
    let (blue, red) = (side(&pair, &alice, "blue").await, side(&pair, &alice, "red").await);
    let (a, b) = tokio::join!(drive(&blue, &red.session), drive(&red, &blue.session));
    assert_eq!((a, b), (CALLS, CALLS));
    for side in [&blue, &red] {
        let jobs: Vec<Job> = side.gateway.jobs().list(&side.session, false).await.expect("its jobs");
        assert_eq!(jobs.len(), CALLS, "none from the other side");
        assert!(jobs.iter().all(|job| job.binding.project_id == side.project));
        let mut listed = side.gateway.sessions().list().await.expect("sessions").into_iter();
        assert!(listed.all(|session| session.session_id == side.session), "the other side is not listed");
    }
    drop((blue.folder, red.folder));
}
