//! One error for refusals and faults, and the one map from it to a gRPC status.
//!
//! A verb answers with a [`Reason`] and a sentence; this module knows the code of each reason and puts
//! `google.rpc.ErrorInfo` (domain `interlock`), `BadRequest`, `PreconditionFailure` and `RetryInfo`
//! beside it. Sources are for the log: they never reach a caller.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use interlock_proto::{errors::v1 as wire, metadata::ERROR_DOMAIN};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $code:ident,)*) => {
        /// Why a call was refused. DESIGN 12 has the table; the wire names are in
        /// `interlock.errors.v1.Reason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The gRPC code that it travels under.
            #[must_use]
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }

            /// The reason as it stands in the .proto.
            #[must_use]
            pub fn wire(self) -> wire::Reason {
                match self { $(Self::$name => wire::Reason::$name,)* }
            }

            /// The reason that the .proto calls so.
            #[must_use]
            pub fn from_wire(reason: wire::Reason) -> Self {
                match reason {
                    $(wire::Reason::$name => Self::$name,)*
                    wire::Reason::Unspecified => Self::Internal,
                }
            }
        }
    };
}

reasons! {
    /// Credential missing, malformed, unknown or revoked.
    ProviderAuthFailed => Unauthenticated,
    /// The credential has expired.
    TokenExpired => Unauthenticated,
    /// An owner session is needed, and the credential is of another kind.
    LoginRequired => Unauthenticated,
    /// Name, password or refresh token is wrong.
    InvalidCredentials => Unauthenticated,
    /// The internal token is missing or wrong.
    InternalTokenRequired => Unauthenticated,
    /// The credential that a stream stood on was revoked.
    Revoked => Unauthenticated,
    /// The client was removed from its session.
    Evicted => Unauthenticated,
    /// This principal may not do this.
    Forbidden => PermissionDenied,
    /// Another owner's, or does not exist.
    OwnerMismatch => PermissionDenied,
    /// Token scope, named project and the resource's project disagree.
    ProjectMismatch => PermissionDenied,
    /// The root condition is not met.
    RootRequired => PermissionDenied,
    /// The project token lacks the scope.
    ScopeRequired => PermissionDenied,
    /// Jobs are in flight.
    SessionBusy => FailedPrecondition,
    /// An attach waits for these agents.
    AttachPending => FailedPrecondition,
    /// The session is ending.
    SessionClosing => FailedPrecondition,
    /// The session has no binding.
    SessionUnbound => FailedPrecondition,
    /// The job has ended.
    JobTerminal => FailedPrecondition,
    /// No root password is configured.
    RootDisabled => FailedPrecondition,
    /// Calls that name no project ended with the sunset date.
    UnscopedSunset => FailedPrecondition,
    /// The session of a stream has ended.
    SessionEnded => FailedPrecondition,
    /// A role token that would end is in use.
    TokenInUse => FailedPrecondition,
    /// A rotation in two phases is open for this role.
    RotationOpen => FailedPrecondition,
    /// The lease of this attempt is over.
    LeaseLost => Aborted,
    /// The request id was used with another payload.
    RequestIdReused => Aborted,
    /// Changed since it was read.
    Conflict => Aborted,
    /// The name is taken.
    NameTaken => AlreadyExists,
    /// Too many calls.
    RateLimited => ResourceExhausted,
    /// A bound or a quota is reached.
    LimitReached => ResourceExhausted,
    /// The reader of a stream fell too far behind.
    TooSlow => ResourceExhausted,
    /// A field has a bad value.
    InvalidField => InvalidArgument,
    /// A field is missing.
    MissingField => InvalidArgument,
    /// The password is too short.
    WeakPassword => InvalidArgument,
    /// A service must name the principal that it acts for.
    IdentityRequired => InvalidArgument,
    /// The call must name its project.
    ProjectRequired => InvalidArgument,
    /// It does not exist.
    NotFound => NotFound,
    /// Auth cannot be asked.
    AuthUnavailable => Unavailable,
    /// The store cannot be read or written now.
    StoreUnavailable => Unavailable,
    /// This server is shutting down.
    Draining => Unavailable,
    /// The deadline passed.
    DeadlineExceeded => DeadlineExceeded,
    /// No such method here.
    Unimplemented => Unimplemented,
    /// A secret or a file could not be stored; the old state holds.
    StorageError => Internal,
    /// A fault of ours.
    Internal => Internal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wire().text())
    }
}

/// A condition that must change before the call can succeed, as `google.rpc.PreconditionFailure`
/// tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Precondition {
    /// What kind of condition.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// For people.
    pub description: String,
}

/// Evidence of a refusal beyond its reason: a domain type that knows its wire form.
pub trait Detail: fmt::Debug + Send + Sync {
    /// The same, for people and for programs that know only Google's types.
    fn preconditions(&self) -> Vec<Precondition>;
    /// The type URL and the encoded message.
    fn encoded(&self) -> (String, Vec<u8>);
}

