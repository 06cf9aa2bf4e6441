//! The files of the audit: one JSON object per line, each ending with the hash of itself and its predecessor. A changed,
//! missing or swapped line breaks the chain from there on.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::SHA256;
use serde::Serialize;

/// Longest record that is looked for at the end of a file, in bytes.
const RECORD_BYTES_MAX: u64 = 64 << 10;
/// How the chained hash begins in a line.
const CHAIN: &str = ",\"chain\":\"";
/// The hash before the first record of all.
const GENESIS: [u8; 32] = [0; 32];

/// The audit cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The disk said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// It said no before.
    #[error("the audit failed earlier: {0}")]
    Failed(String),
    /// A line does not fit to the one before it.
    #[error("{}: the chain breaks at line {line}", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

/// The segments of one directory.
pub(super) struct Segments {
    dir: PathBuf,
    path: PathBuf,
    file: Arc<File>,
    bytes: u64,
    segment_bytes: u64,
    bytes_max: u64,
    chain: [u8; 32],
    seq: u64,
    dirty: bool,
    failed: Option<String>,
    /// Whole lines that are not written yet: ends of calls, which go with the next write.
    waiting: Vec<u8>,
}

/// How soon a record must be in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Before this returns.
    Now,
    /// With the next write, or when [`Segments::write_waiting`] is called.
    Soon,
}

impl Segments {
    pub(super) fn open(dir: &Path, segment_bytes: u64, bytes_max: u64) -> Result<Segments, AuditError> {
        std::fs::create_dir_all(dir).map_err(|source| AuditError::Io {
            path: dir.to_owned(),
            source,
        })?;
        let segments = files(dir)?;
        // The newest may hold no whole record: then the chain goes on from the one before it.
        let last = segments
            .iter()
            .rev()
            .find_map(|path| tail(path).transpose())
            .transpose()?;
        let (chain, seq) = last.unwrap_or((GENESIS, 1));
        let path = segments.last().cloned().unwrap_or_else(|| segment_path(dir, 1));
        let file = append_to(&path)?;
        let bytes = file
            .metadata()
            .map_err(|source| AuditError::Io {
                path: path.clone(),
                source,
            })?
            .len();
        Ok(Segments {
            dir: dir.to_owned(),
            path,
            file: Arc::new(file),
            bytes,
            segment_bytes,
            bytes_max,
            chain,
            seq,
            dirty: false,
            failed: None,
            waiting: Vec::with_capacity(8 << 10),
        })
    }

    /// The number of the next record.
    pub(super) fn next_seq(&self) -> u64 {
        self.seq
    }

    /// Chains a record to the last one and writes it, with all that waits, by one `write(2)`.
    pub(super) fn append(&mut self, record: &impl Serialize, when: When) -> Result<(), AuditError> {
        if let Some(why) = &self.failed {
            return Err(AuditError::Failed(why.clone()));
        }
        if self.bytes >= self.segment_bytes {
            self.rotate()?;
        }
        let begin = self.waiting.len();
        serde_json::to_writer(&mut self.waiting, record).map_err(|error| AuditError::Failed(error.to_string()))?;
        self.waiting.pop();
        self.chain = chained(&self.chain, &self.waiting[begin..]);
        self.waiting.extend_from_slice(CHAIN.as_bytes());
        self.waiting.extend_from_slice(&hex(&self.chain));
        self.waiting.extend_from_slice(b"\"}\n");
        self.seq += 1;
        match when {
            When::Now => self.write_waiting(),
            When::Soon => Ok(()),
        }
    }

    /// Writes what waits.
    pub(super) fn write_waiting(&mut self) -> Result<(), AuditError> {
        if self.waiting.is_empty() || self.failed.is_some() {
            return Ok(());
        }
        let written = (&*self.file).write_all(&self.waiting);
        self.bytes += u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        self.waiting.clear();
        self.dirty = true;
        written.map_err(|source| {
            self.failed = Some(source.to_string());
            AuditError::Io {
                path: self.path.clone(),
                source,
            }
        })
    }

    /// The file to sync, if anything was written since the last time.
    pub(super) fn take_unsynced(&mut self) -> Option<Arc<File>> {
        std::mem::take(&mut self.dirty).then(|| self.file.clone())
    }

    /// Writes nothing any more.
    pub(super) fn fail(&mut self, why: &str) {
        self.failed = Some(why.to_owned());
    }

    fn rotate(&mut self) -> Result<(), AuditError> {
        self.write_waiting()?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| AuditError::Io { path, source }
        };
        self.file.sync_data().map_err(failed(&self.path))?;
        self.path = segment_path(&self.dir, self.seq);
        self.file = Arc::new(append_to(&self.path)?);
        self.bytes = 0;
        let segments = files(&self.dir)?;
        let mut total: u64 = 0;
        for path in segments.iter().rev() {
            total += std::fs::metadata(path).map_err(failed(path))?.len();
            if total > self.bytes_max {
                std::fs::remove_file(path).map_err(failed(path))?;
            }
        }
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed(&self.dir))
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        if let Err(error) = self.write_waiting() {
            tracing::error!(%error, "the last audit records were not written");
        }
    }
}

/// What a check of the chain found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Files.
    pub segments: usize,
    /// Records.
    pub records: u64,
}

