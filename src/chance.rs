//! Chance: the only place where random numbers are drawn.
//!
//! Waits and ids come from one source for each thread, seeded by the operating system. A simulation runs on one thread:
//! after [`seed`], the same number always leads to the same draws, and nothing has to be passed down. Keys are no part
//! of that: [`secret`] is never seeded.

use std::cell::RefCell;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

thread_local! {
    static SOURCE: RefCell<StdRng> = RefCell::new(StdRng::from_seed(secret()));
}

/// Makes all that this thread draws from now on follow from a number. For simulations only.
pub fn seed(number: u64) {
    SOURCE.set(StdRng::seed_from_u64(number));
}

/// Draws evenly from zero up to, but not including, one.
#[must_use]
pub fn share() -> f64 {
    SOURCE.with_borrow_mut(StdRng::random)
}

/// Draws bytes.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    SOURCE.with_borrow_mut(StdRng::random)
}

/// Draws a random UUID.
#[must_use]
pub fn uuid() -> uuid::Uuid {
    uuid::Builder::from_random_bytes(bytes()).into_uuid()
}

/// Draws bytes that nobody may guess, whatever [`seed`] was given.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that draws at random")]
pub fn secret<const N: usize>() -> [u8; N] {
    rand::random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_numbers_each_time_but_no_keys() {
        let drawn = || {
            seed(7);
            (uuid(), bytes::<10>(), share().to_bits())
        };
        let keys = (drawn(), secret::<32>());
        let again = (drawn(), secret::<32>());
        assert_eq!(keys.0, again.0);
        assert_ne!(keys.1, again.1);
    }

    #[test]
    fn without_a_seed_no_two_draws_are_alike() {
        assert_ne!(uuid(), uuid());
        assert_ne!(std::thread::spawn(uuid).join().unwrap(), std::thread::spawn(uuid).join().unwrap());
    }
}
