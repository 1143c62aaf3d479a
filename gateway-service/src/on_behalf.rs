//! Which services act for which owners by name, with `x-on-behalf-of`: a file, read again when it changes.
//!
//! A line for each grant: the service's SPIFFE id, the methods (as in `allow_file`: whole paths, or beginnings up to a
//! `/`; at least one), `for`, and the owners. A service or an owner may stand in several lines. Who is not listed is
//! refused, so without a file nobody is acted for by name; whatever is listed, an administrator never is.

use std::{path::Path, sync::Arc};

use interlock_kit::{
    authn::{AllowFileError, Allowed, read_lines},
    spiffe::{SpiffeId, TrustDomain},
};
use parking_lot::RwLock;

use crate::ids::OwnerId;

/// What stands between the methods of a line and its owners.
const FOR: &str = " for ";
/// As whom no service acts: the administrator, and names that nobody signs in under.
const NEVER: [&str; 3] = ["admin", "local", "system"];

/// The list. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct OnBehalf {
    domain: TrustDomain,
    grants: Arc<RwLock<Arc<Vec<Grant>>>>,
}

/// What one line says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    allowed: Allowed,
    owners: Vec<OwnerId>,
}

impl OnBehalf {
    /// Reads the file.
    ///
    /// # Errors
    /// [`AllowFileError`]
    pub(crate) fn load(path: &Path, domain: &TrustDomain) -> Result<Self, AllowFileError> {
        let grants = Arc::new(RwLock::new(Arc::new(read(path, domain)?)));
        Ok(Self { domain: domain.clone(), grants })
    }

    /// Reads the file again; says whether anything changed. It holds from the next call on, and for those that last
    /// from when they are next looked at.
    ///
    /// # Errors
    /// [`AllowFileError`]; the last good list stays.
    pub(crate) fn reload(&self, path: &Path) -> Result<bool, AllowFileError> {
        let grants = read(path, &self.domain)?;
        let mut current = self.grants.write();
        let changed = grants != **current;
        if changed {
            *current = Arc::new(grants);
        }
        Ok(changed)
    }

    /// Whether this service may call this method for this owner.
    pub(crate) fn allows(&self, service: &SpiffeId, path: &str, owner: &OwnerId) -> bool {
        let grants = Arc::clone(&self.grants.read());
        grants.iter().any(|grant| grant.allowed.covers(service, path) && grant.owners.contains(owner))
    }
}

fn read(path: &Path, domain: &TrustDomain) -> Result<Vec<Grant>, AllowFileError> {
    read_lines(path, |line| {
        let (methods, owners) =
            line.split_once(FOR).ok_or("methods, `for`, and owners behind the SPIFFE id")?;
        let allowed = Allowed::parse(methods, domain)?;
        if allowed.paths.is_empty() {
            return Err("at least one method behind the SPIFFE id".to_owned());
        }
        let owners = owners.split_whitespace().map(|id| match OwnerId::parse(id) {
            Ok(owner) if !NEVER.contains(&owner.as_str()) => Ok(owner),
            Ok(_) | Err(_) => Err(format!("{id:?} is no owner to act for")),
        });
        Ok(Grant { allowed, owners: owners.collect::<Result<_, _>>()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "/interlock.gateway.v1.SessionService/GetSession";
    const SESSIONS: &str = "/interlock.gateway.v1.SessionService/";

    fn domain() -> TrustDomain {
        "interlock.test".parse().expect("good")
    }

    fn service(name: &str) -> SpiffeId {
        format!("spiffe://interlock.test/{name}").parse().expect("good")
    }

    #[test]
    fn a_line_gives_a_service_owners_for_methods_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("on-behalf");
        let text = format!(
            "# who for whom\n\nspiffe://interlock.test/api {SESSIONS} for alice bob\n\
             spiffe://interlock.test/reader {GET} for alice\n"
        );
        std::fs::write(&path, &text).expect("written");
        let list = OnBehalf::load(&path, &domain()).expect("good");
        assert!(!list.reload(&path).expect("the same"));
        let may = |name: &str, method: &str, owner: &str| {
            list.allows(&service(name), method, &OwnerId::parse(owner).expect("an id"))
        };
        let close = "/interlock.gateway.v1.SessionService/CloseSession";
        for (name, method, owner, expected) in [
            ("api", close, "alice", true),
            ("api", GET, "bob", true),
            ("api", GET, "carol", false),
            ("api", "/interlock.gateway.v1.JobService/GetJob", "alice", false),
            ("reader", GET, "alice", true),
            ("reader", GET, "bob", false),
            ("reader", close, "alice", false),
            ("stranger", GET, "alice", false),
        ] {
            assert_eq!(may(name, method, owner), expected, "{name} {method} {owner}");
        }
        std::fs::write(&path, format!("spiffe://interlock.test/api {GET} for bob")).expect("written");
        assert!(list.reload(&path).expect("good"));
        assert!(!may("api", GET, "alice") && may("api", GET, "bob"));
    }

    #[test]
    fn what_is_no_list_leaves_the_last_good_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("on-behalf");
        std::fs::write(&path, format!("spiffe://interlock.test/api {GET} for alice")).expect("written");
        let list = OnBehalf::load(&path, &domain()).expect("good");
        for (bad, why) in [
            ("", "names no service"),
            ("spiffe://interlock.test/api for alice", "at least one method"),
            (&*format!("spiffe://interlock.test/api {GET}"), "`for`"),
            (&*format!("spiffe://interlock.test/api {GET} for admin"), "no owner to act for"),
            (&*format!("spiffe://interlock.test/api {GET} for *"), "no owner to act for"),
            (&*format!("spiffe://other.test/api {GET} for alice"), "of interlock.test first"),
            ("spiffe://interlock.test/api /nothing for alice", "is no method"),
        ] {
            std::fs::write(&path, bad).expect("written");
            let refused = list.reload(&path).expect_err(bad).to_string();
            assert!(refused.contains(why), "{bad}: {refused}");
            assert!(list.allows(&service("api"), GET, &OwnerId::parse("alice").expect("an id")), "{bad}");
        }
    }
}
