//! What any server of ours needs, and no domain noun.
//!
//! | module | what |
//! |---|---|
//! | [`error`] | reasons, and the one map to statuses |
//! | [`clock`], [`random`] | where instants and randomness come from |
//! | [`store`] | queue, writer, batches, engines, audit chain: generic over a service's [`store::Domain`] |

pub mod clock;
pub mod error;
pub mod random;
pub mod store;
