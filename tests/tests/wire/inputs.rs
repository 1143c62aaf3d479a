//! The table of inputs: what is sent to which method of both services, and the answer that is written.

use interlock_proto::credential::Credential;
use interlock_tests::{Pair, Setup, audit};

use crate::{
    honest::{Honest, public},
    raw::{self, Ask, Raw, frame, prefixed},
};

/// The answer that is ours.
#[derive(Clone, Copy, Debug)]
enum Gets {
    /// Code, reason, and how the message begins.
    Status(&'static str, &'static str, &'static str),
    /// No gRPC.
    Http(u16),
}
use Gets::{Http, Status};

const MALFORMED: Gets = Status("INTERNAL", "INTERNAL", "malformed request");
const TOO_LARGE: Gets = Status("RESOURCE_EXHAUSTED", "LIMIT_REACHED", "message too large");
const NO_METHOD: Gets = Status("UNIMPLEMENTED", "UNIMPLEMENTED", "no such method");
const NOT_SUPPORTED: Gets = Status("UNIMPLEMENTED", "UNIMPLEMENTED", "not supported here");
const NO_TIMEOUT: Gets = Status("INVALID_ARGUMENT", "INVALID_FIELD", "grpc-timeout");
const NOBODY: Gets = Status("UNAUTHENTICATED", "PROVIDER_AUTH_FAILED", "login required");

/// A service with an ordinary method whose first field is a text, and what a method of the other one is called.
struct Target {
    service: &'static str,
    folder: &'static str,
    method: &'static str,
    others: &'static str,
    /// The largest message, bytes.
    message_bytes: u32,
}

const TARGETS: [Target; 2] = [
    Target {
        service: "auth",
        folder: "/interlock.auth.v1.ProjectService",
        method: "CreateProject",
        others: "/interlock.gateway.v1.SessionService/GetSession",
        message_bytes: 64 << 10,
    },
    Target {
        service: "gateway",
        folder: "/interlock.gateway.v1.SessionService",
        method: "GetSession",
        others: "/interlock.auth.v1.ProjectService/CreateProject",
        message_bytes: 1 << 20,
    },
];

impl Target {
    fn path(&self) -> String {
        format!("{}/{}", self.folder, self.method)
    }

    fn store(&self) -> String {
        format!("{0}/{0}.db", self.service)
    }

