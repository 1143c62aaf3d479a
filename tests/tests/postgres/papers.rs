//! The complete files of docs/several/, with names and places replaced by those of this machine: three gateways and two
//! auth-services on one server, in profile `hardened`.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path};

use interlock_client::{Gateway, SetAgent};
use interlock_kit::secret_file;
use interlock_tests::{Pair, Service, Setup, eventually};
use serde_json::json;

use super::cluster::{Cluster, PASSWORD};

const PAGE: &str = include_str!("../../../docs/several.md");
const FILES: [(&str, &str); 5] = [
    ("auth1", include_str!("../../../docs/several/auth1.toml")),
    ("auth2", include_str!("../../../docs/several/auth2.toml")),
    ("gateway1", include_str!("../../../docs/several/gateway1.toml")),
    ("gateway2", include_str!("../../../docs/several/gateway2.toml")),
    ("gateway3", include_str!("../../../docs/several/gateway3.toml")),
];

/// A server that shows a certificate for `localhost`, with a role and a database for each service.
fn server(etc: &Path) -> Cluster {
    let cluster = Cluster::made(&[
        "ssl=on",
        "ssl_cert_file=../server.pem",
        "ssl_key_file=../server.key",
        "max_connections=80",
    ]);
    let mut cluster = cluster.on_tcp();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let authority = cluster.give("server.pem", &made.cert.pem());
    cluster.give("server.key", &made.signing_key.serialize_pem());
    fs::copy(authority, etc.join("db-ca.pem")).expect("copied");
    cluster.serve();
    for service in ["auth", "gateway"] {
        cluster.sql("postgres", &format!("CREATE ROLE {service} LOGIN PASSWORD '{PASSWORD}'"));
        cluster.sql("postgres", &format!("CREATE DATABASE {service} OWNER {service}"));
        let file = etc.join(format!("{service}-db.password"));
        secret_file::write(&file, PASSWORD.as_bytes()).expect("written");
    }
    cluster
}

/// What the files name in /etc/interlock.
fn etc(pair: &Pair) -> std::path::PathBuf {
    let world = &pair.world;
    let etc = world.path("etc");
    fs::create_dir(&etc).expect("made");
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o700)).expect("set");
    for (from, to) in [
        ("internal.token", "internal.token"),
        ("root.password", "root.password"),
        ("pki/ca.pem", "ca.pem"),
        ("pki/auth.pem", "auth.pem"),
        ("pki/auth.key", "auth.key"),
        ("pki/gateway.pem", "gateway.pem"),
        ("pki/gateway.key", "gateway.key"),
    ] {
        fs::copy(world.path(from), etc.join(to)).expect("copied");
    }
    let alice =
        json!({ "alice": { "password": world.password("alice"), "role": "user", "display_name": "Alice" } });
    secret_file::write(&etc.join("owners.json"), alice.to_string().as_bytes()).expect("written");
    etc
}

// Issue 5 line 6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_gateways_and_two_auths_run_by_the_files_of_the_page() {
    for (name, file) in FILES {
        let shown = PAGE.contains(&format!("```toml\n{file}```"));
        assert_eq!(shown, name.ends_with('1'), "{name}: the page shows the first of each as it is");
    }
    let pair = Pair::stopped(Setup::default());
    let folder = pair.world.path("");
    let etc = etc(&pair);
    let cluster = server(&etc);
    let mut replaced: BTreeMap<String, String> = [
        ("/etc/interlock/".to_owned(), format!("{}/", etc.display())),
        ("db1.internal:5432,db2.internal:5432".to_owned(), format!("localhost:{}", cluster.port())),
        ("example.org".to_owned(), "interlock.test".to_owned()),
    ]
    .into();
    for listener in ["11:7402", "12:7402", "13:7402", "21:7401", "22:7401", "21:7444", "22:7444"] {
        replaced.insert(format!("10.0.0.{listener}"), "127.0.0.1:0".to_owned());
    }
    let mut services = Vec::new();
    for (name, file) in FILES {
        let kind = name.trim_end_matches(char::is_numeric);
        let data = format!("data_dir = \"/var/lib/interlock{}\"", if kind == "auth" { "-auth" } else { "" });
        let mut text = file.replace(&data, &format!("data_dir = \"{}\"", folder.join(name).display()));
        for (from, to) in &replaced {
            text = text.replace(from, to);
        }
        let elsewhere = |line: &&str| {
            !line.starts_with('#') && [".internal", "/var/", "10.0."].iter().any(|p| line.contains(p))
        };
        assert_eq!(text.lines().find(elsewhere), None, "{name} names a place that is not here");
        fs::write(folder.join(format!("{name}.toml")), text).expect("written");
        let mut service = Service::another(kind, name, &folder);
        let ready = folder.join(format!("{name}.ready.json")).display().to_string();
        service.env(&format!("INTERLOCK_{}_READY_FILE", kind.to_uppercase()), &ready);
        service.start().await;
        if kind == "auth" {
            let address = format!("localhost:{}", service.address("internal").port());
            replaced.insert(format!("{name}.internal:7444"), address);
        }
        services.push(service);
    }
    let (auths, gateways) = services.split_at(2);
    for (at, auth) in auths.iter().enumerate() {
        let signed_in = pair.sdk_auths(&[auth]).login("alice", pair.world.password("alice")).await;
        let alice = signed_in.expect("signed in");
        let through = |gateway| -> Gateway { pair.sdk_gateways(&[gateway], &alice.access_token) };
        through(&gateways[0]).agents().set("builder", SetAgent::default()).await.expect("an agent");
        for (n, gateway) in gateways.iter().enumerate() {
            let sessions = through(gateway).sessions();
            let session = eventually("a gateway that admits", async || sessions.create("").await.ok()).await;
            let next = through(&gateways[(n + 1) % gateways.len()]).sessions();
            let session = session.session.session_id;
            eventually("another that shows it", async || next.get(&session).await.ok()).await;
        }
        pair.sdk_auths(&[&auths[1 - at]]).logout(&alice.access_token).await.expect("signed out");
        for gateway in gateways {
            assert!(
                through(gateway).sessions().list().await.is_err(),
                "I8: of the other auth's verifiers, too"
            );
        }
    }
    for service in services.iter_mut().rev() {
        assert!(service.drain().await.success(), "it drains");
    }
}
