//! The names of things: each kind a type of its own, so that one is never taken for another.

use std::fmt;

use interlock_kit::{error::Error, spiffe::SpiffeId};
use interlock_proto::text;
use serde::{Deserialize, Serialize};

use crate::limits;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $field:literal, $check:expr, $accepted:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes a text that has the right shape.
            ///
            /// # Errors
            /// `INVALID_FIELD`, or `MISSING_FIELD` for an empty text; the field is named.
            pub fn parse(text: impl Into<String>) -> Result<Self, Error> {
                Self::parse_as($field, text)
            }

            /// Takes a text that has the right shape, from a field of another name than this kind's own.
            ///
            /// # Errors
            /// As [`Self::parse`].
            pub fn parse_as(field: &str, text: impl Into<String>) -> Result<Self, Error> {
                let (text, fits): (String, fn(&str) -> bool) = (text.into(), $check);
                if text.is_empty() {
                    return Err(Error::missing_field(field));
                }
                if !fits(&text) {
                    return Err(Error::invalid_field(field, $accepted));
                }
                Ok(Self(text))
            }

            /// As text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// From a store of ours, where only texts of the right shape are.
            #[must_use]
            pub(crate) fn stored(text: String) -> Self {
                Self(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A session: `ses_…`. Later ones sort later.
    SessionId, "session_id", |text| text::is_id(text, "ses_"), "`ses_` and 1 to 60 of a-z and 0-9"
);
id!(
    /// A job: `job_…`. Later ones sort later.
    JobId, "job_id", |text| text::is_id(text, "job_"), "`job_` and 1 to 60 of a-z and 0-9"
);
id!(
    /// A client of a session: `clt_…`.
    ClientId, "client_id", |text| text::is_id(text, "clt_"), "`clt_` and 1 to 60 of a-z and 0-9"
);
id!(
    /// An agent.
    AgentId, "agent_id", text::is_name, text::NAME
);
id!(
    /// A project.
    ProjectId, "project_id", text::is_name, text::NAME
);
id!(
    /// An owner.
    OwnerId, "owner_id", text::is_name, text::NAME
);
id!(
    /// A session's name, unique among its owner's living sessions; never like an id, so that each can be told
    /// from the other.
    SessionName, "name", |text| text::is_name(text) && !text.starts_with("ses_"),
    "0 to 64 of a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit; not like an id (`ses_…`)"
);
id!(
    /// A caller's name for one of its calls.
    RequestId, "request_id", |text| text::is_label(text, limits::REQUEST_ID_BYTES_MAX),
    "1 to 64 bytes that all show, without blanks at the ends"
);
id!(
    /// A worker's name for itself, for people.
    WorkerName, "worker", |text| text::is_label(text, limits::WORKER_BYTES_MAX),
    "1 to 64 bytes that all show, without blanks at the ends"
);

id!(
    /// A waiting attach: `wai_…`.
    WaiterId, "waiter_id", |text| text::is_id(text, "wai_"),
    "`wai_` and 1 to 60 of a-z and 0-9"
);

id!(
    /// A stored file's: `fil_…`. Later ones sort later. The key of its contents.
    FileId, "file_id", |text| text::is_id(text, "fil_"), "`fil_` and 1 to 60 of a-z and 0-9"
);
id!(
    /// What a file is called: data, never a path.
    FileName, "name", text::is_file_name, text::FILE_NAME
);

impl FileId {
    /// A new one. Later ones sort later.
    #[must_use]
    pub fn new() -> Self {
        Self(interlock_kit::random::id("fil"))
    }
}

impl Default for FileId {
    fn default() -> Self {
        Self::new()
    }
}

impl WaiterId {
    /// A new one. Later ones sort later.
    #[must_use]
    pub fn new() -> Self {
        Self(interlock_kit::random::id("wai"))
    }
}

impl Default for WaiterId {
    fn default() -> Self {
        Self::new()
    }
}

impl SessionId {
    /// A new one. Later ones sort later.
    #[must_use]
    pub fn new() -> Self {
        Self(interlock_kit::random::id("ses"))
    }
}

impl Default for SessionId {
    fn default() -> Self {
        Self::new()
    }
}

impl JobId {
    /// A new one. Later ones sort later.
    #[must_use]
    pub fn new() -> Self {
        Self(interlock_kit::random::id("job"))
    }
}

impl Default for JobId {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientId {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        Self(interlock_kit::random::id("clt"))
    }
}

impl Default for ClientId {
    fn default() -> Self {
        Self::new()
    }
}

impl AgentId {
    /// The built-in agent `primary`.
    #[must_use]
    pub fn primary() -> Self {
        Self("primary".to_owned())
    }
}

impl ProjectId {
    /// The built-in project `system`.
    #[must_use]
    pub fn system() -> Self {
        Self("system".to_owned())
    }
}

impl OwnerId {
    pub(crate) const ADMIN: &str = "admin";
    pub(crate) const USER: &str = "user";
    /// As whom nobody signs in.
    pub(crate) const LOCAL: &str = "local";

    /// The built-in owner that the admin role token acts as.
    #[must_use]
    pub fn admin() -> Self {
        Self(Self::ADMIN.to_owned())
    }

    /// The built-in owner of what is made with no credential. Nobody signs in as it.
    #[must_use]
    pub fn local() -> Self {
        Self(Self::LOCAL.to_owned())
    }

    /// What a service holds the leases of its jobs as: its SPIFFE id, which no owner's id can be.
    #[must_use]
    pub(crate) fn of_service(service: &SpiffeId) -> Self {
        Self(service.to_string())
    }

    /// The built-in owner that the user role token acts as.
    #[must_use]
    pub fn user() -> Self {
        Self(Self::USER.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked_and_fields_named() {
        assert!(AgentId::parse("builder-1.x").is_ok());
        for bad in ["", "-a", "A", "a b", "ä", &"a".repeat(65)] {
            assert!(AgentId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(SessionId::parse(SessionId::new().as_str()).is_ok());
        assert!(SessionId::parse("job_1").is_err());
        for bad in ["", "a\u{1b}[31m", "\u{202e}a", "a ", &"a".repeat(65)] {
            assert!(WorkerName::parse(bad).is_err() && RequestId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(WorkerName::parse("Zoë's 2nd").is_ok());
        assert!(SessionName::parse("ses_1").is_err(), "it could not be told from an id");
        let error = AgentId::parse_as("agent_ids[3]", "A").expect_err("no name");
        assert!(error.to_string().starts_with("agent_ids[3]: "), "{error}");
        let error = RequestId::parse("").expect_err("empty");
        assert_eq!(error.to_string(), "request_id is missing");
    }
}