    /// The rows of the table whose answers are ours.
    fn table(&self, user: &Credential) -> Vec<(&'static str, Ask, Gets)> {
        let call = || Ask::of(&self.path()).bearer(user);
        let at = |path: &str| call().but(":path", path).message(&[]);
        let lower = format!("{}/{}", self.folder, self.method.to_lowercase());
        let over = [&[0][..], &(self.message_bytes + 1).to_be_bytes()].concat();
        vec![
            ("an unknown service", at("/nope.v1.Nope/Nope"), NO_METHOD),
            ("an unknown method", at(&format!("{}/Nope", self.folder)), NO_METHOD),
            ("another case of letters", at(&lower), NO_METHOD),
            ("a slash more", at(&format!("{}//{}", self.folder, self.method)), NO_METHOD),
            ("a slash at the end", at(&format!("{}/", self.path())), NO_METHOD),
            ("dots in the path", at(&format!("/x/..{}", self.path())), NO_METHOD),
            ("an escape in the path", at(&self.path().replace('.', "%2E")), NO_METHOD),
            ("a method of the other service", at(self.others), NOT_SUPPORTED),
            ("no path but the root", at("/"), NO_METHOD),
            ("invalid UTF-8", call().message(&[0x0a, 1, 0xff]), MALFORMED),
            ("a truncated field", call().message(&[0x0a, 0x7f]), MALFORMED),
            ("tag 0", call().message(&[0, 0]), MALFORMED),
            ("a wire type that is none", call().message(&[0x0f]), MALFORMED),
            ("another type than the field's", call().message(&[0x08, 1]), MALFORMED),
            ("a number of eleven bytes", call().message(&[[0xff; 10].as_slice(), &[1]].concat()), MALFORMED),
            ("a group that never ends", call().message(&[0x7b]), MALFORMED),
            ("a truncated message", call().body(&[0, 0, 0, 0, 9, 0x0a]), MALFORMED),
            ("half a length prefix", call().body(&[0, 0, 0]), MALFORMED),
            ("an empty body", call(), MALFORMED),
            ("a length prefix of 4 GiB - 1", call().body(&[0, 0xff, 0xff, 0xff, 0xff]), TOO_LARGE),
            ("an oversize message", call().body(&over), TOO_LARGE),
            ("the compressed flag", call().body(&[1, 0, 0, 0, 0]), MALFORMED),
            ("a flag that is none", call().body(&[2, 0, 0, 0, 0]), MALFORMED),
            ("grpc-encoding gzip", call().with("grpc-encoding", "gzip").message(&[]), NOT_SUPPORTED),
            (
                "grpc-encoding zstd",
                call().with("grpc-encoding", "zstd").body(&[1, 0, 0, 0, 0]),
                NOT_SUPPORTED,
            ),
            ("grpc-encoding nobody's", call().with("grpc-encoding", "x").message(&[]), NOT_SUPPORTED),
            ("GET", call().but(":method", "GET"), Http(405)),
            ("PUT", call().but(":method", "PUT").message(&[]), Http(405)),
            ("OPTIONS", call().but(":method", "OPTIONS"), Http(405)),
            ("no content-type", call().without("content-type").message(&[]), Http(415)),
            ("JSON", call().but("content-type", "application/json").message(&[]), Http(415)),
            ("gRPC-Web", call().but("content-type", "application/grpc-web").message(&[]), Http(415)),
            ("two content-types", call().with("content-type", "application/grpc").message(&[]), Http(415)),
            ("grpc-timeout soon", call().with("grpc-timeout", "soon").message(&[]), NO_TIMEOUT),
            ("grpc-timeout without a unit", call().with("grpc-timeout", "1").message(&[]), NO_TIMEOUT),
            ("a negative grpc-timeout", call().with("grpc-timeout", "-1S").message(&[]), NO_TIMEOUT),
            (
                "a grpc-timeout of nine digits",
                call().with("grpc-timeout", "999999999S").message(&[]),
                NO_TIMEOUT,
            ),
            ("an empty grpc-timeout", call().with("grpc-timeout", "").message(&[]), NO_TIMEOUT),
            (
                "two grpc-timeouts",
                call().with("grpc-timeout", "1S").with("grpc-timeout", "1S").message(&[]),
                NO_TIMEOUT,
            ),
            ("no authorization", call().without("authorization").message(&[]), NOBODY),
            ("two authorizations", call().bearer(user).with("x-request-id", "two").message(&[]), NOBODY),
            (
                "an authorization of another scheme",
                call().without("authorization").with("authorization", "Basic dTpw").message(&[]),
                NOBODY,
            ),
        ]
    }
}

// HARDENING, the input table, where the answer is ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_input_gets_the_written_answer() {
    let pair = Pair::start().await;
    let mut honest = Honest::at_both(&pair).await;
    for target in &TARGETS {
        // One connection for all: no refusal costs more than its call.
        let mut raw = public(&pair, target.service).await;
        for (input, ask, gets) in target.table(&pair.user()) {
            let answer = raw.call(&ask).await;
            let case = format!("{}: {input}", target.service);
            match gets {
                Http(status) => {
                    assert_eq!(answer.status, Some(status), "{case}: {answer:?}");
                    let allow = answer.headers.get("allow").map(http::HeaderValue::as_bytes);
                    assert_eq!(allow, (status == 405).then_some(&b"POST"[..]), "{case}");
                    assert!(answer.outcome().is_none(), "{case}: no gRPC");
                }
                Status(code, reason, message) => {
                    assert_eq!(answer.status, Some(200), "{case}: {answer:?}");
                    let outcome = answer.outcome().unwrap_or_else(|| panic!("{case}: {answer:?}"));
                    assert_eq!((&*outcome.code, &*outcome.reason), (code, reason), "{case}: {outcome}");
                    assert!(outcome.message.starts_with(message), "{case}: {outcome}");
                    let exact = gets_exactly(gets);
                    assert!(
                        !exact || outcome.message == message,
                        "{case}: says more than it should: {outcome}"
                    );
                }
            }
        }
        // SW-08
        let rows = audit::of_call(&pair.world.path(&target.store()), "two");
        let said: Vec<_> = rows.iter().map(|row| (row.reason.as_str(), row.origin.peer.as_str())).collect();
        assert_eq!(
            said,
            [("PROVIDER_AUTH_FAILED", &*raw.local.to_string())],
            "{}: {rows:#?}",
            target.service
        );
        let good = raw.call(&Ask::of("/grpc.health.v1.Health/Check").message(&[])).await;
        assert_eq!(good.outcome().expect("gRPC").code, "OK", "{}: the connection goes on", target.service);
        assert_eq!(raw.goaway, None, "{}", target.service);
        honest.are_unharmed(&format!("every input at {}", target.service)).await;
    }
}

