//! Where the contents of files are: a local folder, or a bucket of an S3-compatible service.
//!
//! Each is kept under the id of its row: nothing that a caller wrote is ever a key or a path. Contents are whole or
//! not there: they appear when all of them are safe on disk, and what is cut off before is taken away.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use interlock_kit::{
    config::Profile,
    error::{Error, Reason},
    secret_file::{self, SecretFileError},
};
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt as _, aws::AmazonS3Builder, buffered::BufWriter,
    local::LocalFileSystem, path::Path as Key, prefix::PrefixStore,
};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{config::FileStore, ids::FileId};

/// Files that are stored at once, all callers together: each takes up to two parts of memory.
const WRITERS_MAX: usize = 32;
/// What is written at once. S3 takes no smaller parts, but for the last one.
const PART_BYTES: usize = 5 << 20;
/// No file of credentials is longer.
const CREDENTIALS_BYTES_MAX: u64 = 4096;
/// How long a service may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Why the place of files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The folder cannot be made or used.
    #[error("files.folder {folder}: {source}; set it to a folder that this user can write", folder = folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file of credentials.
    #[error("files.credentials_file {0}")]
    Secret(#[from] SecretFileError),
    /// It has something else in it.
    #[error("files.credentials_file {0}: two lines, the access key's id and its secret")]
    Credentials(PathBuf),
    /// The bucket cannot be described.
    #[error("files.bucket: {0}")]
    Bucket(object_store::Error),
}

impl VaultError {
    /// Whether somebody has to mend what it was told: exit code 64.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Folder { .. } => false,
            Self::Secret(error) => error.is_configuration(),
            Self::Credentials(_) | Self::Bucket(_) => true,
        }
    }
}

/// Where the contents of files are.
pub(crate) struct Vault {
    store: Arc<dyn ObjectStore>,
    /// Where it is a folder: what a program that died has left half written lies beside the rest.
    folder: Option<PathBuf>,
    writers: Arc<Semaphore>,
}

/// Contents on their way in. Dropped before [`Writer::finish`], nothing is left of them but in a bucket, where
/// [`Writer::abort`] is needed.
pub(crate) struct Writer {
    inner: BufWriter,
    _room: OwnedSemaphorePermit,
}

/// Contents on their way out.
pub(crate) type Contents = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

impl Vault {
    /// Opens what the configuration names. A bucket is not asked before it is needed.
    pub(crate) fn open(config: &FileStore, profile: Profile) -> Result<Self, VaultError> {
        match config {
            FileStore::Folder(folder) => Self::in_folder(folder),
            FileStore::Bucket { bucket, prefix, endpoint, region, credentials_file } => {
                let (id, secret) = credentials(credentials_file, profile)?;
                let plain = endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
                let client = ClientOptions::new()
                    .with_timeout(ANSWER_WITHIN)
                    .with_connect_timeout(ANSWER_WITHIN)
                    .with_allow_http(plain);
                let mut builder = AmazonS3Builder::new()
                    .with_bucket_name(bucket)
                    .with_region(region)
                    .with_access_key_id(id)
                    .with_secret_access_key(secret)
                    .with_client_options(client);
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                let store = builder.build().map_err(VaultError::Bucket)?;
                let store: Arc<dyn ObjectStore> = match prefix.as_str() {
                    "" => Arc::new(store),
                    prefix => Arc::new(PrefixStore::new(store, prefix)),
                };
                Ok(Self::on(store, None))
            }
        }
    }

    fn in_folder(folder: &Path) -> Result<Self, VaultError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let named = |source| VaultError::Folder { folder: folder.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(named)?;
        let store =
            LocalFileSystem::new_with_prefix(folder).map_err(|error| named(io::Error::other(error)))?;
        Ok(Self::on(Arc::new(store.with_fsync(true)), Some(folder.to_owned())))
    }

    fn on(store: Arc<dyn ObjectStore>, folder: Option<PathBuf>) -> Self {
        Self { store, folder, writers: Arc::new(Semaphore::new(WRITERS_MAX)) }
    }

    /// Contents come for this file.
    ///
    /// # Errors
    /// `LIMIT_REACHED` where as many are written as may be.
    pub(crate) fn writer(&self, id: &FileId) -> Result<Writer, Error> {
        let room = Arc::clone(&self.writers).try_acquire_owned().map_err(|_| {
            Error::new(Reason::LimitReached, "too many files are being stored")
                .retry_after(Duration::from_secs(1))
        })?;
        let inner =
            BufWriter::with_capacity(Arc::clone(&self.store), key(id), PART_BYTES).with_max_concurrency(1);
        Ok(Writer { inner, _room: room })
    }

