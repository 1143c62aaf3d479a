//! What a service's own certificate must be for others to take it: valid now, and of the right trust domain.
//!
//! TLS libraries judge the certificates of peers only. Without this a service would start, or go on after a
//! reload, with a certificate that everybody refuses.

use std::path::Path;

use rustls_pki_types::{
    CertificateDer,
    pem::{self, PemObject as _},
};

use crate::{
    clock::{Clock, Timestamp},
    config::Profile,
    secret_file,
    spiffe::{SpiffeError, TrustDomain, spiffe_id_of},
    tls::TlsError,
};

/// No certificate file is longer.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What is asked of it.
#[derive(Clone, Debug)]
pub struct OwnCertificate {
    /// By which it must be valid.
    pub clock: Clock,
    /// Of which its SPIFFE id must be, where it has one.
    pub trust_domain: Option<TrustDomain>,
    /// It is shown to services, which go by its SPIFFE id.
    pub must_name: bool,
}

impl OwnCertificate {
    /// Judges a leaf, DER.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judge(&self, der: &[u8]) -> Result<(), String> {
        let (_, leaf) = x509_parser::parse_x509_certificate(der).map_err(|e| e.to_string())?;
        let instant = |seconds: i64| Timestamp::from_micros(seconds.saturating_mul(1_000_000));
        let (from, until) =
            (instant(leaf.validity().not_before.timestamp()), instant(leaf.validity().not_after.timestamp()));
        let now = self.clock.now();
        if until.is_over(now) {
            return Err(format!("expired at {until}; issue a new one"));
        }
        if now < from {
            return Err(format!("not valid before {from}, and it is {now}; wait, or set the clock"));
        }
        match (spiffe_id_of(der), &self.trust_domain) {
            (Ok(id), Some(domain)) if id.trust_domain() != domain => {
                Err(format!("of {id}, and tls.trust_domain is {domain}; use one of that domain"))
            }
            (Err(error), _) if self.must_name || error == SpiffeError::Certificate => {
                Err(format!("{error}; services are known by their SPIFFE id"))
            }
            _ => Ok(()),
        }
    }

    /// Judges the first certificate of a PEM file.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn judge_file(&self, path: &Path) -> Result<(), TlsError> {
        let wrong = |why| TlsError::File { what: "certificate", path: path.to_owned(), why };
        let pem = secret_file::read(path, FILE_BYTES_MAX, Profile::Local)
            .map_err(|source| TlsError::Secret { what: "certificate", source })?;
        let leaf = CertificateDer::from_pem_slice(&pem.contents).map_err(|error| {
            wrong(match error {
                pem::Error::NoItemsFound => "holds no certificate".to_owned(),
                error => error.to_string(),
            })
        })?;
        self.judge(&leaf).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pki::{Leaf, Pki};

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_certificate_that_peers_would_refuse_is_refused_here() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_micros(1_900_000_000_000_000);
        let pki = Pki::create(folder.path(), "one.test".parse().expect("good"), now).expect("made");
        let judged = |leaf: &Leaf, domain: &str| {
            let own = OwnCertificate {
                clock: Clock::manual(now),
                trust_domain: Some(domain.parse().expect("good")),
                must_name: true,
            };
            own.judge_file(&pki.issue(leaf).expect("issued").cert).map_err(|error| error.to_string())
        };
        let good = Leaf::new("auth", now);
        assert_eq!(judged(&good, "one.test"), Ok(()));
        let refused = |leaf: &Leaf, domain: &str| judged(leaf, domain).expect_err("refused");
        assert!(refused(&good, "two.test").contains("tls.trust_domain is two.test"));
        let ended = Leaf { not_before: now.before(HOUR * 2), validity: HOUR, ..good.clone() };
        assert!(refused(&ended, "one.test").contains("expired at"));
        let early = Leaf { not_before: now.after(HOUR), ..good };
        assert!(refused(&early, "one.test").contains("not valid before"));
    }
}
