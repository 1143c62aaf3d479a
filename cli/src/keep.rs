//! Secrets that outlive a command: the sign-in, a token, cookies. Each in a 0600 file, replaced whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use interlock_client::{Cookie, Credential, OwnerSession, SessionStore};
use interlock_proto::credential::Kind;
use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// No secret file of ours is larger.
const BYTES_MAX: u64 = 64 * 1024;
/// No file of owners is larger.
const LARGE_BYTES_MAX: u64 = 8 << 20;
/// How the names of temporary files begin; the id of the process that writes follows.
const TEMPORARY: &str = ".interlock-";
/// Entries of a folder that are looked at.
const ENTRIES_MAX: usize = 4096;

/// The stored sign-in of one context: an owner session that refreshes itself, or a token.
#[derive(Debug)]
pub(crate) struct SignIn {
    session: PathBuf,
    token: PathBuf,
    lock: PathBuf,
}

impl SignIn {
    /// In `folder`, named after the context file, so that two contexts keep two sign-ins.
    pub(crate) fn beside(folder: &Path, context: &Path) -> Self {
        let stem = context.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let file = |what: &str| folder.join(format!("{stem}.{what}"));
        Self { session: file("session"), token: file("token"), lock: file("lock") }
    }

    /// The stored owner session.
    ///
    /// # Errors
    /// What the file system says; a file that holds something else.
    pub(crate) fn session(&self) -> io::Result<Option<OwnerSession>> {
        let Some(text) = read_if_there(&self.session)? else { return Ok(None) };
        OwnerSession::from_json(&text).map(Some).map_err(|_| not_ours(&self.session))
    }

    /// The stored token.
    ///
    /// # Errors
    /// As [`SignIn::session`].
    pub(crate) fn token(&self) -> io::Result<Option<Credential>> {
        let Some(text) = read_if_there(&self.token)? else { return Ok(None) };
        Credential::parse(text.trim()).map(Some).map_err(|_| not_ours(&self.token))
    }

    /// Keeps a token instead of an owner session.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn keep_token(&self, token: &Credential) -> io::Result<()> {
        let _turn = self.turn()?;
        write_private(&self.token, format!("{}\n", token.expose()).as_bytes())?;
        remove(&self.session)
    }

    /// Keeps an owner session instead of a token.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn keep_session(&self, session: &OwnerSession) -> io::Result<()> {
        let _turn = self.turn()?;
        write_private(&self.session, session.to_json().as_bytes())?;
        remove(&self.token)
    }

    /// Forgets both.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn forget(&self) -> io::Result<()> {
        let _turn = self.turn()?;
        remove(&self.session)?;
        remove(&self.token)
    }

    /// One command at a time changes what is kept: a refresh that is under way elsewhere does not put an owner
    /// session back that was replaced or forgotten meanwhile.
    fn turn(&self) -> io::Result<File> {
        make_folder(folder_of(&self.lock))?;
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&self.lock)?;
        file.lock()?;
        Ok(file)
    }

    /// Where the owner session is.
    pub(crate) fn session_path(&self) -> &Path {
        &self.session
    }
}

impl SessionStore for SignIn {
    fn load(&self) -> io::Result<Option<OwnerSession>> {
        self.session()
    }

    fn store(&self, session: &OwnerSession) -> io::Result<()> {
        write_private(&self.session, session.to_json().as_bytes())
    }

    /// One refresh at a time among all commands of this user.
    fn lock(&self) -> io::Result<Box<dyn Send>> {
        Ok(Box::new(self.turn()?))
    }
}

/// The cookies of sessions that were created from here.
#[derive(Clone, Debug)]
pub(crate) struct Jar {
    folder: PathBuf,
}

impl Jar {
    /// In a folder of its own in `folder`.
    pub(crate) fn beside(folder: &Path) -> Self {
        Self { folder: folder.join("cookies") }
    }

    /// Keeps one.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn keep(&self, cookie: &Cookie) -> io::Result<PathBuf> {
        let path = self.path(cookie.session_id())?;
        write_private(&path, format!("{}\n", cookie.expose()).as_bytes())?;
        Ok(path)
    }

    /// The cookie of that session, if it is here.
    ///
    /// # Errors
    /// As [`SignIn::session`].
    pub(crate) fn of(&self, session_id: &str) -> io::Result<Option<Cookie>> {
        let path = self.path(session_id)?;
        let Some(text) = read_if_there(&path)? else { return Ok(None) };
        Cookie::parse(text.trim()).map(Some).map_err(|_| not_ours(&path))
    }

    /// Forgets the cookie of a session that is gone.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn forget(&self, session_id: &str) -> io::Result<()> {
        remove(&self.path(session_id)?)
    }

    /// Session ids are data, never paths.
    fn path(&self, session_id: &str) -> io::Result<PathBuf> {
        let plain = !session_id.is_empty()
            && session_id.len() <= 64
            && session_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if plain { Ok(self.folder.join(session_id)) } else { Err(io::Error::other("not a session id")) }
    }
}

