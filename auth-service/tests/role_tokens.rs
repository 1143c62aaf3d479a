//! Role tokens over real sockets, and on the host.

#![expect(clippy::unwrap_used, reason = "a test")]

mod served;

use std::process::{Command, Output};

use interlock_proto::auth::v1::{
    ListProjectsRequest, RoleTokenServiceGetStatusRequest, RotateRequest, WhoAmIRequest,
};
use served::{Host, Served, bearer, reason};
use tonic::Code;

fn rotate(role: &str, request: &str) -> RotateRequest {
    RotateRequest { role: role.to_owned(), grace: None, request_id: request.to_owned() }
}

async fn admits(host: &Host, served: &Served, token: &str) -> bool {
    host.identity(served).who_am_i(bearer(WhoAmIRequest {}, token)).await.is_ok()
}

// SW-03, SW-20, SW-21, SW-22, SW-36
#[tokio::test]
async fn rotation_replaces_one_role_for_good() {
    let host = Host::new();
    let served = host.start().await;
    let (admin, user) = (host.token("admin"), host.token("user"));
    let mut tokens = host.tokens(&served);
    let answer = tokens.rotate(bearer(rotate("user", "r1"), &admin)).await.unwrap().into_inner();
    assert_eq!((answer.role.as_str(), answer.generation), ("user", 2));
    assert!(answer.reached.is_some() && answer.path.ends_with("auth_tokens.json"));
    assert!(!admits(&host, &served, &user).await, "refused after Rotate returned");
    assert!(admits(&host, &served, &answer.token).await && admits(&host, &served, &admin).await);
    assert_eq!(host.token("user"), answer.token);
    assert_eq!(host.token("admin"), admin);

    // The same request id gets the first answer again, another payload does not.
    let again = tokens.rotate(bearer(rotate("user", "r1"), &admin)).await.unwrap().into_inner();
    assert_eq!((again.token, again.generation), (answer.token.clone(), 2));
    let reused = tokens.rotate(bearer(rotate("admin", "r1"), &admin)).await.unwrap_err();
    assert_eq!((reused.code(), reason(&reused).as_str()), (Code::Aborted, "REQUEST_ID_REUSED"));
    assert_eq!(host.token("user"), answer.token);
    served.stop().await;

    let served = host.start().await;
    assert!(admits(&host, &served, &answer.token).await && !admits(&host, &served, &user).await);
    served.stop().await;
}

#[tokio::test]
async fn with_grace_the_old_one_goes_on() {
    let host = Host::new();
    let served = host.start().await;
    let (admin, user) = (host.token("admin"), host.token("user"));
    let grace = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let asked = RotateRequest { grace, ..rotate("user", "r1") };
    let answer = host.tokens(&served).rotate(bearer(asked, &admin)).await.unwrap().into_inner();
    assert!(answer.reached.is_none());
    assert!(admits(&host, &served, &user).await && admits(&host, &served, &answer.token).await);
    let asked = bearer(RoleTokenServiceGetStatusRequest { reveal: false }, &admin);
    let status = host.tokens(&served).get_status(asked).await.unwrap().into_inner();
    assert_eq!(status.tokens.len(), 3, "each living generation");
    assert!(status.recoverable && status.path.is_empty());
    assert!(status.tokens.iter().all(|t| t.token.is_empty() && t.masked.chars().count() == 9));
    served.stop().await;
}

// SW-20: both tokens and the path, and one audit row.
#[tokio::test]
async fn reveal_shows_tokens_and_path_and_is_audited() {
    let host = Host::new();
    let served = host.start().await;
    let admin = host.token("admin");
    let asked = RoleTokenServiceGetStatusRequest { reveal: true };
    let status = host.tokens(&served).get_status(bearer(asked, &admin)).await.unwrap().into_inner();
    let shown: Vec<_> = status.tokens.iter().map(|t| t.token.clone()).collect();
    assert_eq!(shown, [admin.clone(), host.token("user")]);
    assert_eq!(status.path, host.data("auth_tokens.json").display().to_string());
    assert_eq!(host.audit("role_token.status"), [("admin".to_owned(), "done".to_owned(), String::new())]);

    // SW-19: it may be deleted after hand-over.
    std::fs::remove_file(host.data("auth_tokens.json")).unwrap();
    let status = host.tokens(&served).get_status(bearer(asked, &admin)).await.unwrap().into_inner();
    assert!(!status.recoverable && status.tokens.iter().all(|t| t.token.is_empty()));
    served.stop().await;
    let served = host.start().await;
    assert!(admits(&host, &served, &admin).await, "SW-14: not made again");
    assert!(!host.data("auth_tokens.json").exists());
    served.stop().await;
}

