//! The policy of every RPC as one page, `policy.snap`, reviewed like code: who may do what stands there, and
//! a change of it shows in a review.
//!
//! UA-49: every RPC is on it. SW-06: the method and role matrix in one table. NC-03: there is no registration.

use std::{fmt::Write as _, path::Path};

use interlock_proto::{
    options::v1::{Caller, Elevation, Listener, Role},
    policy::{MethodPolicy, Policies, descriptors},
};

const HEADER: &str = "\
# Who may do what. Written by the test `policy_matrix`; INTERLOCK_UPDATE_SNAP=1 writes it again.
#
# on         p public, i internal, h health
# who        any; role (role tokens), owner (owner sessions), project (project tokens), client (cookies), service,
#            anon (no credential, where that is configured)
# least      the least role; a session-root owner is an administrator
# root       the root condition: always, or where the target is guarded
# flags      S streams to the server, s streams back, P parks, I idempotent, R reads
";

#[test]
fn the_page_is_what_the_protos_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy.snap");
    let page = page();
    if std::env::var_os("INTERLOCK_UPDATE_SNAP").is_some_and(|v| v == "1") {
        std::fs::write(&path, &page).expect("written");
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    let differ = |a: &str, b: &str| -> String {
        let other: Vec<_> = b.lines().collect();
        a.lines().filter(|line| !other.contains(line)).fold(String::new(), |all, line| all + "\n    " + line)
    };
    assert!(
        page == reviewed,
        "tests/tests/policy.snap is not what the protos say.\n  gone or changed:{}\n  new or changed:{}\n\
         Where the change is meant: INTERLOCK_UPDATE_SNAP=1 cargo nextest run -p interlock-tests the_page, and \
         review the difference.",
        differ(&reviewed, &page),
        differ(&page, &reviewed),
    );
}

// NC-03
#[test]
fn nobody_registers_by_an_rpc() {
    let methods = descriptors().services().flat_map(|s| s.methods().collect::<Vec<_>>());
    let names = methods.map(|m| m.full_name().to_lowercase());
    let suspects: Vec<_> =
        names.filter(|n| ["register", "signup", "enroll"].iter().any(|w| n.contains(w))).collect();
    assert_eq!(suspects, Vec::<String>::new());
}

fn page() -> String {
    let mut page = HEADER.to_owned();
    let mut service = "";
    for policy in Policies::all().iter() {
        let (of, method) = policy.path[1..].split_once('/').expect("a path of gRPC");
        if of != service {
            service = of;
            write!(page, "\n{service}\n").expect("a String takes all");
            let titles = ["method", "on", "who", "least", "root", "scope", "flags"];
            line(&mut page, titles.map(str::to_owned), "audit");
        }
        line(&mut page, columns(method, policy), &policy.audit);
    }
    page
}

fn line(page: &mut String, [method, on, who, least, root, scope, flags]: [String; 7], audit: &str) {
    let text =
        format!("  {method:<20} {on:<4} {who:<33} {least:<6} {root:<8} {scope:<15} {flags:<6} {audit}");
    writeln!(page, "{}", text.trim_end()).expect("a String takes all");
}

fn columns(method: &str, policy: &MethodPolicy) -> [String; 7] {
    let on = policy.listeners.iter().map(|listener| match listener {
        Listener::Public => 'p',
        Listener::Internal => 'i',
        Listener::Health => 'h',
        Listener::Unspecified => '?',
    });
    let who: Vec<_> = policy.who.iter().map(|caller| who(*caller)).collect();
    let least = match policy.role {
        Role::Unspecified => "-",
        Role::User => "user",
        Role::Admin => "admin",
    };
    let root = match policy.elevation {
        Elevation::Unspecified => "-",
        Elevation::WhereGuarded => "guarded",
        Elevation::Required => "always",
    };
    let scope = if policy.scopes.is_empty() { "-".to_owned() } else { policy.scopes.join(" | ") };
    let flags = [
        (policy.client_streaming, 'S'),
        (policy.server_streaming, 's'),
        (policy.parks, 'P'),
        (policy.idempotent, 'I'),
        (policy.reads, 'R'),
    ];
    let flags: String = flags.iter().map(|(set, letter)| if *set { *letter } else { '-' }).collect();
    [method.to_owned(), on.collect(), who.join(" "), least.to_owned(), root.to_owned(), scope, flags]
}

fn who(caller: Caller) -> &'static str {
    match caller {
        Caller::Unspecified => "?",
        Caller::Anyone => "any",
        Caller::RoleToken => "role",
        Caller::OwnerSession => "owner",
        Caller::ProjectToken => "project",
        Caller::Client => "client",
        Caller::Service => "service",
        Caller::Anonymous => "anon",
    }
}
