//! Typed access to the layers. Notes every mistake; stops at none.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::RangeInclusive,
    path::PathBuf,
};

use super::{
    Profile,
    layers::{Layers, Raw, Source},
    setting::Setting,
};
use crate::store::postgres::{Sharing, Target};

/// A list in configuration is never longer than this.
const LIST_ITEMS_MAX: usize = 256;

/// One mistake in the configuration: where, and what is accepted there. Holds no value, since a value may be
/// a secret that was put in the wrong place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key, the variable or the file.
    pub place: String,
    /// What is accepted.
    pub accepted: String,
}

impl Mistake {
    /// A mistake at a place.
    #[must_use]
    pub fn new(place: impl Into<String>, accepted: impl Into<String>) -> Self {
        Self { place: place.into(), accepted: accepted.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.accepted)
    }
}

/// Reads typed values by key. Each key is read once; what was never read is unknown.
pub struct Reader {
    layers: Layers,
    known: BTreeSet<String>,
    /// Where the value of a known key came from, for mistakes found later.
    sources: BTreeMap<String, Source>,
    mistakes: Vec<Mistake>,
    /// Of the mistakes, how many are of the layers: where the file is one, all others may come from that.
    of_layers: usize,
}

impl Reader {
    /// A reader of these layers.
    #[must_use]
    pub fn new(mut layers: Layers) -> Self {
        let mistakes = std::mem::take(&mut layers.mistakes);
        let of_layers = mistakes.len();
        Self { layers, known: BTreeSet::new(), sources: BTreeMap::new(), mistakes, of_layers }
    }

    /// The value, if the key is set and the value is of the accepted form.
    pub fn optional<T: Setting>(&mut self, key: &str) -> Option<T> {
        let raw = self.take(key)?;
        let value = match &raw {
            Raw::One(text) => T::parse(text),
            Raw::Many(_) => None,
        };
        if value.is_none() {
            self.mistake(key, T::ACCEPTED);
        }
        value
    }

