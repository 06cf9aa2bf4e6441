//! How a value stands in a file: a checksum over its key and its bytes, then the bytes. redb does not check a page that it
//! reads in passing, so a flipped bit would otherwise come back as a wrong value.

const CRC_BYTES: usize = 4;

/// `bytes` as they are stored under `key`.
pub(crate) fn stamp(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(CRC_BYTES + bytes.len());
    value.extend_from_slice(&checksum(key, bytes).to_le_bytes());
    value.extend_from_slice(bytes);
    value
}

/// What was stored under `key`, if it is what was stored there.
pub(crate) fn proven<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (crc, bytes) = value.split_first_chunk::<CRC_BYTES>()?;
    (u32::from_le_bytes(*crc) == checksum(key, bytes)).then_some(bytes)
}

/// The key is part of the sum: a right value in the wrong place is a wrong value.
fn checksum(key: &[u8], bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_every_cut_and_every_other_place_is_noticed() {
        for bytes in [&b""[..], b"x", b"some value"] {
            let value = stamp(b"key", bytes);
            assert_eq!(proven(b"key", &value), Some(bytes));
            assert_eq!(proven(b"kez", &value), None);
            for bit in 0..value.len() * 8 {
                let mut bad = value.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(proven(b"key", &bad), None, "bit {bit}");
            }
            for cut in 0..value.len() {
                assert_eq!(proven(b"key", &value[..cut]), None, "cut at {cut}");
            }
        }
    }

    /// A line that changes is a store that cannot be read.
    #[test]
    fn a_stamped_value_keeps_its_bytes() {
        assert_eq!(stamp(b"key", b"value"), b"\x44\x89\x00\xe8value");
    }
}
