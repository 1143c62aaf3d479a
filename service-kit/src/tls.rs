//! TLS of a listener: a rustls configuration of our own, loaded from files and swappable while the
//! server runs.
//!
//! The accept loop reads [`Tls::config`] at each connection, so a reload is seen by the next one. A
//! file that cannot be used leaves the last good set in place. TLS 1.3 (RFC 8446) only, unless a
//! public listener says otherwise; ALPN (RFC 7301) is exactly `h2`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject};
use sha2::{Digest as _, Sha256};

use crate::{
    clock::Timestamp,
    config::{self, Profile, TlsVersion},
    own_certificate::OwnCertificate,
    secret_file::{self, SecretFileError},
};

/// No file of these is larger, bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The one protocol that is spoken inside TLS. RFC 9113 section 3.1.
pub(crate) const ALPN_H2: &[u8] = b"h2";

/// Where the files are. All PEM.
#[derive(Clone, Debug)]
pub struct TlsPaths {
    /// The server's certificate, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that client certificates must descend from. Required on an internal listener.
    pub client_ca: Option<PathBuf>,
    /// Revoked client certificates. RFC 5280 section 5.
    pub client_crl: Option<PathBuf>,
}

/// What a listener asks of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsKind {
    /// A client certificate may be shown; none is needed.
    Public {
        /// Whether TLS 1.2 is accepted beside 1.3.
        tls12: bool,
    },
    /// A client certificate is required; no session is resumed, so that a changed authority holds
    /// from the next connection on.
    Internal,
}

impl From<&config::Tls> for TlsPaths {
    fn from(config: &config::Tls) -> Self {
        Self {
            certificate: config.cert.clone(),
            key: config.key.clone(),
            client_ca: config.client_ca.clone(),
            client_crl: config.client_crl.clone(),
        }
    }
}

impl From<TlsVersion> for TlsKind {
    /// A public listener that takes this version and later ones.
    fn from(lowest: TlsVersion) -> Self {
        Self::Public { tls12: lowest == TlsVersion::V1_2 }
    }
}

impl TlsKind {
    fn label(self) -> &'static str {
        match self {
            Self::Public { .. } => "public",
            Self::Internal => "internal",
        }
    }
}

/// Files do not make a TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of what it should.
    #[error("{what} {path}: {why}")]
    File {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it. Never its content.
        why: String,
    },
    /// A file cannot be read, or must not be.
    #[error("{what} {source}")]
    Secret {
        /// What the file is for.
        what: &'static str,
        /// What is wrong.
        source: SecretFileError,
    },
    /// An internal listener without an authority for client certificates.
    #[error("an internal listener needs a client CA file")]
    NoClientCa,
    /// The files are readable but do not fit together.
    #[error("{0}")]
    Unusable(String),
}

/// The TLS configuration of one listener.
#[derive(Debug)]
pub struct Tls {
    paths: TlsPaths,
    kind: TlsKind,
    profile: Profile,
    own: Option<OwnCertificate>,
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// The server's own certificate.
    leaf: CertificateDer<'static>,
    not_after: Timestamp,
    /// Of all files: tells whether a reload changed anything.
    digest: [u8; 32],
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], naming the file; also where others can read the key in profile `hardened`.
    pub fn load(paths: TlsPaths, kind: TlsKind, profile: Profile) -> Result<Self, TlsError> {
        let loaded = read(&paths, kind, profile)?;
        show(kind, &loaded);
        Ok(Self { paths, kind, profile, own: None, current: ArcSwap::from_pointee(loaded) })
    }

    /// Takes no certificate of its own, now or at a reload, but one that peers will take.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn judged(self, own: OwnCertificate) -> Result<Self, TlsError> {
        let judged = Self { own: Some(own), ..self };
        judged.judge(&judged.current.load())?;
        Ok(judged)
    }

    fn judge(&self, loaded: &Loaded) -> Result<(), TlsError> {
        let Some(own) = &self.own else { return Ok(()) };
        own.judge(&loaded.leaf).map_err(|why| file(CERTIFICATE, &self.paths.certificate, why))
    }

    /// Reads the files again; says whether anything changed. New connections use what is new; open
    /// ones stay as they are.
    ///
    /// # Errors
    /// [`TlsError`]: the last good set stays in use, and `tls_reload_failures` grows.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let fresh = || {
            let loaded = read(&self.paths, self.kind, self.profile)?;
            self.judge(&loaded).map(|()| loaded)
        };
        let loaded = fresh().inspect_err(|_| {
            metrics::counter!("tls_reload_failures", "listener" => self.kind.label()).increment(1);
        })?;
        show(self.kind, &loaded);
        let changed = loaded.digest != self.current.load().digest;
        if changed {
            self.current.store(Arc::new(loaded));
        }
        Ok(changed)
    }

    /// What the next connection uses.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// When the server's own certificate ends.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.current.load().not_after
    }

    /// The files that are read: what a watcher watches.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let optional = [&self.paths.client_ca, &self.paths.client_crl];
        let mut files = vec![self.paths.certificate.clone(), self.paths.key.clone()];
        files.extend(optional.into_iter().flatten().cloned());
        files
    }
}

