//! I14: what one owner is told does not depend on another owner's data. Each history is run in two worlds in which ann
//! does different things between bob's calls, in the same projects; bob's answers are the same, to the byte.
//!
//! Left out is what owners share on purpose: shared agents, whose counts and whose being busy everybody sees (DESIGN
//! 14), and the names of agents, of which each can be given once.

use std::time::Duration;

use interlock_gateway::{
    agent::{GetAgent, ListAgents, RemoveAgent},
    caller::Caller,
    client::{Ack, ClientRole, ListClients},
    data::Data,
    event::{From, ReadEvents},
    file::{BeginPut, DeleteFile, FilesOf, ListFiles, OpenFile},
    ids::{ClientId, FileId, FileName, JobId, OwnerId, SessionId, SessionName},
    job::{Cancel, GetJob, JobState, ListJobs, Outcome, Submit},
    lease::Held,
    message::{Address, Post},
    password::SetSessionPassword,
    session::{CloseSession, CreateSession, GetSession, ListSessions},
};
use proptest::prelude::*;

use crate::{
    histories::{run, text},
    world::{
        CallerExt as _, World, agent, attach, claim, cookie, finish, hash, owner, request, session_id, token,
    },
};

const CASES: u32 = 12;
const STEPS: usize = 30;
const PROJECTS: [&str; 2] = ["p", "q"];

/// What an owner does, with things of its own; numbers choose which.
#[derive(Clone, Debug)]
enum Act {
    Create {
        named: bool,
    },
    Agent {
        agent: usize,
    },
    Attach {
        session: usize,
        agent: usize,
        project: usize,
    },
    Submit {
        session: usize,
    },
    Cancel {
        job: usize,
    },
    Claim {
        agent: usize,
    },
    Finish {
        held: usize,
    },
    Post {
        session: usize,
    },
    Password {
        session: usize,
    },
    Put {
        session: usize,
    },
    Close {
        session: usize,
        force: bool,
    },
    Look {
        session: usize,
        job: usize,
    },
    Lists,
    Pass {
        seconds: u64,
    },
    /// Asks after something of the other owner's, that may be there or not.
    Pry {
        session: u64,
        job: u64,
    },
}

fn writes() -> impl Strategy<Value = Act> {
    let place = 0_usize..100;
    prop_oneof![
        3 => any::<bool>().prop_map(|named| Act::Create { named }),
        2 => place.clone().prop_map(|agent| Act::Agent { agent }),
        4 => (place.clone(), place.clone(), 0_usize..2)
            .prop_map(|(session, agent, project)| Act::Attach { session, agent, project }),
        5 => place.clone().prop_map(|session| Act::Submit { session }),
        1 => place.clone().prop_map(|job| Act::Cancel { job }),
        3 => place.clone().prop_map(|agent| Act::Claim { agent }),
        2 => place.clone().prop_map(|held| Act::Finish { held }),
        2 => place.clone().prop_map(|session| Act::Post { session }),
        1 => place.clone().prop_map(|session| Act::Password { session }),
        2 => place.clone().prop_map(|session| Act::Put { session }),
        1 => (place.clone(), any::<bool>()).prop_map(|(session, force)| Act::Close { session, force }),
    ]
}

fn acts() -> impl Strategy<Value = Act> {
    let place = 0_usize..100;
    prop_oneof![
        26 => writes(),
        4 => (place.clone(), place.clone()).prop_map(|(session, job)| Act::Look { session, job }),
        4 => Just(Act::Lists),
        1 => prop_oneof![Just(1_u64), Just(11), Just(90_000)].prop_map(|seconds| Act::Pass { seconds }),
        4 => (0_u64..12, 0_u64..12).prop_map(|(session, job)| Act::Pry { session, job }),
    ]
}

/// One of bob's, and what ann does before it in either world.
type Step = (Act, Vec<Act>, Vec<Act>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let anns = || prop::collection::vec(writes(), 0..4);
    prop::collection::vec((acts(), anns(), anns()), 10..STEPS)
}

