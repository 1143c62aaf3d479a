//! The sockets that the gateway serves on: bound before anything else starts.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use crate::{config::Config, server::RunError};

/// The bound sockets.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub public: TcpListener,
    /// For services.
    pub internal: Option<TcpListener>,
    /// Health only.
    pub health: Option<TcpListener>,
    /// Metrics and probes.
    pub metrics: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the configuration names; port 0 takes a free one.
    ///
    /// # Errors
    /// [`RunError::Bind`], naming the key.
    pub async fn bind(config: &Config) -> Result<Self, RunError> {
        let common = &config.common;
        let internal = common.internal.as_ref().map(|internal| internal.address);
        Ok(Self {
            public: bind("public.address", common.public).await?,
            internal: maybe("internal.address", internal).await?,
            health: maybe("health.address", common.health).await?,
            metrics: maybe("metrics.address", common.metrics).await?,
        })
    }

    /// Where they are bound, by name.
    ///
    /// # Errors
    /// What the system says.
    pub fn addresses(&self) -> io::Result<Vec<(&'static str, SocketAddr)>> {
        let optional = [("internal", &self.internal), ("health", &self.health), ("metrics", &self.metrics)];
        let mut all = vec![("public", self.public.local_addr()?)];
        for (name, listener) in optional {
            if let Some(listener) = listener {
                all.push((name, listener.local_addr()?));
            }
        }
        Ok(all)
    }
}

async fn maybe(key: &'static str, address: Option<SocketAddr>) -> Result<Option<TcpListener>, RunError> {
    match address {
        Some(address) => bind(key, address).await.map(Some),
        None => Ok(None),
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Bind { key, address, source })
}
