//! Every RPC of both services, called by everyone: who is refused, how, and who is let in.
//!
//! The tables below are the reviewed expectation. The tests walk the descriptor set, so a new RPC without a
//! row fails, and so does a row without an RPC.
//!
//! UA-01, UA-02, UA-03, UA-09, UA-14, UA-15, UA-31, UA-32, UA-49, UA-51, UA-52, UA-53, UA-54, SW-02, SW-03, SW-06, SW-11,
//! SW-12, SW-24, SW-25, SQ-02, SQ-18, SQ-19: `on_the_public_listeners`. UA-04, UA-11, UA-12, UA-17, UA-21, UA-22, UA-44, UA-45:
//! `on_the_internal_listeners`. UA-10: `apart`.

mod apart;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../../../service-kit/tests/store/cluster.rs"]
mod cluster;
mod fixture;

use std::collections::BTreeSet;

use fixture::{Cell, Stage, is_everybodys, served};
use interlock_proto::policy::Policies;
use interlock_tests::{Setup, pair::Peer, wire::Outcome};

/// A column: who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// No credential.
    None,
    /// What is no credential of ours.
    Garbage,
    /// A well-formed credential that nobody ever issued.
    Unknown,
    /// The role token `user`.
    User,
    /// Another owner, signed in.
    Stranger,
    /// A session-root owner, signed in, who has not unlocked root.
    Root,
    /// The role token `admin`.
    Admin,
    /// The host's cookie of the session, and nothing else.
    Cookie,
    /// The owner of session, job and agent, signed in.
    Owner,
    /// The owner, who names another project of hers in the call.
    Named,
}

const WHO: [Who; 10] = [
    Who::None,
    Who::Garbage,
    Who::Unknown,
    Who::User,
    Who::Stranger,
    Who::Root,
    Who::Admin,
    Who::Cookie,
    Who::Owner,
    Who::Named,
];

type Row = (&'static str, [&'static str; 10]);

const OK: &str = "OK";
/// UNAUTHENTICATED `PROVIDER_AUTH_FAILED`, `login required`: missing, malformed, unknown.
const LOGIN: &str = "PROVIDER_AUTH_FAILED";
/// UNAUTHENTICATED: of a password or a refresh token.
const WRONG: &str = "INVALID_CREDENTIALS";
/// UNAUTHENTICATED: another kind of credential than an owner session.
const KIND: &str = "LOGIN_REQUIRED";
/// PERMISSION_DENIED.
const FORB: &str = "FORBIDDEN";
/// PERMISSION_DENIED: another owner's, or none.
const OWNER: &str = "OWNER_MISMATCH";
/// PERMISSION_DENIED: the project that the call names is not the resource's.
const LOCK: &str = "PROJECT_MISMATCH";
/// PERMISSION_DENIED: root is not unlocked.
const ROOT: &str = "ROOT_REQUIRED";
/// UNIMPLEMENTED: not on this listener.
const NOT: &str = "UNIMPLEMENTED";