// SW-06, SW-24, SW-25, SW-44: the role `user`, and owners without root.
#[tokio::test]
async fn who_is_no_administrator_is_refused_and_audited() {
    let host = Host::new();
    let served = host.start().await;
    let user = host.token("user");
    let alice = host.login(&served, "alice").await.access_token;
    let root = host.login(&served, "root").await.access_token;
    let mut tokens = host.tokens(&served);
    for low in [&user, &alice] {
        let refused = tokens.rotate(bearer(rotate("admin", "r"), low)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "FORBIDDEN"));
        let asked = RoleTokenServiceGetStatusRequest { reveal: false };
        let refused = tokens.get_status(bearer(asked, low)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "FORBIDDEN"));
    }
    // A session-root owner is an administrator, and needs root unlocked for these.
    let refused = tokens.rotate(bearer(rotate("admin", "r"), &root)).await.unwrap_err();
    assert_eq!(reason(&refused), "ROOT_REQUIRED");
    tokens.get_status(bearer(RoleTokenServiceGetStatusRequest { reveal: false }, &root)).await.unwrap();
    let refused = tokens.get_status(bearer(RoleTokenServiceGetStatusRequest { reveal: true }, &root)).await;
    assert_eq!(reason(&refused.unwrap_err()), "ROOT_REQUIRED");

    let row = |principal: &str, reason: &str| (principal.to_owned(), "refused".to_owned(), reason.to_owned());
    let rows = host.audit("role_token.rotate");
    assert_eq!(rows, [row("user", "FORBIDDEN"), row("alice", "FORBIDDEN"), row("root", "ROOT_REQUIRED")]);
    // I12: nothing else happened.
    assert_eq!(host.token("user"), user);
    let copy = std::fs::read_to_string(host.data("auth_tokens.json")).unwrap();
    assert!(!copy.contains("pending"), "{copy}");
    served.stop().await;
}

// SW-23
#[tokio::test]
async fn bad_rotations_change_nothing() {
    let host = Host::new();
    let served = host.start().await;
    let admin = host.token("admin");
    let mut tokens = host.tokens(&served);
    for (role, request, expected) in
        [("", "r", "MISSING_FIELD"), ("owner", "r", "INVALID_FIELD"), ("user", "", "MISSING_FIELD")]
    {
        let refused = tokens.rotate(bearer(rotate(role, request), &admin)).await.unwrap_err();
        assert_eq!(reason(&refused), expected);
    }
    let day = Some(prost_types::Duration { seconds: 90_000, nanos: 0 });
    let asked = RotateRequest { grace: day, ..rotate("user", "r") };
    assert_eq!(reason(&tokens.rotate(bearer(asked, &admin)).await.unwrap_err()), "INVALID_FIELD");

    // The copy cannot be replaced: the old token stays valid.
    let user = host.token("user");
    let copy = host.data("auth_tokens.json");
    let kept = std::fs::read(&copy).unwrap();
    std::fs::remove_file(&copy).unwrap();
    std::fs::create_dir_all(copy.join("in the way")).unwrap();
    let refused = tokens.rotate(bearer(rotate("user", "r"), &admin)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Internal, "STORAGE_ERROR"));
    assert!(admits(&host, &served, &user).await);
    std::fs::remove_dir_all(&copy).unwrap();
    std::fs::write(&copy, kept).unwrap();
    served.stop().await;
}

