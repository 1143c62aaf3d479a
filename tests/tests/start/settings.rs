//! Arguments, the configuration file, the environment, addresses, contradictions.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use interlock_tests::start::Attempt;

use super::{AUTH, BOTH, GATEWAY, Row, TOLD, all, site::Site};

/// If this is ever said, something of a file's contents was.
const CANARY: &str = "hunter2-canary";

const FILE: &[Row] = &[
    ("missing", BOTH, |a| a.config("nowhere.toml"), TOLD, &["nowhere.toml: ", "No such file"]),
    ("a folder", BOTH, |a| a.config("pki"), TOLD, &["pki: ", "directory"]),
    ("a loop of links", BOTH, |a| looped(a, "loop"), TOLD, &["loop: ", "symbolic links"]),
    ("not TOML", BOTH, |a| a.config_of(format!("{CANARY}\n")), TOLD, &["spoiled.toml: line 1"]),
    (
        "a quote is missing",
        BOTH,
        |a| a.config_of(format!("profile = \"local\"\ndata_dir = \"{CANARY}\n")),
        TOLD,
        &["spoiled.toml: line 2"],
    ),
    ("a key twice", BOTH, |a| a.config_of("[tls]\n[tls]\n"), TOLD, &["spoiled.toml: line 2", "duplicate"]),
    ("not UTF-8", BOTH, |a| a.config_of(b"profile = \"\xff\"\n"), TOLD, &["spoiled.toml: ", "UTF-8"]),
    ("of 10 MiB", BOTH, |a| a.config_of(vec![b'\n'; 10 << 20]), TOLD, &["longer than 1048576 bytes"]),
    ("endless", BOTH, |a| a.config("/dev/zero"), TOLD, &["/dev/zero: longer than 1048576 bytes"]),
    (
        "deeply nested",
        BOTH,
        |a| a.config_of(format!("a = {}", "[".repeat(100_000))),
        TOLD,
        &["spoiled.toml: line 1"],
    ),
    (
        "closed to this user",
        BOTH,
        |a| a.unprivileged().mode("auth.toml", 0o000).mode("gateway.toml", 0o000),
        TOLD,
        &[".toml: ", "Permission denied"],
    ),
    (
        "an unknown key",
        BOTH,
        |a| appended(a, "[tls2]\ncert = \"x\"\n"),
        TOLD,
        &["tls2.cert (file): unknown key"],
    ),
    (
        "a list where text is due",
        BOTH,
        |a| replaced(a, "\"local\"", "[\"local\"]"),
        TOLD,
        &["profile (file): one of local, hardened"],
    ),
    (
        "a list of tables",
        BOTH,
        |a| replaced(a, "\"local\"", "[{a = 1}]"),
        TOLD,
        &["profile: a list of plain"],
    ),
];

