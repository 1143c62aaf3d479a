//! The write-ahead log as it lies: <https://www.sqlite.org/fileformat2.html#walformat>.
//!
//! SQLite takes a log up to its first damaged frame, and one with a damaged header for empty: that is how a write
//! that a power cut tore goes away. Where more is gone than a power cut can take, a start must not go on as if
//! it had never been: commits are synced one by one, and the header before the first of them.

use std::{
    fs::File,
    io::{self, BufReader, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::Connection;

use super::{BUSY_WITHIN, snapshot::Readers};

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 32;
/// Beyond this the log is written back and cut, and reads wait for it: those that never pause keep the
/// ordinary checkpoints, which wait for nobody, from ever coming to the log's end.
const BYTES_MAX: u64 = 64 << 20;
/// How long that waits for the reads in hand, and then for other programs' reads.
const CUT_WITHIN: Duration = Duration::from_millis(250);
/// How many commits lie between two looks at the log; twice as many after each that found it held by a long
/// read, up to the second number.
const LOOK_EVERY: (u32, u32) = (16, 4_096);
const FRAME_HEADER_BYTES: usize = 24;
const MAGIC: u32 = 0x377f_0682;

/// Whether SQLite will read this log at all.
pub(super) fn begins_well(log: &Path) -> io::Result<bool> {
    let mut header = [0; HEADER_BYTES];
    File::open(log)?.read_exact(&mut header)?;
    let words: Vec<[u8; 4]> =
        header.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]).collect();
    let magic = u32::from_be_bytes(words[0]);
    let read = if magic & 1 == 1 { u32::from_be_bytes } else { u32::from_le_bytes };
    let (mut first, mut second) = (0_u32, 0_u32);
    for pair in words[..6].chunks_exact(2) {
        first = first.wrapping_add(read(pair[0])).wrapping_add(second);
        second = second.wrapping_add(read(pair[1])).wrapping_add(first);
    }
    let sums = (u32::from_be_bytes(words[6]), u32::from_be_bytes(words[7]));
    Ok(magic & !1 == MAGIC && sums == (first, second))
}

/// How many commits have been written to it since it was begun, whatever became of their frames.
pub(super) fn commits(log: &Path) -> io::Result<usize> {
    let file = File::open(log)?;
    let frames = file.metadata()?.len().saturating_sub(HEADER_BYTES as u64);
    let mut file = BufReader::new(file);
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header)?;
    let page = u64::from(u32::from_be_bytes([header[8], header[9], header[10], header[11]]));
    let mut commits = 0;
    for _ in 0..frames / (page + FRAME_HEADER_BYTES as u64) {
        let mut frame = [0; FRAME_HEADER_BYTES];
        file.read_exact(&mut frame)?;
        file.seek_relative(i64::try_from(page).map_err(io::Error::other)?)?;
        // The size of the database after the commit; the salts of the log.
        commits += usize::from(frame[4..8] != [0; 4] && frame[8..16] == header[16..24]);
    }
    Ok(commits)
}

/// Writes the whole log back and begins a new one. Of what an earlier process wrote there before its sync failed,
/// the system shows us all and may have kept nothing: what is built upon it would go with it.
pub(super) fn write_back(connection: &Connection) -> rusqlite::Result<()> {
    let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy {
        tracing::warn!("another program reads the store: its log is written back later");
    }
    Ok(())
}

/// Keeps the log short. What was committed is durable whether it can be cut now or not.
pub(super) struct Bound {
    /// None in memory.
    file: Option<PathBuf>,
    readers: Arc<Readers>,
    /// Commits until the next look.
    look_in: u32,
    look_every: u32,
}

impl Bound {
    pub(super) fn new(file: Option<PathBuf>, readers: Arc<Readers>) -> Self {
        Self { file, readers, look_in: LOOK_EVERY.0, look_every: LOOK_EVERY.0 }
    }

    /// After a commit.
    pub(super) fn hold(&mut self, connection: &Connection) {
        self.look_in -= 1;
        if self.look_in > 0 {
            return;
        }
        self.look_in = self.look_every;
        let long = |file: &PathBuf| std::fs::metadata(file).is_ok_and(|log| log.len() > BYTES_MAX);
        if !self.file.as_ref().is_some_and(long) {
            return;
        }
        let is_cut = self.cut(connection).unwrap_or_else(|error| {
            tracing::warn!(%error, "the store's log cannot be cut");
            false
        });
        self.look_every = if is_cut { LOOK_EVERY.0 } else { (self.look_every * 2).min(LOOK_EVERY.1) };
        self.look_in = self.look_every;
    }

    /// Whether nothing was in its way.
    fn cut(&self, connection: &Connection) -> rusqlite::Result<bool> {
        // Most of it while reads go on.
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        let Some(_stopped) = self.readers.stop(CUT_WITHIN) else { return Ok(false) };
        connection.busy_timeout(CUT_WITHIN)?;
        let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        connection.busy_timeout(BUSY_WITHIN)?;
        Ok(!busy?)
    }
}
