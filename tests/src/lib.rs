//! Black-box tests: the real programs as processes of their own, spoken to through their doors only.
//!
//! | module | what |
//! |---|---|
//! | [`world`] | a folder in which both services run: certificates, internal token, accounts, configuration |
//! | [`service`] | one program: started, awaited, stopped, woken, drained, killed |
//! | [`pair`] | both of them, and every way in |
//! | [`wire`] | calls by path and bytes, and what came back |
//! | [`story`] | a session's log, read whole and checked |
//! | [`up`] | `interlock up`, and commands beside it |
//! | [`audit`] | the audit chain of a store at rest |
//! | [`patience`] | waiting for conditions, with one overall bound |
//!
//! The programs are looked for in the folder that `INTERLOCK_PROGRAMS` names, else beside the running test
//! (`target/debug`): `cargo build --workspace --bins` makes them, `./check` does so by itself. A folder stays
//! behind where `INTERLOCK_KEEP` is set; of a test that fails, the ends of the logs are printed.

pub mod audit;
pub mod pair;
pub mod patience;
pub mod service;
pub mod story;
pub mod up;
pub mod wire;
pub mod world;

pub use crate::{
    pair::Pair,
    patience::{PATIENCE, eventually, eventually_sync, within},
    service::Service,
    up::Up,
    world::{Setup, World},
};
