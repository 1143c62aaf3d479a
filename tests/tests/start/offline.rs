//! The commands of `interlock-auth auth` and `interlock-auth owner`: they refuse what the service refuses, and they work
//! where it works.

use interlock_tests::{
    start::{Attempt, Told},
    terminal::Terminal,
};

use super::{AUTH, MET, Row, TOLD, all, site::Site};

const COPY: &str = "auth/auth_tokens.json";
const STATUS: &[&str] = &["auth", "status"];
const REVEAL: &[&str] = &["auth", "status", "--reveal"];
const RESET: &[&str] = &["auth", "reset", "--yes"];

const TABLE: &[Row] = &[
    (
        "reset without --yes",
        AUTH,
        |a| says(a, &["auth", "reset"]),
        MET,
        &["repeat with --yes", "Nothing was changed"],
    ),
    ("status with a corrupt copy", AUTH, |a| says(a, STATUS).write(COPY, "{"), TOLD, &[COPY, "not its JSON"]),
    ("reveal with a corrupt copy", AUTH, |a| says(a, REVEAL).write(COPY, "{"), TOLD, &[COPY, "not its JSON"]),
    (
        "status with a copy for everyone",
        AUTH,
        |a| says(a, STATUS).hardened().mode(COPY, 0o644),
        TOLD,
        &["chmod 600"],
    ),
    (
        "reset with a copy for everyone",
        AUTH,
        |a| says(a, RESET).hardened().mode(COPY, 0o644),
        TOLD,
        &["chmod 600"],
    ),
    (
        "reset with a folder for a copy",
        AUTH,
        |a| says(a, RESET).folder_at(COPY),
        TOLD,
        &[COPY, "not a regular file"],
    ),
    (
        "status without a store",
        AUTH,
        |a| says(a, STATUS).remove("auth/auth.db"),
        MET,
        &["no such store", "start the"],
    ),
    (
        "reset without a store",
        AUTH,
        |a| says(a, RESET).remove("auth/auth.db"),
        MET,
        &["no such store", "start the"],
    ),
    (
        "status of an empty store",
        AUTH,
        |a| says(a, STATUS).write("auth/auth.db", ""),
        MET,
        &["damaged: it is empty"],
    ),
    (
        "reset of an empty store",
        AUTH,
        |a| says(a, RESET).write("auth/auth.db", ""),
        MET,
        &["damaged: it is empty"],
    ),
    (
        "reset of a text",
        AUTH,
        |a| says(a, RESET).write("auth/auth.db", "hunter2"),
        MET,
        &["the store ", "damaged"],
    ),
    (
        "status without the chain's key",
        AUTH,
        |a| says(a, STATUS).remove("auth/audit.key"),
        TOLD,
        &["missing beside"],
    ),
    (
        "reset without the chain's key",
        AUTH,
        |a| says(a, RESET).remove("auth/audit.key"),
        TOLD,
        &["restore it"],
    ),
    (
        "status elsewhere",
        AUTH,
        |a| says(a, STATUS).set_path("data_dir", "none"),
        MET,
        &["none/auth.db: no such store"],
    ),
    (
        "reset elsewhere",
        AUTH,
        |a| says(a, RESET).set_path("data_dir", "none"),
        MET,
        &["none/auth.db: no such store"],
    ),
    (
        "status of a wrong setting",
        AUTH,
        |a| says(a, STATUS).set("lease", "soon"),
        TOLD,
        &["lease (flag): a duration"],
    ),
    ("status by a wrong file", AUTH, |a| says(a, STATUS).config("pki"), TOLD, &["pki: ", "directory"]),
    (
        "revoke-all without --yes",
        AUTH,
        |a| says(a, &["auth", "revoke-all"]),
        MET,
        &["repeat with --yes", "Nothing was changed"],
    ),
    (
        "owner passwd with nobody to ask",
        AUTH,
        |a| says(a, &["owner", "passwd", "alice"]),
        MET,
        &["--password-file FILE"],
    ),
    (
        "owner import of what is no JSON",
        AUTH,
        |a| {
            says(a, &["owner", "import", "spoiled.json"])
                .write("spoiled.json", "hunter2")
                .mode("spoiled.json", 0o600)
        },
        TOLD,
        &["spoiled.json: not accounts JSON"],
    ),
    (
        "owner set with a password for everyone",
        AUTH,
        |a| {
            says(a, &["owner", "set", "alice", "--password-file", "open.password"])
                .hardened()
                .write("open.password", "hunter2hunter2")
                .mode("open.password", 0o644)
        },
        TOLD,
        &["open.password", "chmod 600"],
    ),
    (
        "owner list without a store",
        AUTH,
        |a| says(a, &["owner", "list"]).remove("auth/auth.db"),
        MET,
        &["no such store"],
    ),
    (
        "reset by a user who may not",
        AUTH,
        |a| says(a, RESET).unprivileged().mode("auth/store.lock", 0o400).mode("auth", 0o500),
        MET,
        &["auth/store.lock: Permission denied", "must be writable by this user"],
    ),
];

fn says<'a>(a: &'a mut Attempt, arguments: &[&str]) -> &'a mut Attempt {
    for argument in arguments {
        a.argument(argument);
    }
    a
}

