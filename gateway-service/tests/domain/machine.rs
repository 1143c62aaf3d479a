//! Random verbs on SQLite in memory, on SQLite whose look-ups miss, on the plain model, and, for the first seeds, on
//! PostgreSQL: each answer the same (I18), and the invariants after each step. A failing seed is printed; run it again
//! with `INTERLOCK_SEED=<seed>`, which takes all engines. With `INTERLOCK_LONG` every seed does.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use interlock_gateway::{
    caller::Caller,
    client::Ack,
    event::{From, ReadEvents},
    file::{self, FilesOf, Forget},
    ids::{ClientId, FileId, JobId, OwnerId, SessionId},
    job::{Cancel, EndedBy, JobState, ListJobs, Outcome, Phase, Submit},
    lease::{Finish, Held, Progress, Release, Renew, Resume},
    limits::Limits,
    session::{self, CloseSession, CreateSession, GetSession},
    store::{Model, Query, Verb},
    sweep::{Due, DueLogs, Duty, Sweep},
};
use interlock_kit::error::{Error, Reason};

use crate::{
    batches::books_agree,
    cluster::Cluster,
    world::{
        CallerExt as _, Database, Engine, World, admin, attach, claim, cookie, hash, owner, request, token,
    },
};

mod ends;
mod files;
mod invariants;
mod load;

use invariants::{
    agents_outlive_their_jobs, bindings_hold, ends_are_final, ends_once, jobs_are_their_sessions,
    one_project_per_agent, states,
};
use load::{Dice, PrintedSeed, Told};

const SEEDS: u64 = 24;
const STEPS: usize = 200;
/// On PostgreSQL a step takes some ten times as long.
const SEEDS_ON_POSTGRES: u64 = 4;

