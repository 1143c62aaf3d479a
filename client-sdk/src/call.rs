//! One way to make a call: who makes it, under which id, how long it may take, and what happens when
//! it fails.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::Stream;
use http::uri::PathAndQuery;
use interlock_proto::{credential::Credential, metadata as key};
use prost::Message;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{
    Request, Streaming,
    client::Grpc,
    metadata::{Ascii, MetadataMap, MetadataValue},
};
use tonic_prost::ProstCodec;

use crate::{
    connect::{Connection, Line, Place},
    cookie::Cookie,
    credentials::{Credentials, Presented},
    error::{Error, Reason},
    project_file::ProjectFile,
    random,
    retry::{Backoff, is_idempotent, is_passing},
    unscoped,
};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// As whom, and for which project, calls are made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    pub(crate) credentials: Credentials,
    pub(crate) project: Scope,
    pub(crate) cookie: Option<Cookie>,
    /// The owner that a service acts for by name.
    pub(crate) on_behalf_of: Option<Arc<str>>,
}

/// Which project calls name.
#[derive(Clone, Debug, Default)]
pub(crate) enum Scope {
    /// None.
    #[default]
    Unscoped,
    /// This one.
    Named(Arc<str>),
    /// That of the folder's project file, as it is when a call is made.
    Folder(Arc<Path>),
}

impl Scope {
    async fn project(&self) -> Result<Option<Arc<str>>, Error> {
        let folder = match self {
            Self::Unscoped => return Ok(None),
            Self::Named(project) => return Ok(Some(Arc::clone(project))),
            Self::Folder(folder) => Arc::clone(folder),
        };
        let looked = tokio::task::spawn_blocking(move || ProjectFile::discover(&folder)).await;
        let found = looked.map_err(|error| Error::local(format!("the project file: {error}")))??;
        Ok(found.map(|found| Arc::from(found.file.project_id)))
    }
}

impl Identity {
    pub(crate) fn of(credentials: Credentials) -> Self {
        Self { credentials, ..Self::default() }
    }

    /// One credential, as it is.
    pub(crate) fn bearer(credential: &Credential) -> Self {
        Self::of(Credentials::bearer(credential.clone()))
    }
}

/// One unary call, over all its tries.
struct Call<'a> {
    path: &'static str,
    who: &'a Identity,
    request_id: String,
    deadline: Instant,
}

/// Why a try failed.
struct Failure {
    error: Error,
    /// The credential had expired, and there is a way to a fresh one.
    refreshable: bool,
    /// Nothing was sent: there was nothing to send it with.
    before_sending: bool,
}

/// The answer to a unary call.
pub(crate) struct Answer<A> {
    pub(crate) message: A,
    pub(crate) metadata: MetadataMap,
}

/// A stream that the server has opened.
pub(crate) struct Opened<A> {
    pub(crate) messages: Streaming<A>,
    pub(crate) line: Place,
    pub(crate) presented: Option<Presented>,
}

impl Connection {
    /// Calls the unary method at `path` within the connection's deadline.
    pub(crate) async fn call<Q, A>(&self, path: &'static str, who: &Identity, message: Q) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.unary(path, who, message, self.deadline()).await.map(|answer| answer.message)
    }

    /// Calls the unary method at `path`, and again after failures that pass, where its policy allows.
    pub(crate) async fn unary<Q, A>(
        &self,
        path: &'static str,
        who: &Identity,
        message: Q,
        within: Duration,
    ) -> Result<Answer<A>, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let call = Call { path, who, request_id: random::id(), deadline: Instant::now() + within };
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut renewed = false;
        let mut last = None;
        loop {
            let failure = match timeout_at(call.deadline, self.attempt(&call, message.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                // What went wrong before tells more than that the time is up.
                Err(_) => return Err(last.unwrap_or_else(Error::deadline).of_call(&call.request_id)),
            };
            let error = failure.error.of_call(&call.request_id);
            // Refused before it did anything: the same call may go out on a fresh credential, once.
            if failure.refreshable && !renewed {
                renewed = true;
                continue;
            }
            if failure.before_sending || !is_idempotent(path) || !is_passing(&error) {
                return Err(error);
            }
            let again = Instant::now() + backoff.pause(error.retry_after()).max(self.rest_left());
            if again >= call.deadline {
                return Err(error);
            }
            tracing::debug!(path, request_id = call.request_id, %error, "call failed; it is made again");
            last = Some(error);
            sleep_until(again).await;
        }
    }

