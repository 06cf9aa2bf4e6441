//! How a value stands in the file: a checksum over its key and its bytes, then the bytes. redb does not check a page
//! that it reads in passing, so a flipped bit would otherwise come back as a wrong record.

use super::{LogError, Purged};

/// Key of the mark which says up to where the log was purged.
pub(super) const PURGED: &str = "purged";
/// Key of the mark which says what kind of file this is.
pub(super) const FORMAT: &str = "format";
/// The layout this module writes.
pub(super) const FORMAT_BYTES: &[u8] = b"mcp raft log 1";

const CRC_BYTES: usize = 4;
const INDEX_BYTES: usize = 8;

pub(super) fn seal_record(index: u64, bytes: &[u8]) -> Vec<u8> {
    seal(&index.to_le_bytes(), bytes)
}

pub(super) fn open_record(index: u64, value: &[u8]) -> Result<&[u8], LogError> {
    open(&index.to_le_bytes(), value).ok_or_else(|| LogError::Corrupt(format!("record {index} fails its checksum")))
}

pub(super) fn seal_mark(key: &str, bytes: &[u8]) -> Vec<u8> {
    seal(key.as_bytes(), bytes)
}

pub(super) fn open_mark<'a>(key: &str, value: &'a [u8]) -> Result<&'a [u8], LogError> {
    open(key.as_bytes(), value).ok_or_else(|| LogError::Corrupt(format!("mark {key} fails its checksum")))
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

fn seal(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(CRC_BYTES + bytes.len());
    value.extend_from_slice(&checksum(key, bytes).to_le_bytes());
    value.extend_from_slice(bytes);
    value
}

fn open<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (crc, bytes) = value.split_first_chunk::<CRC_BYTES>()?;
    (u32::from_le_bytes(*crc) == checksum(key, bytes)).then_some(bytes)
}

/// The key is part of the sum: a right record in the wrong place is a wrong record.
fn checksum(key: &[u8], bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), bytes)
}
