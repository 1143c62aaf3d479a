//! One typed error for everything that a call can end in.
//!
//! A refusal is rebuilt from what the server said (`google.rpc.Status` details: ErrorInfo, RetryInfo,
//! BadRequest, PreconditionFailure, and our own `SessionBusy`); a broken connection or a passed
//! deadline is the client's own finding. No transport type and no server-internal text gets through.

use std::{fmt, sync::Arc, time::Duration};

use interlock_proto::{errors::v1 as wire, metadata::ERROR_DOMAIN};
use prost::Message as _;
use tonic::Status;
use tonic_types::StatusExt as _;

pub use crate::code::Code;
pub use interlock_proto::errors::v1::Reason;

/// Why a call did not succeed. Cheap to clone.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    origin: Origin,
    code: Option<Code>,
    reason: Option<Reason>,
    message: String,
    request_id: Option<String>,
    retry_after: Option<Duration>,
    busy: Option<Busy>,
    fields: Vec<FieldViolation>,
    preconditions: Vec<Precondition>,
}

/// Who found that the call failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Origin {
    /// The server said so.
    #[default]
    Server,
    /// The connection could not be made, or broke.
    Transport,
    /// This client: a deadline, an argument, an answer that makes no sense.
    Client,
}

/// A field of the request that the server does not take. `google.rpc.BadRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// Its path in the request.
    pub field: String,
    /// What is accepted.
    pub description: String,
}

/// What must change before the call can succeed. `google.rpc.PreconditionFailure`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Precondition {
    /// What kind of condition.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// For people.
    pub description: String,
}

/// What keeps a session or an agent busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    /// Which rule refused.
    pub kind: BusyKind,
    /// The agent that has jobs in flight.
    pub agent_id: String,
    /// How many jobs of that agent are queued.
    pub queued: u32,
    /// How many jobs of that agent are running.
    pub running: u32,
    /// The jobs that the caller may see.
    pub jobs: Vec<BusyJob>,
    /// How many attaches wait in line for the agent.
    pub waiting: u32,
}

/// Which rule refused: those of the attach guard, and what else waits for jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusyKind {
    /// The session's present agent has jobs in flight.
    Rebind,
    /// The agent asked for has jobs in flight in another project.
    Project,
    /// The agent to be removed has jobs in flight.
    Agent,
    /// A rule that this version does not know.
    Unknown,
}

/// One job in flight, as told to a caller that may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusyJob {
    /// The job.
    pub job_id: String,
    /// `queued` or `running`.
    pub state: String,
    /// How long its lease still lives; `None` while it is queued.
    pub lease_left: Option<Duration>,
    /// Its place in the agent's queue, from 1; 0 while it is running.
    pub queue_position: u32,
}

