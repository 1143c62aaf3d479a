//! Which role tokens were admitted here, and from where: told to auth with each renewal of the lease, which is how it knows
//! who still uses an old one.
//!
//! A call on a role token looks at one number: whether this token was noted from this source within this second. Only
//! the first call of a second takes the lock of the table. So the table's instants are the ends of seconds: not before
//! the last use, and less than a second after it.
//!
//! The table is bounded by what lives at once: auth has no more generations, and of the sources of each the latest stay.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::atomic::{AtomicU64, Ordering},
};

use interlock_proto::auth::v1::hold_lease_request as ask;
use parking_lot::Mutex;

use super::verdict::Verdict;

/// Role tokens: as many as auth admits at once.
const CREDENTIALS_MAX: usize = 10;
/// Sources of each. All fit into one message, which takes 64.
const SOURCES_MAX: usize = 6;
/// Tokens and sources that are told apart within a second without the lock; others only cost more.
const FILTER: usize = 256;
const SECOND_NS: u64 = 1_000_000_000;

/// An IPv4 address or the /64 network of an IPv6 address; none where it is not known.
pub(super) type Source = Option<IpAddr>;

/// The source that an address belongs to. An IPv4 address in IPv6 clothes is the IPv4 address.
pub(super) fn source(address: Option<IpAddr>) -> Source {
    address.map(|address| match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    })
}

pub(super) struct Uses {
    hasher: RandomState,
    /// A fingerprint of token and source, and the second that they were noted in.
    noted: [AtomicU64; FILTER],
    table: Mutex<BTreeMap<String, BTreeMap<Source, Use>>>,
}

#[derive(Clone, Copy, Default)]
struct Use {
    /// The end of the second of the last use.
    last_ns: u64,
    /// Told up to here on the present stream.
    told_ns: u64,
    /// Seconds since it was told.
    noted: u64,
}

impl Default for Uses {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            noted: std::array::from_fn(|_| AtomicU64::new(0)),
            table: Mutex::default(),
        }
    }
}

impl Uses {
    /// A role token was admitted at `now_ns` of the monotonic clock.
    pub(super) fn note(&self, verdict: &Verdict, source: Source, now_ns: u64) {
        let second = now_ns / SECOND_NS;
        let hash = self.hasher.hash_one((verdict.issuance, source));
        // The upper half and the second, of which 136 years fit.
        let noted = (hash & !u64::from(u32::MAX)) | (second & u64::from(u32::MAX));
        let slot = &self.noted[usize::try_from(hash).unwrap_or(usize::MAX) % FILTER];
        if slot.load(Ordering::Relaxed) != noted {
            slot.store(noted, Ordering::Relaxed);
            self.enter(&verdict.credential_id, source, (second + 1) * SECOND_NS);
        }
    }

    fn enter(&self, credential: &str, source: Source, last_ns: u64) {
        let mut table = self.table.lock();
        if !table.contains_key(credential) {
            if table.len() >= CREDENTIALS_MAX {
                let latest = |of: &BTreeMap<Source, Use>| of.values().map(|used| used.last_ns).max();
                let oldest = table.iter().min_by_key(|(_, of)| latest(of)).map(|(id, _)| id.clone());
                oldest.map(|oldest| table.remove(&oldest));
            }
            table.insert(credential.to_owned(), BTreeMap::new());
        }
        let Some(sources) = table.get_mut(credential) else { return };
        if sources.len() >= SOURCES_MAX && !sources.contains_key(&source) {
            let oldest = sources.iter().min_by_key(|(_, used)| used.last_ns).map(|(source, _)| *source);
            oldest.map(|oldest| sources.remove(&oldest));
        }
        let used = sources.entry(source).or_default();
        used.noted += u64::from(used.last_ns < last_ns);
        used.last_ns = used.last_ns.max(last_ns);
    }