// I14, UA-03, UA-10
#[test]
fn what_one_owner_is_told_does_not_depend_on_another_owners_data() {
    let answers = std::cell::Cell::new(0);
    run(CASES, &steps(), 2, &async |steps, engine, worlds| {
        let mut bobs = [Life::new(&worlds[0], "bob", 500_000), Life::new(&worlds[1], "bob", 500_000)];
        let mut anns = [Life::new(&worlds[0], "ann", 1), Life::new(&worlds[1], "ann", 1)];
        for (at, (act, one, other)) in steps.iter().enumerate() {
            for (ann, acts) in anns.iter_mut().zip([one, other]) {
                for act in acts {
                    ann.act(act).await;
                }
            }
            let [one, other] = &mut bobs;
            let (one, other) = (one.act(act).await, other.act(act).await);
            assert_eq!(one, other, "I14 on {engine:?} at {at}: {act:?}");
            answers.set(answers.get() + one.len());
        }
    });
    println!("{} answers, the same in both worlds", answers.get());
}

/// One owner in one world, who counts what it makes by itself.
struct Life<'w> {
    world: &'w World,
    name: &'static str,
    caller: Caller,
    /// Ids begin here.
    first: u64,
    made: u64,
    sessions: Vec<(SessionId, u64)>,
    jobs: Vec<JobId>,
    held: Vec<Held>,
}

impl<'w> Life<'w> {
    fn new(world: &'w World, name: &'static str, first: u64) -> Self {
        let caller = owner(name);
        Self { world, name, caller, first, made: 0, sessions: vec![], jobs: vec![], held: vec![] }
    }

    fn next(&mut self) -> u64 {
        self.made += 1;
        self.first + self.made
    }

    fn session(&self, at: usize) -> SessionId {
        match self.sessions.len() {
            0 => session_id(self.first),
            n => self.sessions[at % n].0.clone(),
        }
    }

    fn job(&self, at: usize) -> JobId {
        match self.jobs.len() {
            0 => job_id(self.first),
            n => self.jobs[at % n].clone(),
        }
    }

    fn agent(&self, at: usize) -> String {
        format!("{}{}", self.name, at % 2)
    }

    /// Every answer, whole.
    async fn act(&mut self, act: &Act) -> Vec<String> {
        let (world, caller) = (self.world, self.caller.clone());
        let one = match act {
            Act::Create { named } => self.create(*named).await,
            Act::Agent { agent: at } => {
                let (agent, description) = (agent(&self.agent(*at)), Some(format!("the {at}th")));
                let set = interlock_gateway::agent::SetAgent { agent, shared: None, description };
                text(&world.run(&caller, set).await)
            }
            Act::Attach { session, agent, project } => {
                let to = (self.agent(*agent), PROJECTS[*project]);
                text(&world.run(&caller, attach(&self.session(*session), (&to.0, to.1))).await)
            }
            Act::Submit { session } => self.submit(*session).await,
            Act::Cancel { job } => text(&world.run(&caller, Cancel { job: self.job(*job) }).await),
            Act::Claim { agent } => {
                let claimed = world.run(&caller, claim(&self.agent(*agent), 1)).await;
                let held =
                    claimed.iter().flat_map(|claimed| &claimed.jobs).map(|assigned| assigned.held.clone());
                self.held.extend(held);
                text(&claimed)
            }
            Act::Finish { held } => {
                let Some(held) = self.held.get(held % self.held.len().max(1)) else { return vec![] };
                text(&world.run(&caller, finish(held, Outcome::Succeeded)).await)
            }
            Act::Post { session } => {
                let (session, number) = (self.session(*session), self.next());
                let (request, data) = (request(&format!("post {number}")), Data::from(vec![1; 3]));
                text(&world.run(&caller, Post { session, request, to: Address::All, data }).await)
            }
            Act::Password { session } => {
                let (session, hash) = (self.session(*session), "$argon2id$one".to_owned());
                let joiners = ClientRole::Observer;
                text(
                    &world
                        .run(&caller, SetSessionPassword { session, hash, joiners, evict_others: true })
                        .await,
                )
            }
            Act::Put { session } => {
                let (of, number) = (FilesOf::Session(self.session(*session)), self.next());
                let id = FileId::parse(format!("fil_{number:06}")).unwrap();
                text(&world.run(&caller, BeginPut { of, id, name: file(), size: Some(1_000) }).await)
            }
            Act::Close { session, force } => {
                let close = CloseSession { session: self.session(*session), force: *force };
                text(&world.run(&caller, close).await)
            }
            Act::Look { session, job } => return self.look(*session, *job).await,
            Act::Lists => return self.lists().await,
            Act::Pass { seconds } => {
                world.advance(Duration::from_secs(*seconds));
                world.sweep().await;
                return vec![];
            }
            Act::Pry { session, job } => return self.pry(*session, *job).await,
        };
        vec![one]
    }

