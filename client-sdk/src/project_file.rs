//! The project file: `interlock.json` at the root of a working folder says which project the calls from there, and
//! from every folder below, are for (DESIGN 10, lock 3).
//!
//! It is plain JSON, meant to be committed, and holds no secret. It is no security boundary either: servers never
//! see it, and judge the project that a call names like any other claim. What this version does not know in it is
//! kept as it is.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use interlock_proto::{credential, text};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{auth::Project, config, error::Error};

/// How the file is called.
pub const PROJECT_FILE: &str = "interlock.json";
/// The version of its fields that this code writes.
const SCHEMA: u64 = 1;
/// No project file is larger.
const BYTES_MAX: u64 = 64 * 1024;
const URL_BYTES_MAX: usize = 2048;

/// What a folder is bound to.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectFile {
    /// `prj_…`, or `system`: what calls name.
    pub project_id: String,
    /// The project's name when the file was written, for people.
    pub project_name: String,
    /// The gateway that the project was found at. For people: no credential is sent anywhere because of it.
    pub api_url: String,
    /// When the folder was bound, in milliseconds.
    pub created_at: SystemTime,
    /// Fields of others.
    rest: Map<String, Value>,
}

/// A project file, and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundProject {
    /// What it says.
    pub file: ProjectFile,
    /// Its absolute path, with no symbolic links in its folders.
    pub path: PathBuf,
}

/// The file's text.
#[derive(Serialize, Deserialize)]
struct Document {
    schema: u64,
    project_id: String,
    project_name: String,
    api_url: String,
    created_at: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl ProjectFile {
    /// Binds to `project`, found at the gateway `api_url`, at `now`.
    #[must_use]
    pub fn of(project: &Project, api_url: impl Into<String>, now: SystemTime) -> Self {
        Self {
            project_id: project.project_id.clone(),
            project_name: project.name.clone(),
            api_url: api_url.into(),
            created_at: now,
            rest: Map::new(),
        }
    }

    /// The same binding, with what `before` holds of others.
    #[must_use]
    pub fn replacing(self, before: Self) -> Self {
        Self { rest: before.rest, ..self }
    }

    /// Looks for the project file of `folder`: there, then in each folder above it. The nearest one wins. The walk
    /// stops before the user's home (`HOME`) and before the root of the file system.
    ///
    /// Call it at each invocation, not once for a program's life: the folder decides, and the file may change.
    ///
    /// # Errors
    /// Where `folder` is not there; where the nearest file cannot be read or is no project file: a folder with a
    /// broken one is not one without.
    pub fn discover(folder: impl AsRef<Path>) -> Result<Option<FoundProject>, Error> {
        Self::discover_below(folder, config::home().as_deref())
    }

    /// As [`ProjectFile::discover`], with another folder in the place of the user's home.
    ///
    /// # Errors
    /// As there.
    pub fn discover_below(
        folder: impl AsRef<Path>,
        home: Option<&Path>,
    ) -> Result<Option<FoundProject>, Error> {
        let folder = folder.as_ref();
        // Without symbolic links there is one way up, and it ends.
        let start = folder.canonicalize().map_err(|error| unusable(folder, error))?;
        let home = home.and_then(|home| home.canonicalize().ok());
        for folder in start.ancestors() {
            if is_outside(folder, home.as_deref()) {
                break;
            }
            let path = folder.join(PROJECT_FILE);
            match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unusable(&path, error)),
                // Also where it leads nowhere: that is a broken file, not none.
                Ok(_) => return Self::read(&path).map(|file| Some(FoundProject { file, path })),
            }
        }
        Ok(None)
    }

    /// Reads a project file.
    ///
    /// # Errors
    /// Where it cannot be read, is larger than 64 KiB, or is no project file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text = bounded_text(path).map_err(|error| unusable(path, error))?;
        Self::parse(&text).map_err(|what| unusable(path, what))
    }

    /// Writes it into `folder`, in the place of one that is there: a temporary file, synced, renamed. Gives the
    /// file's absolute path.
    ///
    /// # Errors
    /// What the file system says; a text in it that is a credential. Nothing is changed then. A folder that
    /// [`ProjectFile::discover`] would not look into: the user's home, the root.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<PathBuf, Error> {
        let folder = folder.as_ref();
        let folder = folder.canonicalize().map_err(|error| unusable(folder, error))?;
        let path = folder.join(PROJECT_FILE);
        if is_outside(&folder, config::home().and_then(|home| home.canonicalize().ok()).as_deref()) {
            return Err(unusable(&path, "neither the home folder nor the root is a project's folder"));
        }
        let text = self.text().map_err(|what| unusable(&path, what))?;
        place(&folder, &path, &text).map_err(|error| unusable(&path, error))?;
        Ok(path)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let read: Document = serde_json::from_str(text)
            .map_err(|error| format!("no project file (line {}, column {})", error.line(), error.column()))?;
        if read.schema != SCHEMA {
            return Err(format!("schema {} is not known to this version", read.schema));
        }
        let created_at: jiff::Timestamp =
            read.created_at.parse().map_err(|_| "created_at is no instant of RFC 3339".to_owned())?;
        let Document { project_id, project_name, api_url, rest, .. } = read;
        let file = Self { project_id, project_name, api_url, created_at: created_at.into(), rest };
        file.check().map(|()| file)
    }

    fn check(&self) -> Result<(), String> {
        if !text::is_name(&self.project_id) {
            return Err("project_id is no project's id".to_owned());
        }
        if !text::is_name(&self.project_name) {
            return Err("project_name is no project's name".to_owned());
        }
        let scheme = self.api_url.starts_with("https://") || self.api_url.starts_with("http://");
        if !scheme || self.api_url.len() > URL_BYTES_MAX || self.api_url.contains(text::is_hidden) {
            return Err("api_url is no URL".to_owned());
        }
        Ok(())
    }

    /// What is written. Never a credential (it is committed).
    fn text(&self) -> Result<String, String> {
        self.check()?;
        let at = jiff::Timestamp::try_from(self.created_at).map_err(|error| error.to_string())?;
        let document = Document {
            schema: SCHEMA,
            project_id: self.project_id.clone(),
            project_name: self.project_name.clone(),
            api_url: self.api_url.clone(),
            created_at: format!("{at:.3}"),
            rest: self.rest.clone(),
        };
        let text = serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?;
        if credential::is_in(&text) {
            return Err("it would hold a credential, and it is a file to be committed".to_owned());
        }
        if text.len() as u64 > BYTES_MAX {
            return Err("it would be too large".to_owned());
        }
        Ok(text + "\n")
    }
}

