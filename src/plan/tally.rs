//! Tally: records counted one by one, as a run at the configured rate would meet them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::estimate::{Estimate, ratio};
use crate::clock::Timestamp;
use crate::ledger::{SessionRow, State};
use crate::model::request::SessionRequest;
use crate::model::retention::RetentionPolicy;
use crate::veriff::settings::IntegrationSettings;

/// Requests to Veriff for a session that it did not have before.
const ABSENT_REQUESTS: f64 = 1.0;

/// What has been counted so far. Memory does not grow with the number of records.
#[derive(Debug)]
pub struct Tally<'a> {
    pub(super) policy: &'a RetentionPolicy,
    estimate: &'a Estimate,
    pub(super) now: Timestamp,
    /// Lines that cannot be read.
    pub bad_records: u64,
    /// Lines left out because their session is finished.
    pub finished_records: u64,
    pub(super) sessions: Counts,
    pub(super) deadlines: Deadlines,
    pub(super) queues: BTreeMap<String, Queue>,
    pub(super) locks: BTreeMap<String, LockTally>,
}

/// Sessions by what the ledger knows of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) unknown: u64,
    pub(super) settled: u64,
    pub(super) unsettled: u64,
    pub(super) pending: u64,
    pub(super) failed: u64,
    pub(super) absent: u64,
    pub(super) accepted: u64,
    pub(super) skipped: u64,
}

impl Counts {
    /// Returns how many sessions a run has to archive.
    pub(super) const fn to_archive(&self) -> u64 {
        self.unknown + self.pending + self.failed
    }
}

/// Deadlines of sessions that have to be archived.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Deadlines {
    pub(super) past: u64,
    pub(super) cannot_finish: u64,
    pub(super) unknown: u64,
    pub(super) nearest_at: Option<Timestamp>,
}

/// The requests to one integration, one after another.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Queue {
    pub(super) requests: f64,
    pub(super) requests_per_second: f64,
}

impl Queue {
    /// Returns when the last request so far is sent.
    pub(super) fn duration(self) -> Duration {
        Duration::try_from_secs_f64(self.requests / self.requests_per_second).unwrap_or(Duration::MAX)
    }
}

/// The locks of one class.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct LockTally {
    pub(super) sessions: u64,
    pub(super) first_until: Option<Timestamp>,
    pub(super) last_until: Option<Timestamp>,
    pub(super) too_long: u64,
}

impl<'a> Tally<'a> {
    /// Begins to count, at the time from which deadlines and rates are reckoned.
    #[must_use]
    pub fn new(policy: &'a RetentionPolicy, estimate: &'a Estimate, now: Timestamp) -> Self {
        Self {
            policy,
            estimate,
            now,
            bad_records: 0,
            finished_records: 0,
            sessions: Counts::default(),
            deadlines: Deadlines::default(),
            queues: BTreeMap::new(),
            locks: BTreeMap::new(),
        }
    }

    /// Counts one record.
    pub fn add(
        &mut self,
        record: &SessionRequest,
        integration: &IntegrationSettings,
        row: Option<&SessionRow>,
        skip_settled: bool,
    ) {
        let (must_archive, requests) = match row.map(|row| (row.state, row.settled)) {
            Some((State::Archived, true)) if skip_settled => {
                self.sessions.skipped += 1;
                return;
            }
            Some((State::Archived, settled)) => {
                let counter = if settled { &mut self.sessions.settled } else { &mut self.sessions.unsettled };
                *counter += 1;
                (false, self.estimate.list_requests)
            }
            Some((State::Accepted, _)) => {
                self.sessions.accepted += 1;
                (false, self.estimate.list_requests)
            }
            Some((State::Absent, _)) => {
                self.sessions.absent += 1;
                (false, ABSENT_REQUESTS)
            }
            Some((State::Pending, _)) => {
                self.sessions.pending += 1;
                (true, self.estimate.requests)
            }
            Some((State::Failed, _)) => {
                self.sessions.failed += 1;
                (true, self.estimate.requests)
            }
            None => {
                self.sessions.unknown += 1;
                (true, self.estimate.requests)
            }
        };
        let done_at = self.note_requests(requests, integration);
        if must_archive {
            let decided_at = record.decided_at.or_else(|| row.and_then(|row| row.record.decided_at));
            self.note_deadline(decided_at, integration, row, done_at);
            self.note_locks(1, record.retention_class.as_deref(), decided_at, integration);
        }
    }

    /// Counts messages that cannot be looked into: each as a session that nothing is known of.
    pub fn add_unread(&mut self, messages: u64, integration: &IntegrationSettings) {
        self.sessions.unknown += messages;
        self.deadlines.unknown += messages;
        self.note_requests(ratio(messages, 1) * self.estimate.requests, integration);
        if messages > 0 {
            self.note_locks(messages, None, None, integration);
        }
    }

    /// Adds requests to those of an integration and returns when they are done.
    fn note_requests(&mut self, requests: f64, integration: &IntegrationSettings) -> Timestamp {
        let queue = self.queues.entry(integration.name.clone()).or_default();
        queue.requests += requests;
        queue.requests_per_second = integration.max_requests_per_second;
        self.now.plus(queue.duration())
    }

