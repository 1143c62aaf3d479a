//! Files of sessions: what a job reads, and what it leaves.

use std::{fmt, sync::Arc, time::SystemTime};

use bytes::Bytes;
use interlock_proto::gateway::v1 as wire;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tonic::Streaming;

use crate::{
    clock::from_wire,
    error::Error,
    gateway::{Gateway, PAGE, PAGES_MAX, present},
    path,
    worker::Task,
};

/// How much of a file goes into one message.
const PART_BYTES: usize = 64 * 1024;
/// How long storing a file may take: longer than a service lets it, whatever it is told.
const PUT_WITHIN: std::time::Duration = std::time::Duration::from_secs(25 * 3600);

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What it is called: 1 to 255 bytes, in parts with `/` between them. Data, never a path.
    pub name: String,
    /// How long it is, bytes.
    pub size: u64,
    /// The SHA-256 of its contents.
    pub sha256: [u8; 32],
    /// The project that its session was bound to when it was stored.
    pub project_id: Option<String>,
    /// The epoch of that binding; 0 where there was none.
    pub epoch: u64,
    /// When it was stored.
    pub stored_at: Option<SystemTime>,
}

/// Whose files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesOf<'a> {
    /// A session's, by its id.
    Session(&'a str),
    /// Those of the session of a job that this worker runs: for as long as its lease lives.
    Attempt {
        /// The job.
        job_id: &'a str,
        /// [`Task::fencing_token`].
        fencing_token: u64,
    },
}

/// What is known of a file before it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutFile {
    /// How long it is, bytes: what is too long is refused at once, and what is cut off is not stored.
    pub size: Option<u64>,
    /// The SHA-256 of its contents: what comes to another one is not stored.
    pub sha256: Option<[u8; 32]>,
}

/// Files of sessions, as one caller sees them. From [`Gateway::files`].
#[derive(Clone, Debug)]
pub struct Files(Gateway);

/// A file on its way here. Dropped before its end, the rest is not sent.
pub struct Download {
    file: File,
    messages: Streaming<wire::GetFileResponse>,
    hash: Sha256,
    received: u64,
}

impl<'a> FilesOf<'a> {
    /// Those of a job that is being run.
    #[must_use]
    pub fn task(task: &'a Task) -> Self {
        Self::Attempt { job_id: task.job_id(), fencing_token: task.fencing_token() }
    }

    /// Session, job and fencing token, as requests have them.
    fn fields(self) -> (String, String, u64) {
        match self {
            Self::Session(id) => (id.to_owned(), String::new(), 0),
            Self::Attempt { job_id, fencing_token } => (String::new(), job_id.to_owned(), fencing_token),
        }
    }
}

impl Files {
    pub(crate) fn of(gateway: Gateway) -> Self {
        Self(gateway)
    }

