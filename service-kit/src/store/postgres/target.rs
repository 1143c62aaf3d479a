//! Where a database is and how it is spoken to: `postgres://user@host:port/database?sslmode=…`.
//!
//! Only what this program keeps its word on is accepted: TLS is verified in full or said to be off, nothing
//! between. No text of an error or of `Debug` holds the URL, since that may hold the password.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use super::{
    epoch::{FILE, Seen},
    opening::OpenError,
};
use crate::{config::Profile, secret_file};

/// Hosts of one URL: each is asked whenever a connection is made.
const HOSTS_MAX: usize = 8;
/// No file that a URL names is larger, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How long a connection may take to be made: it is tried again within a write's deadline.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// A peer that is silent for this long, with something unacknowledged, is gone.
const SILENT_MAX: Duration = Duration::from_secs(10);
/// An idle connection is asked for its life after this, and so often.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVES: u32 = 3;

/// What a URL of a database begins with.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
/// Where a URL names no port.
const PORT: u16 = 5432;

/// A database, and how to reach it. Clones share what they have seen of its hosts.
#[derive(Clone)]
pub struct Target {
    user: String,
    database: String,
    /// At least one; the database is on that one of them which takes writes.
    hosts: Vec<(Host, u16)>,
    /// As the URL has it.
    password: Option<Zeroizing<Vec<u8>>>,
    password_file: Option<PathBuf>,
    /// TLS, verified against these authorities; none: in the clear.
    authorities: Option<PathBuf>,
    profile: Profile,
    seen: Arc<Seen>,
}

/// Why a URL is refused. Never says what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not of the form.
    #[error("postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full&sslrootcert=FILE")]
    Form,
    /// A parameter that is not known or stands there twice.
    #[error("the parameters are sslmode, sslrootcert and password_file, each at most once")]
    Parameter,
    /// Encryption without knowing to whom, or with a condition.
    #[error("sslmode is verify-full or disable: the others encrypt without knowing to whom")]
    Mode,
    /// Nothing to verify against.
    #[error("sslmode=verify-full (the default) needs sslrootcert=FILE, the authorities in PEM")]
    NoAuthorities,
    /// Authorities that nothing is verified against.
    #[error("sslrootcert goes with sslmode=verify-full only")]
    UnusedAuthorities,
    /// In the clear over a network.
    #[error("sslmode=disable reaches beyond this machine, and the profile is hardened: use verify-full")]
    Clear,
    /// A path from nowhere.
    #[error("sslrootcert and password_file are absolute paths")]
    Relative,
    /// Two passwords.
    #[error("a password or password_file, not both")]
    Passwords,
    /// More than are looked at.
    #[error("at most 8 hosts")]
    Hosts,
}

/// Why a connection could not be prepared.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpreparedError {
    #[error(transparent)]
    File(#[from] secret_file::SecretFileError),
    #[error("{}: {why}", path.display())]
    Authorities { path: PathBuf, why: String },
    #[error("{}: not a password of one line", path.display())]
    Password { path: PathBuf },
}

