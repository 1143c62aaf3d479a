//! Configuration of a service: a TOML file, under the environment, under flags.
//!
//! A service reads its typed sections through a [`Reader`], which notes every mistake instead of stopping at
//! the first, so that all are reported together and `main` exits with [`EXIT_USAGE`] before a port is bound.
//!
//! - [`Layers`]: where values come from; `public.address` in the file is `<PREFIX>_PUBLIC_ADDRESS` in the
//!   environment.
//! - [`Reader`]: takes each key once, parses it, checks its bounds; [`Reader::finish`] adds the unknown keys.
//! - [`Setting`]: the text form of a value.
//! - [`Common`]: the sections that every service has; [`Limits`]: the bounds on what peers may use.

mod audit;
mod common;
mod hashing;
mod layers;
mod limits;
mod reader;
mod setting;

pub use self::{
    audit::Audit,
    common::{Common, Defaults, Internal, LogFormat, Profile, Tls, TlsVersion},
    hashing::Hashing,
    layers::Layers,
    reader::{Mistake, Reader},
    setting::{ByteSize, Setting, parse_duration},
};

/// The bounds of a server, as section `limits` sets them.
pub use crate::serve::ServerLimits as Limits;

/// Exit code of a run that ended as it should.
pub const EXIT_OK: u8 = 0;

/// Exit code of a run that failed by what it met: see [`EXIT_USAGE`].
pub const EXIT_FAILURE: u8 = 1;

/// Exit code of a run that was told something wrong (`EX_USAGE` of BSD's sysexits). Whatever starts our
/// services may go by this table:
///
/// | code | why | start again? |
/// |---|---|---|
/// | 0 | it ended as it should | |
/// | 64 | arguments or settings, or a file with a secret, a certificate or accounts: missing, damaged, exposed, not fitting | not before somebody mends it |
/// | 1 | everything else: an address in use, the store, the folder or its lock, the disk, the system | it may help; the line says what to do |
///
/// A start that is refused has changed nothing on the disk but for lock files (`store.lock`), SQLite's index of a
/// log that was there (`-shm`) and, at a first start that fails later than its checks, files that a next start
/// goes on from.
pub const EXIT_USAGE: u8 = 64;
