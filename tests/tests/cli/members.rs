//! The clients of a session, its attaches and its files, as scripts see them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Output, Stdio},
};

use interlock_tests::{Up, eventually_sync};
use serde_json::Value;

use super::{ok, refused, sign_in};

const ADMIN: &str = "--token-file \"$INTERLOCK_UP/auth/auth_tokens.json\"";

/// The flag of another computer's context: nobody is signed in there.
fn elsewhere(up: &Up, name: &str) -> String {
    let folder = up.home().join(name);
    fs::create_dir(&folder).expect("a folder");
    fs::copy(up.home().join("config/interlock/context.json"), folder.join("context.json")).expect("copied");
    format!("--context \"$HOME/{name}/context.json\"")
}

/// A file that holds a password; the flag that names it.
fn secret(up: &Up, name: &str, text: &str) -> String {
    let path = up.home().join(name);
    fs::write(&path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("ours");
    format!("--password-file \"$HOME/{name}\"")
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key}: {value}"))
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

// Issue 7 line 9; NC-04 to NC-07, NC-09, NC-14, NC-16, NC-19, NC-22, NC-28, NC-29
#[test]
fn clients_join_by_password_do_what_their_role_lets_them_and_leave() {
    let up = Up::start(&[]);
    sign_in(&up);
    let made = ok(&up, "session create shared --agent builder");
    let id = text(&made, "session_id").to_owned();
    let (one, two) = (secret(&up, "one", "correct horse\n"), secret(&up, "two", "battery staple\n"));
    let (laptop, phone) = (elsewhere(&up, "laptop"), elsewhere(&up, "phone"));
    let wrong = (4, "INVALID_CREDENTIALS".to_owned());
    assert_eq!(refused(&up, &format!("session join {id} {one} {laptop}")), wrong, "none is set");
    let weak = secret(&up, "weak", "1234567\n");
    assert_eq!(refused(&up, &format!("session passwd shared {weak}")).1, "WEAK_PASSWORD");
    assert_eq!(text(&ok(&up, &format!("session passwd shared {one}")), "joiners"), "operator");

    // By its owner and its name: an operator.
    let joined = ok(&up, &format!("session join shared --owner dev {one} {laptop}"));
    assert_eq!((text(&joined, "session_id"), text(&joined, "role")), (&*id, "operator"));
    assert_eq!(joined["binding"]["agent_id"], "builder", "the same session");
    let operator = text(&joined, "client_id").to_owned();
    let job = ok(&up, &format!("job submit {id} work {laptop}"));
    ok(&up, &format!("job cancel {} --session {id} {laptop}", text(&job, "job_id")));
    let forbidden = (5, "FORBIDDEN".to_owned());
    for beyond in [
        format!("session attach {id} --agent builder"),
        format!("session passwd {id} {two}"),
        format!("session evict {id} {operator}"),
        format!("session close {id}"),
    ] {
        assert_eq!(refused(&up, &format!("{beyond} {laptop}")), forbidden, "{beyond}");
    }
    assert_eq!(refused(&up, &format!("session list {laptop}")).0, 4, "a cookie leads to its session");

    // By its id: an observer, once the host says so.
    assert_eq!(
        text(&ok(&up, &format!("session passwd shared {one} --joiners observer")), "joiners"),
        "observer"
    );
    let joined = ok(&up, &format!("session join {id} {one} {phone}"));
    assert_eq!((text(&joined, "role"), joined["clients"].as_array().map(Vec::len)), ("observer", Some(3)));
    let observer = text(&joined, "client_id").to_owned();
    for beyond in [format!("session post {id} hi"), format!("job submit {id} x"), format!("file list {id}")] {
        assert_eq!(refused(&up, &format!("{beyond} {phone}")), forbidden, "{beyond}");
    }
    let listed = ok(&up, &format!("session clients {id} {phone}"));
    let clients = listed.as_array().expect("a list");
    let roles: Vec<_> = clients.iter().map(|client| text(client, "role")).collect();
    assert_eq!(roles, ["host", "operator", "observer"], "oldest first");
    let calling: Vec<_> = clients.iter().filter(|client| client["calling"] == true).collect();
    assert_eq!(calling.iter().map(|client| text(client, "client_id")).collect::<Vec<_>>(), [&*observer]);

    // What is for one is a gap to the others.
    let said = ok(&up, &format!("session post shared 'only you' --to {operator}"));
    let place = said["sequence"].as_u64().expect("a place");
    let read = |who: &str| {
        let read = format!("interlock -o jsonl session stream {id} --after {} --no-follow {who}", place - 1);
        lines(&up.shell(&read)).into_iter().next().expect("one")
    };
    assert_eq!(read(&laptop)["message_posted"]["data"], "only you");
    assert_eq!(read(&phone)["gap"], serde_json::json!([place, place]));

    // One is taken out, and finds that out; then all but the host, by another password.
    let evict = format!("session evict shared {observer}");
    assert_eq!(ok(&up, &evict)["evicted"], true);
    assert_eq!(ok(&up, &evict)["evicted"], false, "again is no error");
    let gone = (4, "PROVIDER_AUTH_FAILED".to_owned());
    assert_eq!(refused(&up, &format!("session get {id} {phone}")), gone);
    assert_eq!(ok(&up, &format!("session quit {id} {phone}"))["session_ends"], false, "what is kept goes");
    assert_eq!(ok(&up, &format!("session get {id} {laptop}"))["state"], "open");
    assert_eq!(ok(&up, &format!("session passwd shared {two} --evict-others"))["evicted"], 1);
    assert_eq!(refused(&up, &format!("session get {id} {laptop}")), gone);
    assert_eq!(refused(&up, &format!("session join {id} {one} {phone}")), wrong, "the one before");
    assert_eq!(text(&ok(&up, &format!("session join {id} {two} {phone}")), "role"), "operator");

    // One leaves it to the others; the last one's quit ends it, and its name is free.
    assert_eq!(ok(&up, "session quit shared")["session_ends"], false);
    assert_eq!(ok(&up, &format!("session quit {id} {phone}"))["session_ends"], true);
    assert_eq!(refused(&up, &format!("session get {id}")), (5, "OWNER_MISMATCH".to_owned()));
    ok(&up, "session create shared");
}

fn in_flight(up: &Up) -> Vec<String> {
    let jobs = ok(up, "job list one --in-flight");
    jobs.as_array().expect("a list").iter().map(|job| text(job, "job_id").to_owned()).collect()
}

// Issue 7 line 9, SW-34, FN-30
#[test]
fn an_attach_waits_cancels_or_gives_up_and_a_job_is_ended_by_force() {
    let up = Up::start(&[]);
    sign_in(&up);
    ok(&up, "session create one --agent builder");
    ok(&up, "agent set other");
    ok(&up, "job submit one work");
    assert_eq!(refused(&up, "session attach one --agent other --wait=1s"), (6, "SESSION_BUSY".to_owned()));
    let waiting = ["-o", "json", "session", "attach", "one", "--agent", "other", "--wait"];
    let mut waiting = up.command(&waiting).stdout(Stdio::piped()).spawn().expect("interlock runs");
    // It stands in line once the owner's submits are refused; what was submitted before that is waited for, too.
    eventually_sync("a place in line", || refused(&up, "job submit one more").1 == "ATTACH_PENDING");
    assert!(waiting.try_wait().expect("a child").is_none(), "it waits");
    for job in in_flight(&up) {
        ok(&up, &format!("job cancel {job}"));
    }
    let attached = waiting.wait_with_output().expect("it ends");
    assert!(attached.status.success(), "{attached:?}");
    assert_eq!(lines(&attached)[0]["changed"], true);
    assert_eq!(ok(&up, "session get one")["binding"]["agent_id"], "other");

    let job = text(&ok(&up, "job submit one work"), "job_id").to_owned();
    assert_eq!(ok(&up, "session attach one --agent builder --cancel")["changed"], true);
    let cancelled = ok(&up, &format!("job get {job}"));
    assert_eq!(
        (text(&cancelled, "state"), text(&cancelled, "cause")),
        ("cancelled", "cancelled for an attach")
    );

    let job = text(&ok(&up, "job submit one stuck"), "job_id").to_owned();
    let force = format!("job force-fail {job} --cause 'nobody runs it'");
    assert_eq!(refused(&up, &force), (5, "FORBIDDEN".to_owned()), "for administrators");
    for _ in 0..2 {
        let failed = ok(&up, &format!("{ADMIN} {force}"));
        assert_eq!((text(&failed, "state"), text(&failed, "cause")), ("failed", "nobody runs it"));
    }
    assert_eq!(ok(&up, "session attach one --agent other")["changed"], true, "I4");
}

// Issue 7 line 9; SF-01, SF-03
#[test]
fn files_are_put_listed_read_and_removed() {
    let up = Up::start(&[]);
    sign_in(&up);
    ok(&up, "session create papers");
    let work = up.home().join("work");
    let contents: Vec<u8> = (0..200_000_u32).map(|at| (at / 7 % 251) as u8).collect();
    fs::write(work.join("report"), &contents).expect("written");
    let stored = ok(&up, "file put papers report --name out/report");
    assert_eq!((stored["size"].as_u64(), stored["replaced"].as_bool()), (Some(200_000), Some(false)));
    fs::write(work.join("notes"), "old").expect("written");
    ok(&up, "file put papers notes");
    fs::write(work.join("notes"), "new").expect("written");
    assert_eq!(ok(&up, "file put papers notes")["replaced"], true);
    let listed = ok(&up, "file list papers");
    let names: Vec<_> = listed.as_array().expect("a list").iter().map(|file| text(file, "name")).collect();
    assert_eq!(names, ["notes", "out/report"]);
    assert_eq!(listed[1]["sha256"], stored["sha256"]);

    // Into this folder, under the last part of its name; nothing that is there is overwritten unasked.
    assert_eq!(refused(&up, "file get papers out/report").0, 1, "it is there already");
    assert_eq!(ok(&up, "file get papers out/report --to copy")["path"], "copy");
    assert_eq!(fs::read(work.join("copy")).expect("there"), contents);
    fs::write(work.join("report"), "mine").expect("written");
    ok(&up, "file get papers out/report --force");
    assert_eq!(fs::read(work.join("report")).expect("there"), contents);
    assert_eq!(up.shell("interlock file get papers notes --to -").stdout, b"new");

    assert_eq!(refused(&up, "file put papers report --name ../report").1, "INVALID_FIELD");
    assert_eq!(refused(&up, "file put papers .").0, 2, "a folder");
    assert_eq!(ok(&up, "file rm papers notes")["deleted"], true);
    assert_eq!(ok(&up, "file rm papers notes")["deleted"], false);
    assert_eq!(refused(&up, "file get papers notes --to -").1, "NOT_FOUND");
    assert_eq!(fs::read_dir(&work).expect("a folder").count(), 4, "no half-written file stays");
}
