//! How many connections there are file descriptors for.
//!
//! A process that has none left can neither accept nor open a file. So peers never get all of them: the
//! limit is raised as far as the system lets us, a part is kept for the store, logs and probes, and each
//! listener has its own share of the rest.

use interlock_proto::options::v1::Listener;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::ServerLimits;

/// Kept for what is no peer's: the store, watched files, probes, connections to other services.
const OWN: usize = 160;
/// The shares of a listener: public, internal and health make all of them.
const SHARES: usize = 8;

/// How many descriptors this process may have open, after raising the limit to what the system allows.
pub(super) fn available() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.map_or(usize::MAX, |current| usize::try_from(current).unwrap_or(usize::MAX))
}

/// The limits of a listener, with no more connections than its share of the descriptors.
pub(super) fn fit(limits: &ServerLimits, listener: Listener, available: usize) -> ServerLimits {
    let share = share(listener, available);
    let fitted = limits.clone().within(share);
    if fitted.connections < limits.connections {
        tracing::warn!(
            listener = listener.as_str_name(),
            connections = fitted.connections,
            configured = limits.connections,
            "the limit of open files allows fewer connections than limits.connections"
        );
    }
    fitted
}

fn share(listener: Listener, available: usize) -> usize {
    let shares = match listener {
        Listener::Public => 5,
        Listener::Internal => 2,
        _ => 1,
    };
    (available.saturating_sub(OWN) / SHARES * shares).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listeners_never_share_out_what_is_not_there() {
        for available in [OWN + SHARES * 2, 256, 1_024, 20_000, usize::MAX] {
            let all = [Listener::Public, Listener::Internal, Listener::Health];
            let shared: usize = all.into_iter().map(|listener| share(listener, available)).sum();
            assert!(shared <= available - OWN, "{available}");
        }
    }

    #[test]
    fn enough_descriptors_change_nothing() {
        let limits = ServerLimits::gateway();
        assert_eq!(fit(&limits, Listener::Public, 20_000).connections, limits.connections);
        assert_eq!(fit(&limits, Listener::Public, 1_024).connections, 540);
    }
}
