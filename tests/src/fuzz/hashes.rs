//! Stored password hashes: their cost is bounded before anything is computed, and what is taken can be verified.

use futures_util::FutureExt as _;
use interlock_kit::hasher::{Hasher, Params, Priority, check_stored};

/// The most that one verification may cost (HARDENING, "Passwords and memory"): argon2id's memory in KiB, passes
/// and lanes; PBKDF2's iterations; bcrypt's cost.
const ARGON2: [u64; 3] = [256 << 10, 16, 4];
const PBKDF2: u64 = 2_000_000;
const BCRYPT: u64 = 14;

/// The text of a hash.
///
/// # Panics
/// Where a hash is taken that costs too much, or one that cannot be verified.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if check_stored(text).is_err() {
        return;
    }
    let (bounded, cheap) = cost(text);
    assert!(bounded, "it costs too much, and was taken: {text}");
    if cheap {
        let hasher = Hasher::inline(Params::cheap());
        let verified = hasher.verify(b"password".to_vec().into(), text.to_owned(), Priority::Known);
        let verified = verified.now_or_never().expect("inline");
        assert!(verified.is_ok(), "it was taken, and cannot be verified: {text}: {verified:?}");
    }
}

/// Whether a hash is within the bounds, and cheap enough to verify it here. Read loosely: any number that stands
/// where a cost does.
fn cost(text: &str) -> (bool, bool) {
    let numbers = |part: &str| -> Vec<u64> {
        let digits = part.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
        digits.map(|digits| digits.parse().unwrap_or(u64::MAX)).collect()
    };
    let parts: Vec<&str> = text.split('$').collect();
    match &parts[..] {
        ["", "argon2id", "v=19", cost, _, _] => {
            let cost = numbers(cost);
            let bounded = cost.len() == 3 && cost.iter().zip(ARGON2).all(|(n, max)| *n <= max);
            (bounded, cost.iter().product::<u64>() <= 256)
        }
        ["pbkdf2_sha256", iterations, _, _] => {
            let iterations = numbers(iterations);
            let most = iterations.iter().copied().max().unwrap_or(u64::MAX);
            (iterations.len() == 1 && most <= PBKDF2, most <= 100)
        }
        ["", _, cost, _] => {
            let cost = numbers(cost);
            let most = cost.iter().copied().max().unwrap_or(u64::MAX);
            (cost.len() == 1 && most <= BCRYPT, most <= 4)
        }
        _ => (false, false),
    }
}
