//! Chance that can be repeated: SplitMix64 from a seed.

/// A sequence of numbers.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn from_seed(seed: u64) -> Random {
        Random(seed)
    }

    /// A seed that nobody chose, short enough to be typed.
    pub fn draw_seed() -> anyhow::Result<u64> {
        let drawn = getrandom::u32().map_err(|error| anyhow::anyhow!("no random number: {error}"))?;
        Ok(u64::from(drawn))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.number() % limit as u64).expect("it is below an usize")
    }
}
