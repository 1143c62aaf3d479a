//! Agents that are removed, owners and memberships that end, and sessions that are adopted, as scripts see them.

use std::fs;

use interlock_tests::Up;
use serde_json::Value;

use super::{ok, refused, sign_in};

const ADMIN: &str = "--token-file \"$INTERLOCK_UP/auth/auth_tokens.json\"";

/// Makes an owner, lets it into the project `demo`, signs it in, and gives it a session with a job in flight.
fn with_work(up: &Up, owner: &str) -> (String, String) {
    ok(up, &format!("{ADMIN} owner set {owner} --role user --password-file \"$HOME/password\""));
    ok(up, &format!("project member demo {owner}"));
    ok(up, &format!("login {owner} --password-file \"$HOME/password\""));
    ok(up, &format!("agent set {owner}-agent"));
    let session = ok(up, &format!("session create work --agent {owner}-agent"));
    let job = ok(up, "job submit work task");
    let id = |value: &Value, key: &str| value[key].as_str().expect("an id").to_owned();
    (id(&session, "session_id"), id(&job, "job_id"))
}

fn state(up: &Up, job: &str) -> String {
    ok(up, &format!("{ADMIN} job get {job}"))["state"].as_str().expect("a state").to_owned()
}

// UA-48, DESIGN 14.3
#[test]
fn an_owners_end_cancels_its_jobs_where_that_is_asked_and_its_session_is_adopted() {
    let up = Up::start(&[]);
    fs::write(up.home().join("password"), "the only password\n").expect("written");
    sign_in(&up);
    let (session, job) = with_work(&up, "ann");
    // Nobody's yet: its owner is known.
    let adopt = format!("session adopt {session} --owner dev");
    assert_eq!(refused(&up, &adopt), (5, "FORBIDDEN".to_owned()), "for administrators");
    assert_eq!(refused(&up, &format!("{ADMIN} {adopt}")), (5, "FORBIDDEN".to_owned()), "it stays hers");
    ok(&up, &format!("{ADMIN} owner remove ann --cancel-jobs"));
    assert_eq!(state(&up, &job), "cancelled");
    let adopted = ok(&up, &format!("{ADMIN} {adopt}"));
    assert_eq!((adopted["owner_id"].as_str(), adopted["name"].as_str()), (Some("dev"), Some("work")));
    assert_eq!(ok(&up, &format!("{ADMIN} {adopt}"))["evicted"], 0, "again is no error");
    ok(&up, "login dev --password-file \"$INTERLOCK_UP/dev.password\"");
    assert_eq!(ok(&up, "session get work")["session_id"], session.as_str());
}

// DESIGN 14.3
#[test]
fn a_membership_or_an_owner_ends_with_its_jobs_or_without() {
    let up = Up::start(&[]);
    fs::write(up.home().join("password"), "the only password\n").expect("written");
    let ends = [
        ("ann", "project remove-member demo ann --cancel-jobs", "cancelled"),
        ("bob", "project remove-member demo bob", "queued"),
        ("carl", "owner set carl --inactive --cancel-jobs", "cancelled"),
        ("dora", "owner set dora --inactive", "queued"),
    ];
    for (owner, end, expected) in ends {
        sign_in(&up);
        let (_, job) = with_work(&up, owner);
        ok(&up, &format!("{ADMIN} {end}"));
        assert_eq!(state(&up, &job), expected, "{end}");
    }
}

// DESIGN 9: a bound session keeps nobody from removing an agent; a job in flight does.
#[test]
fn an_agent_is_removed_when_nothing_of_it_is_in_flight() {
    let up = Up::start(&[]);
    sign_in(&up);
    ok(&up, "session create one --agent builder");
    let job = ok(&up, "job submit one work");
    assert_eq!(refused(&up, "agent remove builder"), (6, "SESSION_BUSY".to_owned()));
    ok(&up, &format!("job cancel {}", job["job_id"].as_str().expect("an id")));
    ok(&up, "agent remove builder");
    assert_eq!(refused(&up, "agent remove builder"), (5, "FORBIDDEN".to_owned()), "as one that never was");
    assert_eq!(refused(&up, "job submit one work"), (5, "FORBIDDEN".to_owned()), "bound to what is gone");
    assert_eq!(ok(&up, "session get one")["binding"]["agent_id"], "builder");
    ok(&up, "agent set other");
    assert_eq!(ok(&up, "session attach one --agent other")["changed"], true);
    ok(&up, "job submit one work");
}