    /// The contents of a file that has this size; none where there are none.
    ///
    /// # Errors
    /// `STORAGE_ERROR`, also where there are more or fewer of them.
    pub(crate) async fn read(&self, id: &FileId, size: u64) -> Result<Option<Contents>, Error> {
        let got = match self.store.get(&key(id)).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if got.meta.size != size {
            return Err(damaged(id));
        }
        Ok(Some(Box::pin(got.into_stream().map(|part| part.map_err(failed)))))
    }

    /// The contents of a file go. That there are none is no error.
    ///
    /// # Errors
    /// `STORAGE_ERROR`
    pub(crate) async fn remove(&self, id: &FileId) -> Result<(), Error> {
        match self.store.delete(&key(id)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// The ids of all contents that were last written before an instant. What is called otherwise is not ours.
    pub(crate) fn written_before(
        &self,
        before: SystemTime,
    ) -> impl Stream<Item = Result<FileId, Error>> + Send + use<> {
        self.store.list(None).filter_map(move |found| {
            let id = match found {
                Ok(meta) => (SystemTime::from(meta.last_modified) < before)
                    .then(|| FileId::parse(meta.location.to_string()).ok())
                    .flatten()
                    .map(Ok),
                Err(error) => Some(Err(failed(error))),
            };
            std::future::ready(id)
        })
    }

    /// Takes away what a program that died has left half written in the folder, where that was before an instant.
    /// In a bucket a rule of the bucket's does that.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn clear_parts(&self, before: SystemTime) -> io::Result<usize> {
        let Some(folder) = &self.folder else { return Ok(0) };
        let mut cleared = 0;
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_part = name.to_str().and_then(|name| name.split_once('#')).is_some_and(|(id, number)| {
                FileId::parse(id).is_ok() && number.bytes().all(|b| b.is_ascii_digit())
            });
            if is_part && entry.metadata()?.modified()? < before {
                std::fs::remove_file(entry.path())?;
                cleared += 1;
            }
        }
        Ok(cleared)
    }
}

impl Writer {
    /// The next part.
    ///
    /// # Errors
    /// `STORAGE_ERROR`
    pub(crate) async fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        // Copied: what came in small pieces must not cost more memory than it is long.
        self.inner.write_all(data).await.map_err(failed)
    }

    /// All parts were written: when this returns they are there, on disk.
    ///
    /// # Errors
    /// `STORAGE_ERROR`
    pub(crate) async fn finish(mut self) -> Result<(), Error> {
        self.inner.shutdown().await.map_err(failed)
    }

    /// No more parts come.
    pub(crate) async fn abort(mut self) {
        if let Err(error) = self.inner.abort().await {
            tracing::debug!(%error, "contents that were cut off could not be taken away yet");
        }
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({})", self.store)
    }
}

fn key(id: &FileId) -> Key {
    Key::from(id.as_str())
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(Reason::StorageError, "the contents of files cannot be used now").caused_by(error)
}

/// What is there is not what was stored.
pub(crate) fn damaged(id: &FileId) -> Error {
    Error::new(Reason::StorageError, "the contents are not what was stored").caused_by(id.to_string())
}

