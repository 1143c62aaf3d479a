//! The commands of docs/recovery.md, run as they stand there, against `interlock up`; and that they end what they say.
//! FN-27, SW-38, SW-39, UA-50

use interlock_tests::{Up, eventually_sync};

const RUNBOOK: &str = include_str!("../../docs/recovery.md");

/// A line, and whether it is for a service that runs.
fn commands() -> Vec<(bool, &'static str)> {
    let mut commands = Vec::new();
    let mut lines = RUNBOOK.lines();
    while let Some(line) = lines.next() {
        if let Some(how) = line.strip_prefix("```sh ") {
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
        assert!(!said.contains("ilk_"), "a secret that nobody asked for: {line}\n{said}");
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
