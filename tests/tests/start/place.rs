//! Where a service lives: data folders, ports, locks, a full disk, closed pipes.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use interlock_tests::{
    eventually_sync,
    faults::{Fault, Faults},
    start::{Attempt, Snapshot, Told},
};
use rustix::process::{Pid, Signal, kill_process};

use super::{BOTH, MET, Row, TOLD, all, site::Site};

const WRITABLE: &str = "set it to a folder that this user can write";

const FOLDERS: &[Row] = &[
    (
        "a file",
        BOTH,
        |a| a.set_path("data_dir", "internal.token"),
        MET,
        &["data_dir ", "internal.token: cannot be made", WRITABLE],
    ),
    (
        "beneath a file",
        BOTH,
        |a| a.set_path("data_dir", "internal.token/data"),
        MET,
        &["internal.token/data: cannot be made: Not a directory", WRITABLE],
    ),
    (
        "a loop of links",
        BOTH,
        |a| {
            std::os::unix::fs::symlink(a.path("loop"), a.path("loop")).expect("linked");
            a.set_path("data_dir", "loop")
        },
        MET,
        &["data_dir ", "loop: cannot be made", WRITABLE],
    ),
    (
        "where nobody may make one",
        BOTH,
        |a| a.unprivileged().set("data_dir", "/proc/none"),
        MET,
        &["data_dir /proc/none: cannot be made: ", WRITABLE],
    ),
    (
        "one that this user may not write",
        BOTH,
        |a| {
            a.unprivileged().folder_at("closed").mode("closed", 0o555);
            a.set_path("data_dir", "closed")
        },
        MET,
        &["data_dir ", "closed/store.lock: Permission denied", "must be writable by this user"],
    ),
    (
        "a ready file nowhere",
        BOTH,
        |a| a.set_path("ready_file", "none/ready.json"),
        TOLD,
        &["none/ready.json: cannot be read: No such file"],
    ),
    (
        "a folder for a ready file",
        BOTH,
        |a| a.set_path("ready_file", "pki"),
        TOLD,
        &["pki: cannot be read: ready_file: not a regular file"],
    ),
    (
        "an address that is not this machine's",
        BOTH,
        |a| a.hardened().set("public.address", "192.0.2.1:7401"),
        MET,
        &["public.address 192.0.2.1:7401: ", "set another address"],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_cannot_be_used_is_refused() {
    let mut site = Site::at_rest().await;
    all(&mut site, FOLDERS);
    site.everything_is_there().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_refused_with_the_listener() {
    let site = Site::at_rest().await;
    for service in BOTH {
        for listener in ["public", "internal", "health", "metrics"] {
            let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = taken.local_addr().expect("an address");
            let mut attempt = Attempt::new(&site.path(""), service);
            attempt.set(&format!("{listener}.address"), &address.to_string());
            let told = unchanged(&site, &attempt);
            assert_eq!(told.code, Some(MET), "{}", told.stderr);
            let wanted = format!(
                "{}: {listener}.address {address}: Address already in use (os error 98); end what listens there, \
                 or set another address",
                attempt.name()
            );
            assert_eq!(told.lines(attempt.name()), [wanted]);
        }
    }
    site.everything_is_there().await;
}

/// Runs it; nothing in the folder may change.
fn unchanged(site: &Site, attempt: &Attempt) -> Told {
    let before = Snapshot::of(&site.path(""));
    let told = Told::by(attempt.command());
    let changed = before.differences(&Snapshot::of(&site.path("")));
    assert!(changed.is_empty(), "{changed:?}: {}", told.stderr);
    told
}

// SW-38: a second copy, on the same ports or on others, and the commands of this host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_copy_is_refused_and_the_first_serves_on() {
    let mut site = Site::at_rest().await;
    let running = site.running().await;
    for (service, listeners) in &running {
        let mut same = Attempt::new(&site.path(""), service);
        for (listener, address) in listeners {
            same.set(&format!("{listener}.address"), &address.to_string());
        }
        let told = Told::by(same.command());
        assert_eq!(told.code, Some(MET), "{}", told.stderr);
        let said = told.lines(same.name());
        assert!(
            said.len() == 1 && said[0].contains("public.address ") && said[0].contains("in use"),
            "{said:?}"
        );

        let others = Attempt::new(&site.path(""), service);
        assert_held(&Told::by(others.command()), others.name());
    }
    for command in [&["auth", "status"][..], &["auth", "status", "--reveal"], &["auth", "reset", "--yes"]] {
        let mut offline = Attempt::new(&site.path(""), "auth");
        for argument in command {
            offline.argument(argument);
        }
        let told = Told::by(offline.command());
        assert_held(&told, offline.name());
        assert_eq!(told.stdout, "");
    }
    site.serves_and_ends().await;
    site.everything_is_there().await;
}

fn assert_held(told: &Told, name: &str) {
    assert_eq!(told.code, Some(MET), "{}", told.stderr);
    let said = told.lines(name);
    assert_eq!(said.len(), 1, "{said:?}");
    for word in ["data_dir ", "store.lock is held: another program uses this folder", "end that one"] {
        assert!(said[0].contains(word), "it does not say `{word}`: {said:?}");
    }
}

// Somebody's tool holds the store: a refusal in bounded time, not a wait without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_another_program_has_locked_is_refused() {
    let site = Site::at_rest().await;
    for service in BOTH {
        let attempt = Attempt::new(&site.path(""), service);
        let tool = rusqlite::Connection::open(attempt.store()).expect("the store");
        tool.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").expect("locked");
        let told = Told::by(attempt.command());
        assert_eq!(told.code, Some(MET), "{}", told.stderr);
        let said = told.lines(attempt.name());
        assert!(said.len() == 1 && said[0].contains("cannot open the store"), "{said:?}");
        assert!(said[0].contains("database is locked"), "{said:?}");
        drop(tool);
    }
    site.everything_is_there().await;
}

// I6: nothing that was there is lost on a disk without room, neither at a first start nor at a later one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_a_start_is_refused_and_with_room_everything_is_there() {
    let site = Site::at_rest().await;
    for service in BOTH {
        let long = std::env::var_os("INTERLOCK_LONG").is_some();
        let some: &[(&str, u64)] = &[(service, 0), ("new", 8 << 10)];
        let all: &[(&str, u64)] = &[(service, 0), ("new", 0), ("new", 8 << 10), ("new", 40 << 10)];
        for &(folder, room) in if long { all } else { some } {
            let _ = fs::create_dir(site.path(folder));
            let faults = Faults::new(&site.path(folder));
            let mut attempt = Attempt::new(&site.path(""), service);
            attempt.set_path("data_dir", folder);
            for (name, value) in faults.environment() {
                attempt.env(name, value);
            }
            faults.set(Fault::SpaceLeft(room));
            let told = Told::by(attempt.command());
            assert_eq!(told.code, Some(MET), "{service} {folder} {room}: {}", told.stderr);
            let said = told.lines(attempt.name());
            assert_eq!(said.len(), 1, "{said:?}");
            let path = site.path(folder).display().to_string();
            assert!(said[0].contains(&path), "it does not say where: {said:?}");
            let full = ["No space left", "database or disk is full", "disk I/O error"];
            assert!(full.iter().any(|word| said[0].contains(word)), "it does not say why: {said:?}");
            assert!(!told.stderr.contains("ilk_"), "{}", told.stderr);
            println!("{service} with {room} bytes in {folder}: {}", said[0]);
            faults.set(Fault::SpaceBack);
            let mut process = Process::start(&mut attempt);
            process.serves();
            assert_eq!(process.end(), Some(0));
            drop(process);
            if folder == "new" {
                fs::remove_dir_all(site.path("new")).expect("removed");
            }
        }
    }
    site.everything_is_there().await;
}

