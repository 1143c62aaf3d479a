//! One service as clients meet it: its name, TLS, certificate, health and clock.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use interlock_client::Clock;
use interlock_kit::{clock::Timestamp, tls::certificate_end};
use rustls::{CertificateError, ClientConfig, RootCertStore, version::TLS13};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::{
    codegen::http::Uri,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{Findings, place};
use crate::output::instant;

/// For a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A certificate that ends sooner should be followed by a new one by now.
const LIFE_MIN: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Clocks that agree: the answer's clock tells whole seconds, and the way takes its time.
const SKEW_MAX: Duration = Duration::from_secs(5);
/// Beyond this nobody can make sense of the other's instants.
const SKEW_WRONG: Duration = Duration::from_secs(300);

/// Looks at one service, as far as one thing stands on another. Whether it answers.
pub(super) async fn look(name: &str, url: &str, ca: &Path, findings: &mut Findings) -> bool {
    let Some(stream) = reached(name, url, findings).await else { return false };
    let Some(host) = host_of(url) else { return false };
    let Some(leaf) = handshake(name, &host, ca, stream, findings).await else { return false };
    life(name, &leaf, findings);
    health(name, url, ca, findings).await
}

fn host_of(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    uri.host().map(|host| host.trim_matches(['[', ']']).to_owned())
}

/// The name is one, has an address, and somebody listens there.
async fn reached(name: &str, url: &str, findings: &mut Findings) -> Option<TcpStream> {
    let next = "mend the context, or make a new one: interlock up";
    let uri: Option<Uri> = url.parse().ok();
    let port = uri.as_ref().and_then(Uri::port_u16);
    let (Some(host), Some(port), Some("https")) =
        (host_of(url), port, uri.as_ref().and_then(Uri::scheme_str))
    else {
        findings.bad("name", name, format!("{url} is not https://HOST:PORT"), next);
        return None;
    };
    let looked_up = timeout(PATIENCE, tokio::net::lookup_host((host.as_str(), port))).await;
    let addresses: Vec<_> = match looked_up {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            findings.bad("name", name, format!("{host}: {error}"), next);
            return None;
        }
        Err(_) => {
            findings.bad(
                "name",
                name,
                format!("{host}: no answer of the name service"),
                "ask whoever runs it",
            );
            return None;
        }
    };
    let told: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    findings.good("name", name, format!("{host} is {}", told.join(", ")));
    let mut last = "no address".to_owned();
    for address in addresses {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = format!("no connection within {} s", PATIENCE.as_secs()),
        }
    }
    findings.bad("tls", name, format!("{host}:{port}: {last}"), "start the service: interlock up");
    None
}

/// The server's certificate, where it is one of this authority and for this name.
async fn handshake(
    name: &str,
    host: &str,
    ca: &Path,
    stream: TcpStream,
    findings: &mut Findings,
) -> Option<Vec<u8>> {
    let (config, server) = match (believing(ca), ServerName::try_from(host.to_owned())) {
        (Ok(config), Ok(server)) => (config, server),
        (Err(why), _) => {
            findings.bad("tls", name, format!("{}: {why}", place(ca)), "name the right CA in the context");
            return None;
        }
        (_, Err(_)) => {
            findings.bad("tls", name, format!("{host} is no host name"), "mend the context");
            return None;
        }
    };
    let connected = timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(server, stream)).await;
    match connected {
        Ok(Ok(stream)) => {
            let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            findings.good("tls", name, format!("TLS 1.3, a certificate for {host} of {}", place(ca)));
            leaf.map(|leaf| leaf.to_vec())
        }
        Ok(Err(error)) => {
            let (told, next) = refusal(&error, host, ca);
            findings.bad("tls", name, told, &next);
            None
        }
        Err(_) => {
            let told = format!("no TLS within {} s", PATIENCE.as_secs());
            findings.bad("tls", name, told, "is it the public listener of an Interlock service?");
            None
        }
    }
}

fn believing(ca: &Path) -> Result<ClientConfig, String> {
    let pem = std::fs::read(ca).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("holds no certificate".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let mut config =
        builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn refusal(error: &std::io::Error, host: &str, ca: &Path) -> (String, String) {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(why)) = inner else {
        return (error.to_string(), "is it the public listener of an Interlock service?".to_owned());
    };
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "its certificate has expired".to_owned(),
            "issue a new one; the service takes it without a restart. Or this host's clock is wrong"
                .to_owned(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("its certificate is not valid yet".to_owned(), "set this host's clock".to_owned())
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            format!("its certificate is for another name than {host}"),
            "use a name of the certificate in the context, or issue one for this name".to_owned(),
        ),
        other => (
            format!("its certificate is not of {}: {other}", place(ca)),
            "name the CA that issued it in the context".to_owned(),
        ),
    }
}

