//! Bytes made of examples by altering them, the same way each time.

/// What decoders take for lengths, signs and ends.
const TELLING: [&[u8]; 14] = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\n",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"%",
    b":",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\x92\xa9",
];
/// Longest bytes that are made.
const BYTES_MAX: usize = 64 * 1024;

/// Altered examples, without end.
pub struct Altered<'a> {
    seeds: &'a [Vec<u8>],
    state: u64,
}

impl<'a> Altered<'a> {
    /// The same for the same `seed`.
    pub fn new(seeds: &'a [Vec<u8>], seed: u64) -> Altered<'a> {
        Altered { seeds, state: seed }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let drawn = usize::try_from(self.state >> 33).expect("31 bits fit");
        drawn % limit.max(1)
    }

    fn alter(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        match self.below(8) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            2 if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).expect("a byte"),
            3 => {
                let telling = TELLING[self.below(TELLING.len())];
                bytes.splice(at..at, telling.iter().copied());
            }
            4 if at < bytes.len() => {
                let end = at + 1 + self.below((bytes.len() - at).min(16));
                bytes.drain(at..end.min(bytes.len()));
            }
            5 if at < bytes.len() && bytes.len() < BYTES_MAX => {
                let end = at + 1 + self.below(bytes.len() - at);
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            // The rest of another example.
            6 => {
                let other = &self.seeds[self.below(self.seeds.len())];
                let from = self.below(other.len() + 1);
                let rest = other[from..].to_vec();
                bytes.truncate(at);
                bytes.extend(rest);
            }
            // Small numbers are what lengths and variants look like.
            _ => {
                let small = u8::try_from(self.below(24)).expect("a byte");
                bytes.insert(at, small);
            }
        }
        bytes.truncate(BYTES_MAX);
    }
}

impl Iterator for Altered<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut bytes = match self.seeds.is_empty() || self.below(16) == 0 {
            true => (0..self.below(200))
                .map(|_| u8::try_from(self.below(256)).expect("a byte"))
                .collect(),
            false => self.seeds[self.below(self.seeds.len())].clone(),
        };
        for _ in 0..=self.below(4) {
            self.alter(&mut bytes);
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_alters_the_same_way_and_another_does_not() {
        let seeds = [b"an example".to_vec(), b"another".to_vec()];
        let some = |seed| Altered::new(&seeds, seed).take(50).collect::<Vec<_>>();
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
        assert!(some(1).iter().any(|bytes| bytes.starts_with(b"an ex")));
    }
}
