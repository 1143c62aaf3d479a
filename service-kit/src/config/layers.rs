//! The three layers that values come from, before anything is known about their meaning.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::reader::Mistake;

/// A configuration file is never longer than this.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Values by layer, unparsed. No `Debug`: a secret may have been put in the wrong place.
pub struct Layers {
    pub(super) flags: BTreeMap<String, Raw>,
    /// By the variable's whole name.
    pub(super) environment: BTreeMap<String, Raw>,
    pub(super) file: BTreeMap<String, Raw>,
    pub(super) env_prefix: String,
    /// Relative paths in the file start here.
    pub(super) folder: PathBuf,
    pub(super) mistakes: Vec<Mistake>,
    /// What stands in the file is not known.
    pub(super) file_failed: bool,
}

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    One(String),
    Many(Vec<String>),
}

/// Which layer a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    File,
    Environment,
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

impl Layers {
    /// Reads the layers. `env_prefix` is like `INTERLOCK_AUTH`; `<env_prefix>_CONFIG` names the file where
    /// `file` does not; a flag's key is like `public.address`, and the last of two wins.
    ///
    /// A file that cannot be read or parsed is a mistake like any other: it is reported by
    /// [`Reader::finish`](super::Reader::finish).
    #[must_use]
    pub fn read(
        file: Option<&Path>,
        env_prefix: &str,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<(String, String)>,
    ) -> Self {
        let mut layers = Self {
            flags: flags.into_iter().map(|(key, value)| (key, Raw::One(value))).collect(),
            environment: BTreeMap::new(),
            file: BTreeMap::new(),
            env_prefix: env_prefix.to_owned(),
            folder: PathBuf::new(),
            mistakes: Vec::new(),
            file_failed: false,
        };
        for (name, value) in environment {
            layers.take_variable(name, value);
        }
        let named = layers.environment.remove(&format!("{env_prefix}_CONFIG"));
        let named = named.and_then(|raw| match raw {
            Raw::One(path) => Some(PathBuf::from(path)),
            Raw::Many(_) => None,
        });
        if let Some(path) = file.map(Path::to_path_buf).or(named) {
            layers.take_file(&path);
        }
        layers
    }

    /// The name of the variable that sets this key.
    pub(super) fn variable(&self, key: &str) -> String {
        format!("{}_{}", self.env_prefix, key.replace('.', "_").to_uppercase())
    }

    fn take_variable(&mut self, name: OsString, value: OsString) {
        let Ok(name) = name.into_string() else { return };
        if !name.strip_prefix(&self.env_prefix).is_some_and(|rest| rest.starts_with('_')) {
            return;
        }
        match value.into_string() {
            Ok(value) => {
                self.environment.insert(name, Raw::One(value));
            }
            Err(_) => self.mistakes.push(Mistake::new(name, "must be UTF-8")),
        }
    }

    fn take_file(&mut self, path: &Path) {
        self.folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let table = read_bounded(path).and_then(|text| {
            text.parse::<toml::Table>().map_err(|e| match e.span() {
                Some(span) => format!("line {}: {}", line_of(&text, span.start), e.message()),
                None => e.message().to_owned(),
            })
        });
        match table {
            Ok(table) => self.flatten("", table),
            Err(why) => {
                self.mistakes.push(Mistake::new(path.display().to_string(), why));
                self.file_failed = true;
            }
        }
    }

    fn flatten(&mut self, prefix: &str, table: toml::Table) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            match value {
                toml::Value::Table(inner) => self.flatten(&key, inner),
                toml::Value::Array(items) => {
                    let items: Option<Vec<String>> = items.iter().map(scalar).collect();
                    match items {
                        Some(items) => {
                            self.file.insert(key, Raw::Many(items));
                        }
                        None => self.mistakes.push(Mistake::new(key, "a list of plain values")),
                    }
                }
                plain => {
                    let text = scalar(&plain).unwrap_or_default();
                    self.file.insert(key, Raw::One(text));
                }
            }
        }
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(n) => Some(n.to_string()),
        toml::Value::Float(n) => Some(n.to_string()),
        toml::Value::Boolean(b) => Some(b.to_string()),
        toml::Value::Datetime(at) => Some(at.to_string()),
        toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(format!("longer than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}
