//! TLS of a client: which server is believed, and by which certificate this program is known.
//!
//! The files are read again before each connection: a renewed certificate, key or CA takes effect at
//! the next one, with no restart. A bad file keeps the last good set and is logged.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, RootCertStore, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use zeroize::Zeroizing;

/// Which files TLS stands on. TLS 1.3 only; ALPN `h2`.
#[derive(Clone, Debug)]
pub struct Tls {
    ca: PathBuf,
    identity: Option<(PathBuf, PathBuf)>,
    server_name: Option<String>,
}

impl Tls {
    /// Believes servers whose certificate chains to one of this PEM file.
    #[must_use]
    pub fn ca_file(path: impl Into<PathBuf>) -> Self {
        Self { ca: path.into(), identity: None, server_name: None }
    }

    /// Shows this certificate (PEM, leaf first) with this key (PEM) to servers that ask.
    #[must_use]
    pub fn identity_files(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// Expects this name in the server's certificate, instead of the endpoint's host.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The name to expect from the server at `host`.
    pub(crate) fn name_of(&self, host: &str) -> io::Result<ServerName<'static>> {
        let name = self.server_name.as_deref().unwrap_or(host).to_owned();
        ServerName::try_from(name).map_err(|_| io::Error::other("the server name is no host name"))
    }
}

/// The files as they were read. Compared to see a change.
#[derive(PartialEq, Eq)]
struct Files {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

struct Loaded {
    files: Files,
    config: Arc<ClientConfig>,
}

/// A TLS configuration that follows its files.
pub(crate) struct Source {
    tls: Tls,
    good: ArcSwap<Loaded>,
}

impl Source {
    /// Reads the files for the first time: bad ones are an error.
    pub(crate) fn load(tls: Tls) -> io::Result<Self> {
        let files = Files::read(&tls)?;
        let config = configure(&files, &tls)?;
        Ok(Self { tls, good: ArcSwap::from_pointee(Loaded { files, config }) })
    }

    /// The configuration for the next connection.
    pub(crate) async fn current(self: &Arc<Self>) -> Arc<ClientConfig> {
        let source = Arc::clone(self);
        // A few small files, but on a disk that may be slow.
        let renewed = tokio::task::spawn_blocking(move || source.reload()).await;
        match renewed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "TLS files not taken: the last good set stays"),
            Err(_) => tracing::warn!("reading TLS files was cut short: the last good set stays"),
        }
        Arc::clone(&self.good.load().config)
    }

    fn reload(&self) -> io::Result<()> {
        let files = Files::read(&self.tls)?;
        if self.good.load().files != files {
            let config = configure(&files, &self.tls)?;
            self.good.store(Arc::new(Loaded { files, config }));
            tracing::info!("TLS files read again");
        }
        Ok(())
    }

    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tls.fmt(f)
    }
}

impl Files {
    fn read(tls: &Tls) -> io::Result<Self> {
        let (certificate, key) = match &tls.identity {
            Some((certificate, key)) => (read(certificate)?, Zeroizing::new(read(key)?)),
            None => (Vec::new(), Zeroizing::default()),
        };
        Ok(Self { ca: read(&tls.ca)?, certificate, key })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

fn configure(files: &Files, tls: &Tls) -> io::Result<Arc<ClientConfig>> {
    let ca = || format!("CA file {}", tls.ca.display());
    let (certificate, key) = match &tls.identity {
        Some((certificate, key)) => (certificate.display().to_string(), key.display().to_string()),
        None => Default::default(),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&files.ca) {
        roots.add(certificate.map_err(bad(ca()))?).map_err(bad(ca()))?;
    }
    if roots.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no certificate", ca())));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(bad("TLS versions".to_owned()))?
        .with_root_certificates(roots);
    let mut config = if files.certificate.is_empty() {
        builder.with_no_client_auth()
    } else {
        let chain = CertificateDer::pem_slice_iter(&files.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(bad(format!("certificate file {certificate}")))?;
        let secret = PrivateKeyDer::from_pem_slice(&files.key).map_err(bad(format!("key file {key}")))?;
        let both = format!("certificate {certificate} with key {key}");
        builder.with_client_auth_cert(chain, secret).map_err(bad(both))?
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn bad<E: fmt::Display>(what: String) -> impl Fn(E) -> io::Error {
    move |error| io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {error}"))
}
