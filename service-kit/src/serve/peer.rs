//! Who is at the other end of a connection.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use interlock_proto::options::v1::Listener;
use sha2::{Digest as _, Sha256};

use crate::{
    clock::Timestamp,
    spiffe::{SpiffeId, spiffe_id_of},
    tls,
};

/// What a caller is counted by: an IPv4 address, or the /64 network of an IPv6 address (one
/// subscriber has at least that much, RFC 6177).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl Source {
    /// The source that an address belongs to. An IPv4 address in IPv6 clothes is the IPv4 address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            v4 @ IpAddr::V4(_) => Self(v4),
            IpAddr::V6(v6) => Self(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)))),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => v4.fmt(f),
            IpAddr::V6(v6) => write!(f, "{v6}/64"),
        }
    }
}

/// The client certificate that a peer proved to hold.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// SHA-256 of the DER.
    pub fingerprint: [u8; 32],
    /// When it ends.
    pub not_after: Timestamp,
    /// The one SPIFFE id in it; `None` where there is none, more than one, or another URI beside it.
    pub identity: Option<SpiffeId>,
}

impl PeerCertificate {
    /// Reads a certificate that the verifier has accepted. `None`: it cannot be parsed.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        Some(Self {
            fingerprint: Sha256::digest(der).into(),
            not_after: tls::certificate_end(der).ok()?,
            identity: spiffe_id_of(der).ok(),
        })
    }
}

/// One connection, as its calls see it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The socket's other end.
    pub address: SocketAddr,
    /// Where it came in.
    pub listener: Listener,
    /// What it showed.
    pub certificate: Option<PeerCertificate>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().expect("an address"))
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_network() {
        assert_eq!(source("2001:db8:1:2:3::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_eq!(source("2001:db8:1:2:3::1").to_string(), "2001:db8:1:2::/64");
    }
}
