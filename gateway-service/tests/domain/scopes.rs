//! I13: whatever is written, the token's scope, the project that the call names and the project of the resource are one
//! and the same, and the owner may enter it; else nothing is written.

use interlock_gateway::{
    caller::{Caller, Principal, Unscoped},
    client::ClientRole,
    data::Data,
    file::{BeginPut, DeleteFile, FilesOf},
    ids::{FileId, FileName, JobId, ProjectId, SessionId},
    job::{Cancel, Submit},
    message::{Address, Post},
    password::SetSessionPassword,
    session::{CloseSession, GetSession},
    store::Verb,
};
use interlock_kit::error::{Error, Reason};
use proptest::prelude::*;

use crate::{
    histories::{run, text},
    world::{CallerExt as _, Engine, World, admin, attach, cookie, owner, project, request, token},
};

const CASES: u32 = 12;
const STEPS: usize = 60;
const PROJECTS: [&str; 2] = ["p", "q"];
const OWNERS: [&str; 2] = ["ann", "bob"];
/// Each with its owner, its agent, and where it is bound at first.
const SESSIONS: [(&str, &str, Option<&str>); 5] = [
    ("ann", "a", Some("p")),
    ("ann", "a2", Some("q")),
    ("ann", "a3", None),
    ("bob", "b", Some("p")),
    ("bob", "b2", Some("q")),
];

#[derive(Clone, Debug)]
enum Step {
    Write { who: usize, session: usize, what: What, named: Option<usize>, strict: bool },
    Member { owner: usize, project: usize, is: bool },
}

#[derive(Clone, Debug)]
enum What {
    Submit,
    Cancel,
    Attach(usize),
    Post,
    Password,
    Put,
    Delete,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let what = prop_oneof![
        4 => Just(What::Submit),
        2 => Just(What::Cancel),
        4 => (0_usize..2).prop_map(What::Attach),
        2 => Just(What::Post),
        1 => Just(What::Password),
        2 => Just(What::Put),
        1 => Just(What::Delete),
        1 => Just(What::Close),
    ];
    let write = (0_usize..9, 0..SESSIONS.len(), what, prop::option::weighted(0.7, 0_usize..2), any::<bool>())
        .prop_map(|(who, session, what, named, strict)| Step::Write { who, session, what, named, strict });
    let member = (0_usize..2, 0_usize..2, prop::bool::weighted(0.7))
        .prop_map(|(owner, project, is)| Step::Member { owner, project, is });
    prop::collection::vec(prop_oneof![9 => write, 1 => member], 10..STEPS)
}

// I13, SQ-18, SQ-19, SQ-20, SQ-22
#[test]
fn a_write_is_in_the_project_of_its_token_its_name_and_its_resource() {
    let (written, refused) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    run(CASES, &steps(), 1, &async |steps, engine, worlds| {
        let mut stage = Stage::new(engine, &worlds[0]).await;
        for (at, step) in steps.iter().enumerate() {
            stage.step(at, step).await;
        }
        written.set(written.get() + stage.written);
        refused.set(refused.get() + stage.refused);
    });
    println!("{} writes, {} refused for their project", written.get(), refused.get());
    assert!(written.get() > 20 && refused.get() > 20, "a history of one kind shows nothing");
}

struct Stage<'w> {
    world: &'w World,
    engine: Engine,
    sessions: Vec<(SessionId, u64)>,
    jobs: Vec<Option<JobId>>,
    may_enter: [[bool; 2]; 2],
    written: u32,
    refused: u32,
}

impl<'w> Stage<'w> {
    async fn new(engine: Engine, world: &'w World) -> Self {
        let (mut sessions, mut jobs) = (Vec::new(), Vec::new());
        for (name, agent, bound) in SESSIONS {
            let caller = owner(name);
            world.agent(&caller, agent, false).await;
            let session = world.session(&caller).await;
            let number = world.number() - 1;
            let mut job = None;
            if let Some(bound) = bound {
                world.attach(&caller, &session, (agent, bound)).await;
                job = Some(world.submit(&caller, &session).await.id);
            }
            sessions.push((session, number));
            jobs.push(job);
        }
        Self { world, engine, sessions, jobs, may_enter: [[true; 2]; 2], written: 0, refused: 0 }
    }

    async fn step(&mut self, at: usize, step: &Step) {
        match step {
            Step::Member { owner, project, is } => {
                self.may_enter[*owner][*project] = *is;
                match is {
                    true => self.world.members.add(OWNERS[*owner], PROJECTS[*project]),
                    false => self.world.members.remove(OWNERS[*owner], PROJECTS[*project]),
                }
            }
            Step::Write { who, session, what, named, strict } => {
                let unscoped = if *strict { Unscoped::Deny } else { Unscoped::Warn { sunset: None } };
                let caller = Caller { unscoped, ..self.caller(*who) };
                let caller = match named {
                    Some(named) => caller.naming(PROJECTS[*named]),
                    None => caller,
                };
                self.write(at, &caller, *session, what).await;
            }
        }
    }

    fn caller(&self, who: usize) -> Caller {
        match who {
            0 => owner("ann"),
            1 => owner("bob"),
            2 => token("ann", "p"),
            3 => token("ann", "q"),
            4 => token("bob", "p"),
            5 => token("bob", "q"),
            6 => admin(),
            n => cookie(&self.sessions[n - 7].0, self.sessions[n - 7].1),
        }
    }

