//! Pace: how fast one integration is asked.
//!
//! Two limits at once. A rate: requests are spaced so that no second sees more than the configured number. A
//! concurrency: how many are in flight, up to the configured bound, adapting by additive increase and multiplicative
//! decrease. A refusal for load (429, 503) halves both for the whole integration and honours the wait it asks for;
//! success brings them back step by step. Written here because ready-made limiters fix their rate when they are made.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::clock::Clock;

/// The least share of the configured rate that refusals bring us down to.
const MIN_RATE_SHARE: f64 = 1.0 / 64.0;

/// How much of the configured rate each success gives back: two hundred successes undo any slow-down.
const RATE_STEP: f64 = 1.0 / 200.0;

/// How long an idle integration may save up its rate: one second's worth may then be sent at once.
const BURST: Duration = Duration::from_secs(1);

/// While a success is at most this old, a refusal for load is the fault of the request, not of the integration's pace.
const THROTTLE_MEMORY: Duration = Duration::from_mins(1);

/// The pace of one integration.
#[derive(Debug)]
pub struct Pace {
    rate_per_second: f64,
    max_concurrency: f64,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    limit: f64,
    in_flight: usize,
    rate_share: f64,
    next_at: Instant,
    paused_until: Instant,
    slowed_at: Instant,
    succeeded_at: Option<Instant>,
}

/// The right to have one request in flight; given back when dropped, so it is kept until the body is read.
#[derive(Debug)]
pub struct Pass {
    pace: Arc<Pace>,
    entered_at: Instant,
}

impl Pace {
    /// Makes a pace of so many requests a second, at most so many at once.
    #[must_use]
    pub fn new(requests_per_second: f64, max_concurrency: usize, clock: Arc<dyn Clock>) -> Arc<Self> {
        let now = clock.instant();
        let max_concurrency = f64::from(u32::try_from(max_concurrency.max(1)).unwrap_or(u32::MAX));
        Arc::new(Self {
            rate_per_second: requests_per_second,
            max_concurrency,
            clock,
            state: Mutex::new(State {
                limit: max_concurrency,
                in_flight: 0,
                rate_share: 1.0,
                next_at: now,
                paused_until: now,
                slowed_at: now,
                succeeded_at: None,
            }),
            freed: Notify::new(),
        })
    }

    /// Waits until another request may be sent.
    pub async fn enter(self: &Arc<Self>) -> Pass {
        let mut pass = self.take_slot().await;
        loop {
            let now = self.clock.instant();
            let until = {
                let mut state = self.state();
                if state.paused_until > now {
                    state.paused_until
                } else {
                    break self.take_turn(&mut state, now, &mut pass);
                }
            };
            tokio::time::sleep(until.saturating_duration_since(now)).await;
        }
        tokio::time::sleep_until(pass.entered_at.into()).await;
        pass
    }

    async fn take_slot(self: &Arc<Self>) -> Pass {
        loop {
            // Registered before looking, so that a slot freed in between wakes this one.
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            {
                let mut state = self.state();
                if in_whole(state.in_flight) < state.limit.floor() {
                    state.in_flight += 1;
                    return Pass { pace: Arc::clone(self), entered_at: self.clock.instant() };
                }
            }
            freed.await;
        }
    }

    /// Takes the next free moment of the rate.
    fn take_turn(&self, state: &mut State, now: Instant, pass: &mut Pass) {
        let interval = Duration::from_secs_f64(1.0 / (self.rate_per_second * state.rate_share));
        let earliest = now.checked_sub(BURST.saturating_sub(interval)).unwrap_or(now);
        let turn = state.next_at.max(earliest);
        state.next_at = turn + interval;
        pass.entered_at = turn.max(now);
    }

    /// Tells whether other requests of the integration still get answers.
    #[must_use]
    pub fn others_succeed(&self) -> bool {
        let now = self.clock.instant();
        self.state().succeeded_at.is_some_and(|at| now.saturating_duration_since(at) < THROTTLE_MEMORY)
    }

    /// Returns how many requests may be in flight now.
    #[must_use]
    pub fn limit(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and the configured bound"
        )]
        let limit = self.state().limit as usize;
        limit
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Notes that the request was answered.
    pub fn succeeded(&self) {
        let mut state = self.pace.state();
        state.limit = (state.limit + 1.0 / state.limit).min(self.pace.max_concurrency);
        state.rate_share = (state.rate_share + RATE_STEP).min(1.0);
        state.succeeded_at = Some(self.pace.clock.instant());
        drop(state);
        self.pace.freed.notify_one();
    }

    /// Notes that the request was refused for load, and how long the server asks to wait.
    pub fn refused(&self, wait: Option<Duration>) {
        let now = self.pace.clock.instant();
        let mut state = self.pace.state();
        if let Some(wait) = wait {
            state.paused_until = state.paused_until.max(now + wait);
        }
        // Requests sent before the last slow-down tell nothing new: one burst of refusals halves once.
        if self.entered_at >= state.slowed_at {
            state.limit = (state.limit / 2.0).max(1.0);
            state.rate_share = (state.rate_share / 2.0).max(MIN_RATE_SHARE);
            state.slowed_at = now;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.pace.state().in_flight -= 1;
        self.pace.freed.notify_one();
    }
}

fn in_whole(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn pace(requests_per_second: f64, max_concurrency: usize) -> Arc<Pace> {
        Pace::new(requests_per_second, max_concurrency, Arc::new(SystemClock))
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_never_exceeded_after_the_first_burst() {
        let pace = pace(5.0, 100);
        let start = SystemClock.instant();
        for _ in 0..25 {
            drop(pace.enter().await);
        }
        let elapsed = SystemClock.instant() - start;
        assert!(elapsed >= Duration::from_secs(4), "{elapsed:?}");
        assert!(elapsed <= Duration::from_secs(5), "{elapsed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_halve_once_a_burst_and_success_recovers() {
        let pace = pace(1000.0, 8);
        let passes = [pace.enter().await, pace.enter().await, pace.enter().await];
        tokio::time::advance(Duration::from_millis(10)).await;
        for pass in &passes {
            pass.refused(None);
        }
        assert_eq!(pace.limit(), 4);
        tokio::time::advance(Duration::from_millis(10)).await;
        drop(passes);
        let later = pace.enter().await;
        later.refused(None);
        assert_eq!(pace.limit(), 2);
        for _ in 0..200 {
            later.succeeded();
        }
        assert_eq!(pace.limit(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_was_asked_for_stops_the_whole_integration() {
        let pace = pace(1000.0, 8);
        pace.enter().await.refused(Some(Duration::from_secs(30)));
        let start = SystemClock.instant();
        drop(pace.enter().await);
        assert!(SystemClock.instant() - start >= Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_limit_are_in_flight() {
        let pace = pace(1000.0, 2);
        let first = pace.enter().await;
        let _second = pace.enter().await;
        let third = tokio::time::timeout(Duration::from_secs(5), pace.enter()).await;
        assert!(third.is_err());
        drop(first);
        drop(tokio::time::timeout(Duration::from_secs(5), pace.enter()).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_is_remembered_for_a_minute() {
        let pace = pace(1000.0, 2);
        assert!(!pace.others_succeed());
        pace.enter().await.succeeded();
        assert!(pace.others_succeed());
        tokio::time::advance(Duration::from_mins(2)).await;
        assert!(!pace.others_succeed());
    }
}
