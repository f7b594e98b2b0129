//! Clock: the only place where the time is read.
//!
//! Everything that dates, waits for a deadline or measures a duration asks a [`Clock`], so that tests can move time by
//! hand. Times are UTC and print as RFC 3339 with milliseconds, the form of every document.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// An instant in UTC that prints with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// Makes a timestamp from seconds since 1970; out of range is clamped.
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self(jiff::Timestamp::from_second(seconds).unwrap_or(if seconds < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        }))
    }

    /// Makes a timestamp from milliseconds since 1970; out of range is clamped.
    #[must_use]
    pub fn from_unix_millis(millis: i64) -> Self {
        Self(jiff::Timestamp::from_millisecond(millis).unwrap_or(if millis < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        }))
    }

    /// Returns whole seconds since 1970.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.0.as_second()
    }

    /// Returns milliseconds since 1970.
    #[must_use]
    pub fn unix_millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// Returns the date and time in UTC.
    #[must_use]
    pub fn utc(self) -> jiff::civil::DateTime {
        self.0.to_zoned(jiff::tz::TimeZone::UTC).datetime()
    }

    /// Makes the timestamp of 00:00 UTC on a date.
    #[must_use]
    pub fn midnight_of(date: jiff::civil::Date) -> Self {
        date.to_zoned(jiff::tz::TimeZone::UTC).map_or(Self(jiff::Timestamp::MAX), |zoned| Self(zoned.timestamp()))
    }

    /// Returns this instant moved by a duration; out of range is clamped.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        SignedDuration::try_from(duration)
            .ok()
            .and_then(|duration| self.0.checked_add(duration).ok())
            .map_or(Self(jiff::Timestamp::MAX), Self)
    }

    /// Returns the instant a duration earlier; the earliest that can be written down if that is out of range.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        self.plus_millis(-i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }

    /// Returns this instant moved by a signed number of milliseconds; out of range is clamped.
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        Self::from_unix_millis(self.unix_millis().saturating_add(millis))
    }

    /// Returns `self - other` in milliseconds.
    #[must_use]
    pub fn millis_since(self, other: Self) -> i64 {
        self.unix_millis().saturating_sub(other.unix_millis())
    }

    /// Returns `self - other`, zero if `other` is later.
    #[must_use]
    pub fn since(self, other: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.millis_since(other)).unwrap_or(0))
    }

    /// Reads an HTTP date (RFC 9110, section 5.6.7), as `Date` and `Retry-After` carry it.
    #[must_use]
    pub fn parse_http_date(text: &str) -> Option<Self> {
        jiff::fmt::rfc2822::parse(text).ok().map(|zoned| Self(zoned.timestamp()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "UTC, RFC 3339 with milliseconds",
        })
    }
}

/// Provides the time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the wall clock.
    fn now(&self) -> Timestamp;

    /// Returns a clock that never goes back, for durations and deadlines; the one that sleeps and timeouts follow, too.
    fn instant(&self) -> Instant;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the time")]
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now())
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the time")]
    fn instant(&self) -> Instant {
        // The runtime's: where its time is paused, sleeps and deadlines stay in step.
        tokio::time::Instant::now().into_std()
    }
}

/// Says when it is time again for what is done now and then.
#[derive(Debug)]
pub struct Every {
    interval: Duration,
    last: Instant,
}

impl Every {
    /// Begins the first interval.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, last: SystemClock.instant() }
    }

    /// Reports whether an interval has passed, and if so begins the next.
    pub fn is_due(&mut self) -> bool {
        let now = SystemClock.instant();
        let is_due = now.saturating_duration_since(self.last) >= self.interval;
        if is_due {
            self.last = now;
        }
        is_due
    }
}

/// A clock that a test moves by hand.
#[derive(Debug)]
pub struct ManualClock {
    start: Instant,
    at: Mutex<(Timestamp, Duration)>,
}

impl ManualClock {
    /// Makes a clock that shows `at` until it is moved.
    #[must_use]
    pub fn at(at: Timestamp) -> Self {
        Self { start: SystemClock.instant(), at: Mutex::new((at, Duration::ZERO)) }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let mut at = self.at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *at = (at.0.plus(by), at.1 + by);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.at.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    fn instant(&self) -> Instant {
        self.start + self.at.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_in_utc_with_milliseconds() {
        let time: Timestamp = "2026-03-02T11:14:30.0475+02:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-03-02T09:14:30.047Z");
        let whole: Timestamp = "2026-03-02T09:14:30Z".parse().unwrap();
        assert_eq!(whole.to_string(), "2026-03-02T09:14:30.000Z");
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_that_never_goes_back_follows_the_runtime() {
        let mut every = Every::new(Duration::from_secs(10));
        let start = SystemClock.instant();
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(SystemClock.instant() - start, Duration::from_secs(9));
        assert!(!every.is_due());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(every.is_due() && !every.is_due());
    }

    #[test]
    fn http_dates_are_read() {
        let time = Timestamp::parse_http_date("Mon, 23 Nov 2026 06:00:00 GMT").unwrap();
        assert_eq!(time.to_string(), "2026-11-23T06:00:00.000Z");
        assert_eq!(Timestamp::parse_http_date("soon"), None);
    }
}
