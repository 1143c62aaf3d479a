//! Names of things: owners, projects, owner sessions, credentials, requests. Parsed once at the border,
//! never empty, never longer than their bound.

use std::fmt;

use interlock_kit::error::Error;
use interlock_proto::text;

use crate::limits;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $rule:expr, $well_formed:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Reads one that a caller sent in `field`.
            ///
            /// # Errors
            /// `MISSING_FIELD` where it is empty, `INVALID_FIELD` where it is malformed.
            pub fn parse(field: &str, text: &str) -> Result<Self, Error> {
                let well_formed: fn(&str) -> bool = $well_formed;
                if text.is_empty() {
                    return Err(Error::missing_field(field));
                }
                if !well_formed(text) {
                    return Err(Error::invalid_field(field, $rule));
                }
                Ok(Self(text.to_owned()))
            }

            /// One that this program made or stored itself.
            #[must_use]
            pub fn made(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// Its text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
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
    /// An owner: `alice`, or one of the built-in `admin`, `user`, `local`, `system`.
    OwnerId, text::NAME, text::is_name
);
id!(
    /// A project: `prj_…`, or `system`.
    ProjectId, text::NAME, text::is_name
);
id!(
    /// What people call a project. Unique; never like an id, so that each can be told from the other.
    ProjectName,
    "1 to 64 of a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit; not `system`, nor like an id (`prj_…`)",
    |text| text::is_name(text) && text != "system" && !text.starts_with("prj_")
);
id!(
    /// An owner session: `ows_…`.
    OwnerSessionId, text::NAME, text::is_name
);
id!(
    /// The public handle of a credential: `crd_…`.
    CredentialId, text::NAME, text::is_name
);
id!(
    /// One start of a program that shares the store: `epo_…`, its epoch.
    ReplicaId, text::NAME, text::is_name
);
id!(
    /// What a caller calls a request, so that a repeated one is known.
    RequestId, "1 to 64 bytes that all show, without blanks at the ends",
    |text| text::is_label(text, limits::REQUEST_ID_BYTES_MAX)
);

/// Ids that no account can have (DESIGN 14.6).
pub const RESERVED_OWNERS: [&str; 4] = ["admin", "user", "local", "system"];

impl OwnerId {
    /// Whom the role token `admin` acts as.
    #[must_use]
    pub fn admin() -> Self {
        Self("admin".to_owned())
    }

    /// Whom the role token `user` acts as.
    #[must_use]
    pub fn user() -> Self {
        Self("user".to_owned())
    }

    /// Whether it is the built-in owner of what services make for callers with no credential: it signs in nowhere, and
    /// enters the projects that it was let into.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.0 == "local"
    }

    /// Whether it is built in.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        RESERVED_OWNERS.contains(&self.as_str())
    }
}

impl ProjectId {
    /// The built-in project, which only administrators enter.
    #[must_use]
    pub fn system() -> Self {
        Self("system".to_owned())
    }

    /// Whether it is the built-in one.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0 == "system"
    }
}

#[cfg(test)]
mod tests {
    use interlock_kit::error::Reason;

    use super::*;

    #[test]
    fn hostile_owner_ids_are_refused() {
        let long = "a".repeat(65);
        for text in [&long, "Root", "a b", "a/b", "é", "a\n", "..", "-rf", "a\u{202e}b"] {
            let refused = OwnerId::parse("owner_id", text).expect_err("malformed");
            assert_eq!(refused.reason(), Reason::InvalidField);
        }
        assert_eq!(OwnerId::parse("owner_id", "").expect_err("empty").reason(), Reason::MissingField);
        OwnerId::parse("owner_id", &"a".repeat(64)).expect("at the bound");
    }

    #[test]
    fn no_project_is_named_system_or_like_an_id() {
        for text in ["system", "-a", ".a", "prj_1"] {
            ProjectName::parse("name", text).expect_err("refused");
        }
        ProjectName::parse("name", "system2").expect("another name");
    }
}