fn show(kind: TlsKind, loaded: &Loaded) {
    #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch are far below 2^52")]
    let seconds = (loaded.not_after.as_micros() / 1_000_000) as f64;
    metrics::gauge!("cert_not_after", "listener" => kind.label()).set(seconds);
}

fn read(paths: &TlsPaths, kind: TlsKind, profile: Profile) -> Result<Loaded, TlsError> {
    let mut digest = Sha256::new();
    let mut open = |what, path: &Path, profile| {
        let secret = secret_file::read(path, FILE_BYTES_MAX, profile)
            .map_err(|source| TlsError::Secret { what, source })?;
        if let Some(exposed) = secret.exposed.as_ref().filter(|_| what == KEY) {
            tracing::warn!("{exposed}");
        }
        digest.update(&secret.contents);
        Ok::<_, TlsError>(secret.contents)
    };
    // Only the key is a secret: who may read the others does not matter.
    let chain = certificates(
        CERTIFICATE,
        &paths.certificate,
        &open(CERTIFICATE, &paths.certificate, Profile::Local)?,
    )?;
    let leaf = chain[0].clone();
    let not_after = certificate_end(&leaf).map_err(|why| file(CERTIFICATE, &paths.certificate, why))?;
    let key = PrivateKeyDer::from_pem_slice(&open(KEY, &paths.key, profile)?)
        .map_err(|e| file(KEY, &paths.key, e.to_string()))?;

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = match &paths.client_ca {
        None if kind == TlsKind::Internal => return Err(TlsError::NoClientCa),
        None => None,
        Some(ca) => {
            let authorities = certificates(CLIENT_CA, ca, &open(CLIENT_CA, ca, Profile::Local)?)?;
            let revoked = match &paths.client_crl {
                None => Vec::new(),
                Some(crl) => revocations(crl, &open(CLIENT_CRL, crl, Profile::Local)?)?,
            };
            let optional = kind != TlsKind::Internal;
            let verifier = client_verifier(authorities, revoked, optional, Arc::clone(&provider));
            Some(verifier.map_err(|why| file(CLIENT_CA, ca, why))?)
        }
    };
    let versions: &[_] = match kind {
        TlsKind::Public { tls12: true } => &[&TLS13, &TLS12],
        TlsKind::Public { tls12: false } | TlsKind::Internal => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| TlsError::Unusable(e.to_string()))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|e| file(KEY, &paths.key, format!("does not fit {}: {e}", paths.certificate.display())))?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    if kind == TlsKind::Internal {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Loaded { config: Arc::new(config), leaf, not_after, digest: digest.finalize().into() })
}

const CERTIFICATE: &str = "certificate";
const KEY: &str = "private key";
const CLIENT_CA: &str = "client CA";
const CLIENT_CRL: &str = "client CRL";

fn client_verifier(
    authorities: Vec<CertificateDer<'static>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    optional: bool,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|e| e.to_string())?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if !revoked.is_empty() {
        builder = builder.with_crls(revoked).allow_unknown_revocation_status();
    }
    if optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|e| e.to_string())
}

fn certificates(
    what: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|e| file(what, path, e.to_string()))?;
    if found.is_empty() { Err(file(what, path, "holds no certificate".to_owned())) } else { Ok(found) }
}

fn revocations(path: &Path, pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|e| file(CLIENT_CRL, path, e.to_string()))?;
    // A file that is empty, or cut off while it is written, must not admit who is revoked.
    if found.is_empty() {
        Err(file(CLIENT_CRL, path, "holds no revocation list".to_owned()))
    } else {
        Ok(found)
    }
}

/// When a certificate ends (`notAfter`, RFC 5280 section 4.1.2.5).
///
/// # Errors
/// What is wrong with it, where it is no certificate.
pub fn certificate_end(der: &[u8]) -> Result<Timestamp, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|e| e.to_string())?;
    Ok(Timestamp::from_micros(parsed.validity().not_after.timestamp().saturating_mul(1_000_000)))
}

fn file(what: &'static str, path: &Path, why: String) -> TlsError {
    TlsError::File { what, path: path.to_owned(), why }
}