impl Target {
    /// Reads a URL. Opens nothing: files that it names are read at each connection, so they may change.
    ///
    /// # Errors
    /// [`TargetError`]
    pub fn parse(url: &str, profile: Profile) -> Result<Self, TargetError> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        if !SCHEMES.iter().any(|scheme| address.starts_with(scheme)) {
            return Err(TargetError::Form);
        }
        let config = Config::from_str(address).map_err(|_| TargetError::Form)?;
        let named = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let (Some(user), Some(database)) = (named(config.get_user()), named(config.get_dbname())) else {
            return Err(TargetError::Form);
        };
        let ports = config.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(PORT);
        let hosts: Vec<_> =
            config.get_hosts().iter().cloned().enumerate().map(|(at, h)| (h, port(at))).collect();
        if hosts.is_empty() {
            return Err(TargetError::Form);
        }
        if hosts.len() > HOSTS_MAX {
            return Err(TargetError::Hosts);
        }
        let Parameters { mode, authorities, password_file } = Parameters::read(query)?;
        let verified = match mode.as_deref() {
            Some("disable") => false,
            Some("verify-full") => true,
            Some(_) => return Err(TargetError::Mode),
            None => !hosts.iter().all(|(host, _)| is_socket(host)),
        };
        match (verified, &authorities) {
            (true, None) => return Err(TargetError::NoAuthorities),
            (false, Some(_)) => return Err(TargetError::UnusedAuthorities),
            (true, Some(_)) | (false, None) => {}
        }
        let leaves = !hosts.iter().all(|(host, _)| is_on_this_machine(host));
        if !verified && profile == Profile::Hardened && leaves {
            return Err(TargetError::Clear);
        }
        if [&authorities, &password_file].into_iter().flatten().any(|p| p.is_relative()) {
            return Err(TargetError::Relative);
        }
        let password = config.get_password().map(|password| Zeroizing::new(password.to_owned()));
        if password_file.is_some() && password.is_some() {
            return Err(TargetError::Passwords);
        }
        let seen = Arc::new(Seen::default());
        Ok(Self { user, database, hosts, password, password_file, authorities, profile, seen })
    }

    /// Keeps in `store.epoch` in this folder which epoch of the store was seen last, and goes by what stands there: so a
    /// program that starts again knows an old primary that has come back. Shared by all clones. Written once the store
    /// is open.
    ///
    /// # Errors
    /// [`OpenError::Epoch`] for a file that cannot be read, or that says something else.
    pub fn remember_in(&self, folder: &Path) -> Result<(), OpenError> {
        self.seen.remember_in(&folder.join(FILE))
    }

    /// What was seen of the hosts.
    pub(super) fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// How many hosts it has.
    pub(super) fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// One of them, for people.
    pub(super) fn host(&self, at: usize) -> String {
        let (host, port) = &self.hosts[at];
        match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => format!("{}:{port}", path.display()),
        }
    }

    /// The database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Who uses it.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Another database of the same server.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        Self { database: name.to_owned(), ..self.clone() }
    }

    /// The same with the password in this file, and none in the URL.
    #[must_use]
    pub fn with_password_file(&self, file: &Path) -> Self {
        Self { password: None, password_file: Some(file.to_owned()), ..self.clone() }
    }

    /// The password that the URL itself held.
    #[must_use]
    pub fn password(&self) -> Option<&[u8]> {
        self.password.as_ref().map(|password| password.as_slice())
    }

    /// The URL, without a password that it held: one that [`Target::parse`] takes.
    #[must_use]
    pub fn url(&self) -> String {
        let coded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let hosts: Vec<_> = (0..self.hosts.len())
            .map(|at| match &self.hosts[at] {
                (Host::Unix(path), port) => format!("{}:{port}", coded(&path.to_string_lossy())),
                _ => self.host(at),
            })
            .collect();
        let mode = if self.authorities.is_some() { "verify-full" } else { "disable" };
        let mut url = format!(
            "postgres://{}@{}/{}?sslmode={mode}",
            coded(&self.user),
            hosts.join(","),
            coded(&self.database)
        );
        for (name, path) in [("sslrootcert", &self.authorities), ("password_file", &self.password_file)] {
            if let Some(path) = path {
                url.push_str(&format!("&{name}={}", coded(&path.to_string_lossy())));
            }
        }
        url
    }

    /// Whether the URL itself holds a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// What connections are made from, with these settings of their sessions: one for each host.
    pub(super) fn prepare(
        &self,
        settings: &str,
    ) -> Result<(Vec<Config>, MakeRustlsConnect), UnpreparedError> {
        let mut common = Config::new();
        common
            .user(&self.user)
            .dbname(&self.database)
            .options(settings)
            .ssl_mode(if self.authorities.is_some() { SslMode::Require } else { SslMode::Disable })
            .application_name("interlock")
            .connect_timeout(CONNECT_WITHIN)
            .tcp_user_timeout(SILENT_MAX)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE)
            .keepalives_retries(KEEPALIVES);
        match (&self.password_file, &self.password) {
            (Some(path), _) => common.password(password(path, self.profile)?.as_bytes()),
            (None, Some(password)) => common.password(password.as_slice()),
            (None, None) => &mut common,
        };
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.authorities {
            add_authorities(&mut roots, path)
                .map_err(|why| UnpreparedError::Authorities { path: path.clone(), why })?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let of_host = |(host, port): &(Host, u16)| {
            let mut config = common.clone();
            match host {
                Host::Tcp(name) => config.host(name),
                Host::Unix(path) => config.host_path(path),
            };
            config.port(*port);
            config
        };
        Ok((self.hosts.iter().map(of_host).collect(), MakeRustlsConnect::new(tls)))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = (0..self.hosts.len()).map(|at| self.host(at)).collect();
        write!(f, "postgres://{}@{}/{}", self.user, hosts.join(","), self.database)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// What stands after the question mark.
#[derive(Default)]
struct Parameters {
    mode: Option<String>,
    authorities: Option<PathBuf>,
    password_file: Option<PathBuf>,
}

impl Parameters {
    fn read(query: &str) -> Result<Self, TargetError> {
        let mut read = Self::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or(TargetError::Parameter)?;
            let value = percent_decode_str(value).decode_utf8().map_err(|_| TargetError::Form)?.into_owned();
            let twice = match name {
                _ if value.is_empty() => return Err(TargetError::Parameter),
                "sslmode" => read.mode.replace(value).is_some(),
                "sslrootcert" => read.authorities.replace(value.into()).is_some(),
                "password_file" => read.password_file.replace(value.into()).is_some(),
                _ => return Err(TargetError::Parameter),
            };
            if twice {
                return Err(TargetError::Parameter);
            }
        }
        Ok(read)
    }
}

