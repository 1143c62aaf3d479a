//! The way back after a lost connection: a new one, the lock, and what became of the last commit.

use std::time::{Duration, Instant};

use super::{
    Access, Ask, Flush, Sharing, bind, holding,
    link::{Kind, Link},
    opening,
    trouble::Trouble,
    writer::Desk,
};
use crate::{
    clock::{Clock, Timestamp},
    random,
    store::{Fault, audit::Head},
};

/// How long a batch waits for the database to be back. Its callers wait for it.
pub(super) const RESUME_WITHIN: Duration = Duration::from_secs(2);
pub(super) const RESUME_PAUSE: Duration = Duration::from_millis(50);

/// A commit that may have happened.
pub(super) struct Doubt {
    /// The chain's end, if it has.
    pub(super) head: Head,
}

impl Desk {
    /// Makes sure of a connection that holds the lock, and that no commit is in doubt. Whether the one that was
    /// has happened; if it has not it never will.
    pub(super) async fn resume(&mut self) -> Result<bool, Fault> {
        if self.link.is_some() && self.doubt.is_none() {
            return Ok(false);
        }
        let began: Instant = Clock::instant();
        loop {
            let fault = match self.reconnect().await {
                Ok(happened) => return Ok(happened),
                Err(Trouble::Fault(fault @ (Fault::Broken(_) | Fault::Full(_)))) => return Err(fault),
                Err(Trouble::Fault(fault) | Trouble::Unmet(fault)) => fault,
                Err(Trouble::Again(why) | Trouble::Lost(why)) => Fault::Unavailable(why),
            };
            if Clock::instant().duration_since(began) >= RESUME_WITHIN {
                return Err(fault);
            }
            tokio::time::sleep(RESUME_PAUSE).await;
        }
    }

    async fn reconnect(&mut self) -> Result<bool, Trouble> {
        self.link = None;
        let mut link = Link::connect(&self.options.target, Kind::Write).await?;
        holding::lock(&mut link, self.options.sharing).await?;
        // Others may have brought the store to another version while this one held no lock.
        if opening::schema(&mut link).await? != self.schema {
            let newer = "the store is of a newer version now: start this program again, as the newer one";
            return Err(Fault::Unavailable(newer.to_owned()).into());
        }
        holding::hold(&mut link, &self.head.writer).await?;
        // Nothing comes after this that could fail: what was settled must be told.
        let happened = self.settle(&mut link).await?;
        self.link = Some(link);
        Ok(happened)
    }

    /// Locks this writer's row, which waits for the end of its last transaction, and compares the number. Where another
    /// program has taken this one for ended and sealed its chain, it goes on as another writer.
    async fn settle(&mut self, link: &mut Link) -> Result<bool, Trouble> {
        let alone = self.options.sharing == Sharing::Alone;
        let (stored, now) = self.stored(link).await?;
        let (batch, ended) = stored.filter(|(_, ended)| !(alone && *ended)).ok_or_else(|| {
            let taken = "another program has used this store in the meantime: start this one again";
            Fault::Unavailable(taken.to_owned())
        })?;
        let happened = match batch - self.batch {
            0 => false,
            1 if self.doubt.is_some() => true,
            _ => return Err(Fault::Broken(format!("batch {batch} is stored after {}", self.batch)).into()),
        };
        let mut flush = Flush::default();
        if self.doubt.is_some() {
            // What was read may be durable on this machine only. What is written now is so for certain once it
            // is answered, and all that was written before it.
            flush.one(
                "moment of this writer",
                "UPDATE moment SET at = GREATEST(at + 1, $2) WHERE writer = $1",
                [bind(self.head.writer.clone()), bind(now.as_micros())],
            );
        }
        let next = ended.then(|| Head::start(random::id("wrt")));
        if let Some(next) = &next {
            holding::hold(link, &next.writer).await?;
            opening::enrol(&mut flush, next);
        }
        link.write(&flush).await?;
        link.commit().await?;
        if let Some(doubt) = self.doubt.take().filter(|_| happened) {
            self.committed(doubt.head);
        }
        if let Some(next) = next {
            tracing::warn!(writer = self.head.writer, next = next.writer, "this writer was taken for ended");
            (self.head, self.batch) = (next, 0);
        }
        Ok(happened)
    }

    /// The number of this writer's last batch, and whether its chain is sealed.
    async fn stored(&self, link: &mut Link) -> Result<(Option<(i64, bool)>, Timestamp), Trouble> {
        let mut stored = None;
        let sql = format!("SELECT batch, ended FROM moment WHERE writer = $1{}", Access::Locked.clause());
        let ask = Ask::new(sql, [bind(self.head.writer.clone())], |stored, rows| {
            let read = |row: &super::Row| Ok::<_, Fault>((row.try_get(0)?, row.try_get(1)?));
            *stored = rows.first().map(read).transpose()?;
            Ok(())
        });
        let stamp = link.load(vec![ask], &mut stored).await?;
        Ok((stored, self.moment.heard(stamp)))
    }
}
