//! The commands of docs/recovery.md, run as they stand there, against `interlock up`; and that they end what they say.
//! FN-27, SW-38, SW-39, UA-50

use interlock_tests::{Up, eventually_sync};

const RUNBOOK: &str = include_str!("../../docs/recovery.md");

/// The parts of the page about a backup, in their order: each has its own time.
const RESTORE: [&str; 5] = ["backup", "restore", "restored", "accept", "accepted"];

/// The lines of such a part.
fn part(name: &str) -> impl Iterator<Item = &'static str> {
    let begin = format!("```sh {name}");
    let lines = RUNBOOK.lines().skip_while(move |line| *line != begin).skip(1);
    lines.take_while(|line| *line != "```")
}

/// A line, and whether it is for a service that runs.
fn commands() -> Vec<(bool, &'static str)> {
    let mut commands = Vec::new();
    let mut lines = RUNBOOK.lines();
    while let Some(line) = lines.next() {
        if let Some(how) = line.strip_prefix("```sh ") {
            if RESTORE.contains(&how) {
                continue;
            }
            let running = how == "running";
            assert!(running || how == "stopped", "{line}");
            commands.extend(lines.by_ref().take_while(|line| *line != "```").map(|line| (running, line)));
        }
    }
    commands
}

fn run(up: &Up, line: &str) -> String {
    let output = up.shell(line);
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}\n{}\n{said}\n{why}", output.status);
    said.into_owned()
}

fn code(up: &Up, line: &str) -> Option<i32> {
    up.shell(line).status.code()
}

#[test]
fn every_command_of_the_runbook_works_and_ends_what_it_says() {
    let mut up = Up::start(&[]);
    run(&up, "interlock login dev --password-file \"$INTERLOCK_UP/dev.password\"");
    run(&up, "interlock use demo && interlock whoami");
    run(
        &up,
        "umask 077; sed -n 's/.*\"\\(ilk_adm_[^\"]*\\)\".*/\\1/p' \"$INTERLOCK_UP/auth/auth_tokens.json\" > old.token",
    );
    assert_eq!(
        code(&up, "interlock --token-file old.token whoami"),
        Some(0),
        "the admin token of the first start"
    );
    let commands = commands();
    // SW-38: while the service runs, the store's lock is taken; nothing is changed.
    for (running, line) in &commands {
        if !running {
            let line = line.replace(" | sed -n 's/^admin //p' > admin.token", "");
            assert_eq!(code(&up, &line), Some(1), "{line}");
        }
    }
    assert_eq!(code(&up, "interlock --token-file old.token whoami"), Some(0));
    let mut runs = true;
    for (running, line) in commands {
        match (runs, running) {
            (true, false) => up.end(),
            (false, true) => {
                up.again();
                // SW-39, FN-27: the old token and the old sign-in are dead.
                assert_eq!(code(&up, "interlock --token-file old.token whoami"), Some(4));
                assert_eq!(code(&up, "interlock whoami"), Some(4), "an owner session that was ended");
            }
            _ => {}
        }
        runs = running;
        // Services take a new file in their own time, and a stream to auth that stood on the old one is opened again.
        if line.starts_with("interlock doctor") {
            eventually_sync("that all is well", || code(&up, line) == Some(0));
        }
        let said = run(&up, line);
        // A masked one shows four characters of its beginning, which all have.
        let shown = said.replace("ilk_…", "");
        assert!(!shown.contains("ilk_"), "a secret that nobody asked for: {line}\n{said}");
    }
    assert!(runs, "it ends with a service that runs");
    let now = std::fs::read_to_string(up.world().join("internal.token")).expect("there");
    assert_eq!(now.lines().count(), 1, "the old internal token was dropped");
    // The new password signs in, the old one does not.
    let sign_in = |file: &str| code(&up, &format!("interlock login dev --password-file {file}"));
    assert_eq!(sign_in("\"$INTERLOCK_UP/dev.password\""), Some(4));
    eventually_sync("a sign-in with the new password", || sign_in("dev.password") == Some(0));
    run(&up, "interlock session list");
}

// Issue 6 line 8, line 10: the log says that it was cut until somebody accepts that a backup was put back.
#[test]
fn a_store_that_was_restored_is_told_of_until_that_is_accepted() {
    assert!(RESTORE.iter().all(|name| part(name).count() > 0), "each part has its commands");
    let mut up = Up::start(&[]);
    run(
        &up,
        "umask 077; sed -n 's/.*\"\\(ilk_adm_[^\"]*\\)\".*/\\1/p' \"$INTERLOCK_UP/auth/auth_tokens.json\" > admin.token",
    );
    run(&up, "interlock login --token-file admin.token");
    up.end();
    part("backup").for_each(|line| drop(run(&up, line)));
    up.again();
    eventually_sync("a session", || code(&up, "interlock session create") == Some(0));
    // Whoever verifies remembers what there is.
    run(&up, "interlock audit verify");
    up.end();
    part("restore").for_each(|line| drop(run(&up, line)));
    up.again();
    eventually_sync("a verification", || code(&up, "interlock session list") == Some(0));
    // What auth has stored of the gateway's log is told with its lease.
    let auth = rusqlite::Connection::open(up.world().join("auth/auth.db")).expect("auth's store");
    let sql = "SELECT COUNT(*) FROM remembered_head";
    let remembered: i64 = auth.query_row(sql, [], |row| row.get(0)).expect("a count");
    if remembered > 0 {
        eventually_sync("a comparison with what auth remembers", || {
            String::from_utf8_lossy(&up.shell("interlock audit verify").stdout)
                .contains("that auth remembers")
        });
    }
    for line in part("restored") {
        let output = up.shell(line);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == Some(1) && said.contains("gateway: DAMAGED"), "{line}\n{said}");
    }
    for line in part("accept") {
        assert_eq!(code(&up, line), Some(1), "while the service runs: {line}");
    }
    assert_eq!(code(&up, "interlock audit verify"), Some(1), "nothing was accepted");
    up.end();
    for line in part("accept") {
        assert_eq!(code(&up, &line.replace(" --yes", "")), Some(1), "{line}");
        let said = run(&up, line);
        assert!(said.lines().all(|end| end.starts_with("accepted as lost: batch ")), "{said}");
        assert!(run(&up, line).starts_with("nothing to accept"), "again");
    }
    up.again();
    eventually_sync("a service that answers", || code(&up, "interlock session list") == Some(0));
    for line in part("accepted") {
        let said = run(&up, line);
        assert!(said.contains("lost with a backup that was put back: accepted"), "{said}");
    }
    let rows = run(&up, "interlock audit list --action audit.accept");
    assert!(rows.contains("host"), "{rows}");
}
