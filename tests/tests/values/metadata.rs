//! Hostile values in what calls carry beside their message. Controls cannot be sent by a client that keeps to
//! HTTP/2; the tests of the wire send those.

use interlock_tests::{
    Pair,
    pair::Peer,
    wire::{self, Answer, Metadata},
};
use tonic::transport::Channel;

use crate::unharmed;

const GATEWAY: &str = "/interlock.gateway.v1.SessionService/ListSessions";
const AUTH: &str = "/interlock.auth.v1.ProjectService/ListProjects";
const TRUST: &str = "/interlock.auth.v1.TrustService/CheckMembership";

/// A key, and what its values may be answered with beside a refusal that names the key.
const KEYS: &[(&str, &[&str])] = &[
    ("x-interlock-project", &["OK", "PROJECT_MISMATCH"]),
    ("x-on-behalf-of", &["FORBIDDEN"]),
    ("cookie", &["OK", "PROVIDER_AUTH_FAILED"]),
    ("authorization", &["PROVIDER_AUTH_FAILED"]),
    ("x-internal-token", &["OK", "INTERNAL_TOKEN_REQUIRED"]),
    // A client that reads its own timeout gives up by itself.
    ("grpc-timeout", &["OK", "DEADLINE_EXCEEDED", "CANCELLED"]),
    ("x-request-id", &["OK"]),
    ("traceparent", &["OK"]),
];

const VALUES: &[&[u8]] = &[
    b"",
    b" ",
    b"\t",
    b"a b",
    b"a,b",
    b"a;b=c",
    b"../../etc/passwd",
    b"%00",
    b"\"'; DROP TABLE session; --",
    b"{\"a\":1}",
    b"%s%n{}",
    b"0",
    b"-1",
    b"18446744073709551616",
    b"1n",
    b"99999999H",
    b"999999999S",
    b"1S ",
    b"A",
    b"..",
    b"-rf",
    b"a.b-c_d",
    "é".as_bytes(),
    "\u{202e}gpj".as_bytes(),
    "\u{200b}".as_bytes(),
    "\u{1f980}".as_bytes(),
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    b"00-00000000000000000000000000000000-0000000000000000-ff",
    b"Bearer",
    b"Bearer ilk_own_0000000000000000000000000000000000000000000000000",
    b"Basic dTpw",
    b"__Host-interlock_ses_1=",
    b"__Host-interlock_../=ilk_cli_0000000000000000000000000000000000000000000000000",
    b"__Host-interlock_ses_1=a; __Host-interlock_ses_1=b",
    b"=; ; ==;",
];

// What a caller makes up is refused, or has no effect; nothing of it breaks a line of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_call_carries_is_read_strictly_or_not_at_all() {
    let pair = Pair::start().await;
    let alice = pair.login("alice").await;
    let channels = [
        (GATEWAY, pair.gateway_public()),
        (AUTH, pair.auth_public()),
        (TRUST, pair.auth_internal(Peer::Listed)),
    ];
    let token = pair.world.internal_token();
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for (key, right) in KEYS {
        for value in values() {
            for (path, channel) in &channels {
                let mut metadata = match *path {
                    TRUST if *key == "x-internal-token" => Metadata::none(),
                    TRUST => Metadata::none().with("x-internal-token", token),
                    _ if *key == "authorization" => Metadata::none(),
                    _ => Metadata::bearer(&alice.access_token),
                };
                metadata = metadata.with_bytes(key, &value);
                let answer = call(channel, path, &metadata).await;
                tried += 1;
                // A service speaks for itself there: it shows no other credential.
                let right: &[&str] =
                    if *path == TRUST && *key == "authorization" { &["FORBIDDEN"] } else { right };
                if let Err(why) = judge(key, right, &value, &answer) {
                    let value = String::from_utf8_lossy(&value).into_owned();
                    wrong.push(format!("{path} {key}: {value:.80?}: {why}; answered {}", answer.outcome));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried} answers are not right:\n{}", wrong.len(), wrong.join("\n"));
    unharmed(&pair).await;
    println!("{} keys, {tried} values", KEYS.len());
}

fn values() -> Vec<Vec<u8>> {
    let long = [63, 64, 65, 256, 4_000].map(|bytes| vec![b'a'; bytes]);
    VALUES.iter().map(|value| value.to_vec()).chain(long).collect()
}

async fn call(channel: &Channel, path: &str, metadata: &Metadata) -> Answer {
    let membership = interlock_proto::auth::v1::CheckMembershipRequest {
        owner_id: "alice".to_owned(),
        project_id: "system".to_owned(),
    };
    match path {
        TRUST => wire::ask(channel, path, &membership, metadata).await,
        _ => wire::call(channel, path, Vec::new(), metadata).await,
    }
}

fn judge(key: &str, right: &[&str], value: &[u8], answer: &Answer) -> Result<(), String> {
    let said = answer.outcome.short();
    let names = answer.outcome.message.starts_with(&format!("{key}: "));
    if !(right.contains(&said) || said == "INVALID_FIELD" && names) {
        return Err("no right answer for any value of this key".to_owned());
    }
    if said == "CANCELLED" {
        return Ok(());
    }
    let id = answer.metadata.get("x-request-id").map(|id| id.as_bytes().to_vec()).unwrap_or_default();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
    if id.is_empty() || !id.iter().all(plain) || id.len() > 64 {
        return Err(format!("the answer's request id is {id:?}"));
    }
    let kept = (1..=64).contains(&value.len()) && value.iter().all(plain);
    if key == "x-request-id" && kept != (id == value) {
        return Err("a plain request id is kept, and no other".to_owned());
    }
    Ok(())
}