// SW-15: killed between the copy and the store, or between the store and the copy.
#[tokio::test]
async fn a_start_finishes_what_a_crash_left() {
    let host = Host::new();
    let served = host.start().await;
    let (admin, user) = (host.token("admin"), host.token("user"));
    let answer = host.tokens(&served).rotate(bearer(rotate("user", "r"), &admin)).await.unwrap().into_inner();
    served.stop().await;
    let copy = host.data("auth_tokens.json");
    let write = |user: &str, pending: &str| {
        let tokens = serde_json::json!({"admin": admin, "user": user});
        let text = serde_json::json!({"format": 1, "tokens": tokens, "pending": {"user": pending}});
        interlock_kit::secret_file::write(&copy, text.to_string().as_bytes()).unwrap();
    };
    let never_stored =
        interlock_proto::credential::Credential::new(interlock_proto::credential::Kind::User, &[3; 32]);
    for (present, pending) in
        [(user.as_str(), answer.token.as_str()), (answer.token.as_str(), never_stored.expose())]
    {
        write(present, pending);
        let served = host.start().await;
        assert_eq!((host.token("admin"), host.token("user")), (admin.clone(), answer.token.clone()));
        assert!(!std::fs::read_to_string(&copy).unwrap().contains("pending"));
        assert!(admits(&host, &served, &answer.token).await && !admits(&host, &served, &user).await);
        served.stop().await;
    }
}

// A first start that was cut off before its store knew a token: the next one goes on with the same.
#[tokio::test]
async fn a_first_start_is_finished_from_its_copy() {
    let host = Host::new();
    let new = |kind| interlock_proto::credential::Credential::new(kind, &[5; 32]);
    let (admin, user) =
        (new(interlock_proto::credential::Kind::Admin), new(interlock_proto::credential::Kind::User));
    std::fs::create_dir_all(host.data("")).unwrap();
    let pending = serde_json::json!({"admin": admin.expose(), "user": user.expose()});
    let text = serde_json::json!({"format": 1, "tokens": {}, "pending": pending}).to_string();
    interlock_kit::secret_file::write(&host.data("auth_tokens.json"), text.as_bytes()).unwrap();
    let served = host.start().await;
    assert!(admits(&host, &served, admin.expose()).await);
    assert_eq!(host.token("user"), user.expose());
    served.stop().await;
}

// SW-17
#[tokio::test]
async fn a_corrupt_copy_or_store_refuses_the_start_and_is_kept() {
    let host = Host::new();
    host.start().await.stop().await;
    let copy = host.data("auth_tokens.json");
    let good = std::fs::read(&copy).unwrap();
    interlock_kit::secret_file::write(&copy, b"{\"format\":1").unwrap();
    let refused = host.refused().await.to_string();
    assert!(refused.contains("left as it is"), "{refused}");
    assert_eq!(std::fs::read(&copy).unwrap(), b"{\"format\":1");
    interlock_kit::secret_file::write(&copy, &good).unwrap();

    let garbage = vec![0x2a; 8192];
    std::fs::write(host.data("auth.db"), &garbage).unwrap();
    for journal in ["auth.db-wal", "auth.db-shm"] {
        let _ = std::fs::remove_file(host.data(journal));
    }
    host.refused().await;
    assert_eq!(std::fs::read(host.data("auth.db")).unwrap(), garbage);
}

