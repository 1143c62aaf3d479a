//! Rules over Rust code outside of tests: what nouns and policies may name, and where the environment
//! and the clock are read.

use crate::{
    Fault,
    code::{Named, named},
    holds, sees,
    tree::Tree,
};

/// The folders of the two services.
const SERVICES: &[&str] = &["auth-service", "gateway-service"];

/// The nouns of both services, and what they all rest on.
const NOUNS: &[&str] = &[
    "role_token",
    "owner",
    "password",
    "owner_session",
    "elevation",
    "project",
    "trust",
    "session",
    "binding",
    "client",
    "event",
    "job",
    "lease",
    "worker",
    "agent",
    "file",
    "policy",
    "limits",
];

/// Where transactions are made and handed on, which knows both sides.
const SEAM: &[&str] = &["store", "lib"];

/// Crates of transport, runtime and database drivers.
const OUTSIDE: &[&str] = &[
    "tonic",
    "tonic_prost",
    "tonic_health",
    "tonic_types",
    "tonic_reflection",
    "prost",
    "prost_types",
    "http",
    "hyper",
    "tower",
    "tokio",
    "tokio_stream",
    "tokio_util",
    "rusqlite",
    "refinery",
    "postgres",
    "tokio_postgres",
];

/// What a pure decision cannot name: the store, a clock, the outside.
const IMPURE: &[&str] =
    &["store", "Tx", "Rows", "Clock", "SystemClock", "time", "fs", "io", "net", "env", "process", "thread"];

/// Calls that read a clock, in std and in the crates that we use.
const NOW: &[&str] = &["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now", ".elapsed"];

/// The runtime's own instant: a test that pauses the runtime moves it.
const MOVABLE: &str = "tokio::time::Instant";

/// Ids carry their time in front, for order alone; they are made where randomness is.
const ORDERED_ID: &str = "Uuid::now_v7";

/// The one file of each folder that may read a clock.
const CLOCKS: &[(&str, Option<&str>)] = &[
    ("proto/src/", None),
    ("service-kit/src/", Some("service-kit/src/clock.rs")),
    ("auth-service/src/", None),
    ("gateway-service/src/", None),
    ("client-sdk/src/", Some("client-sdk/src/clock.rs")),
];

/// Reads and writes of environment variables.
const VARIABLES: &[&str] =
    &["env::var", "env::var_os", "env::vars", "env::vars_os", "env::set_var", "env::remove_var"];

/// Where the command line knows the services: what starts them, what makes the folder that they are
/// started in, what they are started by, what looks after them.
const EMBEDS: &[&str] = &["up", "world", "serve", "doctor", "database"];

/// No noun names transport, runtime or a database driver; nor does any other file that has a
/// transaction in its hands.
fn nouns(tree: &Tree) -> Vec<Fault> {
    let files = SERVICES.iter().flat_map(|service| {
        sources(tree, service).filter(move |(path, text)| {
            let module = module(service, path);
            let acts = || named(path, text).iter().any(|n| n.has("Tx"));
            NOUNS.contains(&module) || (!SEAM.contains(&module) && acts())
        })
    });
    faults(files, |n| OUTSIDE.iter().any(|c| n.enters(c)), "is not a noun's to name")
}

/// No policy names a store, a clock or I/O. An instant that is handed in is a value.
fn policies(tree: &Tree) -> Vec<Fault> {
    let files = SERVICES.iter().flat_map(|s| sources(tree, s).filter(|(p, _)| module(s, p) == "policy"));
    let impure = |n: &Named| IMPURE.iter().chain(OUTSIDE).any(|part| n.has(part));
    faults(files, impure, "makes a decision depend on more than its arguments")
}

