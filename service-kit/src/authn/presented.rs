//! Reads what a call presents from its metadata. Pure, and bounded: nothing here knows a credential.

use http::{HeaderMap, HeaderName, header};
use interlock_proto::{
    credential::{Credential, cookie_session},
    metadata,
    options::v1::Listener,
    text,
};
use zeroize::Zeroizing;

use super::{Bearer, Cookie, Presented, login_required};
use crate::{
    error::{Error, Reason},
    telemetry::TraceParent,
};

/// Cookies of ours that one call may carry: it acts in one session, but a jar may send all it has.
const COOKIES_MAX: usize = 16;
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static ON_BEHALF_OF: HeaderName = HeaderName::from_static(metadata::ON_BEHALF_OF);
static PROJECT: HeaderName = HeaderName::from_static(metadata::PROJECT);
static INTERNAL_TOKEN: HeaderName = HeaderName::from_static(metadata::INTERNAL_TOKEN);

/// Who a call says it is from.
///
/// # Errors
/// `PROVIDER_AUTH_FAILED` for two `authorization` values and for a cookie name sent twice;
/// `FORBIDDEN` for a call on behalf of someone that does not come from a service.
pub(super) fn read(headers: &HeaderMap, listener: Listener) -> Result<Presented, Error> {
    let on_behalf_of = single(headers, &ON_BEHALF_OF)?;
    if on_behalf_of.is_some() && listener != Listener::Internal {
        return Err(Error::new(Reason::Forbidden, "only services act on behalf of others"));
    }
    Ok(Presented { bearer: bearer(headers)?, cookies: cookies(headers)?, on_behalf_of })
}

/// The project that a call names.
///
/// # Errors
/// `INVALID_FIELD` for two of them, and for what cannot be the name or id of a project.
pub(super) fn named_project(headers: &HeaderMap) -> Result<Option<String>, Error> {
    single(headers, &PROJECT)
}

/// The internal token, where exactly one is shown.
pub(super) fn internal_token(headers: &HeaderMap) -> Option<Zeroizing<String>> {
    let mut values = headers.get_all(&INTERNAL_TOKEN).iter();
    let one = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| Zeroizing::new(one.to_owned()))
}

/// Where the call stands in a trace.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<TraceParent> {
    TraceParent::parse(headers.get(&TRACEPARENT)?.to_str().ok()?)
}

fn single(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let mark = value.to_str().ok().filter(|mark| text::is_mark(mark));
    match (mark, values.next()) {
        (Some(mark), None) => Ok(Some(mark.to_owned())),
        _ => Err(Error::invalid_field(name.as_str(), "at most once; 1 to 64 letters, digits, `.`, `_`, `-`")),
    }
}

/// RFC 6750 section 2.1; the scheme in any case, RFC 9110 section 11.1.
fn bearer(headers: &HeaderMap) -> Result<Bearer, Error> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(Bearer::Missing) };
    if values.next().is_some() {
        return Err(login_required());
    }
    let text = value.to_str().ok().and_then(|text| text.split_once(' '));
    let credential = match text {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => Credential::parse(rest.trim()).ok(),
        _ => None,
    };
    Ok(credential.map_or(Bearer::Malformed, Bearer::Credential))
}

