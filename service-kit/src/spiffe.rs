//! SPIFFE ids: who a service is, as its certificate says.
//!
//! Parsed strictly by the SPIFFE-ID standard: scheme `spiffe`, a lower-case trust domain, a path of non-empty
//! segments; no port, user, query, fragment or escape; at most 2048 bytes.

use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

/// The standard's bound on a whole id, bytes.
const ID_BYTES_MAX: usize = 2_048;
/// The standard's bound on a trust domain, bytes.
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

const SCHEME: &str = "spiffe://";

/// Why something is not the SPIFFE id of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SpiffeError {
    /// Not a SPIFFE id by the standard.
    #[error("not a SPIFFE id")]
    Malformed,
    /// Not a trust domain by the standard.
    #[error("not a trust domain")]
    TrustDomain,
    /// Not an X.509 certificate.
    #[error("not a certificate")]
    Certificate,
    /// An X509-SVID has exactly one URI among its subject alternative names.
    #[error("the certificate has not exactly one URI SAN")]
    UriSans,
}

/// The part of the world that one authority speaks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The domain as the id that a signing certificate carries.
    pub(crate) fn from_authority_id(uri: &str) -> Result<Self, SpiffeError> {
        uri.strip_prefix(SCHEME).ok_or(SpiffeError::Malformed)?.parse()
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        let good = (1..=TRUST_DOMAIN_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed);
        if good { Ok(Self(text.to_owned())) } else { Err(SpiffeError::TrustDomain) }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a service: `spiffe://<trust domain>/<path>`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(Arc<Parts>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Parts {
    trust_domain: TrustDomain,
    /// Without the leading slash.
    path: String,
    /// The whole of it.
    text: String,
}

impl SpiffeId {
    /// The id of a service in a trust domain.
    ///
    /// # Errors
    /// [`SpiffeError::Malformed`] where the path is not one or more segments of letters, digits, `.`, `-`, `_`.
    pub fn new(trust_domain: &TrustDomain, path: &str) -> Result<Self, SpiffeError> {
        format!("{SCHEME}{trust_domain}/{path}").parse()
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// The path, without its leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > ID_BYTES_MAX {
            return Err(SpiffeError::Malformed);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Malformed)?;
        let (domain, path) = rest.split_once('/').ok_or(SpiffeError::Malformed)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(allowed);
        if !path.split('/').all(segment) {
            return Err(SpiffeError::Malformed);
        }
        let (trust_domain, path) = (domain.parse()?, path.to_owned());
        Ok(Self(Arc::new(Parts { trust_domain, path, text: text.to_owned() })))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The SPIFFE id that a leaf certificate (DER) is for. The chain is not checked here.
///
/// # Errors
/// [`SpiffeError`] where it is no certificate, has not exactly one URI SAN, or that is not a SPIFFE id.
pub fn spiffe_id_of(der: &[u8]) -> Result<SpiffeId, SpiffeError> {
    only_uri_san(der)?.parse()
}

/// The one URI among a certificate's subject alternative names.
pub(crate) fn only_uri_san(der: &[u8]) -> Result<String, SpiffeError> {
    let (rest, certificate) =
        x509_parser::certificate::X509Certificate::from_der(der).map_err(|_| SpiffeError::Certificate)?;
    if !rest.is_empty() {
        return Err(SpiffeError::Certificate);
    }
    let names = certificate.subject_alternative_name().map_err(|_| SpiffeError::Certificate)?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri.to_owned()),
        _ => Err(SpiffeError::UriSans),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_by_the_standard() {
        let id: SpiffeId = "spiffe://example.org/ns/prod/Gateway_1".parse().expect("good");
        assert_eq!((id.trust_domain().as_str(), id.path()), ("example.org", "ns/prod/Gateway_1"));
        assert_eq!(id.to_string(), "spiffe://example.org/ns/prod/Gateway_1");
        let long = format!("spiffe://a/{}", "b".repeat(ID_BYTES_MAX));
        for text in [
            "",
            "spiffe://",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe:///a",
            "SPIFFE://example.org/a",
            "https://example.org/a",
            "spiffe://Example.org/a",
            "spiffe://example.org:443/a",
            "spiffe://user@example.org/a",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a#b",
            "spiffe://example.org/a%20b",
            "spiffe://example.org/a//b",
            "spiffe://example.org/a/",
            "spiffe://example.org/./a",
            "spiffe://example.org/a/..",
            "spiffe://example.org/ä",
            long.as_str(),
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
