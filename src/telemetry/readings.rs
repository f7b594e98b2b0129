//! Readings: everything that is reported about a run, as samples taken at one moment.
//!
//! The one place where counters, the board, the ledger's sums and the end of the run become metrics.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::ledger::{Overview, State};
use crate::metrics::{self, Board, Count, IntegrationCounts, Meter, Metric};
use crate::model::RunId;
use crate::session::visit::Outcome;

/// What is watched.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Provides the time.
    pub clock: Arc<dyn Clock>,
    /// The run.
    pub run_id: RunId,
    /// When it began.
    pub started_at: Timestamp,
    /// Its counters, which began with it.
    pub meter: Arc<Meter>,
    /// Its progress.
    pub board: Arc<Board>,
    /// The integrations that it works for, so that each is reported from the start.
    pub integrations: Vec<String>,
    /// For how long nothing may succeed while sessions are in flight.
    pub no_progress: Duration,
}

/// The value of a metric for one set of labels at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) metric: &'static Metric,
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: Value,
}

/// A value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// Of a counter.
    Count(u64),
    /// Of a gauge.
    Level(i64),
}

/// All that is known of a run.
#[derive(Debug)]
pub(super) struct Readings {
    watched: Watched,
    ledger: Mutex<Option<Overview>>,
    end: OnceLock<(Timestamp, u8)>,
}

impl Readings {
    pub(super) fn of(watched: Watched) -> Self {
        Self { watched, ledger: Mutex::new(None), end: OnceLock::new() }
    }

    pub(super) const fn watched(&self) -> &Watched {
        &self.watched
    }

    pub(super) fn now(&self) -> Timestamp {
        self.watched.clock.now()
    }

    pub(super) fn note_ledger(&self, overview: Overview) {
        *self.ledger.lock().unwrap_or_else(PoisonError::into_inner) = Some(overview);
    }

    pub(super) fn note_end(&self, exit_code: u8) {
        self.end.get_or_init(|| (self.now(), exit_code));
    }

    /// Returns whether the run makes progress, or has nothing to do. A run that was stopped is healthy while it drains.
    pub(super) fn is_well(&self) -> bool {
        let Watched { board, meter, clock, no_progress, .. } = &self.watched;
        board.in_flight() == 0 || meter.stuck_for(clock.instant()) <= *no_progress
    }

