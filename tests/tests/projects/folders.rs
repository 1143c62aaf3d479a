//! `interlock use`, `whoami` and the project file, on the command line.

use std::{fs, path::Path, process::Output};

use interlock_tests::Up;
use serde_json::Value;

/// A line of shell in a folder of the home.
fn at(up: &Up, folder: &str, line: &str) -> Output {
    up.shell(&format!("mkdir -p \"$HOME/{folder}\" && cd \"$HOME/{folder}\" && {line}"))
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn told(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {}", said(output)))
}

/// The reason of a refusal with `-o json`.
fn reason(output: &Output) -> String {
    let error: Value =
        serde_json::from_str(said(output).lines().last().unwrap_or_default()).unwrap_or_default();
    error["error"]["reason"].as_str().unwrap_or_default().to_owned()
}

fn sign_in(up: &Up) {
    told(&up.shell("interlock login dev --password-file \"$INTERLOCK_UP/dev.password\""));
}

/// The id of a new project.
fn project(up: &Up, name: &str) -> String {
    let made = json(&up.shell(&format!("interlock -o json project create {name}")));
    made["project_id"].as_str().expect("an id").to_owned()
}

fn file(up: &Up, folder: &str) -> std::path::PathBuf {
    up.home().join(folder).join("interlock.json")
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_str(&fs::read_to_string(path).expect("a file")).expect("JSON");
    change(&mut json);
    fs::write(path, json.to_string()).expect("written");
}

// SQ-08, SQ-09, SQ-10, SQ-11, SQ-12, SQ-13
#[test]
fn use_binds_a_folder_to_a_project_that_the_caller_can_enter() {
    let up = Up::start(&[]);
    sign_in(&up);
    let blue = project(&up, "blue");
    let linked = told(&at(&up, "one", "interlock use blue"));
    let path = file(&up, "one").canonicalize().expect("it is there");
    let facts: Vec<&str> = linked.lines().collect();
    assert_eq!(facts.len(), 3, "{linked}");
    assert_eq!(facts[0], format!("linked blue ({blue})"));
    assert_eq!(facts[1], format!("wrote {}", path.display()));
    assert!(facts[2].contains("scoped"), "{linked}");
    let text = fs::read_to_string(&path).expect("there");
    assert!(!text.contains("ilk_"), "no credential: {text}");
    let bound: Value = serde_json::from_str(&text).expect("plain JSON");
    assert_eq!((&bound["project_id"], &bound["project_name"]), (&blue.as_str().into(), &"blue".into()));
    let ready = up.ready();
    assert_eq!(bound["api_url"], ready["gateway"]);

    // What others keep in it stays.
    rewrite(&path, |json| json["team"] = "t".into());
    let by_id = json(&at(
        &up,
        "one",
        &format!("interlock -o json use {}", ready["project_id"].as_str().expect("an id")),
    ));
    assert_eq!(
        (&by_id["project_name"], &by_id["path"]),
        (&"demo".into(), &path.display().to_string().into())
    );
    let bound: Value = serde_json::from_str(&fs::read_to_string(&path).expect("there")).expect("JSON");
    assert_eq!((&bound["project_name"], &bound["team"]), (&"demo".into(), &"t".into()));

    let listed = json(&at(&up, "one", "interlock -o json use --list"));
    let listed: Vec<_> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|p| (p["name"].clone(), p["current"].clone()))
        .collect();
    assert_eq!(listed, [("blue".into(), false.into()), ("demo".into(), true.into())]);
    let table = told(&at(&up, "one", "interlock use --list"));
    let current: Vec<&str> = table.lines().filter(|line| line.starts_with('*')).collect();
    assert!(matches!(current[..], [line] if line.contains("demo") && line.contains("prj_")), "{table}");

    for unknown in ["no-such", "prj_00000000000000000000000000000000", "system"] {
        let refused = at(&up, "two", &format!("interlock use {unknown}"));
        assert_eq!(code(&refused), 1, "{unknown}: {}", said(&refused));
        assert!(!file(&up, "two").exists(), "{unknown} left a file");
    }
    fs::write(&path, "{ broken").expect("written");
    assert_eq!(code(&at(&up, "one", "interlock use blue")), 1);
    assert_eq!(fs::read_to_string(&path).expect("there"), "{ broken", "it is not thrown away");
    // Where it would never be looked for, none is written.
    assert_eq!(code(&up.shell("cd && interlock use blue")), 1);
    assert!(!up.home().join("interlock.json").exists());
}

