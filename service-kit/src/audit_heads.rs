//! Each service remembers the ends of the other's audit chains.
//!
//! What is left of a log whose end was cut off is whole, and so is an older copy of a store. Only who has seen what came
//! later can tell: so services exchange the heads of their chains with the renewals of auth's lease (`trust.proto`), and
//! each stores what it hears of the other. What a service keeps is told back to whom it is of, so that a verification
//! there compares with it.
//!
//! [`AuditHeads`] is one service's side: what it has to tell, what it has heard and not stored yet, and what others say
//! they keep of it. Nothing here waits for the store: [`AuditHeads::run`] reads and stores in rounds, so that a head is
//! stored at most once in a round however fast its chain grows.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use interlock_proto::audit::v1 as wire;
use parking_lot::Mutex;

use crate::{
    clock::{Clock, Timestamp},
    error::Error,
    store::{
        Fault,
        audit::{Head, Known, PEER_HEADS_MAX, PEERS_MAX, Trail},
    },
};

/// Heads of each kind in one message: it fits into the smallest one that may be configured.
pub const HEADS_A_MESSAGE: usize = 16;
/// Bytes of a writer's name.
const WRITER_BYTES_MAX: usize = 128;

/// What goes to another service, or comes from one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The sender's own heads.
    pub heads: Vec<Head>,
    /// What the sender keeps of the other's.
    pub remembered: Vec<Head>,
}

impl News {
    /// Reads what came; `field` is what the message is called in refusals.
    ///
    /// # Errors
    /// `INVALID_FIELD` for what is no head, or for more than [`HEADS_A_MESSAGE`].
    pub fn read(field: &str, heads: Vec<wire::Head>, remembered: Vec<wire::Head>) -> Result<Self, Error> {
        let read = |name: &str, heads| from_wire(&format!("{field}.{name}"), heads, HEADS_A_MESSAGE);
        Ok(Self { heads: read("heads", heads)?, remembered: read("remembered", remembered)? })
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.remembered.is_empty()
    }
}

/// How much of it one stream has been told.
#[derive(Debug, Default)]
pub struct Sent {
    heads: BTreeMap<String, u64>,
    remembered: BTreeMap<String, u64>,
    /// The state that it was told all of; none where something is left.
    through: Option<u64>,
}

/// Another service, and what it says it keeps of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// How many heads.
    pub heads: usize,
    /// When it told the last of them.
    pub told_at: Timestamp,
}

/// One service's side of the exchange.
#[derive(Debug)]
pub struct AuditHeads {
    trail: Trail,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Grows with each change of what there is to tell.
    version: u64,
    /// Of this service: open chains first, then sealed ones, the latest of them at the end.
    own: Vec<Head>,
    /// What is stored of others.
    kept: BTreeMap<String, Heads>,
    /// What others have told of theirs since it was stored the last time.
    heard: BTreeMap<String, Heads>,
    /// What others say they keep of this one's, and when they said so.
    told: BTreeMap<String, (Heads, Timestamp)>,
}

/// Heads of one service: those that grew last.
#[derive(Debug, Default)]
struct Heads {
    /// With the place of the last growth of each.
    by_writer: BTreeMap<String, (u64, Head)>,
    grown: u64,
}

impl Heads {
    /// Takes one that is new, or later than what there is of its chain. Whether it was.
    fn take(&mut self, head: Head) -> bool {
        if self.by_writer.get(&head.writer).is_some_and(|(_, known)| known.number >= head.number) {
            return false;
        }
        self.grown += 1;
        self.by_writer.insert(head.writer.clone(), (self.grown, head));
        if self.by_writer.len() > PEER_HEADS_MAX {
            let oldest = self.by_writer.iter().min_by_key(|(_, (grown, _))| *grown);
            if let Some(writer) = oldest.map(|(writer, _)| writer.clone()) {
                self.by_writer.remove(&writer);
            }
        }
        true
    }

    fn of(&self, writer: &str) -> Option<&Head> {
        self.by_writer.get(writer).map(|(_, head)| head)
    }

    /// In the order of their growth.
    fn in_order(&self) -> Vec<&Head> {
        let mut all: Vec<_> = self.by_writer.values().collect();
        all.sort_by_key(|(grown, _)| *grown);
        all.into_iter().map(|(_, head)| head).collect()
    }
}

impl AuditHeads {
    /// Of the service with this log.
    #[must_use]
    pub fn new(trail: Trail, clock: Clock) -> Arc<Self> {
        Arc::new(Self { trail, clock, state: Mutex::default() })
    }

    /// What `peer` is to be told next on a stream, at most [`HEADS_A_MESSAGE`] of each kind.
    pub fn news(&self, peer: &str, sent: &mut Sent) -> News {
        let state = self.state.lock();
        if sent.through == Some(state.version) {
            return News::default();
        }
        let own: Vec<_> = state.own.iter().collect();
        let kept = state.kept.get(peer).map(Heads::in_order).unwrap_or_default();
        let news =
            News { heads: unsent(&own, &mut sent.heads), remembered: unsent(&kept, &mut sent.remembered) };
        let is_full = news.heads.len().max(news.remembered.len()) == HEADS_A_MESSAGE;
        sent.through = (!is_full).then_some(state.version);
        news
    }