    /// What auth is to be told; on a stream on which nothing was told yet, everything.
    pub(super) fn tell(&self, anew: bool, now_ns: u64) -> ask::Uses {
        let mut used = Vec::new();
        for (credential, sources) in self.table.lock().iter_mut() {
            for (source, of) in sources.iter_mut().filter(|(_, of)| anew || of.told_ns < of.last_ns) {
                used.push(ask::Use {
                    credential_id: credential.clone(),
                    source: text(*source),
                    ago: Some(ago(now_ns.saturating_sub(of.last_ns))),
                    noted: std::mem::take(&mut of.noted),
                });
                of.told_ns = of.last_ns;
            }
        }
        ask::Uses { used }
    }
}

fn text(source: Source) -> String {
    match source {
        None => String::new(),
        Some(IpAddr::V4(v4)) => v4.to_string(),
        Some(IpAddr::V6(v6)) => format!("{v6}/64"),
    }
}

fn ago(ns: u64) -> prost_types::Duration {
    // Whole seconds, rounded down: rather too short.
    prost_types::Duration { seconds: i64::try_from(ns / SECOND_NS).unwrap_or(i64::MAX), nanos: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Source {
        source(Some(text.parse().expect("an address")))
    }

    fn token(issuance: u64) -> Verdict {
        Verdict::of_role_token(&format!("crd_{issuance}"), issuance)
    }

    fn told(uses: &Uses, anew: bool, now_ns: u64) -> Vec<(String, String, i64, u64)> {
        let mut all: Vec<_> = uses
            .tell(anew, now_ns)
            .used
            .into_iter()
            .map(|u| (u.credential_id, u.source, u.ago.unwrap_or_default().seconds, u.noted))
            .collect();
        all.sort();
        all
    }

    fn row(id: &str, source: &str, ago: i64, noted: u64) -> (String, String, i64, u64) {
        (id.to_owned(), source.to_owned(), ago, noted)
    }

    #[test]
    fn each_second_of_a_token_and_source_is_told_once_and_all_again_on_a_new_stream() {
        let (uses, one) = (Uses::default(), token(1));
        for call in 0..1_000 {
            uses.note(&one, at("192.0.2.1"), 10 * SECOND_NS + call);
        }
        uses.note(&one, at("2001:db8:1:2:3::4"), 11 * SECOND_NS);
        uses.note(&one, at("2001:db8:1:2:ffff::9"), 12 * SECOND_NS);
        uses.note(&one, None, 12 * SECOND_NS + 5);
        let now = 15 * SECOND_NS;
        let first = [
            row("crd_1", "", 2, 1),
            row("crd_1", "192.0.2.1", 4, 1),
            row("crd_1", "2001:db8:1:2::/64", 2, 2),
        ];
        assert_eq!(told(&uses, true, now), first);
        assert!(told(&uses, false, now).is_empty(), "nothing since");
        uses.note(&one, at("::ffff:192.0.2.1"), 20 * SECOND_NS);
        assert_eq!(
            told(&uses, false, 20 * SECOND_NS),
            [row("crd_1", "192.0.2.1", 0, 1)],
            "not before it was"
        );
        let again = told(&uses, true, 25 * SECOND_NS);
        assert_eq!((again.len(), again[1].clone()), (3, row("crd_1", "192.0.2.1", 4, 0)));
    }

    #[test]
    fn tokens_and_sources_are_bounded_and_the_latest_stay() {
        let uses = Uses::default();
        for n in 0..100_u64 {
            for host in 0..20_u64 {
                let address = format!("10.0.{n}.{host}");
                uses.note(&token(n), at(&address), (n * 100 + host) * SECOND_NS);
            }
        }
        let all = told(&uses, true, 20_000 * SECOND_NS);
        assert_eq!(all.len(), CREDENTIALS_MAX * SOURCES_MAX);
        assert!(
            all.iter().any(|row| row.1 == "10.0.99.19") && all.iter().all(|row| row.0.as_str() >= "crd_90")
        );
    }
}