// SQ-24, SQ-25, SQ-26
#[test]
fn whoami_says_who_where_and_whether_they_fit() {
    let up = Up::start(&[]);
    assert_eq!(code(&up.shell("interlock whoami")), 4, "no credential");
    sign_in(&up);
    let free = at(&up, "one", "interlock whoami");
    assert_eq!(code(&free), 3, "no project file: {}", said(&free));
    assert!(said(&free).contains("interlock use"), "{}", said(&free));
    told(&at(&up, "one", "interlock use demo"));
    let text = told(&at(&up, "one/deep/down", "interlock whoami"));
    let path = file(&up, "one").canonicalize().expect("there").display().to_string();
    for fact in ["dev", "Developer", "user", "crd_", "owner session", "expires", "demo (prj_", &path] {
        assert!(text.contains(fact), "{fact} is missing:\n{text}");
    }
    let whole = json(&at(&up, "one/deep/down", "interlock -o json whoami"));
    assert_eq!(whole["binding"]["path"], path);
    assert_eq!((&whole["binding"]["project_name"], &whole["mismatch"]), (&"demo".into(), &false.into()));
    assert_eq!((&whole["owner_id"], &whole["role"]), (&"dev".into(), &"user".into()));
    assert!(!text.contains("ilk_") && !whole.to_string().contains("ilk_"), "no secret");

    rewrite(&file(&up, "one"), |json| json["project_id"] = "prj_00000000000000000000000000000000".into());
    let other = at(&up, "one", "interlock whoami");
    assert_eq!(code(&other), 1);
    assert!(said(&other).contains("calls will 403"), "{}", said(&other));
    let other = json(&at(&up, "one", "interlock -o json whoami"));
    assert!(other["mismatch"] == true && other["warning"].as_str().expect("said").contains("calls will 403"));
}

// SQ-03, SQ-14, SQ-31, SQ-34
#[test]
fn the_folder_decides_and_the_server_believes_nothing() {
    let up = Up::start(&[]);
    sign_in(&up);
    project(&up, "blue");
    told(&at(&up, "demo", "interlock use demo"));
    told(&at(&up, "blue", "interlock use blue"));
    let session = json(&at(&up, "demo/nested", "interlock -o json session create one --agent builder"));
    let session = session["session_id"].as_str().expect("an id").to_owned();
    let submit = format!("interlock -o json job submit {session} work");
    told(&at(&up, "demo", &submit));
    // SQ-03: the wrong folder writes nothing to the other project.
    let wrong = at(&up, "blue", &submit);
    assert_eq!((code(&wrong), reason(&wrong).as_str()), (5, "PROJECT_MISMATCH"));
    // SQ-34: a file that was edited by hand opens nothing.
    let id = |folder: &str| -> Value {
        let text = fs::read_to_string(file(&up, folder)).expect("there");
        serde_json::from_str::<Value>(&text).expect("JSON")["project_id"].clone()
    };
    let (demo, blue) = (id("demo"), id("blue"));
    rewrite(&file(&up, "demo"), |json| json["project_id"] = "prj_00000000000000000000000000000000".into());
    let edited = at(&up, "demo", &submit);
    assert_eq!((code(&edited), reason(&edited).as_str()), (5, "PROJECT_MISMATCH"));
    let stolen = at(&up, "demo", "interlock -o json session create two --agent builder");
    assert_eq!((code(&stolen), reason(&stolen).as_str()), (5, "PROJECT_MISMATCH"));
    // SQ-14: each invocation reads the file anew.
    rewrite(&file(&up, "demo"), |json| json["project_id"] = blue);
    assert_eq!(reason(&at(&up, "demo", &submit)), "PROJECT_MISMATCH");
    rewrite(&file(&up, "demo"), |json| json["project_id"] = demo);
    told(&at(&up, "demo", &submit));
    let jobs = json(&at(&up, "demo", &format!("interlock -o json job list {session}")));
    assert_eq!(jobs.as_array().expect("a list").len(), 2, "those that were let in, and no other");
}

// SQ-17, SQ-28, SQ-29, SQ-32
#[test]
fn a_call_for_no_project_is_warned_of_in_one_line_that_can_be_silenced() {
    let up = Up::start(&[]);
    sign_in(&up);
    told(&at(&up, "demo", "interlock use demo"));
    told(&at(&up, "demo", "interlock session create one --agent builder"));
    // A name is looked up first: two calls, one line.
    let warned = at(&up, "nowhere", "interlock session get one");
    assert!(warned.status.success(), "it is served: {}", said(&warned));
    assert_eq!(said(&warned).lines().count(), 1, "{}", said(&warned));
    assert!(said(&warned).contains("interlock use"), "{}", said(&warned));
    let silent = at(&up, "nowhere", "INTERLOCK_SUPPRESS_UNSCOPED_WARNING=1 interlock session get one");
    assert!(silent.status.success() && said(&silent).is_empty(), "{}", said(&silent));
    // By name, and by file: nothing to warn of.
    for line in ["interlock --project demo session get one", "cd \"$HOME/demo\" && interlock session get one"]
    {
        let scoped = at(&up, "nowhere", line);
        assert!(scoped.status.success() && said(&scoped).is_empty(), "{line}: {}", said(&scoped));
    }
}

