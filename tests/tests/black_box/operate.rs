//! What an operator meets: drain, mistakes in the configuration, two programs on one store, health, probes.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Output, Stdio},
};

use interlock_proto::{
    credential::{Credential, Kind},
    gateway::v1::StreamEventsRequest,
};
use interlock_tests::{
    Pair, Setup, World,
    pair::Peer,
    service::program,
    wire::{self, Metadata, Outcome},
    within,
};
use prost::Message as _;

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const LIST_SESSIONS: &str = "/interlock.gateway.v1.SessionService/ListSessions";
const STREAM_EVENTS: &str = "/interlock.gateway.v1.SessionService/StreamEvents";
/// `HealthCheckResponse { status: SERVING }`.
const SERVING: &[u8] = &[0x08, 0x01];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_drains() {
    let mut pair = Pair::start().await;
    let alice = pair.login("alice").await;
    let id = pair
        .sdk_gateway(&alice.access_token)
        .sessions()
        .create("")
        .await
        .expect("a session")
        .session
        .session_id;
    let mut stream = open_stream(&pair, &alice.access_token, &id).await;
    let channel = pair.gateway_public();
    pair.gateway.terminate();
    let end = within("the end of the stream", async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Outcome::ok(),
                Err(status) => return Outcome::of(&status),
            }
        }
    })
    .await;
    assert_eq!((end.code.as_str(), end.reason.as_str()), ("UNAVAILABLE", "DRAINING"), "{end}");
    let status = pair.gateway.ended().await;
    assert_eq!(status.code(), Some(0), "{status}");
    let refused = wire::call(&channel, HEALTH, Vec::new(), &Metadata::none()).await.outcome;
    assert_eq!(refused.code, "UNAVAILABLE", "nobody listens: {refused}");
    let status = pair.auth.drain().await;
    assert_eq!(status.code(), Some(0), "{status}");

    // What was stored is there at the next start, at the same place; tokens and sign-ins go on. SW-14
    let (admin, user) = (pair.admin(), pair.user());
    pair.start_auth().await;
    pair.start_gateway().await;
    pair.serving().await;
    assert_eq!((pair.admin(), pair.user()), (admin, user));
    let found = pair.sdk_gateway(&alice.access_token).sessions().get(&id).await.expect("hers");
    assert_eq!(found.session_id, id);
}

async fn open_stream(pair: &Pair, credential: &Credential, id: &str) -> tonic::Streaming<bytes::Bytes> {
    let request = StreamEventsRequest { session_id: id.to_owned(), ..Default::default() };
    let bearer = Metadata::bearer(credential);
    let opened = wire::open(&pair.gateway_public(), STREAM_EVENTS, request.encode_to_vec(), &bearer).await;
    let (_, mut stream) = opened.expect("a stream");
    within("the first message", stream.message()).await.expect("living").expect("a message");
    stream
}

/// Every mistake at once, exit code 64, before any port is bound; no value is repeated.
#[test]
fn mistakes_in_the_configuration_are_told_together() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, more) in
        [("interlock-auth", "lease = \"90s\""), ("interlock-gateway", "lease_ttl = \"900ms\"")]
    {
        let config = folder.path().join(format!("{name}.toml"));
        let text = format!(
            "public.address = \"0.0.0.0:0\"\nprofile = \"lokal\"\nno_such_key = \"canary-value\"\n{more}\nready_file = \"ready\"\n"
        );
        fs::write(&config, text).expect("written");
        let output = run(name, &["--config", config.to_str().expect("a path")]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{name}: {said}");
        let mut places = vec!["public.address", "profile", "no_such_key", "tls.cert", "tls.key", "lease"];
        if name == "interlock-gateway" {
            places.push("auth.endpoints");
        }
        for place in places {
            assert!(said.lines().any(|line| line.contains(place)), "{name} says nothing of {place}:\n{said}");
        }
        assert!(!said.contains("canary-value"), "{name} repeats a value, which may be a secret:\n{said}");
        assert!(!folder.path().join("ready").exists());
        assert_eq!(run(name, &["--no-such-flag"]).status.code(), Some(64), "{name}: wrong usage");
        let missing = run(name, &["--config", "/no/such/file.toml"]);
        assert_eq!(missing.status.code(), Some(64), "{name}: {}", String::from_utf8_lossy(&missing.stderr));
    }
}