/// Whether no project file is looked for there.
fn is_outside(folder: &Path, home: Option<&Path>) -> bool {
    folder.parent().is_none() || home == Some(folder)
}

fn bounded_text(path: &Path) -> io::Result<String> {
    // A pipe would keep whoever opens it waiting.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut text = String::new();
    let read = File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > BYTES_MAX { Err(io::Error::other("too large for a project file")) } else { Ok(text) }
}

fn place(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    let readable = Permissions::from_mode(0o644);
    let mut temporary =
        tempfile::Builder::new().prefix(".interlock-").permissions(readable).tempfile_in(folder)?;
    temporary.write_all(text.as_bytes())?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::local(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn project(id: &str) -> Project {
        let (project_id, name, created_by) = (id.to_owned(), "demo".to_owned(), "ann".to_owned());
        Project { project_id, name, created_by, created_at: None }
    }

    fn bind(folder: &Path, id: &str) -> PathBuf {
        fs::create_dir_all(folder).expect("a folder");
        ProjectFile::of(&project(id), "https://127.0.0.1:7402", SystemTime::UNIX_EPOCH)
            .write(folder)
            .expect("written")
    }

    /// The project of the nearest file, with `home` as the user's home.
    fn bound(folder: &Path, home: &Path) -> Option<String> {
        ProjectFile::discover_below(folder, Some(home)).expect("readable").map(|found| found.file.project_id)
    }

    // SQ-06, SQ-07
    #[test]
    fn a_file_is_the_same_after_a_round_trip_and_unknown_fields_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(1_700_000_000_123_456);
        let file = ProjectFile::of(&project("prj_1"), "https://127.0.0.1:7402", at);
        let path = file.write(folder.path()).expect("written");
        let text = fs::read_to_string(&path).expect("there");
        let mut json: Value = serde_json::from_str(&text).expect("plain JSON");
        assert_eq!(json["schema"], 1);
        assert_eq!(json["project_id"], "prj_1");
        assert_eq!(json["project_name"], "demo");
        assert_eq!(json["api_url"], "https://127.0.0.1:7402");
        assert_eq!(json["created_at"], "2023-11-14T22:13:20.123Z", "RFC 3339, milliseconds, UTC");
        json["team"] = serde_json::json!({ "name": "blue", "of": [1, 2] });
        fs::write(&path, json.to_string()).expect("written");
        let again = ProjectFile::read(&path).expect("read");
        let next = ProjectFile::of(&project("prj_2"), "https://127.0.0.1:7402", at).replacing(again);
        next.write(folder.path()).expect("written");
        let text = fs::read_to_string(&path).expect("there");
        let kept: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&kept["project_id"], &kept["team"]), (&"prj_2".into(), &json["team"]));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "no temporary file is left");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o600, 0o600);
    }

    // SQ-08
    #[test]
    fn a_credential_is_never_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = credential::Credential::new(credential::Kind::Project, &[7; 32]);
        let mut file = ProjectFile::of(&project("prj_1"), "https://127.0.0.1:7402", SystemTime::UNIX_EPOCH);
        file.rest.insert("token".to_owned(), Value::from(format!("x {} y", secret.expose())));
        let refused = file.write(folder.path()).expect_err("a credential");
        assert!(!refused.to_string().contains(secret.expose()), "{refused}");
        assert!(!folder.path().join(PROJECT_FILE).exists());
    }

    // SQ-15, SQ-31
    #[test]
    fn the_nearest_file_wins_and_the_walk_stops_before_home_and_root() {
        let home = tempfile::tempdir().expect("a folder");
        let work = home.path().join("work");
        let nested = work.join("a/b/c");
        fs::create_dir_all(&nested).expect("folders");
        fs::write(home.path().join(PROJECT_FILE), "not even JSON").expect("written");
        assert_eq!(bound(&nested, home.path()), None, "home is not looked into");
        assert_eq!(bound(home.path(), home.path()), None);
        assert_eq!(bound(Path::new("/"), home.path()), None);
        let path = bind(&work, "prj_outer");
        assert_eq!(bound(&nested, home.path()), Some("prj_outer".to_owned()));
        bind(&work.join("a/b"), "prj_inner");
        assert_eq!(bound(&nested, home.path()), Some("prj_inner".to_owned()));
        assert_eq!(bound(&work.join("a"), home.path()), Some("prj_outer".to_owned()));
        let found = ProjectFile::discover_below(&work, Some(home.path())).expect("readable").expect("there");
        assert_eq!(found.path, path);
        assert!(found.path.is_absolute());
    }

    // SQ-15
    #[test]
    fn symbolic_links_neither_loop_nor_lead_past_home() {
        let home = tempfile::tempdir().expect("a folder");
        let work = home.path().join("work");
        bind(&work, "prj_1");
        symlink(&work, work.join("again")).expect("a link");
        assert_eq!(bound(&work.join("again/again/again"), home.path()), Some("prj_1".to_owned()));
        symlink("loop", work.join("loop")).expect("a link");
        assert!(ProjectFile::discover_below(work.join("loop"), Some(home.path())).is_err());
        let linked_home = work.join("home");
        symlink(home.path(), &linked_home).expect("a link");
        fs::write(home.path().join(PROJECT_FILE), "{}").expect("written");
        fs::create_dir(home.path().join("other")).expect("a folder");
        assert_eq!(bound(&linked_home.join("other"), &linked_home), None);
        let looped = work.join("looped");
        fs::create_dir(&looped).expect("a folder");
        symlink(PROJECT_FILE, looped.join(PROJECT_FILE)).expect("a link");
        assert!(ProjectFile::discover_below(&looped, Some(home.path())).is_err(), "broken is not absent");
    }

    #[test]
    fn what_is_no_project_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = bind(folder.path(), "prj_1");
        let good: Value = serde_json::from_str(&fs::read_to_string(&path).expect("there")).expect("JSON");
        let with = |field: &str, value: Value| {
            let mut json = good.clone();
            json[field] = value;
            json.to_string()
        };
        for bad in [
            String::new(),
            "[]".to_owned(),
            "{}".to_owned(),
            with("schema", 2.into()),
            with("project_id", "a\r\nb".into()),
            with("project_id", "".into()),
            with("project_name", "\u{202e}".into()),
            with("api_url", "file:///etc".into()),
            with("created_at", "yesterday".into()),
            with("padding", "x".repeat(70_000).into()),
        ] {
            fs::write(&path, &bad).expect("written");
            assert!(ProjectFile::read(&path).is_err(), "{bad:.80}");
        }
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("a folder");
        assert!(ProjectFile::read(&path).is_err(), "a folder of that name");
    }
}
