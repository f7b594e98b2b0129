//! Summary: what a run did, in numbers, and how the process exits.
//!
//! Every line given to a run is counted exactly once, so that in equals out; codes and warnings are counted beside it.
//! The exit code follows from the numbers alone, here and nowhere else.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::error::{Code, Exit};
use crate::ledger::RunCounts;
use crate::model::RunId;
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;
use crate::session::visit::Outcome;
use crate::stop::Stopped;

/// The value of `schema` in a run's summary.
pub const SUMMARY_SCHEMA: &str = "veriff-archive/summary/v1";

/// What a run has done so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Sessions by outcome, and what was written.
    pub counts: RunCounts,
    /// Lines that named a session which this run had on its list already.
    pub repeated: u64,
    /// Sessions that failed or are pending, by code.
    pub codes: BTreeMap<Code, u64>,
    /// What a person should know of sessions that did not fail, by code.
    pub warnings: BTreeMap<String, u64>,
}

/// The summary of a run, as it is printed.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Summary {
    /// Always `veriff-archive/summary/v1`.
    pub schema: &'static str,
    /// The run.
    pub run_id: RunId,
    /// Nothing was written; counts say what would have been.
    pub dry_run: bool,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How the process exits.
    pub exit_code: u8,
    /// Why it stopped early, if it did.
    pub stopped: Option<String>,
    /// What was read.
    pub source: SourceSummary,
    /// Sessions by outcome, and what was written.
    pub counts: RunCounts,
    /// Lines that named a session which this run had on its list already.
    pub repeated: u64,
    /// Sessions that failed or are pending, by code.
    pub codes: Vec<CodeSummary>,
    /// What a person should know of sessions that did not fail, by code.
    pub warnings: BTreeMap<String, u64>,
    /// Integrations that were stopped, and why.
    pub stopped_integrations: BTreeMap<String, String>,
    /// What Veriff was asked.
    pub requests: RequestSummary,
    /// Deadlines of sessions still to be done, as the ledger has them.
    pub horizon: HorizonSummary,
    /// The place of the run record; nothing if the run wrote none, or a later one has to close it.
    pub run_record: Option<RunRecordSummary>,
    /// The exact command to type next, or `nothing`.
    pub next: String,
}

/// The place of a run record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct RunRecordSummary {
    /// Its key.
    pub key: ObjectKey,
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
    /// The chain it is entered in.
    pub group: String,
    /// The key of its entry.
    pub chain_key: ObjectKey,
    /// The number of its entry.
    pub chain_number: u32,
    /// The digest of the entry's bytes, which `audit chain --expect-head` takes.
    pub chain_sha256: Sha256Digest,
    /// It is signed.
    pub signed: bool,
}

/// What was read of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct SourceSummary {
    /// Its kind.
    pub kind: String,
    /// How many records were taken from it, bad ones included.
    pub records: u64,
    /// The digest of all its bytes, if it was read to its end.
    pub sha256: Option<Sha256Digest>,
}

/// How many sessions ended with a code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct CodeSummary {
    /// The code; its paragraph in docs/runbook.md has cause and repair.
    pub code: String,
    /// A later run may succeed without anyone doing anything.
    pub retryable: bool,
    /// How many.
    pub sessions: u64,
}

/// What Veriff was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct RequestSummary {
    /// Requests sent.
    pub sent: u64,
    /// Answers 429.
    pub throttled: u64,
    /// How often something was tried again.
    pub retries: u64,
    /// Media items downloaded.
    pub downloads: u64,
    /// Bytes of media received.
    pub bytes_received: u64,
}

/// Deadlines of sessions still to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
pub struct HorizonSummary {
    /// Whole days until the nearest deadline; negative if it has passed.
    pub nearest_days_left: Option<i64>,
    /// Sessions whose deadline is not known.
    pub unknown: u64,
    /// Sessions whose deadline comes within `limits.horizon_alarm`.
    pub within_alarm: u64,
    /// Sessions whose deadline has passed.
    pub past: u64,
}

impl Tally {
    /// Counts one session.
    pub fn count(&mut self, outcome: Outcome, code: Option<Code>) {
        let counts = &mut self.counts;
        match outcome {
            Outcome::Archived => counts.archived += 1,
            Outcome::Unchanged => counts.unchanged += 1,
            Outcome::Absent => counts.absent += 1,
            Outcome::Failed => counts.failed += 1,
            Outcome::Pending => counts.pending += 1,
        }
        match (outcome, code) {
            (Outcome::Failed | Outcome::Pending | Outcome::Absent, Some(code)) => {
                *self.codes.entry(code).or_default() += 1;
            }
            (_, Some(code)) => self.warn(code.as_str()),
            (_, None) => {}
        }
    }

    /// Counts what one visit brought: items and bytes that are new, and the codes of what was odd about them. A session
    /// that is tried again has several visits.
    pub fn note(&mut self, (media, bytes): (u64, u64), anomalies: &[String]) {
        self.counts.media += media;
        self.counts.bytes += bytes;
        for code in anomalies {
            self.warn(code);
        }
    }

    /// Counts something a person should know.
    pub fn warn(&mut self, code: &str) {
        *self.warnings.entry(code.to_owned()).or_default() += 1;
    }

