//! The certificate table: each certificate at both listeners of both services.
//!
//! `internal` asks for one, of a service on the allow list. On `public` none is needed and who one is for plays no
//! part, since callers are known by their credentials there; but who shows one must show a good one: a certificate
//! that does not hold is refused on either, and recorded.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use interlock_kit::{
    clock::Clock,
    pki::{Leaf, Pki},
    store::audit::Row,
};
use interlock_tests::{Pair, Setup, audit, eventually};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyPair, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::{
    AlertDescription,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{
    honest::Honest,
    raw::{Ask, Raw},
    tls::{self, Shows},
};

const HOUR: Duration = Duration::from_secs(3_600);
/// The serial number of the one that is revoked.
const REVOKED: u64 = 77;

/// What a certificate gets at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gets {
    /// The handshake ends so, and there is an audit row with the peer's address.
    Alert(AlertDescription),
    /// PERMISSION_DENIED, likewise.
    Denied,
    Served,
}
use Gets::{Alert, Denied, Served};

/// A certificate, and what it gets at `internal` and at `public`.
struct Shown {
    what: &'static str,
    leaf: Option<(PathBuf, PathBuf)>,
    internal: Gets,
    public: Gets,
}

// HARDENING, "no, expired, not yet valid, foreign, self-signed, server-only certificate; wrong SAN". UA-11, UA-44
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_certificate_gets_what_the_table_says_at_both_listeners_of_both_services() {
    let crl = "pki/revoked.crl";
    let setup = Setup::default().auth("tls.client_crl", crl).gateway("tls.client_crl", crl);
    let mut pair = Pair::stopped(setup);
    let table = table(&pair, crl);
    pair.start_auth().await;
    pair.start_gateway().await;
    pair.serving().await;
    let mut honest = Honest::at_both(&pair).await;
    for (service, running) in [("auth", &pair.auth), ("gateway", &pair.gateway)] {
        for (n, shown) in table.iter().enumerate() {
            for (listener, gets) in [("internal", shown.internal), ("public", shown.public)] {
                // A source of its own: each refusal has a row of its own.
                let from = [127, 0, 1, u8::try_from(n + 1).expect("few")].into();
                let shows = Shows { leaf: shown.leaf.clone(), from, ..Shows::nothing(pair.world.ca()) };
                let door = Door { pair: &pair, service, listener, address: running.address(listener) };
                door.check(shown.what, &shows, gets).await;
            }
            honest.are_unharmed(shown.what).await;
        }
    }
}

struct Door<'a> {
    pair: &'a Pair,
    service: &'static str,
    listener: &'static str,
    address: SocketAddr,
}

impl Door<'_> {
    async fn check(&self, what: &str, shows: &Shows, gets: Gets) {
        let case = format!("{} {}: {what}", self.service, self.listener);
        if let Alert(alert) = gets {
            let (said, local) = tls::refusal(self.address, shows).await;
            assert_eq!(said, Some(alert), "{case}");
            // TLS 1.3: the client is done before the server has seen its certificate.
            let local = local.expect("a handshake that the client took for good");
            let row = eventually("its row", async || self.rows(local).pop()).await;
            let said = (row.action.as_str(), row.reason.as_str(), row.subject.to_lowercase());
            assert_eq!((said.0, said.1), ("tls.handshake", "FORBIDDEN"), "{case}: {row:#?}");
            assert!(said.2.contains(self.listener), "{case}: the row names the listener: {row:#?}");
            assert!(row.detail.contains("why"), "{case}: the row says why: {row:#?}");
            return;
        }
        let mut raw = Raw::open(self.address, shows).await.expect("a handshake that both take for good");
        let health = Ask::of("/grpc.health.v1.Health/Check").message(&[]);
        let ask = health.with("x-internal-token", self.pair.world.internal_token());
        let outcome = raw.call(&ask).await.outcome().expect("an answer of gRPC");
        if gets == Served {
            assert_eq!(outcome.code, "OK", "{case}: {outcome}");
            assert_eq!(self.rows(raw.local).len(), 0, "{case}: nothing was refused");
            return;
        }
        assert_eq!((&*outcome.code, &*outcome.reason), ("PERMISSION_DENIED", "FORBIDDEN"), "{case}");
        let rows = self.rows(raw.local);
        let said: Vec<_> = rows.iter().map(|row| (row.action.as_str(), row.reason.as_str())).collect();
        assert_eq!(said, [("health.check", "FORBIDDEN")], "{case}: {rows:#?}");
    }

    fn rows(&self, peer: SocketAddr) -> Vec<Row> {
        audit::of_peer(&self.pair.world.path(&format!("{0}/{0}.db", self.service)), peer)
    }
}