const VALUES: &[Row] = &[
    (
        "an unknown flag key",
        BOTH,
        |a| a.set("tls.crt", "x"),
        TOLD,
        &["tls.crt (flag)", "did you mean tls.cert"],
    ),
    (
        "an unknown variable",
        AUTH,
        |a| a.env("INTERLOCK_AUTH_LEESE", CANARY),
        TOLD,
        &["INTERLOCK_AUTH_LEESE (environment): unknown key; did you mean INTERLOCK_AUTH_LEASE?"],
    ),
    (
        "an unknown variable",
        GATEWAY,
        |a| a.env("INTERLOCK_GATEWAY_STOER", CANARY),
        TOLD,
        &["INTERLOCK_GATEWAY_STOER (environment): unknown key; did you mean INTERLOCK_GATEWAY_STORE?"],
    ),
    (
        "a variable that is no text",
        AUTH,
        |a| a.env("INTERLOCK_AUTH_LEASE", OsString::from_vec(vec![0xff])),
        TOLD,
        &["INTERLOCK_AUTH_LEASE: must be UTF-8"],
    ),
    (
        "a span without unit",
        AUTH,
        |a| a.env("INTERLOCK_AUTH_LEASE", "3"),
        TOLD,
        &["lease (INTERLOCK_AUTH_LEASE): a duration like"],
    ),
    ("a lease of nothing", AUTH, |a| a.set("lease", "0s"), TOLD, &["lease (flag): ", "from 1s to 30s"]),
    ("a lease too long", AUTH, |a| a.set("lease", "31s"), TOLD, &["lease (flag): ", "from 1s to 30s"]),
    ("no hasher", AUTH, |a| a.set("hasher.threads", "0"), TOLD, &["hasher.threads (flag): ", "from 1 to 16"]),
    (
        "memory without end",
        AUTH,
        |a| a.set("argon2.m_kib", "4294967295"),
        TOLD,
        &["argon2.m_kib (flag): ", "from 8 to "],
    ),
    ("lanes without memory", AUTH, |a| a.set("argon2.p", "4"), TOLD, &["argon2.m_kib (file): at least 8"]),
    (
        "a session's time in words",
        AUTH,
        |a| a.env("INTERLOCK_OWNER_SESSION_TTL_SEC", "soon"),
        TOLD,
        &["INTERLOCK_OWNER_SESSION_TTL_SEC: a whole number of seconds"],
    ),
    ("a job's lease of nothing", GATEWAY, |a| a.set("lease_ttl", "0s"), TOLD, &["lease_ttl (flag): "]),
    ("a pause of a day", GATEWAY, |a| a.set("retry_backoff", "24h"), TOLD, &["retry_backoff (flag): "]),
    ("attempts below none", GATEWAY, |a| a.set("max_attempts", "-1"), TOLD, &["max_attempts (flag): "]),
    (
        "a date in words",
        GATEWAY,
        |a| a.set("sunset", "soon"),
        TOLD,
        &["sunset (flag): an instant of RFC 3339"],
    ),
    (
        "an unknown profile",
        BOTH,
        |a| a.set("profile", "harden"),
        TOLD,
        &["profile (flag): one of local, har"],
    ),
    ("a log filter that is none", BOTH, |a| a.set("log.filter", "a=b=c"), TOLD, &["log.filter (flag): "]),
    ("a service id that is none", BOTH, |a| a.set("allow", "gateway"), TOLD, &["allow (flag): ", "SPIFFE"]),
    ("a message of nothing", BOTH, |a| a.set("limits.message", "0"), TOLD, &["limits.message (flag): "]),
];

const ADDRESSES: &[Row] = &[
    (
        "a name",
        BOTH,
        |a| a.set("public.address", "localhost:7401"),
        TOLD,
        &["public.address (flag): an IP addr"],
    ),
    ("no port", BOTH, |a| a.set("public.address", "127.0.0.1"), TOLD, &["like 127.0.0.1:7443 or [::1]:7443"]),
    (
        "a port too high",
        BOTH,
        |a| a.set("public.address", "127.0.0.1:65536"),
        TOLD,
        &["public.address (flag)"],
    ),
    ("nothing", BOTH, |a| a.set("metrics.address", ""), TOLD, &["metrics.address (flag): an IP addr"]),
    (
        "everywhere, in local",
        BOTH,
        |a| a.set("public.address", "0.0.0.0:0"),
        TOLD,
        &["public.address (flag): a loopback address, or set profile to hardened"],
    ),
    (
        "everywhere, IPv6, in local",
        BOTH,
        |a| a.set("internal.address", "[::]:0"),
        TOLD,
        &["internal.address (flag): a loopback address, or set profile to hardened"],
    ),
    (
        "another machine's, in local",
        BOTH,
        |a| a.set("health.address", "192.0.2.1:7401"),
        TOLD,
        &["health.address (flag): a loopback address, or set profile to hardened"],
    ),
    (
        "metrics for everyone, in local",
        BOTH,
        |a| a.set("metrics.address", "0.0.0.0:0"),
        TOLD,
        &["metrics.address (flag): a loopback address, or set profile to hardened"],
    ),
];

