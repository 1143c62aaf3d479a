//! What belongs to audit logs beside their rows, written as everything is: by a verb, with a permit.

use interlock_kit::store::audit::{Head, Keeping, Outcome, Trim};

use crate::store::{Stop, Tx, Verb};

/// Remembers the ends of another service's chains: they show there that its log was cut, or replaced by an older copy.
/// By the host only, in the name of the service whose stream they came on.
#[derive(Clone, Debug)]
pub struct RememberHeads {
    /// Whose: its SPIFFE id.
    pub peer: String,
    /// Which.
    pub heads: Vec<Head>,
}

impl Verb for RememberHeads {
    type Out = ();

    fn run(&self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        let permit = tx.authorize_keep_log()?;
        let at = tx.now();
        tx.keep_log(&permit, Keeping::Remember { peer: self.peer.clone(), heads: self.heads.clone(), at });
        Ok(())
    }
}

/// Removes a part of the log, as retention says. By the host only.
#[derive(Clone, Debug)]
pub struct TrimLog {
    /// Which.
    pub trim: Trim,
}

impl Verb for TrimLog {
    type Out = ();

    fn run(&self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        let permit = tx.authorize_keep_log()?;
        tx.keep_log(&permit, Keeping::Trim(self.trim.clone()));
        tx.audit(Outcome::Done, self.trim.detail());
        Ok(())
    }
}
