//! The text form of credentials: `ilk_<kind>_<43 base62 of 32 random bytes><6 base62 of CRC32>`.
//!
//! The checksum lets a typo be refused without a look-up, and lets scanners find leaks. Only the
//! SHA-256 of the text is ever stored or sent between services.

use std::{borrow::Cow, fmt, ops::Range};

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
/// `Debug` shows the kind only; the text is wiped from memory on drop. Two are compared by their hashes, so
/// that the time it takes tells nothing of either.
#[derive(Clone)]
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
    /// [`Malformed`] for another length, an unknown kind, a foreign character, more than 32 bytes or a wrong
    /// checksum: so each credential has one text.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if text.len() != TEXT_LEN || !text.is_ascii() {
            return Err(Malformed);
        }
        let (body, check) = text.split_at(TEXT_LEN - CHECK_DIGITS);
        let rest = body.strip_prefix("ilk_").ok_or(Malformed)?;
        let (tag, digits) = rest.split_once('_').ok_or(Malformed)?;
        let kind = Kind::ALL.into_iter().find(|k| k.tag() == tag).ok_or(Malformed)?;
        if digits.len() != RANDOM_DIGITS || !is_32_bytes(digits) {
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

impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for Credential {}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.kind.tag())
    }
}

/// So many digits behind a credential's prefix are taken for one, whole or cut, its checksum right or not.
const SHOWN_DIGITS: usize = 12;

/// Whether a text has something in it that looks like a credential: no name, label or mark of a call may. A
/// credential in the wrong field must not go on into rows, logs and other people's lists.
#[must_use]
pub fn is_in(text: &str) -> bool {
    find(text.as_bytes(), 0).is_some()
}

/// The same bytes, with each thing in them that looks like a credential cut after its kind. The last line of
/// defence, for what is written to logs.
#[must_use]
pub fn masked(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some(mut found) = find(bytes, 0) else { return Cow::Borrowed(bytes) };
    let (mut out, mut from) = (Vec::with_capacity(bytes.len()), 0);
    loop {
        out.extend_from_slice(&bytes[from..found.start]);
        out.extend_from_slice("…".as_bytes());
        from = found.end;
        match find(bytes, from) {
            Some(next) => found = next,
            None => break,
        }
    }
    out.extend_from_slice(&bytes[from..]);
    Cow::Owned(out)
}

/// The digits behind the next `ilk_<kind>_`, where there are enough of them.
fn find(bytes: &[u8], mut from: usize) -> Option<Range<usize>> {
    const PREFIX: &[u8] = b"ilk_";
    while let Some(at) = bytes.get(from..)?.windows(PREFIX.len()).position(|window| window == PREFIX) {
        from += at + PREFIX.len();
        let digits = from + Kind::Admin.tag().len() + 1;
        let tag = bytes.get(from..digits)?;
        if Kind::ALL.iter().any(|kind| kind.tag().as_bytes() == &tag[..tag.len() - 1]) && tag.ends_with(b"_")
        {
            let count = bytes[digits..].iter().take_while(|b| b.is_ascii_alphanumeric()).count();
            if count >= SHOWN_DIGITS {
                return Some(digits..digits + count);
            }
        }
    }
    None
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

/// Whether base62 digits are those of a number that 32 bytes hold: 43 of them could say a little more.
fn is_32_bytes(digits: &str) -> bool {
    let mut number = Zeroizing::new([0_u64; 4]);
    digits.bytes().all(|digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'Z' => digit - b'A' + 10,
            b'a'..=b'z' => digit - b'a' + 36,
            _ => return false,
        };
        let mut carry = u128::from(value);
        for limb in number.iter_mut() {
            carry += u128::from(*limb) * 62;
            *limb = (carry & u128::from(u64::MAX)) as u64;
            carry >>= 64;
        }
        carry == 0
    })
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

    /// 43 digits hold 2^256.03 numbers, and those past 32 bytes nobody writes.
    #[test]
    fn more_than_32_bytes_are_refused() {
        let written = |digits: &str| {
            let mut text = format!("ilk_own_{digits}");
            let check = crc32fast::hash(text.as_bytes()).to_be_bytes();
            push_base62(&mut text, &check, CHECK_DIGITS);
            text
        };
        let largest = Credential::new(Kind::Owner, &[0xff; 32]).expose()[8..8 + RANDOM_DIGITS].to_owned();
        assert!(Credential::parse(&written(&largest)).is_ok());
        let (head, last) = largest.split_at(RANDOM_DIGITS - 1);
        let next = ALPHABET.iter().position(|d| last.as_bytes() == [*d]).expect("a digit") + 1;
        let beyond = format!("{head}{}", char::from(*ALPHABET.get(next).expect("not the last digit")));
        assert_eq!(Credential::parse(&written(&beyond)), Err(Malformed));
        assert_eq!(Credential::parse(&written(&"z".repeat(RANDOM_DIGITS))), Err(Malformed));
    }

    #[test]
    fn hostile_texts_are_refused() {
        for text in ["", "ilk_", "Bearer", &"x".repeat(TEXT_LEN), &"é".repeat(TEXT_LEN / 2)] {
            assert_eq!(Credential::parse(text), Err(Malformed));
        }
    }

    #[test]
    fn what_looks_like_a_credential_is_found_and_masked() {
        let made = Credential::new(Kind::Owner, &[42; 32]);
        let text = made.expose();
        let typo = format!("{}x", &text[..TEXT_LEN - 1]);
        for shown in [text, typo.as_str(), &text[..30], &format!("a={text};b"), &format!("ilk_ilk_x{text}")] {
            assert!(is_in(shown), "{shown}");
            let masked = String::from_utf8(masked(shown.as_bytes()).into_owned()).expect("text");
            assert!(masked.contains("ilk_own_…") && !is_in(&masked), "{masked}");
            assert!(!masked.contains(&text[8..20]), "{masked}");
        }
        let twice = format!("{text} and {text}.");
        assert_eq!(&*masked(twice.as_bytes()), "ilk_own_… and ilk_own_….".as_bytes());
        for plain in ["", "ilk_", "ilk_own", "ilk_own_", "ilk_own_short", "ilk_xyz_0123456789012345", "crd_1"]
        {
            assert!(!is_in(plain), "{plain}");
            assert!(matches!(masked(plain.as_bytes()), Cow::Borrowed(_)), "{plain}");
        }
        assert!(!is_in(&made.masked()));
    }

    #[test]
    fn debug_and_mask_keep_the_secret() {
        let made = Credential::new(Kind::Admin, &[9; 32]);
        assert_eq!(format!("{made:?}"), "Credential(adm)");
        assert!(made.masked().chars().count() == 9);
    }
}
