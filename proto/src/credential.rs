//! The text form of credentials: `ilk_<kind>_<43 base62 of 32 random bytes><6 base62 of CRC32>`.
//!
//! The checksum lets a typo be refused without a look-up, and lets scanners find leaks. Only the
//! SHA-256 of the text is ever stored or sent between services.

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// What a credential is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The role token `admin`.
    Admin,
    /// The role token `user`.
    User,
    /// The access token of an owner session.
    Owner,
    /// The refresh token of an owner session.
    Refresh,
    /// A project token.
    Project,
    /// The client credential of a session.
    Client,
    /// The internal token between services.
    Internal,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Admin, Self::User, Self::Owner, Self::Refresh, Self::Project, Self::Client, Self::Internal];

    /// The three letters in the text.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Admin => "adm",
            Self::User => "usr",
            Self::Owner => "own",
            Self::Refresh => "ref",
            Self::Project => "prj",
            Self::Client => "cli",
            Self::Internal => "int",
        }
    }
}

/// The SHA-256 of a credential's text: what is stored, and what travels between services.
pub type Hash = [u8; 32];

/// A well-formed credential. Well-formed is not known: only a look-up tells.
///
/// `Debug` shows the kind only; the text is wiped from memory on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    kind: Kind,
    text: Zeroizing<String>,
}

/// A text is not a well-formed credential. Says nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed credential")]
pub struct Malformed;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_DIGITS: usize = 43;
const CHECK_DIGITS: usize = 6;
/// The length of every credential's text, in bytes.
pub const TEXT_LEN: usize = "ilk_xxx_".len() + RANDOM_DIGITS + CHECK_DIGITS;

impl Credential {
    /// A credential of 32 random bytes. Randomness comes from the caller.
    #[must_use]
    pub fn new(kind: Kind, random: &[u8; 32]) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(TEXT_LEN));
        text.push_str("ilk_");
        text.push_str(kind.tag());
        text.push('_');
        push_base62(&mut text, random, RANDOM_DIGITS);
        let check = crc32fast::hash(text.as_bytes()).to_be_bytes();
        push_base62(&mut text, &check, CHECK_DIGITS);
        Self { kind, text }
    }

    /// Reads a credential.
    ///
    /// # Errors
    /// [`Malformed`] for another length, an unknown kind, a foreign character or a wrong checksum.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if text.len() != TEXT_LEN || !text.is_ascii() {
            return Err(Malformed);
        }
        let (body, check) = text.split_at(TEXT_LEN - CHECK_DIGITS);
        let rest = body.strip_prefix("ilk_").ok_or(Malformed)?;
        let (tag, digits) = rest.split_once('_').ok_or(Malformed)?;
        let kind = Kind::ALL.into_iter().find(|k| k.tag() == tag).ok_or(Malformed)?;
        if digits.len() != RANDOM_DIGITS || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Malformed);
        }
        let mut expected = String::with_capacity(CHECK_DIGITS);
        push_base62(&mut expected, &crc32fast::hash(body.as_bytes()).to_be_bytes(), CHECK_DIGITS);
        if check != expected {
            return Err(Malformed);
        }
        Ok(Self { kind, text: Zeroizing::new(text.to_owned()) })
    }

    /// What it is for, by its own word.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The secret text. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What is stored instead of the text.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Sha256::digest(self.text.as_bytes()).into()
    }

    /// First and last four characters: enough to tell two apart, too little to use.
    #[must_use]
    pub fn masked(&self) -> String {
        format!("{}…{}", &self.text[..4], &self.text[TEXT_LEN - 4..])
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.kind.tag())
    }
}

/// The name of the cookie that carries a session's client credential. RFC 6265bis: `__Host-`.
#[must_use]
pub fn cookie_name(session_id: &str) -> String {
    format!("__Host-interlock_{session_id}")
}

/// The session id in a cookie's name, if it is one of ours.
#[must_use]
pub fn cookie_session(name: &str) -> Option<&str> {
    name.strip_prefix("__Host-interlock_")
}

/// Appends `bytes`, read as one big-endian number, as exactly `digits` base62 digits.
fn push_base62(text: &mut String, bytes: &[u8], digits: usize) {
    let mut number = Zeroizing::new(bytes.to_vec());
    let mut reversed = Zeroizing::new(Vec::with_capacity(digits));
    for _ in 0..digits {
        let mut remainder = 0_u32;
        for byte in number.iter_mut() {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("remainder < 62 keeps the quotient under 256");
            remainder = value % 62;
        }
        reversed.push(ALPHABET[remainder as usize]);
    }
    text.extend(reversed.iter().rev().map(|&digit| char::from(digit)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_round_trips() {
        for kind in Kind::ALL {
            for random in [[0; 32], [0xff; 32], [7; 32]] {
                let made = Credential::new(kind, &random);
                assert_eq!(made.expose().len(), TEXT_LEN);
                assert_eq!(Credential::parse(made.expose()), Ok(made.clone()));
                assert_eq!(made.kind(), kind);
            }
        }
    }

    #[test]
    fn any_single_wrong_character_is_refused() {
        let made = Credential::new(Kind::Owner, &[42; 32]);
        for at in 0..TEXT_LEN {
            let mut bytes = made.expose().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            let text = String::from_utf8(bytes).expect("ascii");
            assert_eq!(Credential::parse(&text), Err(Malformed), "at {at}");
        }
    }

    #[test]
    fn hostile_texts_are_refused() {
        for text in ["", "ilk_", "Bearer", &"x".repeat(TEXT_LEN), &"é".repeat(TEXT_LEN / 2)] {
            assert_eq!(Credential::parse(text), Err(Malformed));
        }
    }

    #[test]
    fn debug_and_mask_keep_the_secret() {
        let made = Credential::new(Kind::Admin, &[9; 32]);
        assert_eq!(format!("{made:?}"), "Credential(adm)");
        assert!(made.masked().chars().count() == 9);
    }
}
