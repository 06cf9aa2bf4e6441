//! Identifiers. They are made by whoever proposes a change and travel inside the command, so that `apply` needs no randomness.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The id of a record: a uuid (version 7 when made by us), kept as its 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Id(u128);

impl Id {
    /// The id with these 128 bits.
    pub const fn from_u128(bits: u128) -> Id {
        Id(bits)
    }

    /// A version 7 uuid from a wall-clock time in milliseconds and 10 random bytes.
    pub fn v7(wall_ms: u64, random: [u8; 10]) -> Id {
        Id(uuid::Builder::from_unix_timestamp_millis(wall_ms, &random)
            .into_uuid()
            .as_u128())
    }

    /// The 128 bits, big-endian: the key form, which sorts by time of creation.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id whose key form is `bytes`, if there are 16 of them.
    pub fn from_slice(bytes: &[u8]) -> Option<Id> {
        Some(Id(u128::from_be_bytes(bytes.try_into().ok()?)))
    }
}

impl Id {
    /// Bytes of the text.
    pub const TEXT_BYTES: usize = 36;

    /// The text, written into `room`: what [`fmt::Display`] writes, for who writes it often.
    pub fn encode(self, room: &mut [u8; Id::TEXT_BYTES]) -> &str {
        uuid::Uuid::from_u128(self.0).as_hyphenated().encode_lower(room)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_u128(self.0).as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a uuid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id (a uuid such as 01890a5d-ac96-774b-bcce-b302099a8057)")]
pub struct NotAnId;

impl FromStr for Id {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Id, NotAnId> {
        if text.len() != 36 {
            return Err(NotAnId);
        }
        uuid::Uuid::parse_str(text)
            .map(|u| Id(u.as_u128()))
            .map_err(|_| NotAnId)
    }
}

/// A node of the cluster: minted at random for one data directory and never used again for another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<NodeId, NotAnId> {
        if text.len() != 16 {
            return Err(NotAnId);
        }
        u64::from_str_radix(text, 16).map(NodeId).map_err(|_| NotAnId)
    }
}

/// One run of one process (or of one state, when a node falls back to an older one): a random number. A lease and a
/// confirmation belong to an incarnation and die with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// Names one command for ever: a command that is sent twice is carried out once and answered twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct CommandId(pub u128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_sort_by_time() {
        let early = Id::v7(1_000, [1; 10]);
        let late = Id::v7(2_000, [0; 10]);
        assert!(early.to_bytes() < late.to_bytes());
        assert_eq!(early.to_string().parse::<Id>(), Ok(early));
        assert_eq!(Id::from_slice(&early.to_bytes()), Some(early));
        for bad in [
            "",
            "x",
            "01890a5dac96774bbcceb302099a8057",
            "{01890a5d-ac96-774b-bcce-b302099a8057}",
        ] {
            assert_eq!(bad.parse::<Id>(), Err(NotAnId), "{bad}");
        }
        assert_eq!(NodeId(255).to_string(), "00000000000000ff");
        assert_eq!("00000000000000ff".parse(), Ok(NodeId(255)));
    }
}
