//! Ids and the small random generator everything made up is drawn from.
//!
//! The same seed gives the same world on every machine; nothing here reads a clock or the system's randomness.

use std::ops::RangeInclusive;

/// Derives an id that looks like a UUID v4 from any text; the same text gives the same id.
#[must_use]
pub fn id(label: &str) -> String {
    let hash = hash(label.as_bytes());
    Rng::new(hash).id()
}

/// Hashes bytes to 64 bits (FNV-1a, then mixed).
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    mix(fnv)
}

/// Mixes 64 bits thoroughly (the finaliser of `splitmix64`).
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A seeded generator of pseudo-random numbers (`splitmix64`).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Draws from a range, both ends included; an empty range gives its start.
    pub(crate) fn within(&mut self, range: &RangeInclusive<u64>) -> u64 {
        let span = range.end().saturating_sub(*range.start());
        range.start() + self.next() % span.saturating_add(1).max(1)
    }

    pub(crate) fn pick_from<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let last = (from.len() as u64).checked_sub(1)?;
        let at = usize::try_from(self.within(&(0..=last))).ok()?;
        from.get(at).cloned()
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = usize::try_from(self.within(&(0..=i as u64))).unwrap_or(0);
            items.swap(i, j);
        }
    }

    pub(crate) fn id(&mut self) -> String {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next().to_le_bytes());
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_look_like_uuid_v4_and_repeat() -> Result<(), uuid::Error> {
        let made = id("alpha");
        assert_eq!(made, id("alpha"));
        assert_ne!(made, id("beta"));
        let parsed: uuid::Uuid = made.parse()?;
        assert_eq!(parsed.get_version_num(), 4);
        Ok(())
    }
}
