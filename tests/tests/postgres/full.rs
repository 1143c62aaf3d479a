//! A database without room: what is new is refused in time, what is known goes on, and all is served again when there is
//! room. Issue 6 line 8
//!
//! Without room a statement that needs another page of a file fails, and one that changes a row within its page does not. A
//! trigger says here what the server says then, of every row of the audit log: so nothing that leaves one is done.

use interlock_client::{AuditFilter, SetAgent};
use interlock_proto::{
    auth::v1::{CreateProjectRequest, LoginRequest},
    credential::Credential,
    gateway::v1::{CreateSessionRequest, SubmitJobRequest},
};
use interlock_tests::{
    Pair, Setup, eventually,
    wire::{self, Metadata},
};
use prost::Message;
use tonic::transport::Channel;

use super::cluster::Cluster;

const NO_ROOM: &str = "
    CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
    CREATE TRIGGER no_room BEFORE INSERT ON audit_batch FOR EACH STATEMENT EXECUTE FUNCTION no_room()";
const ROOM: &str = "DROP TRIGGER no_room ON audit_batch; DROP FUNCTION no_room()";

/// Asked once, and answered within the service's own deadline: nothing was changed.
async fn refused(channel: &Channel, path: &str, message: &impl Message, who: &Metadata) {
    let told = wire::ask(channel, path, message, who).await.outcome;
    let said = (told.code.as_str(), told.short());
    assert_eq!(said, ("UNAVAILABLE", "STORE_UNAVAILABLE"), "{path}: {told}");
}

async fn is(pair: &Pair, what: &str, code: u16) {
    for service in [&pair.auth, &pair.gateway] {
        eventually(what, async || (Pair::readyz(service).await.0 == code).then_some(())).await;
    }
}

// DESIGN 11: "No room to write". I6, I11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_room_refuses_in_time_and_what_is_known_goes_on() {
    let cluster = Cluster::start();
    let setup = Setup::default()
        .auth("store", &cluster.database("auth"))
        .auth("lease", "1s")
        .gateway("store", &cluster.database("gateway"));
    let mut pair = Pair::start_with(setup).await;
    let alice = pair.login("alice").await;
    let who = |credential: &Credential| Metadata::bearer(credential);
    let sdk = pair.sdk_gateway(&alice.access_token);
    let project = pair.project(&alice, "before").await;
    sdk.agents().set("a", SetAgent::default()).await.expect("an agent");
    let session = sdk.sessions().create("").await.expect("a session").session.session_id;
    sdk.sessions().attach(&session, "a", &project).await.expect("idle");
    for database in ["auth", "gateway"] {
        cluster.sql(database, NO_ROOM);
    }
    let (auth, gateway) = (pair.auth_public(), pair.gateway_public());
    let hers = who(&alice.access_token);
    let name = "meanwhile".to_owned();
    let create = CreateProjectRequest { request_id: name.clone(), name };
    let submit = SubmitJobRequest {
        session_id: session.clone(),
        request_id: "meanwhile".to_owned(),
        payload: "work".into(),
    };
    let sign_in =
        LoginRequest { username: "bob".to_owned(), password: pair.world.password("bob").to_owned() };
    let open = CreateSessionRequest { request_id: "meanwhile".to_owned(), ..Default::default() };
    let calls = async || {
        refused(&auth, "/interlock.auth.v1.ProjectService/CreateProject", &create, &hers).await;
        refused(&auth, "/interlock.auth.v1.OwnerSessionService/Login", &sign_in, &Metadata::none()).await;
        refused(&gateway, "/interlock.gateway.v1.JobService/SubmitJob", &submit, &hers).await;
        refused(&gateway, "/interlock.gateway.v1.SessionService/CreateSession", &open, &hers).await;
    };
    calls().await;
    is(&pair, "NOT_SERVING", 503).await;
    // Longer than any promise that was made before: known credentials are good, here and there, and reads go on.
    for _ in 0..3 {
        pair.sdk_auth_as(&alice.access_token).whoami().await.expect("known");
        sdk.sessions().get(&session).await.expect("a read");
        assert!(sdk.jobs().list(&session, false).await.expect("a read").is_empty());
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    is(&pair, "NOT_SERVING", 503).await;
    calls().await;
    for database in ["auth", "gateway"] {
        cluster.sql(database, ROOM);
    }
    is(&pair, "SERVING", 200).await;
    // What was refused has not happened: now it does, once.
    let owner = pair.sdk_auth_as(&alice.access_token);
    assert_eq!(owner.list_projects().await.expect("hers").len(), 1);
    owner.create_project("meanwhile").await.expect("there is room");
    for _ in 0..2 {
        sdk.jobs().submit_as(&session, "meanwhile", "work").await.expect("there is room");
    }
    assert_eq!(sdk.jobs().list(&session, false).await.expect("a read").len(), 1);
    pair.login("bob").await;
    for log in [pair.sdk_auth_as(&pair.admin()).audit(), pair.sdk_gateway(&pair.admin()).audit()] {
        let report = log.verify(&[]).await.expect("an administrator");
        assert!(report.damages.is_empty(), "I11: {:#?}", report.damages);
        let made = AuditFilter { principal: "alice".to_owned(), ..AuditFilter::default() };
        let rows = log.list(&made, 0, 100).await.expect("read").rows;
        let done =
            |action: &str| rows.iter().filter(|row| row.action == action && row.outcome == "done").count();
        let of = (done("project.create"), done("job.submit"));
        assert!(of == (2, 0) || of == (0, 1), "one row for what was done: {of:?}");
    }
    assert!(pair.gateway.drain().await.success() && pair.auth.drain().await.success(), "they drain");
}
