//! Interlock's wire.
//!
//! - [`auth`], [`gateway`], [`audit`], [`errors`], [`options`]: the code generated from `proto/`.
//! - [`policy`]: the policy of every RPC, read from the method options in the descriptor set.
//! - [`credential`]: the text form of credentials and cookies.
//! - [`reason`]: the reasons of refusals as they stand in `google.rpc.ErrorInfo`.
//! - [`metadata`]: the names of the metadata keys that calls carry.
//! - [`text`]: the rules for names and labels, and how text is shown.
//!
//! Nothing here does I/O, and nothing here decides: servers and clients share these facts.

pub mod credential;
pub mod metadata;
pub mod policy;
pub mod reason;
pub mod text;

/// The encoded `FileDescriptorSet` of all our packages, options and comments included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! generated {
    ($(#[$doc:meta])* $name:ident, $package:literal) => {
        $(#[$doc])*
        pub mod $name {
            /// Version 1.
            #[allow(
                clippy::all,
                clippy::pedantic,
                missing_docs,
                unreachable_pub,
                reason = "written by the generator"
            )]
            pub mod v1 {
                tonic::include_proto!($package);
            }
        }
    };
}

generated!(
    /// `interlock.auth.v1`: who is calling and what they may do.
    auth, "interlock.auth.v1"
);
generated!(
    /// `interlock.gateway.v1`: what a session is bound to and what is running.
    gateway, "interlock.gateway.v1"
);
generated!(
    /// `interlock.audit.v1`: what was done and what was refused.
    audit, "interlock.audit.v1"
);
generated!(
    /// `interlock.errors.v1`: why a call was refused.
    errors, "interlock.errors.v1"
);
generated!(
    /// `interlock.options.v1`: the policy option.
    options, "interlock.options.v1"
);

mod redacted {
    //! `Debug` of messages that carry secrets or payloads: those fields show their length only.
    include!(concat!(env!("OUT_DIR"), "/redacted.rs"));
}
