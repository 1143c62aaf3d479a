//! What the SDK takes from the environment: where a walk up ends, and whether a warning is wanted. The only file
//! that reads it.

use std::path::PathBuf;

/// The user's home: no project file is looked for there or above it.
pub(crate) fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// Whether a call that named no project is warned of: not with `INTERLOCK_SUPPRESS_UNSCOPED_WARNING=1`.
pub(crate) fn warns_of_unscoped_calls() -> bool {
    std::env::var_os("INTERLOCK_SUPPRESS_UNSCOPED_WARNING").is_none_or(|value| value != "1")
}