fn program(host: &Host, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_interlock-auth"));
    command.env_clear();
    for (key, value) in &host.flags {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    command.args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

// SW-38 to SW-42
#[tokio::test]
async fn the_host_can_show_and_replace_both_tokens() {
    let host = Host::new();
    let served = host.start().await;
    let (admin, user) = (host.token("admin"), host.token("user"));
    let login = host.login(&served, "alice").await;

    // SW-38: not beside the service.
    let refused = program(&host, &["auth", "reset", "--yes"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        refused.stdout.is_empty()
            && String::from_utf8_lossy(&refused.stderr).contains("another program uses")
    );
    served.stop().await;

    // SW-42
    let path = host.data("auth_tokens.json").display().to_string();
    assert_eq!(said(&program(&host, &["auth", "path"])).trim(), path);
    let status = said(&program(&host, &["auth", "status"]));
    assert!(
        !status.contains(&admin)
            && status.contains(&format!("{}…{}", &admin[..4], &admin[admin.len() - 4..]))
    );
    let revealed = said(&program(&host, &["auth", "status", "--reveal"]));
    assert!(revealed.contains(&admin) && revealed.contains(&user) && revealed.contains(&path));

    // SW-39: nothing without --yes.
    let refused = program(&host, &["auth", "reset"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!((host.token("admin"), host.token("user")), (admin.clone(), user.clone()));

    // SW-40, SW-41
    let done = program(&host, &["auth", "reset", "--yes"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let (new_admin, new_user) = (host.token("admin"), host.token("user"));
    assert!(new_admin != admin && new_user != user);
    let printed = said(&done);
    assert!(printed.contains(&new_admin) && printed.contains(&new_user) && printed.contains(&path));
    let done = ("host".to_owned(), "done".to_owned(), String::new());
    assert_eq!(host.audit("role_token.reset"), std::slice::from_ref(&done));
    assert!(host.audit("role_token.status").contains(&done));

    let served = host.start().await;
    assert!(admits(&host, &served, &new_admin).await && !admits(&host, &served, &admin).await);
    assert!(admits(&host, &served, &login.access_token).await, "owner sessions are kept");
    let mut projects = host.projects(&served);
    projects.list_projects(bearer(ListProjectsRequest::default(), &new_user)).await.unwrap();
    served.stop().await;
}

#[test]
fn wrong_configuration_is_told_together_with_exit_64() {
    let mut host = Host::new().with("lease", "1h").with("owner_session.ttl", "1s");
    host.flags.retain(|(key, _)| key != "tls.cert");
    let refused = program(&host, &[]);
    assert_eq!(refused.status.code(), Some(64));
    let text = String::from_utf8(refused.stderr).unwrap();
    for key in ["lease", "owner_session.ttl", "tls.cert"] {
        assert!(text.contains(key), "{text}");
    }
    assert_eq!(program(&host, &["--no-such-flag"]).status.code(), Some(64));
}

/// A started program that is ended with this value.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// Starts the program, waits until it serves, ends it as an init system does; stdout and stderr.
async fn serve_once(host: &Host, arguments: &[&str]) -> (String, String) {
    let ready = host.folder.path().join("ready.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_interlock-auth"));
    command.env_clear().arg("--set").arg(format!("ready_file={}", ready.display()));
    for (key, value) in &host.flags {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    command.args(arguments).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    served::within(async {
        while !ready.exists() {
            assert!(running.0.try_wait().unwrap().is_none(), "it ended early");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    let addresses: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
    assert!(addresses["public"].is_string() && addresses["internal"].is_string());
    assert!(Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status().unwrap().success());
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
    assert!(!ready.exists(), "the ready file is there while it serves");
    let read = |from: &mut dyn std::io::Read| std::io::read_to_string(from).unwrap();
    (read(running.0.stdout.as_mut().unwrap()), read(running.0.stderr.as_mut().unwrap()))
}

// SW-13, SW-14, SW-18: printed once on stdout, and never in a log.
#[tokio::test]
async fn first_tokens_are_printed_once_and_never_logged() {
    let host = Host::new().with("log.filter", "trace");
    let (out, log) = serve_once(&host, &["--print-first-tokens"]).await;
    let (admin, user) = (host.token("admin"), host.token("user"));
    assert!(out.contains(&admin) && out.contains(&user) && out.contains("auth_tokens.json"));
    assert!(log.contains("auth_tokens.json"), "{log}");
    let (out, again) = serve_once(&host, &["--print-first-tokens"]).await;
    assert_eq!(out, "");
    assert_eq!((host.token("admin"), host.token("user")), (admin.clone(), user.clone()));
    for token in [&admin, &user] {
        // The random part alone would be a leak, too.
        assert!(!log.contains(&token[8..51]) && !again.contains(&token[8..51]));
    }
}

// SW-16: an empty data directory is the working directory.
#[test]
fn an_empty_data_dir_is_the_working_directory() {
    let host = Host::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_interlock-auth"));
    command.env_clear().env("INTERLOCK_AUTH_DATA_DIR", "").current_dir(host.folder.path());
    let output = command.args(["auth", "path"]).output().unwrap();
    assert_eq!((output.status.code(), said(&output).trim()), (Some(0), "./auth_tokens.json"));
}
