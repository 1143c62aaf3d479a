//! Files of sessions: what a job reads and what it leaves.
//!
//! A row says what there is; the contents are elsewhere (`vault`), under the row's id. The row comes before the
//! contents and goes after them: [`BeginPut`] adds it as one that is coming, [`FinishPut`] makes it a file once all
//! contents are there, and what nobody may see any more is going until its contents are gone ([`Forget`]). So whatever
//! is cut off, and wherever, leaves a row that says what to take away.
//!
//! A file is of the project that its session was bound to; one of an unbound session is seen in every later project.
//! Names are unique among what can be seen together.

use std::sync::Arc;

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
};

use crate::{
    ids::{FileId, FileName, ProjectId, SessionId},
    lease::Held,
    page::Page,
    policy::Act,
    session,
    store::{Query, Shelf, Stop, Tx, Verb, View},
    sweep::Swept,
    waiter::Ground,
};

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Which.
    pub id: FileId,
    /// Of this session.
    pub session: SessionId,
    /// The project it was stored under; none before the first attach.
    pub project: Option<ProjectId>,
    /// The epoch it was stored under; 0 before the first attach.
    pub epoch: u64,
    /// What it is called.
    pub name: FileName,
    /// Where it is in its life.
    pub phase: Phase,
    /// How long it is, bytes; of one that is coming, what its caller says.
    pub size: u64,
    /// The SHA-256 of its contents; zeros while it is coming.
    pub hash: [u8; 32],
    /// When it was stored, or began to come.
    pub at: Timestamp,
}

/// Where a file is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its contents are coming: nobody sees it.
    Coming {
        /// Whoever brings them has to be ready by then.
        until: Timestamp,
    },
    /// It is there.
    Kept,
    /// Nobody sees it any more, and its contents are to be taken away.
    Going {
        /// Since when.
        since: Timestamp,
    },
}

impl File {
    /// From when on a sweep has something to do with it; none while it is kept.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Coming { until } => Some(until),
            Phase::Going { since } => Some(since),
            Phase::Kept => None,
        }
    }

    fn going(&self, since: Timestamp) -> Self {
        Self { phase: Phase::Going { since }, ..self.clone() }
    }
}

/// Whose files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilesOf {
    /// A session's.
    Session(SessionId),
    /// Those of the session of a job that the calling worker holds.
    Attempt(Held),
}

/// Contents are going to come for a file. Answers when they have to be there.
#[derive(Clone, Debug)]
pub struct BeginPut {
    /// Where.
    pub of: FilesOf,
    /// The file's id: [`FileId::new`].
    pub id: FileId,
    /// What it is called.
    pub name: FileName,
    /// How long it is going to be, where the caller says so.
    pub size: Option<u64>,
}

/// A file that is coming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Of this session.
    pub session: SessionId,
    /// Of this project.
    pub project: Option<ProjectId>,
}

/// All contents are there: the file is one from here on.
#[derive(Clone, Debug)]
pub struct FinishPut {
    /// Where.
    pub of: FilesOf,
    /// Which.
    pub id: FileId,
    /// How long the contents are, bytes.
    pub size: u64,
    /// Their SHA-256.
    pub hash: [u8; 32],
    /// What the call that brought them stands on.
    pub ground: Arc<Ground>,
}

/// What was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The file.
    pub file: File,
    /// Whose place it took.
    pub replaced: Option<FileId>,
}

/// Finds a file to read it.
#[derive(Clone, Debug)]
pub struct OpenFile {
    /// Where.
    pub of: FilesOf,
    /// What it is called.
    pub name: FileName,
}

/// Lists files, oldest first.
#[derive(Clone, Debug)]
pub struct ListFiles {
    /// Where.
    pub of: FilesOf,
    /// 1 to 500; 0 means 100.
    pub page_size: u32,
    /// From the page before; empty for the first.
    pub page_token: String,
}

/// A page of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePage {
    /// Oldest first.
    pub files: Vec<File>,
    /// Empty on the last page.
    pub next_page_token: String,
}

/// Deletes a file. Answers which one it was, if there was one.
#[derive(Clone, Debug)]
pub struct DeleteFile {
    /// Where.
    pub of: FilesOf,
    /// What it is called.
    pub name: FileName,
}

/// What was coming comes no more. Run by the gateway itself. Answers whether its contents may be taken away.
#[derive(Clone, Debug)]
pub struct AbandonPut {
    /// Of this session.
    pub session: SessionId,
    /// Which.
    pub id: FileId,
}

/// The contents of one that goes are gone: so is its row. Run by the gateway itself.
#[derive(Clone, Debug)]
pub struct Forget {
    /// Of this session.
    pub session: SessionId,
    /// Which.
    pub id: FileId,
}

