//! Metrics: what is counted during a run, and the list of the metrics.
//!
//! One set of counters a process, shared by the edges that count and the shell that shows. What is counted for every
//! request or chunk is atomic; what is counted once per session is behind a lock. Nothing here carries an id or
//! anything else about a session.

mod list;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use self::list::*;
use crate::error::Code;

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
    /// Requests to the store that were tried again.
    pub store_retries: Count,
    /// Leases that lapsed, or went to another worker, while their session was in progress.
    pub leases_lost: Count,
    /// Whether Veriff answers.
    pub upstream: Health,
    /// Whether the store answers.
    pub store: Health,
    /// How many answers of either side were seen when the run was last looked at, and when that number last grew.
    seen: Mutex<(u64, Instant)>,
    integrations: Mutex<BTreeMap<String, Arc<IntegrationCounts>>>,
    ends: Mutex<Ends>,
}

/// What one integration was asked.
#[derive(Debug, Default)]
pub struct IntegrationCounts {
    /// Requests sent to Veriff.
    pub requests: Count,
    /// Answers 429.
    pub throttled: Count,
    /// Requests to Veriff that were tried again.
    pub retries: Count,
    is_stopped: AtomicBool,
}

impl IntegrationCounts {
    /// Returns whether the run has stopped working for it.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

/// How sessions ended, by integration.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// By integration and outcome.
    pub outcomes: BTreeMap<(String, &'static str), u64>,
    /// Those that were not archived, by integration and code.
    pub codes: BTreeMap<(String, Code), u64>,
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
            store_retries: Count::default(),
            leases_lost: Count::default(),
            upstream: Health::of(now),
            store: Health::of(now),
            seen: Mutex::new((0, now)),
            integrations: Mutex::default(),
            ends: Mutex::default(),
        }
    }

    /// Hands out the counters of one integration; what they count is counted in the totals too.
    #[must_use]
    pub fn upstream_of(self: &Arc<Self>, integration: &str) -> UpstreamMeter {
        UpstreamMeter { total: Arc::clone(self), own: self.counts_of(integration) }
    }

    /// Notes that the run no longer works for an integration.
    pub fn integration_stopped(&self, integration: &str) {
        self.counts_of(integration).is_stopped.store(true, Ordering::Relaxed);
    }

    /// Counts a session that has ended. The integration is empty if none is known.
    pub fn session_ended(&self, integration: &str, outcome: &'static str, code: Option<Code>) {
        let mut ends = locked(&self.ends);
        *ends.outcomes.entry((integration.to_owned(), outcome)).or_default() += 1;
        if let Some(code) = code.filter(|_| !matches!(outcome, "archived" | "unchanged")) {
            *ends.codes.entry((integration.to_owned(), code)).or_default() += 1;
        }
    }

    /// Returns the counters of every integration.
    #[must_use]
    pub fn integrations(&self) -> BTreeMap<String, Arc<IntegrationCounts>> {
        locked(&self.integrations).clone()
    }

    /// Returns how sessions ended so far.
    #[must_use]
    pub fn ends(&self) -> Ends {
        locked(&self.ends).clone()
    }

    fn counts_of(&self, integration: &str) -> Arc<IntegrationCounts> {
        Arc::clone(locked(&self.integrations).entry(integration.to_owned()).or_default())
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

    /// Returns for how long neither side has answered, as far as occasional checks can show. While `is_idle`
    /// nothing is asked, and nothing is missed.
    ///
    /// A body that stalls and a wait that was requested are no failures, and would last for ever all the same.
    #[must_use]
    pub fn silent_for(&self, now: Instant, is_idle: bool) -> Duration {
        let answers = self.upstream.answers.get() + self.store.answers.get();
        let mut seen = locked(&self.seen);
        if is_idle || seen.0 != answers {
            *seen = (answers, now);
        }
        now.saturating_duration_since(seen.1)
    }

    /// Returns how long after the start Veriff or the store last gave a good answer, if either ever did.
    #[must_use]
    pub fn last_success(&self) -> Option<Duration> {
        self.upstream.last_success().max(self.store.last_success())
    }

    /// Returns for how long nothing succeeded since the worker last looked or rested. Unlike [`Meter::silent_for`] it
    /// notes nothing: whoever asks may do so as often as they like, and learns of it when the worker itself hangs.
    #[must_use]
    pub fn stuck_for(&self, now: Instant) -> Duration {
        let looked_at = locked(&self.seen).1;
        let succeeded_at = self.last_success().map_or(self.started, |after| self.started + after);
        let silent_for = now.saturating_duration_since(looked_at.max(succeeded_at));
        silent_for.max(self.failing_for(now))
    }
}

/// Locks what no panic can leave half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts what one integration is asked, and the same in the totals of the run.
#[derive(Debug, Clone)]
pub struct UpstreamMeter {
    total: Arc<Meter>,
    own: Arc<IntegrationCounts>,
}

impl UpstreamMeter {
    /// Notes a request.
    pub fn requested(&self) {
        self.total.requests.increment();
        self.own.requests.increment();
    }

    /// Notes an answer 429.
    pub fn throttled(&self) {
        self.total.throttled.increment();
        self.own.throttled.increment();
    }

    /// Notes that something was tried again.
    pub fn retried(&self) {
        self.total.retries.increment();
        self.own.retries.increment();
    }

