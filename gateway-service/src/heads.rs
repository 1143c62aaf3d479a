//! The audit log's upkeep: what this service remembers of auth's log, and auth of this one's, exchanged over the stream
//! of the lease; and what goes because it is old.

use std::{sync::Arc, time::Duration};

use interlock_client::{
    AuditHead,
    verifier::{HeadExchange, HeadNews},
};
use interlock_kit::{
    audit_heads::{AuditHeads, News, Sent},
    audit_retention,
    config::Audit,
    store::audit::{Head, Trail, Trim},
};
use parking_lot::Mutex;

use crate::{
    caller::Caller,
    grpc::Front,
    store::{Stop, Tx, Verb},
};

/// What auth is called here; its certificate is checked by the connection.
const AUTH: &str = "auth";

/// Remembers ends of another service's chains: they show there that its log was cut, or replaced by an older copy.
#[derive(Clone, Debug)]
pub struct RememberHeads {
    /// Whose.
    pub peer: String,
    /// Which.
    pub heads: Vec<Head>,
}

impl Verb for RememberHeads {
    type Out = ();
    const ACTION: &'static str = "audit.remember";

    fn run(&self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        let permit = tx.upkeep()?;
        tx.remember_heads(&permit, &self.peer, &self.heads);
        Ok(())
    }
}

/// Removes a part of the audit log, as retention says.
#[derive(Clone, Debug)]
pub struct TrimLog {
    /// Which.
    pub trim: Trim,
}

impl Verb for TrimLog {
    type Out = ();
    const ACTION: &'static str = "audit.trim";

    fn run(&self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        let permit = tx.upkeep()?;
        tx.trim_audit(&permit, &self.trim);
        Ok(())
    }
}

/// Removes old rows until the gateway drains.
pub(crate) async fn trim(front: Arc<Front>, trail: Trail, audit: Audit) {
    let caller = Arc::new(Caller::gateway());
    let trim = |trim: Trim| {
        let (front, caller) = (Arc::clone(&front), Arc::clone(&caller));
        async move {
            front.shell.run(&caller, TrimLog { trim }, &*front).await?;
            Ok(())
        }
    };
    let clock = front.clock.clone();
    let trimming = audit_retention::run(trail, clock, audit.retention, audit.upkeep_every, trim);
    front.draining.run_until_cancelled(trimming).await;
}

/// Stores what is heard, and reads what there is to tell, until the gateway drains.
pub(crate) async fn run(front: Arc<Front>, every: Duration) {
    let caller = Arc::new(Caller::gateway());
    let keep = |peer: String, heads: Vec<Head>| {
        let (front, caller) = (Arc::clone(&front), Arc::clone(&caller));
        async move {
            front.shell.run(&caller, RememberHeads { peer, heads }, &*front).await?;
            Ok(())
        }
    };
    let keeping = Arc::clone(&front.heads).run(every, keep);
    front.draining.run_until_cancelled(keeping).await;
}

/// This service's side of the exchange, on the stream of the lease.
#[derive(Debug)]
pub(crate) struct WithAuth {
    heads: Arc<AuditHeads>,
    sent: Mutex<Sent>,
}

impl WithAuth {
    pub(crate) fn new(heads: Arc<AuditHeads>) -> Self {
        Self { heads, sent: Mutex::default() }
    }
}

impl HeadExchange for WithAuth {
    fn tell(&self, anew: bool) -> HeadNews {
        let mut sent = self.sent.lock();
        if anew {
            *sent = Sent::default();
        }
        let News { heads, remembered } = self.heads.news(AUTH, &mut sent);
        let shown = |heads: Vec<Head>| heads.into_iter().map(shown).collect();
        HeadNews { heads: shown(heads), remembered: shown(remembered) }
    }

    fn hear(&self, news: HeadNews) {
        let read = |heads: Vec<AuditHead>| heads.into_iter().filter_map(read).collect();
        self.heads.heard(AUTH, News { heads: read(news.heads), remembered: read(news.remembered) });
    }
}

fn shown(head: Head) -> AuditHead {
    AuditHead { writer: head.writer, number: head.number, link: head.link.to_vec() }
}

/// None where it is no head: of an auth that is not ours, or newer.
fn read(head: AuditHead) -> Option<Head> {
    let link = head.link.try_into().ok()?;
    let is_stored = i64::try_from(head.number).is_ok_and(|number| number > 0);
    is_stored.then_some(Head { writer: head.writer, number: head.number, link })
}
