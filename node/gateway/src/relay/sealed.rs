//! The ids under which clients are asked: each says, sealed under a key of the cluster, which node asked in which call, and whom. So
//! any replica can take the reply, nobody can make up an id, and nobody can answer for another.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_model::ids::{Id, NodeId};
use mcp_model::token::TokenHash;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

/// Layout version of the sealed bytes.
const VERSION: u8 = 1;
/// What the seal is for, so that a blob sealed for something else under the same key opens nothing here.
const PURPOSE: &[u8] = b"mcp asked id 1";
/// version, node, call, number, token hash, session.
const PLAIN_BYTES: usize = 1 + 8 + 8 + 4 + 32 + 16;

/// A server's request that was put to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// The node that asked.
    pub(crate) node: NodeId,
    /// The call there because of which it asked.
    pub(crate) call: u64,
    /// Which of the requests of that call.
    pub(crate) number: u32,
    /// The token whose client was asked.
    pub(crate) token: TokenHash,
    /// Its session.
    pub(crate) session: Id,
}

/// Seals and opens such ids.
pub(crate) struct Seals {
    key: LessSafeKey,
    random: SystemRandom,
}

impl Seals {
    pub(crate) fn new(cluster_key: &[u8; 32]) -> Seals {
        let key = UnboundKey::new(&AES_256_GCM, cluster_key).expect("32 bytes are a key of AES-256");
        Seals {
            key: LessSafeKey::new(key),
            random: SystemRandom::new(),
        }
    }

    /// A number that nobody has used; none if the system has no random bytes.
    pub(crate) fn fresh(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes).ok()?;
        Some(u64::from_be_bytes(bytes))
    }

    /// The id, as raw JSON: a string.
    pub(crate) fn seal(&self, asked: &Asked) -> Option<String> {
        Some(format!("\"{}\"", self.seal_bytes(PURPOSE, asked.to_bytes().to_vec())?))
    }

    /// What was sealed; none if nobody has sealed this. `id` is raw JSON.
    pub(crate) fn open(&self, id: &str) -> Option<Asked> {
        let text = id.strip_prefix('"')?.strip_suffix('"')?;
        Asked::from_bytes(&self.open_bytes(PURPOSE, text)?)
    }

    /// Seals bytes for a purpose, as text of letters, digits, `-` and `_`.
    pub(super) fn seal_bytes(&self, purpose: &[u8], mut sealed: Vec<u8>) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let key = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(key, Aad::from(purpose), &mut sealed)
            .ok()?;
        let mut whole = nonce.to_vec();
        whole.extend_from_slice(&sealed);
        Some(URL_SAFE_NO_PAD.encode(whole))
    }

    pub(super) fn open_bytes(&self, purpose: &[u8], text: &str) -> Option<Vec<u8>> {
        let mut whole = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = whole.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, Aad::from(purpose), sealed).ok()?;
        Some(plain.to_vec())
    }
}

impl Asked {
    fn to_bytes(self) -> [u8; PLAIN_BYTES] {
        let mut bytes = [0; PLAIN_BYTES];
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&self.node.0.to_be_bytes());
        bytes[9..17].copy_from_slice(&self.call.to_be_bytes());
        bytes[17..21].copy_from_slice(&self.number.to_be_bytes());
        bytes[21..53].copy_from_slice(&self.token.0);
        bytes[53..].copy_from_slice(&self.session.to_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Asked> {
        if bytes.len() != PLAIN_BYTES || bytes[0] != VERSION {
            return None;
        }
        Some(Asked {
            node: NodeId(u64::from_be_bytes(bytes[1..9].try_into().ok()?)),
            call: u64::from_be_bytes(bytes[9..17].try_into().ok()?),
            number: u32::from_be_bytes(bytes[17..21].try_into().ok()?),
            token: TokenHash(bytes[21..53].try_into().ok()?),
            session: Id::from_slice(&bytes[53..])?,
        })
    }
}

/// For the fuzzer: bytes as an id that a client sends, and as what a seal held.
pub(crate) fn decode(bytes: &[u8]) {
    let seals = Seals::new(&[7; 32]);
    let id = String::from_utf8_lossy(bytes);
    assert_eq!(seals.open(&id), None, "nobody has sealed {id:?}");
    assert_eq!(seals.open(&format!("\"{id}\"")), None, "nobody has sealed {id:?}");
    if let Some(asked) = Asked::from_bytes(bytes) {
        assert_eq!(&asked.to_bytes()[..], bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_opens_on_any_node_of_the_cluster_and_a_changed_one_nowhere() {
        let (here, there, elsewhere) = (Seals::new(&[5; 32]), Seals::new(&[5; 32]), Seals::new(&[6; 32]));
        let asked = Asked {
            node: NodeId(3),
            call: here.fresh().unwrap(),
            number: 7,
            token: TokenHash([1; 32]),
            session: Id::from_u128(9),
        };
        let id = here.seal(&asked).unwrap();
        assert!(id.len() < 200, "it is repeated in every message: {id}");
        assert_eq!(there.open(&id), Some(asked));
        assert_eq!(elsewhere.open(&id), None);
        assert_ne!(here.seal(&asked).unwrap(), id);
        for at in 1..id.len() - 1 {
            let mut changed = id.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(there.open(&String::from_utf8(changed).unwrap()), None, "{at}");
        }
        for text in ["", "7", "\"\"", "null", "\"AAAA\"", &id[1..]] {
            assert_eq!(there.open(text), None);
        }
    }
}