    /// Notes bytes of media that came.
    pub fn received(&self, bytes: u64) {
        self.total.bytes_received.add(bytes);
    }

    /// Notes a successful answer.
    pub fn succeeded(&self, now: Instant) {
        self.total.upstream.succeeded(now);
    }

    /// Notes a failure that may pass.
    pub fn failed(&self, now: Instant) {
        self.total.upstream.failed(now);
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
    /// The same of its last good answer; zero before the first.
    succeeded_at: AtomicU64,
    answers: Count,
}

impl Health {
    const fn of(started: Instant) -> Self {
        Self {
            started,
            failing_since: AtomicU64::new(0),
            succeeded_at: AtomicU64::new(0),
            answers: Count(AtomicU64::new(0)),
        }
    }

    /// Notes a successful answer.
    pub fn succeeded(&self, now: Instant) {
        self.failing_since.store(0, Ordering::Relaxed);
        self.succeeded_at.store(self.millis(now).saturating_add(1), Ordering::Relaxed);
        self.answers.increment();
    }

    /// Notes a failure that may pass.
    pub fn failed(&self, now: Instant) {
        let since = self.millis(now).saturating_add(1);
        // If it has been failing before, that start is kept.
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

    fn last_success(&self) -> Option<Duration> {
        self.succeeded_at.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
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

/// The progress of a run, for whoever shows it.
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
    /// Sessions in progress.
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

    /// Returns how many sessions are being worked on.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
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
        meter.store.succeeded(clock.instant());
        assert_eq!(meter.failing_for(clock.instant()), Duration::from_mins(5));
        meter.upstream.succeeded(clock.instant());
        assert_eq!(meter.failing_for(clock.instant()), Duration::ZERO);
    }

    #[test]
    fn a_run_is_silent_from_its_last_answer_or_the_end_of_a_rest() {
        let clock = ManualClock::at(Timestamp::from_unix_seconds(0));
        let meter = Meter::starting(clock.instant());
        let minutes = Duration::from_mins;
        clock.advance(minutes(2));
        assert_eq!(meter.silent_for(clock.instant(), false), minutes(2));
        meter.store.succeeded(clock.instant());
        assert_eq!(meter.silent_for(clock.instant(), false), Duration::ZERO);
        clock.advance(minutes(3));
        assert_eq!(meter.silent_for(clock.instant(), false), minutes(3));
        assert_eq!(meter.silent_for(clock.instant(), true), Duration::ZERO);
    }

    #[test]
    fn looking_from_outside_changes_nothing_and_sees_what_the_worker_no_longer_looks_at() {
        let clock = ManualClock::at(Timestamp::from_unix_seconds(0));
        let meter = Meter::starting(clock.instant());
        let minutes = Duration::from_mins;
        assert_eq!(meter.last_success(), None);
        clock.advance(minutes(4));
        meter.upstream.succeeded(clock.instant());
        assert_eq!(meter.last_success(), Some(minutes(4)));
        clock.advance(minutes(3));
        assert_eq!(meter.stuck_for(clock.instant()), minutes(3));
        assert_eq!(meter.stuck_for(clock.instant()), minutes(3));
        // A rest is no silence, even where nothing has been asked for long.
        assert_eq!(meter.silent_for(clock.instant(), true), Duration::ZERO);
        assert_eq!(meter.stuck_for(clock.instant()), Duration::ZERO);
        meter.store.failed(clock.instant());
        meter.upstream.succeeded(clock.instant());
        clock.advance(minutes(1));
        meter.upstream.succeeded(clock.instant());
        assert_eq!(meter.stuck_for(clock.instant()), minutes(1));
    }

    #[test]
    fn what_an_integration_counts_is_in_the_totals() {
        let meter = Arc::new(Meter::starting(ManualClock::at(Timestamp::from_unix_seconds(0)).instant()));
        let (eu, us) = (meter.upstream_of("eu"), meter.upstream_of("us"));
        eu.requested();
        us.requested();
        us.throttled();
        us.retried();
        meter.integration_stopped("us");
        let counts = meter.integrations();
        assert_eq!((counts["eu"].requests.get(), counts["us"].requests.get(), meter.requests.get()), (1, 1, 2));
        assert_eq!((counts["us"].throttled.get(), meter.throttled.get()), (1, 1));
        assert_eq!((counts["us"].retries.get(), meter.retries.get()), (1, 1));
        assert!(counts["us"].is_stopped() && !counts["eu"].is_stopped());
    }

    #[test]
    fn codes_are_told_of_sessions_that_are_not_archived() {
        let meter = Meter::starting(ManualClock::at(Timestamp::from_unix_seconds(0)).instant());
        meter.session_ended("eu", "archived", Some(Code::StoreConflict));
        meter.session_ended("eu", "absent", Some(Code::VeriffAbsent));
        meter.session_ended("eu", "absent", Some(Code::VeriffAbsent));
        meter.session_ended("", "failed", Some(Code::InputInvalid));
        let ends = meter.ends();
        assert_eq!(ends.outcomes[&("eu".to_owned(), "absent")], 2);
        assert_eq!(ends.outcomes[&("eu".to_owned(), "archived")], 1);
        let codes: Vec<_> = ends.codes.iter().map(|((name, code), count)| (name.as_str(), *code, *count)).collect();
        assert_eq!(codes, [("", Code::InputInvalid, 1), ("eu", Code::VeriffAbsent, 2)]);
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
