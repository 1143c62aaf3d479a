//! Which services work jobs as themselves, and of which agents: a file, read again when it changes (DESIGN 14.7).
//!
//! A line for each: the service's SPIFFE id, `for`, and the agents. A service may stand in several lines. Who is not
//! listed must say whom it acts for, like every caller of the internal listener. Whoever wrote the list vouches for it,
//! so the jobs may be of any owner and project; built-in agents are guarded by root, which no service meets.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use interlock_kit::{
    authn::{AllowFileError, Allowed, read_lines},
    spiffe::{SpiffeId, TrustDomain},
};
use parking_lot::RwLock;

use crate::{
    caller::ServiceWorker,
    ids::{AgentId, OwnerId},
};

/// What stands between a service and its agents.
const FOR: &str = " for ";

type Listed = BTreeMap<SpiffeId, ServiceWorker>;

/// The list. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct ServiceWorkers {
    domain: TrustDomain,
    listed: Arc<RwLock<Listed>>,
}

impl ServiceWorkers {
    /// Reads the file.
    ///
    /// # Errors
    /// [`AllowFileError`]
    pub(crate) fn load(path: &Path, domain: &TrustDomain) -> Result<Self, AllowFileError> {
        Ok(Self { domain: domain.clone(), listed: Arc::new(RwLock::new(read(path, domain)?)) })
    }

    /// Reads the file again; says whether anything changed. It holds from the next call on, and for streams from when
    /// they next look for jobs.
    ///
    /// # Errors
    /// [`AllowFileError`]; the last good list stays.
    pub(crate) fn reload(&self, path: &Path) -> Result<bool, AllowFileError> {
        let listed = read(path, &self.domain)?;
        let mut current = self.listed.write();
        let changed = listed != *current;
        if changed {
            *current = listed;
        }
        Ok(changed)
    }

    /// The service as a worker; none where it is not listed.
    pub(crate) fn of(&self, service: &SpiffeId) -> Option<ServiceWorker> {
        self.listed.read().get(service).cloned()
    }
}

fn read(path: &Path, domain: &TrustDomain) -> Result<Listed, AllowFileError> {
    let lines = read_lines(path, |line| {
        let (service, agents) = line.split_once(FOR).ok_or("`for` and agents behind the SPIFFE id")?;
        let allowed = Allowed::parse(service, domain)?;
        if !allowed.paths.is_empty() {
            return Err("the SPIFFE id alone before `for`: what it may call is given by `allow`".to_owned());
        }
        let agents = agents.split_whitespace().map(|id| match AgentId::parse(id) {
            Ok(agent) if agent != AgentId::primary() => Ok(agent),
            Ok(_) | Err(_) => Err(format!("{id:?} is no agent that a service works for")),
        });
        let agents = agents.collect::<Result<Vec<_>, _>>()?;
        if agents.is_empty() {
            Err("at least one agent behind `for`".to_owned())
        } else {
            Ok((allowed.service, agents))
        }
    })?;
    let mut all: BTreeMap<SpiffeId, Vec<AgentId>> = BTreeMap::new();
    for (service, agents) in lines {
        all.entry(service).or_default().extend(agents);
    }
    let worker = |(service, mut agents): (SpiffeId, Vec<AgentId>)| {
        agents.sort();
        agents.dedup();
        let id = OwnerId::of_service(&service);
        (service, ServiceWorker { id, agents: agents.into() })
    };
    Ok(all.into_iter().map(worker).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> TrustDomain {
        "interlock.test".parse().expect("good")
    }

    fn agents(list: &ServiceWorkers, name: &str) -> Option<Vec<String>> {
        let service = format!("spiffe://interlock.test/{name}").parse().expect("good");
        list.of(&service).map(|worker| worker.agents.iter().map(ToString::to_string).collect())
    }

    fn texts(all: &[&str]) -> Option<Vec<String>> {
        Some(all.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn a_line_gives_a_service_agents_and_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("workers");
        let text = "# who works\n\nspiffe://interlock.test/runner for builder tester\n\
                    spiffe://interlock.test/runner for painter builder\n";
        std::fs::write(&path, text).expect("written");
        let list = ServiceWorkers::load(&path, &domain()).expect("good");
        assert_eq!(agents(&list, "runner"), texts(&["builder", "painter", "tester"]));
        assert_eq!(agents(&list, "stranger"), None);
        assert!(!list.reload(&path).expect("the same"));
        std::fs::write(&path, "spiffe://interlock.test/other for builder").expect("written");
        assert!(list.reload(&path).expect("good"));
        assert_eq!((agents(&list, "runner"), agents(&list, "other")), (None, texts(&["builder"])));
    }

    #[test]
    fn what_is_no_list_leaves_the_last_good_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("workers");
        std::fs::write(&path, "spiffe://interlock.test/runner for builder").expect("written");
        let list = ServiceWorkers::load(&path, &domain()).expect("good");
        for (bad, why) in [
            ("", "names no service"),
            ("spiffe://interlock.test/runner builder", "`for`"),
            ("spiffe://interlock.test/runner for ", "`for`"),
            ("spiffe://interlock.test/runner for primary", "no agent that a service works for"),
            ("spiffe://interlock.test/runner for *", "no agent that a service works for"),
            ("spiffe://other.test/runner for builder", "of interlock.test first"),
            (
                "spiffe://interlock.test/runner /interlock.gateway.v1.WorkerService/ for builder",
                "SPIFFE id alone",
            ),
        ] {
            std::fs::write(&path, bad).expect("written");
            let refused = list.reload(&path).expect_err(bad).to_string();
            assert!(refused.contains(why), "{bad}: {refused}");
            assert_eq!(agents(&list, "runner"), texts(&["builder"]), "{bad}");
        }
    }
}