// SQ-24, SQ-26, SQ-33; DESIGN 8: a worker with a token of its project, bound to an agent.
#[test]
fn a_project_token_works_in_its_project_and_whoami_says_where() {
    let up = Up::start(&[]);
    sign_in(&up);
    project(&up, "blue");
    told(&at(&up, "demo", "interlock use demo"));
    told(&at(&up, "blue", "interlock use blue"));
    let issue = "interlock -o json project token issue ci --scope jobs:work --scope jobs:read --agent builder --ttl 1h";
    let issued = json(&at(&up, "demo", &format!("{issue} --to \"$HOME/ci.token\"")));
    assert!(issued["token"].is_null(), "{issued}");
    let secret = fs::read_to_string(up.home().join("ci.token")).expect("the token");
    assert!(secret.starts_with("ilk_prj_"));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(up.home().join("ci.token")).expect("there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let id = issued["token_id"].as_str().expect("an id").to_owned();
    let printed = told(&at(&up, "demo", "interlock project token issue --scope jobs:read"));
    assert_eq!(printed.matches("ilk_prj_").count(), 1, "printed once");

    let ci = "interlock --token-file \"$HOME/ci.token\"";
    let who = json(&at(&up, "demo", &format!("{ci} -o json whoami")));
    assert_eq!((&who["owner_id"], &who["kind"]), (&"dev".into(), &"project token".into()));
    assert_eq!((&who["project_name"], &who["mismatch"]), (&"demo".into(), &false.into()));
    assert_eq!(who["scopes"], serde_json::json!(["jobs:read", "jobs:work"]));
    assert!(who["expires_at"].is_string() && !who.to_string().contains("ilk_prj"), "{who}");
    let listed = json(&at(&up, "demo", &format!("{ci} -o json use --list")));
    assert_eq!(listed.as_array().expect("a list").len(), 1, "its own project only");
    let astray = at(&up, "blue", &format!("{ci} whoami"));
    assert_eq!(code(&astray), 1);
    assert!(said(&astray).contains("calls will 403"), "{}", said(&astray));
    assert_eq!(code(&at(&up, "green", &format!("{ci} use blue"))), 1, "not accessible");
    assert!(!file(&up, "green").exists());

    told(&at(&up, "demo", "interlock session create one --agent builder"));
    let mut worker = up
        .command(&[
            "--token-file",
            "../ci.token",
            "--project",
            "demo",
            "worker",
            "run",
            "--agent",
            "builder",
            "--",
            "cat",
        ])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("a worker");
    let done = json(&at(&up, "demo", "interlock -o json job submit one 'the payload' --wait"));
    worker.kill().expect("it runs");
    worker.wait().expect("a child");
    assert_eq!((&done["state"], &done["result"]), (&"succeeded".into(), &"the payload".into()));
    let submit = at(
        &up,
        "demo",
        &format!("{ci} -o json job submit {} x", done["session_id"].as_str().expect("an id")),
    );
    assert_eq!((code(&submit), reason(&submit).as_str()), (5, "SCOPE_REQUIRED"));

    let rotated = json(&at(
        &up,
        "demo",
        &format!("interlock -o json project token rotate {id} --to \"$HOME/next.token\""),
    ));
    assert_eq!(reason(&at(&up, "demo", &format!("{ci} -o json whoami"))), "PROVIDER_AUTH_FAILED");
    told(&at(&up, "demo", "interlock --token-file \"$HOME/next.token\" whoami"));
    let next = rotated["token_id"].as_str().expect("an id");
    told(&at(&up, "demo", &format!("interlock project token revoke {next}")));
    assert_eq!(code(&at(&up, "demo", "interlock --token-file \"$HOME/next.token\" whoami")), 4);
    let states = json(&at(&up, "demo", "interlock -o json project token list"));
    let states: Vec<_> = states.as_array().expect("a list").iter().map(|t| t["state"].clone()).collect();
    assert_eq!(states, ["revoked", "valid", "revoked"]);
}
