//! Tells whoever started a service that it serves, and where: servers bind port 0 in tests.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::secret_file::{self, SecretFileError};

/// A file `{"pid": 42, "public": "127.0.0.1:1234", …}` that is there while the service serves.
#[derive(Debug)]
pub struct ReadyFile {
    path: PathBuf,
    contents: Vec<u8>,
}

impl ReadyFile {
    /// Whether it could be written there, before anything else is done.
    ///
    /// # Errors
    /// [`SecretFileError::Read`], of the folder or of what is in the file's place.
    pub fn check(path: &Path) -> Result<(), SecretFileError> {
        let failed = |source| SecretFileError::Read { path: path.to_owned(), source };
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let kind = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        if !fs::metadata(folder).map_err(failed)?.is_dir() {
            return Err(failed(kind("ready_file: not in a folder")));
        }
        match fs::metadata(path) {
            Ok(found) if !found.is_file() => Err(failed(kind("ready_file: not a regular file"))),
            _ => Ok(()),
        }
    }

    /// Writes it whole: who sees the file sees all of it. Replaces an earlier process's.
    ///
    /// # Errors
    /// [`SecretFileError::Write`]
    pub fn write(
        path: &Path,
        addresses: impl IntoIterator<Item = (&'static str, SocketAddr)>,
    ) -> Result<Self, SecretFileError> {
        let mut object = Map::new();
        object.insert("pid".to_owned(), Value::from(std::process::id()));
        for (listener, address) in addresses {
            object.insert(listener.to_owned(), Value::from(address.to_string()));
        }
        let contents = format!("{}\n", Value::Object(object)).into_bytes();
        secret_file::write_open(path, &contents)?;
        Ok(Self { path: path.to_owned(), contents })
    }
}

impl Drop for ReadyFile {
    /// Removes it, unless another process's stands there by now.
    fn drop(&mut self) {
        let ours = fs::read(&self.path).is_ok_and(|contents| contents == self.contents);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the ready file stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_there_while_held_and_names_the_addresses() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ready.json");
        let address = SocketAddr::from(([127, 0, 0, 1], 1234));
        let ready = ReadyFile::write(&path, [("public", address)]).expect("written");
        let read: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        assert_eq!(read["public"], "127.0.0.1:1234");
        assert_eq!(read["pid"], std::process::id());
        drop(ready);
        assert!(!path.exists());

        let ready = ReadyFile::write(&path, [("public", address)]).expect("written");
        fs::write(&path, "another's").expect("written");
        drop(ready);
        assert!(path.exists());
    }
}
