//! `interlock verify` and `interlock audit endpoints`: what shows from outside that every door is shut, and finds the
//! one that is not.

use std::{convert::Infallible, net::SocketAddr};

use interlock_client::{SetAgent, TokenGrant};
use interlock_proto::metadata::INTERNAL_TOKEN;
use interlock_tests::{Pair, Setup, eventually_sync, home::Home};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::sync::mpsc;
use tonic::{
    Status,
    body::Body,
    transport::{
        Certificate, Identity, Server, ServerTlsConfig,
        server::{TcpConnectInfo, TlsConnectInfo},
    },
};

/// All that a project token may have.
const SCOPES: [&str; 5] = ["sessions:read", "sessions:write", "jobs:submit", "jobs:read", "jobs:work"];

fn ran(home: &Home, arguments: &str, expected: i32) -> String {
    let out = home.run(arguments);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let complained = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(expected), "{arguments}\n{said}{complained}");
    said
}

fn kept(home: &Home, name: &str, secret: &str) -> String {
    let path = home.path(name);
    std::fs::write(&path, secret).expect("written");
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, owner_only).expect("a file of ours");
    path.display().to_string()
}

// UA-42, UA-43, UA-44, UA-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_makes_four_calls() {
    let pair = Pair::start().await;
    let home = Home::of(&pair);
    let said = ran(&home, "verify", 0);
    assert_eq!(said.lines().filter(|line| line.contains("  ok  ")).count(), 2, "{said}");
    assert_eq!(said.lines().filter(|line| line.contains("left out")).count(), 2, "{said}");

    home.keep(&pair.login("alice").await);
    let (cert, key) = pair.world.leaf("pki/tester");
    let token = kept(&home, "internal.token", pair.world.internal_token());
    let internal = pair.gateway.address("internal");
    let with = |token: &str| {
        format!(
            "verify --internal {internal} --cert {} --key {} --internal-token-file {token}",
            cert.display(),
            key.display()
        )
    };
    let said = ran(&home, &with(&token), 0);
    let expected = [
        "ok  1. CreateSession with no credential: UNAUTHENTICATED PROVIDER_AUTH_FAILED",
        "ok  2. WhoAmI with no credential: UNAUTHENTICATED PROVIDER_AUTH_FAILED",
        "ok  3. ListSessions on the internal listener without its token: UNAUTHENTICATED INTERNAL_TOKEN_REQUIRED",
        "ok  4. ListSessions there with it: OK",
    ];
    for line in expected {
        assert!(said.contains(line), "{line}\n{said}");
    }
    // It can fail: with another token the fourth call does not get in.
    let wrong =
        interlock_proto::credential::Credential::new(interlock_proto::credential::Kind::Internal, &[7; 32]);
    let said = ran(&home, &with(&kept(&home, "wrong.token", wrong.expose())), 1);
    assert!(said.contains("FAIL  4."), "{said}");
}