    fn note_deadline(
        &mut self,
        decided_at: Option<Timestamp>,
        integration: &IntegrationSettings,
        row: Option<&SessionRow>,
        done_at: Timestamp,
    ) {
        let deadline = decided_at
            .map(|decided_at| decided_at.plus(integration.horizon))
            .or_else(|| row.and_then(|row| row.deadline_at));
        let Some(deadline) = deadline else {
            self.deadlines.unknown += 1;
            return;
        };
        self.deadlines.past += u64::from(deadline < self.now);
        self.deadlines.cannot_finish += u64::from(deadline < done_at);
        let nearest = self.deadlines.nearest_at.map_or(deadline, |nearest| nearest.min(deadline));
        self.deadlines.nearest_at = Some(nearest);
    }

    fn note_locks(
        &mut self,
        sessions: u64,
        named: Option<&str>,
        decided_at: Option<Timestamp>,
        integration: &IntegrationSettings,
    ) {
        let classes = named.map_or_else(
            || self.policy.reachable(&integration.name, &integration.retention_class),
            |class| vec![class],
        );
        for name in classes {
            let Some(class) = self.policy.class(name) else { continue };
            let entry = self.locks.entry(name.to_owned()).or_default();
            entry.sessions += sessions;
            match class.lock(decided_at.unwrap_or(self.now), self.now) {
                Err(_) => entry.too_long += sessions,
                Ok(None) => {}
                Ok(Some(lock)) => {
                    let until = lock.retain_until;
                    entry.first_until = Some(entry.first_until.map_or(until, |first| first.min(until)));
                    entry.last_until = entry.last_until.max(Some(until));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Overview;
    use crate::model::SessionId;
    use crate::model::retention::{Class, Mode};
    use crate::secret::SecretSource;
    use crate::veriff::settings::{IntegrationKind, SignaturePolicy};

    fn integration(requests_per_second: f64) -> IntegrationSettings {
        IntegrationSettings {
            name: "default".to_owned(),
            base_url: "https://stationapi.veriff.com".parse().unwrap(),
            allow_http: false,
            api_key: SecretSource::Missing("K".to_owned()),
            shared_secret: SecretSource::Missing("S".to_owned()),
            kind: IntegrationKind::Live,
            horizon: Duration::from_hours(90 * 24),
            max_requests_per_second: requests_per_second,
            max_concurrency: 1,
            response_signature: SignaturePolicy::Record,
            records: Vec::new(),
            settle_after: Duration::from_hours(24),
            retention_class: "default".to_owned(),
        }
    }

    fn record(decided_at: &str) -> SessionRequest {
        SessionRequest {
            decided_at: Some(decided_at.parse().unwrap()),
            ..SessionRequest::of(SessionId::parse("s").unwrap())
        }
    }

    fn policy() -> RetentionPolicy {
        let class = Class {
            mode: Mode::Compliance,
            period: Some("5y".parse().unwrap()),
            max_period: Some("10y".parse().unwrap()),
            basis: String::new(),
        };
        RetentionPolicy::new(class, BTreeMap::new(), &[]).unwrap()
    }

    #[test]
    fn sessions_further_back_in_the_queue_miss_their_horizon() {
        let (policy, estimate) = (policy(), Estimate::of(None, &Overview::default()));
        let now = "2026-11-23T00:00:00Z".parse().unwrap();
        let mut tally = Tally::new(&policy, &estimate, now);
        // Nine requests at one a second: the first ends after 9 s, the second after 18 s, the third after 27 s.
        let (integration, soon) = (integration(1.0), record("2026-08-25T00:00:20Z"));
        for _ in 0..3 {
            tally.add(&soon, &integration, None, false);
        }
        tally.add(&record("2026-01-01T00:00:00Z"), &integration, None, false);
        assert_eq!(tally.sessions.to_archive(), 4);
        assert_eq!((tally.deadlines.past, tally.deadlines.cannot_finish), (1, 2));
        assert_eq!(tally.queues["default"].duration(), Duration::from_secs(36));
    }

    #[test]
    fn messages_that_nobody_looked_into_count_as_sessions_without_a_deadline() {
        let (policy, estimate) = (policy(), Estimate::of(None, &Overview::default()));
        let mut tally = Tally::new(&policy, &estimate, "2026-11-23T00:00:00Z".parse().unwrap());
        tally.add_unread(4, &integration(1.0));
        assert_eq!((tally.sessions.to_archive(), tally.deadlines.unknown), (4, 4));
        assert_eq!(tally.deadlines.cannot_finish, 0);
        assert_eq!(tally.queues["default"].duration(), Duration::from_secs(36));
        assert_eq!(tally.locks["default"].sessions, 4);
    }

    #[test]
    fn locks_are_told_by_class_with_their_first_and_last_date() {
        let (policy, estimate) = (policy(), Estimate::of(None, &Overview::default()));
        let mut tally = Tally::new(&policy, &estimate, "2026-11-23T00:00:00Z".parse().unwrap());
        let integration = integration(5.0);
        tally.add(&record("2026-10-01T00:00:00Z"), &integration, None, false);
        tally.add(&record("2026-11-01T12:00:00Z"), &integration, None, false);
        let lock = tally.locks["default"];
        assert_eq!(lock.sessions, 2);
        assert_eq!(lock.first_until.unwrap().to_string(), "2031-10-01T00:00:00.000Z");
        assert_eq!(lock.last_until.unwrap().to_string(), "2031-11-02T00:00:00.000Z");
    }
}
