//! The audit log of one service of a pair, and what the other service remembers of it.

use interlock_client::{AuditLog, AuditReport};

use crate::{pair::Pair, patience::eventually};

/// Whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// Of auth.
    Auth,
    /// Of the gateway.
    Gateway,
}

impl Log {
    /// The service's name: of its folder, its configuration, its database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Gateway => "gateway",
        }
    }

    /// The log of the service that remembers this one's heads.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Auth => Self::Gateway,
            Self::Gateway => Self::Auth,
        }
    }

    /// What the other service calls this one's.
    #[must_use]
    pub fn known_as(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Gateway => "spiffe://interlock.test/gateway",
        }
    }

    /// For an administrator.
    #[must_use]
    pub fn sdk(self, pair: &Pair) -> AuditLog {
        match self {
            Self::Auth => pair.sdk_auth_as(&pair.admin()).audit(),
            Self::Gateway => pair.sdk_gateway(&pair.admin()).audit(),
        }
    }

    /// Has so many rows written, in batches of their own.
    ///
    /// # Panics
    /// Where the service does not take calls in time.
    pub async fn grow(self, pair: &Pair, rows: usize) {
        let (auth, gateway) = (pair.sdk_auth_as(&pair.admin()), pair.sdk_gateway(&pair.user()));
        for n in 0..rows {
            eventually("a row", async || match self {
                Self::Auth => auth.create_project(&format!("p{n}")).await.ok().map(drop),
                Self::Gateway => gateway.sessions().create("").await.ok().map(drop),
            })
            .await;
        }
    }

    /// Its verification, once the other service has told what it remembers.
    ///
    /// # Panics
    /// Where it does not in time.
    pub async fn verified(self, pair: &Pair) -> AuditReport {
        let other = self.other().known_as();
        eventually("a verification that compares", async || {
            let report = self.sdk(pair).verify(&[]).await.ok()?;
            report.peers.iter().any(|peer| peer.name == other).then_some(report)
        })
        .await
    }

    /// Stops its service.
    ///
    /// # Panics
    /// Where that does not drain.
    pub async fn stop(self, pair: &mut Pair) {
        let service = match self {
            Self::Auth => &mut pair.auth,
            Self::Gateway => &mut pair.gateway,
        };
        assert!(service.drain().await.success(), "it drains");
    }

    /// Starts its service again, and waits until the pair serves.
    pub async fn start(self, pair: &mut Pair) {
        match self {
            Self::Auth => pair.start_auth().await,
            Self::Gateway => pair.start_gateway().await,
        };
        pair.serving().await;
    }
}
