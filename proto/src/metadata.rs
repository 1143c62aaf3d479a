//! The names of the metadata keys that calls and answers carry.

/// `Bearer <credential>`; the scheme in any case. RFC 6750 section 2.1.
pub const AUTHORIZATION: &str = "authorization";
/// The client credential of a session, one `__Host-interlock_<session id>` pair. RFC 6265.
pub const COOKIE: &str = "cookie";
/// How a session's first answer hands out the client credential. RFC 6265.
pub const SET_COOKIE: &str = "set-cookie";
/// The project that a call is for.
pub const PROJECT: &str = "x-interlock-project";
/// The internal token, on internal listeners.
pub const INTERNAL_TOKEN: &str = "x-internal-token";
/// The principal that a service acts for, on internal listeners.
pub const ON_BEHALF_OF: &str = "x-on-behalf-of";
/// The id of a call: taken from the caller where well-formed, made otherwise, always answered.
pub const REQUEST_ID: &str = "x-request-id";
/// `true` on answers to calls that named no project. RFC 9745.
pub const DEPRECATION: &str = "deprecation";
/// From when on such calls are refused: an HTTP-date. RFC 8594.
pub const SUNSET: &str = "sunset";
/// The domain of `google.rpc.ErrorInfo` in our refusals.
pub const ERROR_DOMAIN: &str = "interlock";
