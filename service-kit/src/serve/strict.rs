//! What a request must look like before it is a call at all.
//!
//! The gRPC protocol over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md), held strictly: tonic takes any method,
//! any content type, and ignores a timeout that it cannot read.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use interlock_proto::metadata;
use tonic::body::Body;

use crate::{error::Error, telemetry::RequestId};

static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static REQUEST_ID: HeaderName = HeaderName::from_static(metadata::REQUEST_ID);
/// Names whose values no log and no `Debug` may show.
const SENSITIVE: [&str; 4] =
    [metadata::AUTHORIZATION, metadata::COOKIE, metadata::INTERNAL_TOKEN, metadata::SET_COOKIE];

/// The answer to what is no gRPC request: 405 for another method, 415 for another content type.
pub(super) fn not_grpc(request: &Request<Body>) -> Option<Response<Body>> {
    if request.method() != Method::POST {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED);
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return Some(answer);
    }
    let mut types = request.headers().get_all(header::CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (Some(one), None) if is_grpc(one.as_bytes()) => None,
        _ => Some(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE)),
    }
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

fn is_grpc(content_type: &[u8]) -> bool {
    let prefix = b"application/grpc";
    let fits = content_type.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    fits && matches!(content_type.get(prefix.len()), None | Some(b'+' | b';'))
}

/// How long the caller waits, if it says so.
///
/// # Errors
/// `INVALID_FIELD` for a text that is no timeout, or two of them.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Error> {
    let mut values = headers.get_all(&TIMEOUT).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (parse_timeout(value.as_bytes()), values.next()) {
        (Some(timeout), None) => Ok(Some(timeout)),
        _ => Err(Error::invalid_field(TIMEOUT.as_str(), "one to eight digits and one of H, M, S, m, u, n")),
    }
}

fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits.iter().fold(0_u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

/// The id of a call: the caller's where well-formed, else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> RequestId {
    let mut values = headers.get_all(&REQUEST_ID).iter();
    let given = match (values.next(), values.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    };
    RequestId::given_or_new(given)
}

/// Keeps secrets out of logs: and out of HPACK's shared tables (RFC 7541 section 7.1).
pub(super) fn mark_sensitive(headers: &mut HeaderMap) {
    for (name, value) in headers.iter_mut() {
        if SENSITIVE.contains(&name.as_str()) {
            value.set_sensitive(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        assert_eq!(parse_timeout(b"1H"), Some(Duration::from_secs(3600)));
        assert_eq!(parse_timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse_timeout(b"0n"), Some(Duration::ZERO));
        assert_eq!(parse_timeout(b"250m"), Some(Duration::from_millis(250)));
        for text in ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", " 1S", "1S ", "1SS", "+1S"] {
            assert_eq!(parse_timeout(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn content_types_of_grpc_only() {
        for fits in ["application/grpc", "application/grpc+proto", "Application/GRPC; charset=utf-8"] {
            assert!(is_grpc(fits.as_bytes()), "{fits}");
        }
        for other in ["", "application/json", "application/grpc-web", "application/grpcx", "text/plain"] {
            assert!(!is_grpc(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_request_id_is_kept_only_where_it_is_harmless() {
        let given = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(metadata::REQUEST_ID, HeaderValue::from_str(text).expect("visible"));
            request_id(&headers).to_string()
        };
        assert_eq!(given("job-7.a_B"), "job-7.a_B");
        for bad in ["", "a b", "a\tb", "<script>", &"x".repeat(65)] {
            assert!(given(bad).starts_with("req_"), "{bad:?}");
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("Bearer sesame"));
        headers.append("cookie", HeaderValue::from_static("__Host-interlock_s=sesame"));
        headers.insert("x-internal-token", HeaderValue::from_static("sesame"));
        mark_sensitive(&mut headers);
        assert!(!format!("{headers:?}").contains("sesame"));
    }
}
