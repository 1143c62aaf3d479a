//! A certificate authority for development and tests: a folder with `ca.pem`, `ca.key` and the leaves.
//!
//! Leaves are X509-SVIDs (SPIFFE): one URI SAN `spiffe://<trust domain>/<name>`, beside the DNS names and the
//! loopback addresses that clients connect to. Keys are ECDSA P-256, files of mode 0600.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use thiserror::Error;
use x509_parser::prelude::FromDer as _;

pub use crate::spiffe::{SpiffeError, SpiffeId, TrustDomain, spiffe_id_of};
use crate::{
    clock::Timestamp,
    config::Profile,
    secret_file::{self, SecretFileError},
    spiffe::only_uri_san,
};

const DAY: Duration = Duration::from_secs(86_400);
/// How long an authority is valid.
const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long a leaf is valid unless said otherwise.
const LEAF_VALIDITY: Duration = Duration::from_secs(365 * 86_400);
/// Clocks of machines differ by less.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// No PEM file that we read is longer.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Why certificates could not be made or read.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The folder has an authority already.
    #[error("{path}: has a certificate authority already; it is never overwritten", path = .0.display())]
    Exists(PathBuf),
    /// A name is not one path segment of a SPIFFE id, or is the authority's.
    #[error("{0:?} cannot be the name of a certificate")]
    Name(String),
    /// The authority's certificate does not say its trust domain.
    #[error("the authority's certificate: {0}")]
    Spiffe(#[from] SpiffeError),
    /// A certificate or a key is malformed, or could not be made.
    #[error("{what}: {why}")]
    Certificate {
        /// Which.
        what: String,
        /// Why.
        why: String,
    },
}

/// A certificate authority in a folder.
pub struct Pki {
    folder: PathBuf,
    trust_domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
}

/// What a leaf certificate says.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The service: names the files and is the path of the SPIFFE id.
    pub name: String,
    /// Host names beside `localhost`.
    pub dns: Vec<String>,
    /// Addresses beside 127.0.0.1 and ::1.
    pub addresses: Vec<IpAddr>,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// For how long.
    pub validity: Duration,
    /// May be used as a client; every leaf may be used as a server.
    pub client: bool,
}

/// The files of an issued certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Who it is for.
    pub id: SpiffeId,
}

impl Leaf {
    /// A leaf for a service: server and client, for `localhost`, for a year from five minutes ago.
    #[must_use]
    pub fn new(name: impl Into<String>, now: Timestamp) -> Self {
        Self {
            name: name.into(),
            dns: Vec::new(),
            addresses: Vec::new(),
            not_before: now.before(CLOCK_SKEW),
            validity: LEAF_VALIDITY,
            client: true,
        }
    }

    /// Also for these host names.
    #[must_use]
    pub fn dns(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.dns.extend(names);
        self
    }
}

