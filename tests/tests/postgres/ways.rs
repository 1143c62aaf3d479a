//! `interlock up` and `interlock demo` on PostgreSQL.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use interlock_tests::{Up, service::program};
use serde_json::Value;

use super::cluster::{Cluster, PASSWORD};

/// A cluster whose role may make databases, or may not, and shows a password.
fn cluster(may: bool) -> (Cluster, String) {
    let mut cluster = Cluster::made(&["max_connections=60"]).on_tcp();
    cluster.serve();
    if may {
        cluster.sql("postgres", "ALTER ROLE interlock CREATEDB");
    }
    let password = PASSWORD.replace(' ', "%20");
    let url = format!("postgres://interlock:{password}@127.0.0.1:{}/il?sslmode=disable", cluster.port());
    (cluster, url)
}

fn databases(cluster: &Cluster) -> String {
    let sql = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname LIKE 'il%'";
    cluster.sql("postgres", sql)
}

fn interlock(home: &Path, arguments: &[&str], store: Option<&str>) -> Output {
    let mut command = Command::new(program("interlock"));
    command.args(arguments).env("HOME", home).stdin(Stdio::null());
    command.envs(store.map(|url| ("INTERLOCK_STORE", url)));
    command.output().expect("it runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The password in a file below the folder, but for its own.
fn hunted(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            hunted(&path);
        } else if entry.file_name() != "database.password" && path.is_file() {
            let bytes = fs::read(&path).expect("read");
            let coded = PASSWORD.replace(' ', "%20");
            for secret in [PASSWORD, &coded] {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "I16: the database's password is in {}", path.display());
            }
        }
    }
}

/// What processes were started with, those below this one.
fn arguments(pid: u64) -> String {
    let mut all =
        String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).expect("it runs")).into_owned();
    all.push_str(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/environ")).expect("it is ours")));
    all
}

// Issue 5 line 6, I16
#[test]
fn up_makes_its_databases_and_stays_with_them() {
    let (cluster, url) = cluster(true);
    let mut up = Up::start(&["--store", &url]);
    assert_eq!(databases(&cluster), "il_auth il_gateway");
    for line in [
        "interlock login dev --password-file \"$INTERLOCK_UP/dev.password\"",
        "interlock use demo",
        "interlock session create first --agent builder",
        "interlock job submit first hello",
        "interlock doctor --auth-config \"$INTERLOCK_UP/auth.toml\" --gateway-config \"$INTERLOCK_UP/gateway.toml\"",
    ] {
        let output = up.shell(line);
        assert!(output.status.success(), "{line}: {}", said(&output));
    }
    let ready = up.ready();
    assert!(!ready.to_string().contains("tests"), "I16: {ready}");
    assert_eq!(ready["stores"].as_str().map(|place| place.ends_with("/il_*")), Some(true), "{ready}");
    for service in ["auth_pid", "gateway_pid"] {
        let arguments = arguments(ready[service].as_u64().expect("a process"));
        assert!(!arguments.contains("of tests") && !arguments.contains("of%20tests"), "I16: {arguments}");
    }
    for file in ["auth/auth.db", "gateway/gateway.db"] {
        assert!(!up.world().join(file).exists(), "{file}");
    }
    up.end();
    hunted(up.home());

    // Another store than the folder's is refused, and so is the folder's beside another one; nothing is made.
    let folder = up.world().display().to_string();
    let other = url.replace("/il?", "/ilother?");
    let refused = interlock(up.home(), &["up", "--dir", &folder], Some(&other));
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("was made with the store of auth-service in"), "{}", said(&refused));
    assert!(!said(&refused).contains("of%20tests"), "I16: {}", said(&refused));
    assert_eq!(databases(&cluster), "il_auth il_gateway");

    up.again();
    let output = up.shell("interlock job list first --in-flight -o json");
    assert!(output.status.success() && said(&output).contains("queued"), "{}", said(&output));
}

// Issue 5 line 6: what is wrong is said by its kind, and without the URL.
#[test]
fn a_store_that_cannot_be_had_is_refused_in_words_that_help() {
    let (cluster, url) = cluster(false);
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("world").display().to_string();
    let nobody = url.replace("password", "pass");
    let silent = "postgres://u:of%20tests@127.0.0.1:1/il?sslmode=disable";
    let cases = [
        (
            url.as_str(),
            5,
            "the role interlock may not make the database il_",
            "ALTER ROLE interlock CREATEDB",
        ),
        (nobody.as_str(), 7, "password authentication failed", "is the server there"),
        (silent, 7, "onnection refused", "is the server there"),
        (
            "postgres://u:of%20tests@127.0.0.1/il?sslmode=prefer",
            2,
            "sslmode is verify-full or disable",
            "--store",
        ),
        ("of%20tests", 2, "postgres://USER@HOST", "docs/several.md"),
    ];
    for command in [vec!["up", "--dir", folder.as_str()], vec!["demo"]] {
        for (url, code, why, next) in cases {
            let refused = interlock(home.path(), &command, Some(url));
            let said = said(&refused);
            assert_eq!(refused.status.code(), Some(code), "{command:?}: {said}");
            assert!(said.contains(why) && said.contains(next), "{command:?}: {said}");
            assert!(!said.contains("of tests") && !said.contains("of%20tests"), "I16: {said}");
        }
    }
    assert_eq!(databases(&cluster), "");
    assert!(!home.path().join("world/auth.toml").exists(), "half a world");
}

// Issue 5 line 6
#[test]
fn the_demo_holds_with_two_of_each_and_one_of_each_killed() {
    let (cluster, url) = cluster(true);
    let home = tempfile::tempdir().expect("a folder");
    let output = interlock(home.path(), &["demo", "--output", "json", "--store", &url], None);
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", said(&output));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (last, acts) = lines.split_last().expect("a last line");
    assert_eq!((&last["held"], &last["of"]), (&Value::from(12), &Value::from(12)), "{}", said(&output));
    assert!(acts.iter().all(|act| act["held"] == true));
    assert_eq!(databases(&cluster), "", "what it made is gone");
    println!("{last}");
}
