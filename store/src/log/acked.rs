//! How many flushes were acknowledged, in a small file beside the log.
//!
//! After a crash redb falls back to the transaction before the last one when the last one's pages are not whole. That is right for
//! a write that the crash has torn, and wrong for one that was acknowledged and then damaged: the log would come up whole, and
//! shorter. This file tells the two apart. It is written without a sync, after the log's own: kill -9 takes nothing from it, a
//! power cut may leave it behind the log, and it is never ahead of what was acknowledged.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::checked;

const KEY: &[u8] = b"flushes acknowledged";

/// The open file.
pub(super) struct Acked(File);

impl Acked {
    /// Opens the file of the log at `log`, with the count that it holds. A torn or altered count is none.
    pub(super) fn open(log: &Path) -> io::Result<(Acked, Option<u64>)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(log.with_extension("acked"))?;
        let mut value = [0; 12];
        let count = match file.read_exact_at(&mut value, 0) {
            Ok(()) => checked::proven(KEY, &value).and_then(|count| count.try_into().ok().map(u64::from_le_bytes)),
            Err(_) => None,
        };
        Ok((Acked(file), count))
    }

    /// Notes that so many flushes have been acknowledged.
    pub(super) fn note(&self, flushes: u64) -> io::Result<()> {
        self.0.write_all_at(&checked::stamp(KEY, &flushes.to_le_bytes()), 0)
    }
}
