//! What is written about audit logs beside their rows: planned by a verb of the service, with its permit, as one of its
//! changes, and the same on every engine.

use super::{Head, Trim};
use crate::clock::Timestamp;

/// Heads that are kept of one other service: of the chains that grew last.
pub const PEER_HEADS_MAX: usize = 256;
/// Other services whose heads are kept.
pub const PEERS_MAX: usize = 64;

/// One such write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// Ends of another service's chains. No caller sees it, so it leaves no audit row: else each head that is stored here
    /// would make another one for the other service to store. One that is kept already is replaced by a later one only: a chain that was
    /// cut does not grow back into its place unseen.
    Remember {
        /// Whose.
        peer: String,
        /// At most [`PEER_HEADS_MAX`].
        heads: Vec<Head>,
        /// Now, by the store's clock.
        at: Timestamp,
    },
    /// The oldest rows go, as retention says; their checkpoints stay.
    Trim(Trim),
}

/// What is kept of one other service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Whose.
    pub peer: String,
    /// Its end, as it was told last.
    pub head: Head,
}
