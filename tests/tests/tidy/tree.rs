//! The files of the tree, as text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Files by their path from the root, `/` between the parts.
#[derive(Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
    folders: BTreeSet<String>,
}

/// What is not the tree's: what was built, and version control's own.
const NOT_OURS: &[&str] = &[".git", "target", "__pycache__"];

impl Tree {
    /// The tree that this test stands in.
    pub(crate) fn real() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's root");
        let mut tree = Self::default();
        tree.walk(root, "");
        assert!(tree.files.contains_key("Cargo.toml"), "found no tree at {}", root.display());
        tree
    }

    /// A tree of these files.
    pub(crate) fn planted(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for &(path, text) in files {
            for (at, _) in path.match_indices('/') {
                tree.folders.insert(path[..at].to_owned());
            }
            tree.files.insert(path.to_owned(), text.to_owned());
        }
        tree
    }

    /// All files, by path.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The Rust files under `prefix`, by path.
    pub(crate) fn rust<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files().filter(move |(path, _)| path.starts_with(prefix) && path.ends_with(".rs"))
    }

    /// One file.
    pub(crate) fn file(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// The folders at the root.
    pub(crate) fn top(&self) -> BTreeSet<&str> {
        self.folders.iter().map(String::as_str).filter(|f| !f.contains('/')).collect()
    }

    fn walk(&mut self, folder: &Path, prefix: &str) {
        for entry in fs::read_dir(folder).expect("the tree is readable") {
            let entry = entry.expect("the tree is readable");
            let name = entry.file_name().to_string_lossy().into_owned();
            if NOT_OURS.contains(&name.as_str()) {
                continue;
            }
            let path = format!("{prefix}{name}");
            if entry.file_type().expect("known").is_dir() {
                self.walk(&entry.path(), &format!("{path}/"));
                self.folders.insert(path);
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                self.files.insert(path, text);
            }
        }
    }
}
