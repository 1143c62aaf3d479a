//! `interlock up`: what its services refuse is told once, in their words and with their exit code, and the
//! other one is stopped. And the command line where there is no home.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use interlock_kit::store::StoreLock;
use interlock_tests::{
    Up,
    service::program,
    start::{Snapshot, Told, Yard},
};

use super::{MET, TOLD};

/// What is wrong, how it comes about, the exit code, words of what is told.
type Row = (&'static str, fn(&Path), i32, &'static [&'static str]);

const TABLE: &[Row] = &[
    (
        "auth's configuration is no TOML",
        |w| put(w, "auth.toml", "hunter2"),
        TOLD,
        &["auth-service did not start: ", "auth.toml: line 1"],
    ),
    (
        "a key of the gateway is unknown",
        |w| append(w, "gateway.toml", "\n[limitz]\ncalls = 1\n"),
        TOLD,
        &["gateway-service did not start: limitz.calls (file): unknown key; did you mean limits.calls?"],
    ),
    (
        "two mistakes at once",
        |w| append(w, "auth.toml", "\n[limitz]\ncalls = 1\nconnections = 1\n"),
        TOLD,
        &["auth-service did not start: limitz.calls (file)", "\n  limitz.connections (file)"],
    ),
    (
        "auth's store is empty",
        |w| put(w, "auth/auth.db", ""),
        MET,
        &["auth-service did not start: the store ", "auth/auth.db is damaged: it is empty"],
    ),
    (
        "the gateway's store is garbage",
        |w| put(w, "gateway/gateway.db", "hunter2"),
        MET,
        &["gateway-service did not start: the store ", "gateway/gateway.db is damaged: "],
    ),
    (
        "the copy of the role tokens is corrupt",
        |w| put(w, "auth/auth_tokens.json", "{"),
        TOLD,
        &["auth-service did not start: ", "auth_tokens.json: not a copy of the role tokens"],
    ),
    (
        "the gateway's key is another's",
        |w| put(w, "pki/gateway.key", &read(w, "pki/auth.key")),
        TOLD,
        &["gateway-service did not start: ", "gateway.pem", "gateway.key"],
    ),
    (
        "the internal token is missing",
        |w| fs::remove_file(w.join("internal.token")).expect("removed"),
        TOLD,
        &["auth-service did not start: ", "internal.token: cannot be read: No such file"],
    ),
];

fn put(world: &Path, name: &str, text: &str) {
    fs::write(world.join(name), text).expect("written");
}

fn append(world: &Path, name: &str, text: &str) {
    let before = fs::read_to_string(world.join(name)).expect("text");
    put(world, name, &format!("{before}{text}"));
}

/// `interlock` with an empty environment, but for a home.
fn interlock(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("interlock"));
    command.args(arguments).env_clear().env("RUST_BACKTRACE", "1").env("HOME", home).stdin(Stdio::null());
    command
}

fn up(home: &Path, world: &Path) -> Told {
    Told::by(interlock(home, &["up", "--dir", world.to_str().expect("text")]))
}

/// An `up` that has ended, and the secrets of its folder.
fn at_rest() -> (Up, Vec<String>) {
    let mut up = Up::start(&[]);
    let secret = |name: &str| fs::read_to_string(up.world().join(name)).expect("text").trim().to_owned();
    let secrets = vec![secret("dev.password"), secret("internal.token")];
    up.end();
    (up, secrets)
}

/// The ports in its configuration are kept; by now they may be another's.
fn on_free_ports(world: &Path) {
    let texts = ["auth.toml", "gateway.toml"].map(|name| (name, read(world, name)));
    let all = texts.iter().flat_map(|(_, text)| text.split("127.0.0.1:").skip(1));
    let mut ports: Vec<String> =
        all.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect()).collect();
    ports.sort();
    ports.dedup();
    let free: Vec<_> = ports.iter().map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    for (name, mut text) in texts {
        for (old, new) in ports.iter().zip(&free) {
            let new = new.local_addr().expect("an address").port();
            // Marked, so that it is not taken for one of the old ones.
            text = text.replace(&format!("127.0.0.1:{old}\""), &format!("127.0.0.1:@{new}\""));
        }
        put(world, name, &text.replace(":@", ":"));
    }
}

fn read(world: &Path, name: &str) -> String {
    fs::read_to_string(world.join(name)).expect("text")
}