/// Makes all certificates, and the revocation list.
fn table(pair: &Pair, crl: &str) -> Vec<Shown> {
    let now = Clock::system().now();
    let pki = Pki::load(&pair.world.path("pki")).expect("the world's authority");
    let issued = |leaf: Leaf| {
        let issued = pki.issue(&leaf).expect("a certificate");
        Some((issued.cert, issued.key))
    };
    let leaf = |name: &str| Leaf::new(name, now);
    let elsewhere = Pki::create(&pair.world.path("elsewhere"), "elsewhere.test".parse().expect("good"), now);
    let elsewhere = elsewhere.expect("an authority").issue(&leaf("tester")).expect("a certificate");
    let spiffe = "spiffe://interlock.test/tester";
    let revoked = Some(made(pair, "revoked", &[spiffe], By::AuthorityThatRevokedIt));
    revoke(pair, crl);
    let named = |file: &str, names: &[&str]| Some(made(pair, file, names, By::Authority));
    let itself = Some(made(pair, "self-signed", &[spiffe], By::Itself));
    let expired = Leaf { not_before: now.before(3 * HOUR), validity: HOUR, ..leaf("expired") };
    let early = Leaf { not_before: now.after(HOUR), ..leaf("early") };
    let server_only = Leaf { client: false, ..leaf("server-only") };
    let row = |what, leaf, internal, public| Shown { what, leaf, internal, public };
    let bad = |what, leaf, alert| row(what, leaf, Alert(alert), Alert(alert));
    let good = |what, leaf| row(what, leaf, Denied, Served);
    vec![
        row("a listed one", Some(pair.world.leaf("pki/tester")), Served, Served),
        row("none", None, Alert(AlertDescription::CertificateRequired), Served),
        bad("expired", issued(expired), AlertDescription::CertificateExpired),
        bad("not yet valid", issued(early), AlertDescription::CertificateExpired),
        bad("foreign", Some((elsewhere.cert, elsewhere.key)), AlertDescription::UnknownCA),
        // The issuer's name is known, its key did not sign this.
        bad("foreign, of our name", Some(pair.world.leaf("foreign/tester")), AlertDescription::DecryptError),
        bad("self-signed", itself, AlertDescription::UnknownCA),
        bad("server only", issued(server_only), AlertDescription::UnsupportedCertificate),
        bad("revoked", revoked, AlertDescription::CertificateRevoked),
        good("wrong SAN", Some(pair.world.leaf("pki/unlisted"))),
        good("two SPIFFE SANs", named("two", &[spiffe, "spiffe://interlock.test/gateway"])),
        good("no SPIFFE SAN", named("none", &[])),
        good("another URI", named("https", &["https://interlock.test/tester"])),
        good("another trust domain", named("domain", &["spiffe://interlock.test.evil/tester"])),
        good("a listed id in capitals", named("capitals", &["spiffe://interlock.test/TESTER"])),
        good("a listed id and more", named("more", &["spiffe://interlock.test/tester/x"])),
    ]
}

/// Who signs a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Authority,
    AuthorityThatRevokedIt,
    Itself,
}

/// A client certificate with these URIs and a DNS name.
fn made(pair: &Pair, file: &str, uris: &[&str], by: By) -> (PathBuf, PathBuf) {
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII")));
    params.subject_alt_names.extend(uris);
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    params.serial_number = (by == By::AuthorityThatRevokedIt).then(|| SerialNumber::from(REVOKED));
    let certificate = match by {
        By::Itself => params.self_signed(&key),
        By::Authority | By::AuthorityThatRevokedIt => params.signed_by(&key, &authority(pair)),
    };
    let (cert_path, key_path) = pair.world.leaf(&format!("pki/made-{file}"));
    std::fs::write(&cert_path, certificate.expect("made").pem()).expect("written");
    std::fs::write(&key_path, key.serialize_pem()).expect("written");
    (cert_path, key_path)
}

/// Revokes one.
fn revoke(pair: &Pair, crl: &str) {
    let revocations = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2120, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(REVOKED),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = revocations.signed_by(&authority(pair)).expect("a list");
    std::fs::write(pair.world.path(crl), list.pem().expect("PEM")).expect("written");
}

/// The world's authority, to sign what [`Pki`] would not.
fn authority(pair: &Pair) -> Issuer<'static, KeyPair> {
    let key = std::fs::read_to_string(pair.world.path("pki/ca.key")).expect("a key");
    let der = CertificateDer::from_pem_file(pair.world.ca()).expect("a certificate");
    Issuer::from_ca_cert_der(&der, KeyPair::from_pem(&key).expect("a key")).expect("an authority")
}