/// All but those that say which value is accepted.
fn gets_exactly(gets: Gets) -> bool {
    !matches!(gets, Status("INVALID_ARGUMENT", ..))
}

// HARDENING, the input table, where the answer is the library's: refused, and nobody else is harmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_http2_request_is_refused() {
    let pair = Pair::start().await;
    let mut honest = Honest::at_both(&pair).await;
    for target in &TARGETS {
        let call = || Ask::of(&target.path()).bearer(&pair.user());
        let large = |n: usize| "x".repeat(n << 10);
        let asks = [
            ("no path", call().without(":path").message(&[])),
            ("no method", call().without(":method").message(&[])),
            ("no scheme", call().without(":scheme").message(&[])),
            ("an upper-case name", call().with("X-Upper", "1").message(&[])),
            ("a name with a space", call().with("a b", "1").message(&[])),
            ("an empty name", call().with("", "1").message(&[])),
            ("a line break in a value", call().with("x-a", "1\r\nx-b: 2").message(&[])),
            ("a NUL in a value", call().with("x-a", "1\0").message(&[])),
            ("a header of HTTP/1.1", call().with("connection", "close").message(&[])),
            ("a chunked body", call().with("transfer-encoding", "chunked").message(&[])),
            ("a path twice", call().with(":path", "/").message(&[])),
            ("a pseudo-header that is none", call().with(":nope", "1").message(&[])),
            ("CONNECT", call().but(":method", "CONNECT")),
            ("too long a content-length", call().with("content-length", "1000").message(&[])),
            ("too short a content-length", call().with("content-length", "1").message(&[])),
        ];
        for (input, ask) in asks {
            let mut raw = public(&pair, target.service).await;
            let answer = raw.call(&ask).await;
            let refused = answer.status.is_some_and(|status| status >= 400)
                || answer.outcome().is_some_and(|outcome| outcome.code != "OK");
            let ended = answer.reset.is_some() || raw.goaway.is_some() || raw.closed;
            assert!(refused || ended, "{}: {input}: {answer:?}", target.service);
        }
        let mut raw = public(&pair, target.service).await;
        let answer = raw.call(&call().with("x-large", &large(24)).message(&[])).await;
        assert_eq!(answer.status, Some(431), "{}: 24 KB of metadata: {answer:?}", target.service);
        for kib in [48, 64, 1024] {
            let mut raw = public(&pair, target.service).await;
            raw.ask(&call().with("x-large", &large(kib)).message(&[])).await;
            raw.until("a GOAWAY", |raw| raw.goaway.is_some()).await;
            assert!(raw.goaway.is_some() || raw.closed, "{}: {kib} KB of metadata", target.service);
        }
        for (input, bytes) in frames_that_are_wrong() {
            let mut raw = public(&pair, target.service).await;
            raw.send(&bytes).await.expect("room");
            raw.until("a GOAWAY", |raw| raw.goaway.is_some()).await;
            assert!(
                raw.goaway.is_some_and(|code| code != 0),
                "{}: {input}: closed without a word",
                target.service
            );
            raw.until("the end", |_| false).await;
        }
        honest.are_unharmed(&format!("what is no request at {}", target.service)).await;
    }
}

