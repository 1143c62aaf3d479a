//! The build refuses an RPC whose policy is missing or contradicts itself, and names it.

use std::{fs, path::Path};

#[path = "../build/policy_gate.rs"]
mod policy_gate;

const SESSION: &str = "interlock/gateway/v1/session.proto";
const OWNER_SESSION: &str = "interlock/auth/v1/owner_session.proto";
const CREATE: &str = "interlock.gateway.v1.SessionService.CreateSession";

#[test]
fn our_own_protos_pass() {
    let passed = policy_gate::compile(&protos()).expect("our protos are sound");
    let methods: usize = passed.pool.services().map(|s| s.methods().len()).sum();
    assert!(methods > 0);
    assert_eq!(passed.encoded, interlock_proto::DESCRIPTORS, "the build took what this test reads");
    assert!(passed.set.file.iter().any(|f| f.name() == SESSION));
}

#[test]
fn a_method_without_a_policy_is_named() {
    let text = fs::read_to_string(protos().join(SESSION)).expect("readable");
    let option = method_option(&text, "CreateSession");
    let refusal = refused(SESSION, option, "");
    assert_eq!(refusal, format!("policies of RPCs:\n  {CREATE} has no (interlock.options.v1.policy)"));
}

#[test]
fn anyone_beside_others_is_refused() {
    let refusal = refused(OWNER_SESSION, "[CALLER_ANYONE]", "[CALLER_ANYONE, CALLER_OWNER_SESSION]");
    assert_eq!(
        refusal,
        "policies of RPCs:\n  interlock.auth.v1.OwnerSessionService.Login: CALLER_ANYONE stands alone"
    );
}

#[test]
fn a_project_token_without_a_scope_is_refused() {
    let refusal = refused(SESSION, "scopes: [\"sessions:write\"]", "");
    assert_eq!(
        refusal,
        format!(
            "policies of RPCs:\n  {CREATE}: a scope is required exactly where CALLER_PROJECT_TOKEN may call"
        )
    );
}

#[test]
fn an_audit_action_belongs_to_one_method() {
    let refusal = refused(SESSION, "\"session.get\"", "\"session.create\"");
    assert_eq!(
        refusal,
        format!(
            "policies of RPCs:\n  interlock.gateway.v1.SessionService.GetSession: audit action \
             \"session.create\" is also that of {CREATE}"
        )
    );
}

#[test]
fn a_policy_that_names_nobody_nowhere_is_refused_for_each_reason() {
    let text = fs::read_to_string(protos().join(SESSION)).expect("readable");
    let option = method_option(&text, "CreateSession");
    let empty = "    option (interlock.options.v1.policy) = {};\n";
    let refusal = refused(SESSION, option, empty);
    for fault in ["names no listener", "names nobody who may call", "must be `noun.verb`"] {
        assert!(refusal.contains(fault), "{fault:?} is not in {refusal}");
    }
    assert_eq!(refusal.lines().skip(1).filter(|l| !l.contains(CREATE)).count(), 0, "{refusal}");
}

#[test]
fn a_stream_of_answers_must_park() {
    let text = fs::read_to_string(protos().join(SESSION)).expect("readable");
    let option = method_option(&text, "StreamEvents");
    let refusal = refused(SESSION, option, &option.replace("parks: true", "parks: false"));
    assert!(refusal.contains("interlock.gateway.v1.SessionService.StreamEvents: a stream of answers parks"));
}

fn protos() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto")
}

/// The policy option of one method, as it stands in the text.
fn method_option<'a>(text: &'a str, method: &str) -> &'a str {
    let at = text.find(&format!("rpc {method}(")).expect("a method of this file");
    let start = at + text[at..].find("    option").expect("it has a policy");
    let end = start + text[start..].find("};\n").expect("the option ends") + 3;
    &text[start..end]
}

/// What the build says to a copy of our protos where the first `from` in `file` is `to`.
fn refused(file: &str, from: &str, to: &str) -> String {
    let root = tempfile::tempdir().expect("a folder of our own");
    copy(&protos(), root.path());
    let path = root.path().join(file);
    let text = fs::read_to_string(&path).expect("copied");
    assert!(text.contains(from), "{file} has no {from:?}");
    fs::write(&path, text.replacen(from, to, 1)).expect("writable");
    match policy_gate::compile(root.path()) {
        Ok(_) => panic!("{file} passed with {to:?} for {from:?}"),
        Err(refusal) => refusal.to_string(),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("readable").path();
        let target = to.join(path.file_name().expect("it has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}
