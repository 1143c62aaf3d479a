//! What a program did to its files, in order.

use std::path::{Path, PathBuf};

/// A file, whatever it is called.
pub type Inode = u64;

/// One operation on the folder. Paths are relative to it; the empty one is the folder itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A file was made.
    Create(PathBuf, Inode),
    /// Bytes were written at an offset.
    Write(Inode, u64, Vec<u8>),
    /// A file was cut, or grown with zeros, to that length.
    Truncate(Inode, u64),
    /// All of a file, or of a folder's names, was made to last.
    Sync(PathBuf, Inode),
    /// That failed: what was not yet written may never be.
    SyncLost(PathBuf, Inode),
    /// A name was given to what had another.
    Rename(PathBuf, PathBuf),
    /// A second name was given to what has one.
    Link(PathBuf, PathBuf),
    /// A name was taken away.
    Unlink(PathBuf),
    /// A folder was made.
    MakeFolder(PathBuf),
    /// The test has learnt something.
    Mark(String),
}

/// The header of a record: `struct record` in the shim.
const HEAD: usize = 32;
const MARK: u32 = 8;

/// A mark as a record.
pub(super) fn mark(text: &str) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD + text.len());
    record.extend(MARK.to_ne_bytes());
    record.extend(0_u32.to_ne_bytes());
    record.extend(0_u64.to_ne_bytes());
    record.extend(0_u64.to_ne_bytes());
    record.extend((text.len() as u64).to_ne_bytes());
    record.extend(text.as_bytes());
    record
}

/// The operations of a trace, of files under `folder`. A last record that was cut off is left out.
///
/// # Panics
/// Where it is no trace.
#[must_use]
pub fn read(mut trace: &[u8], folder: &Path) -> Vec<Operation> {
    let mut operations = Vec::new();
    while let Some((head, rest)) = trace.split_first_chunk::<HEAD>() {
        let small = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let large = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let (kind, path_len) = (small(0), small(4) as usize);
        let (inode, offset, data_len) = (large(8), large(16), large(24) as usize);
        let Some((path, rest)) = rest.split_at_checked(path_len) else { break };
        let Some((data, rest)) = rest.split_at_checked(data_len) else { break };
        let under = |path: &[u8]| {
            let path = Path::new(std::str::from_utf8(path).expect("paths of ours are text"));
            path.strip_prefix(folder).unwrap_or(path).to_owned()
        };
        operations.push(match kind {
            1 => Operation::Create(under(path), inode),
            2 => Operation::Write(inode, offset, data.to_vec()),
            3 => Operation::Truncate(inode, offset),
            4 => Operation::Sync(under(path), inode),
            5 => Operation::SyncLost(under(path), inode),
            6 => Operation::Rename(under(path), under(data)),
            7 => Operation::Unlink(under(path)),
            MARK => Operation::Mark(String::from_utf8(data.to_vec()).expect("marks are text")),
            9 => Operation::MakeFolder(under(path)),
            10 => Operation::Link(under(path), under(data)),
            other => panic!("no trace: a record of kind {other}"),
        });
        trace = rest;
    }
    operations
}