/// RFC 6265 section 4.2.1; HTTP/2 may split the header, RFC 9113 section 8.2.3.
fn cookies(headers: &HeaderMap) -> Result<Vec<Cookie>, Error> {
    let mut found: Vec<Cookie> = Vec::new();
    for value in headers.get_all(header::COOKIE) {
        let text = value.to_str().map_err(|_| login_required())?;
        for (name, value) in text.split(';').filter_map(|pair| pair.split_once('=')) {
            let Some(session_id) = cookie_session(name.trim()) else { continue };
            let twice = found.iter().any(|cookie| cookie.session_id == session_id);
            if twice || found.len() == COOKIES_MAX || !text::is_mark(session_id) {
                return Err(login_required());
            }
            let credential = Credential::parse(value.trim()).ok();
            found.push(Cookie { session_id: session_id.to_owned(), credential });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use interlock_proto::credential::{Kind, cookie_name};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("visible"));
        }
        headers
    }

    fn token(kind: Kind) -> String {
        Credential::new(kind, &[7; 32]).expose().to_owned()
    }

    #[test]
    fn a_bearer_is_read_whatever_the_case_of_its_scheme() {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let text = format!("{scheme} {}", token(Kind::Owner));
            let read = bearer(&headers(&[("authorization", &text)])).expect("one");
            assert!(matches!(read, Bearer::Credential(c) if c.kind() == Kind::Owner), "{scheme}");
        }
        assert!(matches!(bearer(&HeaderMap::new()), Ok(Bearer::Missing)));
        let bare = token(Kind::Owner);
        for text in ["", "Bearer", "Bearer ", "Basic dTpw", "Bearer sesame", &bare] {
            assert!(matches!(bearer(&headers(&[("authorization", text)])), Ok(Bearer::Malformed)), "{text}");
        }
    }

    #[test]
    fn what_comes_twice_is_refused() {
        let text = format!("Bearer {}", token(Kind::Owner));
        let twice = headers(&[("authorization", &text), ("authorization", &text)]);
        assert_eq!(bearer(&twice).expect_err("two").reason(), Reason::ProviderAuthFailed);
        let pair = format!("{}={}", cookie_name("ses_1"), token(Kind::Client));
        for twice in [
            headers(&[("cookie", &pair), ("cookie", &pair)]),
            headers(&[("cookie", &format!("{pair}; {pair}"))]),
        ] {
            assert_eq!(cookies(&twice).expect_err("two").reason(), Reason::ProviderAuthFailed);
        }
        let twice = headers(&[("x-interlock-project", "a"), ("x-interlock-project", "b")]);
        assert_eq!(named_project(&twice).expect_err("two").reason(), Reason::InvalidField);
        assert_eq!(internal_token(&headers(&[("x-internal-token", "a"), ("x-internal-token", "b")])), None);
    }

    #[test]
    fn cookies_of_ours_are_found_among_others() {
        let text = format!("theme=dark; {}={}; x", cookie_name("ses_1"), token(Kind::Client));
        let found = cookies(&headers(&[("cookie", &text), ("cookie", "__Host-interlock_ses_2=junk")]))
            .expect("each once");
        let seen: Vec<_> = found.iter().map(|c| (c.session_id.as_str(), c.credential.is_some())).collect();
        assert_eq!(seen, [("ses_1", true), ("ses_2", false)]);
        let many: Vec<_> = (0..17).map(|n| format!("{}=x", cookie_name(&n.to_string()))).collect();
        assert!(cookies(&headers(&[("cookie", &many.join("; "))])).is_err(), "bounded");
    }

    #[test]
    fn only_services_act_on_behalf_of_others() {
        let asks = headers(&[("x-on-behalf-of", "alice")]);
        assert_eq!(read(&asks, Listener::Public).expect_err("public").reason(), Reason::Forbidden);
        let read = read(&asks, Listener::Internal).expect("a service");
        assert_eq!(read.on_behalf_of.as_deref(), Some("alice"));
    }

    #[test]
    fn names_are_bounded() {
        for bad in ["", "a b", "../x", &"x".repeat(65)] {
            assert!(named_project(&headers(&[("x-interlock-project", bad)])).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_presented_shows_a_credential() {
        let secret = token(Kind::Client);
        let text = format!("Bearer {secret}");
        let cookie = format!("{}={secret}", cookie_name("ses_1"));
        let shown = read(&headers(&[("authorization", &text), ("cookie", &cookie)]), Listener::Public);
        assert!(!format!("{shown:?}").contains(&secret));
    }
}
