//! The chain of the audit as it stands in files: reading it, checking it, and finding out where to go on.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ring::digest::SHA256;

use super::segment::AuditError;

/// Longest record that is looked for at the end of a file, in bytes.
const RECORD_BYTES_MAX: u64 = 64 << 10;
/// How the chained hash begins in a line.
pub(super) const CHAIN: &str = ",\"chain\":\"";
/// The hash before the first record of all.
pub(super) const GENESIS: [u8; 32] = [0; 32];

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

pub(super) fn chained(before: &[u8; 32], body: &[u8]) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&SHA256);
    context.update(before);
    context.update(body);
    let mut own = *before;
    own.copy_from_slice(context.finish().as_ref());
    own
}

pub(super) fn hex(bytes: &[u8; 32]) -> [u8; 64] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// A line's hashed part and its hash.
fn split(line: &[u8]) -> Option<(&[u8], [u8; 32])> {
    let line = line.strip_suffix(b"\"}\n")?;
    let (body, hash) = line.split_at_checked(line.len().checked_sub(64)?)?;
    let body = body.strip_suffix(CHAIN.as_bytes())?;
    let hash = mcp_model::token::TokenHash::from_hex(std::str::from_utf8(hash).ok()?)?;
    Some((body, hash.0))
}

/// What the next record is chained to, its number, and the segment it goes to. A segment that is damaged is renamed and
/// nothing is appended to it: its damage stays what it is, and [`verify`] of the others says what is missing between them.
pub(super) fn continue_in(dir: &Path) -> Result<([u8; 32], u64, PathBuf), AuditError> {
    let mut seq_lost = 0;
    loop {
        let segments = files(dir)?;
        let Some(newest) = segments.last() else {
            let seq = seq_lost + 1;
            return Ok((GENESIS, seq, segment_path(dir, seq)));
        };
        match verify_one(newest).and_then(|_| tail(newest)) {
            Ok(Some((chain, seq))) if seq_lost < seq => return Ok((chain, seq, newest.clone())),
            // Behind what was set aside a new segment begins, with a number that was never given.
            Ok(Some((chain, _))) => return Ok((chain, seq_lost + 1, segment_path(dir, seq_lost + 1))),
            // No whole record is in it: the chain goes on from the one before it.
            Ok(None) => std::fs::remove_file(newest).map_err(|source| AuditError::Io {
                path: newest.clone(),
                source,
            })?,
            Err(AuditError::Broken { path, line }) => {
                seq_lost = seq_lost.max(last_seq(&path));
                let mut aside = path.clone().into_os_string();
                aside.push(".corrupt");
                tracing::error!(file = %path.display(), line, "a damaged audit segment is set aside: a new one begins");
                std::fs::rename(&path, &aside).map_err(|source| AuditError::Io { path, source })?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The highest number that may have been given to a record of a damaged segment: what its lines say, or as many as it has.
fn last_seq(path: &Path) -> u64 {
    last_seq_of(path, &std::fs::read(path).unwrap_or_default())
}

#[doc(hidden)]
pub fn last_seq_of(path: &Path, text: &[u8]) -> u64 {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let (first, count) = (first_seq(path), lines.clone().count());
    let counted = first.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    let said = lines.filter_map(|line| {
        let record: serde_json::Value = serde_json::from_slice(line).ok()?;
        // A damaged number must not use up all those that are left.
        record["seq"].as_u64().filter(|seq| *seq < counted)
    });
    said.max().unwrap_or(0).max(counted)
}

/// Checks the chain within one segment, up to a torn last line.
fn verify_one(path: &Path) -> Result<(), AuditError> {
    let text = std::fs::read(path).map_err(|source| AuditError::Io {
        path: path.to_owned(),
        source,
    })?;
    verify_text(path, &text)
}

/// The same for the text of a segment. For the fuzzer as well: no text may make it panic.
#[doc(hidden)]
pub fn verify_text(path: &Path, text: &[u8]) -> Result<(), AuditError> {
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut chain: Option<[u8; 32]> = (first_seq(path) == 1).then_some(GENESIS);
    for (at, line) in text[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
        let broken = || AuditError::Broken {
            path: path.to_owned(),
            line: at + 1,
        };
        let (body, own) = split(line).ok_or_else(broken)?;
        if chain.is_some_and(|before| chained(&before, body) != own) {
            return Err(broken());
        }
        chain = Some(own);
    }
    Ok(())
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

pub(super) fn segment_path(dir: &Path, first_seq: u64) -> PathBuf {
    dir.join(format!("audit-{first_seq:020}.jsonl"))
}

pub(super) fn first_seq(path: &Path) -> u64 {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_prefix("audit-")
        .and_then(|seq| seq.parse().ok())
        .unwrap_or(1)
}

/// The segments, oldest first.
pub(super) fn files(dir: &Path) -> Result<Vec<PathBuf>, AuditError> {
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
