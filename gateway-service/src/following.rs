//! Sees to the ends that auth tells of, before they are acknowledged: so the clients of an owner's sessions are a part of
//! the barrier, although their calls need nothing of auth.
//!
//! Up to where that was done is kept in the store, so that a gateway that comes back hears of what it missed before it
//! holds a lease again. Where auth cannot tell that any more, every owner who has a living session is asked about.
//! Gateways on one store all see to every end; the first one finds something to do.
//!
//! One thing is left to those who make something lasting: a call that was admitted before the end may commit after it
//! was seen to. It looks again after its commit ([`Front::after_opening`], [`Front::after_binding`]).

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use interlock_client::verifier::{self, Ending, Follower, Verdict, VerifyError};
use interlock_kit::{authn::login_required, error::Error};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    admit::auth_unavailable,
    adopt::OwnerFacts,
    caller::Caller,
    ending::{Concerned, EndClients, Ended, NextOwner, NoteFollowed, Place, ProjectsOf, ReadFollowed},
    grpc::Front,
    ids::{OwnerId, ProjectId, SessionId},
    session::Session,
    store::{Query, Resolver, Shell, Verb},
};

/// How often it is noted up to where the log was seen to, where nothing ends.
const NOTE: Duration = Duration::from_secs(2);
/// The pause after the store or auth could not be asked.
const PAUSE: Duration = Duration::from_secs(1);
/// Sessions that are seen to at once: together they share commits.
const AT_ONCE: usize = 64;

/// What is told by the verifier, and what is to be done about it.
pub(crate) struct Endings {
    shell: Shell,
    caller: Arc<Caller>,
    state: Mutex<State>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Not noted yet.
    followed: Option<Place>,
    missed: Option<Missed>,
}

/// What auth cannot tell any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Missed {
    before: u64,
    comparable: bool,
}

/// Whoever sees to ends asks nobody.
struct Nobody;

impl Resolver for Nobody {
    async fn may_enter(&self, _: &OwnerId, _: &ProjectId) -> Result<bool, Error> {
        Err(Error::internal("an end asked for a membership"))
    }

    async fn owner(&self, _: &OwnerId) -> Result<OwnerFacts, Error> {
        Err(Error::internal("an end asked for an owner"))
    }
}

impl Follower for Endings {
    fn end(self: Arc<Self>, ending: Ending) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        Box::pin(async move {
            let ended = self.see_to(ending).await;
            if let Err(error) = &ended {
                tracing::warn!(reason = %error.reason(), "an end could not be seen to yet; auth waits for it");
            }
            ended.is_ok()
        })
    }

    fn followed(&self, place: verifier::Place) {
        self.state.lock().followed = Some(noted(place));
    }

    fn missed(&self, before: u64, comparable: bool) {
        let mut state = self.state.lock();
        let comparable = comparable && state.missed.is_none_or(|missed| missed.comparable);
        state.missed = Some(Missed { before, comparable });
        drop(state);
        self.woken.notify_one();
    }
}

/// As the store keeps it: its numbers have a sign. One that is larger than that is larger than all.
fn noted(place: verifier::Place) -> Place {
    const MOST: u64 = i64::MAX.unsigned_abs();
    Place { sequence: place.sequence.min(MOST), issued_before: place.issued_before.min(MOST) }
}

impl Endings {
    pub(crate) fn new(shell: Shell) -> Self {
        let caller = Arc::new(Caller::gateway());
        Self { shell, caller, state: Mutex::default(), woken: Notify::new() }
    }

    /// Up to where the log was seen to in earlier lives.
    ///
    /// # Errors
    /// As the store says.
    pub(crate) async fn place(&self) -> Result<Place, Error> {
        self.ask(ReadFollowed).await
    }

    /// Ends what one session has of what has ended.
    ///
    /// # Errors
    /// As the store says.
    pub(crate) async fn end_at(&self, session: SessionId, ended: Ended) -> Result<(), Error> {
        self.run(EndClients { session, ended }).await.map(drop)
    }

