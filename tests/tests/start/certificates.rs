//! Certificates, keys and authorities that do not fit.

use std::time::Duration;

use interlock_kit::{
    clock::Clock,
    pki::{Leaf, Pki},
};
use interlock_tests::start::Attempt;

use super::{BOTH, GATEWAY, Row, TOLD, all, site::Site};

const HOUR: Duration = Duration::from_secs(3_600);

const FILES: &[Row] = &[
    ("no certificate", BOTH, |a| a.remove(cert(a)), TOLD, &["certificate ", ".pem: cannot be read: No such"]),
    (
        "an empty certificate",
        BOTH,
        |a| a.write(cert(a), ""),
        TOLD,
        &["certificate ", ".pem: holds no certificate"],
    ),
    ("text for a certificate", BOTH, |a| a.write(cert(a), "hunter2"), TOLD, &["holds no certificate"]),
    ("garbage for a certificate", BOTH, |a| a.write(cert(a), [0xff; 512]), TOLD, &["certificate "]),
    ("a certificate cut off", BOTH, |a| half(a, cert), TOLD, &["certificate ", ".pem: "]),
    ("a certificate of garbage in PEM", BOTH, |a| a.write(cert(a), PEM), TOLD, &["certificate ", ".pem: "]),
    (
        "a folder for a certificate",
        BOTH,
        |a| a.folder_at(cert(a)),
        TOLD,
        &[".pem: cannot be read: not a reg"],
    ),
    ("no key", BOTH, |a| a.remove(key(a)), TOLD, &["private key ", ".key: cannot be read: No such"]),
    ("an empty key", BOTH, |a| a.write(key(a), ""), TOLD, &["private key ", ".key: "]),
    ("garbage for a key", BOTH, |a| a.write(key(a), [0xff; 64]), TOLD, &["private key ", ".key: "]),
    ("a certificate for a key", BOTH, |a| swapped(a, cert, key), TOLD, &["private key ", ".key: "]),
    (
        "another's key",
        BOTH,
        |a| swapped(a, |_| "pki/tester.key", key),
        TOLD,
        &["private key ", ".key: does not fit ", ".pem"],
    ),
    ("no authority", BOTH, |a| a.remove("pki/ca.pem"), TOLD, &["ca.pem: ", "No such file"]),
    ("an empty authority", BOTH, |a| a.write("pki/ca.pem", ""), TOLD, &["ca.pem", "holds no certificate"]),
    (
        "a key for an authority",
        BOTH,
        |a| swapped(a, key, |_| "pki/ca.pem"),
        TOLD,
        &["ca.pem", "holds no certificate"],
    ),
    (
        "revocations that are none",
        BOTH,
        |a| a.write("crl.pem", "").set_path("tls.client_crl", "crl.pem"),
        TOLD,
        &["client CRL ", "crl.pem: holds no revocation list"],
    ),
    (
        "no revocations",
        BOTH,
        |a| a.set_path("tls.client_crl", "crl.pem"),
        TOLD,
        &["client CRL ", "crl.pem: cannot be read"],
    ),
];

const LEAVES: &[Row] = &[
    (
        "an expired certificate",
        BOTH,
        |a| issued(a, "pki", Until::Past),
        TOLD,
        &["certificate ", "expired at", "issue a new one"],
    ),
    ("a certificate of tomorrow", BOTH, |a| issued(a, "pki", Until::Future), TOLD, &["not valid before"]),
    (
        "a certificate of another trust domain",
        BOTH,
        |a| issued(a, "elsewhere", Until::Now),
        TOLD,
        &["of spiffe://elsewhere.test/", "tls.trust_domain is interlock.test"],
    ),
];

/// What the gateway shows auth, where that is another certificate than its listeners'.
const SHOWN: &[Row] = &[
    ("no authority of auth's", GATEWAY, |a| a.set_path("auth.ca", "none.pem"), TOLD, &["auth: ", "none.pem"]),
    (
        "an authority of auth's that is none",
        GATEWAY,
        |a| a.set_path("auth.ca", "internal.token"),
        TOLD,
        &["auth: ", "internal.token holds no certificate"],
    ),
    (
        "a certificate without its key",
        GATEWAY,
        |a| a.set_path("auth.cert", "pki/tester.pem"),
        TOLD,
        &["auth: ", "tester.pem", "gateway.key"],
    ),
    (
        "a certificate that names no service",
        GATEWAY,
        |a| a.set_path("auth.cert", "pki/ca.pem").set_path("auth.key", "pki/ca.key"),
        TOLD,
        &["certificate ", "ca.pem: ", "SPIFFE"],
    ),
    (
        "an expired one",
        GATEWAY,
        |a| {
            issue(a, "pki", "link", Until::Past);
            a.set_path("auth.cert", "pki/link.pem").set_path("auth.key", "pki/link.key")
        },
        TOLD,
        &["certificate ", "link.pem: expired at"],
    ),
];

/// In the form of a certificate, and none.
const PEM: &str = "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n";

/// Which file: each service has its own.
type Name = fn(&Attempt) -> &'static str;

#[derive(Clone, Copy)]
enum Until {
    Past,
    Now,
    Future,
}

fn cert(a: &Attempt) -> &'static str {
    if a.name() == "interlock-auth" { "pki/auth.pem" } else { "pki/gateway.pem" }
}

fn key(a: &Attempt) -> &'static str {
    if a.name() == "interlock-auth" { "pki/auth.key" } else { "pki/gateway.key" }
}

fn half(a: &mut Attempt, name: Name) -> &mut Attempt {
    let path = a.path(name(a));
    a.change(&path, |contents| contents.truncate(contents.len() / 2))
}

/// The contents of one file in another's place.
fn swapped(a: &mut Attempt, from: Name, to: Name) -> &mut Attempt {
    let (from, to) = (from(a), to(a));
    let contents = std::fs::read(a.path(from)).expect("read");
    a.write(to, contents)
}

/// A new certificate in place of the service's own.
fn issued<'a>(a: &'a mut Attempt, folder: &str, until: Until) -> &'a mut Attempt {
    let name = a.either("auth", "gateway").to_owned();
    issue(a, folder, &name, until);
    let [cert, key] = ["pem", "key"].map(|ending| format!("{folder}/{name}.{ending}"));
    a.set_path("tls.cert", &cert).set_path("tls.key", &key)
}

fn issue(a: &Attempt, folder: &str, name: &str, until: Until) {
    let now = Clock::system().now();
    let at = a.path(folder);
    let pki = match Pki::load(&at) {
        Ok(pki) => pki,
        Err(_) => Pki::create(&at, "elsewhere.test".parse().expect("a domain"), now).expect("made"),
    };
    let not_before = match until {
        Until::Past => now.before(HOUR * 2),
        Until::Now => now.before(HOUR),
        Until::Future => now.after(HOUR * 24),
    };
    let validity = if matches!(until, Until::Past) { HOUR } else { HOUR * 48 };
    pki.issue(&Leaf { not_before, validity, ..Leaf::new(name, now) }).expect("issued");
}

// UA-05
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_do_not_fit_are_refused_with_the_file() {
    let mut site = Site::at_rest().await;
    for table in [FILES, LEAVES, SHOWN] {
        all(&mut site, table);
    }
    site.everything_is_there().await;
}
