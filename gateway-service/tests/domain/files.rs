//! Files of sessions: who has them, what bounds them, and that nothing of them stays.

use std::{sync::Arc, time::Duration};

use interlock_gateway::{
    caller::Caller,
    file::{
        AbandonPut, BeginPut, DeleteFile, File, FilesOf, FinishPut, Forget, ListFiles, OpenFile, Phase,
        Stored, UnknownFiles,
    },
    ids::{FileId, FileName, SessionId},
    job::Outcome,
    lease::Held,
    limits::Limits,
    session::CloseSession,
    standing::Standing,
    store::Signal,
    sweep::{Due, Duty, Sweep, Swept},
    waiter::Ground,
};
use interlock_kit::error::{Error, Reason};

use crate::{
    on_every_engine,
    world::{
        CallerExt as _, Engine, World, admin, attach, cookie, finish, nobody, owner, root, session_id, token,
        user,
    },
};

on_every_engine!(
    a_file_is_there_when_it_is_stored_and_not_before,
    files_are_who_may_enter_their_sessions,
    files_are_of_their_project,
    the_holder_of_a_lease_has_the_files_of_its_job,
    files_of_sessions_with_like_ids_stay_apart,
    what_is_cut_off_leaves_nothing,
    a_call_that_was_given_up_stores_nothing,
    files_go_with_their_session,
    pages_have_each_file_once,
);

fn of(session: &SessionId) -> FilesOf {
    FilesOf::Session(session.clone())
}

