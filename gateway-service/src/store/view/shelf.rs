//! Files: where a caller finds them, and what is there.

use super::{Found, View, broken};
use crate::{
    file::{File, FilesOf},
    ids::{FileId, ProjectId, SessionId},
    lease::{Held, must_live},
    policy::{Act, Ask, Permit},
    session::Session,
    store::{Key, Stop},
};

/// The files of a session in the project that it is bound to, found and permitted.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// The session.
    pub session: Session,
    /// The project whose files are seen beside those of none.
    pub project: Option<ProjectId>,
    /// The epoch of the binding that leads there; 0 where there is none.
    pub epoch: u64,
    /// For writes to files of the session.
    pub permit: Permit,
    /// Whether the caller is the worker that runs a job of the session.
    pub by_worker: bool,
}

impl View<'_> {
    /// Finds where the files of a session are, or of a job that the calling worker holds, and decides on it.
    ///
    /// # Errors
    /// As [`View::session`]; `LEASE_LOST`.
    pub fn shelf(&mut self, act: Act, of: &FilesOf) -> Result<Shelf, Stop> {
        match of {
            FilesOf::Session(id) => {
                let Found { session, permit, scope, .. } = self.session(act, id)?;
                let epoch = session.binding.as_ref().map_or(0, |binding| binding.epoch);
                let project = scope.map(|scope| scope.project().clone());
                Ok(Shelf { session, project, epoch, permit, by_worker: false })
            }
            FilesOf::Attempt(held) => self.shelf_of_attempt(held),
        }
    }

    /// DESIGN 14.17: by job and fencing token, fenced like all else. The session is locked before the job.
    fn shelf_of_attempt(&mut self, held: &Held) -> Result<Shelf, Stop> {
        let of = self.rows().session_of(&held.job)?;
        self.concern_job(&held.job, of.as_ref());
        let session = match of {
            Some(session) => self.rows().session(&session)?,
            None => None,
        };
        let job = self.rows().job(&held.job)?;
        let ask = Ask::JobFiles { id: &held.job, job: job.as_ref(), fencing: held.fencing };
        let permit = self.decide(&ask)?;
        let job = job.ok_or_else(|| broken("a permit for a job that does not exist"))?;
        must_live(self, &job)?;
        let session = session.ok_or_else(|| broken("a job went away under its session"))?;
        let (project, epoch) = (Some(job.binding.project.clone()), job.binding.epoch);
        Ok(Shelf { session, project, epoch, permit, by_worker: true })
    }

    /// All files of a session, those that nobody sees too, oldest first.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub(crate) fn files(&mut self, shelf: &Shelf) -> Result<Vec<File>, Stop> {
        self.rows().files_of(&shelf.session.id)
    }

    /// One file, for a sweep.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub(crate) fn any_file(
        &mut self,
        permit: &Permit,
        session: &SessionId,
        id: &FileId,
    ) -> Result<Option<File>, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        self.rows().file(session, id)
    }

    /// Those of these files that have no row, for a sweep.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub(crate) fn unknown_files(&mut self, permit: &Permit, ids: &[FileId]) -> Result<Vec<FileId>, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        let ids = &ids[..ids.len().min(self.limits().sweep_rows_max)];
        self.rows().expect(&mut ids.iter().cloned().map(Key::IsFile))?;
        let mut unknown = Vec::new();
        for id in ids {
            if !self.rows().is_file(id)? {
                unknown.push(id.clone());
            }
        }
        Ok(unknown)
    }
}