/// Checks the chain of all segments in `dir`. The oldest kept one starts it: what was before it is gone.
pub fn verify(dir: &Path) -> Result<Verified, AuditError> {
    let mut found = Verified {
        segments: 0,
        records: 0,
    };
    let mut chain: Option<[u8; 32]> = None;
    for path in files(dir)? {
        let text = std::fs::read(&path).map_err(|source| AuditError::Io {
            path: path.clone(),
            source,
        })?;
        for (at, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let broken = || AuditError::Broken {
                path: path.clone(),
                line: at + 1,
            };
            let (body, own) = split(line).ok_or_else(broken)?;
            let genesis = found.records == 0 && first_seq(&path) == 1;
            let before = chain.or(genesis.then_some(GENESIS));
            if before.is_some_and(|before| chained(&before, body) != own) {
                return Err(broken());
            }
            chain = Some(own);
            found.records += 1;
        }
        found.segments += 1;
    }
    Ok(found)
}

fn chained(before: &[u8; 32], body: &[u8]) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&SHA256);
    context.update(before);
    context.update(body);
    let mut own = *before;
    own.copy_from_slice(context.finish().as_ref());
    own
}

fn hex(bytes: &[u8; 32]) -> [u8; 64] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// The same as a text.
pub(super) fn hex_text(bytes: &[u8; 32]) -> String {
    hex(bytes).iter().map(|digit| char::from(*digit)).collect()
}

/// A line's hashed part and its hash.
fn split(line: &[u8]) -> Option<(&[u8], [u8; 32])> {
    let line = line.strip_suffix(b"\"}\n")?;
    let (body, hash) = line.split_at_checked(line.len().checked_sub(64)?)?;
    let body = body.strip_suffix(CHAIN.as_bytes())?;
    let hash = mcp_model::token::TokenHash::from_hex(std::str::from_utf8(hash).ok()?)?;
    Some((body, hash.0))
}

/// The hash of the last record and the number after its own; a torn last line is cut off.
fn tail(path: &Path) -> Result<Option<([u8; 32], u64)>, AuditError> {
    let io = |source| AuditError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let from = length.saturating_sub(RECORD_BYTES_MAX);
    file.seek(SeekFrom::Start(from)).map_err(io)?;
    let mut end = Vec::new();
    file.read_to_end(&mut end).map_err(io)?;
    let whole = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < end.len() {
        let torn = u64::try_from(end.len() - whole).unwrap_or(0);
        tracing::warn!(path = %path.display(), bytes = torn, "a torn audit record was cut off");
        file.set_len(length - torn).map_err(io)?;
    }
    let Some(line) = end[..whole].split_inclusive(|byte| *byte == b'\n').next_back() else {
        return Ok(None);
    };
    let broken = || AuditError::Broken {
        path: path.to_owned(),
        line: 0,
    };
    let (_, chain) = split(line).ok_or_else(broken)?;
    let record: serde_json::Value = serde_json::from_slice(line).map_err(|_| broken())?;
    let seq = record["seq"].as_u64().ok_or_else(broken)?;
    Ok(Some((chain, seq + 1)))
}

fn append_to(path: &Path) -> Result<File, AuditError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|source| AuditError::Io {
        path: path.to_owned(),
        source,
    })
}

fn segment_path(dir: &Path, first_seq: u64) -> PathBuf {
    dir.join(format!("audit-{first_seq:020}.jsonl"))
}

fn first_seq(path: &Path) -> u64 {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_prefix("audit-")
        .and_then(|seq| seq.parse().ok())
        .unwrap_or(1)
}

/// The segments, oldest first.
fn files(dir: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let io = |source| AuditError::Io {
        path: dir.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("audit-") && name.ends_with(".jsonl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, count: u64) -> u64 {
        let mut segments = Segments::open(dir, 500, 1 << 20).unwrap();
        for _ in 0..count {
            let seq = segments.next_seq();
            segments
                .append(&serde_json::json!({"seq": seq, "tool": "x"}), When::Now)
                .unwrap();
        }
        segments.next_seq()
    }

    #[test]
    fn the_chain_goes_on_over_segments_and_restarts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(write(dir.path(), 20), 21);
        assert_eq!(write(dir.path(), 5), 26);
        let verified = verify(dir.path()).unwrap();
        assert_eq!(verified.records, 25);
        assert!(verified.segments > 3);
    }

    #[test]
    fn a_torn_record_is_cut_off_and_a_changed_one_is_found() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 3);
        let path = files(dir.path()).unwrap().pop().unwrap();
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"seq\":4,\"to")
            .unwrap();
        assert_eq!(write(dir.path(), 1), 5);
        assert_eq!(verify(dir.path()).unwrap().records, 4);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("\"tool\":\"x\"", "\"tool\":\"y\"", 1)).unwrap();
        assert!(matches!(verify(dir.path()), Err(AuditError::Broken { line: 1, .. })));
    }

    #[test]
    fn the_oldest_segments_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(dir.path(), 500, 2_000).unwrap();
        for seq in 1..200 {
            segments.append(&serde_json::json!({"seq": seq}), When::Soon).unwrap();
        }
        let kept: u64 = files(dir.path())
            .unwrap()
            .iter()
            .map(|path| path.metadata().unwrap().len())
            .sum();
        assert!(kept < 3_000, "{kept}");
        verify(dir.path()).unwrap();
    }

    #[test]
    fn a_failed_disk_takes_no_more_records() {
        let dir = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(dir.path(), 500, 2_000).unwrap();
        segments.fail("gone");
        assert!(matches!(
            segments.append(&serde_json::json!({"seq": 1}), When::Now),
            Err(AuditError::Failed(_))
        ));
    }
}
