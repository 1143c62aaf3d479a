//! Cookies: as a call carries them, and as the client keeps what a server has set.

use http::{HeaderMap, HeaderName, HeaderValue};
use interlock_client::Cookie;
use interlock_kit::authn::Presented;
use interlock_proto::{
    credential::{Credential, Kind},
    metadata,
    options::v1::Listener,
};

/// Lines, each a `cookie` header; `@` stands for a good client credential.
///
/// # Panics
/// Where the same cookies in one header or in several are read differently, or client and server disagree.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let good = Credential::new(Kind::Client, &[7; 32]);
    let text = text.replace('@', good.expose());
    let lines: Vec<&str> = text.split('\n').take(64).collect();
    let apart = read(&lines);
    assert_eq!(apart, read(&[&lines.join("; ")]), "one header or several: {text:?}");
    if let Some(Some(found)) = &apart {
        assert!(found.len() <= 16);
        for (at, (session, _)) in found.iter().enumerate() {
            assert!((1..=64).contains(&session.len()) && session.bytes().all(|b| b.is_ascii_graphic()));
            assert!(found[..at].iter().all(|(other, _)| other != session), "twice: {session:?}");
        }
    }
    for line in lines {
        kept(line);
    }
}

type Found = Vec<(String, Option<String>)>;

/// `None` where it is no header at all; `Some(None)` where it is refused.
fn read(values: &[&str]) -> Option<Option<Found>> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(HeaderName::from_static(metadata::COOKIE), HeaderValue::from_str(value).ok()?);
    }
    let presented = Presented::read(&headers, Listener::Public).ok();
    let found = |cookie: interlock_kit::authn::Cookie| {
        (cookie.session_id, cookie.credential.map(|credential| credential.expose().to_owned()))
    };
    Some(presented.map(|presented| presented.cookies.into_iter().map(found).collect()))
}

/// What the client keeps, the server reads: as the same session's, with the same credential.
fn kept(line: &str) {
    let Ok(cookie) = Cookie::parse(line) else { return };
    assert_eq!(Cookie::parse(cookie.expose()).as_ref(), Ok(&cookie));
    let found = read(&[cookie.expose()]).flatten().unwrap_or_default();
    let [(session, Some(credential))] = &found[..] else { panic!("the server does not read {cookie:?}") };
    assert_eq!(session, cookie.session_id());
    assert!(cookie.expose().ends_with(credential.as_str()));
}