/// Faults of a whole connection. RFC 9113, sections 4.2, 5.1.1, 5.4.1, 6.
fn frames_that_are_wrong() -> [(&'static str, Vec<u8>); 9] {
    [
        ("a frame longer than was allowed", frame(raw::DATA, 0, 1, &vec![0; raw::FRAME_BYTES + 1])),
        ("DATA on no stream", frame(raw::DATA, 0, 0, &[0])),
        ("HEADERS on a stream of the server's", frame(raw::HEADERS, 5, 2, &[0x82])),
        ("HEADERS that cannot be read", frame(raw::HEADERS, 5, 1, &[0xff; 20])),
        ("CONTINUATION of nothing", frame(raw::CONTINUATION, 4, 1, &[0x82])),
        ("SETTINGS of a wrong length", frame(raw::SETTINGS, 0, 0, &[0; 5])),
        ("a PING of a wrong length", frame(raw::PING, 0, 0, &[0; 7])),
        ("a WINDOW_UPDATE of nothing", frame(raw::WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("a window beyond its end", frame(raw::WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())),
    ]
}

// HARDENING, "a body that never ends": DEADLINE_EXCEEDED at the timeout, in methods that answer late as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_never_ends_is_given_up_at_the_timeout() {
    let setup = Setup::default().auth("limits.timeout", "300ms").gateway("limits.timeout", "300ms");
    let pair = Pair::start_with(setup).await;
    let mut honest = Honest::at_both(&pair).await;
    let logout = "/interlock.auth.v1.OwnerSessionService/Logout";
    let parked = [
        ("auth", logout),
        ("auth", "/interlock.auth.v1.RoleTokenService/Rotate"),
        ("auth", "/grpc.health.v1.Health/Watch"),
        ("gateway", "/interlock.gateway.v1.JobService/WaitJob"),
        ("gateway", "/interlock.gateway.v1.SessionService/StreamEvents"),
        ("gateway", "/grpc.health.v1.Health/Watch"),
    ];
    for target in &TARGETS {
        let mut raw = public(&pair, target.service).await;
        let ordinary = target.path();
        let paths = parked.iter().filter(|(service, _)| *service == target.service).map(|(_, path)| *path);
        let mut open = Vec::new();
        for path in paths.chain([ordinary.as_str()]) {
            let call = Ask::of(path).bearer(&pair.admin()).unended();
            let bodies: [(&str, Ask); 4] = [
                ("no byte of a body", call.clone()),
                ("half a length prefix", call.clone().body(&[0, 0])),
                ("a whole message, and no end", call.clone().body(&prefixed(&[]))),
                ("an hour to wait", call.with("grpc-timeout", "1H")),
            ];
            for (what, ask) in bodies {
                open.push((path, what, raw.ask(&ask).await));
            }
        }
        for (path, what, stream) in open {
            let outcome = raw.answer(stream).await.outcome();
            let outcome = outcome.unwrap_or_else(|| panic!("{path}: {what}: no answer"));
            let said = (&*outcome.code, &*outcome.message);
            assert_eq!(said, ("DEADLINE_EXCEEDED", "the deadline passed"), "{path}: {what}");
        }
        honest.are_unharmed(&format!("bodies without an end at {}", target.service)).await;
    }
    // A caller can ask for less than the server's time, and for none.
    let mut raw = public(&pair, "gateway").await;
    let ask = Ask::of(&TARGETS[1].path()).bearer(&pair.user());
    let outcome = raw.call(&ask.clone().with("grpc-timeout", "1n").unended()).await.outcome();
    assert_eq!(outcome.expect("gRPC").code, "DEADLINE_EXCEEDED");
    let outcome = raw.call(&ask.with("grpc-timeout", "0S").message(&[])).await.outcome();
    assert_eq!(outcome.expect("gRPC").code, "DEADLINE_EXCEEDED");
}

/// Calls of a round: had each of them memory of its own, a round's growth would show it.
const ROUND: usize = 64;
const ROUNDS: usize = 10;
/// The most that a round may add to the memory of a service, KiB.
const GROWTH_KIB: u64 = 1 << 10;
/// Under what would be set aside, even untouched, for one message of 4 GiB.
const ADDRESSES_KIB: u64 = 1 << 20;

// HARDENING, "length prefix 4 GiB - 1, oversize message": no allocation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_length_prefix_costs_no_memory() {
    let pair = Pair::start().await;
    let mut honest = Honest::at_both(&pair).await;
    for (target, running) in TARGETS.iter().zip([&pair.auth, &pair.gateway]) {
        let pid = running.pid().expect("it runs");
        let ask = Ask::of(&target.path()).bearer(&pair.user()).body(&[0, 0xff, 0xff, 0xff, 0xff]).unended();
        let mut raw = public(&pair, target.service).await;
        let mut grown = Vec::new();
        // Rounds until one adds nothing: others in the service may grow meanwhile, not each time.
        while grown.last().is_none_or(|grown| *grown >= GROWTH_KIB) && grown.len() < ROUNDS {
            let before = memory(pid);
            for _ in 0..ROUND {
                let outcome = raw.call(&ask).await.outcome().expect("gRPC");
                assert_eq!(outcome.code, "RESOURCE_EXHAUSTED", "{}: {outcome}", target.service);
            }
            let after = memory(pid);
            grown.push(after.resident.saturating_sub(before.resident));
            let addresses = after.addresses_peak - before.addresses_peak;
            assert!(addresses < ADDRESSES_KIB, "{}: set aside {addresses} KiB", target.service);
        }
        println!("{}: {ROUND} prefixes of 4 GiB - 1 added, KiB a round: {grown:?}", target.service);
        assert!(grown.last().is_some_and(|grown| *grown < GROWTH_KIB), "{}: {grown:?}", target.service);
        honest.are_unharmed("length prefixes").await;
    }
}

/// Memory of a process, KiB.
struct Memory {
    resident: u64,
    addresses_peak: u64,
}

fn memory(pid: u32) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("proc(5)");
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
    };
    Memory { resident: of("VmRSS:"), addresses_peak: of("VmPeak:") }
}

