//! Retry: how often something is tried, how long to wait before the next try, and when to stop.
//!
//! Full jitter: the wait is drawn evenly from zero to a bound that doubles with each try, so that many clients that
//! failed together do not come back together. A peer's own wait is a lower bound, within [`LONGEST_WAIT`]. Which errors
//! are tried again is decided by the error; here is only how. Every wait ends when the future is dropped.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::chance;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::stop::Stop;

/// The longest wait of a peer that is obeyed as given; beyond it `limits.no_progress` decides.
pub const LONGEST_WAIT: Duration = Duration::from_hours(24);

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

/// A budget of tries that is being used up.
#[derive(Debug)]
pub struct Tries {
    backoff: Backoff,
    failed: u32,
    free: u32,
    stop: Option<Stop>,
}

impl Backoff {
    /// Makes a budget of `tries` with waits that suit a remote service: from a quarter of a second up to a minute.
    #[must_use]
    pub const fn of_tries(tries: u32) -> Self {
        Self { tries, base: Duration::from_millis(250), cap: Duration::from_mins(1) }
    }

    /// Begins to use it up.
    #[must_use]
    pub const fn begin(self) -> Tries {
        Tries { backoff: self, failed: 0, free: 0, stop: None }
    }

    /// Returns how long to wait before another try, or `None` when `failed` tries have used up the budget.
    #[must_use]
    pub fn wait(&self, failed: u32, asked: Option<Duration>) -> Option<Duration> {
        (failed < self.tries).then(|| self.jittered(failed).max(asked.unwrap_or_default().min(LONGEST_WAIT)))
    }

    /// Draws a wait for after `failed` tries, whatever the budget.
    #[must_use]
    pub fn jittered(&self, failed: u32) -> Duration {
        let doubled = self.base.saturating_mul(2u32.saturating_pow(failed.saturating_sub(1).min(16)));
        doubled.min(self.cap).mul_f64(chance::share())
    }

    /// Does something until it succeeds, an error does not pass, or the budget is used up.
    ///
    /// # Errors
    /// The last error of `work`.
    pub async fn retry<T, E, F>(self, passes: impl Fn(&E) -> bool, work: impl FnMut() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.begin().run(|tries, error| if passes(error) { tries.wait(None) } else { None }, work).await
    }
}

impl Tries {
    /// Ends with a run that is told to stop: a wait under way is cut short, and what is tried then is the last.
    #[must_use]
    pub fn until(self, stop: &Stop) -> Self {
        Self { stop: Some(stop.clone()), ..self }
    }

    /// Counts a failure and draws the wait before another try, or `None` when there is none. `asked` is the wait that the
    /// peer asks for.
    pub fn wait(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.failed += 1;
        let is_over = self.failed >= self.backoff.tries || self.stop.as_ref().is_some_and(Stop::is_requested);
        (!is_over).then(|| self.drawn(self.failed, asked))
    }

    /// Draws the wait after a failure that costs nothing of the budget.
    pub fn wait_for_free(&mut self, asked: Option<Duration>) -> Duration {
        self.free += 1;
        self.drawn(self.free, asked)
    }

    fn drawn(&self, failed: u32, asked: Option<Duration>) -> Duration {
        self.backoff.jittered(failed).max(asked.unwrap_or_default().min(LONGEST_WAIT))
    }

    /// Does something until it succeeds or `decide` draws no other wait. `decide` also notes what is to be noted of an
    /// error.
    ///
    /// # Errors
    /// The last error of `work`.
    pub async fn run<T, E, F>(
        mut self,
        mut decide: impl FnMut(&mut Self, &E) -> Option<Duration>,
        mut work: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        loop {
            let error = match work().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(wait) = decide(&mut self, &error) else { return Err(error) };
            match &self.stop {
                None => tokio::time::sleep(wait).await,
                Some(stop) => {
                    // Whether it was over or cut short, another try follows.
                    let _ = tokio::time::timeout(wait, stop.requested()).await;
                }
            }
        }
    }
}

/// A time in which nobody tries anything, because the peer asks for fewer requests.
#[derive(Debug, Default)]
pub struct Pause(Mutex<Option<Instant>>);

impl Pause {
    /// Makes everyone wait, from now on.
    pub fn begin(&self, wait: Duration) {
        let until = SystemClock.instant() + wait.min(LONGEST_WAIT);
        let mut before = self.until();
        *before = Some(before.map_or(until, |before| before.max(until)));
    }

    /// Waits until nobody has to wait.
    pub async fn pass(&self) {
        loop {
            let until = *self.until();
            match until.filter(|until| *until > SystemClock.instant()) {
                // Meanwhile another may have made it longer.
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => return,
            }
        }
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the wait that a `Retry-After` asks for, in both its forms: seconds, and a date.
#[must_use]
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Timestamp::parse_http_date(text)?.since(now),
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(failed in 1u32..100, asked_ms in proptest::option::of(0u64..120_000)) {
            let backoff = Backoff::of_tries(6);
            let asked = asked_ms.map(Duration::from_millis);
            let mut tries = backoff.begin();
            tries.failed = failed - 1;
            match tries.wait(asked) {
                None => prop_assert!(failed >= 6),
                Some(wait) => {
                    prop_assert!(failed < 6);
                    prop_assert!(wait >= asked.unwrap_or_default());
                    prop_assert!(wait <= backoff.cap.max(asked.unwrap_or_default()));
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_ends_with_its_tries_and_an_error_that_does_not_pass_ends_it_at_once() {
        for (error, calls) in [("passes", 3), ("stays", 1)] {
            let called = AtomicU32::new(0);
            let work = || async {
                called.fetch_add(1, Ordering::Relaxed);
                Err::<(), _>(error)
            };
            assert_eq!(Backoff::of_tries(3).retry(|error| *error == "passes", work).await, Err(error));
            assert_eq!(called.into_inner(), calls);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_without_end_that_a_peer_asks_for_is_a_day() {
        let mut tries = Backoff::of_tries(2).begin();
        assert_eq!(tries.wait_for_free(Some(Duration::MAX)), LONGEST_WAIT);
        assert_eq!(tries.wait(Some(Duration::MAX)), Some(LONGEST_WAIT));
        let (start, pause) = (SystemClock.instant(), Pause::default());
        pause.begin(Duration::MAX);
        pause.begin(Duration::from_secs(1));
        pause.pass().await;
        assert_eq!(SystemClock.instant() - start, LONGEST_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn being_told_to_stop_cuts_a_wait_short_and_one_try_is_the_last() {
        let (stop, called) = (Stop::default(), AtomicU32::new(0));
        let work = || async {
            called.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>("away")
        };
        let tries = Backoff { tries: 9, base: LONGEST_WAIT, cap: LONGEST_WAIT }.begin().until(&stop);
        let start = SystemClock.instant();
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            stop.terminate();
        };
        let run = tries.run(|tries, _| tries.wait(Some(LONGEST_WAIT)), work);
        assert_eq!(futures_util::future::join(run, stopping).await.0, Err("away"));
        assert!(SystemClock.instant() - start < Duration::from_secs(1));
        assert_eq!(called.into_inner(), 2);
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now: Timestamp = "2026-11-23T06:00:00Z".parse().unwrap();
        assert_eq!(retry_after(" 7", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Mon, 23 Nov 2026 06:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Mon, 23 Nov 2026 05:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("18446744073709551615", now), Some(LONGEST_WAIT));
    }
}
