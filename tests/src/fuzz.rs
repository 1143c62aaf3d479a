//! What is fuzzed: one module a target, each a property of arbitrary bytes.
//!
//! `tests/fuzz/` holds the programs that a fuzzer drives and the corpus; `./check --long` runs each of them for a
//! minute. The properties stand here, so that they are compiled, linted and replayed on the corpus
//! (`tests/tests/corpus.rs`) like any other code. A property panics where it does not hold.
//!
//! | target | bytes | must hold |
//! |---|---|---|
//! | [`credential`] | a token's text, or its 32 bytes | taken exactly where writing it again gives the same text |
//! | [`metadata`] | headers of a call | what is read is bounded and well formed; one way to read a timeout |
//! | [`cookies`] | `cookie` headers, `set-cookie` | however they are split, the same is read; client and server agree |
//! | [`accounts`] | accounts JSON | what is taken can be written and taken again; errors quote nothing |
//! | [`hashes`] | a stored password hash | cost is bounded before anything is computed; what is taken can be verified |
//! | [`configuration`] | a TOML file of either service | the same twice, within its bounds; mistakes quote no value |
//! | [`rows`] | cells of the gateway's store | a refusal, never a panic; a session whose rows are whole is answered |
//! | [`server`] | bytes on a connection | the server goes on answering another one; no task stays behind |
//! | [`rpc`] | a method and its message | an answer with a reason of ours; INTERNAL only for what cannot be decoded |

pub mod accounts;
pub mod configuration;
pub mod cookies;
pub mod credential;
pub mod hashes;
pub mod metadata;
pub mod rows;
pub mod rpc;
pub mod server;

/// A target: takes bytes, panics where its property does not hold.
pub type Target = fn(&[u8]);

/// All targets by name: a program of that name in `tests/fuzz/fuzz_targets/`, a corpus in `tests/fuzz/corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("accounts", accounts::check),
    ("configuration", configuration::check),
    ("cookies", cookies::check),
    ("credential", credential::check),
    ("hashes", hashes::check),
    ("metadata", metadata::check),
    ("rows", rows::check),
    ("rpc", rpc::check),
    ("server", server::check),
];