    /// Stores a file, in place of the one of that name. When this returns it is there, whole; where it fails, nothing
    /// has changed. Answers whether it took the place of another. Not made again by itself: `contents` are read once.
    ///
    /// # Errors
    /// `LIMIT_REACHED`, `INVALID_FIELD` (its name; its size or hash is not as `known`), `FORBIDDEN`, `LEASE_LOST`,
    /// `SESSION_CLOSING`; what reading `contents` says.
    pub async fn put(
        &self,
        of: FilesOf<'_>,
        name: &str,
        known: PutFile,
        contents: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<(File, bool), Error> {
        let (session_id, job_id, fencing_token) = of.fields();
        let sha256 = known.sha256.map(|hash| Bytes::copy_from_slice(&hash)).unwrap_or_default();
        let (name, size, data) = (name.to_owned(), known.size, Bytes::new());
        let first = wire::PutFileRequest { session_id, job_id, fencing_token, name, size, sha256, data };
        let broke: Arc<Mutex<Option<std::io::Error>>> = Arc::default();
        let messages = parts(first, contents, Arc::clone(&broke));
        let (connection, who) = (self.0.connection(), self.0.identity());
        let opened = connection.open_within(path::PUT_FILE, who, messages, PUT_WITHIN).await;
        // A file that broke off here was never all of it, whatever came of the call.
        if let Some(error) = broke.lock().take() {
            return Err(Error::local(format!("the file cannot be read: {error}")));
        }
        let mut answers = opened?.messages;
        let answer = answers.message().await.map_err(|status| Error::from_status(&status))?;
        let answer: wire::PutFileResponse = present(answer, "message")?;
        Ok((File::read(present(answer.file, "file")?)?, answer.replaced))
    }

    /// Opens a file to read it.
    ///
    /// # Errors
    /// `NOT_FOUND`; `OWNER_MISMATCH` where the session is another owner's or does not exist; `FORBIDDEN`, `LEASE_LOST`.
    pub async fn get(&self, of: FilesOf<'_>, name: &str) -> Result<Download, Error> {
        let (session_id, job_id, fencing_token) = of.fields();
        let request = wire::GetFileRequest { session_id, job_id, fencing_token, name: name.to_owned() };
        let (connection, who) = (self.0.connection(), self.0.identity());
        let opened = connection.open(path::READ_FILE, who, tokio_stream::once(request)).await?;
        let mut messages: Streaming<wire::GetFileResponse> = opened.messages;
        let first = messages.message().await.map_err(|status| Error::from_status(&status))?;
        let file = first.and_then(|first| first.file);
        Ok(Download { file: File::read(present(file, "file")?)?, messages, hash: Sha256::new(), received: 0 })
    }

    /// The files of a session, oldest first. All pages, at most 50,000.
    ///
    /// # Errors
    /// As [`Files::get`].
    pub async fn list(&self, of: FilesOf<'_>) -> Result<Vec<File>, Error> {
        let (mut files, mut page_token) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let (session_id, job_id, fencing_token) = of.fields();
            let request =
                wire::ListFilesRequest { session_id, job_id, fencing_token, page_size: PAGE, page_token };
            let page: wire::ListFilesResponse = self.0.call(path::LIST_FILES, request).await?;
            for file in page.files {
                files.push(File::read(file)?);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(files)
    }

    /// Deletes a file. Answers whether there was one.
    ///
    /// # Errors
    /// As [`Files::put`].
    pub async fn delete(&self, of: FilesOf<'_>, name: &str) -> Result<bool, Error> {
        let (session_id, job_id, fencing_token) = of.fields();
        let request = wire::DeleteFileRequest { session_id, job_id, fencing_token, name: name.to_owned() };
        let answer: wire::DeleteFileResponse = self.0.call(path::DELETE_FILE, request).await?;
        Ok(answer.deleted)
    }
}

/// The messages of a put. One that cannot be read on ends in a message that no service takes, so that what was read of it
/// is not stored.
fn parts(
    first: wire::PutFileRequest,
    mut contents: impl AsyncRead + Send + Unpin + 'static,
    broke: Arc<Mutex<Option<std::io::Error>>>,
) -> impl futures_util::Stream<Item = wire::PutFileRequest> + Send + 'static {
    async_stream::stream! {
        yield first;
        let mut part = vec![0; PART_BYTES];
        loop {
            match contents.read(&mut part).await {
                Ok(0) => break,
                Ok(read) => {
                    let data = Bytes::copy_from_slice(&part[..read]);
                    yield wire::PutFileRequest { data, ..wire::PutFileRequest::default() };
                }
                Err(error) => {
                    *broke.lock() = Some(error);
                    let name = "broken off".to_owned();
                    yield wire::PutFileRequest { name, ..wire::PutFileRequest::default() };
                    break;
                }
            }
        }
    }
}

impl Download {
    /// What it is.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The next part; `None` at the end, once all of it was what was stored.
    ///
    /// # Errors
    /// Why the service ended it; a fault where fewer bytes came, more, or others.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let message = self.messages.message().await.map_err(|status| Error::from_status(&status))?;
            let Some(message) = message else {
                let hash: [u8; 32] = std::mem::take(&mut self.hash).finalize().into();
                if self.received != self.file.size || hash != self.file.sha256 {
                    return Err(Error::protocol("a file that is not what was stored"));
                }
                return Ok(None);
            };
            if message.data.is_empty() {
                continue;
            }
            self.received += message.data.len() as u64;
            if self.received > self.file.size {
                return Err(Error::protocol("more of a file than it has"));
            }
            self.hash.update(&message.data);
            return Ok(Some(message.data));
        }
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("file", &self.file)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl File {
    fn read(file: wire::File) -> Result<Self, Error> {
        Ok(Self {
            name: file.name,
            size: file.size,
            sha256: file
                .sha256
                .as_ref()
                .try_into()
                .map_err(|_| Error::protocol("a hash of another length"))?,
            project_id: Some(file.project_id).filter(|project| !project.is_empty()),
            epoch: file.epoch,
            stored_at: from_wire(file.stored_at),
        })
    }
}