/// Which of these have no row. Asked by the gateway itself, of contents that it has found.
#[derive(Clone, Debug)]
pub struct UnknownFiles {
    /// At most `sweep_rows_max`.
    pub ids: Vec<FileId>,
}

impl Verb for BeginPut {
    type Out = Begun;
    const ACTION: &'static str = "file.put";

    fn run(&self, tx: &mut Tx<'_>) -> Result<Begun, Stop> {
        let shelf = tx.shelf(Act::WriteFiles, &self.of)?;
        must_take(&shelf)?;
        let size = self.size.unwrap_or_default();
        let all = tx.files(&shelf)?;
        need_room(tx, &shelf, &all, &self.name, size)?;
        let moving = all.iter().filter(|file| file.phase != Phase::Kept).count();
        if moving >= tx.limits().files_moving_max {
            let refusal = Error::new(
                Reason::LimitReached,
                "too many files of this session are being stored or deleted",
            );
            return Err(refusal.retry_after(std::time::Duration::from_secs(1)).into());
        }
        let file = File {
            id: self.id.clone(),
            session: shelf.session.id.clone(),
            project: shelf.project.clone(),
            epoch: shelf.epoch,
            name: self.name.clone(),
            phase: Phase::Coming { until: tx.now().after(tx.limits().upload_time_max) },
            size,
            hash: [0; 32],
            at: tx.now(),
        };
        let begun = Begun { session: file.session.clone(), project: file.project.clone() };
        tx.begin_file(&shelf.permit, file);
        Ok(begun)
    }
}

impl Verb for FinishPut {
    type Out = Stored;
    const ACTION: &'static str = "file.put";

    // SF-04, SF-05
    fn run(&self, tx: &mut Tx<'_>) -> Result<Stored, Stop> {
        self.ground.holds()?;
        let shelf = tx.shelf(Act::WriteFiles, &self.of)?;
        must_take(&shelf)?;
        let all = tx.files(&shelf)?;
        let coming = all.iter().find(|file| file.id == self.id).filter(|file| is_coming(file, tx.now()));
        let Some(coming) = coming else {
            return Err(Error::new(Reason::Conflict, "it took too long; store it again").into());
        };
        if coming.project != shelf.project {
            return Err(
                Error::new(Reason::Conflict, "the session was moved meanwhile; store it again").into()
            );
        }
        need_room(tx, &shelf, &all, &coming.name, self.size)?;
        let file =
            File { phase: Phase::Kept, size: self.size, hash: self.hash, at: tx.now(), ..coming.clone() };
        let replaced = seen(&all, &shelf).find(|other| other.name == coming.name);
        if let Some(replaced) = replaced {
            let going = replaced.going(tx.now());
            tx.set_file(&shelf.permit, replaced, going);
        }
        tx.set_file(&shelf.permit, coming, file.clone());
        done(tx, &shelf, &file, "stored");
        Ok(Stored { replaced: replaced.map(|file| file.id.clone()), file })
    }
}

impl Verb for DeleteFile {
    type Out = Option<(SessionId, FileId)>;
    const ACTION: &'static str = "file.delete";

    fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Stop> {
        let shelf = tx.shelf(Act::WriteFiles, &self.of)?;
        let all = tx.files(&shelf)?;
        let Some(file) = seen(&all, &shelf).find(|file| file.name == self.name) else { return Ok(None) };
        let going = file.going(tx.now());
        tx.set_file(&shelf.permit, file, going);
        done(tx, &shelf, file, "deleted");
        Ok(Some((file.session.clone(), file.id.clone())))
    }
}

impl Query for OpenFile {
    type Out = File;
    const ACTION: &'static str = "file.get";

    fn run(&self, view: &mut View<'_>) -> Result<File, Stop> {
        let shelf = view.shelf(Act::ReadFiles, &self.of)?;
        let all = view.files(&shelf)?;
        let file = seen(&all, &shelf).find(|file| file.name == self.name).cloned();
        file.ok_or_else(|| Error::new(Reason::NotFound, "the session has no file of that name").into())
    }
}

impl Query for ListFiles {
    type Out = FilePage;
    const ACTION: &'static str = "file.list";

    fn run(&self, view: &mut View<'_>) -> Result<FilePage, Stop> {
        let page = Page::read(self.page_size, &self.page_token, FileId::parse, view.limits())?;
        let shelf = view.shelf(Act::ReadFiles, &self.of)?;
        let all = view.files(&shelf)?;
        let rest = seen(&all, &shelf).filter(|file| page.from.as_ref().is_none_or(|from| file.id > *from));
        let mut files: Vec<File> = rest.take(page.limit + 1).cloned().collect();
        let next_page_token = page.next(&files, |file| file.id.as_str());
        files.truncate(page.limit);
        Ok(FilePage { files, next_page_token })
    }
}

