//! Space on the disk that is kept for what must be done though the disk is full: revocations and their rows.
//!
//! A file of zeros beside the store, as large as a few hundred of them need. On a full disk it is cut, a part at
//! a time, where such a write finds no space; nothing else is admitted until there is space for all of it again,
//! and for some more. It holds nothing: it may be deleted, and is made again.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

/// What is kept.
const BYTES: u64 = 4 << 20;
/// What is given at once.
const PART: u64 = 256 << 10;
/// What must be free besides, before anything else is admitted again: what comes back little by little must not
/// be used up by the first who come.
const BEYOND: u64 = 1 << 20;

/// The kept space of one store.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    needed: bool,
}

impl Reserve {
    /// In this file. Nothing is kept yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, needed: true }
    }

    /// The disk is full.
    pub(super) fn need(&mut self) {
        self.needed = true;
    }

    /// Whether the disk was full when it was last looked at.
    pub(super) fn is_needed(&self) -> bool {
        self.needed
    }

    /// Gives a part of it back to the disk; whether there was any.
    pub(super) fn give(&self) -> bool {
        let given = || -> io::Result<bool> {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            let kept = file.metadata()?.len();
            file.set_len(kept.saturating_sub(PART))?;
            Ok(kept > 0)
        };
        given().unwrap_or(false)
    }

    /// Keeps all of it, at the start.
    ///
    /// # Errors
    /// Where there is too little space; as much as there is is kept, and it is needed.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        self.fill(BYTES)
    }

    /// Keeps all of it again, if there is space for that and for more. It is needed until then.
    ///
    /// # Errors
    /// As [`Reserve::keep`].
    pub(super) fn refill(&mut self) -> io::Result<()> {
        self.fill(BYTES + BEYOND)
    }

    fn fill(&mut self, enough: u64) -> io::Result<()> {
        self.needed = true;
        // Appended: a hole is no space.
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        let filled = grow(&mut file, enough);
        let there = file.metadata()?.len();
        if there > BYTES {
            file.set_len(BYTES)?;
        }
        filled?;
        self.needed = false;
        Ok(())
    }
}

fn grow(file: &mut File, enough: u64) -> io::Result<()> {
    let zeros = [0; 64 << 10];
    let mut missing = enough.saturating_sub(file.metadata()?.len());
    while missing > 0 {
        let part = usize::try_from(missing).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all(&zeros[..part])?;
        missing -= part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_filled_given_in_parts_and_filled_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store-reserve");
        let kept = || std::fs::metadata(&path).map_or(0, |file| file.len());
        let mut reserve = Reserve::new(path.clone());
        assert!(reserve.is_needed() && !reserve.give(), "nothing is kept yet");
        reserve.keep().expect("space");
        assert!(!reserve.is_needed());
        assert_eq!(kept(), BYTES);
        for given in 1..=BYTES / PART {
            reserve.need();
            assert!(reserve.give());
            assert_eq!(kept(), BYTES - given * PART);
        }
        assert!(!reserve.give(), "nothing is left");
        reserve.refill().expect("space");
        assert_eq!((kept(), reserve.is_needed()), (BYTES, false));
    }
}
