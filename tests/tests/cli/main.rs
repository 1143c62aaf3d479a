//! The command line as scripts see it: exit codes, standard error, files, worker programs, the probe.

mod anonymous;
mod ends;
mod members;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Output, Stdio},
};

use interlock_tests::{Up, eventually_sync, terminal::Terminal};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

fn ok(up: &Up, line: &str) -> Value {
    let output = up.shell(&format!("interlock -o json {line}"));
    assert!(output.status.success(), "{line}\n{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The exit code, the reason on standard error, and whether it says what to do next.
fn refused(up: &Up, line: &str) -> (i32, String) {
    let output = up.shell(&format!("interlock -o json {line}"));
    let said = stderr(&output);
    let error: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap_or(Value::Null);
    let reason = error["error"]["reason"].as_str().unwrap_or_default().to_owned();
    (output.status.code().unwrap_or(-1), reason)
}

fn sign_in(up: &Up) {
    ok(up, "login dev --password-file \"$INTERLOCK_UP/dev.password\"");
    ok(up, "use demo");
}

#[test]
fn exit_codes_and_reasons_are_for_scripts() {
    let up = Up::start(&[]);
    assert_eq!(refused(&up, "session list").0, 4, "not signed in");
    // NC-01: off by default.
    assert_eq!(refused(&up, "session create --anonymous"), (4, "PROVIDER_AUTH_FAILED".to_owned()));
    assert_eq!(refused(&up, "login dev --password-file /dev/null").0, 2, "an empty password is no password");
    fs::write(up.home().join("wrong"), "not the password at all").expect("written");
    assert_eq!(
        refused(&up, "login dev --password-file \"$HOME/wrong\""),
        (4, "INVALID_CREDENTIALS".to_owned())
    );
    assert_eq!(refused(&up, "session create --no-such-flag").0, 2);
    sign_in(&up);
    // UA-10: an unknown session is another's, as far as one can tell.
    let unknown = "session get ses_00000000000000000000000000000000";
    assert_eq!(refused(&up, unknown), (5, "OWNER_MISMATCH".to_owned()));
    // SW-25
    assert_eq!(refused(&up, "auth rotate admin"), (5, "FORBIDDEN".to_owned()));
    ok(&up, "session create one --agent builder");
    ok(&up, "agent set other");
    ok(&up, "job submit one work");
    // SW-26
    assert_eq!(refused(&up, "session attach one --agent other"), (6, "SESSION_BUSY".to_owned()));
    let told = stderr(&up.shell("interlock session attach one --agent other"));
    assert!(told.contains("interlock job wait job_"), "what to do next: {told}");
    let jobs = ok(&up, "job list one --in-flight");
    let job = jobs[0]["job_id"].as_str().expect("one job").to_owned();
    // SW-33: inspecting works while busy.
    assert_eq!(ok(&up, "session attach one --agent builder")["changed"], false);
    ok(&up, &format!("job cancel {job}"));
    assert_eq!(up.shell(&format!("interlock job wait {job}")).status.code(), Some(1), "it did not succeed");
    // SW-34
    assert_eq!(ok(&up, "session attach one --agent other")["changed"], true);
    ok(&up, "logout");
    // FN-04
    assert_eq!(refused(&up, "session list").0, 4);
}

// FN-28, FN-05
#[test]
fn status_says_who_is_signed_in_in_one_line() {
    let up = Up::start(&[]);
    let status = || String::from_utf8_lossy(&up.shell("interlock status").stdout).into_owned();
    assert_eq!(status(), "Session auth: not signed in\nRoot auth: locked\n");
    sign_in(&up);
    assert_eq!(status(), "Session auth: Developer (user)\nRoot auth: locked\n");
    ok(&up, "logout");
    assert_eq!(status(), "Session auth: not signed in\nRoot auth: locked\n");
}

// FN-07, FN-08, FN-09, FN-10, FN-16, FN-19, FN-20, FN-21, FN-22, FN-28, FN-29, FN-32: without a root password, then with one.
#[test]
fn root_is_unlocked_by_who_is_signed_in_and_for_a_while() {
    let mut up = Up::start(&[]);
    let lines = |up: &Up, line: &str| String::from_utf8_lossy(&up.shell(line).stdout).into_owned();
    let unlock = "root unlock --password-file \"$HOME/root.password\"";
    assert_eq!(refused(&up, unlock), (4, "LOGIN_REQUIRED".to_owned()));
    let by_token = "root unlock --token-file \"$INTERLOCK_UP/auth/auth_tokens.json\" --password-stdin";
    assert_eq!(refused(&up, by_token), (4, "LOGIN_REQUIRED".to_owned()));
    fs::write(up.home().join("root.password"), "a root password\n").expect("written");
    fs::set_permissions(up.home().join("root.password"), fs::Permissions::from_mode(0o600)).expect("ours");
    sign_in(&up);
    assert_eq!(refused(&up, unlock), (1, "ROOT_DISABLED".to_owned()), "none is configured by default");
    assert_eq!(refused(&up, "agent set primary --description x"), (5, "ROOT_REQUIRED".to_owned()));
    up.end();
    let config = up.world().join("auth.toml");
    let file = up.home().join("root.password").display().to_string();
    let text = fs::read_to_string(&config).expect("a configuration");
    fs::write(&config, format!("{text}\n[root]\npassword_file = \"{file}\"\nttl = \"10m\"\n"))
        .expect("written");
    let accounts = up.world().join("accounts.json");
    let mut known: Value = serde_json::from_slice(&fs::read(&accounts).expect("accounts")).expect("JSON");
    // FN-19: the literal example.
    let root =
        r#"{"username":"root","password":"change-me-please","role":"root","display_name":"Root Admin"}"#;
    known.as_array_mut().expect("a list").push(serde_json::from_str(root).expect("JSON"));
    fs::write(&accounts, known.to_string()).expect("written");
    up.again();

    let state = |up: &Up| ok(up, "root status")["state"].as_str().expect("a state").to_owned();
    assert_eq!(
        (state(&up).as_str(), lines(&up, "interlock status")),
        ("locked", "Session auth: Developer (user)\nRoot auth: locked\n".to_owned())
    );
    fs::write(up.home().join("wrong"), "another password").expect("written");
    assert_eq!(
        refused(&up, "root unlock --password-file \"$HOME/wrong\""),
        (4, "INVALID_CREDENTIALS".to_owned())
    );
    assert_eq!(ok(&up, unlock)["state"], "unlocked");
    assert_eq!(lines(&up, "interlock status"), "Session auth: Developer (user)\nRoot auth: unlocked\n");
    ok(&up, "agent set primary --description 'by the developer'");
    assert_eq!(ok(&up, "root lock")["ended"], true);
    assert_eq!(ok(&up, "root lock")["ended"], false);
    assert_eq!(refused(&up, "agent set primary --description y"), (5, "ROOT_REQUIRED".to_owned()));
    // From standard input; and what it says to people.
    let said = lines(&up, "interlock root unlock --ttl 1m --password-stdin < \"$HOME/root.password\"");
    assert!(said.starts_with("Root auth: unlocked\nuntil 20"), "{said}");
    ok(&up, "logout");
    assert_eq!(state(&up), "locked");
    fs::write(up.home().join("root-owner"), "change-me-please").expect("written");
    ok(&up, "login root --password-file \"$HOME/root-owner\"");
    assert_eq!(lines(&up, "interlock status"), "Session auth: Root Admin (admin)\nRoot auth: session-root\n");
    // FN-15
    ok(&up, "agent set primary --description 'by root'");
}

// UA-36, UA-37, UA-38, FN-24
#[test]
fn owners_are_kept_from_the_command_line_without_a_password_on_it() {
    let up = Up::start(&[]);
    let secret = |name: &str, text: &str| {
        fs::write(up.home().join(name), text).expect("written");
        fs::set_permissions(up.home().join(name), fs::Permissions::from_mode(0o600)).expect("ours");
    };
    secret("one", "the first password\n");
    secret("two", "the second password\n");
    secret("both", "the second password\nthe third password\n");
    sign_in(&up);
    assert_eq!(refused(&up, "owner list"), (5, "FORBIDDEN".to_owned()));
    ok(&up, "login --token-file \"$INTERLOCK_UP/auth/auth_tokens.json\"");
    assert_eq!(refused(&up, "owner set ann").0, 2, "no terminal to ask on");
    let added = ok(&up, "owner set ann --role user --display-name Ann --password-file \"$HOME/one\"");
    assert_eq!((added[0]["created"].as_bool(), added[0]["roles"][0].as_str()), (Some(true), Some("user")));
    let changed = ok(&up, "owner set ann --inactive");
    assert_eq!((changed[0]["created"].as_bool(), changed[0]["active"].as_bool()), (Some(false), Some(false)));
    ok(&up, "owner set ann --active");
    let warned = up.shell("interlock owner set bob --role owner --password-stdin < \"$HOME/one\"");
    assert!(stderr(&warned).contains("session-root"), "{}", stderr(&warned));
    let list = String::from_utf8_lossy(&up.shell("interlock owner list").stdout).into_owned();
    assert!(list.contains("ann") && !list.contains('$'), "{list}");
    secret(
        "owners.json",
        r#"{"carl":{"password_hash":"pbkdf2_sha256$310000$AAECAwQFBgcICQoLDA0ODw==$e4rSQ5KQXKoMyeu1tFpEU3HMo6tplYmG7eJ280WPc/o="}}"#,
    );
    assert_eq!(ok(&up, "owner import \"$HOME/owners.json\"")[0]["owner_id"], "carl");
    ok(&up, "owner remove carl");
    assert_eq!(refused(&up, "owner remove carl"), (1, "NOT_FOUND".to_owned()));
    assert_eq!(refused(&up, "owner passwd carl --password-file \"$HOME/two\""), (1, "NOT_FOUND".to_owned()));
    ok(&up, "owner passwd ann --password-file \"$HOME/two\"");
    ok(&up, "login ann --password-file \"$HOME/two\"");
    assert_eq!(ok(&up, "owner passwd --password-stdin < \"$HOME/both\"")["sessions_ended"], true);
    assert_eq!(refused(&up, "whoami").0, 4);
    secret("three", "the third password");
    ok(&up, "login ann --password-file \"$HOME/three\"");
    let changed = ok(
        &up,
        "owner passwd --keep-sessions --password-file \"$HOME/three\" --new-password-file \"$HOME/one\"",
    );
    assert_eq!(changed["sessions_ended"], false);
    assert_eq!(ok(&up, "status")["username"], "ann");
}

// Issue 6 line 2, UA-37: at a terminal a new password is asked for twice, and two that differ change nothing.
#[test]
fn a_new_password_is_typed_twice() {
    let up = Up::start(&[]);
    ok(&up, "login --token-file \"$INTERLOCK_UP/auth/auth_tokens.json\"");
    let typed = |command: &[&str], prompt: &str, again: &str| {
        let mut terminal = Terminal::run(&up.command(command));
        terminal.answer(prompt, "the first password");
        terminal.answer("Again: ", again);
        let (status, shown) = terminal.end();
        let shown = String::from_utf8_lossy(&shown).into_owned();
        assert!(!shown.contains("the first"), "{shown}");
        (status.code(), shown)
    };
    let set = ["owner", "set", "ann"];
    let (code, shown) = typed(&set, "New password of ann: ", "another password");
    assert!(code == Some(2) && shown.contains("the two passwords differ"), "{code:?} {shown}");
    assert_eq!(refused(&up, "owner remove ann"), (1, "NOT_FOUND".to_owned()), "nothing was changed");
    let (code, shown) = typed(&set, "New password of ann: ", "the first password");
    assert!(code == Some(0) && shown.contains("ann added"), "{code:?} {shown}");
    let file = up.home().join("first");
    fs::write(&file, "the first password\n").expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
    ok(&up, "login ann --password-file \"$HOME/first\"");
}

// SW-37: a token that was handed out again becomes the sign-in, and the old one is dead.
#[test]
fn a_rotated_token_is_redistributed_by_file() {
    let up = Up::start(&[]);
    ok(&up, "login --token-file \"$INTERLOCK_UP/auth/auth_tokens.json\"");
    ok(&up, "use demo");
    assert_eq!(ok(&up, "whoami")["owner_id"], "admin");
    ok(&up, "auth rotate admin --to \"$HOME/new.token\"");
    assert_eq!(refused(&up, "whoami"), (4, "PROVIDER_AUTH_FAILED".to_owned()));
    ok(&up, "login --token-file \"$HOME/new.token\"");
    assert_eq!(ok(&up, "whoami")["role"], "admin");
}

// SW-21, SW-37: one token after another is brought to who uses it, and the old one ends when nobody does.
#[test]
fn a_token_is_rotated_in_two_phases() {
    let up = Up::start(&[]);
    ok(&up, "login --token-file \"$INTERLOCK_UP/auth/auth_tokens.json\"");
    ok(&up, "use demo");
    assert_eq!(refused(&up, "auth rotate admin --commit"), (1, "NOT_FOUND".to_owned()));
    let begun = ok(&up, "auth rotate admin --two-phase --to \"$HOME/new.token\"");
    assert_eq!((begun["generation"].as_u64(), begun["token"].is_null()), (Some(2), true));
    assert!(begun["path"].as_str().is_some_and(|path| path.ends_with("auth_tokens.json")));
    let earlier = &begun["earlier"][0]["uses"][0];
    assert_eq!((earlier["service"].as_str(), earlier["source"].as_str()), (Some("auth"), Some("127.0.0.1")));
    assert_eq!(refused(&up, "auth rotate admin --two-phase"), (1, "ROTATION_OPEN".to_owned()));
    assert_eq!(refused(&up, "auth rotate admin"), (1, "ROTATION_OPEN".to_owned()));
    // Whoever commits with the old one still uses it.
    assert_eq!(refused(&up, "auth rotate admin --commit"), (6, "TOKEN_IN_USE".to_owned()));
    let told = String::from_utf8_lossy(&up.shell("interlock auth status").stdout).into_owned();
    assert!(told.contains("has been open since") && told.contains("127.0.0.1"), "{told}");
    ok(&up, "login --token-file \"$HOME/new.token\"");
    let done = ok(&up, "auth rotate admin --commit --force");
    assert_eq!((done["generation"].as_u64(), done["committed"].as_bool()), (Some(2), Some(true)));
    assert_eq!(ok(&up, "whoami")["role"], "admin");
    let status = ok(&up, "auth status");
    assert_eq!(status["tokens"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        (status["tokens"][0]["generation"].as_u64(), status["recoverable"].as_bool()),
        (Some(2), Some(true))
    );
    ok(&up, "auth rotate user --two-phase --to \"$HOME/user.token\"");
    assert_eq!(ok(&up, "auth rotate user --abort")["committed"], false);
    assert_eq!(refused(&up, "whoami --token-file \"$HOME/user.token\"").1, "PROVIDER_AUTH_FAILED");
    for wrong in ["--force", "--commit --abort", "--two-phase --commit", "--two-phase --grace 1m"] {
        assert_eq!(
            up.shell(&format!("interlock auth rotate user {wrong}")).status.code(),
            Some(2),
            "{wrong}"
        );
    }
}

#[test]
fn a_service_that_is_gone_is_unavailable_and_signs_nobody_out() {
    let mut up = Up::start(&[]);
    sign_in(&up);
    kill(up.pid(), Signal::TERM);
    assert!(up.wait().success(), "up drains and ends well");
    assert_eq!(refused(&up, "session list").0, 7);
    let kept = up.home().join("config/interlock/context.session");
    assert!(kept.exists(), "the sign-in is still there");
    let mode = fs::metadata(kept).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_second_up_in_the_same_folder_is_refused_and_harms_nobody() {
    let up = Up::start(&[]);
    let second = up.shell("interlock up --dir \"$INTERLOCK_UP\"");
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("--dir ANOTHER"), "{}", stderr(&second));
    sign_in(&up);
}

#[test]
fn up_that_is_killed_leaves_no_service_behind() {
    let mut up = Up::start(&[]);
    let ready = up.ready();
    kill(up.pid(), Signal::KILL);
    up.wait();
    for service in ["auth_pid", "gateway_pid"] {
        let pid = pid(u32::try_from(ready[service].as_u64().expect("a pid")).expect("a pid"));
        eventually_sync(service, || test_kill_process(pid).is_err());
    }
}

#[test]
fn a_worker_program_gets_its_job_and_its_lines_are_progress() {
    let up = Up::start(&[]);
    sign_in(&up);
    ok(&up, "session create one --agent builder");
    let program = r#"cat; echo; echo "$INTERLOCK_AGENT_ID $INTERLOCK_ATTEMPT $INTERLOCK_FENCING_TOKEN"; env | grep -c TOKEN_FILE; exit 0"#;
    let mut worker = up
        .command(&["worker", "run", "--agent", "builder", "--name", "w", "--", "sh", "-c", program])
        .stdout(Stdio::null())
        .spawn()
        .expect("a worker");
    let done = ok(&up, "job submit one 'the payload' --wait");
    assert_eq!(done["state"], "succeeded");
    assert_eq!(done["result"], "the payload\nbuilder 1 1\n0\n");
    kill(worker.id(), Signal::TERM);
    assert!(worker.wait().expect("a child").success(), "a worker that is asked to end says goodbye");
    // SW-32: the log tells the whole story.
    let log = up.shell("interlock -o json session stream one --no-follow");
    let kinds: Vec<Value> = String::from_utf8_lossy(&log.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let lines: Vec<&str> = kinds.iter().filter_map(|e| e["job_progress"]["data"].as_str()).collect();
    assert_eq!(lines, ["the payload", "builder 1 1", "0"]);
    assert_eq!(kinds.last().expect("events")["job_ended"]["state"], "succeeded");
}

#[test]
fn a_program_that_fails_fails_its_job_and_a_missing_one_too() {
    let up = Up::start(&[]);
    sign_in(&up);
    ok(&up, "session create one --agent builder");
    for (program, cause) in [(&["sh", "-c", "exit 3"][..], "3"), (&["no-such-program"][..], "127")] {
        let arguments = [&["worker", "run", "--agent", "builder", "--"], program].concat();
        let mut worker =
            up.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a worker");
        let output = up.shell("interlock -o json job submit one x --wait");
        kill(worker.id(), Signal::TERM);
        worker.wait().expect("a child");
        assert_eq!(output.status.code(), Some(1));
        let job: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(job["state"], "failed");
        assert!(job["cause"].as_str().expect("a cause").contains(cause), "{job}");
    }
}

#[test]
fn a_cancelled_job_ends_its_whole_process_group() {
    let up = Up::start(&[]);
    sign_in(&up);
    ok(&up, "session create one --agent builder");
    let file = up.home().join("grandchild");
    let program = format!("sleep 600 & echo $! > {}; echo started; wait", file.display());
    let mut worker = up
        .command(&["worker", "run", "--agent", "builder", "--", "sh", "-c", &program])
        .stdout(Stdio::null())
        .spawn()
        .expect("a worker");
    let job = ok(&up, "job submit one x");
    let job = job["job_id"].as_str().expect("an id").to_owned();
    eventually_sync("the program runs", || fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')));
    let grandchild: u32 = fs::read_to_string(&file).expect("there").trim().parse().expect("a pid");
    ok(&up, &format!("job cancel {job}"));
    let ended = up.shell(&format!("interlock -o json job wait {job}"));
    let ended: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
    assert_eq!(ended["state"], "cancelled");
    eventually_sync("the grandchild is gone", || is_gone(grandchild));
    kill(worker.id(), Signal::TERM);
    worker.wait().expect("a child");
}

#[test]
fn the_probe_speaks_as_grpc_health_probe_does() {
    let up = Up::start(&[]);
    let ready = up.ready();
    let ca = ready["ca_file"].as_str().expect("a path");
    let code = |line: &str| up.shell(&format!("interlock probe {line}")).status.code();
    for service in ["auth", "gateway"] {
        let address = ready[service].as_str().expect("a URL").trim_start_matches("https://");
        // UA-15, UA-28, UA-30: health needs no credential.
        assert_eq!(
            code(&format!("-addr {address} -tls -tls-ca-cert {ca} -tls-server-name localhost")),
            Some(0)
        );
        assert_eq!(
            code(&format!("-addr={address} -tls -tls-ca-cert={ca} -service no.such.Service")),
            Some(3)
        );
        assert_eq!(
            code(&format!("-addr {address} -connect-timeout 2s")),
            Some(2),
            "plain text to a TLS port"
        );
    }
    assert_eq!(code("-addr 127.0.0.1:1"), Some(2));
    assert_eq!(code("-no-such-flag"), Some(1));
    assert_eq!(code("-addr 127.0.0.1:1 -tls-ca-cert x"), Some(1), "a CA without TLS");
}

#[test]
fn secrets_are_in_private_files_and_not_on_command_lines() {
    let up = Up::start(&[]);
    sign_in(&up);
    ok(&up, "session create one");
    let private =
        ["world/dev.password", "world/accounts.json", "world/internal.token", "world/auth/auth_tokens.json"];
    for file in private {
        let mode = fs::metadata(up.home().join(file)).expect(file).permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }
    let cookies = fs::read_dir(up.home().join("config/interlock/cookies")).expect("a jar");
    for cookie in cookies {
        let mode = cookie.expect("an entry").metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let ready = up.ready();
    for service in ["auth_pid", "gateway_pid"] {
        let line = fs::read_to_string(format!("/proc/{}/cmdline", ready[service])).expect("alive");
        assert!(!line.contains("ilk_"), "{line}");
    }
}

fn pid(id: u32) -> Pid {
    i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id")
}

fn kill(id: u32, signal: Signal) {
    kill_process(pid(id), signal).expect("a process of ours");
}

/// Gone, or dead and not yet reaped by whoever inherited it.
fn is_gone(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).map_or(true, |stat| stat.contains(") Z "))
}
