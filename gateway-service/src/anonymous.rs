//! Callers with no credential at all, where the configuration lets them make sessions (`allow_anonymous`; DESIGN 4): they
//! act as the built-in owner `local`, as whom nobody signs in, and get their session's cookie and nothing else.
//!
//! What bounds them: a budget by source, here, and the quota of sessions of `local` like that of any owner.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use interlock_kit::{authn::Source, error::Error};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{guesses, ids::RequestId};

/// Sessions that one source makes at once; one more each second after them.
const AT_ONCE: NonZeroU32 = NonZeroU32::new(10).expect("not zero");
/// What sources beyond the bound on entries share.
const OTHERS_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).expect("not zero");
/// The least bytes of a request id that nobody can guess: those of 128 bits in hexadecimal digits.
const REQUEST_ID_BYTES_MIN: usize = 32;

/// Counts what is made with no credential.
#[derive(Debug)]
pub(crate) struct Anonymous {
    by_source: DefaultKeyedRateLimiter<Source>,
    others: DefaultDirectRateLimiter,
}

impl Anonymous {
    pub(crate) fn new() -> Self {
        let quota = Quota::per_second(NonZeroU32::MIN).allow_burst(AT_ONCE);
        Self {
            by_source: RateLimiter::keyed(quota),
            others: RateLimiter::direct(Quota::per_second(OTHERS_PER_SECOND)),
        }
    }

    /// Spends one call of a source.
    ///
    /// # Errors
    /// `RATE_LIMITED` with the time to wait.
    pub(crate) fn spend(&self, source: Source) -> Result<(), Error> {
        guesses::spend(&self.by_source, &source, &self.others)
    }
}

/// How a retry with no credential is known: by its request id, which only the caller has. What its answer is sealed
/// under, and what is stored in place of the id, so that whoever reads the store opens nothing.
///
/// # Errors
/// `INVALID_FIELD` where it is short enough to be guessed.
pub(crate) fn retried_by(request: &RequestId) -> Result<(Zeroizing<String>, RequestId), Error> {
    let secret = Zeroizing::new(request.as_str().to_owned());
    if secret.len() < REQUEST_ID_BYTES_MIN {
        let accepted = "32 to 64 bytes that nobody can guess, from a caller with no credential";
        return Err(Error::invalid_field("request_id", accepted));
    }
    let digest = Sha256::digest(secret.as_bytes());
    let stored = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok((secret, RequestId::parse(stored)?))
}

#[cfg(test)]
mod tests {
    use interlock_kit::error::Reason;

    use super::*;

    #[test]
    fn a_source_has_a_budget_of_its_own() {
        let anonymous = Anonymous::new();
        let source = |last: u8| Source::of([192, 0, 2, last].into());
        let made = (0..50).filter(|_| anonymous.spend(source(1)).is_ok()).count();
        assert!((10..=11).contains(&made), "{made}");
        let refused = anonymous.spend(source(1)).expect_err("spent");
        assert_eq!(refused.reason(), Reason::RateLimited);
        assert!(refused.retry_delay().is_some());
        anonymous.spend(source(2)).expect("another source");
    }

    #[test]
    fn what_is_stored_of_a_request_id_is_not_the_id_and_a_short_one_is_refused() {
        let id = RequestId::parse("0123456789abcdef0123456789abcdef").expect("a label");
        let (secret, stored) = retried_by(&id).expect("long enough");
        assert_eq!(secret.as_str(), id.as_str());
        assert!(stored.as_str().len() == 64 && !stored.as_str().contains(id.as_str()), "{stored}");
        let (_, again) = retried_by(&id).expect("the same");
        assert_eq!(stored, again);
        let short = RequestId::parse("0123456789abcdef0123456789abcde").expect("a label");
        assert_eq!(retried_by(&short).expect_err("guessable").reason(), Reason::InvalidField);
    }
}
