//! The allow list as a file: which services may call which methods of an internal listener. Read again when it changes.
//!
//! A line for each service: its SPIFFE id, then the paths that it may call, with blanks between; none: all that its kind
//! may. A path is that of a method, or a beginning that ends with `/`, as in `/interlock.auth.v1.TrustService/`. Empty
//! lines and what follows `#` at a line's beginning are passed over. A service named twice may do what either line says.
//!
//! A file that names nobody, or a method that no internal listener has, is not taken: a slip must neither lock out
//! everybody nor let a service be without what it was given.

use std::path::{Path, PathBuf};

use interlock_proto::{options::v1::Listener, policy::Policies};

use super::{Allowed, InternalTrust, LiveTrust};
use crate::{
    config::{Internal, Profile},
    internal_token::InternalToken,
    secret_file::{self, SecretFileError},
    spiffe::{SpiffeId, TrustDomain},
};

/// The longest file.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Why an allow list is not taken.
#[derive(Debug, thiserror::Error)]
pub enum AllowFileError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A line is not what it must be.
    #[error("{path}, line {line}: {why}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What it must be.
        why: String,
    },
    /// No line names a service.
    #[error("{path}: names no service", path = .0.display())]
    Empty(PathBuf),
}

impl InternalTrust {
    /// As it is configured: by the list, whose services may call every internal method, or by the file.
    ///
    /// # Errors
    /// [`AllowFileError`]
    pub fn configured(internal: &Internal, token: InternalToken) -> Result<Self, AllowFileError> {
        let trust = Self::new(internal.trust_domain.clone(), internal.allow.clone(), token);
        match &internal.allow_file {
            Some(path) => Ok(Self { allowed: read(path, &internal.trust_domain)?, ..trust }),
            None => Ok(trust),
        }
    }
}

impl LiveTrust {
    /// Reads the allow list again; says whether anything changed. It holds from the next call on, and for those that
    /// last from when they are next looked at.
    ///
    /// # Errors
    /// [`AllowFileError`]; the last good list stays.
    pub fn reload_allowed(&self, path: &Path) -> Result<bool, AllowFileError> {
        let current = self.current();
        let allowed = read(path, &current.trust_domain)?;
        let changed = allowed != current.allowed;
        if changed {
            self.replace(InternalTrust { allowed, ..(*current).clone() });
        }
        Ok(changed)
    }
}

fn read(path: &Path, domain: &TrustDomain) -> Result<Vec<Allowed>, AllowFileError> {
    read_lines(path, |line| {
        let mut allowed = Allowed::parse(line, domain)?;
        if allowed.paths.is_empty() {
            allowed.paths.push("/".to_owned());
        }
        Ok(allowed)
    })
}

/// What each line of a list of services says. Empty lines and remarks are passed over.
///
/// # Errors
/// [`AllowFileError`]: the first line that is not what it must be, and a file without any.
pub fn read_lines<T>(
    path: &Path,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, AllowFileError> {
    // No secret, whoever may read it.
    let file = secret_file::read(path, FILE_BYTES_MAX, Profile::Local)?;
    let text = String::from_utf8_lossy(&file.contents);
    let mut listed = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why| AllowFileError::Line { path: path.to_owned(), line: at + 1, why };
        listed.push(parse(line).map_err(wrong)?);
    }
    if listed.is_empty() { Err(AllowFileError::Empty(path.to_owned())) } else { Ok(listed) }
}

impl Allowed {
    /// Reads the SPIFFE id of a service and the paths behind it, none included.
    ///
    /// # Errors
    /// What it must be, for people.
    pub fn parse(words: &str, domain: &TrustDomain) -> Result<Self, String> {
        let mut words = words.split_whitespace();
        let id = words.next().unwrap_or_default();
        let service: SpiffeId = id.parse().map_err(|error| format!("a SPIFFE id first: {error}"))?;
        if service.trust_domain() != domain {
            return Err(format!("a SPIFFE id of {domain} first"));
        }
        let paths: Vec<String> = words.map(str::to_owned).collect();
        if let Some(unknown) = paths.iter().find(|path| !is_served(path)) {
            return Err(format!(
                "{unknown} is no method of an internal listener, nor the beginning of one up to a `/`"
            ));
        }
        Ok(Self { service, paths })
    }
}

fn is_served(path: &str) -> bool {
    let begins = |method: &str| path.starts_with('/') && path.ends_with('/') && method.starts_with(path);
    let mut internal = Policies::all().iter().filter(|policy| policy.listeners.contains(&Listener::Internal));
    internal.any(|policy| policy.path == path || begins(&policy.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "internal-0123456789-0123456789-0123456789";
    const ONE: &str = "/interlock.auth.v1.TrustService/Validate";
    const ALL: &str = "/interlock.auth.v1.TrustService/";

    struct Place {
        folder: tempfile::TempDir,
        trust: LiveTrust,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let token = folder.path().join("token");
            secret_file::write(&token, TOKEN.as_bytes()).expect("written");
            let token = InternalToken::load(&token, Profile::Hardened).expect("good");
            let domain = "interlock.test".parse().expect("good");
            Self { folder, trust: LiveTrust::new(InternalTrust::new(domain, Vec::new(), token)) }
        }

        fn take(&self, text: &str) -> Result<bool, String> {
            let path = self.folder.path().join("allow");
            std::fs::write(&path, text).expect("written");
            self.trust.reload_allowed(&path).map_err(|error| error.to_string())
        }

        fn allows(&self, name: &str, path: &str) -> bool {
            let service = format!("spiffe://interlock.test/{name}").parse().expect("good");
            self.trust.current().allows(&service, path)
        }
    }

    // UA-04
    #[test]
    fn a_line_gives_a_service_its_methods_and_no_others() {
        let place = Place::new();
        let text = format!(
            "# who may call\n\nspiffe://interlock.test/all\nspiffe://interlock.test/one {ONE}\n\
             spiffe://interlock.test/two {ALL} /grpc.health.v1.Health/Check\n"
        );
        assert_eq!(place.take(&text), Ok(true));
        assert_eq!(place.take(&text), Ok(false), "nothing has changed");
        let hold = "/interlock.auth.v1.TrustService/HoldLease";
        for (name, path, may) in [
            ("all", ONE, true),
            ("all", hold, true),
            ("one", ONE, true),
            ("one", hold, false),
            ("two", hold, true),
            ("two", "/grpc.health.v1.Health/Watch", false),
            ("nobody", ONE, false),
        ] {
            assert_eq!(place.allows(name, path), may, "{name} {path}");
        }
        assert_eq!(place.take("spiffe://interlock.test/two\n"), Ok(true));
        assert!(!place.allows("one", ONE) && place.allows("two", ONE));
    }

    #[test]
    fn what_is_no_allow_list_leaves_the_last_good_one() {
        let place = Place::new();
        place.take("spiffe://interlock.test/all").expect("good");
        for (bad, why) in [
            ("", "names no service"),
            ("# nobody\n", "names no service"),
            ("\ngateway\n", "line 2: a SPIFFE id first"),
            ("spiffe://other.test/all", "line 1: a SPIFFE id of interlock.test first"),
            ("spiffe://interlock.test/all /interlock.auth.v1.TrustService/Validat", "is no method"),
            ("spiffe://interlock.test/all /interlock.auth.v1.OwnerSessionService/Login", "is no method"),
            ("spiffe://interlock.test/all interlock.auth.v1.TrustService/", "is no method"),
        ] {
            let refused = place.take(bad).expect_err(bad);
            assert!(refused.contains(why), "{refused}");
            assert!(place.allows("all", ONE), "{bad}");
        }
    }
}
