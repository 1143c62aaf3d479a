//! A service's configuration and the files it names, looked at on its host, by the service's own rules.

use std::path::Path;

use interlock_kit::{
    clock::Clock,
    config::{Common, Mistake, Profile},
    internal_token::InternalToken,
    own_certificate::OwnCertificate,
    pki, secret_file,
};

use super::{Findings, place, service};

/// As auth-service reads it, under the environment that this command has.
pub(super) fn auth(file: &Path, findings: &mut Findings) {
    match interlock_auth::config::Config::of_process(Some(file), Vec::new()) {
        Ok(config) => common("auth", file, &config.common, findings),
        Err(mistakes) => told("auth", &mistakes, findings),
    }
}

/// As gateway-service reads it.
pub(super) fn gateway(file: &Path, findings: &mut Findings) {
    match interlock_gateway::config::load(Some(file), Vec::new()) {
        Ok(config) => common("gateway", file, &config.common, findings),
        Err(mistakes) => told("gateway", &mistakes, findings),
    }
}

fn told(name: &str, mistakes: &[Mistake], findings: &mut Findings) {
    for mistake in mistakes {
        findings.bad("config", name, mistake.to_string(), "docs/configuration.md has every key");
    }
}

fn common(name: &str, file: &Path, config: &Common, findings: &mut Findings) {
    findings.good("config", name, place(file));
    let own = OwnCertificate {
        clock: Clock::system(),
        trust_domain: config.tls.trust_domain.clone(),
        must_name: config.internal.is_some(),
    };
    let cert = &config.tls.cert;
    match own.judge_file(cert) {
        Ok(()) => match end_of(cert) {
            Ok(end) => service::ends(&place(cert), end, findings),
            Err(why) => findings.bad("certificate life", &place(cert), why, "issue another one"),
        },
        Err(error) => findings.bad("tls", name, error.to_string(), "issue another certificate"),
    }
    let profile = config.profile;
    match secret_file::read(&config.tls.key, FILE_BYTES_MAX, profile) {
        Ok(key) => match key.exposed {
            Some(exposed) => findings.warn("tls", name, exposed.to_string(), "chmod 600"),
            None => findings.good("tls", name, format!("the key {} is its owner's", place(&config.tls.key))),
        },
        Err(error) => {
            findings.bad("tls", name, error.to_string(), "make it a file of the service's user, 0600");
        }
    }
    if let Some(path) = &config.internal_token_file {
        token(name, path, profile, findings);
    }
}

/// No file of certificates or keys is larger.
const FILE_BYTES_MAX: u64 = 4 << 20;

fn end_of(cert: &Path) -> Result<interlock_kit::clock::Timestamp, String> {
    let pem = secret_file::read(cert, FILE_BYTES_MAX, Profile::Local).map_err(|error| error.to_string())?;
    pki::not_after(&pem.contents).map_err(|error| error.to_string())
}

fn token(name: &str, path: &Path, profile: Profile, findings: &mut Findings) {
    match InternalToken::load(path, profile) {
        Ok(token) if token.is_rolling() => {
            let next = "interlock-auth internal-token rotate --finish, once every service has it";
            findings.warn("internal token", name, format!("{} has two lines", place(path)), next);
        }
        Ok(_) => findings.good("internal token", name, place(path)),
        Err(error) => {
            let next = "one or two lines in a file of the service's user, 0600";
            findings.bad("internal token", name, error.to_string(), next);
        }
    }
}