    /// Reads everything. Samples of one metric are grouped, metrics are in the order of their list.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        self.read_sessions(&mut samples);
        self.read_media_and_requests(&mut samples);
        self.read_state(&mut samples);
        self.read_ledger(&mut samples);
        self.read_run(&mut samples);
        samples
    }

    fn read_sessions(&self, samples: &mut Vec<Sample>) {
        let mut ends = self.watched.meter.ends();
        // A counter that begins with its first event hides that event from whoever asks for increases.
        for integration in &self.watched.integrations {
            for outcome in Outcome::ALL {
                ends.outcomes.entry((integration.clone(), outcome.as_str())).or_default();
            }
        }
        for ((integration, outcome), count) in ends.outcomes {
            let labels = vec![("integration", integration), ("outcome", outcome.to_owned())];
            samples.push(Sample { metric: metrics::SESSIONS, labels, value: Value::Count(count) });
        }
        for ((integration, code), count) in ends.codes {
            let labels = vec![("integration", integration), ("code", code.to_string())];
            samples.push(Sample { metric: metrics::SESSION_CODES, labels, value: Value::Count(count) });
        }
    }

    fn read_media_and_requests(&self, samples: &mut Vec<Sample>) {
        let Watched { meter, board, .. } = &self.watched;
        samples.push(count(metrics::MEDIA_ARCHIVED, board.media.get()));
        samples.push(count(metrics::MEDIA_RECEIVED, meter.bytes_received.get()));
        samples.push(count(metrics::MEDIA_STORED, meter.bytes_stored.get()));
        let mut of_each = |metric, read: fn(&IntegrationCounts) -> &Count| {
            samples.extend(meter.integrations().into_iter().map(|(name, counts)| Sample {
                metric,
                labels: vec![("integration", name)],
                value: Value::Count(read(&counts).get()),
            }));
        };
        of_each(metrics::VERIFF_REQUESTS, |counts| &counts.requests);
        of_each(metrics::VERIFF_THROTTLED, |counts| &counts.throttled);
        of_each(metrics::VERIFF_RETRIES, |counts| &counts.retries);
        samples.push(count(metrics::STORE_RETRIES, meter.store_retries.get()));
        samples.push(count(metrics::LEASES_LOST, meter.leases_lost.get()));
    }

    fn read_state(&self, samples: &mut Vec<Sample>) {
        let Watched { meter, board, .. } = &self.watched;
        samples.push(level(metrics::SESSIONS_IN_FLIGHT, board.in_flight().into()));
        for (name, counts) in meter.integrations() {
            let labels = vec![("integration", name)];
            let value = Value::Level(counts.is_stopped().into());
            samples.push(Sample { metric: metrics::INTEGRATION_STOPPED, labels, value });
        }
    }

    fn read_ledger(&self, samples: &mut Vec<Sample>) {
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(overview) = &*ledger else { return };
        if let Some(deadline) = overview.nearest_deadline_at {
            let left = deadline.unix_seconds().saturating_sub(self.now().unix_seconds());
            samples.push(level(metrics::HORIZON_NEAREST, left));
        }
        let risks = [
            ("past", overview.past_horizon),
            ("within_alarm", overview.within_alarm),
            ("unknown", overview.unknown_deadlines),
        ];
        samples.extend(risks.map(|(risk, sessions)| labelled(metrics::HORIZON_SESSIONS, "risk", risk, sessions)));
        samples.extend(State::ALL.map(|state| {
            let sessions = overview.states.iter().find(|found| found.state == state).map_or(0, |found| found.sessions);
            labelled(metrics::LEDGER_SESSIONS, "state", state.as_str(), sessions)
        }));
    }

    fn read_run(&self, samples: &mut Vec<Sample>) {
        let Watched { meter, started_at, .. } = &self.watched;
        if let Some(after) = meter.last_success() {
            samples.push(level(metrics::LAST_PROGRESS, started_at.plus(after).unix_seconds()));
        }
        samples.push(level(metrics::RUN_STARTED, started_at.unix_seconds()));
        let finished_at = self.end.get().map_or(0, |(finished_at, _)| finished_at.unix_seconds());
        samples.push(level(metrics::RUN_FINISHED, finished_at));
        if let Some((_, exit_code)) = self.end.get() {
            samples.push(level(metrics::RUN_EXIT_CODE, (*exit_code).into()));
        }
    }
}

const fn count(metric: &'static Metric, count: u64) -> Sample {
    Sample { metric, labels: Vec::new(), value: Value::Count(count) }
}

const fn level(metric: &'static Metric, level: i64) -> Sample {
    Sample { metric, labels: Vec::new(), value: Value::Level(level) }
}

