//! The doors of the gateway: what its TLS listeners show and ask for, and the lists of services, all read again when
//! they change.

use std::{path::PathBuf, sync::Arc};

use interlock_kit::{
    authn::{InternalTrust, LiveTrust},
    clock::Clock,
    config::Common,
    internal_token::InternalToken,
    own_certificate::OwnCertificate,
    reload::Reloads,
    serve::Server,
    tls::{Tls, TlsKind, TlsPaths},
};
use tokio::net::TcpListener;

use super::RunError;
use crate::{admit::Gate, config::Config, on_behalf::OnBehalf, service_workers::ServiceWorkers};

/// What both TLS listeners show and ask for.
pub(super) struct Doors {
    public: Arc<Tls>,
    internal: Option<(Arc<Tls>, LiveTrust)>,
    allow_file: Option<PathBuf>,
    pub(super) on_behalf: Option<OnBehalf>,
    on_behalf_file: Option<PathBuf>,
    pub(super) service_workers: Option<ServiceWorkers>,
    service_workers_file: Option<PathBuf>,
}

impl Doors {
    pub(super) fn load(config: &Config) -> Result<Self, RunError> {
        let common = &config.common;
        let paths = TlsPaths::from(&common.tls);
        let kind = TlsKind::from(common.tls.public_min_version);
        let tls =
            |paths, kind| Tls::load(paths, kind, common.profile)?.judged(own_certificate(common, false));
        let public = Arc::new(tls(paths.clone(), kind)?);
        let Some(internal) = &common.internal else {
            return Ok(Self {
                public,
                internal: None,
                allow_file: None,
                on_behalf: None,
                on_behalf_file: None,
                service_workers: None,
                service_workers_file: None,
            });
        };
        let paths = TlsPaths { client_ca: Some(internal.client_ca.clone()), ..paths };
        let tls = Arc::new(tls(paths, TlsKind::Internal)?);
        let token = InternalToken::load(&internal.token_file, common.profile)?;
        let trust = InternalTrust::configured(internal, token)?.into();
        let on_behalf_file = config.on_behalf_file.clone();
        let on_behalf = on_behalf_file.as_deref().map(|path| OnBehalf::load(path, &internal.trust_domain));
        let service_workers_file = config.service_workers_file.clone();
        let service_workers =
            service_workers_file.as_deref().map(|path| ServiceWorkers::load(path, &internal.trust_domain));
        Ok(Self {
            public,
            internal: Some((tls, trust)),
            allow_file: internal.allow_file.clone(),
            on_behalf: on_behalf.transpose()?,
            on_behalf_file,
            service_workers: service_workers.transpose()?,
            service_workers_file,
        })
    }

    /// The listeners, and what of them is read again when it changes.
    pub(super) fn hang(
        self,
        server: Server<Gate>,
        public: TcpListener,
        internal: Option<TcpListener>,
    ) -> (Server<Gate>, Reloads) {
        let reloads = reload_tls(Reloads::new(), "tls.public", &self.public);
        let server = server.public(public, self.public);
        let (Some(socket), Some((tls, trust))) = (internal, self.internal) else { return (server, reloads) };
        let reloads = reload_tls(reloads, "tls.internal", &tls);
        let reloads = match self.allow_file {
            Some(path) => {
                let trust = trust.clone();
                reloads.on([path.clone()], "allow_file", move || Ok(trust.reload_allowed(&path)?))
            }
            None => reloads,
        };
        let reloads = match self.on_behalf.zip(self.on_behalf_file) {
            Some((list, path)) => {
                reloads.on([path.clone()], "on_behalf_file", move || Ok(list.reload(&path)?))
            }
            None => reloads,
        };
        let reloads = match self.service_workers.zip(self.service_workers_file) {
            Some((list, path)) => {
                reloads.on([path.clone()], "service_workers_file", move || Ok(list.reload(&path)?))
            }
            None => reloads,
        };
        let token = trust.current().token.clone();
        let path = token.path().to_owned();
        let reloads = reloads.on([path], "internal_token", move || Ok(token.reload()?));
        (server.internal(socket, tls, trust), reloads)
    }
}

/// Peers refuse any other; auth goes by its SPIFFE id.
pub(super) fn own_certificate(common: &Common, must_name: bool) -> OwnCertificate {
    let trust_domain = common.tls.trust_domain.clone();
    OwnCertificate { clock: Clock::system(), trust_domain, must_name }
}

fn reload_tls(reloads: Reloads, name: &'static str, tls: &Arc<Tls>) -> Reloads {
    let reloaded = Arc::clone(tls);
    reloads.on(tls.files(), name, move || Ok(reloaded.reload()?))
}