impl Pki {
    /// Makes an authority in a folder, which is made where it does not exist.
    ///
    /// # Errors
    /// [`PkiError::Exists`] where there is one; [`PkiError::File`]
    pub fn create(folder: &Path, trust_domain: TrustDomain, now: Timestamp) -> Result<Self, PkiError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| SecretFileError::Write { path: folder.to_owned(), source })?;
        let (cert_path, key_path) = ca_paths(folder);
        if cert_path.exists() || key_path.exists() {
            return Err(PkiError::Exists(folder.to_owned()));
        }
        let failed = |e: rcgen::Error| fault(&"authority", &e);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("Interlock development CA of {trust_domain}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
        set_validity(&mut params, now.before(CLOCK_SKEW), CA_VALIDITY);
        let cert = params.self_signed(&key).map_err(failed)?;
        // The key first: a crash in between leaves no authority, and says so at the next attempt.
        secret_file::create(&key_path, key.serialize_pem().as_bytes())?;
        secret_file::write_open(&cert_path, cert.pem().as_bytes())?;
        Ok(Self { folder: folder.to_owned(), trust_domain, issuer: Issuer::new(params, key) })
    }

    /// Reads the authority of a folder.
    ///
    /// # Errors
    /// [`PkiError`] where it is missing, malformed, or says no trust domain.
    pub fn load(folder: &Path) -> Result<Self, PkiError> {
        let (cert_path, key_path) = ca_paths(folder);
        let pem = secret_file::read(&cert_path, PEM_BYTES_MAX, Profile::Local)?.contents;
        let der = CertificateDer::from_pem_slice(&pem).map_err(|e| fault(&cert_path.display(), &e))?;
        let trust_domain = TrustDomain::from_authority_id(&only_uri_san(&der)?)?;
        let key = secret_file::read(&key_path, PEM_BYTES_MAX, Profile::Local)?.contents;
        let key = std::str::from_utf8(&key).map_err(|e| fault(&key_path.display(), &e))?;
        let key = KeyPair::from_pem(key).map_err(|e| fault(&key_path.display(), &e))?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| fault(&cert_path.display(), &e))?;
        Ok(Self { folder: folder.to_owned(), trust_domain, issuer })
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        ca_paths(&self.folder).0
    }

    /// What its certificates speak for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Issues a certificate with a new key as `<name>.pem` and `<name>.key`; replaces an earlier one.
    ///
    /// # Errors
    /// [`PkiError::Name`], [`PkiError::File`], [`PkiError::Certificate`]
    pub fn issue(&self, leaf: &Leaf) -> Result<Issued, PkiError> {
        let bad_name = || PkiError::Name(leaf.name.clone());
        let id = SpiffeId::new(&self.trust_domain, &leaf.name).map_err(|_| bad_name())?;
        if leaf.name == "ca" || leaf.name.contains('/') {
            return Err(bad_name());
        }
        let failed = |e: rcgen::Error| fault(&leaf.name, &e);
        let key = KeyPair::generate().map_err(failed)?;
        let cert = self.params(leaf, &id)?.signed_by(&key, &self.issuer).map_err(failed)?;
        let issued = Issued {
            cert: self.folder.join(format!("{}.pem", leaf.name)),
            key: self.folder.join(format!("{}.key", leaf.name)),
            id,
        };
        secret_file::write(&issued.key, key.serialize_pem().as_bytes())?;
        secret_file::write_open(&issued.cert, cert.pem().as_bytes())?;
        Ok(issued)
    }

    fn params(&self, leaf: &Leaf, id: &SpiffeId) -> Result<CertificateParams, PkiError> {
        let mut names = leaf.dns.clone();
        names.push("localhost".to_owned());
        let mut params = CertificateParams::new(names).map_err(|e| fault(&leaf.name, &e))?;
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let addresses = loopback.iter().chain(&leaf.addresses);
        params.subject_alt_names.extend(addresses.map(|address| SanType::IpAddress(*address)));
        params.subject_alt_names.push(uri(&id.to_string())?);
        params.distinguished_name = common_name(&leaf.name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if leaf.client {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, leaf.not_before, leaf.validity);
        Ok(params)
    }
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// The instant at which the first certificate of a PEM text ends: for the metric `cert_not_after`.
///
/// # Errors
/// [`PkiError::Certificate`] where there is none.
pub fn not_after(pem: &[u8]) -> Result<Timestamp, PkiError> {
    let der = CertificateDer::from_pem_slice(pem).map_err(|e| fault(&"certificate", &e))?;
    let (_, certificate) =
        x509_parser::certificate::X509Certificate::from_der(&der).map_err(|e| fault(&"certificate", &e))?;
    let seconds = certificate.validity().not_after.timestamp();
    Ok(Timestamp::from_micros(seconds.saturating_mul(1_000_000)))
}

fn ca_paths(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("ca.pem"), folder.join("ca.key"))
}

