//! The sections that every service has.

use std::{net::SocketAddr, path::PathBuf};

use super::{Audit, Limits, limits, reader::Reader};
use crate::spiffe::{SpiffeId, TrustDomain};

/// How strict a service is with its surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// For one machine: loopback only; secret files that others can read are a warning.
    Local,
    /// For networks: explicit identity everywhere; secret files that others can read are refused.
    Hardened,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The lowest TLS version of the public listener; the internal one takes 1.3 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 and 1.3.
    V1_2,
    /// TLS 1.3 only.
    V1_3,
}

/// What a service brings along.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Where clients are served.
    pub public: SocketAddr,
    /// Bounds.
    pub limits: Limits,
}

/// Certificates and what is asked of peers.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Certificate chain, PEM: `tls.cert`. Required.
    pub cert: PathBuf,
    /// Its private key, PEM: `tls.key`. Required.
    pub key: PathBuf,
    /// Certificate authorities of peers, PEM: `tls.client_ca`.
    pub client_ca: Option<PathBuf>,
    /// Revoked certificates of peers, PEM: `tls.client_crl`; needs `tls.client_ca`.
    pub client_crl: Option<PathBuf>,
    /// The trust domain that peers' SPIFFE ids must have: `tls.trust_domain`.
    pub trust_domain: Option<TrustDomain>,
    /// `tls.public_min_version`: `1.3` (default) or `1.2`.
    pub public_min_version: TlsVersion,
}

/// The internal listener, with all that it cannot be without.
#[derive(Clone, Debug)]
pub struct Internal {
    /// Where services are served.
    pub address: SocketAddr,
    /// Certificate authorities of services.
    pub client_ca: PathBuf,
    /// Their trust domain.
    pub trust_domain: TrustDomain,
    /// The file with the internal token.
    pub token_file: PathBuf,
    /// Which services may connect, and call every internal method: key `allow`.
    pub allow: Vec<SpiffeId>,
    /// A file that says so instead, and which methods: key `allow_file`. Read again when it changes.
    pub allow_file: Option<PathBuf>,
}

/// The sections that every service has.
#[derive(Clone, Debug)]
pub struct Common {
    /// `profile`: `local` (default) or `hardened`.
    pub profile: Profile,
    /// `public.address`.
    pub public: SocketAddr,
    /// `internal.address`; needs `tls.client_ca`, `tls.trust_domain`, `internal_token_file` and `allow`.
    pub internal: Option<Internal>,
    /// `health.address`: plain, health only. Off by default.
    pub health: Option<SocketAddr>,
    /// `metrics.address`: plain HTTP. Off by default.
    pub metrics: Option<SocketAddr>,
    /// `tls.*`
    pub tls: Tls,
    /// `internal_token_file`: the secret that services show each other beside their certificates.
    pub internal_token_file: Option<PathBuf>,
    /// `data_dir`: where the service keeps its files. Empty or unset: the working directory.
    pub data_dir: PathBuf,
    /// `log.format`: `text` (default) or `json`.
    pub log_format: LogFormat,
    /// `log.filter`, in the syntax of tracing's `EnvFilter`: `info,refinery_core=warn` by default.
    pub log_filter: String,
    /// `ready_file`: written with the bound addresses once the service serves.
    pub ready_file: Option<PathBuf>,
    /// `audit.*`
    pub audit: Audit,
    /// `limits.*`
    pub limits: Limits,
}

