//! The client credential of a session, as the cookie that carries it. RFC 6265.

use std::fmt;

use interlock_proto::{
    credential::{Credential, Kind, Malformed, cookie_name, cookie_session},
    text,
};
use zeroize::Zeroizing;

/// A client's cookie: `__Host-interlock_<session id>=<credential>`.
///
/// `Debug` shows the session only.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie {
    session_id: String,
    pair: Zeroizing<String>,
}

impl Cookie {
    /// Reads `name=value`; attributes after a `;` are not kept.
    ///
    /// # Errors
    /// [`Malformed`] where the name is not one of ours or the value is no client credential.
    pub fn parse(pair: &str) -> Result<Self, Malformed> {
        let pair = pair.split(';').next().unwrap_or_default().trim();
        let (name, value) = pair.split_once('=').ok_or(Malformed)?;
        // What a server would not read is not kept either.
        let session_id = cookie_session(name).filter(|id| text::is_mark(id)).ok_or(Malformed)?;
        let credential = Credential::parse(value)?;
        if credential.kind() != Kind::Client {
            return Err(Malformed);
        }
        let pair = Zeroizing::new(format!("{}={}", cookie_name(session_id), credential.expose()));
        Ok(Self { session_id: session_id.to_owned(), pair })
    }

    /// The session that it is for.
    #[must_use]
    pub fn session_id(&self) -> &str {
        &self.session_id
    }

    /// The secret `name=value`. Keep it in files that only their owner can read; never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.pair
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cookie({})", self.session_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_cookie_is_read_and_kept_secret() {
        let credential = Credential::new(Kind::Client, &[3; 32]);
        let text = format!("{}={}; Path=/; HttpOnly; Secure", cookie_name("ses_1"), credential.expose());
        let cookie = Cookie::parse(&text).expect("ours");
        assert_eq!(cookie.session_id(), "ses_1");
        assert!(cookie.expose().ends_with(credential.expose()));
        assert_eq!(format!("{cookie:?}"), "Cookie(ses_1)");
        assert!(Cookie::parse("other=1").is_err());
        // A server refuses each of these names, so they are not kept to be sent.
        let misplaced = credential.expose();
        for session in ["", "a b", "é", "ses_1,", &"x".repeat(65), misplaced] {
            let pair = format!("{}={}", cookie_name(session), credential.expose());
            assert!(Cookie::parse(&pair).is_err(), "{session}");
        }
        let admin = Credential::new(Kind::Admin, &[3; 32]);
        assert!(Cookie::parse(&format!("{}={}", cookie_name("ses_1"), admin.expose())).is_err());
    }
}