// UA-55
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_is_tried_and_a_planted_open_one_is_found() {
    let pair = Pair::start().await;
    let home = Home::of(&pair);
    let bob = pair.login("bob").await;
    pair.sdk_auth().logout(&bob.access_token).await.expect("signed out");
    let alice = pair.login("alice").await;
    let (p, q) = (pair.project(&alice, "p").await, pair.project(&alice, "q").await);
    let grant = TokenGrant { scopes: SCOPES.map(str::to_owned).to_vec(), ..TokenGrant::default() };
    let of_p = pair.sdk_auth_as(&alice.access_token).issue_token(&p, grant).await.expect("a member may");
    let project_token = kept(&home, "project.token", of_p.secret.expose());
    let sdk = pair.sdk_gateway(&alice.access_token);
    sdk.agents().set("a", SetAgent::default()).await.expect("an agent");
    let elsewhere = sdk.sessions().create("").await.expect("a session").session.session_id;
    sdk.sessions().attach(&elsewhere, "a", &q).await.expect("idle");
    let everyone = format!(
        "audit endpoints --user-token {} --expired-token {} --auth-internal {} --gateway-internal {} \
         --project-token {project_token} --other-session {elsewhere} --other-project {q}",
        kept(&home, "user.token", pair.user().expose()),
        kept(&home, "bob.token", bob.access_token.expose()),
        pair.auth.address("internal"),
        pair.gateway.address("internal"),
    );
    let said = ran(&home, &everyone, 0);
    let refused: usize = said.split(' ').next().and_then(|word| word.parse().ok()).expect("a count");
    let methods = interlock_proto::policy::Policies::all().iter().filter(|method| !method.public()).count();
    assert!(refused > 4 * methods, "{methods} methods by four intruders at least: {said}");
    // It can fail: the session is in the token's own project, so nothing is between them.
    let own = sdk.sessions().create("").await.expect("a session").session.session_id;
    sdk.sessions().attach(&own, "a", &p).await.expect("idle");
    let reached =
        format!("audit endpoints --project-token {project_token} --other-session {own} --other-project {p}");
    let said = ran(&home, &reached, 1);
    let open = said.lines().filter(|line| line.contains("at a session of another project: OPEN"));
    assert_eq!(open.count(), 5, "five methods that read: {said}");

    // A server that lets everybody into one method.
    let planted = planted(&pair, "/interlock.gateway.v1.AgentService/ListAgents").await;
    let context = home.kept().join("context.json");
    let text = std::fs::read_to_string(&context).expect("a context");
    let text = text.replace(&pair.gateway.address("public").to_string(), &planted.to_string());
    std::fs::write(&context, text).expect("written");
    let said = ran(&home, "audit endpoints", 1);
    let open: Vec<_> = said.lines().filter(|line| line.ends_with(": OPEN")).collect();
    assert_eq!(open.len(), 3, "one method, three intruders: {said}");
    assert!(
        open.iter().all(|line| line.starts_with("gateway /interlock.gateway.v1.AgentService/ListAgents: "))
    );
}

/// Refuses everything but one path.
async fn planted(pair: &Pair, open: &'static str) -> SocketAddr {
    let answer = move |request: &http::Request<Body>| match request.uri().path() {
        path if path == open => Status::ok(""),
        _ => Status::unauthenticated(""),
    };
    serve(pair, "pki/gateway", false, answer).await
}

/// Answers each call so, with this leaf; it may ask for certificates.
async fn serve(
    pair: &Pair,
    leaf: &str,
    asks: bool,
    answer: impl Fn(&http::Request<Body>) -> Status + Clone + Send + 'static,
) -> SocketAddr {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let (cert, key) = pair.world.leaf(leaf);
    let read = |path| std::fs::read(path).expect("a PEM file");
    let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(read(cert), read(key)));
    if asks {
        // Whoever shows none is let in, too: what is captured is what was shown unasked for.
        tls = tls.client_ca_root(Certificate::from_pem(read(pair.world.ca()))).client_auth_optional(true);
    }
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let status = answer(&request);
        async move { Ok::<_, Infallible>(status.into_http::<Body>()) }
    });
    let server = Server::builder().tls_config(tls).expect("certificates");
    let connections = futures_util::stream::unfold(socket, |socket| async move {
        let accepted = socket.accept().await.map(|(connection, _)| connection);
        Some((accepted, socket))
    });
    tokio::spawn(async move { server.serve_with_incoming(service, connections).await });
    address
}

// UA-20
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_shows_its_certificate_and_the_internal_token() {
    let mut pair = Pair::stopped(Setup::default());
    let (captured, mut calls) = mpsc::unbounded_channel();
    let auth = serve(&pair, "pki/auth", true, move |request| {
        let token = request.headers().get(INTERNAL_TOKEN).map(|token| token.as_bytes().to_vec());
        let shown = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
        let leaf = shown.and_then(TlsConnectInfo::peer_certs).and_then(|all| all.first().cloned());
        // The test may be over.
        let _ = captured.send((request.uri().path().to_owned(), token, leaf.map(|leaf| leaf.to_vec())));
        Status::unavailable("only captures")
    })
    .await;
    pair.start_gateway_at(auth).await;
    let patience = std::time::Duration::from_secs(20);
    let first = tokio::time::timeout(patience, calls.recv()).await.expect("a call");
    let (path, token, leaf) = first.expect("it still serves");
    let (cert, _) = pair.world.leaf("pki/gateway");
    let own = CertificateDer::from_pem_file(cert).expect("a certificate");
    assert_eq!(leaf.as_deref(), Some(own.as_ref()), "{path}: the gateway's own certificate");
    assert_eq!(token.as_deref(), Some(pair.world.internal_token().as_bytes()), "{path}");
}