    /// The value, or the default.
    pub fn value<T: Setting>(&mut self, key: &str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The value, or the default; outside of the bounds is a mistake.
    ///
    /// # Panics
    /// When the default lies outside of the bounds.
    pub fn bounded<T: Setting + PartialOrd>(
        &mut self,
        key: &str,
        default: T,
        bounds: RangeInclusive<T>,
    ) -> T {
        assert!(bounds.contains(&default), "the default of {key} lies within its bounds");
        let Some(value) = self.optional(key) else { return default };
        if bounds.contains(&value) {
            return value;
        }
        self.mistake(
            key,
            format!("{}, from {} to {}", T::ACCEPTED, bounds.start().show(), bounds.end().show()),
        );
        default
    }

    /// The value of a key that must be set; `None` is already noted as a mistake.
    pub fn required<T: Setting>(&mut self, key: &str) -> Option<T> {
        let noted = self.mistakes.len();
        let value = self.optional(key);
        if value.is_none() && self.mistakes.len() == noted {
            self.mistake(key, format!("must be set: {}", T::ACCEPTED));
        }
        value
    }

    /// One of a few names, or the default.
    pub fn choice<T: Copy>(&mut self, key: &str, default: T, accepted: &[(&str, T)]) -> T {
        let chosen = match self.take(key) {
            None => return default,
            Some(Raw::One(text)) => accepted.iter().find(|(name, _)| *name == text),
            Some(Raw::Many(_)) => None,
        };
        if let Some((_, value)) = chosen {
            return *value;
        }
        let names: Vec<&str> = accepted.iter().map(|(name, _)| *name).collect();
        self.mistake(key, format!("one of {}", names.join(", ")));
        default
    }

    /// A list: an array in the file, comma-separated in the environment and in flags. Empty where unset.
    pub fn list<T: Setting>(&mut self, key: &str) -> Vec<T> {
        let texts: Vec<String> = match self.take(key) {
            None => return Vec::new(),
            Some(Raw::Many(texts)) => texts,
            Some(Raw::One(text)) => {
                text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()
            }
        };
        if texts.len() > LIST_ITEMS_MAX {
            self.mistake(key, format!("a list of at most {LIST_ITEMS_MAX}"));
            return Vec::new();
        }
        let values: Option<Vec<T>> = texts.iter().map(|text| T::parse(text)).collect();
        if values.is_none() {
            self.mistake(key, format!("a list, each {}", T::ACCEPTED));
        }
        values.unwrap_or_default()
    }

    /// A path. In the file, a relative one starts at the file's folder; in the environment and in flags, at
    /// the working directory. An empty one counts as unset.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        match self.take(key)? {
            Raw::One(text) if text.is_empty() => None,
            Raw::One(text) => {
                let path = PathBuf::from(text);
                let from_file = self.sources.get(key) == Some(&Source::File);
                Some(if from_file { self.layers.folder.join(path) } else { path })
            }
            Raw::Many(_) => {
                self.mistake(key, PathBuf::ACCEPTED);
                None
            }
        }
    }

    /// A database. Other programs of this machine see flags: no password stands there.
    pub fn database(&mut self, key: &str, profile: Profile) -> Option<Target> {
        let accepted = match self.take(key)? {
            Raw::One(url) => match Target::parse(&url, profile) {
                Ok(target) if target.has_password() && self.sources.get(key) == Some(&Source::Flag) => {
                    "no password on a command line: use password_file".to_owned()
                }
                Ok(target) => return Some(target),
                Err(error) => error.to_string(),
            },
            Raw::Many(_) => "one URL".to_owned(),
        };
        self.mistake(key, accepted);
        None
    }

    /// Whether programs share the database of `store`; one has it alone where that is unset.
    pub fn sharing(&mut self, key: &str, store: Option<&Target>) -> Sharing {
        let accepted = [("alone", Sharing::Alone), ("shared", Sharing::Shared)];
        let sharing = self.choice(key, Sharing::Alone, &accepted);
        if sharing == Sharing::Shared && store.is_none() && !self.is_mistaken("store") {
            self.mistake(key, "shared only with a store in a database: set store");
        }
        sharing
    }

    /// Notes a mistake at a key, for rules that span several.
    pub fn mistake(&mut self, key: &str, accepted: impl Into<String>) {
        let place = self.place(key);
        self.mistakes.push(Mistake::new(place, accepted));
    }

    /// Whether a mistake at that key has been noted: what follows from it is none of its own.
    #[must_use]
    pub fn is_mistaken(&self, key: &str) -> bool {
        let place = self.place(key);
        self.mistakes.iter().any(|mistake| mistake.place == place)
    }

    fn place(&self, key: &str) -> String {
        match self.sources.get(key) {
            Some(Source::Environment) => format!("{key} ({})", self.layers.variable(key)),
            Some(source) => format!("{key} ({source})"),
            None => key.to_owned(),
        }
    }

    /// Ends reading.
    ///
    /// # Errors
    /// All mistakes, the unknown keys last, each with the nearest known one. Only that of the file where it could
    /// not be read: what is missing may stand in it.
    pub fn finish(mut self) -> Result<(), Vec<Mistake>> {
        if self.layers.file_failed {
            self.mistakes.truncate(self.of_layers);
            return Err(self.mistakes);
        }
        let left = [
            (Source::File, std::mem::take(&mut self.layers.file)),
            (Source::Environment, std::mem::take(&mut self.layers.environment)),
            (Source::Flag, std::mem::take(&mut self.layers.flags)),
        ];
        for (source, keys) in left {
            for key in keys.into_keys() {
                let known: Vec<String> = match source {
                    Source::Environment => self.known.iter().map(|k| self.layers.variable(k)).collect(),
                    Source::File | Source::Flag => self.known.iter().cloned().collect(),
                };
                let hint = nearest(&key, &known).map(|k| format!("; did you mean {k}?")).unwrap_or_default();
                self.mistakes.push(Mistake::new(format!("{key} ({source})"), format!("unknown key{hint}")));
            }
        }
        if self.mistakes.is_empty() { Ok(()) } else { Err(self.mistakes) }
    }

    fn take(&mut self, key: &str) -> Option<Raw> {
        assert!(self.known.insert(key.to_owned()), "{key} is read once");
        let variable = self.layers.variable(key);
        let layers = [
            (Source::File, self.layers.file.remove(key)),
            (Source::Environment, self.layers.environment.remove(&variable)),
            (Source::Flag, self.layers.flags.remove(key)),
        ];
        let (source, raw) = layers.into_iter().rev().find_map(|(s, raw)| Some((s, raw?)))?;
        self.sources.insert(key.to_owned(), source);
        Some(raw)
    }
}

