//! Metrics: what is counted while a run goes on.
//!
//! One set of counters a process, all of them atomic, shared by the edges that count and the shell that shows. Nothing
//! here carries an id or anything else about a session.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counters of one run.
#[derive(Debug)]
pub struct Meter {
    started: Instant,
    /// Requests sent to Veriff.
    pub requests: Count,
    /// Answers 429.
    pub throttled: Count,
    /// Requests to Veriff that were tried again.
    pub retries: Count,
    /// Bytes of media received from Veriff.
    pub bytes_received: Count,
    /// Media items downloaded whole.
    pub downloads: Count,
    /// Bytes written to the store.
    pub bytes_stored: Count,
    /// Whether Veriff answers.
    pub upstream: Health,
    /// Whether the store answers.
    pub store: Health,
    /// How many answers of either side were seen when the run was last looked at, and when that number last grew.
    seen: Mutex<(u64, Instant)>,
}

/// A counter that many tasks add to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds a number.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// Returns the sum.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Meter {
    /// Starts counting.
    #[must_use]
    pub fn starting(now: Instant) -> Self {
        Self {
            started: now,
            requests: Count::default(),
            throttled: Count::default(),
            retries: Count::default(),
            bytes_received: Count::default(),
            downloads: Count::default(),
            bytes_stored: Count::default(),
            upstream: Health::of(now),
            store: Health::of(now),
            seen: Mutex::new((0, now)),
        }
    }

    /// Returns how long the run has gone on.
    #[must_use]
    pub fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Returns how long upstream or store has done nothing but fail, whichever is longer.
    #[must_use]
    pub fn failing_for(&self, now: Instant) -> Duration {
        self.upstream.failing_for(now).max(self.store.failing_for(now))
    }

    /// Returns for how long neither side has answered, as far as can be told by looking now and then. While `is_idle`
    /// nothing is asked, and nothing is missed.
    ///
    /// A body that stands still and a wait that was asked for are no failures, and would go on for ever all the same.
    #[must_use]
    pub fn silent_for(&self, now: Instant, is_idle: bool) -> Duration {
        let answers = self.upstream.answers.get() + self.store.answers.get();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if is_idle || seen.0 != answers {
            *seen = (answers, now);
        }
        now.saturating_duration_since(seen.1)
    }
}

/// Whether one side answers: since when it has done nothing but fail.
///
/// A side that is asked nothing is not failing, however long ago its last answer was.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    /// Milliseconds after the start, plus one; zero while it answers.
    failing_since: AtomicU64,
    answers: Count,
}

impl Health {
    const fn of(started: Instant) -> Self {
        Self { started, failing_since: AtomicU64::new(0), answers: Count(AtomicU64::new(0)) }
    }

    /// Notes a successful answer.
    pub fn succeeded(&self) {
        self.failing_since.store(0, Ordering::Relaxed);
        self.answers.increment();
    }

    /// Notes a failure that may pass.
    pub fn failed(&self, now: Instant) {
        let since = self.millis(now).saturating_add(1);
        // Where it has been failing before, that beginning stands.
        self.failing_since.compare_exchange(0, since, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// Returns for how long there were only failures.
    #[must_use]
    pub fn failing_for(&self, now: Instant) -> Duration {
        match self.failing_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(self.millis(now).saturating_sub(since - 1)),
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}

/// What one session cost.
#[derive(Debug, Default)]
pub struct SessionMeter {
    requests: AtomicU32,
    retries: AtomicU32,
}

impl SessionMeter {
    /// Notes a request to Veriff.
    pub fn requested(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that something was tried again.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of requests to Veriff.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns how often something was tried again.
    #[must_use]
    pub fn retries(&self) -> u32 {
        self.retries.load(Ordering::Relaxed)
    }
}

/// Where a run stands, for whoever shows its progress.
#[derive(Debug, Default)]
pub struct Board {
    /// Sessions done, whatever their outcome.
    pub sessions: Count,
    /// Sessions that failed.
    pub failed: Count,
    /// Sessions set aside for another try at the end.
    pub deferred: Count,
    /// New media items archived.
    pub media: Count,
    /// Sessions being worked on.
    pub in_flight: AtomicU32,
    nearest_deadline_s: AtomicU64,
}

impl Board {
    /// Notes the deadline of a session that is still to be done, in seconds since 1970.
    pub fn note_deadline(&self, unix_seconds: i64) {
        let seconds = u64::try_from(unix_seconds).unwrap_or(0).max(1);
        let nearer = |known: u64| (known == 0 || seconds < known).then_some(seconds);
        // An update that finds a nearer deadline in place has nothing to do.
        self.nearest_deadline_s.fetch_update(Ordering::Relaxed, Ordering::Relaxed, nearer).ok();
    }

    /// Returns the nearest deadline noted, in seconds since 1970.
    #[must_use]
    pub fn nearest_deadline(&self) -> Option<i64> {
        let seconds = self.nearest_deadline_s.load(Ordering::Relaxed);
        (seconds > 0).then(|| i64::try_from(seconds).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock, Timestamp};

    #[test]
    fn a_side_is_failing_from_its_first_failure_until_it_answers() {
        let clock = ManualClock::at(Timestamp::from_unix_seconds(0));
        let meter = Meter::starting(clock.instant());
        clock.advance(Duration::from_mins(20));
        assert_eq!(meter.failing_for(clock.instant()), Duration::ZERO);
        meter.upstream.failed(clock.instant());
        clock.advance(Duration::from_mins(5));
        meter.upstream.failed(clock.instant());
        meter.store.succeeded();
        assert_eq!(meter.failing_for(clock.instant()), Duration::from_mins(5));
        meter.upstream.succeeded();
        assert_eq!(meter.failing_for(clock.instant()), Duration::ZERO);
    }

    #[test]
    fn a_run_is_silent_from_its_last_answer_or_the_end_of_a_rest() {
        let clock = ManualClock::at(Timestamp::from_unix_seconds(0));
        let meter = Meter::starting(clock.instant());
        let minutes = Duration::from_mins;
        clock.advance(minutes(2));
        assert_eq!(meter.silent_for(clock.instant(), false), minutes(2));
        meter.store.succeeded();
        assert_eq!(meter.silent_for(clock.instant(), false), Duration::ZERO);
        clock.advance(minutes(3));
        assert_eq!(meter.silent_for(clock.instant(), false), minutes(3));
        assert_eq!(meter.silent_for(clock.instant(), true), Duration::ZERO);
    }

    #[test]
    fn the_board_keeps_the_nearest_deadline() {
        let board = Board::default();
        assert_eq!(board.nearest_deadline(), None);
        board.note_deadline(500);
        board.note_deadline(900);
        board.note_deadline(300);
        assert_eq!(board.nearest_deadline(), Some(300));
    }
}
