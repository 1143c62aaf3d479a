//! Black-box tests: the real programs as processes of their own, spoken to through their doors only.
//!
//! | module | what |
//! |---|---|
//! | [`world`] | a folder in which both services run: certificates, internal token, accounts, configuration |
//! | [`service`] | one program: started, awaited, stopped, woken, drained, killed |
//! | [`pair`] | both of them, and every way in |
//! | [`wire`] | calls by path and bytes, and what came back |
//! | [`frames`] | HTTP/2 frames by hand, for floods |
//! | [`start`] | starts that are to be refused: what is said, how it ends, what changed on the disk |
//! | [`story`] | a session's log, read whole and checked |
//! | [`link`] | the link between gateway and auth, as something that breaks |
//! | [`mod@line`] | a worker on the bare wire |
//! | [`home`] | a user's home with commands and workers of a pair |
//! | [`follow`] | a client that follows a log over broken streams |
//! | [`history`] | what callers were answered and streams delivered, and the judgement of it |
//! | [`up`] | `interlock up`, and commands beside it |
//! | [`canary`] | secrets that are planted, and looked for everywhere |
//! | [`audit`] | the audit chain of a store at rest |
//! | [`log`] | the audit log of one service, and what the other one remembers of it |
//! | [`fuzz`] | properties of arbitrary bytes, for a fuzzer and for the corpus |
//! | [`faults`] | faults of the disk and the clock under one program, switched on and off while it runs |
//! | [`terminal`] | a command at a terminal of its own, at which one types |
//! | [`patience`] | waiting for conditions, with one overall bound |
//!
//! The programs are looked for in the folder that `INTERLOCK_PROGRAMS` names, else beside the running test
//! (`target/debug`): `cargo build --workspace --bins` makes them, `./check` does so by itself. A folder stays
//! behind where `INTERLOCK_KEEP` is set; of a test that fails, the ends of the logs are printed.

pub mod audit;
pub mod canary;
pub mod faults;
pub mod follow;
pub mod frames;
pub mod fuzz;
pub mod history;
pub mod home;
pub mod line;
pub mod link;
pub mod log;
pub mod pair;
pub mod patience;
pub mod service;
pub mod start;
pub mod story;
pub mod terminal;
pub mod up;
pub mod wire;
pub mod world;

pub use crate::{
    link::Link,
    log::Log,
    pair::Pair,
    patience::{PATIENCE, eventually, eventually_sync, within, within_times},
    service::Service,
    up::Up,
    world::{Setup, World},
};