impl Common {
    /// Reads the common sections. What is wrong or missing is noted in the reader; the values are good only
    /// if its `finish` is.
    pub fn read(r: &mut Reader, defaults: Defaults) -> Self {
        let profile = r.choice(
            "profile",
            Profile::Local,
            &[("local", Profile::Local), ("hardened", Profile::Hardened)],
        );
        let public = r.value("public.address", defaults.public);
        let internal_address = r.optional("internal.address");
        let health = r.optional("health.address");
        let metrics = r.optional("metrics.address");
        let listeners = [
            ("public.address", Some(public)),
            ("internal.address", internal_address),
            ("health.address", health),
            ("metrics.address", metrics),
        ];
        check_listeners(r, profile, &listeners);
        let tls = read_tls(r);
        let internal_token_file = r.path("internal_token_file");
        let allow = (r.list("allow"), r.path("allow_file"));
        let internal = internal_address
            .and_then(|address| read_internal(r, address, &tls, internal_token_file.as_ref(), allow));
        Self {
            profile,
            public,
            internal,
            health,
            metrics,
            tls,
            internal_token_file,
            data_dir: r.path("data_dir").unwrap_or_else(|| PathBuf::from(".")),
            log_format: r.choice(
                "log.format",
                LogFormat::Text,
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            ),
            log_filter: read_filter(r),
            ready_file: r.path("ready_file"),
            audit: Audit::read(r),
            limits: limits::read(r, defaults.limits),
        }
    }
}

fn check_listeners(r: &mut Reader, profile: Profile, listeners: &[(&str, Option<SocketAddr>)]) {
    let bound = || listeners.iter().filter_map(|(key, address)| Some((*key, (*address)?)));
    for (key, address) in bound() {
        if profile == Profile::Local && !address.ip().is_loopback() {
            r.mistake(key, "a loopback address, or set profile to hardened");
        }
        let first = bound().find(|(_, other)| *other == address && address.port() != 0);
        if let Some((other, _)) = first.filter(|(other, _)| *other != key) {
            r.mistake(key, format!("an address of its own, not that of {other}"));
        }
    }
}

fn read_tls(r: &mut Reader) -> Tls {
    let mut file = |key| {
        r.path(key).unwrap_or_else(|| {
            r.mistake(key, "must be set: the path of a PEM file");
            PathBuf::new()
        })
    };
    let (cert, key) = (file("tls.cert"), file("tls.key"));
    let (client_ca, client_crl) = (r.path("tls.client_ca"), r.path("tls.client_crl"));
    if client_crl.is_some() && client_ca.is_none() {
        r.mistake("tls.client_crl", "needs tls.client_ca: without it no certificate of a peer is asked for");
    }
    Tls {
        cert,
        key,
        client_ca,
        client_crl,
        trust_domain: r.optional("tls.trust_domain"),
        public_min_version: r.choice(
            "tls.public_min_version",
            TlsVersion::V1_3,
            &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)],
        ),
    }
}

fn read_internal(
    r: &mut Reader,
    address: SocketAddr,
    tls: &Tls,
    token_file: Option<&PathBuf>,
    (allow, allow_file): (Vec<SpiffeId>, Option<PathBuf>),
) -> Option<Internal> {
    let missing = [
        ("tls.client_ca", tls.client_ca.is_none()),
        ("tls.trust_domain", tls.trust_domain.is_none()),
        ("internal_token_file", token_file.is_none()),
        ("allow", allow.is_empty() && allow_file.is_none()),
    ];
    for (key, missing) in missing {
        if missing && !r.is_mistaken(key) {
            r.mistake(key, "must be set where internal.address is");
        }
    }
    if !allow.is_empty() && allow_file.is_some() {
        r.mistake("allow_file", "not beside allow");
    }
    let trust_domain = tls.trust_domain.clone()?;
    if allow.iter().any(|id| *id.trust_domain() != trust_domain) {
        r.mistake("allow", "SPIFFE ids of tls.trust_domain only");
    }
    let (client_ca, token_file) = (tls.client_ca.clone()?, token_file?.clone());
    Some(Internal { address, client_ca, trust_domain, token_file, allow, allow_file })
}

