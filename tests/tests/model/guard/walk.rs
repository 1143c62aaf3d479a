//! What can happen: callers call, workers work, die or speak up late, time passes, the gateway crashes.

use stateright::{Model, Property};

use super::{
    Bounds, Flaw, invariants,
    rows::{AGENTS, PROJECTS, Rows, SESSIONS, State},
    verbs::{Answer, Held, Seen, Verb, attach_is_busy, number},
};

/// The model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    pub(crate) flaw: Flaw,
    pub(crate) bounds: Bounds,
}

/// A moment of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// What is durable.
    pub(crate) rows: Rows,
    /// What runs in the open transaction, and what it had looked at before.
    pub(crate) open: Option<(Verb, Option<Seen>)>,
    /// What a flawed verb has looked at, its transaction still to come.
    pub(crate) looked: Option<(Verb, Seen)>,
    /// What each worker believes to hold. A worker that sleeps keeps believing.
    pub(crate) hands: Vec<Option<Held>>,
    /// What callers were told: the job of each request.
    pub(crate) told: Vec<Option<u8>>,
    /// An invariant about a step, not a state, that a step has broken.
    pub(crate) broken: Option<&'static str>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A flawed verb looks at the rows before its transaction.
    Look(Verb),
    /// A transaction opens; its instant and its rows are its own until it ends.
    Open(Verb),
    /// It commits; its answer arrives, or is lost with the connection or the process.
    Commit { answered: bool },
    /// The process ends before the commit: `kill -9`.
    Crash,
    /// A worker is gone, and what it believed with it.
    Death { worker: u8 },
    /// A step of the store's clock.
    Tick,
}

impl Model for Guard {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            rows: Rows::default(),
            open: None,
            looked: None,
            hands: vec![None; usize::from(self.bounds.workers)],
            told: vec![None; usize::from(self.bounds.requests)],
            broken: None,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if let Some((verb, _)) = world.open {
            // One writer: nothing else runs, and its instant stands still.
            steps.extend([Step::Commit { answered: true }, Step::Crash]);
            // Where the answer says what its caller did not know.
            if matches!(verb, Verb::Submit { .. } | Verb::Claim { .. }) {
                steps.push(Step::Commit { answered: false });
            }
            return;
        }
        let deaths = (0..self.bounds.workers).filter(|w| world.hands[usize::from(*w)].is_some());
        steps.extend(deaths.map(|worker| Step::Death { worker }));
        let verbs = self.verbs(world);
        steps.extend(verbs.iter().filter(|verb| self.looks(**verb)).map(|verb| Step::Look(*verb)));
        steps.extend(verbs.into_iter().map(Step::Open));
        steps.push(Step::Tick);
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Look(verb) => {
                world.looked = Some((verb, self.look(&before.rows, verb)?));
                (world.looked != before.looked).then_some(world)
            }
            Step::Open(verb) => {
                let seen = before.looked.filter(|(looked, _)| *looked == verb).map(|(_, seen)| seen);
                let answer = verb.run(&mut world.rows.clone(), self.flaw, seen)?;
                world.open = Some((verb, seen));
                if self.flaw == Flaw::AnswerBeforeCommit {
                    world.hear(answer);
                }
                Some(world)
            }
            Step::Commit { answered } => {
                let (verb, seen) = world.open.take()?;
                let answer = verb.run(&mut world.rows, self.flaw, seen)?;
                world.broken =
                    before.broken.or_else(|| invariants::broken_by(verb, &before.rows, &world.rows));
                if answered {
                    world.hear(answer);
                }
                if let Verb::Finish { held } | Verb::Goodbye { held } = verb {
                    world.hands[usize::from(held.worker)] = None;
                }
                if seen.is_some() {
                    world.looked = None;
                }
                Some(world)
            }
            Step::Crash => {
                (world.open, world.looked) = (None, None);
                Some(world)
            }
            Step::Death { worker } => {
                world.hands[usize::from(worker)] = None;
                Some(world)
            }
            Step::Tick => {
                world.rows.tick();
                (world != *before).then_some(world)
            }
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        invariants::all()
    }

    fn within_boundary(&self, world: &World) -> bool {
        let epochs =
            world.rows.sessions.iter().filter_map(|s| s.binding).all(|b| b.epoch <= self.bounds.epochs);
        let few = world.rows.jobs.len() <= usize::from(self.bounds.requests) + 1;
        epochs && few && world.rows.jobs.iter().all(|job| job.fencing <= self.bounds.fencing)
    }
}

impl Guard {
    /// What callers, workers and the sweep may try now.
    fn verbs(&self, world: &World) -> Vec<Verb> {
        let mut verbs = Vec::new();
        // Projects are alike, and so are workers: the first one used is the first one's name.
        let projects = if world.rows.mentions_a_project() { PROJECTS } else { 1 };
        for session in 0..SESSIONS {
            for agent in 0..AGENTS {
                verbs.extend((0..projects).map(|project| Verb::Attach { session, agent, project }));
            }
            // Each request is one session's: with as many as sessions, each has one.
            let own = (0..self.bounds.requests).filter(|request| request % SESSIONS == session);
            verbs.extend(own.map(|request| Verb::Submit { session, request }));
            verbs.extend([false, true].map(|force| Verb::Close { session, force }));
        }
        let idle = world.hands.iter().position(Option::is_none);
        for (worker, hand) in world.hands.iter().enumerate() {
            let free = idle == Some(worker);
            let worker = number(worker);
            match hand {
                None if !free => {}
                None => verbs.extend((0..AGENTS).map(|agent| Verb::Claim { worker, agent })),
                Some(held) => verbs.extend([
                    Verb::Renew { held: *held },
                    Verb::Finish { held: *held },
                    Verb::Goodbye { held: *held },
                ]),
            }
        }
        for job in 0..number(world.rows.jobs.len()) {
            verbs.extend([Verb::Cancel { job }, Verb::Sweep { job }]);
        }
        verbs
    }

    fn looks(&self, verb: Verb) -> bool {
        match verb {
            Verb::Attach { .. } => self.flaw == Flaw::CheckThenAct,
            Verb::Submit { .. } => self.flaw == Flaw::StaleBinding,
            _ => false,
        }
    }

    fn look(&self, rows: &Rows, verb: Verb) -> Option<Seen> {
        match verb {
            Verb::Attach { session, agent, project } => {
                (!attach_is_busy(rows, self.flaw, session, (agent, project))).then_some(Seen::Free)
            }
            Verb::Submit { session, .. } => rows.sessions[usize::from(session)].binding.map(Seen::Bound),
            _ => None,
        }
    }
}

impl World {
    fn hear(&mut self, answer: Answer) {
        match answer {
            Answer::Done => {}
            Answer::Submitted { request, job } => {
                let told = &mut self.told[usize::from(request)];
                if told.is_some_and(|first| first != job) {
                    self.broken = self.broken.or(Some(invariants::I7));
                }
                *told = Some(job);
            }
            Answer::Assigned(held) => self.hands[usize::from(held.worker)] = Some(held),
        }
    }
}

impl Rows {
    fn mentions_a_project(&self) -> bool {
        !self.jobs.is_empty() || self.sessions.iter().any(|session| session.binding.is_some())
    }

    /// One step of the clock that leases are judged by.
    pub(crate) fn tick(&mut self) {
        for job in &mut self.jobs {
            if let State::Running { left } = &mut job.state {
                *left = left.saturating_sub(1);
            }
        }
    }
}
