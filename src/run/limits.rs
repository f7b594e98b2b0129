//! Limits: when a run ends before its source does.

use std::time::Duration;

use super::{Pass, Worker};
use crate::stop::Stopped;

/// Limits of one run.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sessions under way at once.
    pub sessions_in_flight: usize,
    /// No successful answer for so long ends the run.
    pub no_progress: Duration,
    /// How long sessions in flight may take to finish once the run is stopped.
    pub drain_timeout: Duration,
    /// Stop after so many sessions.
    pub max_sessions: Option<u64>,
    /// Stop after so long.
    pub max_duration: Option<Duration>,
    /// Stop after so many bytes of media.
    pub max_bytes: Option<u64>,
    /// Stop after so many failures.
    pub max_failures: Option<u64>,
}

impl Worker {
    /// Looks at the limits that are not tied to a session.
    pub(super) fn watch(&mut self, is_working: bool) {
        if self.stopped.is_some() {
            return;
        }
        let now = self.clock.instant();
        let silent_for = self.meter.silent_for(now, !is_working);
        if is_working && self.meter.failing_for(now).max(silent_for) > self.limits.no_progress {
            tracing::error!("nothing succeeded for limits.no_progress; the run ends");
            self.stopped = Some(Stopped::NoProgress);
        } else if self.limits.max_duration.is_some_and(|limit| self.meter.elapsed(now) > limit) {
            self.stopped = Some(Stopped::Limit("--max-duration"));
        }
    }

    /// Returns whether another session would be one too many. Asked when there is one, so that a run which ends exactly
    /// at its limit has not been stopped by it.
    pub(super) fn is_over_limit(&mut self, pass: Pass) -> bool {
        if pass != Pass::First {
            return false;
        }
        let reached = |limit: Option<u64>, number: u64| limit.is_some_and(|limit| number >= limit);
        let limit = if reached(self.limits.max_sessions, self.records) {
            "--max-sessions"
        } else if reached(self.limits.max_bytes, self.meter.bytes_received.get()) {
            "--max-bytes"
        } else if reached(self.limits.max_failures, self.tally.counts.failed) {
            "--max-failures"
        } else {
            return false;
        };
        self.stopped.get_or_insert(Stopped::Limit(limit));
        true
    }
}