fn life(name: &str, leaf: &[u8], findings: &mut Findings) {
    match certificate_end(leaf) {
        Ok(end) => ends(name, end, findings),
        Err(why) => findings.bad("certificate life", name, why, "issue another one"),
    }
}

/// When a certificate that is good now ends.
pub(super) fn ends(name: &str, end: Timestamp, findings: &mut Findings) {
    let now = interlock_kit::clock::Clock::system().now();
    let left = end.since(now);
    let told = format!("until {end}, {} days left", left.as_secs() / 86_400);
    if end.is_over(now) {
        findings.bad("certificate life", name, format!("expired at {end}"), "issue a new one");
    } else if left < LIFE_MIN {
        let next = "issue a new one; the service takes it without a restart";
        findings.warn("certificate life", name, told, next);
    } else {
        findings.good("certificate life", name, told);
    }
}

/// Whether it serves; and from the same answer, what its host's clock shows. Whether it answers at all.
async fn health(name: &str, url: &str, ca: &Path, findings: &mut Findings) -> bool {
    let asked = async {
        let pem = std::fs::read(ca).map_err(|error| error.to_string())?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        let endpoint = Endpoint::from_shared(url.to_owned()).and_then(|endpoint| endpoint.tls_config(tls));
        let channel = endpoint.map_err(|error| error.to_string())?.connect_timeout(PATIENCE).connect_lazy();
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        answer.map_err(|status| format!("{:?}: {}", status.code(), status.message()))
    };
    let before = Clock::system().wall();
    let answer = match timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => {
            findings.bad("health", name, why, "its log says why");
            return false;
        }
        Err(_) => {
            let told = format!("no answer within {} s", PATIENCE.as_secs());
            findings.bad("health", name, told, "its log says why");
            return false;
        }
    };
    let after = Clock::system().wall();
    match answer.get_ref().status() {
        ServingStatus::Serving => findings.good("health", name, "SERVING"),
        other => {
            let next = "its log says why: a store without room, no lease from auth, or it drains";
            findings.bad("health", name, other.as_str_name(), next);
        }
    }
    let date = answer.metadata().get("date").and_then(|date| date.to_str().ok());
    clock(name, date, before, after, findings);
    true
}

/// RFC 9110 section 6.6.1: when the answer was made, in whole seconds.
fn clock(name: &str, date: Option<&str>, before: SystemTime, after: SystemTime, findings: &mut Findings) {
    let parsed = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let Some(theirs) = parsed.map(|date| SystemTime::from(date.timestamp())) else {
        let next = "compare the clocks by hand";
        return findings.warn("clock", name, "the answer does not say what its clock shows", next);
    };
    let skew = match (before.duration_since(theirs), theirs.duration_since(after)) {
        (Ok(behind), Err(_)) => behind.saturating_sub(Duration::from_secs(1)),
        (Err(_), Ok(ahead)) => ahead,
        _ => Duration::ZERO,
    };
    let told = format!("{} there, {} here", instant(theirs), instant(after));
    let next = "set both hosts' clocks by a time service";
    if skew > SKEW_WRONG {
        findings.bad("clock", name, told, next);
    } else if skew > SKEW_MAX {
        findings.warn("clock", name, told, next);
    } else {
        findings.good("clock", name, format!("within {} s of this host's", SKEW_MAX.as_secs()));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Outcome, *};

    #[test]
    fn a_clock_that_differs_is_told() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let outcome = |shift: i64| {
            let here = match u64::try_from(shift) {
                Ok(ahead) => now + Duration::from_secs(ahead),
                Err(_) => now - Duration::from_secs(shift.unsigned_abs()),
            };
            let mut findings = Findings::default();
            clock("auth", Some("Sun, 06 Nov 1994 08:49:37 GMT"), here, here, &mut findings);
            findings.0[0].outcome
        };
        for (shift, expected) in [
            (0, Outcome::Success),
            (6, Outcome::Success),
            (-5, Outcome::Success),
            (7, Outcome::Warning),
            (-6, Outcome::Warning),
            (-300, Outcome::Warning),
            (302, Outcome::Failure),
            (-301, Outcome::Failure),
        ] {
            assert_eq!(outcome(shift), expected, "{shift} s");
        }
        let mut findings = Findings::default();
        clock("auth", Some("yesterday"), now, now, &mut findings);
        clock("auth", None, now, now, &mut findings);
        assert!(findings.0.iter().all(|finding| finding.outcome == Outcome::Warning));
    }

    #[test]
    fn the_life_of_a_certificate_is_told_in_time() {
        let now = interlock_kit::clock::Clock::system().now();
        let day = Duration::from_secs(86_400);
        for (end, expected) in [
            (now.after(8 * day), Outcome::Success),
            (now.after(6 * day), Outcome::Warning),
            (now.before(day), Outcome::Failure),
        ] {
            let mut findings = Findings::default();
            ends("auth", end, &mut findings);
            assert_eq!(findings.0[0].outcome, expected, "{end}");
        }
    }
}