/// The credential in a file that the user named: alone, or the admin token of an `auth_tokens.json`.
///
/// # Errors
/// Where it cannot be read, or holds no credential.
pub(crate) fn read_token(path: &Path) -> Result<Credential, Failure> {
    let text = read_secret(path)?;
    let alone = Credential::parse(text.trim()).ok();
    let found = alone.or_else(|| serde_json::from_str(&text).ok().as_ref().and_then(admin_token));
    found.ok_or_else(|| Failure::usage(format!("{} holds no credential (ilk_…)", path.display())))
}

/// The one admin role token in a JSON document, wherever it stands.
fn admin_token(json: &Value) -> Option<Credential> {
    match json {
        Value::String(text) => Credential::parse(text).ok().filter(|c| c.kind() == Kind::Admin),
        Value::Array(items) => items.iter().find_map(admin_token),
        Value::Object(fields) => fields.values().find_map(admin_token),
        _ => None,
    }
}

/// The text of a secret file that the user named; a warning where others may read it.
///
/// # Errors
/// Where it cannot be read, or is no text of reasonable size.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    read_bounded(path, BYTES_MAX)
}

/// The same for a file of many secrets.
///
/// # Errors
/// As [`read_secret`].
pub(crate) fn read_large_secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    read_bounded(path, LARGE_BYTES_MAX)
}

fn read_bounded(path: &Path, bytes_max: u64) -> Result<Zeroizing<String>, Failure> {
    let named = |error: io::Error| Failure::local(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(named)?;
    let mode = file.metadata().map_err(named)?.permissions().mode();
    if mode & 0o077 != 0 {
        anstream::eprintln!("interlock: warning: {} can be read by others; chmod 600 it", path.display());
    }
    bounded_text(file, bytes_max).map_err(named)
}

/// Writes a file that only its owner may read: a temporary one, synced, renamed.
///
/// # Errors
/// What the file system says; nothing is left behind then.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    place_private(path, bytes)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display())))
}

fn place_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    make_folder(folder)?;
    clear_away(folder)?;
    let prefix = format!("{TEMPORARY}{}-", std::process::id());
    let mut temporary = tempfile::Builder::new().prefix(&prefix).tempfile_in(folder)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

/// Removes the temporary files of commands that were killed while they wrote: those hold secrets, and nobody
/// else would. The process in a file's name says whether it is still being written.
fn clear_away(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.take(ENTRIES_MAX) {
        let path = entry?.path();
        let writer =
            path.file_name().and_then(|name| name.to_str()?.strip_prefix(TEMPORARY)?.split_once('-'));
        let Some(Ok(writer)) = writer.map(|(writer, _)| writer.parse()) else { continue };
        if Pid::from_raw(writer).is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH)) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn read_if_there(path: &Path) -> io::Result<Option<Zeroizing<String>>> {
    match File::open(path) {
        Ok(file) => bounded_text(file, BYTES_MAX).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

fn bounded_text(file: File, bytes_max: u64) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let read = file.take(bytes_max + 1).read_to_string(&mut text)?;
    if read as u64 > bytes_max { Err(io::Error::other("too large for a secret")) } else { Ok(text) }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn not_ours(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is not what was stored there", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_private_and_a_token_replaces_a_session() {
        let folder = tempfile::tempdir().expect("a folder");
        let sign_in = SignIn::beside(folder.path(), &folder.path().join("context.json"));
        let token = Credential::new(Kind::Admin, &[1; 32]);
        sign_in.keep_token(&token).expect("written");
        assert_eq!(sign_in.token().expect("read"), Some(token));
        let mode = fs::metadata(folder.path().join("context.token")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        sign_in.forget().expect("removed");
        assert_eq!(sign_in.token().expect("read"), None);
    }

    #[test]
    fn what_a_killed_command_was_writing_is_cleared_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut dead = std::process::Command::new("true").spawn().expect("a process");
        let of = |pid: u32| folder.path().join(format!("{TEMPORARY}{pid}-abc"));
        let (left, writing) = (of(dead.id()), of(std::process::id()));
        dead.wait().expect("its end");
        for path in [&left, &writing] {
            fs::write(path, "half a secret").expect("written");
        }
        write_private(&folder.path().join("kept"), b"whole").expect("written");
        assert!(!left.exists() && writing.exists());
    }

    // NC-25: a session id from a server never becomes a path.
    #[test]
    fn a_session_id_is_data() {
        let jar = Jar::beside(Path::new("unused"));
        for hostile in ["", "../x", "a/b", "a.b", "\0", &"a".repeat(65)] {
            assert!(jar.of(hostile).is_err(), "{hostile:?}");
        }
    }
}
