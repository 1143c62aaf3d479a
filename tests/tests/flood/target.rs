//! The listeners that floods go to, and the way in for who is honest.

use std::ops::Deref;

use interlock_tests::{
    Pair, Service, Setup, eventually,
    frames::Plug,
    wire::{self, Metadata, Outcome},
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub(crate) const LIST_SESSIONS: &str = "/interlock.gateway.v1.SessionService/ListSessions";
pub(crate) const WHO_AM_I: &str = "/interlock.auth.v1.IdentityService/WhoAmI";
/// Honest clients are at 127.0.0.1; whoever floods is elsewhere.
pub(crate) const FLOODER: u8 = 66;

/// Settings for tests that keep a machine busy: an honest call that is slow for want of a processor is no refusal,
/// and no lease lapses for it.
pub(crate) fn patient() -> Setup {
    let setup = Setup::default().auth("lease", "30s");
    setup.auth("limits.timeout", "40s").gateway("limits.timeout", "40s")
}

/// A listener of a program.
pub(crate) struct Target<'a> {
    pub(crate) service: &'a Service,
    pub(crate) way: Way,
}

/// How it is called.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) plug: Plug,
    /// An ordinary call that only reads, with an empty message.
    pub(crate) path: &'static str,
    pub(crate) metadata: Metadata,
    /// The same, as header fields.
    pub(crate) fields: Vec<(&'static str, String)>,
}

impl Deref for Target<'_> {
    type Target = Way;

    fn deref(&self) -> &Way {
        &self.way
    }
}

impl Target<'_> {
    /// Waits until the first call of a channel was answered.
    pub(crate) async fn served(&self, channel: &Channel) {
        eventually("an honest connection", async || {
            let answer = wire::call(channel, self.way.path, Vec::new(), &self.way.metadata).await;
            (answer.outcome == Outcome::ok()).then_some(())
        })
        .await;
    }
}

impl Way {
    /// A new connection from 127.0.0.`n`.
    pub(crate) fn channel(&self, n: u8) -> Channel {
        let read = |path| std::fs::read(path).expect("a PEM file");
        let plug = self.plug.from(n);
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read(&plug.ca)))
            .domain_name("localhost");
        if let Some((certificate, key)) = &plug.leaf {
            tls = tls.identity(Identity::from_pem(read(certificate), read(key)));
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", plug.to)).expect("an address");
        endpoint.tls_config(tls).expect("certificates").local_address(Some(plug.from)).connect_lazy()
    }

    /// The header fields of its call, with more after them.
    pub(crate) fn headers(&self, more: &[(&str, &str)]) -> Vec<u8> {
        let mut all: Vec<_> = self.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        all.extend(more);
        interlock_tests::frames::call(self.path, &all)
    }
}

/// Auth's public listener.
pub(crate) fn auth_public(pair: &Pair) -> Target<'_> {
    target(pair, "auth public", &pair.auth, "public", WHO_AM_I)
}

/// The gateway's public listener.
pub(crate) fn gateway_public(pair: &Pair) -> Target<'_> {
    target(pair, "gateway public", &pair.gateway, "public", LIST_SESSIONS)
}

/// The gateway's internal listener, as a service on the allow list with a forwarded credential.
pub(crate) fn gateway_internal(pair: &Pair) -> Target<'_> {
    target(pair, "gateway internal", &pair.gateway, "internal", LIST_SESSIONS)
}

fn target<'a>(
    pair: &'a Pair,
    name: &'static str,
    service: &'a Service,
    listener: &str,
    path: &'static str,
) -> Target<'a> {
    let bearer = format!("Bearer {}", pair.user().expose());
    let (mut leaf, mut fields) = (None, vec![("authorization", bearer)]);
    if listener == "internal" {
        leaf = Some(pair.world.leaf("pki/tester"));
        fields.push(("x-internal-token", pair.world.internal_token().to_owned()));
    }
    let metadata = fields.iter().fold(Metadata::none(), |all, (name, value)| all.with(name, value));
    let from = [127, 0, 0, 1].into();
    let plug = Plug { to: service.address(listener), from, ca: pair.world.ca(), leaf };
    Target { service, way: Way { name, plug, path, metadata, fields } }
}
