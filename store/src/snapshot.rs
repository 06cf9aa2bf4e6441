//! The state in one file: magic and format, what raft and the index were, every row, and a SHA-256 over all of it.
//!
//! Written beside its place and renamed, so that it is there whole or not at all; read twice, first to verify, then to use.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use redb::{ReadTransaction, ReadableTable};
use sha2::{Digest, Sha256};

use crate::disk::sync_dir_of;
use crate::error::StoreError;
use crate::rows::{MARKS, STATE, mark, row_value};

const MAGIC: &[u8; 8] = b"MCPSNAP1";
/// Where raft's own mark is kept.
pub(crate) const RAFT_MARK: &str = "raft";
/// Where the index of the last applied entry is kept, as eight bytes.
pub(crate) const INDEX_MARK: &str = "index";
const DIGEST_BYTES: usize = 32;
/// Longest key or value in a snapshot: anything longer is no snapshot of ours.
const FIELD_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// What raft stored with the last entry in it.
    pub mark: Vec<u8>,
    /// The log index of that entry.
    pub index: u64,
    /// Rows.
    pub rows: u64,
    /// SHA-256 over everything before it.
    pub sha256: [u8; 32],
}

/// Packs what `txn` sees.
pub(crate) fn write(txn: &ReadTransaction, file: &Path) -> Result<SnapshotInfo, StoreError> {
    let beside = file.with_extension("tmp");
    let written = write_to(txn, &beside);
    let info = written.inspect_err(|_| {
        // What was written so far is of no use; that it stays behind is no harm either.
        let _removed = std::fs::remove_file(&beside);
    })?;
    std::fs::rename(&beside, file).map_err(StoreError::io)?;
    sync_dir_of(file).map_err(StoreError::io)?;
    Ok(info)
}

fn write_to(txn: &ReadTransaction, path: &Path) -> Result<SnapshotInfo, StoreError> {
    let marks = txn.open_table(MARKS)?;
    let raft_mark = mark(&marks, RAFT_MARK)?.unwrap_or_default();
    let index = mark(&marks, INDEX_MARK)?.unwrap_or_else(|| vec![0; 8]);
    let file = File::create(path).map_err(StoreError::io)?;
    let mut out = Summed {
        inner: BufWriter::new(file),
        sum: Sha256::new(),
    };
    let mut rows = 0;
    put(&mut out, MAGIC, &[&raft_mark, &index]).map_err(StoreError::io)?;
    for row in txn.open_table(STATE)?.iter()? {
        let (key, value) = row?;
        // What is damaged must not travel under a checksum that fits it.
        row_value(key.value(), value.value())?;
        put(&mut out, &[1], &[key.value(), value.value()]).map_err(StoreError::io)?;
        rows += 1;
    }
    out.write_all(&[0]).map_err(StoreError::io)?;
    let sha256: [u8; 32] = out.sum.finalize().into();
    let mut inner = out.inner;
    inner.write_all(&sha256).map_err(StoreError::io)?;
    let file = inner.into_inner().map_err(StoreError::io)?;
    file.sync_all().map_err(StoreError::io)?;
    let index = index
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| corrupt("index mark"))?;
    Ok(SnapshotInfo {
        mark: raft_mark,
        index,
        rows,
        sha256,
    })
}

/// Reads all of `file` and says what it holds, if every byte of it is as it was written.
pub fn verify(file: &Path) -> Result<SnapshotInfo, StoreError> {
    let mut rows = 0;
    let (mark, index, sha256) = walk(file, |_, _| {
        rows += 1;
        Ok(())
    })?;
    Ok(SnapshotInfo {
        mark,
        index,
        rows,
        sha256,
    })
}

/// Puts the rows of a verified `file` into an empty table, and says what it read: the index and the checksum.
pub(crate) fn unpack(
    file: &Path,
    table: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
) -> Result<(u64, [u8; 32]), StoreError> {
    let (_, index, sha256) = walk(file, |key, value| {
        row_value(key, value)?;
        table.insert(key, value)?;
        Ok(())
    })?;
    Ok((index, sha256))
}

type Head = (Vec<u8>, u64, [u8; 32]);

fn walk(path: &Path, row: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>) -> Result<Head, StoreError> {
    let file = File::open(path).map_err(StoreError::io)?;
    read(BufReader::new(file), row)
}

/// Reads a whole snapshot, row by row.
pub(crate) fn read(
    inner: impl Read,
    mut row: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<Head, StoreError> {
    let sum = Sha256::new();
    let mut input = Summed { inner, sum };
    let mut magic = [0; 8];
    input.fill(&mut magic)?;
    if &magic != MAGIC {
        return Err(corrupt("not a snapshot, or of a newer format"));
    }
    let mark = input.field()?;
    let index = input
        .field()?
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| corrupt("index"))?;
    loop {
        let mut more = [0];
        input.fill(&mut more)?;
        match more {
            [0] => break,
            [1] => row(&input.field()?, &input.field()?)?,
            _ => return Err(corrupt("unknown row")),
        }
    }
    let sum: [u8; 32] = input.sum.finalize().into();
    let mut written = [0; DIGEST_BYTES];
    input.inner.read_exact(&mut written).map_err(|_| corrupt("truncated"))?;
    if sum != written || input.inner.read(&mut [0]).map_err(StoreError::io)? != 0 {
        return Err(corrupt("checksum does not match"));
    }
    Ok((mark, index, sum))
}

fn put(out: &mut impl Write, lead: &[u8], fields: &[&[u8]]) -> io::Result<()> {
    out.write_all(lead)?;
    for field in fields {
        let length = u32::try_from(field.len()).map_err(|_| io::Error::other("a record of over 4 GiB"))?;
        out.write_all(&length.to_be_bytes())?;
        out.write_all(field)?;
    }
    Ok(())
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("snapshot: {what}"))
}

/// A reader or writer that sums what passes.
struct Summed<T> {
    inner: T,
    sum: Sha256,
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Summed<T> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.inner.read_exact(buffer).map_err(|_| corrupt("truncated"))?;
        self.sum.update(&*buffer);
        Ok(())
    }

    fn field(&mut self) -> Result<Vec<u8>, StoreError> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > FIELD_BYTES_MAX {
            return Err(corrupt("a field is too long"));
        }
        // Not all at once: a length that was altered must not take the memory.
        let mut field = Vec::new();
        let taken = (&mut self.inner)
            .take(u64::from(length))
            .read_to_end(&mut field)
            .map_err(StoreError::io)?;
        if taken != usize::try_from(length).unwrap_or(usize::MAX) {
            return Err(corrupt("truncated"));
        }
        self.sum.update(&field);
        Ok(field)
    }
}