/// A refusal or a fault.
///
/// `Display` gives the sentence that callers see. It holds no secret and no inner text.
#[derive(Clone, Debug)]
pub struct Error {
    reason: Reason,
    message: Cow<'static, str>,
    fields: Vec<(String, String)>,
    retry_after: Option<Duration>,
    detail: Option<Arc<dyn Detail>>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A refusal with a sentence for people.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            message: message.into(),
            fields: Vec::new(),
            retry_after: None,
            detail: None,
            source: None,
        }
    }

    /// A field with a bad value: names it and says what is accepted.
    #[must_use]
    pub fn invalid_field(field: impl Into<String>, accepted: impl Into<String>) -> Self {
        let (field, accepted) = (field.into(), accepted.into());
        let mut error = Self::new(Reason::InvalidField, format!("{field}: {accepted}"));
        error.fields.push((field, accepted));
        error
    }

    /// A field that must be set.
    #[must_use]
    pub fn missing_field(field: impl Into<String>) -> Self {
        let field = field.into();
        let mut error = Self::new(Reason::MissingField, format!("{field} is missing"));
        error.fields.push((field, "must be set".to_owned()));
        error
    }

    /// The same refusal of a field inside of `path`: a handler reads a nested message by the names of its own
    /// fields, and the caller learns where in the request they stand.
    #[must_use]
    pub fn within(mut self, path: &str) -> Self {
        if self.fields.is_empty() {
            return self;
        }
        // The sentence of such a refusal begins with the field.
        self.message = format!("{path}.{}", self.message).into();
        for (field, _) in &mut self.fields {
            *field = format!("{path}.{field}");
        }
        self
    }

    /// A fault of ours. The source goes to the log, never to the caller.
    #[must_use]
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Reason::Internal, "internal fault; the request id finds it in the log").caused_by(source)
    }

    /// When to try again.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Evidence.
    #[must_use]
    pub fn with_detail(mut self, detail: Arc<dyn Detail>) -> Self {
        self.detail = Some(detail);
        self
    }

    /// What lies behind it, for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// When to try again, if the refusal says so.
    #[must_use]
    pub fn retry_delay(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The status that the caller gets, with all details.
    #[must_use]
    pub fn to_status(&self, request_id: &str) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(
            self.reason.wire().text(),
            ERROR_DOMAIN,
            [("request_id".to_owned(), request_id.to_owned())],
        );
        details.set_request_info(request_id, "");
        for (field, accepted) in &self.fields {
            details.add_bad_request_violation(field, accepted);
        }
        if let Some(delay) = self.retry_after {
            details.set_retry_info(Some(delay));
        }
        let Some(detail) = &self.detail else {
            return Status::with_error_details(self.reason.code(), self.message.clone(), details);
        };
        for p in detail.preconditions() {
            details.add_precondition_failure_violation(p.kind, p.subject, p.description);
        }
        let standard = Status::with_error_details(self.reason.code(), self.message.clone(), details);
        with_any(&standard, detail.encoded())
    }
}

/// Appends one `Any` to the `google.rpc.Status` that a status carries in its details.
fn with_any(status: &Status, (type_url, value): (String, Vec<u8>)) -> Status {
    let mut inner = tonic_types::pb::Status::decode(status.details()).unwrap_or_default();
    inner.details.push(prost_types::Any { type_url, value });
    Status::with_details(status.code(), status.message(), inner.encode_to_vec().into())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_the_wire_agree() {
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_wire(reason.wire()), reason);
        }
        let on_the_wire = (1..1000).filter(|n| wire::Reason::try_from(*n).is_ok()).count();
        assert_eq!(on_the_wire, Reason::ALL.len(), "a wire reason that no refusal can have");
    }

    #[test]
    fn a_status_names_reason_field_delay_and_request() {
        let error = Error::invalid_field("name", "1 to 64 bytes").retry_after(Duration::from_secs(2));
        let status = error.to_status("req-1");
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let info = details.error_info().expect("always there");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_FIELD", "interlock"));
        assert_eq!(info.metadata["request_id"], "req-1");
        assert_eq!(details.bad_request().expect("a field is named").field_violations[0].field, "name");
        assert_eq!(details.retry_info().expect("a delay is named").retry_delay, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_field_is_named_by_its_path() {
        let error = Error::missing_field("job_id").within("held[2]").within("hello");
        assert_eq!(error.to_string(), "hello.held[2].job_id is missing");
        let status = error.to_status("r");
        let details = status.get_error_details();
        let fields = &details.bad_request().expect("a field is named").field_violations;
        assert_eq!(fields[0].field, "hello.held[2].job_id");
        let other = Error::new(Reason::Forbidden, "no").within("hello");
        assert_eq!(other.to_string(), "no", "of no field");
    }

    #[test]
    fn a_source_stays_inside() {
        let status = Error::internal("table owner is locked").to_status("r");
        assert!(!format!("{status:?}").contains("locked"));
    }
}