/// Only `config.rs` reads the environment. Arguments are none of it; and the command line, which starts
/// itself as a service, may ask where it is.
fn environment(tree: &Tree) -> Vec<Fault> {
    let mut all = Vec::new();
    for folder in ["proto", "service-kit", "auth-service", "gateway-service", "client-sdk"] {
        let files = sources(tree, folder).filter(|(path, _)| module(folder, path) != "config");
        let read = |n: &Named| n.enters("std::env") && !n.ends("env::args_os");
        all.extend(faults(files, read, "belongs into config.rs"));
    }
    let files = sources(tree, "cli").filter(|(path, _)| module("cli", path) != "config");
    all.extend(faults(files, |n| VARIABLES.iter().any(|v| n.ends(v)), "belongs into config.rs"));
    all
}

/// Only `clock.rs` says what time it is.
fn clocks(tree: &Tree) -> Vec<Fault> {
    let files = CLOCKS.iter().flat_map(|(folder, clock)| {
        let crate_folder = folder.trim_end_matches("/src/");
        sources(tree, crate_folder).filter(move |(path, _)| Some(*path) != *clock)
    });
    let mut all = Vec::new();
    for (path, text) in files {
        let movable = named(path, text).iter().any(|n| n.enters(MOVABLE));
        let reads = |n: &Named| {
            let now = NOW.iter().any(|now| n.ends(now));
            let moves = movable && (n.ends("Instant::now") || n.path == ".elapsed");
            (now && !moves) || (n.ends(ORDERED_ID) && !path.ends_with("/random.rs"))
        };
        all.extend(faults(std::iter::once((path, text)), reads, "belongs into clock.rs"));
    }
    all
}

/// The rest of the command line reaches the services through the SDK, and knows nothing of the kit.
fn embedding(tree: &Tree) -> Vec<Fault> {
    let embeds = |path: &str| path.split('/').any(|part| EMBEDS.contains(&part.trim_end_matches(".rs")));
    let files = sources(tree, "cli").filter(|(path, _)| !embeds(path));
    let services = ["interlock_auth", "interlock_gateway", "interlock_kit"];
    faults(files, |n| services.iter().any(|s| n.enters(s)), "is for what runs the services")
}

/// The Rust files of a crate's `src` that are no tests.
fn sources<'a>(tree: &'a Tree, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let tests = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/");
    let inside = move |path: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with("/src/"));
    tree.rust(folder).filter(move |(path, _)| inside(path) && !tests(path))
}

/// The module right under `src` that a file is or is in.
fn module<'a>(folder: &str, path: &'a str) -> &'a str {
    let inner = path.strip_prefix(folder).and_then(|p| p.strip_prefix("/src/")).unwrap_or(path);
    inner.split('/').next().unwrap_or(inner).trim_end_matches(".rs")
}

fn faults<'a>(
    files: impl Iterator<Item = (&'a str, &'a str)>,
    wrong: impl Fn(&Named) -> bool,
    why: &str,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (path, text) in files {
        let found = named(path, text).into_iter().filter(|n| wrong(n));
        faults.extend(found.map(|n| format!("{path}:{}: {} {why}", n.line, n.path)));
    }
    faults
}

#[test]
fn nouns_know_no_transport_runtime_or_engine() {
    holds(&nouns(&Tree::real()));
}

#[test]
fn nouns_see_a_noun_that_knows_too_much() {
    let tree = Tree::planted(&[
        ("auth-service/src/owner.rs", "use std::fmt;\nuse {tonic::Status, serde::Serialize};"),
        ("gateway-service/src/job/lease.rs", "fn f() { tokio::spawn(async {}); }"),
        ("gateway-service/src/grpc/job.rs", "use tonic::Status;"),
        ("gateway-service/src/sweep.rs", "use {crate::store::Tx, tokio::time};"),
        ("gateway-service/src/sweeper.rs", "use tokio::time;"),
        ("gateway-service/src/store/mod.rs", "struct Tx; use rusqlite::Connection;"),
        ("gateway-service/src/session.rs", "//! Not tonic.\n#[cfg(test)]\nmod tests { use tokio::test; }"),
        ("gateway-service/src/event/tests.rs", "use tokio::time;"),
    ]);
    sees(
        &nouns(&tree),
        &[
            "auth-service/src/owner.rs:2: tonic::Status",
            "gateway-service/src/job/lease.rs:1: tokio::spawn",
            "gateway-service/src/sweep.rs:1: tokio::time",
        ],
    );
}