impl Verb for AbandonPut {
    type Out = bool;
    const ACTION: &'static str = "sweep";

    fn run(&self, tx: &mut Tx<'_>) -> Result<bool, Stop> {
        let permit = tx.upkeep()?;
        let Some(file) = tx.any_file(&permit, &self.session, &self.id)? else { return Ok(true) };
        if let Phase::Coming { .. } = file.phase {
            let going = file.going(tx.now());
            tx.set_file(&permit, &file, going);
        }
        Ok(file.phase != Phase::Kept)
    }
}

impl Verb for Forget {
    type Out = bool;
    const ACTION: &'static str = "sweep";

    fn run(&self, tx: &mut Tx<'_>) -> Result<bool, Stop> {
        let permit = tx.upkeep()?;
        let file = tx.any_file(&permit, &self.session, &self.id)?;
        let going = file.filter(|file| matches!(file.phase, Phase::Going { .. }));
        if let Some(file) = &going {
            tx.drop_file(&permit, file);
        }
        Ok(going.is_some())
    }
}

impl Query for UnknownFiles {
    type Out = Vec<FileId>;
    const ACTION: &'static str = "sweep.due";

    fn run(&self, view: &mut View<'_>) -> Result<Vec<FileId>, Stop> {
        let permit = view.upkeep()?;
        view.unknown_files(&permit, &self.ids)
    }
}

/// What takes too long comes no more; what is left of a session that is gone goes. Contents are taken away by whoever
/// runs this, before the row is forgotten.
pub(crate) fn sweep(tx: &mut Tx<'_>, session: &SessionId, id: &FileId) -> Result<Swept, Stop> {
    let permit = tx.upkeep()?;
    let Some(file) = tx.any_file(&permit, session, id)? else { return Ok(Swept::Nothing) };
    let ends = match file.phase {
        Phase::Going { .. } => return Ok(Swept::Nothing),
        Phase::Coming { until } => until.is_over(tx.now()),
        Phase::Kept => false,
    };
    let gone = tx.any_session(&permit, session)?.is_none_or(|(s, ..)| s.phase == session::Phase::Gone);
    if !ends && !gone {
        return Ok(Swept::Nothing);
    }
    let going = file.going(tx.now());
    tx.set_file(&permit, &file, going);
    Ok(Swept::Done)
}

/// A session that ends takes nothing more, but for what its running jobs leave.
fn must_take(shelf: &Shelf) -> Result<(), Error> {
    if shelf.by_worker { Ok(()) } else { shelf.session.must_be_open() }
}

fn is_coming(file: &File, now: Timestamp) -> bool {
    matches!(file.phase, Phase::Coming { until } if !until.is_over(now))
}

/// The files that are seen from a shelf, oldest first.
fn seen<'f>(all: &'f [File], shelf: &'f Shelf) -> impl Iterator<Item = &'f File> {
    let open = |file: &&File| file.project.is_none() || file.project == shelf.project;
    all.iter().filter(|file| file.phase == Phase::Kept).filter(open)
}

/// Refuses where there is no room for a file of this size, which takes the place of that of its name.
fn need_room(tx: &Tx<'_>, shelf: &Shelf, all: &[File], name: &FileName, size: u64) -> Result<(), Error> {
    let limits = tx.limits();
    let refused = |message: String| Err(Error::new(Reason::LimitReached, message));
    if size > limits.file_bytes_max {
        return refused(format!("a file has at most {} bytes", limits.file_bytes_max));
    }
    let stays = |file: &&File| !(seen(std::slice::from_ref(*file), shelf).any(|file| file.name == *name));
    let others = || all.iter().filter(|file| file.phase == Phase::Kept).filter(stays);
    if others().count() >= limits.files_max {
        return refused(format!("a session has at most {} files", limits.files_max));
    }
    let taken: u64 = others().map(|file| file.size).sum();
    if taken.saturating_add(size) > limits.files_bytes_max {
        return refused(format!(
            "the files of a session have at most {} bytes together",
            limits.files_bytes_max
        ));
    }
    Ok(())
}

fn done(tx: &mut Tx<'_>, shelf: &Shelf, file: &File, what: &str) {
    let name = file.name.as_str();
    let detail =
        serde_json::json!({ "file": file.id.as_str(), "name": name, "bytes": file.size, "done": what });
    tx.done(shelf.session.id.as_str(), shelf.project.as_ref(), &detail.to_string());
}