// Whoever reads our output may go away: that is no reason to fail, and none to panic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_pipes_harm_nobody() {
    let site = Site::at_rest().await;
    for service in BOTH {
        let mut attempt = Attempt::new(&site.path(""), service);
        attempt.set("log.filter", "trace");
        let mut process = Process::start_with(&mut attempt, |command| {
            command.stdout(broken()).stderr(broken());
        });
        process.serves();
        assert_eq!(process.end(), Some(0), "{service} without anybody who reads its output");
    }
    let mut first = Attempt::new(&site.path(""), "auth");
    first.set_path("data_dir", "first").argument("--print-first-tokens");
    let mut command = first.command();
    let told = {
        let mut child = command.stdout(broken()).stderr(Stdio::piped()).spawn().expect("it starts");
        ended(&mut child);
        child.wait_with_output().expect("ended")
    };
    let said = String::from_utf8_lossy(&told.stderr);
    assert_eq!(told.status.code(), Some(MET), "{said}");
    assert!(
        said.contains("the first tokens cannot be printed on stdout: ") && said.contains("--reveal"),
        "{said}"
    );
    assert!(!said.contains("ilk_"), "{said}");
    let mut offline = Attempt::new(&site.path(""), "auth");
    offline.set_path("data_dir", "first").argument("auth").argument("status").argument("--reveal");
    let told = Told::by(offline.command());
    assert_eq!((told.code, told.stdout.matches("ilk_").count()), (Some(0), 2), "{}", told.stderr);
}

/// A pipe of which nobody reads the other end.
fn broken() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn ended(child: &mut Child) {
    eventually_sync("the end of the program", || child.try_wait().expect("a child").is_some());
}

/// A program that serves; killed on drop.
struct Process {
    child: Child,
    ready: std::path::PathBuf,
}

impl Process {
    fn start(attempt: &mut Attempt) -> Self {
        Self::start_with(attempt, |command| {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        })
    }

    fn start_with(attempt: &mut Attempt, streams: impl FnOnce(&mut Command)) -> Self {
        let ready = attempt.path("process.json");
        attempt.set_path("ready_file", "process.json");
        let mut command = attempt.command();
        streams(&mut command);
        Self { child: command.spawn().expect("it starts"), ready }
    }

    fn serves(&mut self) {
        eventually_sync("the ready file", || {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "it ended before it served: {ended:?}");
            self.ready.exists()
        });
    }

    /// Asks it to end; its exit code.
    fn end(&mut self) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, Signal::TERM).expect("it is ours");
        ended(&mut self.child);
        self.child.wait().expect("ended").code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}
