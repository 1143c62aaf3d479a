//! The text form of credentials: taken exactly where it is what 32 bytes are written as.

use interlock_proto::credential::{Credential, Kind, TEXT_LEN};

const KINDS: [Kind; 7] =
    [Kind::Admin, Kind::User, Kind::Owner, Kind::Refresh, Kind::Project, Kind::Client, Kind::Internal];
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const CHECK_DIGITS: usize = 6;

/// As a text, as 32 random bytes, and as digits with a good checksum put behind them.
///
/// # Panics
/// Where a text is taken that nobody writes, or one is refused that somebody wrote.
pub fn check(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        agrees(text);
    }
    let Some((kind, rest)) = data.split_first() else { return };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    if let Some(random) = rest.first_chunk::<32>() {
        let made = Credential::new(kind, random);
        assert_eq!(Credential::parse(made.expose()).as_ref(), Ok(&made));
        agrees(made.expose());
        if let Some((place, letter)) = rest.get(32).zip(rest.get(33)) {
            damaged(made.expose(), usize::from(*place) % TEXT_LEN, *letter);
        }
    }
    let digits: String =
        rest.iter().take(43).map(|byte| char::from(DIGITS[usize::from(*byte) % DIGITS.len()])).collect();
    let body = format!("ilk_{}_{digits}", kind.tag());
    agrees(&format!("{body}{}", checksum(&body)));
}

/// A single wrong character is always found.
fn damaged(text: &str, place: usize, letter: u8) {
    let mut bytes = text.as_bytes().to_vec();
    if bytes[place] == letter {
        return;
    }
    bytes[place] = letter;
    if let Ok(text) = String::from_utf8(bytes) {
        assert!(Credential::parse(&text).is_err(), "a damaged text was taken");
    }
}

fn agrees(text: &str) {
    let expected = written(text);
    match Credential::parse(text) {
        Ok(read) => {
            assert_eq!(read.expose(), text);
            assert!(expected == Some(read), "taken, though nobody writes it: {text:?}");
        }
        Err(_) => assert!(expected.is_none(), "refused, though it is well formed: {text:?}"),
    }
}

/// The credential that is written so, by an arithmetic of its own.
fn written(text: &str) -> Option<Credential> {
    let kind = KINDS.into_iter().find(|kind| text.starts_with(&format!("ilk_{}_", kind.tag())))?;
    let (body, check) = text.split_at_checked(text.len().checked_sub(CHECK_DIGITS)?)?;
    let digits = body.get("ilk_xxx_".len()..).filter(|digits| digits.len() == 43)?;
    let mut number = [0_u8; 32];
    for digit in digits.bytes() {
        let mut carry = u32::try_from(DIGITS.iter().position(|d| *d == digit)?).ok()?;
        for byte in number.iter_mut().rev() {
            carry += u32::from(*byte) * 62;
            *byte = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        if carry > 0 {
            return None;
        }
    }
    (check == checksum(body)).then(|| Credential::new(kind, &number))
}

/// CRC-32 as in ISO 3309, in six base62 digits.
fn checksum(body: &str) -> String {
    let mut crc = u32::MAX;
    for byte in body.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    crc = !crc;
    let mut digits = [b'0'; CHECK_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[usize::try_from(crc % 62).expect("small")];
        crc /= 62;
    }
    digits.map(char::from).iter().collect()
}