fn name(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

fn ground() -> Arc<Ground> {
    Arc::new(Ground::new(Standing::on_rows()))
}

/// A put on its way.
struct Put {
    of: FilesOf,
    id: FileId,
}

impl Put {
    fn begin(&self, called: &str) -> BeginPut {
        BeginPut { of: self.of.clone(), id: self.id.clone(), name: name(called), size: None }
    }

    fn finish(&self, size: u64) -> FinishPut {
        let (of, id) = (self.of.clone(), self.id.clone());
        FinishPut { of, id, size, hash: [size as u8; 32], ground: ground() }
    }
}

impl World {
    fn new_put(&self, of: &FilesOf) -> Put {
        Put { of: of.clone(), id: FileId::parse(format!("fil_{:06}", self.number())).unwrap() }
    }

    async fn put(&self, caller: &Caller, of: &FilesOf, called: &str, size: u64) -> Result<Stored, Error> {
        let put = self.new_put(of);
        self.run(caller, put.begin(called)).await?;
        let stored = self.run(caller, put.finish(size)).await;
        if stored.is_err() {
            let session = match of {
                FilesOf::Session(session) => session.clone(),
                FilesOf::Attempt(_) => session_id(0),
            };
            self.ok(&Caller::gateway(), AbandonPut { session, id: put.id }).await;
        }
        stored
    }

    async fn names(&self, caller: &Caller, of: &FilesOf) -> Vec<(String, u64)> {
        let list = ListFiles { of: of.clone(), page_size: 0, page_token: String::new() };
        let page = self.ask(caller, list).await.unwrap();
        page.files.iter().map(|file| (file.name.to_string(), file.size)).collect()
    }

    async fn open(&self, caller: &Caller, of: &FilesOf, called: &str) -> Result<File, Error> {
        self.ask(caller, OpenFile { of: of.clone(), name: name(called) }).await
    }

    /// Sweeps, and does what the shell does for each file: its contents are gone at once here.
    async fn sweep_files(&self) -> usize {
        let mut forgotten = 0;
        for duty in self.ask(&Caller::gateway(), Due).await.unwrap() {
            let Duty::File(session, id) = duty.clone() else { continue };
            self.ok(&Caller::gateway(), Sweep(duty)).await;
            forgotten += usize::from(self.ok(&Caller::gateway(), Forget { session, id }).await);
        }
        forgotten
    }
}

fn listed(names: &[(&str, u64)]) -> Vec<(String, u64)> {
    names.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect()
}

// SF-01
async fn a_file_is_there_when_it_is_stored_and_not_before(world: World) {
    let ann = owner("ann");
    let session = world.session(&ann).await;
    let shelf = of(&session);
    let put = world.new_put(&shelf);
    let begun = world.ok(&ann, put.begin("out/a.txt")).await;
    assert_eq!((begun.session, begun.project), (session.clone(), None));
    assert_eq!(world.names(&ann, &shelf).await, []);
    world.denied_read(&ann, OpenFile { of: shelf.clone(), name: name("out/a.txt") }, Reason::NotFound).await;
    let stored = world.ok(&ann, put.finish(3)).await;
    assert_eq!((stored.file.size, stored.file.hash, stored.replaced), (3, [3; 32], None));
    assert_eq!(world.open(&ann, &shelf, "out/a.txt").await.unwrap(), stored.file);
    // Once is enough.
    world.denied(&ann, put.finish(4), Reason::Conflict).await;

    let again = world.put(&ann, &shelf, "out/a.txt", 5).await.unwrap();
    assert_eq!(again.replaced, Some(stored.file.id.clone()));
    assert_eq!(world.names(&ann, &shelf).await, listed(&[("out/a.txt", 5)]));
    let delete = DeleteFile { of: shelf.clone(), name: name("out/a.txt") };
    assert_eq!(world.ok(&ann, delete.clone()).await, Some((session.clone(), again.file.id.clone())));
    assert_eq!(world.ok(&ann, delete).await, None);
    assert_eq!(world.names(&ann, &shelf).await, []);
    assert_eq!(world.sweep_files().await, 2, "both wait for their contents to go");
    assert_eq!(world.sweep_files().await, 0);
    let ids = vec![stored.file.id, FileId::parse("fil_none").unwrap()];
    let unknown = world.ask(&Caller::gateway(), UnknownFiles { ids: ids.clone() }).await.unwrap();
    assert_eq!(unknown, ids, "no row is left");
    world.denied_read(&ann, UnknownFiles { ids }, Reason::Forbidden).await;
    if let Some(audit) = world.audit() {
        let done: Vec<&str> =
            audit.iter().filter(|row| row.subject == session.as_str()).map(|row| &*row.action).collect();
        assert!(
            done.ends_with(&["file.put", "file.put", "file.delete"]) || done.contains(&"file.delete"),
            "{done:?}"
        );
    }
}

// SF-02
async fn files_are_who_may_enter_their_sessions(world: World) {
    let ann = owner("ann");
    let session = world.session(&ann).await;
    let shelf = of(&session);
    world.put(&ann, &shelf, "hers", 1).await.unwrap();
    let unknown = of(&session_id(999_999));
    for (caller, files, reason) in [
        (owner("bob"), &shelf, Reason::OwnerMismatch),
        (owner("bob"), &unknown, Reason::OwnerMismatch),
        (ann.clone(), &unknown, Reason::OwnerMismatch),
        (user(), &shelf, Reason::OwnerMismatch),
        (root("rosa", false), &shelf, Reason::OwnerMismatch),
        (token("bob", "p"), &shelf, Reason::OwnerMismatch),
        (nobody(), &shelf, Reason::ProviderAuthFailed),
    ] {
        let (open, list) = (
            OpenFile { of: files.clone(), name: name("hers") },
            ListFiles { of: files.clone(), page_size: 0, page_token: String::new() },
        );
        let put = world.new_put(files);
        if reason == Reason::ProviderAuthFailed {
            // Nobody is known by it: the gate counts it.
            world.refused(&caller, put.begin("his"), reason).await;
            continue;
        }
        world.denied_read(&caller, open, reason).await;
        world.denied_read(&caller, list, reason).await;
        world.denied(&caller, put.begin("his"), reason).await;
        world.denied(&caller, DeleteFile { of: files.clone(), name: name("hers") }, reason).await;
    }
    for caller in [admin(), root("rosa", true), token("ann", "p")] {
        assert_eq!(world.open(&caller, &shelf, "hers").await.unwrap().size, 1);
    }
    // The host's cookie, as the session's first client.
    let number: u64 = session.as_str()["ses_".len()..].parse().unwrap();
    let host = cookie(&session, number);
    assert_eq!(world.names(&host, &shelf).await, listed(&[("hers", 1)]));
    world.put(&host, &shelf, "by the host", 2).await.unwrap();
}

// SF-02
async fn files_are_of_their_project(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    let session = world.session(&ann).await;
    let shelf = of(&session);
    world.put(&ann, &shelf, "before", 1).await.unwrap();
    world.put(&ann, &shelf, "both", 1).await.unwrap();
    world.attach(&ann, &session, ("a", "p")).await;
    let (p, q) = (ann.clone().naming("p"), ann.clone().naming("q"));
    world.put(&p, &shelf, "both", 2).await.unwrap();
    let stored = world.put(&p, &shelf, "of p", 3).await.unwrap().file;
    assert_eq!((stored.project.as_ref().unwrap().as_str(), stored.epoch), ("p", 1));
    for (caller, reason) in
        [(q.clone(), Reason::ProjectMismatch), (token("ann", "q"), Reason::ProjectMismatch)]
    {
        world.denied_read(&caller, OpenFile { of: shelf.clone(), name: name("of p") }, reason).await;
        world.denied(&caller, world.new_put(&shelf).begin("x"), reason).await;
        world.denied(&caller, DeleteFile { of: shelf.clone(), name: name("of p") }, reason).await;
    }
    let coming = world.new_put(&shelf);
    world.ok(&p, coming.begin("moved under it")).await;
    world.ok(&q, attach(&session, ("a", "q"))).await;
    world.denied(&q, coming.finish(1), Reason::Conflict).await;
    assert_eq!(world.names(&q, &shelf).await, listed(&[("before", 1)]), "those of p are of p");
    assert_eq!(world.open(&q, &shelf, "of p").await.unwrap_err().reason(), Reason::NotFound);
    world.put(&q, &shelf, "of p", 4).await.unwrap();
    world.ok(&p, attach(&session, ("a", "p"))).await;
    assert_eq!(world.names(&p, &shelf).await, listed(&[("before", 1), ("both", 2), ("of p", 3)]));
}

// DESIGN 14.17
async fn the_holder_of_a_lease_has_the_files_of_its_job(world: World) {
    let (ann, session, held) = world.running().await;
    let (shelf, attempt) = (of(&session), FilesOf::Attempt(held.clone()));
    world.put(&ann, &shelf, "in", 1).await.unwrap();
    let worker = token("ann", "p");
    assert_eq!(world.open(&worker, &attempt, "in").await.unwrap().size, 1);
    let out = world.put(&worker, &attempt, "out", 2).await.unwrap().file;
    assert_eq!(
        (out.session, out.project.unwrap().as_str().to_owned(), out.epoch),
        (session.clone(), "p".to_owned(), 1)
    );
    assert_eq!(world.names(&ann, &shelf).await, listed(&[("in", 1), ("out", 2)]));
    let late = Held { fencing: held.fencing + 1, ..held.clone() };
    for (caller, held) in
        [(ann.clone(), late), (owner("bob"), held.clone()), (token("ann", "q"), held.clone())]
    {
        let stolen = FilesOf::Attempt(held);
        world
            .denied_read(&caller, OpenFile { of: stolen.clone(), name: name("in") }, Reason::LeaseLost)
            .await;
        world.denied(&caller, world.new_put(&stolen).begin("x"), Reason::LeaseLost).await;
        world.denied(&caller, DeleteFile { of: stolen, name: name("in") }, Reason::LeaseLost).await;
    }
    // A session that ends takes no more but from the job that it waits for.
    world.ok(&ann, CloseSession { session: session.clone(), force: true }).await;
    world.denied(&ann, world.new_put(&shelf).begin("x"), Reason::SessionClosing).await;
    world.put(&worker, &attempt, "last words", 3).await.unwrap();
    let cut = world.new_put(&attempt);
    world.ok(&worker, cut.begin("too late")).await;
    world.advance(Duration::from_secs(3600));
    world.denied(&worker, cut.finish(1), Reason::LeaseLost).await;
    world.denied_read(&worker, OpenFile { of: attempt, name: name("in") }, Reason::LeaseLost).await;
    assert!(world.run(&ann, finish(&held, Outcome::Succeeded)).await.is_err());
}

// SF-03
async fn files_of_sessions_with_like_ids_stay_apart(world: World) {
    let ann = owner("ann");
    let mut sessions = Vec::new();
    for _ in 0..12 {
        sessions.push(world.session(&ann).await);
    }
    for (size, session) in sessions.iter().enumerate() {
        world.put(&ann, &of(session), "same", size as u64).await.unwrap();
    }
    world.ok(&ann, DeleteFile { of: of(&sessions[0]), name: name("same") }).await;
    for (size, session) in sessions.iter().enumerate().skip(1) {
        assert_eq!(world.names(&ann, &of(session)).await, listed(&[("same", size as u64)]));
    }
}

// SF-04
async fn what_is_cut_off_leaves_nothing(world: World) {
    let ann = owner("ann");
    let session = world.session(&ann).await;
    let shelf = of(&session);
    world.put(&ann, &shelf, "kept", 1).await.unwrap();
    let put = world.new_put(&shelf);
    world.ok(&ann, put.begin("kept")).await;
    assert_eq!(world.sweep_files().await, 0, "it may be coming");
    let abandon = AbandonPut { session: session.clone(), id: put.id.clone() };
    assert!(world.ok(&Caller::gateway(), abandon.clone()).await, "what there is of it may go");
    world.denied(&ann, put.finish(2), Reason::Conflict).await;
    assert_eq!(world.sweep_files().await, 1);
    assert!(world.ok(&Caller::gateway(), abandon).await, "and again");
    // A gateway that died says nothing: its time is up some day.
    let put = world.new_put(&shelf);
    world.ok(&ann, put.begin("kept")).await;
    world.advance(Limits::default().upload_time_max);
    world.denied(&ann, put.finish(2), Reason::Conflict).await;
    assert_eq!(world.sweep_files().await, 1);
    assert_eq!(world.names(&ann, &shelf).await, listed(&[("kept", 1)]));
    // What is there is not abandoned, whoever is late to say so.
    let kept = world.open(&ann, &shelf, "kept").await.unwrap().id;
    assert!(!world.ok(&Caller::gateway(), AbandonPut { session: session.clone(), id: kept.clone() }).await);
    assert!(!world.ok(&Caller::gateway(), Forget { session, id: kept }).await);
    assert_eq!(world.names(&ann, &shelf).await, listed(&[("kept", 1)]));
    let signals = world.heard.signals.lock();
    assert!(!signals.iter().any(|signal| matches!(signal, Signal::SessionGone { .. })));
}

async fn a_call_that_was_given_up_stores_nothing(world: World) {
    let ann = owner("ann");
    let session = world.session(&ann).await;
    let put = world.new_put(&of(&session));
    world.ok(&ann, put.begin("a")).await;
    let given_up = put.finish(1);
    given_up.ground.give_up();
    world.denied(&ann, given_up, Reason::DeadlineExceeded).await;
    assert_eq!(world.names(&ann, &of(&session)).await, []);
}

// DESIGN 9: gone with their session, in bounded parts, also after a crash in the middle
async fn files_go_with_their_session(world: World) {
    let ann = owner("ann");
    let (session, other) = (world.session(&ann).await, world.session(&ann).await);
    for number in 0..20 {
        world.put(&ann, &of(&session), &format!("f{number}"), 1).await.unwrap();
    }
    world.put(&ann, &of(&other), "stays", 1).await.unwrap();
    let coming = world.new_put(&of(&session));
    world.ok(&ann, coming.begin("coming")).await;
    world.ok(&ann, CloseSession { session: session.clone(), force: false }).await;
    world.denied(&ann, coming.finish(1), Reason::OwnerMismatch).await;
    world.denied_read(&ann, OpenFile { of: of(&session), name: name("f1") }, Reason::OwnerMismatch).await;
    // One by one, as a program does that dies in the middle: marked, and nothing more.
    let due = world.ask(&Caller::gateway(), Due).await.unwrap();
    let first = due.iter().find(|duty| matches!(duty, Duty::File(..))).unwrap().clone();
    assert_eq!(world.ok(&Caller::gateway(), Sweep(first.clone())).await, Swept::Done);
    assert_eq!(world.ok(&Caller::gateway(), Sweep(first)).await, Swept::Nothing);
    // The session's row stays until its files are gone, however long that takes.
    world.advance(Limits::default().creation_kept);
    world.sweep().await;
    if world.is_model() {
        assert!(world.model().sessions.contains_key(&session));
    }
    assert_eq!(world.sweep_files().await, 21);
    world.sweep().await;
    if world.is_model() {
        let model = world.model();
        assert!(!model.sessions.contains_key(&session));
        let left: Vec<_> = model.files.values().map(|file| (file.name.as_str(), file.phase)).collect();
        assert_eq!(left, [("stays", Phase::Kept)]);
    }
    assert_eq!(world.names(&ann, &of(&other)).await, listed(&[("stays", 1)]));
}

async fn pages_have_each_file_once(world: World) {
    let ann = owner("ann");
    let session = world.session(&ann).await;
    for number in 0..7 {
        world.put(&ann, &of(&session), &format!("f{number}"), number).await.unwrap();
    }
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    for _ in 0..4 {
        let page = world.ask(&ann, ListFiles { of: of(&session), page_size: 2, page_token }).await.unwrap();
        seen.extend(page.files.iter().map(|file| file.size));
        page_token = page.next_page_token;
    }
    assert_eq!((seen, page_token.as_str()), ((0..7).collect(), ""));
    let list = ListFiles { of: of(&session), page_size: 501, page_token: String::new() };
    assert_eq!(world.ask(&ann, list).await.unwrap_err().reason(), Reason::InvalidField);
}

// SF-05
#[tokio::test]
async fn limits_refuse_and_lose_nothing() {
    for engine in [Engine::Memory, Engine::Missing, Engine::Model] {
        let limits = Limits {
            file_bytes_max: 10,
            files_bytes_max: 25,
            files_max: 4,
            files_moving_max: 2,
            ..Limits::default()
        };
        let world = World::with(engine, limits);
        let ann = owner("ann");
        let session = world.session(&ann).await;
        let shelf = of(&session);
        let over = async |called: &str, size| {
            let refused = world.put(&ann, &shelf, called, size).await.unwrap_err();
            assert_eq!(refused.reason(), Reason::LimitReached, "{called} {size}");
            world.sweep_files().await;
        };
        let put = world.new_put(&shelf);
        let said = BeginPut { size: Some(11), ..put.begin("a") };
        world.denied(&ann, said, Reason::LimitReached).await;
        world.put(&ann, &shelf, "a", 10).await.unwrap();
        world.put(&ann, &shelf, "b", 10).await.unwrap();
        over("a", 11).await;
        over("c", 6).await;
        world.put(&ann, &shelf, "c", 5).await.unwrap();
        world.put(&ann, &shelf, "a", 9).await.unwrap();
        world.sweep_files().await;
        world.put(&ann, &shelf, "d", 1).await.unwrap();
        over("e", 0).await;
        let all = listed(&[("b", 10), ("c", 5), ("a", 9), ("d", 1)]);
        assert_eq!(world.names(&ann, &shelf).await, all, "nothing is lost");
        let (one, two, three) = (world.new_put(&shelf), world.new_put(&shelf), world.new_put(&shelf));
        world.ok(&ann, one.begin("a")).await;
        world.ok(&ann, two.begin("b")).await;
        let refused = world.denied(&ann, three.begin("c"), Reason::LimitReached).await;
        assert!(refused.retry_delay().is_some(), "it passes");
        world.ok(&ann, one.finish(1)).await;
    }
}
