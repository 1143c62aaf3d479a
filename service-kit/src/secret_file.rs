//! Files that hold secrets: written whole or not at all, readable by their owner only.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::{config::Profile, random};

/// Mode of a file that holds a secret.
const SECRET_MODE: u32 = 0o600;
/// Mode of a file that holds none.
const OPEN_MODE: u32 = 0o644;
/// How the names of temporary files end.
const TEMPORARY: &str = ".tmp";
/// What nobody but the owner may have.
const OTHERS: u32 = 0o077;

/// Why a secret file could not be read or written. The text names the path and never the contents.
#[derive(Debug, Error)]
pub enum SecretFileError {
    /// The file cannot be read.
    #[error("{path}: cannot be read: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("{path}: cannot be written: {source}", path = path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is too long to be what it should be.
    #[error("{path}: longer than {bytes_max} bytes", path = path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// The bound.
        bytes_max: u64,
    },
    /// Others can read the file, and the profile is hardened.
    #[error("{0}; chmod 600 it")]
    Exposed(Exposed),
}

impl SecretFileError {
    /// Whether the file itself is wrong, so that somebody has to mend it: exit code 64. A write may succeed the
    /// next time.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        !matches!(self, Self::Write { .. })
    }
}

/// A secret file that others than its owner can reach.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path}: mode {mode:o} lets others read it", path = path.display())]
pub struct Exposed {
    /// Which file.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
}

/// The contents of a secret file. No `Debug`: nothing prints it.
pub struct Secret {
    /// The contents; wiped when dropped.
    pub contents: Zeroizing<Vec<u8>>,
    /// In profile `local`: that others can read the file. The caller logs it.
    pub exposed: Option<Exposed>,
}

/// Reads a secret file of at most `bytes_max` bytes.
///
/// # Errors
/// [`SecretFileError::Read`], [`SecretFileError::TooLong`]; [`SecretFileError::Exposed`] in profile `hardened`
/// where group or world have any permission on the file.
pub fn read(path: &Path, bytes_max: u64, profile: Profile) -> Result<Secret, SecretFileError> {
    let failed = |source| SecretFileError::Read { path: path.to_owned(), source };
    // Without waiting: a pipe in the file's place would hold us up for ever.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    let exposed = (mode & OTHERS != 0).then(|| Exposed { path: path.to_owned(), mode });
    if let (Profile::Hardened, Some(exposed)) = (profile, &exposed) {
        return Err(SecretFileError::Exposed(exposed.clone()));
    }
    // Room for all that may come, so that the buffer never moves and leaves a copy behind.
    let room = metadata.len().min(bytes_max) + 1;
    let mut contents = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or(0)));
    file.take(bytes_max + 1).read_to_end(&mut contents).map_err(failed)?;
    if contents.len() as u64 > bytes_max {
        return Err(SecretFileError::TooLong { path: path.to_owned(), bytes_max });
    }
    Ok(Secret { contents, exposed })
}

/// Writes a secret file, mode 0600: to a temporary file in the same folder, synced, renamed, the folder
/// synced. Replaces what was there; leaves nothing behind when it fails.
///
/// # Errors
/// [`SecretFileError::Write`]
pub fn write(path: &Path, contents: &[u8]) -> Result<(), SecretFileError> {
    place(path, contents, SECRET_MODE, |temporary| fs::rename(temporary, path))
}

/// As [`write()`], but refuses to replace.
///
/// # Errors
/// [`SecretFileError::Write`], also where the file exists.
pub fn create(path: &Path, contents: &[u8]) -> Result<(), SecretFileError> {
    place(path, contents, SECRET_MODE, |temporary| fs::hard_link(temporary, path))
}

/// As [`write()`], for a file that holds no secret: mode 0644.
///
/// # Errors
/// [`SecretFileError::Write`]
pub fn write_open(path: &Path, contents: &[u8]) -> Result<(), SecretFileError> {
    place(path, contents, OPEN_MODE, |temporary| fs::rename(temporary, path))
}