    async fn see_to(&self, ending: Ending) -> Result<(), Error> {
        let (owner, project) = match ending.of {
            verifier::Ended::Owner(owner) => (OwnerId::parse(owner), None),
            verifier::Ended::Membership { owner_id, project_id } => {
                // An id that is none of ours is no session's.
                let Ok(project) = ProjectId::parse(project_id) else { return Ok(()) };
                (OwnerId::parse(owner_id), Some(project))
            }
        };
        if let Ok(owner) = owner {
            self.end_all(&Ended { owner, project, cancel_jobs: ending.cancel_jobs }).await?;
        }
        if self.state.lock().missed.is_some() {
            // What came before is not seen to: after a restart all of it is to be heard of again.
            return Ok(());
        }
        // Noted before it is acknowledged: what is made on the owner from then on is not ended once more by a restart.
        self.run(NoteFollowed { place: noted(ending.place), anew: false }).await.map(drop)
    }

    /// Every living session that it is about, as they are now.
    async fn end_all(&self, ended: &Ended) -> Result<(), Error> {
        let mut before = None;
        loop {
            let part = self.ask(Concerned { ended: ended.clone(), before }).await?;
            let verbs = part.sessions.into_iter().map(|session| self.end_at(session, ended.clone()));
            stream::iter(verbs).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
            before = part.next;
            if before.is_none() {
                return Ok(());
            }
        }
    }

    /// Looks at every owner who has a living session: what auth cannot tell any more is asked for.
    async fn look(&self, front: &Front, missed: Missed) -> Result<(), Error> {
        let kept = self.place().await?.issued_before;
        let mut owner = None;
        while let Some(next) = self.ask(NextOwner { after: owner }).await? {
            self.look_at(front, &next, if missed.comparable { kept } else { 0 }).await?;
            owner = Some(next);
        }
        Ok(())
    }

    async fn look_at(&self, front: &Front, owner: &OwnerId, kept: u64) -> Result<(), Error> {
        let of = |project| Ended { owner: owner.clone(), project, cancel_jobs: false };
        // Nobody signs in as `local`, so it does not end; its memberships do.
        let stands = *owner == OwnerId::local()
            || match front.verifier.describe_owner(owner.as_str()).await {
                Ok(facts) => facts.active && (kept == 0 || facts.ended_before < kept),
                Err(VerifyError::Unauthenticated(_)) => false,
                Err(VerifyError::AuthUnavailable) => return Err(auth_unavailable()),
            };
        if !stands {
            return self.end_all(&of(None)).await;
        }
        let mut before = None;
        loop {
            let (projects, next) = self.ask(ProjectsOf { owner: owner.clone(), before }).await?;
            for project in projects {
                let may = front.verifier.may_enter(owner.as_str(), project.as_str()).await;
                if !may.map_err(|_| auth_unavailable())? {
                    self.end_all(&of(Some(project))).await?;
                }
            }
            before = next;
            if before.is_none() {
                return Ok(());
            }
        }
    }

    /// Looks for what was missed, and notes up to where the log was seen to.
    async fn turn(&self, front: &Front) -> Result<(), Error> {
        let missed = self.state.lock().missed;
        if let Some(missed) = missed {
            self.look(front, missed).await?;
            let Some(place) = self.looked(missed) else {
                self.woken.notify_one();
                return Ok(());
            };
            return self.run(NoteFollowed { place, anew: !missed.comparable }).await.map(drop);
        }
        let followed = self.state.lock().followed.take();
        match followed {
            Some(place) => self.run(NoteFollowed { place, anew: false }).await.map(drop),
            None => Ok(()),
        }
    }

    /// What was missed was looked for; where that leaves us. None where more was missed meanwhile.
    fn looked(&self, missed: Missed) -> Option<Place> {
        let mut state = self.state.lock();
        if state.missed != Some(missed) {
            return None;
        }
        state.missed = None;
        let since = state.followed.take().filter(|place| place.sequence > missed.before);
        Some(since.unwrap_or(Place { sequence: missed.before, issued_before: 0 }))
    }