    /// What `peer` has told.
    pub fn heard(&self, peer: &str, news: News) {
        if news.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let is_known =
            state.kept.contains_key(peer) || state.heard.contains_key(peer) || state.told.contains_key(peer);
        let is_full = state.kept.len() + state.heard.len() >= PEERS_MAX || state.told.len() >= PEERS_MAX;
        if !is_known && is_full {
            tracing::warn!(peer, "more services than their heads are kept of");
            return;
        }
        for head in news.heads {
            let State { kept, heard, .. } = &mut *state;
            let later =
                kept.get(peer).and_then(|kept| kept.of(&head.writer)).is_none_or(|k| k.number < head.number);
            if later {
                heard.entry(peer.to_owned()).or_default().take(head);
            }
        }
        if !news.remembered.is_empty() {
            let (told, at) = state.told.entry(peer.to_owned()).or_default();
            *at = self.clock.wall();
            for head in news.remembered {
                told.take(head);
            }
        }
    }

    /// Every head that another service has told it keeps of this one's chains.
    #[must_use]
    pub fn known(&self) -> Vec<Known> {
        let state = self.state.lock();
        let of = |(by, (heads, _)): (&String, &(Heads, Timestamp))| {
            let known = |head: &Head| Known { by: by.clone(), head: head.clone() };
            heads.in_order().into_iter().map(known).collect::<Vec<_>>()
        };
        state.told.iter().flat_map(of).collect()
    }

    /// Who has told so.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        let peer = |(name, (heads, at)): (&String, &(Heads, Timestamp))| Peer {
            name: name.clone(),
            heads: heads.by_writer.len(),
            told_at: *at,
        };
        self.state.lock().told.iter().map(peer).collect()
    }

    /// Reads the ends of this log and what is stored of others', and has stored what was heard, each `every`, until it
    /// is dropped. `keep` runs the verb that stores heads of one service.
    pub async fn run<F, K>(self: Arc<Self>, every: Duration, keep: F)
    where
        F: Fn(String, Vec<Head>) -> K,
        K: Future<Output = Result<(), Error>>,
    {
        loop {
            if let Err(error) = self.round(&keep).await {
                tracing::warn!(%error, "heads of audit chains could not be read or stored; the next round tries again");
            }
            tokio::time::sleep(every).await;
        }
    }

    async fn round<F, K>(self: &Arc<Self>, keep: &F) -> Result<(), Error>
    where
        F: Fn(String, Vec<Head>) -> K,
        K: Future<Output = Result<(), Error>>,
    {
        for (peer, heads) in self.unstored() {
            keep(peer, heads).await?;
        }
        let own = Arc::clone(self);
        tokio::task::spawn_blocking(move || own.look()).await.map_err(Error::internal)??;
        Ok(())
    }

    fn unstored(&self) -> Vec<(String, Vec<Head>)> {
        let state = self.state.lock();
        let heads = |heads: &Heads| heads.in_order().into_iter().cloned().collect();
        state.heard.iter().map(|(peer, heard)| (peer.clone(), heads(heard))).collect()
    }

    /// Reads what is stored.
    fn look(&self) -> Result<(), Fault> {
        let (own, remembered) = (self.trail.heads()?, self.trail.remembered()?);
        let mut kept: BTreeMap<String, Heads> = BTreeMap::new();
        for stored in remembered {
            kept.entry(stored.peer).or_default().take(stored.head);
        }
        let mut state = self.state.lock();
        let State { heard, .. } = &mut *state;
        heard.retain(|peer, heads| {
            let stored = kept.get(peer);
            heads.by_writer.retain(|writer, (_, head)| {
                stored.and_then(|stored| stored.of(writer)).is_none_or(|stored| stored.number < head.number)
            });
            !heads.by_writer.is_empty()
        });
        (state.own, state.kept) = (own, kept);
        state.version += 1;
        Ok(())
    }
}

/// The first ones that are not among what was sent, or later than that.
fn unsent(heads: &[&Head], sent: &mut BTreeMap<String, u64>) -> Vec<Head> {
    let is_unsent = |head: &&Head| sent.get(&head.writer).is_none_or(|number| *number < head.number);
    let news: Vec<Head> = heads.iter().copied().filter(is_unsent).take(HEADS_A_MESSAGE).cloned().collect();
    sent.extend(news.iter().map(|head| (head.writer.clone(), head.number)));
    if sent.len() > 2 * PEER_HEADS_MAX {
        sent.retain(|writer, _| heads.iter().any(|head| head.writer == *writer));
    }
    news
}

