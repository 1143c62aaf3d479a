//! The gateway, for clients: the door to [`Sessions`], [`Jobs`], [`Files`] and [`Agents`].

use std::{path::Path, sync::Arc, time::Duration};

use interlock_proto::gateway::v1 as wire;
use prost::Message;

use crate::{
    agent::Agents,
    audit::AuditLog,
    call::{Identity, Scope},
    connect::Connection,
    cookie::Cookie,
    credentials::Credentials,
    error::Error,
    file::Files,
    job::Jobs,
    path,
    session::Sessions,
};

/// Lists are read in pages of this many.
pub(crate) const PAGE: u32 = 500;
/// And at most this many pages: an endless list is a fault, not a list.
pub(crate) const PAGES_MAX: usize = 100;

/// A client of the gateway: a connection, and as whom it is used. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway {
    connection: Connection,
    identity: Arc<Identity>,
}

impl Gateway {
    /// Calls over `connection` as `credentials`.
    #[must_use]
    pub fn new(connection: Connection, credentials: Credentials) -> Self {
        Self { connection, identity: Arc::new(Identity::of(credentials)) }
    }

    /// The same, naming `project_id` on each call (`x-interlock-project`): the server refuses what
    /// would reach another project.
    #[must_use]
    pub fn with_project(self, project_id: impl Into<String>) -> Self {
        let project = Scope::Named(Arc::from(project_id.into()));
        Self { identity: Arc::new(Identity { project, ..(*self.identity).clone() }), ..self }
    }

    /// The same, for the project of `folder`: before each call its project file is looked for
    /// ([`crate::ProjectFile::discover`]), so that a changed file counts from the next call on. A broken file fails
    /// the call; without one the call names no project.
    #[must_use]
    pub fn in_folder(self, folder: impl AsRef<Path>) -> Self {
        let project = Scope::Folder(Arc::from(folder.as_ref()));
        Self { identity: Arc::new(Identity { project, ..(*self.identity).clone() }), ..self }
    }

    /// The same, as the client that `cookie` stands for. Beside a bearer, both must lead to the same
    /// session's owner.
    #[must_use]
    pub fn with_cookie(self, cookie: Cookie) -> Self {
        let cookie = Some(cookie);
        Self { identity: Arc::new(Identity { cookie, ..(*self.identity).clone() }), ..self }
    }

    /// For services, over a connection to the gateway's internal listener: acts for `owner_id`, whom the gateway must
    /// have listed for this service (`on_behalf_file`). In place of any credential: beside one it is refused.
    #[must_use]
    pub fn on_behalf_of(connection: Connection, owner_id: impl Into<String>) -> Self {
        let on_behalf_of = Some(Arc::from(owner_id.into()));
        Self { connection, identity: Arc::new(Identity { on_behalf_of, ..Identity::default() }) }
    }

    /// Sessions and their logs.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        Sessions::of(self.clone())
    }

    /// Jobs.
    #[must_use]
    pub fn jobs(&self) -> Jobs {
        Jobs::of(self.clone())
    }

    /// Files of sessions.
    #[must_use]
    pub fn files(&self) -> Files {
        Files::of(self.clone())
    }

    /// The registry of agents.
    #[must_use]
    pub fn agents(&self) -> Agents {
        Agents::of(self.clone())
    }

    /// The gateway's audit log, for administrators.
    #[must_use]
    pub fn audit(&self) -> AuditLog {
        AuditLog::of(self.connection.clone(), (*self.identity).clone())
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) async fn call<Q, A>(&self, path: &'static str, message: Q) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.connection.call(path, &self.identity, message).await
    }

    /// Calls with `longer` on top of the usual deadline.
    pub(crate) async fn call_parking<Q, A>(
        &self,
        path: &'static str,
        message: Q,
        longer: Duration,
    ) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let within = self.connection.deadline() + longer;
        self.connection.unary(path, &self.identity, message, within).await.map(|answer| answer.message)
    }

    /// Keeps a stream alive on the credential of now. Answers when that ends.
    pub(crate) async fn renew_stream(&self, stream_id: &str) -> Result<Option<std::time::SystemTime>, Error> {
        let request = wire::RenewStreamRequest { stream_id: stream_id.to_owned() };
        let answer: wire::RenewStreamResponse = self.call(path::RENEW_STREAM, request).await?;
        Ok(crate::clock::from_wire(answer.expires_at))
    }
}

/// The part of an answer that must be there.
pub(crate) fn present<T>(part: Option<T>, what: &str) -> Result<T, Error> {
    part.ok_or_else(|| Error::protocol(format!("an answer without {what}")))
}