fn fault(what: &impl ToString, why: &impl ToString) -> PkiError {
    PkiError::Certificate { what: what.to_string(), why: why.to_string() }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn uri(text: &str) -> Result<SanType, PkiError> {
    Ok(SanType::URI(text.try_into().map_err(|e: rcgen::Error| fault(&text, &e))?))
}

/// In whole seconds, as X.509 has them.
fn set_validity(params: &mut CertificateParams, from: Timestamp, validity: Duration) {
    let since_epoch = |at: Timestamp| {
        let seconds = u64::try_from(at.as_micros() / 1_000_000).unwrap_or(0);
        // X.509 knows four digits of a year.
        Duration::from_secs(seconds).min(DAY * 365 * 8_000)
    };
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(from);
    params.not_after = epoch + since_epoch(from.after(validity));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_micros(1_900_000_000_000_000)
    }

    fn domain() -> TrustDomain {
        "dev.interlock".parse().expect("good")
    }

    fn der(path: &Path) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(path).expect("a certificate")
    }

    #[test]
    fn leaves_say_who_they_are_for_and_how_long() {
        let folder = tempfile::tempdir().expect("a folder");
        Pki::create(folder.path(), domain(), now()).expect("made");
        let pki = Pki::load(folder.path()).expect("read");
        assert_eq!(pki.trust_domain(), &domain());
        let issued = pki.issue(&Leaf::new("gateway", now()).dns(["gw.test".to_owned()])).expect("issued");
        assert_eq!(spiffe_id_of(&der(&issued.cert)), Ok(issued.id.clone()));
        assert_eq!(issued.id.to_string(), "spiffe://dev.interlock/gateway");
        let pem = std::fs::read(&issued.cert).expect("read");
        assert_eq!(not_after(&pem).expect("read"), now().before(CLOCK_SKEW).after(LEAF_VALIDITY));
        let mode = std::fs::metadata(&issued.key).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(pki.issue(&Leaf::new("../ca", now())).is_err());
        assert!(pki.issue(&Leaf::new("ca", now())).is_err());
    }

    #[test]
    fn an_authority_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let pki = Pki::create(folder.path(), domain(), now()).expect("made");
        let before = std::fs::read(pki.ca()).expect("read");
        assert!(matches!(Pki::create(folder.path(), domain(), now()), Err(PkiError::Exists(_))));
        std::fs::remove_file(pki.ca()).expect("removed");
        assert!(matches!(Pki::create(folder.path(), domain(), now()), Err(PkiError::Exists(_))));
        std::fs::write(pki.ca(), before).expect("written");
        Pki::load(folder.path()).expect("still there");
    }

    #[test]
    fn a_chain_is_good_for_tls_and_an_expired_leaf_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let pki = Pki::create(folder.path(), domain(), now()).expect("made");
        let good = pki.issue(&Leaf::new("auth", now())).expect("issued");
        let late = Leaf { validity: DAY, not_before: now().before(DAY * 2), ..Leaf::new("late", now()) };
        let late = pki.issue(&late).expect("issued");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der(&pki.ca())).expect("an authority");
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .expect("a verifier");
        let at = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(1_900_000_000));
        verifier.verify_client_cert(&der(&good.cert), &[], at).expect("trusted");
        verifier.verify_client_cert(&der(&late.cert), &[], at).expect_err("expired");
    }

    #[test]
    fn not_exactly_one_uri_is_no_identity() {
        let key = KeyPair::generate().expect("a key");
        for uris in [&[][..], &["spiffe://a/b", "spiffe://a/c"][..]] {
            let mut params = CertificateParams::default();
            params.subject_alt_names = uris.iter().map(|u| uri(u).expect("ASCII")).collect();
            let cert = params.self_signed(&key).expect("made");
            assert_eq!(spiffe_id_of(cert.der()), Err(SpiffeError::UriSans));
        }
        assert_eq!(spiffe_id_of(b"junk"), Err(SpiffeError::Certificate));
    }
}