    /// Where a session is bound now, as who may see all of it is told.
    async fn place(&self, session: &SessionId) -> Option<ProjectId> {
        let seen = self.world.see(&admin(), session).await;
        seen.session.binding.map(|binding| binding.project)
    }

    async fn write(&mut self, at: usize, caller: &Caller, index: usize, what: &What) {
        let session = self.sessions[index].0.clone();
        let Ok(_) = self.world.ask(&admin(), GetSession { session: session.clone() }).await else {
            return; // Closed, and gone.
        };
        let place = self.place(&session).await;
        let name = || FileName::parse("out").unwrap();
        let of = || FilesOf::Session(session.clone());
        match what {
            What::Submit => {
                let id = JobId::parse(format!("job_9{at:05}")).unwrap();
                let submit = Submit {
                    id: id.clone(),
                    session: session.clone(),
                    request: request(&format!("step {at}")),
                    payload: vec![1],
                };
                if self.judge(caller, index, &[place], submit).await {
                    self.jobs[index] = Some(id);
                }
            }
            What::Cancel => {
                let Some(job) = self.jobs[index].clone() else { return };
                // A job is where it was submitted, which is where its session is while it is in flight.
                let place = match self
                    .world
                    .ask(&admin(), interlock_gateway::job::JobState { job: job.clone() })
                    .await
                {
                    Ok(job) => Some(job.binding.project),
                    Err(_) => return,
                };
                self.judge(caller, index, &[place], Cancel { job }).await;
            }
            What::Attach(to) => {
                let target = PROJECTS[*to];
                let verb = attach(&session, (SESSIONS[index].1, target));
                self.judge(caller, index, &[place, Some(project(target))], verb).await;
            }
            What::Post => {
                let (request, data) = (request(&format!("post {at}")), Data::from(vec![1]));
                let post = Post { session: session.clone(), request, to: Address::All, data };
                self.judge(caller, index, &[place], post).await;
            }
            What::Password => {
                let hash = "$argon2id$one".to_owned();
                let joiners = ClientRole::Operator;
                let set = SetSessionPassword { session: session.clone(), hash, joiners, evict_others: false };
                self.judge(caller, index, &[place], set).await;
            }
            What::Put => {
                let id = FileId::parse(format!("fil_{at:06}")).unwrap();
                self.judge(caller, index, &[place], BeginPut { of: of(), id, name: name(), size: Some(1) })
                    .await;
            }
            What::Delete => {
                self.judge(caller, index, &[place], DeleteFile { of: of(), name: name() }).await;
            }
            What::Close => {
                let close = CloseSession { session: session.clone(), force: false };
                self.judge(caller, index, &[place], close).await;
            }
        }
    }

    /// What the rule says of a write that concerns these places; the last one is what a call is to name.
    fn disagrees(&self, caller: &Caller, index: usize, places: &[Option<ProjectId>]) -> bool {
        let bound = || places.iter().flatten();
        let by_token = match &caller.principal {
            Principal::Project(token) => bound().any(|place| *place != token.project),
            _ => false,
        };
        let target = places.last().expect("one at least").as_ref();
        let by_name = caller.named.as_ref().zip(target).is_some_and(|(named, target)| named != target);
        let owner = usize::from(SESSIONS[index].0 == "bob");
        let entered = |place: &ProjectId| self.may_enter[owner][usize::from(place.as_str() == "q")];
        let by_owner = match caller.principal {
            Principal::Owner(_) => bound().any(|place| !entered(place)),
            // Clients enter the project of their session, and another one with its owner.
            Principal::Client => bound().any(|place| places[0].as_ref() != Some(place) && !entered(place)),
            // Administrators enter every project.
            _ => false,
        };
        by_token || by_name || by_owner
    }

    async fn judge<V: Verb>(
        &mut self,
        caller: &Caller,
        index: usize,
        places: &[Option<ProjectId>],
        verb: V,
    ) -> bool
    where
        V::Out: std::fmt::Debug,
    {
        // To look at all rows of a database takes long: what they are told of is enough there.
        let looks = self.engine == Engine::Missing;
        let audit = || if looks { self.world.audit().unwrap() } else { Vec::new() };
        let before = looks.then(|| self.world.rows());
        let rows = audit().len();
        let answer = self.world.run(caller, verb).await;
        let told = audit().split_off(rows);
        let disagrees = self.disagrees(caller, index, places);
        match &answer {
            Ok(_) => {
                assert!(!disagrees, "I13: {caller:?} wrote in {places:?}");
                self.written += 1;
                for row in told.iter().filter(|row| !row.scope.is_empty()) {
                    let place = places.last().expect("one at least").as_ref();
                    assert_eq!(
                        Some(row.scope.as_str()),
                        place.map(ProjectId::as_str),
                        "I13: the row is of it, too"
                    );
                }
            }
            Err(refused) => {
                let whole = text::<()>(&Err(Error::new(refused.reason(), refused.to_string())));
                if refused.reason() == Reason::ProjectMismatch {
                    assert!(disagrees, "refused for a project that fits: {whole} {caller:?} {places:?}");
                    self.refused += 1;
                }
                if let Some(before) = before {
                    assert_eq!(self.world.rows(), before, "I12: {whole}");
                }
            }
        }
        answer.is_ok()
    }
}