impl Error {
    /// The reason, where an Interlock server gave one that this version knows.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.0.reason
    }

    /// The gRPC code. A broken connection is [`Code::Unavailable`].
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code.unwrap_or(Code::Unknown)
    }

    /// The sentence for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The call's id, for the server's log.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// When the server says that trying again makes sense. `google.rpc.RetryInfo`.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether jobs in flight are in the way (`SESSION_BUSY`).
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.0.reason == Some(Reason::SessionBusy)
    }

    /// Which jobs are in the way, where the server told.
    #[must_use]
    pub fn busy(&self) -> Option<&Busy> {
        self.0.busy.as_ref()
    }

    /// Whether the service could not be asked, now. Says nothing about the caller's rights: nobody
    /// is signed out by this.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.code() == Code::Unavailable
    }

    /// Whether no connection could be made, or it broke before the answer.
    #[must_use]
    pub fn is_transport(&self) -> bool {
        self.0.origin == Origin::Transport
    }

    /// The fields that the server does not take.
    #[must_use]
    pub fn field_violations(&self) -> &[FieldViolation] {
        &self.0.fields
    }

    /// What must change before the call can succeed.
    #[must_use]
    pub fn preconditions(&self) -> &[Precondition] {
        &self.0.preconditions
    }

    /// Rebuilds an error from a status. Statuses that the client's own transport made become
    /// transport failures, whatever code they were given.
    pub(crate) fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == ERROR_DOMAIN);
        if info.is_none()
            && let Some(source) = std::error::Error::source(status)
        {
            return Self::from_transport(status, source);
        }
        let violations = details.bad_request().map(|b| b.field_violations.as_slice()).unwrap_or_default();
        let conditions = details.precondition_failure().map(|p| p.violations.as_slice()).unwrap_or_default();
        Self(Arc::new(Inner {
            origin: Origin::Server,
            code: Some(Code::from_wire(status.code())),
            reason: info.and_then(|info| Reason::from_text(&info.reason)),
            message: status.message().to_owned(),
            request_id: details
                .request_info()
                .map(|r| r.request_id.clone())
                .or_else(|| info.and_then(|info| info.metadata.get("request_id").cloned())),
            retry_after: details.retry_info().and_then(|r| r.retry_delay),
            busy: busy_detail(status),
            fields: violations
                .iter()
                .map(|v| FieldViolation { field: v.field.clone(), description: v.description.clone() })
                .collect(),
            preconditions: conditions
                .iter()
                .map(|v| Precondition {
                    kind: v.r#type.clone(),
                    subject: v.subject.clone(),
                    description: v.description.clone(),
                })
                .collect(),
        }))
    }

    fn from_transport(status: &Status, source: &(dyn std::error::Error + 'static)) -> Self {
        let mut cause = Some(source);
        while let Some(error) = cause {
            if error.is::<tonic::TimeoutExpired>() {
                return Self::deadline();
            }
            cause = error.source();
        }
        Self::transport(format!("connection lost: {}", status.message()))
    }

    /// No connection, or a broken one.
    pub(crate) fn transport(message: impl Into<String>) -> Self {
        Self::own(Origin::Transport, Code::Unavailable, message)
    }

    /// The client's own deadline passed.
    pub(crate) fn deadline() -> Self {
        Self(Arc::new(Inner {
            origin: Origin::Client,
            code: Some(Code::DeadlineExceeded),
            reason: Some(Reason::DeadlineExceeded),
            message: "no answer before the deadline".to_owned(),
            ..Inner::default()
        }))
    }

    /// An argument that cannot be sent.
    pub(crate) fn invalid(field: &str, accepted: impl Into<String>) -> Self {
        let description = accepted.into();
        Self(Arc::new(Inner {
            origin: Origin::Client,
            code: Some(Code::InvalidArgument),
            reason: Some(Reason::InvalidField),
            message: format!("{field}: {description}"),
            fields: vec![FieldViolation { field: field.to_owned(), description }],
            ..Inner::default()
        }))
    }

    /// An answer that makes no sense.
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::own(Origin::Client, Code::Internal, message)
    }

    /// Something on this host failed: a store of credentials, a file.
    pub(crate) fn local(message: impl Into<String>) -> Self {
        Self::own(Origin::Client, Code::Internal, message)
    }

    /// There is no living owner session to act with.
    pub(crate) fn signed_out(message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            origin: Origin::Client,
            code: Some(Code::Unauthenticated),
            reason: Some(Reason::LoginRequired),
            message: message.into(),
            ..Inner::default()
        }))
    }

    fn own(origin: Origin, code: Code, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { origin, code: Some(code), message: message.into(), ..Inner::default() }))
    }

    /// The same, with the id of the call where the server named none.
    pub(crate) fn of_call(self, request_id: &str) -> Self {
        if self.0.request_id.is_some() {
            return self;
        }
        match Arc::try_unwrap(self.0) {
            Ok(inner) => Self(Arc::new(Inner { request_id: Some(request_id.to_owned()), ..inner })),
            Err(shared) => Self(shared),
        }
    }
}