/// Reads heads from the wire, at most `most`; `field` is what their list is called in refusals.
///
/// # Errors
/// `INVALID_FIELD`
pub(crate) fn from_wire(field: &str, given: Vec<wire::Head>, most: usize) -> Result<Vec<Head>, Error> {
    if given.len() > most {
        return Err(Error::invalid_field(field, format!("0 to {most} heads")));
    }
    let read = |(at, head): (usize, wire::Head)| {
        let refused =
            |name: &str, accepted: &str| Error::invalid_field(format!("{field}[{at}].{name}"), accepted);
        if !interlock_proto::text::is_label(&head.writer, WRITER_BYTES_MAX) {
            return Err(refused("writer", "from an earlier answer"));
        }
        let link = <[u8; 32]>::try_from(&head.link[..]).map_err(|_| refused("link", "32 bytes"))?;
        if head.number == 0 || i64::try_from(head.number).is_err() {
            return Err(refused("number", "from an earlier answer"));
        }
        Ok(Head { writer: head.writer, number: head.number, link })
    };
    given.into_iter().enumerate().map(read).collect()
}

/// A head for the wire.
#[must_use]
pub fn to_wire(head: Head) -> wire::Head {
    wire::Head { writer: head.writer, number: head.number, link: head.link.to_vec().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::audit::ChainKey;

    fn head(writer: &str, number: u64) -> Head {
        Head { writer: writer.to_owned(), number, link: [number as u8; 32] }
    }

    fn side() -> Arc<AuditHeads> {
        let trail = Trail::in_file("nowhere".into(), ChainKey::new([7; 32]));
        AuditHeads::new(trail, Clock::system())
    }

    fn set(side: &AuditHeads, own: Vec<Head>) {
        let mut state = side.state.lock();
        state.own = own;
        state.version += 1;
    }

    #[test]
    fn each_stream_is_told_once_and_in_parts() {
        let side = side();
        let all: Vec<_> = (0..40).map(|n| head(&format!("wrt_{n}"), 1)).collect();
        set(&side, all.clone());
        let mut sent = Sent::default();
        let parts: Vec<_> = std::iter::repeat_with(|| side.news("auth", &mut sent).heads).take(4).collect();
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [16, 16, 8, 0]);
        assert_eq!(parts.concat(), all);
        let mut grown = all;
        grown[3] = head("wrt_3", 2);
        set(&side, grown);
        assert_eq!(side.news("auth", &mut sent).heads, [head("wrt_3", 2)]);
        assert_eq!(side.news("auth", &mut Sent::default()).heads.len(), HEADS_A_MESSAGE, "another stream");
    }

    #[test]
    fn a_chain_that_was_cut_does_not_take_the_place_of_what_was_heard_of_it() {
        let side = side();
        let hear = |heads: Vec<Head>| side.heard("gateway", News { heads, remembered: vec![] });
        hear(vec![head("wrt_a", 7)]);
        hear(vec![head("wrt_a", 5), head("wrt_b", 1)]);
        assert_eq!(side.unstored(), [("gateway".to_owned(), vec![head("wrt_a", 7), head("wrt_b", 1)])]);
    }

    #[test]
    fn what_others_tell_is_bounded_by_the_chains_that_grew_last_and_by_services() {
        let side = side();
        let chains = PEER_HEADS_MAX + 10;
        for n in 0..chains {
            let heads = vec![head("wrt_open", n as u64 + 1), head(&format!("wrt_{n:04}"), 1)];
            side.heard("gateway", News { heads: heads.clone(), remembered: heads });
        }
        let known = side.known();
        assert_eq!(known.len(), PEER_HEADS_MAX);
        assert!(
            known.iter().any(|known| known.head == head("wrt_open", chains as u64)),
            "it grew all the time"
        );
        assert!(known.iter().all(|known| known.by == "gateway" && known.head.writer != "wrt_0000"));
        assert_eq!(side.peers()[0].heads, PEER_HEADS_MAX);
        for n in 0..2 * PEERS_MAX {
            side.heard(&format!("peer {n}"), News { heads: vec![head("wrt_a", 1)], remembered: vec![] });
        }
        assert_eq!(side.unstored().len(), PEERS_MAX);
    }

    #[test]
    fn what_is_no_head_is_refused_by_its_name() {
        let good = to_wire(head("wrt_a", 1));
        let read =
            |heads: Vec<wire::Head>| News::read("renew", heads, vec![]).map_err(|error| error.to_string());
        assert_eq!(read(vec![good.clone()]).expect("good").heads, [head("wrt_a", 1)]);
        let bad = [
            (wire::Head { writer: String::new(), ..good.clone() }, "renew.heads[1].writer"),
            (wire::Head { number: 0, ..good.clone() }, "renew.heads[1].number"),
            (wire::Head { link: vec![0; 31].into(), ..good.clone() }, "renew.heads[1].link"),
        ];
        for (bad, named) in bad {
            let refused = read(vec![good.clone(), bad]).expect_err("bad");
            assert!(refused.contains(named), "{refused}");
        }
        let many = read(vec![good; HEADS_A_MESSAGE + 1]).expect_err("too many");
        assert!(many.contains("renew.heads"), "{many}");
    }
}