const TOGETHER: &[Row] = &[
    (
        "two listeners at one address",
        BOTH,
        |a| a.set("public.address", "127.0.0.1:7401").set("metrics.address", "127.0.0.1:7401"),
        TOLD,
        &["metrics.address (flag): an address of its own, not that of public.address"],
    ),
    (
        "an access token that outlives its session",
        AUTH,
        |a| a.set("owner_session.ttl", "10m").set("owner_session.access_ttl", "11m"),
        TOLD,
        &["owner_session.access_ttl (flag): at most owner_session.ttl"],
    ),
    (
        "an internal listener without a token",
        AUTH,
        |a| a.set("internal_token_file", ""),
        TOLD,
        &["internal_token_file (flag): must be set where internal.address is"],
    ),
    (
        "revocations without an authority",
        AUTH,
        |a| a.config_of(LEAST).leave("internal.address").set("tls.client_crl", "pki/crl.pem"),
        TOLD,
        &["tls.client_crl (flag): needs tls.client_ca"],
    ),
    (
        "services of another trust domain",
        BOTH,
        |a| a.set("allow", "spiffe://elsewhere.test/gateway"),
        TOLD,
        &["allow (flag): SPIFFE ids of tls.trust_domain only"],
    ),
    ("fewer calls than one connection may have", BOTH, |a| a.set("limits.calls", "1"), TOLD, &["limits: "]),
    (
        "no auth",
        GATEWAY,
        |a| a.set("auth.endpoints", ""),
        TOLD,
        &["auth.endpoints (flag): must be set: https://host:port"],
    ),
    (
        // NC-01: only where all listeners are on loopback.
        "sessions for everybody, in hardened",
        GATEWAY,
        |a| a.hardened().set("allow_anonymous", "true"),
        TOLD,
        &["allow_anonymous (flag): false in profile hardened"],
    ),
    (
        "sessions for everybody, on all addresses",
        GATEWAY,
        |a| a.set("allow_anonymous", "true").set("public.address", "0.0.0.0:0"),
        TOLD,
        &["public.address (flag): a loopback address, or set profile to hardened"],
    ),
    (
        "services that work, by a list that is not there",
        GATEWAY,
        |a| a.set("service_workers_file", "workers.list"),
        TOLD,
        &["workers.list: cannot be read"],
    ),
    (
        "auth in plain text, in hardened",
        GATEWAY,
        |a| a.hardened().set("auth.endpoints", "http://127.0.0.1:7444"),
        TOLD,
        &["auth.endpoints (flag): https endpoints only, in profile hardened"],
    ),
    (
        "auth in plain text, far away",
        GATEWAY,
        |a| a.set("auth.endpoints", "http://192.0.2.1:7444"),
        TOLD,
        &["auth: ", "endpoint"],
    ),
    (
        "auth by another scheme",
        GATEWAY,
        |a| a.set("auth.endpoints", "ftp://a:1"),
        TOLD,
        &["auth: ", "endpoint"],
    ),
    ("auth nowhere", GATEWAY, |a| a.set("auth.endpoints", "https://"), TOLD, &["auth: ", "endpoint"]),
    (
        "auth by a name that is none",
        GATEWAY,
        |a| a.set("auth.server_name", "not a name"),
        TOLD,
        &["auth: ", "name"],
    ),
    (
        "auth without a token",
        GATEWAY,
        |a| a.config_of(LEAST_GATEWAY).leave("internal.address"),
        TOLD,
        &["internal_token_file: must be set: auth asks for it"],
    ),
];

/// What a service cannot be without. Flags give all listeners an address: these have none.
const LEAST: &str = "[tls]\ncert = \"pki/auth.pem\"\nkey = \"pki/auth.key\"\n";
const LEAST_GATEWAY: &str = "[tls]\ncert = \"pki/gateway.pem\"\nkey = \"pki/gateway.key\"\n\
    client_ca = \"pki/ca.pem\"\n[auth]\nendpoints = [\"https://127.0.0.1:7444\"]\n";

fn looped<'a>(a: &'a mut Attempt, name: &str) -> &'a mut Attempt {
    std::os::unix::fs::symlink(a.path(name), a.path(name)).expect("linked");
    a.config(name)
}

fn own_config(a: &Attempt) -> std::path::PathBuf {
    a.path(a.either("auth.toml", "gateway.toml"))
}

fn appended<'a>(a: &'a mut Attempt, text: &str) -> &'a mut Attempt {
    let path = own_config(a);
    a.change(&path, |contents| contents.extend_from_slice(text.as_bytes()))
}

fn replaced<'a>(a: &'a mut Attempt, old: &str, new: &str) -> &'a mut Attempt {
    let path = own_config(a);
    a.change(&path, |contents| {
        let text = String::from_utf8(contents.clone()).expect("text");
        assert!(text.contains(old), "{text}");
        *contents = text.replacen(old, new, 1).into_bytes();
    })
}

// UA-05, FN-17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_settings_are_refused_with_the_key_and_what_is_accepted() {
    let mut site = Site::at_rest().await;
    for table in [FILE, VALUES, ADDRESSES, TOGETHER] {
        all(&mut site, table);
    }
    site.everything_is_there().await;
}