#[test]
fn policies_rest_on_their_arguments_alone() {
    holds(&policies(&Tree::real()));
}

#[test]
fn policies_see_a_store_a_clock_and_a_file() {
    let tree = Tree::planted(&[
        (
            "auth-service/src/policy.rs",
            "use crate::store::Tx;\nuse interlock_kit::clock::{Clock, Timestamp};",
        ),
        ("gateway-service/src/policy.rs", "fn f() { std::fs::read(\"x\"); }"),
        ("gateway-service/src/binding.rs", "use crate::store::Tx;"),
    ]);
    sees(&policies(&tree), &["crate::store::Tx", "interlock_kit::clock::Clock", "std::fs::read"]);
}

#[test]
fn only_config_reads_the_environment() {
    holds(&environment(&Tree::real()));
}

#[test]
fn environment_sees_a_reader_elsewhere() {
    let tree = Tree::planted(&[
        ("service-kit/src/serve/mod.rs", "use std::{env, fmt};"),
        ("service-kit/src/config/layers.rs", "use std::env;"),
        ("auth-service/src/main.rs", "fn main() { std::env::args_os(); }"),
        ("client-sdk/src/tls.rs", "fn f() { std::env::var_os(\"HOME\"); let _ = env!(\"OUT_DIR\"); }"),
        ("cli/src/up.rs", "fn f() { std::env::current_exe(); env::var(\"HOME\"); }"),
        ("cli/src/config.rs", "fn f() { std::env::var(\"HOME\"); }"),
    ]);
    sees(
        &environment(&tree),
        &[
            "service-kit/src/serve/mod.rs:1: std::env ",
            "client-sdk/src/tls.rs:1",
            "cli/src/up.rs:1: env::var ",
        ],
    );
}

#[test]
fn only_clock_files_say_what_time_it_is() {
    holds(&clocks(&Tree::real()));
}

#[test]
fn clocks_see_a_reader_elsewhere() {
    let tree = Tree::planted(&[
        ("service-kit/src/clock.rs", "fn f() { std::time::Instant::now(); }"),
        ("service-kit/src/serve.rs", "use std::time::Instant;\nfn f() { Instant::now(); }"),
        ("service-kit/src/bounds.rs", "use tokio::time::Instant;\nfn f() { Instant::now().elapsed(); }"),
        ("service-kit/src/random.rs", "fn f() { uuid::Uuid::now_v7(); }"),
        (
            "auth-service/src/owner.rs",
            "use tokio::time::Instant;\nfn f() { SystemTime::now(); Uuid::now_v7(); }",
        ),
        ("gateway-service/src/job.rs", "fn f(t: T) { t.elapsed(); }"),
        ("client-sdk/src/clock.rs", "fn f() { SystemTime::now(); }"),
        ("client-sdk/src/verifier/clock.rs", "fn f() { call(SystemTime::now); }"),
    ]);
    sees(
        &clocks(&tree),
        &[
            "service-kit/src/serve.rs:2",
            "auth-service/src/owner.rs:2: SystemTime::now",
            "auth-service/src/owner.rs:2: Uuid::now_v7",
            "gateway-service/src/job.rs:1",
            "client-sdk/src/verifier/clock.rs:1",
        ],
    );
}

#[test]
fn commands_reach_the_services_through_the_sdk() {
    holds(&embedding(&Tree::real()));
}

#[test]
fn embedding_sees_a_command_that_goes_around_the_sdk() {
    let tree = Tree::planted(&[
        ("cli/src/up/children.rs", "use interlock_gateway::run;"),
        ("cli/src/command/serve.rs", "use interlock_auth::run;"),
        ("cli/src/job.rs", "use interlock_gateway::job::Job;"),
    ]);
    sees(&embedding(&tree), &["cli/src/job.rs:1: interlock_gateway::job::Job"]);
}