// I1, I2, I3, I4, I5, I7, I11, I12, I18
#[tokio::test]
async fn random_verbs_keep_the_invariants_on_every_engine() {
    let chosen = std::env::var("INTERLOCK_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = chosen.map_or(1..=SEEDS, |seed: u64| seed..=seed);
    let all = chosen.is_some() || std::env::var_os("INTERLOCK_LONG").is_some();
    let cluster = Arc::new(Cluster::start());
    let mut told = Told::default();
    for seed in seeds {
        let guard = PrintedSeed(seed);
        let database = || Database::new(&cluster, &format!("seed_{seed}"));
        let mut machine = Machine::new(seed, (all || seed <= SEEDS_ON_POSTGRES).then_some(database)).await;
        for _ in 0..STEPS {
            machine.step().await;
        }
        machine.wind_down().await;
        told.add(&machine.told);
        std::mem::forget(guard);
    }
    println!("{SEEDS} seeds of {STEPS} steps: {told:?}");
    // A load that is all of one kind finds nothing.
    if chosen.is_none() {
        assert!(told.attached * 5 >= told.attaches && told.busy * 5 >= told.attaches, "{told:?}");
        assert!(told.finished > 50 && told.lost > 50 && told.repeated > 50, "{told:?}");
        assert!(told.ended > 10 && told.adopted > 5 && told.removed > 10, "{told:?}");
        assert!(told.stored > 50 && told.replaced > 10 && told.deleted > 10, "{told:?}");
    }
}

struct Machine {
    /// The third is the plain model.
    worlds: Vec<World>,
    dice: Dice,
    /// Those that are not closed, with the number of their cookie and their owner.
    sessions: Vec<(SessionId, u64, &'static str)>,
    jobs: Vec<JobId>,
    /// With the owner that its worker acts as.
    held: Vec<(Held, OwnerId)>,
    /// The first job of each request id, and when its answer ends.
    first: BTreeMap<(SessionId, usize), (JobId, usize, i64)>,
    model: Model,
    told: Told,
    /// Files that are coming, each with where it was begun and its session.
    coming: Vec<(FilesOf, SessionId, FileId)>,
    /// Where the last look at logs ended.
    logs_after: Option<SessionId>,
    /// Agents that went.
    removed: Vec<&'static str>,
}

const OWNERS: [&str; 2] = ["ann", "bob"];
const AGENTS: [&str; 3] = ["a", "b", "s"];
const PROJECTS: [&str; 2] = ["p", "q"];

impl Machine {
    async fn new(seed: u64, database: Option<impl FnOnce() -> Database>) -> Self {
        let mut worlds: Vec<World> = [Engine::Inline, Engine::Missing, Engine::Model].map(World::new).into();
        worlds.extend(database.map(|made| World::with_database(Engine::Postgres, Limits::default(), made)));
        for world in &worlds {
            world.agent(&owner("ann"), "a", false).await;
            world.agent(&owner("ann"), "b", false).await;
            world.agent(&admin(), "s", true).await;
        }
        let mut machine = Self {
            worlds,
            dice: Dice(seed),
            sessions: Vec::new(),
            jobs: Vec::new(),
            held: Vec::new(),
            first: BTreeMap::new(),
            model: Model::default(),
            told: Told::default(),
            coming: Vec::new(),
            logs_after: None,
            removed: Vec::new(),
        };
        for _ in 0..3 {
            machine.create().await;
        }
        machine
    }

    async fn step(&mut self) {
        match self.dice.below(30) {
            0..=3 => self.attach().await,
            4..=7 => self.submit().await,
            8 => {
                let (caller, job) = (self.caller(), self.job());
                drop(self.all(&caller, Cancel { job }).await);
            }
            9..=10 => self.claim().await,
            11..=12 | 29 => self.finish().await,
            13 => self.progress().await,
            14 => self.leases().await,
            15 => self.close().await,
            16 => self.read().await,
            20..=23 => self.put().await,
            24..=25 => self.files().await,
            26 => self.end().await,
            27 => self.adopt().await,
            28 => self.agents().await,
            17..=18 => {
                let by = Duration::from_secs(*self.dice.one(&[1, 3, 7, 11]));
                self.worlds.iter().for_each(|world| world.advance(by));
            }
            _ => self.sweep().await,
        }
    }

    /// Mostly the session's owner, sometimes anyone.
    fn caller_of(&mut self, session: &SessionId) -> Caller {
        let mine = self.sessions.iter().find(|(id, ..)| id == session).map(|(_, _, owner)| *owner);
        match mine {
            Some(mine) if self.dice.below(5) > 0 => owner(mine),
            Some(_) | None => self.caller(),
        }
    }

    fn caller(&mut self) -> Caller {
        let session = self.dice.below(self.sessions.len().max(1));
        match (self.dice.below(8), self.sessions.get(session)) {
            (0, Some((session, number, _))) => cookie(session, *number),
            (1, _) => admin(),
            (2, _) => token(OWNERS[self.dice.below(2)], PROJECTS[self.dice.below(2)]),
            (3, _) => owner("ann").naming(PROJECTS[self.dice.below(2)]),
            (4, _) => owner("bob"),
            _ => owner("ann"),
        }
    }

    fn session(&mut self) -> SessionId {
        self.dice.one(&self.sessions).0.clone()
    }

    fn job(&mut self) -> JobId {
        if self.jobs.is_empty() { JobId::parse("job_0").unwrap() } else { self.dice.one(&self.jobs).clone() }
    }

    async fn create(&mut self) {
        let number = self.worlds[0].number();
        let verb = CreateSession {
            id: crate::world::session_id(number),
            client: ClientId::parse(format!("clt_{number:06}")).unwrap(),
            cookie: hash(number),
            sealed: vec![2],
            name: None,
            request: request(&number.to_string()),
            owner: None,
        };
        let name = if self.dice.below(3) == 0 { "bob" } else { "ann" };
        let made = self.all(&owner(name), verb).await.unwrap();
        self.sessions.push((made.seen.session.id, number, name));
    }

    async fn attach(&mut self) {
        let to = (AGENTS[self.dice.below(3)], PROJECTS[self.dice.below(2)]);
        let session = self.session();
        let caller = self.caller_of(&session);
        let answer = self.all(&caller, attach(&session, to)).await;
        let decided =
            answer.is_ok() || matches!(&answer, Err(error) if error.reason() == Reason::SessionBusy);
        self.told.attaches += u32::from(decided);
        self.told.attached += u32::from(answer.is_ok_and(|attached| attached.changed));
    }

    async fn submit(&mut self) {
        let session = self.session();
        let caller = self.caller_of(&session);
        let (key, payload) = (self.dice.below(6), self.dice.below(8) / 7);
        let id = JobId::parse(format!("job_{:06}", self.worlds[0].number())).unwrap();
        let verb = Submit {
            id: id.clone(),
            session: session.clone(),
            request: request(&format!("r{key}")),
            payload: vec![u8::try_from(payload).unwrap()],
        };
        let now = self.worlds[0].clock.now().as_micros();
        let earlier = self.first.get(&(session.clone(), key)).filter(|(_, _, until)| now < *until).cloned();
        match self.all(&caller, verb).await {
            Ok(job) => {
                // I7: a request id has one job.
                match earlier {
                    Some((first, asked, _)) => {
                        assert_eq!((&job.id, payload), (&first, asked), "one effect for one request id");
                        self.told.repeated += 1;
                    }
                    None => {
                        assert_eq!(job.id, id);
                        let until = now + 24 * 3600 * 1_000_000;
                        self.first.insert((session, key), (id.clone(), payload, until));
                        self.jobs.push(id);
                    }
                }
            }
            Err(error) if error.reason() == Reason::RequestIdReused => {
                assert_ne!(earlier.expect("it was used").1, payload);
            }
            Err(_) => {}
        }
    }

    async fn claim(&mut self) {
        let agent = AGENTS[self.dice.below(3)];
        let caller = match self.dice.below(4) {
            0 => self.caller(),
            1 => owner("ann"),
            _ => admin(),
        };
        let up_to = u32::try_from(1 + self.dice.below(2)).unwrap();
        if let Ok(claimed) = self.all(&caller, claim(agent, up_to)).await {
            let holder = caller.owner().expect("a client claims nothing");
            self.held.extend(claimed.jobs.into_iter().map(|assigned| (assigned.held, holder.clone())));
        }
    }

    /// A held job, often one that was lost long ago.
    fn holding(&mut self) -> (Held, Caller) {
        if self.held.is_empty() {
            return (Held { job: self.job(), fencing: 1 }, admin());
        }
        let at = self.held.len() - 1 - self.dice.below(self.held.len().min(4));
        let (held, holder) = self.held[at].clone();
        let caller = match self.dice.below(6) {
            0 => self.caller(),
            _ if holder.as_str() == "admin" => admin(),
            _ => owner(holder.as_str()),
        };
        (held, caller)
    }

    async fn finish(&mut self) {
        let (held, caller) = self.holding();
        let outcome =
            *self.dice.one(&[Outcome::Succeeded, Outcome::Succeeded, Outcome::Failed, Outcome::Cancelled]);
        let before = self.model.clone();
        let verb = Finish { held: held.clone(), outcome, result: vec![3], cause: String::new() };
        match self.all(&caller, verb).await {
            Ok(_) => {
                self.told.finished += 1;
                self.admitted(&before, &caller, &held);
            }
            Err(error) => self.told.lost += u32::from(error.reason() == Reason::LeaseLost),
        }
    }

    async fn progress(&mut self) {
        let (held, caller) = self.holding();
        let number = u64::try_from(1 + self.dice.below(3)).unwrap();
        let before = self.model.clone();
        let answer = self.all(&caller, Progress { held: held.clone(), number, data: vec![9; 3] }).await;
        if answer.is_ok() {
            self.admitted(&before, &caller, &held);
        }
        self.told.lost += u32::from(answer.is_err_and(|error| error.reason() == Reason::LeaseLost));
    }

    async fn leases(&mut self) {
        let (first, caller) = self.holding();
        let held = vec![first, self.holding().0];
        let before = self.model.clone();
        let kept = match self.dice.below(3) {
            0 => self.all(&caller, Renew { held }).await.map(|answer| answer.kept),
            1 => self.all(&caller, Resume { held }).await.map(|answer| answer.kept),
            _ => return drop(self.all(&caller, Release { held }).await),
        };
        for renewed in kept.into_iter().flatten() {
            self.admitted(&before, &caller, &renewed.held);
        }
    }

    // I5: what a worker was let do, it was let do on the newest lease, its own, while that lived; or it
    // has ended the job with it before.
    fn admitted(&self, before: &Model, caller: &Caller, held: &Held) {
        let job = &before.jobs[&held.job];
        assert_eq!(
            (job.fencing, job.holder.clone()),
            (held.fencing, caller.owner()),
            "I5: a stale token got through"
        );
        match &job.phase {
            Phase::Queued => panic!("I5: a job that nobody holds was written to"),
            Phase::Running(lease) => {
                assert!(lease.until > self.worlds[2].clock.now(), "I5: the lease was over");
            }
            Phase::Ended(end) => assert_eq!(end.by, EndedBy::Worker, "I5: a taken lease got through"),
        }
    }

    async fn close(&mut self) {
        let (caller, session) = (self.caller(), self.session());
        let force = self.dice.below(2) == 0;
        if self.all(&caller, CloseSession { session: session.clone(), force }).await.is_ok() {
            self.sessions.retain(|(id, ..)| *id != session);
            self.create().await;
        }
    }

    async fn read(&mut self) {
        let (caller, session, job) = (self.caller(), self.session(), self.job());
        drop(self.see(&caller, GetSession { session: session.clone() }).await);
        drop(self.see(&caller, JobState { job }).await);
        let list =
            ListJobs { session: session.clone(), in_flight: true, page_size: 3, page_token: String::new() };
        drop(self.see(&caller, list).await);
        drop(
            self.see(&caller, ReadEvents { session: session.clone(), from: From::After(3), limit: 5 }).await,
        );
        drop(self.all(&caller, Ack { session, sequence: 2 }).await);
    }

    async fn sweep(&mut self) {
        let mut due = self.see(&Caller::gateway(), Due).await.unwrap();
        let after = self.logs_after.take();
        let logs = self.see(&Caller::gateway(), DueLogs { after }).await.unwrap();
        due.extend(logs.due.into_iter().map(Duty::Log));
        self.logs_after = logs.next;
        for duty in due {
            let file = match &duty {
                Duty::File(session, id) => Some(Forget { session: session.clone(), id: id.clone() }),
                _ => None,
            };
            drop(self.all(&Caller::gateway(), Sweep(duty)).await);
            // Its contents are gone at once here.
            if let Some(forget) = file {
                drop(self.all(&Caller::gateway(), forget).await);
            }
        }
    }

    /// The same verb everywhere: the same answer, and the invariants after it.
    async fn all<V: Verb + Clone + Debug>(&mut self, caller: &Caller, verb: V) -> Result<V::Out, Error>
    where
        V::Out: Debug,
    {
        let (mut said, mut last) = (Vec::new(), None);
        let audit = self.worlds[2].audit().unwrap().len();
        for world in &self.worlds {
            let answer = world.run(caller, verb.clone()).await;
            said.push(text(&answer));
            last = Some(answer);
        }
        assert!(said.iter().all(|answer| *answer == said[2]), "I18: {verb:?}: {said:#?}");
        let answer = last.expect("several engines");
        self.check(caller, &answer, audit, &format!("{verb:?}"));
        answer
    }

    async fn see<Q: Query + Clone + Debug>(&mut self, caller: &Caller, query: Q) -> Result<Q::Out, Error>
    where
        Q::Out: Debug,
    {
        let (mut said, mut last) = (Vec::new(), None);
        let audit = self.worlds[2].audit().unwrap().len();
        for world in &self.worlds {
            let answer = world.ask(caller, query.clone()).await;
            said.push(text(&answer));
            last = Some(answer);
        }
        assert!(said.iter().all(|answer| *answer == said[2]), "I18: {query:?}: {said:#?}");
        let answer = last.expect("several engines");
        self.check(caller, &answer, audit, &format!("{query:?}"));
        answer
    }

    fn check<T>(&mut self, caller: &Caller, answer: &Result<T, Error>, audit: usize, what: &str) {
        let faults: Vec<String> =
            self.worlds.iter().flat_map(|world| world.heard.faults.lock().clone()).collect();
        assert_eq!(faults, Vec::<String>::new(), "after {what}");
        let before = std::mem::replace(&mut self.model, self.worlds[2].model());
        let after = &self.model;
        let rows = self.worlds[2].audit().unwrap().len() - audit;
        if let Err(error) = answer {
            self.told.refused += 1;
            self.told.busy += u32::from(error.reason() == Reason::SessionBusy && what.starts_with("Attach"));
            assert_eq!(format!("{before:?}"), format!("{after:?}"), "I12: {what}");
            let nobody = error.reason() == Reason::ProviderAuthFailed && caller.owner().is_none();
            assert_eq!(rows, usize::from(!nobody), "I11: {what}");
        } else if states(&before) != states(after) {
            assert!(rows > 0, "I11: {what}");
        }
        one_project_per_agent(after);
        agents_outlive_their_jobs(after);
        bindings_hold(&before, after);
        jobs_are_their_sessions(after);
        ends_are_final(&before, after);
    }

    /// All in flight ends by time alone; then everything can be attached, and all engines hold the same.
    async fn wind_down(&mut self) {
        self.register().await;
        for _ in 0..10 {
            self.worlds.iter().for_each(|world| world.advance(Duration::from_secs(9 * 3600)));
            self.sweep().await;
        }
        assert!(self.model.jobs.values().all(|job| !job.is_in_flight()), "nothing is busy for ever");
        assert!(
            self.model.files.values().all(|file| file.phase == file::Phase::Kept),
            "nothing comes or goes for ever"
        );
        let open: Vec<_> =
            self.model.sessions.values().filter(|s| s.phase == session::Phase::Open).cloned().collect();
        for session in open {
            let caller = owner(session.owner.as_str());
            self.all(&caller, attach(&session.id, ("s", "q"))).await.expect("I4: idle, so it attaches");
            let read = ReadEvents { session: session.id, from: From::After(0), limit: 256 };
            ends_once(&self.see(&caller, read).await.unwrap().entries);
        }
        let said = |world: &World| format!("{:#?}", world.audit().unwrap());
        let key = interlock_kit::store::audit::ChainKey::new(crate::world::KEY);
        assert_eq!(said(&self.worlds[1]), said(&self.worlds[2]), "I18: the same audit");
        let damage =
            interlock_kit::store::sqlite::verify(&self.worlds[1].connection().unwrap(), &key).unwrap();
        assert_eq!(damage, []);
        let Some(world) = self.worlds.get(3) else { return };
        assert_eq!(said(world), said(&self.worlds[2]), "I18: the same audit");
        let database = world.database().unwrap();
        assert_eq!(interlock_kit::store::postgres::verify(&database.target, &key).unwrap(), []);
        books_agree(database);
        world.shell.close().await;
        database.cluster.sql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", database.name));
    }
}

fn text<T: Debug>(answer: &Result<T, Error>) -> String {
    match answer {
        Ok(out) => format!("{out:?}"),
        Err(error) => format!("{} {error} {:?}", error.reason(), error.to_status("r").details()),
    }
}
