//! Randomness comes in with commands; this is where it comes from.

use rand::{TryRng as _, rngs::SysRng};

/// Thirty-two random bytes of the operating system: one credential's worth.
///
/// # Panics
/// When the operating system gives no randomness: nothing safe can be done then.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    SysRng.try_fill_bytes(&mut out).expect("the operating system gives randomness");
    out
}

/// A new id: the prefix, `_`, and a UUID version 7 (RFC 9562) without hyphens: later ids sort later.
#[must_use]
pub fn id(prefix: &str) -> String {
    let mut digits = uuid::Uuid::encode_buffer();
    let digits = uuid::Uuid::now_v7().simple().encode_lower(&mut digits);
    [prefix, "_", digits].concat()
}
