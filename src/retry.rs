//! Retry: how long to wait before the next try, and when to stop trying.
//!
//! Full jitter: the wait is drawn evenly from zero to a bound that doubles with each try, so that many clients that
//! failed together do not come back together. A server's own wait is a lower bound. What to retry is decided by the
//! error; here is only how.

use std::time::Duration;

use rand::Rng as _;

/// A budget of tries with growing waits between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// How often something is tried in all, the first time included.
    pub tries: u32,
    /// The bound of the first wait.
    pub base: Duration,
    /// The bound that no wait of ours exceeds.
    pub cap: Duration,
}

impl Backoff {
    /// Makes a budget of `tries` with waits that suit a remote service: from a quarter of a second up to a minute.
    #[must_use]
    pub const fn of_tries(tries: u32) -> Self {
        Self { tries, base: Duration::from_millis(250), cap: Duration::from_mins(1) }
    }

    /// Returns how long to wait before another try, or `None` when `failed` tries have used up the budget.
    ///
    /// `asked` is the wait that the server asked for.
    #[must_use]
    pub fn wait(&self, failed: u32, asked: Option<Duration>) -> Option<Duration> {
        (failed < self.tries).then(|| self.jittered(failed).max(asked.unwrap_or_default()))
    }

    /// Draws a wait for after `failed` tries, without looking at the budget.
    #[must_use]
    pub fn jittered(&self, failed: u32) -> Duration {
        let doubled = self.base.saturating_mul(2u32.saturating_pow(failed.saturating_sub(1).min(16)));
        doubled.min(self.cap).mul_f64(rand::rng().random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(failed in 1u32..100, asked_ms in proptest::option::of(0u64..120_000)) {
            let backoff = Backoff::of_tries(6);
            let asked = asked_ms.map(Duration::from_millis);
            match backoff.wait(failed, asked) {
                None => prop_assert!(failed >= 6),
                Some(wait) => {
                    prop_assert!(failed < 6);
                    prop_assert!(wait >= asked.unwrap_or_default());
                    prop_assert!(wait <= backoff.cap.max(asked.unwrap_or_default()));
                }
            }
        }
    }
}