fn labelled(metric: &'static Metric, label: &'static str, value: &str, sessions: u64) -> Sample {
    let level = i64::try_from(sessions).unwrap_or(i64::MAX);
    Sample { metric, labels: vec![(label, value.to_owned())], value: Value::Level(level) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::clock::ManualClock;
    use crate::error::Code;
    use crate::ledger::StateCount;
    use crate::metrics::{ALL, Kind};

    pub(in crate::telemetry) fn readings() -> (Arc<Readings>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_000_000)));
        let watched = Watched {
            run_id: RunId::new(clock.now()),
            started_at: clock.now(),
            meter: Arc::new(Meter::starting(clock.instant())),
            board: Arc::default(),
            integrations: vec!["eu".to_owned()],
            no_progress: Duration::from_mins(15),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
        };
        (Arc::new(Readings::of(watched)), clock)
    }

    /// Makes everything happen once.
    pub(in crate::telemetry) fn fill(readings: &Readings) {
        let Watched { meter, board, clock, .. } = &readings.watched;
        let upstream = meter.upstream_of("eu");
        upstream.requested();
        upstream.throttled();
        upstream.retried();
        upstream.received(7);
        upstream.succeeded(clock.instant());
        meter.store_retries.increment();
        meter.leases_lost.increment();
        meter.session_ended("eu", "failed", Some(Code::VeriffThrottled));
        board.media.add(3);
        board.in_flight.store(2, Ordering::Relaxed);
        readings.note_ledger(Overview {
            nearest_deadline_at: Some(Timestamp::from_unix_seconds(1_000_090)),
            within_alarm: 1,
            states: vec![StateCount { state: State::Pending, sessions: 5 }],
            ..Overview::default()
        });
        readings.note_end(6);
    }

    fn value(readings: &Readings, metric: &Metric, labels: &[&str]) -> Option<Value> {
        let found = readings.samples().into_iter().find(|sample| {
            sample.metric == metric && sample.labels.iter().map(|(_, value)| value.as_str()).eq(labels.iter().copied())
        });
        found.map(|sample| sample.value)
    }

    #[test]
    fn every_metric_of_the_list_is_told_with_its_labels_and_its_kind() {
        let (readings, _) = readings();
        fill(&readings);
        let samples = readings.samples();
        let mut told: Vec<&Metric> = samples.iter().map(|sample| sample.metric).collect();
        told.dedup();
        assert_eq!(told, ALL);
        for sample in samples {
            let names: Vec<&str> = sample.labels.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, sample.metric.labels);
            assert_eq!(matches!(sample.value, Value::Count(_)), sample.metric.kind == Kind::Counter);
        }
    }

    #[test]
    fn what_is_not_known_is_absent_and_what_has_not_happened_is_zero() {
        let (readings, _) = readings();
        for metric in [metrics::HORIZON_NEAREST, metrics::LAST_PROGRESS, metrics::RUN_EXIT_CODE] {
            assert_eq!(value(&readings, metric, &[]), None, "{}", metric.name);
        }
        assert_eq!(value(&readings, metrics::RUN_FINISHED, &[]), Some(Value::Level(0)));
        for outcome in Outcome::ALL {
            assert_eq!(value(&readings, metrics::SESSIONS, &["eu", outcome.as_str()]), Some(Value::Count(0)));
        }
    }

    #[test]
    fn deadlines_come_nearer_between_two_looks_at_the_ledger() {
        let (readings, clock) = readings();
        fill(&readings);
        assert_eq!(value(&readings, metrics::HORIZON_NEAREST, &[]), Some(Value::Level(90)));
        clock.advance(Duration::from_secs(100));
        assert_eq!(value(&readings, metrics::HORIZON_NEAREST, &[]), Some(Value::Level(-10)));
        assert_eq!(value(&readings, metrics::LEDGER_SESSIONS, &["pending"]), Some(Value::Level(5)));
        assert_eq!(value(&readings, metrics::LEDGER_SESSIONS, &["failed"]), Some(Value::Level(0)));
        assert_eq!(value(&readings, metrics::LAST_PROGRESS, &[]), Some(Value::Level(1_000_000)));
    }

    #[test]
    fn a_run_is_unwell_when_nothing_succeeds_for_too_long_while_sessions_are_in_flight() {
        let (readings, clock) = readings();
        clock.advance(Duration::from_hours(1));
        assert!(readings.is_well(), "nothing is in flight");
        readings.watched.board.in_flight.store(1, Ordering::Relaxed);
        assert!(!readings.is_well());
        readings.watched.meter.store.succeeded(clock.instant());
        assert!(readings.is_well());
        clock.advance(Duration::from_mins(15));
        assert!(readings.is_well());
        clock.advance(Duration::from_secs(1));
        assert!(!readings.is_well());
    }
}
