//! The lock of a data folder: one program at a time, released by the kernel when that one ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Held while a program uses a store; also by offline commands that must not run beside it.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
    path: PathBuf,
}

impl StoreLock {
    /// Takes the lock of `folder`, or says that another program has it.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where another program holds it; else what the file system says. The text
    /// names the file and says what to do.
    pub fn take(folder: &Path) -> io::Result<Self> {
        let path = folder.join("store.lock");
        let unusable = |error: io::Error| {
            let told = format!("{}: {error}; the folder must be writable by this user", path.display());
            io::Error::new(error.kind(), told)
        };
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = opened.map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file, path }),
            Err(TryLockError::WouldBlock) => {
                let held = "another program uses this folder; end that one, or use another folder";
                let held = format!("{} is held: {held}", path.display());
                Err(io::Error::new(io::ErrorKind::WouldBlock, held))
            }
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }

    /// The lock's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = StoreLock::take(folder.path()).expect("free");
        let second = StoreLock::take(folder.path()).expect_err("held");
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(first);
        StoreLock::take(folder.path()).expect("free again");
    }
}
