//! What a power cut leaves of a folder: whatever was synced, and of everything else any part.
//!
//! Stricter than most file systems: writes reach the disk in any order, by blocks, and a write may be torn;
//! a name lasts only once its folder is synced, in any order, too. A sync that failed leaves pages that count
//! as written and never will be, unless they are written again.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use interlock_tests::faults::{Inode, Operation};
use rand::{Rng, RngExt as _};

/// What a disk writes whole, and what a system writes whole where nothing goes wrong.
const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

/// How much of what was not synced is there after the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Nothing,
    Everything,
    /// Each page, or each sector, or not.
    Some,
    /// All up to some operation, of which a part.
    Beginning,
}

#[derive(Clone, Default)]
struct Contents {
    durable: Vec<u8>,
    /// Not yet synced, in order.
    pending: Vec<Change>,
    /// Written before a sync that failed: never written by a later one.
    lost: Vec<(u64, Vec<u8>)>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Clone)]
enum Naming {
    Is(PathBuf, Inode),
    Gone(PathBuf),
    Moved(PathBuf, PathBuf, Inode),
}

/// The folder, as the program sees it and as it is on the disk.
#[derive(Default)]
pub(crate) struct Disk {
    files: BTreeMap<u64, Contents>,
    /// An inode's number is used again: which file it is now.
    now: BTreeMap<Inode, u64>,
    made: u64,
    seen: BTreeMap<PathBuf, u64>,
    named: BTreeMap<PathBuf, u64>,
    naming: Vec<Naming>,
    /// Folders in the folder, which nothing is written into here: they may be there or not.
    folders: Vec<PathBuf>,
}

impl Disk {
    /// The program does this.
    pub(crate) fn take(&mut self, operation: &Operation) {
        match operation {
            Operation::Create(path, inode) => {
                self.made += 1;
                self.now.insert(*inode, self.made);
                self.files.insert(self.made, Contents::default());
                self.seen.insert(path.clone(), self.made);
                self.naming.push(Naming::Is(path.clone(), self.made));
            }
            Operation::Write(inode, offset, data) => {
                self.file(*inode).pending.push(Change::Write(*offset, data.clone()));
            }
            Operation::Truncate(inode, length) => self.file(*inode).pending.push(Change::Length(*length)),
            Operation::Sync(path, _) if path.as_os_str().is_empty() => self.sync_names(),
            Operation::Sync(_, inode) => self.file(*inode).sync(),
            Operation::SyncLost(path, _) if path.as_os_str().is_empty() => {}
            Operation::SyncLost(_, inode) => self.file(*inode).lose(),
            Operation::Rename(from, to) => {
                let file = self.seen.remove(from).expect("a file is there before it is renamed");
                self.seen.insert(to.clone(), file);
                self.naming.push(Naming::Moved(from.clone(), to.clone(), file));
            }
            Operation::Link(from, to) => {
                let file = self.seen[from];
                self.seen.insert(to.clone(), file);
                self.naming.push(Naming::Is(to.clone(), file));
            }
            Operation::Unlink(path) => {
                self.seen.remove(path);
                self.naming.push(Naming::Gone(path.clone()));
            }
            Operation::MakeFolder(path) => self.folders.push(path.clone()),
            Operation::Mark(_) => {}
        }
    }

    fn file(&mut self, inode: Inode) -> &mut Contents {
        let file = self.now.get(&inode).expect("a file is made before it is written");
        self.files.get_mut(file).expect("files stay")
    }

    fn sync_names(&mut self) {
        for naming in std::mem::take(&mut self.naming) {
            naming.apply(&mut self.named);
        }
    }

    /// Writes what a cut leaves into `folder`, which is empty.
    pub(crate) fn cut(&self, kept: Kept, rng: &mut impl Rng, folder: &Path) {
        let mut named = self.named.clone();
        let until = rng.random_range(0..=self.naming.len());
        for (place, naming) in self.naming.iter().enumerate() {
            if kept.keeps(rng, place, until) {
                naming.apply(&mut named);
            }
        }
        for (place, path) in self.folders.iter().enumerate() {
            if kept.keeps(rng, place, until) {
                fs::create_dir_all(folder.join(path)).expect("room for it");
            }
        }
        for (path, file) in named {
            let contents = self.files[&file].left(kept, rng);
            fs::write(folder.join(path), contents).expect("room for it");
        }
    }
}

impl Kept {
    fn keeps(self, rng: &mut impl Rng, place: usize, until: usize) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Some => rng.random(),
            Self::Beginning => place < until,
        }
    }
}

impl Naming {
    fn apply(&self, named: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Is(path, file) => {
                named.insert(path.clone(), *file);
            }
            Self::Gone(path) => {
                named.remove(path);
            }
            Self::Moved(from, to, file) => {
                named.remove(from);
                named.insert(to.clone(), *file);
            }
        }
    }
}

