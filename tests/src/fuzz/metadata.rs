//! The metadata of a call, as gate 1 and the bounds before it read them.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use interlock_kit::{
    authn::{self, Bearer, Presented},
    error::{Error, Reason},
    serve,
    spiffe::SpiffeId,
    telemetry::{RequestId, TraceParent},
};
use interlock_proto::{credential, metadata, options::v1::Listener};

/// Which header a line is, by its first byte.
const NAMES: [&str; 8] = [
    metadata::AUTHORIZATION,
    metadata::PROJECT,
    metadata::ON_BEHALF_OF,
    metadata::REQUEST_ID,
    metadata::COOKIE,
    metadata::INTERNAL_TOKEN,
    "grpc-timeout",
    "traceparent",
];

/// Lines: a byte that names the header, then its value.
///
/// # Panics
/// Where something unbounded or ill-formed is read, or a refusal has no reason that fits.
pub fn check(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Some((name, value)) = line.split_first() else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        if let Ok(text) = value.to_str() {
            texts(text);
        }
        headers.append(HeaderName::from_static(NAMES[usize::from(*name) % NAMES.len()]), value);
    }
    timeout(&headers);
    project(&headers);
    for listener in [Listener::Public, Listener::Internal] {
        presented(&headers, listener);
    }
}

/// 1 to 64 of letters, digits, `.`, `_` and `-`, and no credential in the wrong place.
fn is_plain(text: &str) -> bool {
    !credential::is_in(text)
        && (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || [b'.', b'_', b'-'].contains(&b))
}

fn texts(text: &str) {
    if let Some(parsed) = TraceParent::parse(text) {
        assert!(parsed.trace_id != 0 && parsed.parent_id != 0);
        let written = parsed.to_string();
        assert_eq!(TraceParent::parse(&written), Some(parsed));
        assert!(!text.starts_with("00") || text == written, "version 0 has one form: {text:?}");
    }
    let id = RequestId::given_or_new(Some(text));
    assert!(is_plain(id.as_str()) && (id.as_str() == text) == is_plain(text));
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string(), text, "one form for each id");
    }
}

/// The gRPC protocol: one to eight digits and a unit; once.
fn timeout(headers: &HeaderMap) {
    let values: Vec<&[u8]> = headers.get_all("grpc-timeout").iter().map(HeaderValue::as_bytes).collect();
    match (serve::asked_timeout(headers), &values[..]) {
        (Ok(None), []) => {}
        (Ok(Some(asked)), [one]) => assert_eq!(Some(asked), plainly(one), "{one:?}"),
        (Err(error), [one]) => {
            assert_eq!((error.reason(), plainly(one)), (Reason::InvalidField, None), "{one:?}");
        }
        (Err(error), [_, _, ..]) => assert_eq!(error.reason(), Reason::InvalidField),
        (read, _) => panic!("{values:?} was read as {read:?}"),
    }
}

fn plainly(text: &[u8]) -> Option<Duration> {
    let (unit, digits) =
        std::str::from_utf8(text).ok()?.split_at_checked(text.len().checked_sub(1)?).map(|(d, u)| (u, d))?;
    let good = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let nanos: u128 = match unit {
        "H" => 3_600_000_000_000,
        "M" => 60_000_000_000,
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1_000,
        "n" => 1,
        _ => return None,
    };
    let nanos = nanos * digits.parse::<u128>().ok().filter(|_| good)?;
    let (secs, rest) =
        (u64::try_from(nanos / 1_000_000_000).ok()?, u32::try_from(nanos % 1_000_000_000).ok()?);
    Some(Duration::new(secs, rest))
}

fn project(headers: &HeaderMap) {
    let values: Vec<_> = headers.get_all(metadata::PROJECT).iter().collect();
    match (authn::named_project(headers), &values[..]) {
        (Ok(None), []) => {}
        (Ok(Some(named)), [one]) => assert!(is_plain(&named) && one.as_bytes() == named.as_bytes()),
        (Err(error), [_, ..]) => assert_eq!(error.reason(), Reason::InvalidField),
        (read, _) => panic!("{values:?} was read as {read:?}"),
    }
}

fn presented(headers: &HeaderMap, listener: Listener) {
    let read: Result<Presented, Error> = Presented::read(headers, listener);
    let bearers = headers.get_all(metadata::AUTHORIZATION).iter().count();
    match read {
        Err(error) => {
            let fits = [Reason::ProviderAuthFailed, Reason::Forbidden, Reason::InvalidField];
            assert!(fits.contains(&error.reason()), "{error:?}");
        }
        Ok(presented) => {
            assert!(bearers < 2, "two of them");
            assert_eq!(matches!(presented.bearer, Bearer::Missing), bearers == 0);
            if let Bearer::Credential(credential) = &presented.bearer {
                let sent = headers.get(metadata::AUTHORIZATION).and_then(|value| value.to_str().ok());
                assert!(sent.is_some_and(|text| text.trim_end().ends_with(credential.expose())));
                assert!(!format!("{presented:?}").contains(credential.expose()), "a secret shows");
            }
            assert!(presented.cookies.len() <= 16);
            let service = listener == Listener::Internal;
            assert!(presented.on_behalf_of.is_none_or(|owner| service && is_plain(&owner)));
        }
    }
}
