//! Sources of accounts: a bad one refuses the start, says where, never what, and nothing of it is applied.

use interlock_tests::start::Attempt;

use super::{AUTH, Row, TOLD, all, site::Site};

const FILE: &str = "accounts.json";
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAECAwQFBgcICQoLDA0ODw$hunter2";

/// FN-02
const SHAPES: &[Row] = &[
    ("not JSON", AUTH, |a| said(a, "hunter2"), TOLD, &["accounts.json: not accounts JSON at line 1 column"]),
    ("empty", AUTH, |a| said(a, ""), TOLD, &["accounts.json: not accounts JSON at line 1"]),
    (
        "cut off",
        AUTH,
        |a| said(a, r#"[{"username":"a","password":"hunter2"}"#),
        TOLD,
        &["not accounts JSON at line 1"],
    ),
    ("a number", AUTH, |a| said(a, "3"), TOLD, &["not accounts JSON at line 1"]),
    ("a list of texts", AUTH, |a| said(a, r#"["hunter2"]"#), TOLD, &["not accounts JSON at line 1"]),
    ("two documents", AUTH, |a| said(a, "[] []"), TOLD, &["not accounts JSON at line 1"]),
    (
        "not UTF-8",
        AUTH,
        |a| a.write(FILE, b"[{\"username\":\"\xff\"}]"),
        TOLD,
        &["accounts.json: must be UTF-8"],
    ),
    ("endless", AUTH, |a| a.write(FILE, vec![b' '; (8 << 20) + 1]), TOLD, &["accounts.json: longer than "]),
    ("deeply nested", AUTH, |a| said(a, &"[".repeat(100_000)), TOLD, &["not accounts JSON at line 1"]),
    ("missing", AUTH, |a| a.remove(FILE), TOLD, &["accounts.json: cannot be read: No such file"]),
    ("a folder", AUTH, |a| a.folder_at(FILE), TOLD, &["accounts.json: cannot be read: not a regular file"]),
];

const RECORDS: &[Row] = &[
    (
        "a field unknown",
        AUTH,
        |a| one(a, r#""password":"hunter2hunter2","hunter2":1"#),
        TOLD,
        &["not accounts JSON"],
    ),
    ("a password of a number", AUTH, |a| one(a, r#""password":3"#), TOLD, &["not accounts JSON at line 1"]),
    (
        "roles of a text",
        AUTH,
        |a| one(a, r#""password":"hunter2hunter2","roles":"user""#),
        TOLD,
        &["not accounts"],
    ),
    (
        "an active of a text",
        AUTH,
        |a| one(a, r#""password_hash":"x","active":"yes""#),
        TOLD,
        &["not accounts"],
    ),
    (
        "a field twice",
        AUTH,
        |a| one(a, r#""password":"hunter2","password":"x""#),
        TOLD,
        &["not accounts JSON"],
    ),
    ("no password", AUTH, |a| one(a, r#""role":"user""#), TOLD, &["accounts.json: account 1: password"]),
    (
        "an empty password",
        AUTH,
        |a| one(a, r#""password":"""#),
        TOLD,
        &["account 1: password: 1 to 1024 bytes"],
    ),
    (
        "password and hash",
        AUTH,
        |a| one(a, r#""password":"hunter2","password_hash":"x""#),
        TOLD,
        &["account 1: "],
    ),
    (
        "a hash of nothing known",
        AUTH,
        |a| one(a, r#""password_hash":"hunter2""#),
        TOLD,
        &["account 1: password_hash"],
    ),
    (
        "a hash cut off",
        AUTH,
        |a| one(a, &format!(r#""password_hash":"{HASH}""#)),
        TOLD,
        &["account 1: password_hash"],
    ),
    (
        "a hash that costs too much",
        AUTH,
        |a| one(a, &format!(r#""password_hash":"{}""#, HASH.replace("m=19456", "m=4194304"))),
        TOLD,
        &["account 1: password_hash"],
    ),
    (
        "a reserved name",
        AUTH,
        |a| said(a, r#"[{"username":"admin","password":"hunter2hunter2"}]"#),
        TOLD,
        &["account 1: username: admin, user, local and system are reserved"],
    ),
    (
        "no name",
        AUTH,
        |a| said(a, r#"[{"password":"hunter2hunter2"}]"#),
        TOLD,
        &["account 1: username: missing"],
    ),
    (
        "one name twice",
        AUTH,
        |a| said(a, r#"[{"username":"a","password":"hunter2hunter2"},{"username":"a","password":"x"}]"#),
        TOLD,
        &["accounts.json: account 2: username"],
    ),
    (
        "a name twice in a map",
        AUTH,
        |a| said(a, r#"{"a":{"password":"hunter2hunter2"},"a":{"password":"hunter2hunter2"}}"#),
        TOLD,
        &["accounts.json: "],
    ),
    (
        "the second of two",
        AUTH,
        |a| said(a, r#"[{"username":"a","password":"hunter2hunter2"},{"username":"b"}]"#),
        TOLD,
        &["accounts.json: account 2: password"],
    ),
    // UA-47
    (
        "a short password, in hardened",
        AUTH,
        |a| one(a, r#""password":"hunter2""#).hardened(),
        TOLD,
        &["the password of a has fewer than 12 characters", "hardened"],
    ),
];

const VARIABLES: &[Row] = &[
    (
        "accounts in the environment",
        AUTH,
        |a| a.env("INTERLOCK_ACCOUNTS_JSON", "[{hunter2"),
        TOLD,
        &["INTERLOCK_ACCOUNTS_JSON: not accounts JSON at line 1"],
    ),
    (
        "owners in the environment",
        AUTH,
        |a| a.env("INTERLOCK_OWNERS_JSON", r#"{"b":{"password_hash":"hunter2"}}"#),
        TOLD,
        &["INTERLOCK_OWNERS_JSON: account 1: password_hash"],
    ),
    (
        "accounts named by the environment",
        AUTH,
        |a| a.env("INTERLOCK_OWNERS_FILE", "nowhere.json"),
        TOLD,
        &["nowhere.json: cannot be read: No such file"],
    ),
];

fn said<'a>(a: &'a mut Attempt, text: &str) -> &'a mut Attempt {
    a.write(FILE, text)
}

/// One account with these fields.
fn one<'a>(a: &'a mut Attempt, fields: &str) -> &'a mut Attempt {
    said(a, &format!(r#"[{{"username":"a",{fields}}}]"#))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_accounts_are_refused_and_nothing_of_them_is_applied() {
    let mut site = Site::at_rest().await;
    for table in [SHAPES, RECORDS, VARIABLES] {
        all(&mut site, table);
    }
    site.everything_is_there().await;
}
