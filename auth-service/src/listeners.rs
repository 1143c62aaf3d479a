//! The sockets of the service, bound before anything else is done.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use crate::{config::Config, serving::StartError};

/// The bound sockets of a service.
#[derive(Debug)]
pub struct Listeners {
    pub(crate) public: TcpListener,
    pub(crate) internal: Option<TcpListener>,
    pub(crate) health: Option<TcpListener>,
    pub(crate) metrics: Option<TcpListener>,
}

impl Listeners {
    /// Binds what is configured. Port 0 takes any free one; the ready file says which.
    ///
    /// # Errors
    /// [`StartError::Bind`]
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        let common = &config.common;
        let internal = common.internal.as_ref().map(|internal| internal.address);
        Ok(Self {
            public: bind("public.address", common.public).await?,
            internal: bind_some("internal.address", internal).await?,
            health: bind_some("health.address", common.health).await?,
            metrics: bind_some("metrics.address", common.metrics).await?,
        })
    }

    /// Where they are, by name.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn addresses(&self) -> io::Result<Vec<(&'static str, SocketAddr)>> {
        let all = [
            ("public", Some(&self.public)),
            ("internal", self.internal.as_ref()),
            ("health", self.health.as_ref()),
            ("metrics", self.metrics.as_ref()),
        ];
        let bound = all.into_iter().filter_map(|(name, listener)| Some((name, listener?)));
        bound.map(|(name, listener)| Ok((name, listener.local_addr()?))).collect()
    }
}

async fn bind_some(
    what: &'static str,
    address: Option<SocketAddr>,
) -> Result<Option<TcpListener>, StartError> {
    match address {
        Some(address) => bind(what, address).await.map(Some),
        None => Ok(None),
    }
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { what, address, source })
}