/// The known key that takes the fewest edits, if that is few enough to be a typing mistake.
fn nearest<'a>(key: &str, known: &'a [String]) -> Option<&'a str> {
    let close = (key.len() / 3).clamp(2, 8);
    let best = known.iter().map(|k| (edits(key, k), k)).min()?;
    (best.0 <= close).then_some(best.1.as_str())
}

/// Levenshtein distance, bytewise.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, time::Duration};

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect()
    }

    fn flags(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("auth.toml");
        std::fs::write(&path, text).expect("a file");
        (folder, path)
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let (folder, path) = written("a = \"file\"\n[s]\nb_c = \"file\"\nd = 5\nkey = \"x.pem\"\n");
        let layers = Layers::read(
            Some(&path),
            "P",
            env(&[("P_S_B_C", "env"), ("P_A", "env"), ("HOME", "/")]),
            flags(&[("a", "flag")]),
        );
        let mut r = Reader::new(layers);
        assert_eq!(r.value("a", String::new()), "flag");
        assert_eq!(r.value("s.b_c", String::new()), "env");
        assert_eq!(r.bounded("s.d", 1_u32, 1..=9), 5);
        assert_eq!(r.path("s.key"), Some(folder.path().join("x.pem")));
        assert_eq!(r.value("s.unset", Duration::from_secs(3)), Duration::from_secs(3));
        assert_eq!(r.finish(), Ok(()));
    }

    #[test]
    fn the_environment_can_name_the_file() {
        let (_folder, path) = written("list = [\"a\", \"b\"]\n");
        let layers = Layers::read(None, "P", env(&[("P_CONFIG", path.to_str().expect("text"))]), vec![]);
        let mut r = Reader::new(layers);
        assert_eq!(r.list::<String>("list"), ["a", "b"]);
        assert_eq!(r.finish(), Ok(()));
    }

    #[test]
    fn all_mistakes_are_reported_together_without_values() {
        let (_folder, path) = written("[public]\nadress = \"127.0.0.1:1\"\ntimeout = 10\n");
        let layers = Layers::read(
            Some(&path),
            "P",
            env(&[("P_PUBLIC_AGE", "s3cret"), ("P_PUBLIC_TIMEOUTS", "1s")]),
            flags(&[("profile", "soft"), ("public.streams", "0")]),
        );
        let mut r = Reader::new(layers);
        assert!(r.required::<std::net::SocketAddr>("public.address").is_none());
        r.value("public.timeout", Duration::ZERO);
        r.value("public.age", Duration::ZERO);
        r.bounded("public.streams", 4_u32, 1..=8);
        r.choice("profile", 0, &[("local", 0), ("hardened", 1)]);
        let lines: Vec<String> = r.finish().expect_err("mistakes").iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "public.address: must be set: an IP address and a port, like 127.0.0.1:7443 or [::1]:7443",
                "public.timeout (file): a duration like 250ms, 10s, 15m, 12h or 14d",
                "public.age (P_PUBLIC_AGE): a duration like 250ms, 10s, 15m, 12h or 14d",
                "public.streams (flag): a whole number, from 1 to 8",
                "profile (flag): one of local, hardened",
                "public.adress (file): unknown key; did you mean public.address?",
                "P_PUBLIC_TIMEOUTS (environment): unknown key; did you mean P_PUBLIC_TIMEOUT?",
            ]
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_one_of_the_mistakes() {
        let (_folder, path) = written("a = 1\nb = = 2\n");
        let broken = Reader::new(Layers::read(Some(&path), "P", env(&[]), vec![])).finish();
        let line = broken.expect_err("a mistake")[0].to_string();
        assert!(line.contains("auth.toml: line 2"), "{line}");
        let absent = Layers::read(Some(&path.with_file_name("no")), "P", env(&[]), flags(&[("x", "1")]));
        // What else may be wrong could stand in it: only that it is not there is told.
        let told = Reader::new(absent).finish().expect_err("a mistake");
        assert!(told.len() == 1 && told[0].to_string().contains("no"), "{told:?}");
    }
}