    async fn create(&mut self, named: bool) -> String {
        let number = self.next();
        let verb = CreateSession {
            id: session_id(number),
            client: ClientId::parse(format!("clt_{number:06}")).unwrap(),
            cookie: hash(number),
            sealed: vec![1],
            name: named.then(|| SessionName::parse("main").unwrap()),
            request: request(&format!("create {number}")),
            owner: None,
        };
        let made = self.world.run(&self.caller, verb).await;
        if made.is_ok() {
            self.sessions.push((session_id(number), number));
        }
        text(&made)
    }

    async fn submit(&mut self, session: usize) -> String {
        let number = self.next();
        let submit = Submit {
            id: job_id(number),
            session: self.session(session),
            // The same names as the other owner's.
            request: request(&format!("submit {}", self.made)),
            payload: vec![2; 10],
        };
        let job = self.world.run(&self.caller, submit).await;
        if job.is_ok() {
            self.jobs.push(job_id(number));
        }
        text(&job)
    }

    async fn look(&self, session: usize, job: usize) -> Vec<String> {
        let (world, caller, job) = (self.world, &self.caller, self.job(job));
        let session = self.session(session);
        let events = ReadEvents { session: session.clone(), from: From::After(0), limit: 100 };
        let mut said = vec![
            text(&world.ask(caller, GetSession { session: session.clone() }).await),
            text(&world.ask(caller, events.clone()).await),
            text(&world.ask(caller, ListClients { session: session.clone() }).await),
            text(&world.ask(caller, GetJob { job: job.clone() }).await),
            text(&world.ask(caller, JobState { job }).await),
        ];
        if let Some((_, number)) = self.sessions.iter().find(|(id, _)| *id == session) {
            let host = cookie(&session, *number);
            said.push(text(&world.ask(&host, events).await));
            said.push(text(&world.run(&host, Ack { session, sequence: 1 }).await));
        }
        said
    }

    async fn lists(&self) -> Vec<String> {
        let world = self.world;
        let mut said = Vec::new();
        for caller in [self.caller.clone(), token(self.name, "p").naming("p")] {
            let sessions = ListSessions { page_size: 3, page_token: String::new(), owner: None };
            said.push(text(&world.ask(&caller, sessions).await));
            let agents = ListAgents { page_size: 3, page_token: String::new() };
            said.push(text(&world.ask(&caller, agents).await));
            for (session, _) in &self.sessions {
                let (session, page_token) = (session.clone(), String::new());
                let of = FilesOf::Session(session.clone());
                let jobs =
                    ListJobs { session, in_flight: false, page_size: 4, page_token: page_token.clone() };
                said.push(text(&world.ask(&caller, jobs).await));
                said.push(text(&world.ask(&caller, ListFiles { of, page_size: 4, page_token }).await));
            }
        }
        said
    }

    /// Whether it is there, was there or never was: one answer.
    async fn pry(&self, session: u64, job: u64) -> Vec<String> {
        let (world, caller) = (self.world, &self.caller);
        let (session, job) = (session_id(session + 1), job_id(job + 1));
        let of = || FilesOf::Session(session.clone());
        let submit = Submit {
            id: job_id(499_999),
            session: session.clone(),
            request: request("pry"),
            payload: vec![],
        };
        let jobs =
            ListJobs { session: session.clone(), in_flight: false, page_size: 1, page_token: String::new() };
        let theirs = ListSessions {
            page_size: 1,
            page_token: String::new(),
            owner: Some(OwnerId::parse("ann").unwrap()),
        };
        vec![
            text(&world.ask(caller, GetSession { session: session.clone() }).await),
            text(&world.ask(caller, jobs).await),
            text(&world.ask(caller, theirs).await),
            text(&world.ask(caller, OpenFile { of: of(), name: file() }).await),
            text(&world.ask(caller, GetJob { job: job.clone() }).await),
            text(&world.ask(caller, GetAgent { agent: agent("ann0") }).await),
            text(&world.run(caller, RemoveAgent { agent: agent("ann1") }).await),
            text(&world.run(caller, Cancel { job }).await),
            text(&world.run(caller, submit).await),
            text(&world.run(caller, attach(&session, ("bob0", "p"))).await),
            text(&world.run(caller, DeleteFile { of: of(), name: file() }).await),
            text(&world.run(caller, CloseSession { session: session.clone(), force: true }).await),
            text(&world.run(caller, claim("ann0", 1)).await),
        ]
    }
}

fn job_id(number: u64) -> JobId {
    JobId::parse(format!("job_{number:06}")).unwrap()
}

fn file() -> FileName {
    FileName::parse("out/a").unwrap()
}