// SW-17, SW-38
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_offline_commands_refuse_what_the_service_refuses() {
    let mut site = Site::at_rest().await;
    all(&mut site, TABLE);
    site.everything_is_there().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_offline_commands_work_once_it_is_mended() {
    let site = Site::at_rest().await;
    let run = |arguments: &[&str]| {
        let mut attempt = Attempt::new(&site.path(""), "auth");
        says(&mut attempt, arguments);
        let told = Told::by(attempt.command());
        assert_eq!((told.code, told.lines("interlock-auth")), (Some(0), Vec::new()), "{}", told.stderr);
        told.stdout
    };
    assert_eq!(run(&["auth", "path"]).trim(), site.path(COPY).display().to_string());
    let status = run(STATUS);
    assert!(
        status.contains("recoverable true") && !site.secrets().iter().any(|s| status.contains(s)),
        "{status}"
    );
    let before = site.secrets();
    let [admin, user] = [&before[before.len() - 2], &before[before.len() - 1]];
    let revealed = run(REVEAL);
    assert!(revealed.contains(admin.as_str()) && revealed.contains(user.as_str()));
    // SW-38: a corrupt copy is what the command is for.
    std::fs::write(site.path(COPY), "{").expect("written");
    let reset = run(RESET);
    assert!(!reset.contains(admin.as_str()) && !reset.contains(user.as_str()));
    let [admin, user] = ["admin", "user"].map(|role| site.role_token(role));
    assert!(reset.contains(&admin) && reset.contains(&user), "what is printed is what the copy has");
    assert!(run(STATUS).contains("recoverable true"));
}

// UA-36 to UA-39, FN-27: when nobody can sign in any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_are_kept_on_the_host_while_the_service_rests() {
    let site = Site::at_rest().await;
    let ended = |arguments: &[&str]| {
        let mut attempt = Attempt::new(&site.path(""), "auth");
        says(&mut attempt, arguments);
        Told::by(attempt.command())
    };
    let run = |arguments: &[&str]| {
        let told = ended(arguments);
        assert_eq!((told.code, told.lines("interlock-auth")), (Some(0), Vec::new()), "{}", told.stderr);
        told.stdout
    };
    let password = |name: &str, text: &str| {
        std::fs::write(site.path(name), text).expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(site.path(name), mode).expect("ours");
        site.path(name).display().to_string()
    };
    let file = password("new.password", "longer than twelve\n");
    let short = password("short.password", "too short");
    assert_eq!(
        run(&["owner", "set", "dora", "--role", "Owner", "--password-file", &file]),
        "dora added\nthe role `owner` makes dora session-root\n"
    );
    assert_eq!(
        run(&["owner", "set", "dora", "--inactive"]),
        "dora set\n".to_owned() + "the role `owner` makes dora session-root\n"
    );
    let list = run(&["owner", "list"]);
    assert!(list.contains("dora inactive Owner session-root\n"), "{list}");
    assert!(list.contains("alice active user\n") && !list.contains('$'), "no hash: {list}");
    // UA-38: the last active administrator stays; dora is inactive.
    let refused = ended(&["owner", "remove", "root"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("the last active administrator"), "{}", refused.stderr);
    // Refused by the verb, and so in the audit.
    let refusals: [(&[&str], &str); 4] = [
        (&["owner", "remove", "nobody"], "no such owner"),
        (&["owner", "set", "newcomer"], "newcomer: password is missing"),
        (&["owner", "set", "admin", "--inactive"], "reserved"),
        (&["owner", "set", "dora", "--password-file", &short], "at least 12 characters"),
    ];
    for (arguments, why) in refusals {
        let told = ended(arguments);
        assert_eq!(told.code, Some(1), "{arguments:?}");
        assert!(told.stderr.contains(why) && told.stdout.is_empty(), "{}", told.stderr);
    }
    // At a terminal a password is asked for twice, and two that differ change nothing.
    let typed = |again: &str| {
        let mut attempt = Attempt::new(&site.path(""), "auth");
        says(&mut attempt, &["owner", "set", "erin"]);
        let mut terminal = Terminal::run(&attempt.command());
        terminal.answer("New password of erin: ", "longer than twelve");
        terminal.answer("Again: ", again);
        let (status, shown) = terminal.end();
        let shown = String::from_utf8_lossy(&shown).into_owned();
        assert!(!shown.contains("longer"), "{shown}");
        (status.code(), shown)
    };
    let (code, shown) = typed("longer than eleven");
    assert!(code == Some(1) && shown.contains("the two passwords differ; nothing was changed"), "{shown}");
    assert!(!run(&["owner", "list"]).contains("erin"));
    let (code, shown) = typed("longer than twelve");
    assert!(code == Some(0) && shown.contains("erin added"), "{shown}");
    assert_eq!(run(&["owner", "remove", "dora"]), "dora removed\n");
    assert_eq!(run(&["owner", "passwd", "alice", "--password-file", &file]), "alice set\n");
    // UA-24, UA-39
    let vector = r#"{"imported":{"roles":["user"],"password_hash":
        "pbkdf2_sha256$310000$AAECAwQFBgcICQoLDA0ODw==$e4rSQ5KQXKoMyeu1tFpEU3HMo6tplYmG7eJ280WPc/o="}}"#;
    let owners = password("import.json", vector);
    assert_eq!(run(&["owner", "import", &owners]), "imported added\n");
    let told = run(&["auth", "revoke-all", "--yes"]);
    assert_eq!(told, "every owner session has ended\n");
    let list = run(&["owner", "list"]);
    assert!(!list.contains("dora") && list.contains("imported active user\n"), "{list}");
}