/// Removes what writes of this file left behind when their process was killed: the secret would stay there for
/// good. For a time when nobody writes it: a start that holds the store's lock.
///
/// # Errors
/// [`SecretFileError::Write`]
pub fn sweep(path: &Path) -> Result<(), SecretFileError> {
    let swept = || -> io::Result<()> {
        let folder = folder_of(path);
        let prefix = format!(".{}.", file_name(path)?);
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let unique = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(TEMPORARY));
            if unique.is_some_and(|unique| unique.bytes().all(|b| b.is_ascii_hexdigit())) {
                fs::remove_file(folder.join(&*name))?;
            }
        }
        Ok(())
    };
    swept().map_err(|source| SecretFileError::Write { path: path.to_owned(), source })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

fn file_name(path: &Path) -> io::Result<String> {
    let name = path.file_name();
    let name = name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    Ok(name.to_string_lossy().into_owned())
}

fn place(
    path: &Path,
    contents: &[u8],
    mode: u32,
    settle: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), SecretFileError> {
    let whole = || -> io::Result<()> {
        let folder = folder_of(path);
        let temporary = Temporary::new(folder, path)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary.0)?;
        // The creation mode is narrowed by the umask, never widened.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(contents)?;
        file.sync_all()?;
        settle(&temporary.0)?;
        drop(temporary);
        File::open(folder)?.sync_all()
    };
    whole().map_err(|source| SecretFileError::Write { path: path.to_owned(), source })
}

/// A temporary file's name; nothing of that name is left when it is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new(folder: &Path, path: &Path) -> io::Result<Self> {
        let (name, unique) = (file_name(path)?, u64::from_le_bytes(random::bytes()));
        Ok(Self(folder.join(format!(".{name}.{unique:016x}{TEMPORARY}"))))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is none; a failure here has nobody left to tell.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn written_whole_and_for_the_owner_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        fs::write(&path, "old").expect("written");
        write(&path, b"new").expect("written");
        assert_eq!(mode(&path), 0o600);
        let secret = read(&path, 3, Profile::Hardened).expect("read");
        assert_eq!((secret.contents.as_slice(), secret.exposed), (&b"new"[..], None));
        assert_eq!(names(folder.path()), ["token"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_and_no_temporary() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("taken");
        fs::create_dir(&path).expect("a folder in the way");
        fs::write(path.join("inside"), "x").expect("written");
        let error = write(&path, b"secret").expect_err("a folder is in the way");
        assert!(!error.to_string().contains("secret") && error.to_string().contains("taken"));
        assert_eq!(names(folder.path()), ["taken"]);
        let path = folder.path().join("once");
        create(&path, b"first").expect("written");
        create(&path, b"second").expect_err("never replaced");
        assert_eq!(fs::read(&path).expect("read"), b"first");
        assert_eq!(names(folder.path()), ["once", "taken"]);
    }

    #[test]
    fn what_a_killed_write_left_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        write(&path, b"kept").expect("written");
        for name in [".token.00ff00ff00ff00ff.tmp", ".token.0.tmp", ".other.00ff.tmp", ".token.txt.tmp"] {
            fs::write(folder.path().join(name), "left").expect("written");
        }
        sweep(&path).expect("swept");
        assert_eq!(names(folder.path()), [".other.00ff.tmp", ".token.txt.tmp", "token"]);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_or_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        write_open(&path, b"secret").expect("written");
        let secret = read(&path, 64, Profile::Local).expect("read");
        assert_eq!(secret.exposed.map(|e| e.mode), Some(0o644));
        let refused = read(&path, 64, Profile::Hardened).err().expect("refused");
        assert!(matches!(refused, SecretFileError::Exposed(_)));
        assert!(refused.to_string().contains("mode 644 lets others read it; chmod 600 it"));
        assert!(matches!(read(&path, 5, Profile::Local), Err(SecretFileError::TooLong { .. })));
        assert!(matches!(read(folder.path(), 5, Profile::Local), Err(SecretFileError::Read { .. })));
    }
}
