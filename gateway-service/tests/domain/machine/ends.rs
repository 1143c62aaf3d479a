//! What comes from outside a session among the random verbs: ends of owners and memberships, adoptions, agents that go
//! and come again.

use interlock_gateway::{
    adopt::AdoptSession,
    agent::{RemoveAgent, SetAgent},
    caller::Caller,
    ending::{Concerned, EndClients, Ended},
    ids::OwnerId,
};

use super::{AGENTS, Machine, OWNERS, PROJECTS, invariants::idle};
use crate::world::{admin, agent, owner, project};

impl Machine {
    /// An owner, or a membership, has ended: the gateway sees to one of the sessions that it is about, now or late.
    pub(super) async fn end(&mut self) {
        let of = OWNERS[self.dice.below(2)];
        let left = [None, Some(PROJECTS[0]), Some(PROJECTS[1])][self.dice.below(3)];
        let cancel_jobs = self.dice.below(2) == 0;
        let ended = Ended { owner: OwnerId::parse(of).unwrap(), project: left.map(project), cancel_jobs };
        let concerned = Concerned { ended: ended.clone(), before: None };
        let part = self.see(&Caller::gateway(), concerned).await.unwrap();
        let session = match part.sessions.first() {
            Some(first) if self.dice.below(4) > 0 => first.clone(),
            // It was another's, or elsewhere, by then.
            Some(_) | None => self.session(),
        };
        let caller = if self.dice.below(8) == 0 { self.caller() } else { Caller::gateway() };
        let was: Vec<_> =
            self.model.clients.values().filter(|client| client.session == session).cloned().collect();
        let end = EndClients { session: session.clone(), ended };
        if self.all(&caller, end.clone()).await.is_ok_and(|some| some) {
            self.told.ended += 1;
            let stays = self.model.clients.values().any(|client| client.session == session);
            assert!(!stays, "{was:?}: none of them is left");
            assert!(!self.all(&caller, end).await.expect("again is no error"), "once");
        }
    }

    /// Somebody gives a session away, mostly one of an owner whom auth does not know at that moment.
    pub(super) async fn adopt(&mut self) {
        let session = self.session();
        let of = self.model.sessions[&session].owner.clone();
        let known = self.dice.below(5) == 0;
        let to = ["ann", "bob", "never"][self.dice.below(3)];
        let caller = if self.dice.below(6) == 0 { self.caller() } else { admin() };
        if !known {
            self.worlds.iter().for_each(|world| world.members.remove(of.as_str(), "p"));
        }
        let adopt = AdoptSession { session: session.clone(), owner: Some(OwnerId::parse(to).unwrap()) };
        let adopted = self.all(&caller, adopt).await;
        if !known {
            self.worlds.iter().for_each(|world| world.members.add(of.as_str(), "p"));
        }
        let Ok(adopted) = adopted else { return };
        let to = OWNERS.into_iter().find(|owner| *owner == to).expect("nobody else is active");
        assert_eq!(adopted.seen.session.owner.as_str(), to);
        if of.as_str() != to {
            assert!(!known, "it was taken from an owner who is known");
            self.told.adopted += 1;
            assert!(!self.model.clients.values().any(|client| client.session == session), "none of before");
        }
        for entry in self.sessions.iter_mut().filter(|(id, ..)| *id == session) {
            entry.2 = to;
        }
    }

    /// An agent goes, where nothing of it is in flight; one that went comes again.
    pub(super) async fn agents(&mut self) {
        if !self.removed.is_empty() && self.dice.below(4) > 0 {
            return self.register().await;
        }
        let name = AGENTS[self.dice.below(3)];
        let caller = match self.dice.below(3) {
            0 => self.caller(),
            1 => owner("ann"),
            _ => admin(),
        };
        let before = self.model.clone();
        if self.all(&caller, RemoveAgent { agent: agent(name) }).await.is_ok() {
            assert!(idle(&before, &agent(name)), "{name} was removed under its jobs");
            self.told.removed += 1;
            self.removed.push(name);
        }
    }

    /// All agents that went come again, as they were.
    pub(super) async fn register(&mut self) {
        for name in std::mem::take(&mut self.removed) {
            let shared = name == "s";
            let caller = if shared { admin() } else { owner("ann") };
            let set = SetAgent { agent: agent(name), shared: shared.then_some(true), description: None };
            self.all(&caller, set).await.expect("its name is free");
        }
    }
}