    /// Makes a call once.
    async fn attempt<Q, A>(&self, call: &Call<'_>, message: Q) -> Result<Answer<A>, Failure>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let early = |error| Failure { error, refreshable: false, before_sending: true };
        let presented = call.who.credentials.present().await.map_err(early)?;
        let mut request = Request::new(message);
        request.set_timeout(call.deadline.saturating_duration_since(Instant::now()));
        self.dress(request.metadata_mut(), call.who, presented.as_ref(), &call.request_id)
            .await
            .map_err(early)?;
        let line = self.place(call.path);
        let codec = ProstCodec::<Q, A>::default();
        let sent = async {
            let mut grpc = Grpc::new(line.channel.clone());
            grpc.ready().await.map_err(|e| Error::transport(format!("not connected: {e}")))?;
            let answer = grpc.unary(request, PathAndQuery::from_static(call.path), codec).await;
            answer.map_err(|status| Error::from_status(&status))
        };
        match sent.await {
            Ok(answer) => {
                let (metadata, message, _) = answer.into_parts();
                unscoped::heed(&metadata);
                Ok(Answer { message, metadata })
            }
            Err(error) => {
                let refreshable = self.learn(&error, call.who, presented.as_ref(), &line);
                Err(Failure { error, refreshable, before_sending: false })
            }
        }
    }

    /// Makes what can be made of a refusal, for the next try. Whether that has a fresh credential.
    fn learn(&self, error: &Error, who: &Identity, presented: Option<&Presented>, line: &Arc<Line>) -> bool {
        match (error.reason(), presented) {
            (Some(Reason::Draining), _) if self.has_choice() => {
                self.move_on(line);
                false
            }
            (Some(Reason::TokenExpired), Some(presented)) => who.credentials.expired(presented),
            _ => false,
        }
    }

    /// Opens the streaming method at `path`, once: whoever streams knows how to go on after a break.
    pub(crate) async fn open<Q, A, S>(
        &self,
        path: &'static str,
        who: &Identity,
        messages: S,
    ) -> Result<Opened<A>, Error>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
        S: Stream<Item = Q> + Send + 'static,
    {
        self.open_within(path, who, messages, self.deadline()).await
    }

    /// The same, where the server's first word may take longer: it answers when it has all that is sent.
    pub(crate) async fn open_within<Q, A, S>(
        &self,
        path: &'static str,
        who: &Identity,
        messages: S,
        within: Duration,
    ) -> Result<Opened<A>, Error>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
        S: Stream<Item = Q> + Send + 'static,
    {
        let request_id = random::id();
        let deadline = Instant::now() + within;
        let opening = async {
            let presented = who.credentials.present().await?;
            let line = self.place(path);
            let mut request = Request::new(messages);
            self.dress(request.metadata_mut(), who, presented.as_ref(), &request_id).await?;
            let mut grpc = Grpc::new(line.channel.clone());
            grpc.ready().await.map_err(|e| Error::transport(format!("not connected: {e}")))?;
            let codec = ProstCodec::<Q, A>::default();
            let answer = grpc.streaming(request, PathAndQuery::from_static(path), codec).await;
            match answer {
                Ok(answer) => {
                    unscoped::heed(answer.metadata());
                    Ok(Opened { messages: answer.into_inner(), line, presented })
                }
                Err(status) => {
                    let error = Error::from_status(&status);
                    self.learn(&error, who, presented.as_ref(), &line);
                    Err(error)
                }
            }
        };
        let opened = timeout_at(deadline, opening).await.unwrap_or_else(|_| Err(Error::deadline()));
        opened.map_err(|error| error.of_call(&request_id))
    }

    async fn dress(
        &self,
        metadata: &mut MetadataMap,
        who: &Identity,
        presented: Option<&Presented>,
        request_id: &str,
    ) -> Result<(), Error> {
        metadata.insert(key::REQUEST_ID, ascii("request id", request_id)?);
        if let Some(presented) = presented {
            let text = zeroize::Zeroizing::new(format!("Bearer {}", presented.credential.expose()));
            metadata.insert(key::AUTHORIZATION, secret(&text)?);
        }
        if let Some(cookie) = &who.cookie {
            metadata.insert(key::COOKIE, secret(cookie.expose())?);
        }
        if let Some(owner) = &who.on_behalf_of {
            metadata.insert(key::ON_BEHALF_OF, ascii("owner", owner)?);
        }
        if let Some(project) = who.project.project().await? {
            metadata.insert(key::PROJECT, ascii("project", &project)?);
        }
        if let Some(token) = self.internal_token() {
            metadata.insert(key::INTERNAL_TOKEN, secret(token.current().await.expose())?);
        }
        Ok(())
    }
}

fn ascii(what: &str, text: &str) -> Result<MetadataValue<Ascii>, Error> {
    text.parse().map_err(|_| Error::invalid(what, "visible ASCII"))
}

fn secret(text: &str) -> Result<MetadataValue<Ascii>, Error> {
    let mut value = ascii("credential", text)?;
    value.set_sensitive(true);
    Ok(value)
}