/// A second program on the same store would break what the first one promises.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_program_on_the_same_store_refuses_to_start() {
    let pair = Pair::start().await;
    for service in ["auth", "gateway"] {
        let config = pair.world.path(&format!("{service}.toml"));
        let mut arguments = vec!["--config".to_owned(), config.display().to_string()];
        // Its own ports and ready file: only the store is shared.
        for listener in ["public", "internal", "health", "metrics"] {
            arguments.extend(["--set".to_owned(), format!("{listener}.address=127.0.0.1:0")]);
        }
        let ready = pair.world.path("second.ready.json");
        arguments.extend(["--set".to_owned(), format!("ready_file={}", ready.display())]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let name = format!("interlock-{service}");
        let output = tokio::task::block_in_place(|| run(&name, &arguments));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !ready.exists(), "{name} started: {said}");
        assert!(said.contains("another program uses this folder"), "{name} does not say why: {said}");
    }
    // The first ones are unharmed.
    pair.serving().await;
}

// UA-05, UA-15, UA-28, UA-30
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_open_and_probes_tell() {
    let mut pair = Pair::start().await;
    let who_am_i = "/interlock.auth.v1.IdentityService/WhoAmI";
    for service in [&pair.auth, &pair.gateway] {
        let plain = wire::connect_plain(service.address("health"));
        let answer = wire::call(&plain, HEALTH, Vec::new(), &Metadata::none()).await;
        assert_eq!((answer.outcome, &answer.message[..]), (Outcome::ok(), SERVING));
        let admin = Metadata::bearer(&pair.admin());
        let outcome = wire::call(&plain, who_am_i, Vec::new(), &admin).await.outcome;
        assert_eq!(outcome.code, "UNIMPLEMENTED", "health and nothing else: {outcome}");
        for (path, status) in [("/livez", 200), ("/readyz", 200), ("/metrics", 200), ("/other", 404)] {
            assert_eq!(http_get(service.address("metrics"), path).0, status, "{path}");
        }
        let (_, metrics) = http_get(service.address("metrics"), "/metrics");
        assert!(metrics.lines().any(|line| line.starts_with("# TYPE ")), "{metrics}");
    }
    for channel in [pair.auth_public(), pair.gateway_public()] {
        let answer = wire::call(&channel, HEALTH, Vec::new(), &Metadata::none()).await;
        assert_eq!(&answer.message[..], SERVING);
    }
    // Inside, even health takes both factors.
    let inside = pair.gateway_internal(Peer::Listed);
    let outcome = wire::call(&inside, HEALTH, Vec::new(), &Metadata::none()).await.outcome;
    assert_eq!(outcome.reason, "INTERNAL_TOKEN_REQUIRED", "{outcome}");

    // Without auth the gateway is alive and not ready.
    pair.auth.kill();
    let metrics = pair.gateway.address("metrics");
    interlock_tests::eventually("a gateway that says it is not ready", async || {
        (http_get(metrics, "/readyz").0 == 503).then_some(())
    })
    .await;
    assert_eq!(http_get(metrics, "/livez").0, 200);
    let plain = wire::connect_plain(pair.gateway.address("health"));
    let answer = wire::call(&plain, HEALTH, Vec::new(), &Metadata::none()).await;
    assert_ne!(&answer.message[..], SERVING);
}