fn is_socket(host: &Host) -> bool {
    matches!(host, Host::Unix(_))
}

fn is_on_this_machine(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let address: Result<std::net::IpAddr, _> = name.trim_matches(['[', ']']).parse();
            address.is_ok_and(|address| address.is_loopback())
        }
    }
}

/// One line; its end is not a part of it.
fn password(path: &Path, profile: Profile) -> Result<Zeroizing<String>, UnpreparedError> {
    let refused = || UnpreparedError::Password { path: path.to_owned() };
    let secret = secret_file::read(path, FILE_BYTES_MAX, profile)?;
    if let Some(exposed) = &secret.exposed {
        tracing::warn!("{exposed}");
    }
    let text = std::str::from_utf8(&secret.contents).map_err(|_| refused())?.trim_end_matches(['\r', '\n']);
    if text.is_empty() || text.contains(['\r', '\n', '\0']) {
        return Err(refused());
    }
    Ok(Zeroizing::new(text.to_owned()))
}

fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    // No secret: others may read it.
    let pem = secret_file::read(path, FILE_BYTES_MAX, Profile::Local).map_err(|error| error.to_string())?;
    for certificate in CertificateDer::pem_slice_iter(&pem.contents) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target, TargetError> {
        Target::parse(url, Profile::Hardened)
    }

    #[test]
    fn what_is_accepted_is_verified_or_does_not_leave_the_machine() {
        for url in [
            "postgres://u@db:5432/d?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            "postgresql://u@db/d?sslrootcert=/etc/ca.pem",
            "postgres://u@a:1,b:2/d?sslrootcert=/etc/ca.pem&password_file=/run/p%20w",
            "postgres://u:secret@127.0.0.1:5432/d?sslmode=disable",
            "postgres://u@%2Frun%2Fpostgresql/d",
        ] {
            parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        }
        Target::parse("postgres://u@db/d?sslmode=disable", Profile::Local).expect("said plainly");
    }

    #[test]
    fn what_is_refused_is_said_without_the_url() {
        use TargetError::{
            Clear, Form, Hosts, Mode, NoAuthorities, Parameter, Passwords, Relative, UnusedAuthorities,
        };
        for (url, expected) in [
            ("", Form),
            ("mysql://u:secret@db/d", Form),
            ("host=db user=u password=secret", Form),
            ("postgres://u:secret@db", Form),
            ("postgres://db/d", Form),
            ("postgres://u:secret@/d", Form),
            ("postgres://u:secret@db:many/d", Form),
            ("postgres://u:secret@db/d?sslmode", Parameter),
            ("postgres://u:secret@db/d?sslmode=", Parameter),
            ("postgres://u:secret@db/d?sslmode=disable&sslmode=verify-full", Parameter),
            ("postgres://u@db/d?password=secret", Parameter),
            ("postgres://u:secret@db/d?options=-cfsync=off", Parameter),
            ("postgres://u:secret@db/d?sslmode=require", Mode),
            ("postgres://u:secret@db/d?sslmode=prefer", Mode),
            ("postgres://u:secret@db/d", NoAuthorities),
            ("postgres://u:secret@127.0.0.1/d?sslmode=disable&sslrootcert=x", UnusedAuthorities),
            ("postgres://u:secret@db/d?sslmode=disable", Clear),
            ("postgres://u:secret@127.0.0.1/d?sslmode=disable&password_file=/x", Passwords),
            ("postgres://u@127.0.0.1/d?sslmode=disable&password_file=x", Relative),
            ("postgres://u:secret@a,b,c,d,e,f,g,h,i/d?sslmode=disable", Hosts),
        ] {
            let refused = parse(url).expect_err(url);
            assert_eq!(refused, expected, "{url}");
            assert!(!refused.to_string().contains("secret") && !format!("{refused:?}").contains("secret"));
        }
    }

    #[test]
    fn nothing_shows_the_password() {
        let target = parse("postgres://u:secret@127.0.0.1:5432/d?sslmode=disable").expect("good");
        assert_eq!(target.to_string(), "postgres://u@127.0.0.1:5432/d");
        let (configs, _) = target.prepare("").expect("no files");
        assert!(!format!("{target:?} {configs:?}").contains("secret"), "{configs:?}");
        assert!(!target.url().contains("secret"), "{}", target.url());
    }

    #[test]
    fn a_url_that_is_written_again_names_the_same_and_no_password() {
        for url in [
            "postgres://u@a:1,[::1]:2/d?sslmode=verify-full&sslrootcert=%2Fetc%2Fca%2Epem&password_file=%2Fp%20w",
            "postgres://u@%2Frun%2Fpostgresql:5433,%2Ftmp:5432/d?sslmode=disable",
        ] {
            let target = parse(url).expect(url);
            assert_eq!(target.url(), url);
            assert_eq!(target.with_database("e%").url(), url.replace("/d?", "/e%25?"));
        }
        let target = parse("postgres://u:secret@127.0.0.1/d?sslmode=disable").expect("good");
        assert_eq!(target.password(), Some(&b"secret"[..]));
        let target = target.with_password_file(Path::new("/p"));
        assert_eq!(target.url(), "postgres://u@127.0.0.1:5432/d?sslmode=disable&password_file=%2Fp");
        assert_eq!(target.password(), None);
    }

    #[test]
    fn a_password_file_is_one_line_for_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        let url = format!("postgres://u@127.0.0.1/d?sslmode=disable&password_file={}", path.display());
        let target = parse(&url).expect("good");
        assert!(target.prepare("").is_err(), "missing");
        for bad in ["", "\n", "one\ntwo\n"] {
            secret_file::write(&path, bad.as_bytes()).expect("written");
            let refused = target.prepare("").err().expect("refused").to_string();
            assert!(refused.contains("one line") && !refused.contains("two"), "{refused}");
        }
        secret_file::write(&path, b"pass word\n").expect("written");
        let (configs, _) = target.prepare("").expect("a password");
        assert_eq!(configs[0].get_password(), Some(&b"pass word"[..]));
    }
}
