//! What both listeners show and ask for: certificates, authorities, the internal token; and their reloads.

use std::{path::PathBuf, sync::Arc};

use interlock_kit::{
    authn::{InternalTrust, LiveTrust},
    clock::Clock,
    config::TlsVersion,
    internal_token::InternalToken,
    own_certificate::OwnCertificate,
    reload::Reloads,
    tls::{Tls, TlsKind, TlsPaths},
};

use crate::{config::Config, serving::StartError};

/// The certificates of both listeners, and what proves a service.
pub(crate) struct Certificates {
    pub(crate) public: Arc<Tls>,
    pub(crate) internal: Option<(Arc<Tls>, LiveTrust)>,
    allow_file: Option<PathBuf>,
}

impl Certificates {
    /// Reads all files.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub(crate) fn load(config: &Config) -> Result<Self, StartError> {
        let (common, profile) = (&config.common, config.common.profile);
        let own = || OwnCertificate {
            clock: Clock::system(),
            trust_domain: common.tls.trust_domain.clone(),
            must_name: false,
        };
        let paths = |client_ca| TlsPaths { client_ca, ..TlsPaths::from(&common.tls) };
        let kind = TlsKind::Public { tls12: common.tls.public_min_version == TlsVersion::V1_2 };
        let public = Tls::load(paths(common.tls.client_ca.clone()), kind, profile)?;
        let public = Arc::new(public.judged(own())?);
        let internal = match &common.internal {
            None => None,
            Some(internal) => {
                let tls = Tls::load(paths(Some(internal.client_ca.clone())), TlsKind::Internal, profile)?;
                let token = InternalToken::load(&internal.token_file, profile)?;
                Some((Arc::new(tls.judged(own())?), InternalTrust::configured(internal, token)?.into()))
            }
        };
        let allow_file = common.internal.as_ref().and_then(|internal| internal.allow_file.clone());
        Ok(Self { public, internal, allow_file })
    }

    /// Adds the reloads of these files.
    pub(crate) fn reloads(&self, reloads: Reloads) -> Reloads {
        let tls = Arc::clone(&self.public);
        let reloads = reloads.on(tls.files(), "tls.public", move || Ok(tls.reload()?));
        let Some((tls, trust)) = &self.internal else { return reloads };
        let reloads = match self.allow_file.clone() {
            Some(path) => {
                let trust = trust.clone();
                reloads.on([path.clone()], "allow_file", move || Ok(trust.reload_allowed(&path)?))
            }
            None => reloads,
        };
        let (tls, token) = (Arc::clone(tls), trust.current().token.clone());
        let path = token.path().to_owned();
        let reloads = reloads.on(tls.files(), "tls.internal", move || Ok(tls.reload()?));
        reloads.on([path], "internal_token", move || Ok(token.reload()?))
    }
}
