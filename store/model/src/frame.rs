//! The frame around everything that is stored or replicated: format, kind, version, body, checksum.
//!
//! A disk may return other bytes than were written and the database below us does not notice, so every record carries its
//! own CRC-32C. Enums in bodies are append-only, and a golden file pins the bytes of every kind.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The frame's own layout.
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 4;
const CRC_BYTES: usize = 4;

/// Why bytes are no frame of the expected kind. Any of these means: do not serve from this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a frame has around its body.
    #[error("record is truncated")]
    Truncated,
    /// The checksum does not fit the bytes.
    #[error("record checksum does not match")]
    Checksum,
    /// A newer program wrote it.
    #[error("record has format or version this program does not know")]
    Unknown,
    /// It is whole, but of another kind.
    #[error("record is of another kind")]
    Kind,
    /// The body does not decode.
    #[error("record body does not decode")]
    Body,
}

/// Something that is kept in a frame.
pub trait Framed: Serialize + DeserializeOwned {
    /// Tells kinds apart; never reused.
    const KIND: u8;
    /// Rises when the body changes its shape.
    const VERSION: u16 = 1;
}

/// The frame that holds `value`.
pub fn encode<T: Framed>(value: &T) -> Vec<u8> {
    let [version_high, version_low] = T::VERSION.to_be_bytes();
    let head = vec![FORMAT, T::KIND, version_high, version_low];
    let mut bytes = postcard::to_extend(value, head).expect("plain data always encodes");
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

/// The value that `bytes` frame.
pub fn decode<T: Framed>(bytes: &[u8]) -> Result<T, FrameError> {
    let body_end = bytes
        .len()
        .checked_sub(CRC_BYTES)
        .filter(|end| *end >= HEAD_BYTES)
        .ok_or(FrameError::Truncated)?;
    let (framed, crc) = bytes.split_at(body_end);
    if crc32c::crc32c(framed).to_be_bytes() != crc {
        return Err(FrameError::Checksum);
    }
    if framed[0] != FORMAT {
        return Err(FrameError::Unknown);
    }
    if framed[1] != T::KIND {
        return Err(FrameError::Kind);
    }
    if u16::from_be_bytes([framed[2], framed[3]]) != T::VERSION {
        return Err(FrameError::Unknown);
    }
    match postcard::take_from_bytes(&framed[HEAD_BYTES..]) {
        Ok((value, [])) => Ok(value),
        _ => Err(FrameError::Body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, serde::Deserialize, PartialEq, Debug)]
    struct Note(String);
    impl Framed for Note {
        const KIND: u8 = 250;
    }
    #[derive(Serialize, serde::Deserialize, PartialEq, Debug)]
    struct Other(String);
    impl Framed for Other {
        const KIND: u8 = 251;
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = encode(&Note("hello".into()));
        assert_eq!(decode(&bytes), Ok(Note("hello".into())));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode::<Note>(&bad), Err(FrameError::Checksum), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(decode::<Note>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(decode::<Other>(&bytes), Err(FrameError::Kind));
    }
}