    async fn run<V: Verb>(&self, verb: V) -> Result<V::Out, Error> {
        Ok(self.shell.run(&self.caller, verb, &Nobody).await?.out)
    }

    async fn ask<Q: Query>(&self, query: Q) -> Result<Q::Out, Error> {
        Ok(self.shell.ask(&self.caller, query, &Nobody).await?.out)
    }
}

/// Looks and notes until the gateway drains; what is not noted by then is noted last.
pub(crate) async fn run(front: Arc<Front>) {
    let turns = async {
        loop {
            tokio::select! {
                () = front.endings.woken.notified() => {}
                () = tokio::time::sleep(NOTE) => {}
            }
            if let Err(error) = front.endings.turn(&front).await {
                tracing::warn!(reason = %error.reason(), "what was missed of auth's log is looked for again");
                tokio::time::sleep(PAUSE).await;
                front.endings.woken.notify_one();
            }
        }
    };
    front.draining.run_until_cancelled(turns).await;
    if front.endings.state.lock().missed.is_none()
        && let Err(error) = front.endings.turn(&front).await
    {
        tracing::warn!(reason = %error.reason(), "up to where auth's log was seen to is not noted");
    }
}

impl Front {
    /// Whether the owner behind a verdict has ended since the verdict was given. For calls that make something which
    /// outlives them, after their commit: an end that was seen to before it did not see it.
    async fn has_ended(&self, verdict: &Verdict) -> bool {
        if self.verifier.stands(verdict) {
            return false;
        }
        match self.verifier.describe_owner(&verdict.owner_id).await {
            Ok(facts) => !facts.active || verdict.issuance < facts.ended_before,
            // Nobody knows: what cannot be vouched for is not left behind.
            Err(_) => true,
        }
    }

    /// A way into a session was made: a client, or a password. Where its maker's owner has ended meanwhile it is
    /// taken away again.
    ///
    /// # Errors
    /// `PROVIDER_AUTH_FAILED` where it was; as the store says.
    pub(crate) async fn after_opening(
        &self,
        verdict: Option<&Arc<Verdict>>,
        session: &SessionId,
    ) -> Result<(), Error> {
        let Some(verdict) = verdict else { return Ok(()) };
        if !self.has_ended(verdict).await {
            return Ok(());
        }
        if let Ok(owner) = OwnerId::parse(verdict.owner_id.clone()) {
            let ended = Ended { owner, project: None, cancel_jobs: false };
            self.endings.end_at(session.clone(), ended).await?;
        }
        Err(login_required())
    }

    /// A session was bound to a project. Where its owner has ended meanwhile, or has lost that project, its clients go:
    /// they would have the project by the session.
    ///
    /// # Errors
    /// As the store says.
    pub(crate) async fn after_binding(
        &self,
        verdict: Option<&Arc<Verdict>>,
        acting: Option<OwnerId>,
        session: &Session,
    ) -> Result<(), Error> {
        let project = session.binding.as_ref().map(|binding| &binding.project);
        let ended = match verdict {
            Some(verdict) => self.has_ended(verdict).await,
            None => false,
        };
        let left = match project {
            // Roles lead there, and whoever lost them has ended above.
            Some(project) if *project != ProjectId::system() => {
                self.has_left(&acting.unwrap_or_else(|| session.owner.clone()), project).await
            }
            Some(_) | None => false,
        };
        if ended || left {
            let of = Ended { owner: session.owner.clone(), project: project.cloned(), cancel_jobs: false };
            self.endings.end_at(session.id.clone(), of).await?;
        }
        Ok(())
    }

    /// Whether an owner has lost a project that one of its sessions was bound to just now.
    async fn has_left(&self, owner: &OwnerId, project: &ProjectId) -> bool {
        let (owner, project) = (owner.as_str(), project.as_str());
        !self.verifier.is_known_member(owner, project)
            && !self.verifier.may_enter(owner, project).await.unwrap_or(false)
    }
}