/// The public listeners. Health, reflection and the audit log are served by both; there `auth` or `gateway` stands before.
#[rustfmt::skip]
const PUBLIC: &[Row] = &[
    //                                                                     none   garb.  unkn.  user   strang root   admin  cookie owner  named
    ("/interlock.auth.v1.ElevationService/GetStatus",                     [OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK]),
    ("/interlock.auth.v1.ElevationService/Lock",                          [LOGIN, LOGIN, LOGIN, KIND,  OK,    OK,    KIND,  LOGIN, OK,    OK]),
    ("/interlock.auth.v1.ElevationService/Unlock",                        [LOGIN, LOGIN, LOGIN, KIND,  OK,    OK,    KIND,  LOGIN, OK,    OK]),
    ("/interlock.auth.v1.IdentityService/WhoAmI",                         [LOGIN, LOGIN, LOGIN, OK,    OK,    OK,    OK,    LOGIN, OK,    OK]),
    ("/interlock.auth.v1.OwnerService/ChangePassword",                    [LOGIN, LOGIN, LOGIN, KIND,  OK,    OK,    KIND,  LOGIN, OK,    OK]),
    ("/interlock.auth.v1.OwnerService/GetOwner",                          [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, FORB,  FORB]),
    ("/interlock.auth.v1.OwnerService/ImportOwner",                       [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, FORB,  FORB]),
    ("/interlock.auth.v1.OwnerService/ListOwners",                        [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, FORB,  FORB]),
    ("/interlock.auth.v1.OwnerService/RemoveOwner",                       [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, FORB,  FORB]),
    ("/interlock.auth.v1.OwnerService/SetOwner",                          [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, FORB,  FORB]),
    ("/interlock.auth.v1.OwnerSessionService/GetStatus",                  [OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK]),
    ("/interlock.auth.v1.OwnerSessionService/ListOwnerSessions",          [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, OK,    OK]),
    ("/interlock.auth.v1.OwnerSessionService/Login",                      [OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK]),
    ("/interlock.auth.v1.OwnerSessionService/Logout",                     [LOGIN, LOGIN, OK,    KIND,  OK,    OK,    KIND,  LOGIN, OK,    OK]),
    ("/interlock.auth.v1.OwnerSessionService/Refresh",                    [WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, OK,    OK]),
    ("/interlock.auth.v1.OwnerSessionService/RevokeOwnerSessions",        [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, OK,    OK]),
    ("/interlock.auth.v1.ProjectService/AddMember",                       [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, OK,    LOCK]),
    ("/interlock.auth.v1.ProjectService/CreateProject",                   [LOGIN, LOGIN, LOGIN, OK,    OK,    OK,    OK,    LOGIN, OK,    OK]),
    ("/interlock.auth.v1.ProjectService/IssueToken",                      [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, OK,    LOCK]),
    ("/interlock.auth.v1.ProjectService/ListProjects",                    [LOGIN, LOGIN, LOGIN, OK,    OK,    OK,    OK,    LOGIN, OK,    OK]),
    ("/interlock.auth.v1.ProjectService/ListTokens",                      [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, OK,    LOCK]),
    ("/interlock.auth.v1.ProjectService/RemoveMember",                    [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, OK,    LOCK]),
    ("/interlock.auth.v1.ProjectService/RevokeToken",                     [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, OK,    LOCK]),
    ("/interlock.auth.v1.ProjectService/RotateToken",                     [LOGIN, LOGIN, LOGIN, FORB,  FORB,  FORB,  FORB,  LOGIN, OK,    LOCK]),
    ("/interlock.auth.v1.RoleTokenService/AbortRotation",                 [LOGIN, LOGIN, LOGIN, FORB,  FORB,  ROOT,  OK,    LOGIN, FORB,  FORB]),
    ("/interlock.auth.v1.RoleTokenService/BeginRotation",                 [LOGIN, LOGIN, LOGIN, FORB,  FORB,  ROOT,  OK,    LOGIN, FORB,  FORB]),
    ("/interlock.auth.v1.RoleTokenService/CommitRotation",                [LOGIN, LOGIN, LOGIN, FORB,  FORB,  ROOT,  OK,    LOGIN, FORB,  FORB]),
    ("/interlock.auth.v1.RoleTokenService/GetStatus",                     [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, FORB,  FORB]),
    ("/interlock.auth.v1.RoleTokenService/Rotate",                        [LOGIN, LOGIN, LOGIN, FORB,  FORB,  ROOT,  OK,    LOGIN, FORB,  FORB]),
    ("/interlock.auth.v1.TrustService/CheckMembership",                   [NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT]),
    ("/interlock.auth.v1.TrustService/DescribeOwner",                     [NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT]),
    ("/interlock.auth.v1.TrustService/HoldLease",                         [NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT]),
    ("/interlock.auth.v1.TrustService/Validate",                          [NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT,   NOT]),
    ("/interlock.gateway.v1.AgentService/GetAgent",                       [LOGIN, LOGIN, LOGIN, FORB,  FORB,  FORB,  OK,    FORB,  OK,    OK]),
    ("/interlock.gateway.v1.AgentService/ListAgents",                     [LOGIN, LOGIN, LOGIN, OK,    OK,    OK,    OK,    FORB,  OK,    OK]),
    ("/interlock.gateway.v1.AgentService/RemoveAgent",                    [LOGIN, LOGIN, LOGIN, FORB,  FORB,  FORB,  OK,    FORB,  OK,    OK]),
    ("/interlock.gateway.v1.AgentService/SetAgent",                       [LOGIN, LOGIN, LOGIN, FORB,  FORB,  FORB,  OK,    FORB,  OK,    OK]),
    ("/interlock.gateway.v1.FileService/DeleteFile",                      [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.FileService/GetFile",                         [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.FileService/ListFiles",                       [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.FileService/PutFile",                         [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.JobService/CancelJob",                        [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.JobService/ForceFailJob",                   [LOGIN, LOGIN, LOGIN, FORB,  FORB,  ROOT,  OK,    FORB,  FORB,  FORB]),
    ("/interlock.gateway.v1.JobService/GetJob",                           [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.JobService/ListJobs",                         [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.JobService/SubmitJob",                        [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.JobService/WaitJob",                          [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.SessionService/Ack",                          [LOGIN, LOGIN, LOGIN, FORB,  FORB,  FORB,  FORB,  OK,    FORB,  FORB]),
    ("/interlock.gateway.v1.SessionService/AdoptSession",                 [LOGIN, LOGIN, LOGIN, FORB,  FORB,  ROOT,  OK,    FORB,  FORB,  FORB]),
    ("/interlock.gateway.v1.SessionService/AttachSession",                [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.SessionService/CloseSession",                 [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.SessionService/CreateSession",                [LOGIN, LOGIN, LOGIN, OK,    OK,    OK,    OK,    FORB,  OK,    OK]),
    ("/interlock.gateway.v1.SessionService/EvictClient",                  [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.SessionService/GetSession",                   [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.SessionService/JoinSession",                  [OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK]),
    ("/interlock.gateway.v1.SessionService/ListClients",                  [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.SessionService/ListSessions",                 [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    FORB,  OK,    OK]),
    ("/interlock.gateway.v1.SessionService/PostMessage",                  [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.SessionService/Quit",                         [LOGIN, LOGIN, LOGIN, FORB,  FORB,  FORB,  FORB,  OK,    FORB,  FORB]),
    ("/interlock.gateway.v1.SessionService/RenewStream",                  [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OWNER, OWNER, OK,    OK]),
    ("/interlock.gateway.v1.SessionService/SetSessionPassword",           [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.SessionService/StreamEvents",                 [LOGIN, LOGIN, LOGIN, OWNER, OWNER, OWNER, OK,    OK,    OK,    LOCK]),
    ("/interlock.gateway.v1.WorkerService/Work",                          [LOGIN, LOGIN, LOGIN, FORB,  FORB,  FORB,  OK,    FORB,  OK,    OK]),
    ("auth/interlock.audit.v1.AuditService/List",                         [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, FORB,  FORB]),
    ("auth/interlock.audit.v1.AuditService/Tail",                         [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, FORB,  FORB]),
    ("auth/interlock.audit.v1.AuditService/Verify",                       [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    LOGIN, FORB,  FORB]),
    ("gateway/interlock.audit.v1.AuditService/List",                      [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    FORB,  FORB,  FORB]),
    ("gateway/interlock.audit.v1.AuditService/Tail",                      [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    FORB,  FORB,  FORB]),
    ("gateway/interlock.audit.v1.AuditService/Verify",                    [LOGIN, LOGIN, LOGIN, FORB,  FORB,  OK,    OK,    FORB,  FORB,  FORB]),
    ("auth/grpc.health.v1.Health/Check",                                  [OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK]),
    ("auth/grpc.health.v1.Health/List",                                   [BARE,  BARE,  BARE,  BARE,  BARE,  BARE,  BARE,  BARE,  BARE,  BARE]),
    ("auth/grpc.health.v1.Health/Watch",                                  [OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK]),
    ("auth/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",     [LOGIN, LOGIN, LOGIN, OK,    OK,    OK,    OK,    LOGIN, OK,    OK]),
    ("auth/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", [LOGIN, LOGIN, LOGIN, OK,    OK,    OK,    OK,    LOGIN, OK,    OK]),
    ("gateway/grpc.health.v1.Health/Check",                               [OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK]),
    ("gateway/grpc.health.v1.Health/List",                                [BARE,  BARE,  BARE,  BARE,  BARE,  BARE,  BARE,  BARE,  BARE,  BARE]),
    ("gateway/grpc.health.v1.Health/Watch",                               [OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK,    OK]),
    ("gateway/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",  [LOGIN, LOGIN, LOGIN, OK,    OK,    OK,    OK,    FORB,  OK,    OK]),
    ("gateway/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", [LOGIN, LOGIN, LOGIN, OK,    OK,    OK,    OK,    FORB,  OK,    OK]),
];
/// A method that the library has in its descriptor and does not serve.
const BARE: &str = "UNIMPLEMENTED";

/// The code that a reason travels under.
fn code_of(short: &str) -> &str {
    match short {
        LOGIN | WRONG | KIND | TOKEN => "UNAUTHENTICATED",
        FORB | OWNER | LOCK | ROOT => "PERMISSION_DENIED",
        WHOM => "INVALID_ARGUMENT",
        bare => bare,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_public_listeners() {
    let stage = Stage::make().await;
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (service, policy) in served() {
        let key = key(service, &policy.path);
        seen.insert(key.clone());
        let Some((_, expected)) = PUBLIC.iter().find(|(name, _)| *name == key) else {
            wrong.push(format!("{key}: no row; decide who may call it, and add one"));
            continue;
        };
        let mut answers = Vec::new();
        for (who, expected) in WHO.into_iter().zip(expected) {
            let outcome = stage.call(&Cell { service, policy, who }).await;
            if outcome.short() != *expected || outcome.code != code_of(expected) {
                wrong.push(format!(
                    "{key}: {who:?}: expected {} {expected}, got {outcome}",
                    code_of(expected)
                ));
            }
            answers.push(outcome);
        }
        // SW-12: missing, malformed and unknown cannot be told apart. Signing out again is no error, so there
        // it is the ended and the unknown credential that cannot.
        let signs_out = key.ends_with("/Logout");
        if answers[1] != answers[0] || (answers[2] != answers[0] && !signs_out) {
            wrong.push(format!("{key}: an oracle: {:?}", &answers[..3]));
        }
        if answers[0].reason == LOGIN && answers[0].message != "login required" {
            wrong.push(format!("{key}: UA-07 message: {}", answers[0]));
        }
    }
    wrong.extend(
        PUBLIC
            .iter()
            .filter(|(name, _)| !seen.contains(*name))
            .map(|(name, _)| format!("{name}: no such RPC")),
    );
    assert!(wrong.is_empty(), "{} answers are not those of the table:\n{}", wrong.len(), wrong.join("\n"));
    // I11: all of it is in whole audit chains.
    let rows = stage.end().await;
    println!(
        "{} methods x {} callers = {} answers as in the table; {rows} audit rows in whole chains",
        seen.len(),
        WHO.len(),
        seen.len() * WHO.len()
    );
}

/// With `allow_anonymous` one method lets in who shows no credential, and no other; and what is no good credential is
/// not none. (NC-01)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_sessions_are_for_everybody() {
    let stage = Stage::make_with(Setup::default().gateway("allow_anonymous", "true")).await;
    let mut wrong = Vec::new();
    for (service, policy) in served().into_iter().filter(|(service, _)| *service == "gateway") {
        let key = key(service, &policy.path);
        let row = PUBLIC.iter().find(|(name, _)| *name == key);
        let Some((_, [none, garbage, unknown, ..])) = row else { continue };
        let makes = policy.path.ends_with("/CreateSession");
        // For the others it is shown above what these get.
        let who = if makes { &WHO[..3] } else { &WHO[..1] };
        for (who, expected) in who.iter().zip([if makes { OK } else { *none }, *garbage, *unknown]) {
            let outcome = stage.call(&Cell { service, policy, who: *who }).await;
            if outcome.short() != expected || outcome.code != code_of(expected) {
                wrong.push(format!("{key}: {who:?}: expected {expected}, got {outcome}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    stage.end().await;
}

/// UNAUTHENTICATED: the internal token.
const TOKEN: &str = "INTERNAL_TOKEN_REQUIRED";
/// INVALID_ARGUMENT: no end principal is named.
const WHOM: &str = "IDENTITY_REQUIRED";

/// What the peer of an internal listener shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// Its certificate.
    pub(crate) peer: Peer,
    /// Whether the internal token comes along, a wrong one, or none.
    pub(crate) token: Option<bool>,
    /// Whether the owner's credential is forwarded.
    pub(crate) forwarded: bool,
}

/// Not one call gets through: TLS ends the connection, or the gate refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_internal_listeners() {
    let stage = Stage::make().await;
    let proof = |peer, token, forwarded| Proof { peer, token, forwarded };
    let mut wrong = Vec::new();
    let mut asked = 0;
    for (service, policy) in served() {
        let internal = policy.listeners.contains(&interlock_proto::options::v1::Listener::Internal);
        let past_the_gate = match (internal, policy.path.as_str()) {
            (false, _) => NOT,
            (true, path) if path.contains("/interlock.gateway.") => WHOM,
            (true, path) if path.contains("ServerReflection") && service == "gateway" => WHOM,
            // Auth answers services for themselves: reflection is for people.
            (true, path) if path.contains("ServerReflection") => LOGIN,
            (true, path) if path.ends_with("Health/List") => BARE,
            (true, _) => "anything but a refusal to let it in",
        };
        let refused = |by_the_gate| if internal { by_the_gate } else { NOT };
        let expectations = [
            (proof(Peer::Nobody, None, false), "no connection"),
            (proof(Peer::Nobody, Some(true), true), "no connection"),
            (proof(Peer::Foreign, Some(true), true), "no connection"),
            (proof(Peer::Unlisted, Some(true), true), refused(FORB)),
            (proof(Peer::Listed, None, true), refused(TOKEN)),
            (proof(Peer::Listed, Some(false), true), refused(TOKEN)),
            (proof(Peer::Listed, Some(true), false), past_the_gate),
        ];
        for (proof, expected) in expectations {
            asked += 1;
            let outcome = stage.call_internal(service, policy, proof).await;
            if !fits(&outcome, expected) {
                wrong.push(format!(
                    "{}: {proof:?}: expected {expected}, got {outcome}",
                    key(service, &policy.path)
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {asked} answers are not as expected:\n{}",
        wrong.len(),
        wrong.join("\n")
    );

    // UA-17, UA-45: both factors, and somebody named: in.
    let both = proof(Peer::Listed, Some(true), true);
    for path in ["SessionService/ListSessions", "SessionService/StreamEvents", "JobService/SubmitJob"] {
        let policy = Policies::all().of(&format!("/interlock.gateway.v1.{path}")).expect("ours");
        assert_eq!(stage.call_internal("gateway", policy, both).await, Outcome::ok(), "{path}");
    }
    println!("{asked} calls with one factor, none, or nobody named: none got through");
}

fn fits(outcome: &Outcome, expected: &str) -> bool {
    match expected {
        // TLS said no: no server of ours has answered.
        "no connection" => {
            let broken = matches!(outcome.code.as_str(), "UNAVAILABLE" | "UNKNOWN" | "CANCELLED");
            outcome.reason.is_empty() && broken
        }
        "anything but a refusal to let it in" => {
            !matches!(outcome.short(), TOKEN | FORB | LOGIN | NOT) && outcome.code != "UNAVAILABLE"
        }
        reason => outcome.short() == reason && outcome.code == code_of(reason),
    }
}

/// Ours by their path; what both serve, by the service too.
fn key(service: &str, path: &str) -> String {
    if is_everybodys(path) { format!("{service}{path}") } else { path.to_owned() }
}
