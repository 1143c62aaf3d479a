//! Calls by path, with an empty message or one that names a resource alone, and whatever credential is to be tried: for
//! checks of who is let in. What the SDK would never send.

use std::{path::PathBuf, time::Duration};

use interlock_proto::metadata;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::{AsciiMetadataKey, AsciiMetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// For a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Who is told to come back later does, so often.
const TRIES: usize = 20;

/// A listener.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    channel: Channel,
}

/// What a caller shows: names and values of metadata.
#[derive(Default)]
pub(crate) struct Shown(Vec<(&'static str, Zeroizing<String>)>);

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was let in.
    Open,
    /// No server answered: TLS or the network said no.
    Unreached(String),
    /// It was refused.
    Refused {
        /// The status.
        code: Code,
        /// `ErrorInfo.reason`; empty where there is none.
        reason: String,
    },
}

impl Shown {
    /// With a bearer credential, or what pretends to be one.
    pub(crate) fn bearer(self, text: &str) -> Self {
        self.with(metadata::AUTHORIZATION, format!("Bearer {text}"))
    }

    /// With one more entry.
    pub(crate) fn with(mut self, name: &'static str, value: String) -> Self {
        self.0.push((name, Zeroizing::new(value)));
        self
    }
}

impl Door {
    /// To `https://host:port`, whose certificate comes from this authority; with a client certificate and its key,
    /// or without.
    ///
    /// # Errors
    /// Files that cannot be read, an address that is none.
    pub(crate) fn to(url: &str, ca: &PathBuf, own: Option<(&PathBuf, &PathBuf)>) -> Result<Self, Failure> {
        let read = |path: &PathBuf| {
            std::fs::read(path)
                .map_err(|error| Failure::local(format!("cannot read {}: {error}", path.display())))
        };
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
        if let Some((certificate, key)) = own {
            tls = tls.identity(Identity::from_pem(read(certificate)?, Zeroizing::new(read(key)?)));
        }
        let endpoint = Endpoint::from_shared(url.to_owned())
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(|error| Failure::usage(format!("{url}: {error}")).next("HOST:PORT"))?;
        Ok(Self { channel: endpoint.connect_timeout(PATIENCE).connect_lazy() })
    }

    /// Calls the method at `path` with an empty message; again, where it is told to come back later.
    pub(crate) async fn call(&self, path: &str, shown: &Shown) -> Answer {
        self.call_about(path, "", shown).await
    }

    /// The same with a message whose first field is this text.
    pub(crate) async fn call_about(&self, path: &str, id: &str, shown: &Shown) -> Answer {
        for _ in 1..TRIES {
            match self.once(path, id, shown).await {
                Answer::Refused { code: Code::ResourceExhausted, .. } => {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                answer => return answer,
            }
        }
        self.once(path, id, shown).await
    }

    async fn once(&self, path: &str, id: &str, shown: &Shown) -> Answer {
        // As a message, a text is one field with the number 1; an empty one is none.
        let mut request = Request::new(tokio_stream::once(id.to_owned()));
        request.set_timeout(PATIENCE);
        for (name, value) in &shown.0 {
            let Ok(mut value) = AsciiMetadataValue::try_from(value.as_str()) else {
                return Answer::Unreached("a credential that metadata cannot carry".to_owned());
            };
            value.set_sensitive(true);
            request.metadata_mut().insert(AsciiMetadataKey::from_static(name), value);
        }
        let Ok(path) = path.parse::<PathAndQuery>() else {
            return Answer::Unreached(format!("{path}: no path"));
        };
        let called = async {
            let mut grpc = Grpc::new(self.channel.clone());
            grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
            // Reading a message without its fields is the same on every method.
            let answer = grpc.streaming(request, path, ProstCodec::<String, ()>::default()).await?;
            answer.into_inner().message().await
        };
        match tokio::time::timeout(PATIENCE, called).await {
            Ok(Ok(_)) => Answer::Open,
            // Held open without a word: nothing was refused.
            Err(_) => Answer::Open,
            Ok(Err(status)) => answer_of(&status),
        }
    }
}

fn answer_of(status: &Status) -> Answer {
    // What a server answers has no source here; what the transport says has one.
    match std::error::Error::source(status) {
        Some(source) => Answer::Unreached(source.to_string()),
        None => {
            let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
            Answer::Refused { code: status.code(), reason }
        }
    }
}