// SW-17, FN-02, UA-05
#[test]
fn what_is_broken_refuses_to_start_and_is_left_as_it_is() {
    for (file, contents) in
        [("auth/auth_tokens.json", "{\"format\": 1, \"tok"), ("accounts.json", "[{\"username\":")]
    {
        let world = World::new(Setup::default());
        world.configure_auth(&BTreeMap::new());
        fs::write(world.path(file), contents).expect("written");
        private(&world.path(file));
        let config = world.path("auth.toml");
        let output = run("interlock-auth", &["--config", config.to_str().expect("a path")]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{file}: it started: {said}");
        assert_eq!(fs::read_to_string(world.path(file)).expect("there"), contents, "{file} was changed");
        assert!(!world.path("auth.ready.json").exists());
    }
}

// UA-41, UA-47: what `local` warns of, `hardened` refuses.
#[test]
fn a_hardened_service_takes_no_secret_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt as _;
    for file in ["internal.token", "accounts.json", "pki/auth.key"] {
        let world = World::new(Setup::default().auth("profile", "hardened"));
        world.configure_auth(&BTreeMap::new());
        fs::set_permissions(world.path(file), fs::Permissions::from_mode(0o644)).expect("ours");
        let config = world.path("auth.toml");
        let output = run("interlock-auth", &["--config", config.to_str().expect("a path")]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && !world.path("auth.ready.json").exists(),
            "{file}: it started: {said}"
        );
        assert!(said.contains(file.rsplit('/').next().expect("a name")), "{file} is not named: {said}");
    }
}

// UA-46: the internal token rolls with no downtime: add, promote, drop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_internal_token_rolls_without_a_restart() {
    let pair = Pair::start().await;
    let alice = pair.login("alice").await;
    let (old, new) = (pair.world.internal_token(), Credential::new(Kind::Internal, &[3; 32]));
    let channel = pair.gateway_internal(Peer::Listed);
    let list = async |token: &str| {
        let metadata = Metadata::bearer(&alice.access_token).with("x-internal-token", token);
        wire::call(&channel, LIST_SESSIONS, Vec::new(), &metadata).await.outcome
    };
    assert_eq!(list(old).await, Outcome::ok());
    assert_eq!(list(new.expose()).await.reason, "INTERNAL_TOKEN_REQUIRED");
    // (what the file says, whether the old one is accepted, whether the new one is)
    let steps = [
        (format!("{old}\n{}\n", new.expose()), true, true),
        (format!("{}\n{old}\n", new.expose()), true, true),
        (format!("{}\n", new.expose()), false, true),
    ];
    for (text, old_fits, new_fits) in steps {
        replace(&pair.world.path("internal.token"), &text);
        interlock_tests::eventually("the file read again", async || {
            let accepted = (list(old).await == Outcome::ok(), list(new.expose()).await == Outcome::ok());
            (accepted == (old_fits, new_fits)).then_some(())
        })
        .await;
        // The gateway's own link to auth goes on: new credentials are verified.
        let bob = pair.login("bob").await;
        pair.sdk_gateway(&bob.access_token).sessions().list().await.expect("verified");
    }
}

/// As an operator would: a whole file in place of another.
fn replace(path: &std::path::Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    private(&new);
    fs::rename(&new, path).expect("in its place");
}

fn private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("ours");
}

/// Runs a program that should end by itself, and at once.
fn run(name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program(name));
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let deadline = std::time::Instant::now() + interlock_tests::PATIENCE;
    while child.try_wait().expect("a child").is_none() {
        if std::time::Instant::now() > deadline {
            let _ = child.kill();
            let output = child.wait_with_output().expect("its output");
            panic!("{name} goes on: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::yield_now();
    }
    child.wait_with_output().expect("its output")
}

/// Status and body.
fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    tokio::task::block_in_place(|| {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(interlock_tests::PATIENCE)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
        let mut answer = String::new();
        // A reset after the answer is an end too.
        let _ = stream.read_to_string(&mut answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        (status, body)
    })
}