impl Contents {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            if let Change::Write(offset, data) = &change {
                self.lost = self.lost.iter().flat_map(|lost| without(lost, *offset, data.len())).collect();
            }
            change.apply(&mut self.durable);
        }
    }

    fn lose(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Write(offset, data) => self.lost.push((offset, data)),
                // A length is the file system's own, and written by it in its time.
                Change::Length(_) => change.apply(&mut self.durable),
            }
        }
    }

    fn left(&self, kept: Kept, rng: &mut impl Rng) -> Vec<u8> {
        let mut left = self.durable.clone();
        let until = rng.random_range(0..=self.pending.len());
        let unit = if rng.random() { SECTOR } else { PAGE };
        for (offset, data) in &self.lost {
            if kept.keeps(rng, 0, until) {
                Change::Write(*offset, data.clone()).apply(&mut left);
            }
        }
        for (place, change) in self.pending.iter().enumerate() {
            match change {
                Change::Write(offset, data)
                    if kept == Kept::Some || kept == Kept::Beginning && place == until =>
                {
                    for (offset, data) in blocks(*offset, data, unit) {
                        if rng.random() {
                            Change::Write(offset, data.to_vec()).apply(&mut left);
                        }
                    }
                }
                change if kept.keeps(rng, place, until) => change.apply(&mut left),
                _ => {}
            }
        }
        left
    }
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let (from, to) = (index(*offset), index(*offset) + data.len());
                if file.len() < to {
                    file.resize(to, 0);
                }
                file[from..to].copy_from_slice(data);
            }
            Self::Length(length) => file.resize(index(*length), 0),
        }
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("small files")
}

/// The parts of a write by the blocks of the disk that they lie in.
fn blocks(offset: u64, data: &[u8], unit: u64) -> Vec<(u64, &[u8])> {
    let mut parts = Vec::new();
    let (mut at, mut rest) = (offset, data);
    while !rest.is_empty() {
        let here = index(unit - at % unit).min(rest.len());
        let (part, further) = rest.split_at(here);
        parts.push((at, part));
        (at, rest) = (at + here as u64, further);
    }
    parts
}

/// What is left of a write where another one has been written over it.
fn without((at, data): &(u64, Vec<u8>), offset: u64, len: usize) -> Vec<(u64, Vec<u8>)> {
    let (end, over_end) = (at + data.len() as u64, offset + len as u64);
    let before = index(offset.clamp(*at, end) - at);
    let after = index(over_end.clamp(*at, end) - at);
    if before >= after {
        return vec![(*at, data.clone())];
    }
    let parts = [(*at, data[..before].to_vec()), (at + after as u64, data[after..].to_vec())];
    parts.into_iter().filter(|(_, data)| !data.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn after(operations: &[Operation], kept: Kept) -> BTreeMap<String, Vec<u8>> {
        let mut disk = Disk::default();
        operations.iter().for_each(|operation| disk.take(operation));
        let folder = tempfile::tempdir().expect("a folder");
        disk.cut(kept, &mut StdRng::seed_from_u64(1), folder.path());
        let entries = fs::read_dir(folder.path()).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").path())
            .map(|path| {
                (
                    path.file_name().expect("named").to_string_lossy().into_owned(),
                    fs::read(path).expect("a file"),
                )
            })
            .collect()
    }

    #[test]
    fn what_was_synced_is_there_and_a_name_where_its_folder_was() {
        let (file, top) = (|| PathBuf::from("file"), PathBuf::new);
        let write = |offset, text: &[u8]| Operation::Write(7, offset, text.to_vec());
        let mut all = vec![Operation::Create(file(), 7), write(0, b"one"), Operation::Sync(file(), 7)];
        assert!(after(&all, Kept::Nothing).is_empty(), "nobody synced the folder");
        assert_eq!(after(&all, Kept::Everything)["file"], b"one");
        all.extend([Operation::Sync(top(), 1), write(3, b"two"), Operation::Rename(file(), "other".into())]);
        assert_eq!(after(&all, Kept::Nothing)["file"], b"one");
        assert_eq!(after(&all, Kept::Everything)["other"], b"onetwo");
    }

    #[test]
    fn what_a_failed_sync_has_lost_comes_back_only_where_it_is_written_again() {
        let write = |offset, text: &[u8]| Operation::Write(7, offset, text.to_vec());
        let mut all =
            vec![Operation::Create("file".into(), 7), Operation::Sync("".into(), 1), write(0, b"lost")];
        all.extend([Operation::SyncLost("file".into(), 7), Operation::Sync("file".into(), 7)]);
        assert_eq!(after(&all, Kept::Nothing)["file"], b"");
        all.extend([write(1, b"aine"), Operation::Sync("file".into(), 7)]);
        assert_eq!(after(&all, Kept::Nothing)["file"], b"\0aine");
    }
}