// A worker's stream is read as strictly as a single request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_on_a_stream_is_read_as_strictly() {
    let pair = Pair::start().await;
    let mut honest = Honest::at_both(&pair).await;
    let internal = crate::honest::at(&pair, "auth", "internal", Some(pair.world.leaf("pki/tester"))).await;
    let work = Ask::of("/interlock.gateway.v1.WorkerService/Work").bearer(&pair.admin());
    let hold = Ask::of("/interlock.auth.v1.TrustService/HoldLease")
        .with("x-internal-token", pair.world.internal_token());
    let over = |bytes: u32| [&[0][..], &(bytes + 1).to_be_bytes()].concat();
    let doors: [(&str, Raw, Ask, u32); 2] =
        [("Work", public(&pair, "gateway").await, work, 1 << 20), ("HoldLease", internal, hold, 64 << 10)];
    for (method, mut raw, call, most) in doors {
        let inputs = [
            ("tag 0", prefixed(&[0, 0]), MALFORMED),
            ("a truncated field", prefixed(&[0x0a, 0x7f]), MALFORMED),
            ("a truncated message", vec![0, 0, 0, 0, 9, 0x0a], MALFORMED),
            ("the compressed flag", vec![1, 0, 0, 0, 0], MALFORMED),
            ("an oversize message", over(most), TOO_LARGE),
            ("a length prefix of 4 GiB - 1", vec![0, 0xff, 0xff, 0xff, 0xff], TOO_LARGE),
        ];
        for (input, body, gets) in inputs {
            let Status(code, reason, message) = gets else { unreachable!("a status") };
            let answer = raw.call(&call.clone().body(&body)).await;
            let outcome = answer.outcome().unwrap_or_else(|| panic!("{method}: {input}: {answer:?}"));
            let said = (&*outcome.code, &*outcome.reason, &*outcome.message);
            assert_eq!(said, (code, reason, message), "{method}: {input}");
        }
    }
    honest.are_unharmed("malformed streams").await;
}