fn json(home: &Home, arguments: &str, expected: i32) -> Vec<(String, String, String)> {
    let said = ran(home, &format!("{arguments} -o json"), expected);
    assert!(!said.contains("ilk_"), "no secret: {said}");
    let shown: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let text = |check: &serde_json::Value, field: &str| check[field].as_str().unwrap_or_default().to_owned();
    let checks = shown["checks"].as_array().expect("checks").iter();
    checks.map(|check| (text(check, "check"), text(check, "of"), text(check, "outcome"))).collect()
}

// Issue 6 line 9, FN-21
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_finds_what_is_wrong_and_what_to_do() {
    let mut pair = Pair::start().await;
    let home = Home::of(&pair);
    let path = |name: &str| pair.world.path(name).display().to_string();
    let with =
        format!("doctor --auth-config {} --gateway-config {}", path("auth.toml"), path("gateway.toml"));
    // Before the sign-in: enabled, not authenticated, locked.
    let found = json(&home, &with, 0);
    let is = |found: &[(String, String, String)], check: &str, of: &str, outcome: &str| {
        let fits =
            |(c, o, w): &(String, String, String)| c == check && (of.is_empty() || o == of) && w == outcome;
        assert!(found.iter().any(fits), "{check} {of}: {outcome}\n{found:#?}");
    };
    for check in ["config", "name", "tls", "certificate life", "health", "clock"] {
        for service in ["auth", "gateway"] {
            is(&found, check, service, "success");
        }
    }
    is(&found, "internal token", "auth", "success");
    is(&found, "token", "", "warning");
    is(&found, "session auth", "", "success");
    is(&found, "project file", "", "warning");
    assert!(found.iter().all(|(.., outcome)| outcome != "failure"), "{found:#?}");
    let said = ran(&home, "doctor", 0);
    for line in [
        "  ok  session auth: enabled",
        "  ok  root auth: locked",
        "warn  token: not signed in",
        "next: interlock login NAME",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    let alice = pair.login("alice").await;
    home.keep(&alice);
    assert!(ran(&home, "doctor", 0).contains("  ok  token: alice (user), by owner session, until "));
    // The project file of the folder: good, of a project that is not there, of another place, and broken.
    let (project, bound) = (pair.project(&alice, "bound").await, home.path("bound"));
    std::fs::create_dir(&bound).expect("a folder");
    let there = |arguments: &str| {
        home.command(arguments.split_whitespace()).current_dir(&bound).output().expect("it runs")
    };
    assert!(there(&format!("use {project}")).status.success());
    let file = bound.join("interlock.json");
    let text = std::fs::read_to_string(&file).expect("written");
    let of_file = |contents: &str, expected: i32| -> Vec<String> {
        std::fs::write(&file, contents).expect("written");
        let out = there("doctor -o json");
        assert_eq!(out.status.code(), Some(expected), "{}", String::from_utf8_lossy(&out.stdout));
        let shown: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let checks = shown["checks"].as_array().expect("checks").iter();
        let found = checks.filter(|check| check["check"] == "project file");
        found.map(|check| check["outcome"].as_str().expect("said").to_owned()).collect()
    };
    assert_eq!(of_file(&text, 0), ["success"]);
    let other = text.replace(&project, "prj_00000000000000000000000000000000");
    assert_eq!(of_file(&other, 1), ["failure"]);
    let elsewhere = text.replace(&pair.gateway.address("public").to_string(), "elsewhere.test:1");
    assert_eq!(of_file(&elsewhere, 0), ["warning", "success"]);
    assert_eq!(of_file("{", 1), ["failure"]);
    // What is wrong is found, one thing at a time, with what to do.
    let context = home.kept().join("context.json");
    let good = std::fs::read_to_string(&context).expect("there");
    let wrong = |from: &str, to: &str| {
        let text = good.replace(from, to);
        assert_ne!(text, good, "{from}");
        std::fs::write(&context, text).expect("written");
        json(&home, "doctor", 1)
    };
    let auth = pair.auth.address("public").to_string();
    is(&wrong(&format!("https://{auth}"), "https://no-such-host.invalid:1"), "name", "auth", "failure");
    is(&wrong(&format!("https://{auth}"), &format!("http://{auth}")), "name", "auth", "failure");
    is(&wrong(&format!("https://{auth}"), "https://127.0.0.1:1"), "tls", "auth", "failure");
    let (other, _) = pair.world.leaf("pki/tester");
    is(
        &wrong(&pair.world.ca().display().to_string(), &other.display().to_string()),
        "tls",
        "gateway",
        "failure",
    );
    std::fs::write(&context, "{").expect("written");
    is(&json(&home, "doctor", 1), "config", "context", "failure");
    std::fs::write(&context, &good).expect("written");
    pair.sdk_auth().logout(&alice.access_token).await.expect("signed out");
    is(&json(&home, "doctor", 1), "token", "", "failure");
    std::fs::write(pair.world.path("broken.toml"), "lease = \"1 year\"\n").expect("written");
    is(
        &json(&home, &format!("doctor --auth-config {}", path("broken.toml")), 1),
        "config",
        "auth",
        "failure",
    );
    std::fs::write(pair.world.path("internal.token"), "short\n").expect("written");
    is(&json(&home, &with, 1), "internal token", "gateway", "failure");
    // Without auth the gateway answers still, and says that it serves nobody.
    pair.auth.kill();
    let failed = |found: &[(String, String, String)]| {
        found.iter().any(|(check, of, outcome)| {
            (check.as_str(), of.as_str(), outcome.as_str()) == ("health", "gateway", "failure")
        })
    };
    eventually_sync("a gateway that serves nobody", || failed(&json(&home, "doctor", 1)));
    let said = ran(&home, "doctor", 1);
    for line in ["FAIL  health gateway: NOT_SERVING", "next: its log says why: "] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    pair.gateway.kill();
    is(&json(&home, "doctor", 1), "tls", "gateway", "failure");
}

// Issue 6 line 9, line 11: a rotation in two phases that nobody has ended within a day was forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_tells_of_a_rotation_that_was_forgotten() {
    let mut pair = Pair::start().await;
    let home = Home::of(&pair);
    let admin = kept(&home, "admin.token", pair.admin().expose());
    let doctor = format!("--token-file {admin} doctor");
    let of_rotations = |home: &Home| {
        let mut found = json(home, &doctor, 0);
        found.retain(|(check, ..)| check == "rotation");
        found
    };
    assert_eq!(of_rotations(&home), [], "none is open");
    pair.sdk_auth_as(&pair.admin()).begin_rotation("user").await.expect("begun");
    let is = |outcome: &str| ("rotation".to_owned(), "user".to_owned(), outcome.to_owned());
    assert_eq!(of_rotations(&home), [is("success")], "it is open, and young");

    // A day and an hour ago.
    assert!(pair.auth.drain().await.success(), "it drains");
    let store = rusqlite::Connection::open(pair.world.path("auth/auth.db")).expect("the store");
    let aged = "UPDATE role_token SET created_at = created_at - 90000000000 WHERE candidate = 1";
    assert_eq!(store.execute(aged, []).expect("written"), 1);
    drop(store);
    pair.start_auth().await;
    assert_eq!(of_rotations(&home), [is("warning")]);
    let said = ran(&home, &doctor, 0);
    for line in [
        "warn  rotation user: to generation 2, open since ",
        "interlock auth rotate user --commit, or --abort",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    // Who is no administrator is not told.
    let user = kept(&home, "user.token", pair.user().expose());
    let said = ran(&home, &format!("--token-file {user} doctor"), 0);
    assert!(!said.contains("rotation"), "{said}");
}