fn read_filter(r: &mut Reader) -> String {
    let filter = r.value("log.filter", "info,refinery_core=warn".to_owned());
    if tracing_subscriber::EnvFilter::try_new(&filter).is_err() {
        r.mistake("log.filter", "a filter like info or info,interlock_kit=debug");
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, Mistake};

    fn read(flags: &[(&str, &str)]) -> Result<Common, Vec<Mistake>> {
        let flags = flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut r = Reader::new(Layers::read(None, "P", [], flags));
        let public = SocketAddr::from(([127, 0, 0, 1], 7443));
        let common = Common::read(&mut r, Defaults { public, limits: Limits::auth() });
        r.finish().map(|()| common)
    }

    fn places(outcome: Result<Common, Vec<Mistake>>) -> Vec<String> {
        outcome.expect_err("mistakes").into_iter().map(|m| m.place).collect()
    }

    const TLS: [(&str, &str); 2] = [("tls.cert", "/c.pem"), ("tls.key", "/c.key")];

    #[test]
    fn defaults_need_only_a_certificate() {
        let common = read(&TLS).expect("good");
        assert_eq!(common.profile, Profile::Local);
        assert_eq!(common.data_dir, PathBuf::from("."));
        assert_eq!(format!("{:?}", common.limits), format!("{:?}", Limits::auth()));
        assert!(common.internal.is_none() && common.health.is_none());
        assert_eq!(places(read(&[])), ["tls.cert", "tls.key"]);
    }

    #[test]
    fn a_listener_for_others_needs_the_hardened_profile() {
        let open = [TLS[0], TLS[1], ("public.address", "0.0.0.0:7443"), ("health.address", "[::]:7444")];
        assert_eq!(places(read(&open)), ["public.address (flag)", "health.address (flag)"]);
        let hardened = [open[0], open[1], open[2], open[3], ("profile", "hardened")];
        read(&hardened).expect("good");
    }

    #[test]
    fn an_internal_listener_needs_both_factors() {
        let bare = [TLS[0], TLS[1], ("internal.address", "127.0.0.1:7445")];
        assert_eq!(
            places(read(&bare)),
            ["tls.client_ca", "tls.trust_domain", "internal_token_file", "allow"]
        );
        let rest = [
            ("tls.client_ca", "/ca.pem"),
            ("tls.trust_domain", "example.org"),
            ("internal_token_file", "/token"),
            ("allow", "spiffe://example.org/gateway"),
        ];
        let internal = read(&[&bare[..], &rest[..]].concat()).expect("good").internal.expect("there");
        assert_eq!(internal.allow[0].to_string(), "spiffe://example.org/gateway");
        let file = [&bare[..], &rest[..3], &[("allow_file", "/allow")]].concat();
        let internal = read(&file).expect("good").internal.expect("there");
        assert_eq!((internal.allow.len(), internal.allow_file), (0, Some(PathBuf::from("/allow"))));
        let both = [&bare[..], &rest[..], &[("allow_file", "/allow")]].concat();
        assert_eq!(places(read(&both)), ["allow_file (flag)"]);
        let foreign = [&bare[..], &rest[..3], &[("allow", "spiffe://other/gateway")]].concat();
        assert_eq!(places(read(&foreign)), ["allow (flag)"]);
    }

    #[test]
    fn a_revocation_list_needs_an_authority() {
        let alone = [TLS[0], TLS[1], ("tls.client_crl", "/crl.pem")];
        assert_eq!(places(read(&alone)), ["tls.client_crl (flag)"]);
        let both = [&alone[..], &[("tls.client_ca", "/ca.pem")]].concat();
        let paths = crate::tls::TlsPaths::from(&read(&both).expect("good").tls);
        assert_eq!(paths.client_crl, Some(PathBuf::from("/crl.pem")));
    }

    #[test]
    fn relations_between_limits_hold() {
        let wrong = [TLS[0], TLS[1], ("limits.calls", "10"), ("metrics.address", "127.0.0.1:7443")];
        assert_eq!(places(read(&wrong)), ["metrics.address (flag)", "limits"]);
    }
}