fn told_once(told: &Told, code: i32, says: &[&str], context: &str) {
    let context = format!("{context}\n{}", told.stderr);
    assert_eq!(told.code, Some(code), "{context}");
    for word in says {
        assert_eq!(told.stderr.matches(word).count(), 1, "`{word}` once: {context}");
    }
    assert_eq!(told.stderr.matches("interlock: ").count(), 1, "{context}");
    assert!(!told.stderr.contains("panicked") && !told.stderr.contains("hunter2"), "{context}");
    assert!(
        !told.stderr.contains("interlock-auth:") && !told.stderr.contains("interlock-gateway:"),
        "{context}"
    );
    assert_eq!(told.stdout, "", "{context}");
}

#[test]
fn what_a_service_refuses_is_told_once_and_the_other_is_stopped() {
    let (mut first, secrets) = at_rest();
    let (home, world) = (first.home().to_owned(), first.world());
    let yard = Yard::new(&world, secrets.clone());
    for &(what, spoil, code, says) in TABLE {
        on_free_ports(&world);
        spoil(&world);
        let told = up(&home, &world);
        told_once(&told, code, says, what);
        assert!(told.stderr.contains("\n  next: "), "{}", told.stderr);
        assert!(!secrets.iter().any(|secret| told.stderr.contains(secret)), "{what}");
        for held in ["", "auth", "gateway"] {
            StoreLock::take(&world.join(held)).expect("nothing runs in it any more");
        }
        assert!(!world.join("auth.ready.json").exists(), "{what}: auth has ended by itself");
        yard.repair();
    }
    // Once it is mended, the world is the one of before.
    on_free_ports(&world);
    first.again();
    let signed_in = first.shell("interlock login dev --password-file \"$INTERLOCK_UP/dev.password\"");
    assert!(signed_in.status.success(), "{}", String::from_utf8_lossy(&signed_in.stderr));
    let projects = first.shell("interlock -o json project list");
    assert!(String::from_utf8_lossy(&projects.stdout).contains("\"demo\""), "its project is there");

    // A second one in the same folder, and one for which there is no place.
    let second = up(&home, &world);
    told_once(
        &second,
        MET,
        &["`interlock up` runs in ", "next: use that one, or --dir ANOTHER"],
        "a second one",
    );
}

#[test]
fn a_port_of_the_gateway_that_is_taken_stops_auth_again() {
    let (first, _) = at_rest();
    let (home, world) = (first.home().to_owned(), first.world());
    on_free_ports(&world);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    append(&world, "gateway.toml", &format!("\n[metrics]\naddress = \"{address}\"\n"));
    let told = up(&home, &world);
    let says = format!("gateway-service did not start: metrics.address {address}: Address already in use");
    told_once(&told, MET, &[&says, "set another address"], "a port in use");
    StoreLock::take(&world.join("auth")).expect("auth has ended");
}

#[test]
fn a_place_where_up_cannot_live_is_refused() {
    let home = tempfile::tempdir().expect("a folder");
    put(home.path(), "file", "");
    let before = Snapshot::of(home.path());
    for folder in ["file", "file/world", "/proc/none"] {
        let told = up(home.path(), &home.path().join(folder));
        told_once(&told, MET, &["interlock: cannot make the folder ", "next: --dir DIR"], folder);
    }
    assert_eq!(before.differences(&Snapshot::of(home.path())), Vec::<PathBuf>::new());
}

// Without HOME the user's entry in the system's list decides; where there is none either, the flags do.
#[test]
fn without_a_home_the_command_line_says_what_to_give_it() {
    let home = tempfile::tempdir().expect("a folder");
    let homeless = |arguments: &[&str]| {
        let mut command = interlock(home.path(), arguments);
        command.env_remove("HOME").current_dir("/");
        if rustix::process::geteuid().is_root() {
            use std::os::unix::process::CommandExt as _;
            // No user of this machine.
            command.uid(54_321).gid(54_321);
        }
        Told::by(command)
    };
    if !rustix::process::geteuid().is_root() {
        println!("not root: a user without an entry cannot be had; the first half is left out");
    } else {
        told_once(
            &homeless(&["status"]),
            MET,
            &["no configuration folder", "next: --context FILE"],
            "status",
        );
        told_once(&homeless(&["up"]), MET, &["no data folder", "next: --dir DIR"], "up");
    }
    let told = homeless(&["status", "--context", "/nowhere/context.json"]);
    told_once(
        &told,
        MET,
        &["no context at /nowhere/context.json", "next: interlock up"],
        "a context that is named",
    );
}
