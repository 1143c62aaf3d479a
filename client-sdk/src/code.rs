//! gRPC status codes, as our own type.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// A gRPC status code other than OK. <https://grpc.io/docs/guides/status-codes/>
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// As the gRPC specification writes it, `UNAVAILABLE`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            pub(crate) fn from_wire(code: tonic::Code) -> Self {
                match code {
                    $(tonic::Code::$name => Self::$name,)*
                    tonic::Code::Ok => Self::Unknown,
                }
            }
        }
    };
}

codes! {
    /// The call was cancelled.
    Cancelled => "CANCELLED",
    /// No code, or one that is not known.
    Unknown => "UNKNOWN",
    /// A field has a bad value.
    InvalidArgument => "INVALID_ARGUMENT",
    /// The deadline passed before the answer.
    DeadlineExceeded => "DEADLINE_EXCEEDED",
    /// It does not exist.
    NotFound => "NOT_FOUND",
    /// It exists already.
    AlreadyExists => "ALREADY_EXISTS",
    /// The caller may not.
    PermissionDenied => "PERMISSION_DENIED",
    /// A limit is reached.
    ResourceExhausted => "RESOURCE_EXHAUSTED",
    /// The state does not allow it.
    FailedPrecondition => "FAILED_PRECONDITION",
    /// Something changed meanwhile.
    Aborted => "ABORTED",
    /// Past the valid range.
    OutOfRange => "OUT_OF_RANGE",
    /// No such method.
    Unimplemented => "UNIMPLEMENTED",
    /// A fault of the server.
    Internal => "INTERNAL",
    /// The service cannot be asked now.
    Unavailable => "UNAVAILABLE",
    /// Data was lost.
    DataLoss => "DATA_LOSS",
    /// The caller is not known.
    Unauthenticated => "UNAUTHENTICATED",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