    /// Returns the sum of all outcomes.
    #[must_use]
    pub const fn sessions(&self) -> u64 {
        let counts = &self.counts;
        counts.archived + counts.unchanged + counts.absent + counts.failed + counts.pending
    }

    /// Returns the codes as the summary reports them.
    #[must_use]
    pub fn code_summaries(&self) -> Vec<CodeSummary> {
        let tell = |(code, sessions): (&Code, &u64)| CodeSummary {
            code: code.to_string(),
            retryable: code.is_retryable(),
            sessions: *sessions,
        };
        self.codes.iter().map(tell).collect()
    }
}

/// Decides how the process exits; when several exits apply, the first in the order of the contract does.
#[must_use]
pub fn exit_of(
    tally: &Tally,
    stopped: Option<Stopped>,
    any_integration_stopped: bool,
    horizon: HorizonSummary,
    limit_exit_code: u8,
) -> Exit {
    let mut exits = vec![Exit::Success];
    match stopped {
        Some(Stopped::Interrupted) => exits.push(Exit::Interrupted),
        Some(Stopped::Terminated) => exits.push(Exit::Terminated),
        Some(Stopped::Limit(_)) => exits.push(Exit::Limit(limit_exit_code)),
        Some(Stopped::Integrations) => exits.push(Exit::Refused),
        Some(Stopped::NoProgress) => exits.push(Exit::TryLater),
        Some(Stopped::Fatal(code)) => exits.push(Exit::of_fatal(code)),
        None => {}
    }
    if any_integration_stopped {
        exits.push(Exit::Refused);
    }
    if horizon.past > 0 || horizon.within_alarm > 0 {
        exits.push(Exit::Horizon);
    }
    let lasting = tally.codes.iter().any(|(code, sessions)| *sessions > 0 && !code.is_retryable());
    if tally.counts.absent > 0 || tally.counts.failed > 0 && lasting {
        exits.push(Exit::Failures);
    }
    if tally.counts.failed > 0 || tally.counts.pending > 0 {
        exits.push(Exit::TryLater);
    }
    exits.into_iter().min().unwrap_or(Exit::Success)
}

/// Returns whole days from now to a deadline, negative if it has passed.
#[must_use]
pub fn days_until(deadline: Timestamp, now: Timestamp) -> i64 {
    let day = i64::try_from(Duration::from_hours(24).as_millis()).unwrap_or(i64::MAX);
    deadline.millis_since(now).div_euclid(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(outcomes: &[(Outcome, Option<Code>)]) -> Tally {
        let mut tally = Tally::default();
        for (outcome, code) in outcomes {
            tally.count(*outcome, *code);
        }
        tally
    }

    fn exit(outcomes: &[(Outcome, Option<Code>)], stopped: Option<Stopped>) -> u8 {
        exit_of(&tally(outcomes), stopped, false, HorizonSummary::default(), 10).code()
    }

    #[test]
    fn the_exit_code_follows_from_the_outcomes() {
        use Outcome::{Absent, Archived, Failed, Pending, Unchanged};
        assert_eq!(exit(&[], None), 0);
        assert_eq!(exit(&[(Archived, None), (Unchanged, Some(Code::RetentionDiffers))], None), 0);
        assert_eq!(exit(&[(Absent, Some(Code::VeriffAbsent))], None), 3);
        assert_eq!(exit(&[(Failed, Some(Code::VeriffUnavailable))], None), 5);
        assert_eq!(exit(&[(Failed, Some(Code::VeriffUnavailable)), (Failed, Some(Code::MediaEmpty))], None), 3);
        assert_eq!(exit(&[(Pending, Some(Code::RunStopped))], Some(Stopped::Terminated)), 143);
        assert_eq!(exit(&[(Archived, None)], Some(Stopped::Limit("--max-sessions"))), 10);
        assert_eq!(exit(&[(Failed, Some(Code::MediaEmpty))], Some(Stopped::Limit("--max-failures"))), 3);
        assert_eq!(exit(&[(Pending, Some(Code::VeriffUnauthorized))], Some(Stopped::Integrations)), 77);
        assert_eq!(exit(&[], Some(Stopped::Fatal(Code::LedgerUnavailable))), 5);
        assert_eq!(exit(&[], Some(Stopped::NoProgress)), 5);
    }

    #[test]
    fn a_deadline_within_the_alarm_comes_before_failures() {
        let horizon = HorizonSummary { within_alarm: 1, ..HorizonSummary::default() };
        let failed = tally(&[(Outcome::Failed, Some(Code::MediaEmpty))]);
        assert_eq!(exit_of(&failed, None, false, horizon, 10), Exit::Horizon);
        assert_eq!(exit_of(&failed, Some(Stopped::Terminated), false, horizon, 10), Exit::Terminated);
        assert_eq!(exit_of(&failed, None, true, horizon, 10), Exit::Refused);
    }

    #[test]
    fn days_left_are_whole_and_negative_once_past() {
        let now = Timestamp::from_unix_seconds(1_000_000);
        assert_eq!(days_until(now.plus(Duration::from_hours(50)), now), 2);
        assert_eq!(days_until(now.plus_millis(-1), now), -1);
    }
}
