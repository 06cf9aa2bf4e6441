//! Values of the log in their seals, and the marks that this module keeps for itself.

use super::{LogError, Purged};
use crate::checked::{proven, stamp};

/// Key of the mark which says up to where the log was purged.
pub(super) const PURGED: &str = "purged";
/// Key of the mark which says what kind of file this is.
pub(super) const FORMAT: &str = "format";
/// Key of the mark which counts the flushes.
pub(super) const FLUSHES: &str = "flushes";
/// The layout this module writes.
pub(super) const FORMAT_BYTES: &[u8] = b"mcp raft log 1";

const INDEX_BYTES: usize = 8;

pub(super) fn seal_record(index: u64, bytes: &[u8]) -> Vec<u8> {
    stamp(&index.to_le_bytes(), bytes)
}

pub(super) fn open_record(index: u64, value: &[u8]) -> Result<&[u8], LogError> {
    proven(&index.to_le_bytes(), value).ok_or_else(|| LogError::Corrupt(format!("record {index} fails its checksum")))
}

pub(super) fn seal_mark(key: &str, bytes: &[u8]) -> Vec<u8> {
    stamp(key.as_bytes(), bytes)
}

pub(super) fn open_mark<'a>(key: &str, value: &'a [u8]) -> Result<&'a [u8], LogError> {
    proven(key.as_bytes(), value).ok_or_else(|| LogError::Corrupt(format!("mark {key} fails its checksum")))
}

pub(super) fn seal_purged(purged: &Purged) -> Vec<u8> {
    [&purged.index.to_le_bytes()[..], &purged.bytes].concat()
}

pub(super) fn open_purged(bytes: &[u8]) -> Result<Purged, LogError> {
    let Some((index, rest)) = bytes.split_first_chunk::<INDEX_BYTES>() else {
        return Err(LogError::Corrupt("mark purged is too short".to_owned()));
    };
    Ok(Purged {
        index: u64::from_le_bytes(*index),
        bytes: rest.to_vec(),
    })
}

pub(super) fn open_count(bytes: &[u8]) -> Result<u64, LogError> {
    let count = bytes.try_into().map(u64::from_le_bytes);
    count.map_err(|_| LogError::Corrupt("mark flushes is not a number".to_owned()))
}
