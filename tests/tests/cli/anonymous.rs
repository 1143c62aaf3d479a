//! Sessions without a sign-in, where `up` was told to let such in.

use interlock_tests::Up;

use super::{ok, refused, sign_in};

// NC-01
#[test]
fn without_a_sign_in_a_session_is_made_where_that_is_allowed() {
    let up = Up::start(&["--allow-anonymous"]);
    assert_eq!(refused(&up, "session create").0, 4, "one that is somebody's takes a sign-in");
    let made = ok(&up, "session create --anonymous");
    assert_eq!(made["owner_id"], "local");
    let session = made["session_id"].as_str().expect("an id").to_owned();
    assert_eq!(ok(&up, &format!("session get {session}"))["state"], "open");
    ok(&up, &format!("session post {session} hello"));
    assert_eq!(refused(&up, "session list").0, 4, "its cookie leads to it and to nothing else");

    // What is meant to be open is told, and is no hole.
    let doors = ok(&up, "audit endpoints");
    assert_eq!(doors["open"].as_array().map(Vec::len), Some(0), "{doors}");
    assert_eq!(doors["without_credential"][0], "/interlock.gateway.v1.SessionService/CreateSession");

    // Work, once `local` was let into a project, at an agent that is shared.
    sign_in(&up);
    ok(&up, "--token-file \"$INTERLOCK_UP/auth/auth_tokens.json\" agent set pool --shared true");
    let attach = format!("session attach {session} --agent pool");
    assert_eq!(refused(&up, &attach), (5, "PROJECT_MISMATCH".to_owned()), "not let in yet");
    ok(&up, "project member demo local");
    ok(&up, "logout");
    assert_eq!(ok(&up, &attach)["changed"], true);
    let job = ok(&up, &format!("job submit {session} work"));
    assert_eq!(job["state"], "queued");
    ok(&up, &format!("job cancel {} --session {session}", job["job_id"].as_str().expect("an id")));
    let both = ok(&up, "session create --anonymous --agent pool");
    assert_eq!(
        (both["owner_id"].as_str(), both["binding"]["agent_id"].as_str()),
        (Some("local"), Some("pool"))
    );
    assert_eq!(ok(&up, &format!("session quit {session}"))["session_ends"], true);
    assert_eq!(refused(&up, &format!("session get {session}")).0, 4, "gone, and so is its cookie");
}
