//! The ends of audit chains that travel with renewals of the lease, for a service that keeps an audit log of its own.

use std::fmt;

use interlock_proto::audit::v1 as wire;

use crate::audit::AuditHead;

/// What goes to auth with a renewal, or comes from it with a grant. At most 16 of each kind; auth refuses a stream on
/// which more is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadNews {
    /// Ends of the sender's own chains, for the other to remember.
    pub heads: Vec<AuditHead>,
    /// Ends of the other's chains that the sender has stored.
    pub remembered: Vec<AuditHead>,
}

/// A service's side of the exchange with auth: each remembers the ends of the other's audit chains, which shows later
/// that a log was cut or replaced by an older copy. Called on the task that holds the lease: it must not wait.
pub trait HeadExchange: fmt::Debug + Send + Sync {
    /// What auth is to be told now; on a new stream, of which it knows nothing yet, `anew` is set.
    fn tell(&self, anew: bool) -> HeadNews;
    /// What auth has told. As it came: nothing of it was checked.
    fn hear(&self, news: HeadNews);
}

impl HeadNews {
    pub(super) fn to_wire(&self) -> (Vec<wire::Head>, Vec<wire::Head>) {
        let heads = |heads: &[AuditHead]| heads.iter().map(AuditHead::to_wire).collect();
        (heads(&self.heads), heads(&self.remembered))
    }

    /// None where there is nothing in it.
    pub(super) fn of_wire(heads: Vec<wire::Head>, remembered: Vec<wire::Head>) -> Option<Self> {
        let read = |heads: Vec<wire::Head>| heads.into_iter().map(AuditHead::from).collect();
        let some = !heads.is_empty() || !remembered.is_empty();
        some.then(|| Self { heads: read(heads), remembered: read(remembered) })
    }
}