fn credentials(path: &Path, profile: Profile) -> Result<(String, String), VaultError> {
    let secret = secret_file::read(path, CREDENTIALS_BYTES_MAX, profile)?;
    if let Some(exposed) = &secret.exposed {
        tracing::warn!("{exposed}");
    }
    let wrong = || VaultError::Credentials(path.to_owned());
    let text = std::str::from_utf8(&secret.contents).map_err(|_| wrong())?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next(), lines.next()) {
        (Some(id), Some(secret), None) => Ok((id.to_owned(), secret.to_owned())),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;
    use object_store::memory::InMemory;

    use super::*;

    fn folder() -> (tempfile::TempDir, Vault) {
        let folder = tempfile::tempdir().expect("a folder");
        let vault = Vault::in_folder(&folder.path().join("files")).expect("opened");
        (folder, vault)
    }

    async fn store(vault: &Vault, id: &FileId, contents: &[u8]) {
        let mut writer = vault.writer(id).expect("room");
        for part in contents.chunks(100_000) {
            writer.write(part).await.expect("written");
        }
        writer.finish().await.expect("finished");
    }

    async fn contents(vault: &Vault, id: &FileId, size: u64) -> Option<Vec<u8>> {
        let read = vault.read(id, size).await.expect("read")?;
        Some(read.try_collect::<Vec<_>>().await.expect("all").concat())
    }

    async fn all_before(vault: &Vault, before: SystemTime) -> Vec<FileId> {
        vault.written_before(before).try_collect().await.expect("listed")
    }

    /// The same on each kind of place: what is said of a bucket is shown on one in memory.
    async fn holds(vault: Vault) {
        let later = SystemTime::now() + Duration::from_secs(3600);
        for size in [0, 1, 3 * PART_BYTES + 1] {
            let id = FileId::new();
            let text: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            assert_eq!(contents(&vault, &id, size as u64).await, None);
            store(&vault, &id, &text).await;
            assert!(contents(&vault, &id, size as u64).await.expect("there") == text, "{size}");
            assert!(vault.read(&id, size as u64 + 1).await.is_err(), "another size is damage");
            assert_eq!(all_before(&vault, later).await, std::slice::from_ref(&id));
            assert_eq!(all_before(&vault, later - Duration::from_secs(7200)).await, []);
            vault.remove(&id).await.expect("removed");
            vault.remove(&id).await.expect("and again");
            assert_eq!(contents(&vault, &id, size as u64).await, None);
        }
        // SF-04: what is cut off is not there.
        let id = FileId::new();
        for parts in [1, 2 * PART_BYTES / 100_000] {
            let mut writer = vault.writer(&id).expect("room");
            for _ in 0..parts {
                writer.write(&[7; 100_000]).await.expect("written");
            }
            writer.abort().await;
            assert_eq!(contents(&vault, &id, 0).await, None);
        }
        assert_eq!(all_before(&vault, later).await, []);
        let many: Vec<_> = (0..WRITERS_MAX).map(|_| vault.writer(&FileId::new()).expect("room")).collect();
        let full = vault.writer(&id).err().expect("too many");
        assert_eq!(full.reason(), Reason::LimitReached);
        drop(many);
        vault.writer(&id).expect("room again");
    }

    #[tokio::test]
    async fn contents_are_whole_or_not_there_in_a_folder() {
        let (_folder, vault) = folder();
        holds(vault).await;
    }

    #[tokio::test]
    async fn contents_are_whole_or_not_there_in_memory() {
        holds(Vault::on(Arc::new(InMemory::new()), None)).await;
    }

    #[tokio::test]
    async fn contents_are_whole_or_not_there_under_a_prefix() {
        holds(Vault::on(Arc::new(PrefixStore::new(InMemory::new(), "some/where")), None)).await;
    }

    #[tokio::test]
    async fn what_a_dead_program_left_half_written_is_taken_away_and_nothing_else() {
        let (folder, vault) = folder();
        let id = FileId::new();
        store(&vault, &id, b"whole").await;
        let at = |name: &str| folder.path().join("files").join(name);
        let others = ["notes#1.txt", "fil_0#x", "other#1"];
        for name in others.into_iter().chain(["fil_0#1"]) {
            std::fs::write(at(name), "half").expect("written");
        }
        let later = SystemTime::now() + Duration::from_secs(3600);
        assert_eq!(
            vault.clear_parts(later - Duration::from_secs(7200)).expect("looked"),
            0,
            "it may be coming"
        );
        assert_eq!(vault.clear_parts(later).expect("cleared"), 1);
        assert!(!at("fil_0#1").exists() && others.iter().all(|name| at(name).exists()));
        assert_eq!(contents(&vault, &id, 5).await.expect("there"), b"whole");
    }

    #[test]
    fn credentials_are_two_lines_and_never_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("credentials");
        for (text, good) in [("id\nhidden\n", true), ("hidden", false), ("id\nhidden\nmore\n", false)] {
            secret_file::write(&path, text.as_bytes()).expect("written");
            match credentials(&path, Profile::Hardened) {
                Ok(read) => assert!(good && read == ("id".to_owned(), "hidden".to_owned())),
                Err(error) => assert!(!good && !error.to_string().contains("hidden"), "{error}"),
            }
        }
    }
}
