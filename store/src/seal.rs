//! Sealing: what must not stand in the store, in a log entry or in a snapshot in the clear.
//!
//! AES-256-GCM under a key derived from the cluster's data key, which lies outside the store files. Every sealed value is bound
//! to what it is for (its *context*), so that bytes moved from one record to another open nothing. No randomness of its own: the
//! nonce is handed in.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// Layout of sealed bytes: this, the nonce, the ciphertext with its tag.
const VERSION: u8 = 1;

/// Bytes of a nonce. They must be random: 2^32 values under one key are safe.
pub const NONCE_BYTES: usize = NONCE_LEN;

/// The bytes do not open: another key, another context, or altered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value does not open: it was sealed under another data key or for something else, or it was altered")]
pub struct SealBroken;

/// Seals and opens. Its `Debug` shows nothing.
pub struct Seal(LessSafeKey);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// With a key that serves this one purpose.
    pub fn new(key: &[u8; 32]) -> Seal {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are a key of AES-256");
        Seal(LessSafeKey::new(key))
    }

    /// Seals `plain` for `context`.
    pub fn seal(&self, context: &[u8], plain: &[u8], nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        let mut text = plain.to_vec();
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut text)
            .expect("a value of the store is far below the limit of AES-GCM");
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + text.len() + tag.as_ref().len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut text);
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what was sealed for the same `context`.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealBroken> {
        let (nonce, text) = sealed
            .strip_prefix(&[VERSION])
            .and_then(|rest| rest.split_first_chunk::<NONCE_BYTES>())
            .ok_or(SealBroken)?;
        let mut text = Zeroizing::new(text.to_vec());
        let plain = self
            .0
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(context), &mut text)
            .map_err(|_| SealBroken)?
            .len();
        text.truncate(plain);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_for_what_it_was_sealed_for_and_for_nothing_else() {
        let seal = Seal::new(&[7; 32]);
        let sealed = seal.seal(b"secret a/token", b"hunter2", [1; NONCE_BYTES]);
        assert_eq!(seal.open(b"secret a/token", &sealed).unwrap().as_slice(), b"hunter2");
        assert_eq!(seal.open(b"secret b/token", &sealed), Err(SealBroken));
        assert_eq!(Seal::new(&[8; 32]).open(b"secret a/token", &sealed), Err(SealBroken));
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));
    }

    #[test]
    fn no_altered_or_shortened_value_opens() {
        let seal = Seal::new(&[7; 32]);
        let sealed = seal.seal(b"x", b"hunter2", [1; NONCE_BYTES]);
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(seal.open(b"x", &altered), Err(SealBroken), "byte {at}");
            assert_eq!(seal.open(b"x", &sealed[..at]), Err(SealBroken), "length {at}");
        }
    }
}
