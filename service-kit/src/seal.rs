//! Sealing of answers that hold a secret, so that a retry can be given the same answer.
//!
//! The key comes from a secret that only the caller has (HKDF-SHA256, RFC 5869) under a label for the purpose;
//! the seal is AES-256-GCM (NIST SP 800-38D) and holds only in the context it was made in. A store that is read
//! by others gives nothing away.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit as _,
    aead::{Aead as _, Payload},
};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// The length of a nonce, bytes.
pub const NONCE_BYTES: usize = 12;

/// Keeps our keys apart from any other use of the same secret.
const DOMAIN: &str = "interlock seal v1";

/// Seals and opens under one key.
pub struct Seal(Aes256Gcm);

impl Seal {
    /// Under a secret of full strength (not a password), for the purpose that the label names.
    #[must_use]
    pub fn of(secret: &[u8], label: &str) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, secret)
            .expand_multi_info(&[DOMAIN.as_bytes(), b"\0", label.as_bytes()], key.as_mut())
            .expect("32 bytes are within HKDF's bound");
        Self(Aes256Gcm::new((&*key).into()))
    }

    /// Seals; the nonce must be random and is used once. The answer begins with it.
    #[must_use]
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], context: &[u8], plain: &[u8]) -> Vec<u8> {
        let sealed = self.0.encrypt(&nonce.into(), Payload { msg: plain, aad: context });
        let sealed = sealed.expect("the text is shorter than AES-GCM's bound of 64 GiB");
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens what was sealed under the same secret and label in the same context; `None` for anything else.
    #[must_use]
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        self.0.decrypt(nonce.into(), Payload { msg: sealed, aad: context }).ok().map(Zeroizing::new)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_secret_label_and_context_and_unaltered() {
        let sealed = Seal::of(b"secret", "refresh").seal([9; NONCE_BYTES], b"session 1", b"successor");
        let open = |secret: &[u8], label, context: &[u8], sealed: &[u8]| {
            Seal::of(secret, label).open(context, sealed).map(|plain| plain.to_vec())
        };
        assert_eq!(open(b"secret", "refresh", b"session 1", &sealed).as_deref(), Some(&b"successor"[..]));
        assert_eq!(open(b"other", "refresh", b"session 1", &sealed), None);
        assert_eq!(open(b"secret", "retry", b"session 1", &sealed), None);
        assert_eq!(open(b"secret", "refresh", b"session 2", &sealed), None);
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(open(b"secret", "refresh", b"session 1", &altered), None);
            assert_eq!(open(b"secret", "refresh", b"session 1", &sealed[..at]), None);
        }
        assert!(!sealed.windows(9).any(|w| w == b"successor"));
    }
}
