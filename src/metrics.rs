//! Metrics: what is counted while a run goes on.
//!
//! One set of counters a process, all of them atomic, shared by the edges that count and the shell that shows. Nothing
//! here carries an id or anything else about a session.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
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
    last_success_ms: AtomicU64,
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
            last_success_ms: AtomicU64::new(0),
        }
    }

    /// Notes that upstream or store gave a successful answer.
    pub fn succeeded(&self, now: Instant) {
        self.last_success_ms.fetch_max(self.elapsed_ms(now), Ordering::Relaxed);
    }

    /// Returns how long ago the last successful answer was, or the start if there was none.
    #[must_use]
    pub fn since_success(&self, now: Instant) -> Duration {
        let elapsed = self.elapsed_ms(now);
        Duration::from_millis(elapsed.saturating_sub(self.last_success_ms.load(Ordering::Relaxed)))
    }

    /// Returns how long the run has gone on.
    #[must_use]
    pub fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    fn elapsed_ms(&self, now: Instant) -> u64 {
        u64::try_from(self.elapsed(now).as_millis()).unwrap_or(u64::MAX)
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
