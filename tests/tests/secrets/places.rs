//! Where canaries are looked for.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use interlock_tests::{
    PATIENCE,
    canary::{Hunt, Leak},
};

use crate::stage::{ANSWERED, STORED, Stage};

/// How much was looked at.
pub(crate) struct Left {
    pub(crate) logs: usize,
    pub(crate) files: usize,
}

/// Answers, probes, the process list, open stores.
pub(crate) async fn while_running(stage: &Stage) -> usize {
    let hunt = stage.canaries.hunt();
    assert!(stage.answers.len() > 100_000, "answers were heard: {}", stage.answers.len());
    none("answers", &hunt.but(&ANSWERED).in_bytes(&stage.answers));
    none("what commands printed", &hunt.in_bytes(&stage.printed));
    let mut looked = stage.printed.len();
    for service in [&stage.pair.auth, &stage.pair.gateway] {
        for path in ["/metrics", "/livez", "/readyz", "/"] {
            let answer = http(service.address("metrics"), path);
            assert!(path != "/metrics" || answer.len() > 1_000, "metrics were there");
            looked += answer.len();
            none(path, &hunt.in_bytes(&answer));
        }
        let pid = service.pid().expect("it runs");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("alive");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).expect("alive");
        assert!(!cmdline.is_empty());
        looked += cmdline.len();
        none("the process list", &hunt.in_bytes(&cmdline));
    }
    // Accounts are in the environment of auth, which needs them; of nobody else. Where the kernel lets us look.
    let pid = stage.pair.gateway.pid().expect("it runs");
    if let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) {
        looked += environment.len();
        none("the gateway's environment", &hunt.in_bytes(&environment));
    }
    // Beside the write-ahead log, which the drain folds in.
    looked + stores(stage, &hunt)
}

/// Logs, stores with all their pages, ready files, what the command line kept.
pub(crate) fn at_rest(stage: &Stage) -> Left {
    let all = stage.canaries.hunt();
    let mut left = Left { logs: 0, files: stores(stage, &all) };
    for (name, log) in [("auth", stage.pair.auth.log()), ("gateway", stage.pair.gateway.log())] {
        assert!(log.contains(" TRACE ") && log.contains(" DEBUG "), "{name} has logged");
        none(&format!("the log of {name}"), &all.in_bytes(log.as_bytes()));
        left.logs += log.len();
    }
    let world = stage.pair.world.path("");
    for name in ["auth.toml", "gateway.toml", "auth.ready.json", "gateway.ready.json"] {
        none(name, &all.in_bytes(&fs::read(world.join(name)).unwrap_or_default()));
    }
    let made_for_it = |name: &str| {
        let kept = ["context.session", "context.token", "/cookies/", "password"];
        kept.iter().any(|kept| name.contains(kept))
    };
    let (looked, leaks) = all.in_folder(&stage.home.path(""), &made_for_it);
    none("what the command line left", &leaks);
    private(&stage.home.kept());
    left.files += looked;
    left
}

/// The data folders, byte by byte: but for the files that are there to hold just that.
fn stores(stage: &Stage, hunt: &Hunt) -> usize {
    let hunt = hunt.but(&STORED);
    let except = |name: &str| ["auth_tokens.json", "audit.key", "gateway.chain-key"].contains(&name);
    let mut looked = 0;
    for folder in ["auth", "gateway"] {
        let (bytes, leaks) = hunt.in_folder(&stage.pair.world.path(folder), &except);
        assert!(bytes > 50_000, "{folder} has a store: {bytes}");
        none(&format!("the data of {folder}"), &leaks);
        looked += bytes;
    }
    looked
}

/// Files of the user's alone.
fn private(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let (path, mode) = (entry.path(), entry.metadata().expect("there").permissions().mode() & 0o777);
        match entry.file_name().to_str() {
            Some("cookies") => private(&path),
            Some("context.json") => {}
            _ => assert_eq!(mode, 0o600, "{}", path.display()),
        }
    }
}

fn none(place: &str, leaks: &[Leak]) {
    assert!(leaks.is_empty(), "in {place}:\n{}", leaks.join("\n"));
}

fn http(address: SocketAddr, path: &str) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).expect("a probe");
    socket.set_read_timeout(Some(PATIENCE)).expect("a bound");
    write!(socket, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("asked");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an answer");
    answer
}