/// Our own detail beside Google's, found by its type.
fn busy_detail(status: &Status) -> Option<Busy> {
    let inner = tonic_types::pb::Status::decode(status.details()).ok()?;
    let any = inner.details.iter().find(|any| any.type_url.ends_with("/interlock.errors.v1.SessionBusy"))?;
    let busy = wire::SessionBusy::decode(any.value.as_slice()).ok()?;
    let kind = match busy.kind() {
        wire::BusyKind::Rebind => BusyKind::Rebind,
        wire::BusyKind::Project => BusyKind::Project,
        wire::BusyKind::Agent => BusyKind::Agent,
        wire::BusyKind::Unspecified => BusyKind::Unknown,
    };
    let jobs = busy.jobs.into_iter().map(|job| BusyJob {
        job_id: job.job_id,
        state: job.state,
        lease_left: job.lease_left.and_then(|d| d.try_into().ok()),
        queue_position: job.queue_position,
    });
    Some(Busy {
        kind,
        agent_id: busy.agent_id,
        queued: busy.queued,
        running: busy.running,
        jobs: jobs.collect(),
        waiting: busy.waiting,
    })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.reason {
            Some(reason) => write!(f, "{} ({})", self.0.message, reason.text()),
            None => write!(f, "{} ({})", self.0.message, self.code()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn refusal(reason: Reason, code: tonic::Code) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(reason.text(), ERROR_DOMAIN, [("request_id".to_owned(), "r-1".to_owned())]);
        details.set_retry_info(Some(Duration::from_secs(2)));
        details.add_bad_request_violation("name", "1 to 64 bytes");
        details.add_precondition_failure_violation("JOBS", "builder", "2 running");
        Status::with_error_details(code, "no", details)
    }

    #[test]
    fn a_refusal_keeps_everything_that_the_server_said() {
        let error = Error::from_status(&refusal(Reason::Conflict, tonic::Code::Aborted));
        assert_eq!((error.code(), error.reason()), (Code::Aborted, Some(Reason::Conflict)));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
        assert_eq!(error.request_id(), Some("r-1"));
        assert_eq!(error.field_violations()[0].field, "name");
        assert_eq!(error.preconditions()[0].subject, "builder");
        assert!(!error.is_transport() && !error.is_busy());
    }

    #[test]
    fn busy_is_decoded_from_its_any() {
        let status = refusal(Reason::SessionBusy, tonic::Code::FailedPrecondition);
        let mut inner = tonic_types::pb::Status::decode(status.details()).expect("made above");
        let busy = wire::SessionBusy {
            kind: wire::BusyKind::Project.into(),
            agent_id: "builder".to_owned(),
            queued: 1,
            running: 2,
            jobs: vec![wire::BusyJob {
                job_id: "job_1".to_owned(),
                state: "running".to_owned(),
                lease_left: Some(prost_types::Duration { seconds: 3, nanos: 0 }),
                queue_position: 0,
            }],
            waiting: 0,
        };
        inner.details.push(prost_types::Any {
            type_url: "type.googleapis.com/interlock.errors.v1.SessionBusy".to_owned(),
            value: busy.encode_to_vec(),
        });
        let status = Status::with_details(status.code(), "busy", inner.encode_to_vec().into());
        let error = Error::from_status(&status);
        assert!(error.is_busy());
        let busy = error.busy().expect("the detail is there");
        assert_eq!((busy.kind, busy.queued, busy.running), (BusyKind::Project, 1, 2));
        assert_eq!(busy.jobs[0].lease_left, Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_foreign_domain_gives_no_reason() {
        let mut details = ErrorDetails::new();
        details.set_error_info("SESSION_BUSY", "elsewhere", [("a".to_owned(), "b".to_owned())]);
        let status = Status::with_error_details(tonic::Code::Unavailable, "x", details);
        let error = Error::from_status(&status);
        assert_eq!(error.reason(), None);
        assert!(error.is_unavailable() && !error.is_transport());
    }

    #[test]
    fn what_the_transport_made_is_a_transport_failure() {
        let status = Status::from_error(Box::new(std::io::Error::other("reset")));
        let error = Error::from_status(&status);
        assert!(error.is_transport() && error.is_unavailable());
    }
}
